//! Bytes and truth: what the far side does is what the near side sees.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use crate::client::{rest, sum};
use crate::world::{World, seconds};

/// In a debug build, on a busy machine.
const BIG: usize = 20_000_000;

fn checks(flags: &[&str]) {
    let Some(world) = World::start() else { return };
    let ws = &world.ws;
    world.connected(flags, |_| {
        let back = ws.echo_datagrams("edge", 9004, 50).unwrap();
        assert_eq!(back, 50, "UDP datagrams come back");

        let began = Instant::now();
        let error = ws.reach("db", 9999).unwrap_err();
        let took = began.elapsed();
        println!("a closed port is refused after {took:?}");
        assert!(error.kind() == ErrorKind::ConnectionRefused && took < seconds(1), "{error} after {took:?}");

        // The answer comes after the end of the question.
        assert_eq!(ws.exchange("edge", 9001, 300_000).unwrap(), sum(300_000));
        let mut sink = ws.reach("edge", 9003).unwrap();
        sink.write_all(&vec![7; 300_000]).unwrap();
        sink.shutdown(Shutdown::Write).unwrap();
        let mut counted = String::new();
        sink.read_to_string(&mut counted).unwrap();
        assert_eq!(counted, "300000\n");

        // Whether the connect or the read hears it is the network's choice.
        let outcome = ws.reach("edge", 9006).and_then(|mut stream| stream.read(&mut [0]));
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::ConnectionReset);

        let mut stream = ws.reach("edge", 80).unwrap();
        let began = Instant::now();
        write!(stream, "GET /bytes?n={BIG} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n").unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        assert_eq!(rest(&mut stream).unwrap(), sum(BIG));
        println!("down: {:.0} Mbit/s", mbits(began.elapsed()));

        let began = Instant::now();
        assert_eq!(ws.exchange("edge", 9001, BIG).unwrap(), sum(BIG));
        println!("up and down at once: {:.0} Mbit/s", mbits(began.elapsed()));

        // A hundred at once: each is open before the first is asked anything.
        let address = ws.lookup("edge").unwrap()[0];
        let mut all: Vec<_> = (0..100).map(|_| ws.connect((address, 80).into()).unwrap()).collect();
        for stream in &mut all {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n").unwrap();
        }
        for stream in &mut all {
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
    });
}

fn mbits(took: Duration) -> f64 {
    BIG as f64 * 8.0 / took.as_secs_f64() / 1e6
}

#[test]
fn what_the_far_side_does_is_what_the_near_side_sees_directly() {
    checks(&[]);
}

#[test]
fn what_the_far_side_does_is_what_the_near_side_sees_through_a_workload() {
    checks(&["--proxy-via", "all=web"]);
}
