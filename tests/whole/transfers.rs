//! Programs with patience: long transfers of which every byte has to come, once, whatever happens meanwhile.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::client::{Sum, exchange, rest, sum};
use crate::workstation::Workstation;

/// Longer than any outage.
const PATIENCE: Duration = Duration::from_secs(150);

/// A connection whose program has the patience for an outage.
pub fn patient(ws: &Workstation, host: &str, port: u16) -> TcpStream {
    let stream = ws.reach(host, port).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// So many bytes from a sample server's `/bytes`.
fn download(mut stream: TcpStream, count: usize) -> Sum {
    write!(stream, "GET /bytes?n={count} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n").unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    rest(&mut stream).unwrap()
}

/// Downloads, and uploads to a server that sends all of it back, at a time; `disturb` runs beside them and ends with them.
/// None of them may see a reset, nor another byte.
pub fn carries(ws: &Workstation, count: usize, disturb: impl FnOnce(&dyn Fn() -> bool)) {
    let (down, up) = (patient(ws, "edge", 80), patient(ws, "edge", 9001));
    thread::scope(|scope| {
        let down = scope.spawn(|| download(down, count));
        let up = scope.spawn(|| exchange(up, count).unwrap());
        disturb(&|| down.is_finished() && up.is_finished());
        assert_eq!(down.join().unwrap(), sum(count), "down");
        assert_eq!(up.join().unwrap(), sum(count), "up and back");
    });
}
