//! Datagrams on their whole way to pods: their sizes, who is not there, and how long silence is borne.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};

use crate::world::{World, seconds, until};

/// One pod's addresses: a service's pods would share the parts of a long datagram.
fn pod(world: &World) -> Vec<IpAddr> {
    let pod = world.cluster.pods("demo", "edge").unwrap().remove(0);
    let addresses = pod["status"]["podIPs"].as_array().unwrap();
    addresses.iter().map(|address| address["ip"].as_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn each_datagram_to_a_pod_and_back_is_one_and_who_is_not_there_refuses() {
    let Some(world) = World::start() else { return };
    let pod = pod(&world);
    assert_eq!(pod.len(), 2);
    world.connected(&[], |podway| {
        for host in &pod {
            let longest = if host.is_ipv4() { 65_507 } else { 65_527 };
            let socket = world.ws.datagrams(SocketAddr::new(*host, 9004)).unwrap();
            let mut buffer = vec![0; 70_000];
            for size in [0, 1, 1452, 1472, 9000, longest] {
                let sent: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).unwrap()).collect();
                socket.send(&sent).unwrap();
                let length = socket.recv(&mut buffer).unwrap();
                assert!(buffer[..length] == sent, "{host}: {length} bytes of {size}");
            }
            let nobody = world.ws.datagrams(SocketAddr::new(*host, 9999)).unwrap();
            for size in [1, 9000] {
                nobody.send(&vec![7; size]).unwrap();
                assert_eq!(nobody.recv(&mut buffer).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{host}");
            }
        }
        let dropped = podway.status().flows.dropped;
        assert_eq!((dropped.fragment, dropped.too_long, dropped.forwarded), (0, 0, 0), "{dropped:?}");
    });
}

#[test]
fn how_long_an_association_may_be_silent_is_set() {
    let Some(world) = World::start() else { return };
    let pod = pod(&world);
    world.with_daemon(|podway| {
        podway.stop();
        podway.launch.variables.push(("PODWAY_UDP_IDLE".to_owned(), "1s".to_owned()));
        podway.start();
        podway.connect(&[]);
        let counted = || {
            let flows = podway.status().flows;
            (flows.udp_open, flows.udp_total)
        };
        for (host, before) in pod.iter().zip([0, 2]) {
            let socket = world.ws.datagrams(SocketAddr::new(*host, 9004)).unwrap();
            let mut answer = [0; 16];
            for (question, number) in [(&b"one"[..], 1), (b"two", 2)] {
                socket.send(question).unwrap();
                let length = socket.recv(&mut answer).unwrap();
                assert_eq!(&answer[..length], question);
                // Counters are told once a second.
                until("it is over", seconds(10), || (counted() == (0, before + number)).then_some(()));
            }
        }
        podway.disconnect(&[]);
    });
}
