//! A network without podway: a device whose other end gives each packet back after a while, source and destination
//! exchanged. So a host speaks to itself over a way that takes time, and all of TCP is the kernel's own.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use podway::net::tun::{PacketDevice, TunDevice};
use tokio::time::{Instant, sleep_until};

use super::program::Random;
use crate::real::ip;

/// Where servers are.
pub(crate) const HERE: [&str; 2] = ["10.77.0.1", "fd77::1"];
/// Addresses by which they are reached over the wire; the last number is the [`Delay`].
const THERE: [&str; 2] = ["10.77.1.", "fd77:1::"];

/// How long packets take, milliseconds: at least, and at most, each way. They keep their order.
pub(crate) const DELAYS: [[(u64, u64); 2]; 11] = [
    [(60, 120), (0, 0)],
    [(0, 0), (60, 120)],
    [(0, 0), (0, 0)],
    [(0, 30), (0, 30)],
    [(0, 3), (0, 3)],
    [(15, 30), (0, 0)],
    [(0, 0), (15, 30)],
    [(3, 3), (3, 3)],
    [(8, 8), (0, 0)],
    [(0, 0), (8, 8)],
    [(20, 30), (20, 30)],
];
/// With so many of them the packets of a handshake take no time: what follows is late even for whoever accepts.
const LATE: usize = 7;
/// Packets of a handshake, each way.
const HANDSHAKE: usize = 2;

/// The far end of the wire with this delay.
pub(crate) fn there(v6: bool, delay: usize) -> IpAddr {
    // In an IPv6 address the number is hexadecimal.
    let last = if v6 { format!("{delay:x}") } else { delay.to_string() };
    format!("{}{last}", THERE[usize::from(v6)]).parse().unwrap()
}

/// Makes the device and carries its packets until the runtime ends.
pub(crate) fn start(mtu: usize) {
    let device = TunDevice::create("wire0", mtu).unwrap();
    ip(&format!("link set wire0 mtu {mtu} up"));
    ip("addr add 10.77.0.1/32 dev wire0");
    ip("addr add fd77::1/128 dev wire0 nodad");
    ip("route add 10.77.1.0/24 dev wire0 src 10.77.0.1");
    ip("route add fd77:1::/64 dev wire0 src fd77::1");
    tokio::spawn(carry(device));
}

async fn carry(device: TunDevice) {
    let mut random = Random::new(1);
    let mut buffer = vec![0; 65_536];
    let mut last: HashMap<(u16, u16, u8), (Instant, usize)> = HashMap::new();
    let mut under_way: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>> = BinaryHeap::new();
    for number in 0.. {
        let next = under_way.peek().map(|Reverse((due, ..))| *due);
        tokio::select! {
            readable = device.readable() => {
                if readable.is_err() {
                    return;
                }
                let Ok(length) = device.try_recv(&mut buffer) else { continue };
                let mut packet = buffer[..length].to_vec();
                let Some((flow, delay, way)) = turn(&mut packet) else { continue };
                let (least, most) = DELAYS[delay][way];
                let (after, packets) = last.entry(flow).or_insert((Instant::now(), 0));
                let takes = if delay < LATE && *packets < HANDSHAKE { 0 } else { least * 1000 + random.next() % ((most - least) * 1000 + 1) };
                let due = (*after).max(Instant::now() + Duration::from_micros(takes));
                (*after, *packets) = (due, *packets + 1);
                if due <= Instant::now() && under_way.is_empty() {
                    drop(device.try_send(&packet));
                } else {
                    under_way.push(Reverse((due, number, packet)));
                }
            }
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                while under_way.peek().is_some_and(|Reverse((due, ..))| *due <= Instant::now()) {
                    let Some(Reverse((_, _, packet))) = under_way.pop() else { break };
                    drop(device.try_send(&packet));
                }
            }
        }
    }
}

/// Exchanges the addresses, which leaves all checksums right. Gives the ports, the number of the delay, and the way.
fn turn(packet: &mut [u8]) -> Option<((u16, u16, u8), usize, usize)> {
    let (at, length, ports) = match packet.first()? >> 4 {
        4 => (12, 4, 4 * usize::from(packet[0] & 0xf)),
        _ => (8, 16, 40),
    };
    let ports = packet.get(ports..ports + 4)?;
    let (from, to) = (u16::from_be_bytes([ports[0], ports[1]]), u16::from_be_bytes([ports[2], ports[3]]));
    let (source, destination) = packet.get_mut(at..at + 2 * length)?.split_at_mut(length);
    let delay = destination[length - 1];
    source.swap_with_slice(destination);
    (usize::from(delay) < DELAYS.len()).then_some(((from, to, delay), delay.into(), usize::from(from < to)))
}
