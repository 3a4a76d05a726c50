//! Echo by ICMP and ICMPv6 through a real agent: what came back there is what comes back here, and nothing else.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

use super::datagrams::filled;
use super::{podway, through};
use crate::UDP_IDLE;
use crate::real::{MTU, World, in_namespace, ip};

/// Nobody is there: the agent has no way to it.
const NOBODY: [&str; 2] = ["246.246.1.8", "fd99::108"];
const SOON: Duration = Duration::from_secs(10);

/// podway with an agent whose group may ask for echoes, or not (icmp(7)).
async fn podway_that_may(groups: &str, mtu: usize) -> World {
    std::fs::write("/proc/sys/net/ipv4/ping_group_range", groups).unwrap();
    podway(mtu, UDP_IDLE).await
}

/// A socket as `ping` of root has one: of raw ICMP, and it hears errors too.
fn ping(to: IpAddr) -> UdpSocket {
    let (family, protocol) =
        if to.is_ipv4() { (AddressFamily::INET, ipproto::ICMP) } else { (AddressFamily::INET6, ipproto::ICMPV6) };
    let socket = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol)).unwrap();
    rustix::net::connect(&socket, &SocketAddr::new(to, 0)).unwrap();
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

fn ask(socket: &UdpSocket, v6: bool, sequence: u8, payload: &[u8]) {
    let mut request = [&[if v6 { 128 } else { 8 }, 0, 0, 0, 0, 77, 0, sequence], payload].concat();
    if !v6 {
        // Of ICMPv6 the kernel writes it (RFC 3542 section 3.1).
        let words = request.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
        let mut sum: u32 = words.sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        request[2..4].copy_from_slice(&(!u16::try_from(sum).unwrap()).to_be_bytes());
    }
    socket.send(&request).unwrap();
}

/// The next message, without headers of IP.
fn told(socket: &UdpSocket, v6: bool) -> std::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 70_000];
    let length = socket.recv(&mut buffer)?;
    Ok(buffer[if v6 { 0 } else { 20 }..length].to_vec())
}

#[test]
fn what_comes_back_to_the_agent_comes_back_here_whatever_its_size() {
    for mtu in [MTU, 1280] {
        in_namespace(move || async move {
            let world = podway_that_may("0 2147483647", mtu).await;
            // Kernels miscount what a ping socket sends in one piece of more than 16 KiB, which takes a device of such an MTU.
            ip("link set lo mtu 1500");
            for v6 in [false, true] {
                let socket = ping(through(v6).dials);
                for (sequence, size) in (1..).zip([0, 56, 1472, 9000, 65_507]) {
                    ask(&socket, v6, sequence, &filled(size, 1));
                    let answer = told(&socket, v6).unwrap();
                    let expected = [if v6 { 129 } else { 0 }, 0, 0, 77, 0, sequence];
                    assert_eq!([&answer[..2], &answer[4..8]].concat(), expected, "IPv6: {v6}, {size} bytes");
                    assert!(answer[8..] == filled(size, 1), "IPv6: {v6}, {size} bytes");
                }
            }
            assert_eq!(world.handle.counters().refused, 0);
        });
    }
}

#[test]
fn where_nobody_answers_or_nobody_may_ask_there_is_no_answer_but_the_reason() {
    for (groups, may) in [("0 2147483647", true), ("1 0", false)] {
        in_namespace(move || async move {
            let world = podway_that_may(groups, MTU).await;
            for (v6, before) in [(false, 0), (true, 1)] {
                let to = if may { NOBODY[usize::from(v6)].parse().unwrap() } else { through(v6).dials };
                let socket = ping(to);
                ask(&socket, v6, 1, b"podway");
                while world.handle.counters().refused == before {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                // What is fatal is told as an error of the socket first (icmp(7)).
                if !may {
                    let kind = if v6 { ErrorKind::PermissionDenied } else { ErrorKind::HostUnreachable };
                    assert_eq!(told(&socket, v6).unwrap_err().kind(), kind);
                }
                // A raw socket is given the message as well: no way there, or forbidden (RFC 1812 section 5.2.7.1, RFC 4443
                // section 3.1).
                let expected = match (v6, may) {
                    (false, true) => [3, 0],
                    (false, false) => [3, 13],
                    (true, true) => [1, 0],
                    (true, false) => [1, 1],
                };
                assert_eq!(told(&socket, v6).unwrap()[..2], expected);
                socket.set_nonblocking(true).unwrap();
                assert_eq!(told(&socket, v6).unwrap_err().kind(), ErrorKind::WouldBlock);
            }
        });
    }
}
