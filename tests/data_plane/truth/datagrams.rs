//! Datagrams: each one whole, to whom it was sent and from whom it came, or an error that says why not.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use nix::libc::EMSGSIZE;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use podway::net::counters::CountersSnapshot;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::{Random, direct, podway, through};
use crate::UDP_IDLE;
use crate::real::{MTU, World, in_namespace};

/// The longest that a kernel sends: the length fields of UDP, and of an IPv4 packet.
pub(crate) const LONGEST: [usize; 2] = [65_507, 65_527];
pub(crate) const SOON: Duration = Duration::from_secs(10);
/// Clients, and the servers that each of them asks.
const CLIENTS: usize = 200;
const SERVERS: usize = 5;
/// Questions under way at once: fewer than any queue on the way takes.
const AT_ONCE: usize = 40;

/// A server, and where clients find it.
async fn server(v6: bool) -> (UdpSocket, SocketAddr) {
    let way = through(v6);
    let server = UdpSocket::bind((way.listens, 0)).await.unwrap();
    let at = SocketAddr::new(way.dials, server.local_addr().unwrap().port());
    (server, at)
}

pub(crate) async fn client(to: SocketAddr) -> UdpSocket {
    let client = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).await.unwrap();
    client.connect(to).await.unwrap();
    client
}

/// The next datagram, or the error that came instead.
pub(crate) async fn next(socket: &UdpSocket) -> std::io::Result<(Vec<u8>, SocketAddr)> {
    let mut buffer = vec![0; 70_000];
    let (length, from) = timeout(SOON, socket.recv_from(&mut buffer)).await.expect("something came")?;
    buffer.truncate(length);
    Ok((buffer, from))
}

async fn counted(world: &World, what: impl Fn(&CountersSnapshot) -> bool) {
    let wait = async {
        while !what(&world.handle.counters()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(timeout(SOON, wait).await.is_ok(), "{:?}", world.handle.counters());
}

pub(crate) fn filled(length: usize, with: usize) -> Vec<u8> {
    (0..length).map(|i| ((i + with) % 251) as u8).collect()
}

#[test]
fn each_datagram_is_one_whatever_its_size_and_the_devices() {
    for mtu in [MTU, 1500, 1280] {
        in_namespace(move || async move {
            let world = podway(mtu, UDP_IDLE).await;
            for (v6, longest) in [(false, LONGEST[0]), (true, LONGEST[1])] {
                let (server, at) = server(v6).await;
                let itself = SocketAddr::new(direct(v6, 0).dials, at.port());
                for to in [itself, at] {
                    let client = client(to).await;
                    let fit = mtu - if v6 { 48 } else { 28 };
                    for size in [0, 1, 1472, fit, fit + 1, 9000, 65_487, longest] {
                        let question = filled(size, 1);
                        client.send(&question).await.unwrap();
                        let (came, from) = next(&server).await.unwrap();
                        assert!(came == question, "{to}: {} bytes of {size} came", came.len());
                        let answer = filled(size, 2);
                        server.send_to(&answer, from).await.unwrap();
                        let (came, _) = next(&client).await.unwrap();
                        assert!(came == answer, "{to}: {} bytes of {size} came back", came.len());
                    }
                    let refused = client.send(&filled(longest + 1, 1)).await.unwrap_err();
                    assert_eq!(refused.raw_os_error(), Some(EMSGSIZE), "{to}");
                }
            }
            let counters = world.handle.counters();
            assert_eq!((counters.dropped_fragment, counters.dropped_too_long), (0, 0), "{counters:?}");
        });
    }
}

#[test]
fn who_is_refused_hears_of_it_and_is_served_once_somebody_is_there() {
    in_namespace(|| async {
        let _world = podway(MTU, UDP_IDLE).await;
        for v6 in [false, true] {
            for to in [direct(v6, 0).dials, through(v6).dials] {
                for size in [1, 9000, 65_507] {
                    // A port that was free a moment ago.
                    let at = close(server(v6).await.0).await;
                    let client = client(SocketAddr::new(to, at.port())).await;
                    let refused = async |what: &str| {
                        client.send(&filled(size, 0)).await.unwrap();
                        let error = next(&client).await.expect_err("nobody is there");
                        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to}, {size} bytes, {what}");
                    };
                    refused("at first").await;
                    let server = bound(at).await;
                    client.send(b"and now?").await.unwrap();
                    let (came, from) = next(&server).await.unwrap();
                    assert_eq!(came, b"and now?", "{to}");
                    server.send_to(b"yes", from).await.unwrap();
                    assert_eq!(next(&client).await.unwrap().0, b"yes", "{to}");
                    close(server).await;
                    refused("again").await;
                    refused("and again").await;
                }
            }
        }
    });
}

#[test]
fn a_silent_association_ends_when_it_was_said_to_and_the_next_datagram_begins_another() {
    // Longer than an answer takes where all else runs at the same time.
    const IDLE: Duration = Duration::from_secs(2);
    in_namespace(|| async {
        let world = podway(MTU, IDLE).await;
        for (v6, before) in [(false, 0), (true, 2)] {
            let (mut server, at) = server(v6).await;
            let client = client(at).await;
            for number in 1..=2 {
                client.send(b"question").await.unwrap();
                let (_, from) = next(&server).await.unwrap();
                server.send_to(b"answer", from).await.unwrap();
                assert_eq!(next(&client).await.unwrap().0, b"answer");
                counted(&world, |c| c.udp_total == before + number && c.udp_open == 0).await;
                // The agent's end of it goes too: the server is refused there.
                server = again(server).await;
                server.connect(from).await.unwrap();
                let told = async {
                    loop {
                        if let Err(error) = server.send(b"still there?").await {
                            return error.kind();
                        }
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                };
                assert_eq!(timeout(SOON, told).await.unwrap(), ErrorKind::ConnectionRefused);
                server = again(server).await;
            }
        }
    });
}

/// The same server, not connected.
async fn again(server: UdpSocket) -> UdpSocket {
    let at = server.local_addr().unwrap();
    drop(server);
    bound(at).await
}

/// A socket at an address that was another's, once that is closed: a command that another test starts has all of this
/// process's sockets until it runs.
async fn bound(at: SocketAddr) -> UdpSocket {
    let binds = async {
        loop {
            match UdpSocket::bind(at).await {
                Err(error) if error.kind() == ErrorKind::AddrInUse => {
                    tokio::time::sleep(Duration::from_millis(1)).await
                }
                bound => return bound.unwrap(),
            }
        }
    };
    timeout(SOON, binds).await.expect("the address is free")
}

/// Closes a socket, which takes nothing more, whoever else has it for a moment.
async fn close(server: UdpSocket) -> SocketAddr {
    let at = server.local_addr().unwrap();
    server.connect((at.ip(), 9)).await.unwrap();
    at
}

/// Asks a server, and says who asks and what.
fn question(client: usize, server: usize, round: usize) -> Vec<u8> {
    format!("{client} asks {server} in round {round}").into_bytes()
}

#[test]
fn of_many_clients_each_gets_its_own_answers_and_no_others() {
    in_namespace(|| async {
        // The agent has a socket for each association.
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
        let world = podway(MTU, UDP_IDLE).await;
        for v6 in [false, true] {
            let mut servers = Vec::new();
            for number in 0..SERVERS {
                let (server, at) = server(v6).await;
                servers.push(at);
                tokio::spawn(async move {
                    loop {
                        let (asked, from) = {
                            let mut buffer = vec![0; 2048];
                            let (length, from) = server.recv_from(&mut buffer).await.unwrap();
                            buffer.truncate(length);
                            (buffer, from)
                        };
                        let answer = [format!("{number}: ").as_bytes(), &asked].concat();
                        server.send_to(&answer, from).await.unwrap();
                    }
                });
            }
            let any = if v6 { "[::]:0" } else { "0.0.0.0:0" };
            let mut clients = Vec::new();
            for _ in 0..CLIENTS {
                clients.push(UdpSocket::bind(any).await.unwrap());
            }
            let mut random = Random::new(7);
            for round in 0..3 {
                let mut all: Vec<(usize, usize)> =
                    (0..CLIENTS).flat_map(|client| (0..SERVERS).map(move |server| (client, server))).collect();
                for at in (1..all.len()).rev() {
                    all.swap(at, random.below(at + 1));
                }
                for some in all.chunks(AT_ONCE) {
                    let mut expected: Vec<BTreeSet<(SocketAddr, Vec<u8>)>> = vec![BTreeSet::new(); CLIENTS];
                    for (client, server) in some {
                        let asked = question(*client, *server, round);
                        clients[*client].send_to(&asked, servers[*server]).await.unwrap();
                        let answer = [format!("{server}: ").as_bytes(), &asked].concat();
                        expected[*client].insert((servers[*server], answer));
                    }
                    for (client, _) in some {
                        let (came, from) = next(&clients[*client]).await.unwrap();
                        let told = String::from_utf8_lossy(&came).into_owned();
                        assert!(expected[*client].remove(&(from, came)), "{client} was told {told:?} by {from}");
                    }
                }
                for client in &clients {
                    let more = client.try_recv(&mut [0; 64]).unwrap_err();
                    assert_eq!(more.kind(), ErrorKind::WouldBlock, "somebody was told twice");
                }
                // The ports of every other one go to another program.
                let ports: Vec<SocketAddr> =
                    clients.iter().step_by(2).map(|client| client.local_addr().unwrap()).collect();
                clients = clients.into_iter().skip(1).step_by(2).collect();
                for port in ports {
                    clients.push(bound(port).await);
                }
            }
            let counters = world.handle.counters();
            assert_eq!(counters.udp_open, ((1 + usize::from(v6)) * CLIENTS * SERVERS) as u64, "{counters:?}");
        }
    });
}
