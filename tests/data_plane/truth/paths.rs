//! A far host behind a path that takes less than either end: programs need not know of it.
//!
//! ```text
//! agent 10.87.0.1 ─ 1500 ─ router ─ 1280 ─ router ─ 1500 ─ 10.88.0.7 far
//! ```

use std::net::{SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::datagrams::{LONGEST, client, filled, next};
use super::podway;
use crate::UDP_IDLE;
use crate::elsewhere::Elsewhere;
use crate::real::{MTU, in_namespace, ip};

/// Where programs find the far host.
const FAR: [&str; 2] = ["246.246.1.8", "fd99::108"];
/// Bytes each way.
const MUCH: usize = 3_000_000;
/// Longer than they take, however busy the machine is.
const STALL: Duration = Duration::from_secs(60);

/// The far host; the routers on the way to it stay as long as they are held.
fn far() -> (Elsewhere, [Elsewhere; 2]) {
    let (near, middle, far) = (Elsewhere::new().joined("wire0", "near0"), Elsewhere::new(), Elsewhere::new());
    near.joins("narrow0", &middle, "narrow1");
    middle.joins("far0", &far, "eth0");
    for command in [
        "addr add 10.87.0.1/24 dev wire0",
        "addr add fd87::1/64 dev wire0 nodad",
        "link set wire0 up",
        "route add 10.88.0.0/24 via 10.87.0.2",
        "route add fd88::/64 via fd87::2",
    ] {
        ip(command);
    }
    near.ip(&[
        "addr add 10.87.0.2/24 dev near0",
        "addr add fd87::2/64 dev near0 nodad",
        "addr add 10.87.1.1/24 dev narrow0",
        "addr add fd87:1::1/64 dev narrow0 nodad",
        "link set near0 up",
        "link set narrow0 mtu 1280 up",
        "route add 10.88.0.0/24 via 10.87.1.2",
        "route add fd88::/64 via fd87:1::2",
    ]);
    middle.ip(&[
        "addr add 10.87.1.2/24 dev narrow1",
        "addr add fd87:1::2/64 dev narrow1 nodad",
        "addr add 10.88.0.1/24 dev far0",
        "addr add fd88::1/64 dev far0 nodad",
        "link set narrow1 mtu 1280 up",
        "link set far0 up",
        "route add 10.87.0.0/24 via 10.87.1.1",
        "route add fd87::/64 via fd87:1::1",
    ]);
    far.ip(&[
        "addr add 10.88.0.7/24 dev eth0",
        "addr add fd88::7/64 dev eth0 nodad",
        "link set eth0 up",
        "route add 10.87.0.0/16 via 10.88.0.1",
        "route add fd87::/64 via fd88::1",
        "route add fd87:1::/64 via fd88::1",
    ]);
    near.routes();
    middle.routes();
    (far, [near, middle])
}

#[test]
fn datagrams_of_every_size_pass_a_narrow_path() {
    in_namespace(|| async {
        let _world = podway(MTU, UDP_IDLE).await;
        let (far, _routers) = far();
        for (v6, longest) in [(false, LONGEST[0]), (true, LONGEST[1])] {
            let any = if v6 { "[::]:0" } else { "0.0.0.0:0" };
            let server = far.does(move || StdUdpSocket::bind(any).unwrap());
            server.set_nonblocking(true).unwrap();
            let server = UdpSocket::from_std(server).unwrap();
            let client =
                client(SocketAddr::new(FAR[usize::from(v6)].parse().unwrap(), server.local_addr().unwrap().port()))
                    .await;
            client.send(b"hello").await.unwrap();
            let (_, from) = next(&server).await.unwrap();
            // Whole packets for the agent's wire. A router of IPv4 cuts them; one of IPv6 tells who sent them, and that one is
            // lost, as it is without podway.
            let whole = if v6 { 1452 } else { 1472 };
            if v6 {
                client.send(&filled(whole, 0)).await.unwrap();
                client.send(b"behind it").await.unwrap();
                assert_eq!(next(&server).await.unwrap().0, b"behind it");
            }
            // The same of the far host's own kernel, in both families.
            for said in [&filled(whole, 0)[..], b"behind it"] {
                // What the kernel has heard of by then is told by the next call, and is about the one before.
                while server.send_to(said, from).await.is_err() {}
            }
            assert_eq!(next(&client).await.unwrap().0, b"behind it");
            for size in [1232, 1252, whole, whole + 1, 9000, longest] {
                let question = filled(size, 1);
                client.send(&question).await.unwrap();
                let (came, by) = next(&server).await.unwrap();
                assert!(came == question, "IPv6: {v6}: {} bytes of {size} came", came.len());
                assert_eq!(by, from, "it is the same association");
                let answer = filled(size, 2);
                server.send_to(&answer, from).await.unwrap();
                assert!(next(&client).await.unwrap().0 == answer, "IPv6: {v6}: {size} bytes did not come back");
            }
        }
    });
}

#[test]
fn streams_pass_a_narrow_path_both_ways_whatever_the_device_takes() {
    for mtu in [MTU, 1280] {
        in_namespace(move || streams(mtu));
    }
}

async fn streams(mtu: usize) {
    let _world = podway(mtu, UDP_IDLE).await;
    let (far, _routers) = far();
    for (any, host) in [("0.0.0.0:0", FAR[0]), ("[::]:0", FAR[1])] {
        let listener = far.does(move || StdTcpListener::bind(any).unwrap());
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let to = SocketAddr::new(host.parse().unwrap(), listener.local_addr().unwrap().port());
        let both = async {
            let (client, accepted) = tokio::join!(TcpStream::connect(to), listener.accept());
            let ends = [client.unwrap(), accepted.unwrap().0].map(|end| {
                let (mut read, mut write) = end.into_split();
                tokio::spawn(async move {
                    write.write_all(&filled(MUCH, 3)).await.unwrap();
                    write.shutdown().await.unwrap();
                });
                tokio::spawn(async move {
                    let mut came = Vec::new();
                    read.read_to_end(&mut came).await.unwrap();
                    came
                })
            });
            for end in ends {
                assert!(end.await.unwrap() == filled(MUCH, 3), "{to}");
            }
        };
        assert!(timeout(STALL, both).await.is_ok(), "{to} stalled");
    }
}
