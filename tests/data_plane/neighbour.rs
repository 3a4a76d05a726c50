//! A neighbour of the workstation that takes it for a router: the kernel forwards, podway does not.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket as StdUdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use podway::net::counters::CountersSnapshot;
use rustix::net::sockopt::{set_ip_ttl, set_ipv6_unicast_hops, socket_type};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, bind, sendto, socket_with};
use tokio::net::UdpSocket;

use super::elsewhere::{Elsewhere, routes};
use super::fake::{FakeLink, Manner};
use super::real::{World, in_namespace, ip, world};

/// Packets of a kind: more than what a host says to a device by itself.
const MANY: u64 = 40;
const SERVICES: [&str; 2] = ["10.96.0.7:80", "[fd00:10::7]:80"];
const VIRTUAL: [&str; 2] = ["246.246.1.0:80", "[fd99::100]:80"];
const NAMES: [&str; 2] = ["246.246.0.2:53", "[fd99::2]:53"];
const DEVICE: [&str; 2] = ["246.246.0.1", "fd99::1"];

/// A neighbour on a wire, which routes what is the cluster's through the workstation, as that lets it.
fn neighbour() -> Elsewhere {
    let neighbour = Elsewhere::new().joined("lan0", "eth0");
    for command in ["addr add 10.9.0.1/24 dev lan0", "addr add fd09::1/64 dev lan0 nodad", "link set lan0 up"] {
        ip(command);
    }
    neighbour.ip(&[
        "addr add 10.9.0.2/24 dev eth0",
        "addr add fd09::2/64 dev eth0 nodad",
        "link set eth0 up",
        "route add 10.96.0.0/12 via 10.9.0.1",
        "route add 246.246.0.0/16 via 10.9.0.1",
        "route add fd00:10::/64 via fd09::1",
        "route add fd99::/64 via fd09::1",
    ]);
    routes();
    neighbour
}

fn socket(to: SocketAddr, kind: SocketType) -> OwnedFd {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None).unwrap()
}

/// Asks [`MANY`] times, by datagrams or by connections; the sockets then know whether anybody answered.
fn asks(to: SocketAddr, kind: SocketType, from: Option<IpAddr>, hops: u8) -> Vec<OwnedFd> {
    let ask = |_| {
        let socket = socket(to, kind);
        if to.is_ipv4() {
            set_ip_ttl(&socket, hops.into()).unwrap();
        } else {
            set_ipv6_unicast_hops(&socket, Some(hops)).unwrap();
        }
        if let Some(from) = from {
            bind(&socket, &SocketAddr::new(from, 0)).unwrap();
        }
        if kind == SocketType::DGRAM {
            sendto(&socket, b"who is there", SendFlags::empty(), &to).unwrap();
        } else {
            assert_eq!(rustix::net::connect(&socket, &to), Err(rustix::io::Errno::INPROGRESS));
        }
        socket
    };
    (0..MANY).map(ask).collect()
}

/// Nobody did, nor refused.
fn unanswered(socket: OwnedFd) -> bool {
    if socket_type(&socket) == Ok(SocketType::DGRAM) {
        return StdUdpSocket::from(socket).recv(&mut [0; 16]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    }
    let stream = TcpStream::from(socket);
    stream.peer_addr().is_err() && stream.take_error().unwrap().is_none()
}

/// Waits until that many were counted.
async fn counted(world: &World, count: u64, what: fn(&CountersSnapshot) -> u64) {
    let wait = async {
        while what(&world.handle.counters()) < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), wait).await;
    assert!(waited.is_ok(), "{count}: {:?}", world.handle.counters());
}

#[test]
fn a_neighbour_gets_nothing_into_the_cluster_and_no_answer() {
    in_namespace(|| async {
        let (link, mut opened) = FakeLink::new(Manner::Open);
        let mut world = world(Arc::clone(&link));
        let neighbour = neighbour();
        for to in [SERVICES, VIRTUAL, NAMES].concat() {
            let to: SocketAddr = to.parse().unwrap();
            for kind in [SocketType::DGRAM, SocketType::STREAM] {
                let before = world.handle.counters().dropped_source;
                let asked = neighbour.does(move || asks(to, kind, None, 64));
                counted(&world, before + MANY, |c| c.dropped_source).await;
                assert!(asked.into_iter().all(unanswered), "the neighbour was answered");
            }
        }
        // In the name of the device. The kernel itself drops those of IPv4: nobody else can have an address of its own.
        neighbour.ip(&["addr add 246.246.0.1/32 dev lo", "addr add fd99::1/128 dev lo nodad"]);
        for (to, from) in SERVICES.iter().zip(DEVICE) {
            let (to, from): (SocketAddr, IpAddr) = (to.parse().unwrap(), from.parse().unwrap());
            for (kind, hops) in [(SocketType::DGRAM, 64), (SocketType::STREAM, 65), (SocketType::DGRAM, 255)] {
                let before = world.handle.counters().dropped_forwarded;
                let asked = neighbour.does(move || asks(to, kind, Some(from), hops));
                if to.is_ipv6() {
                    counted(&world, before + MANY, |c| c.dropped_forwarded).await;
                }
                assert!(asked.into_iter().all(unanswered), "the neighbour was answered");
            }
        }
        assert_eq!(link.dials.load(Ordering::SeqCst), 0, "a packet came out at the cluster");
        assert!(world.dns.try_recv().is_err(), "a question was taken");
        let counters = world.handle.counters();
        assert_eq!((counters.tcp_total, counters.udp_total, counters.packets_answered), (0, 0, 0), "{counters:?}");

        // Programs here are served meanwhile, as ever.
        for (to, from) in SERVICES.iter().zip(["0.0.0.0:0", "[::]:0"]) {
            let program = UdpSocket::bind(from).await.unwrap();
            program.send_to(b"question", to).await.unwrap();
            let far = opened.recv().await.unwrap();
            assert_eq!(far.read(8).await, b"question");
            far.write("answer");
            let mut answer = [0; 16];
            let (length, _) = program.recv_from(&mut answer).await.unwrap();
            assert_eq!(&answer[..length], b"answer");
        }
    });
}
