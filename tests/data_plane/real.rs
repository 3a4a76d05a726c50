//! A real TUN device and the kernel's own TCP, in a network namespace without an uplink.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::sched::{CloneFlags, unshare};
use podway::net::agent::{FlowEvent, OpenError};
use podway::net::data_plane::{DataPlane, DataPlaneHandle, Ended, Wiring};
use podway::net::dns_tap::{DnsQuery, DnsSink};
use podway::net::tun::{TunDevice, TunError};
use podway::net::views::ClientTable;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{mpsc, watch};

use super::fake::{FakeLink, Manner, Sent};
use super::{UDP_IDLE, links, vips};

pub(crate) const MTU: usize = 65_520;
const TO: [&str; 2] = ["10.96.0.7:80", "[fd00:10::7]:80"];

pub(crate) struct World {
    pub(crate) handle: DataPlaneHandle,
    pub(crate) dns: mpsc::Receiver<DnsQuery>,
    index: u32,
}

/// Says that a test was left out; fails where nothing may be.
fn skipped(why: &str) {
    assert!(std::env::var_os("PODWAY_REQUIRE_ROOT_TESTS").is_none(), "must not be left out here: {why}");
    println!("skipped: {why}");
}

/// Runs `test` in a namespace of its own; says so and skips where that is not allowed.
pub(crate) fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    in_namespace_for(Duration::from_secs(120), test);
}

/// The same for a test that may take so long.
pub(crate) fn in_namespace_for<F: Future<Output = ()>>(limit: Duration, test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            return skipped(&format!("no network namespace of its own ({error})"));
        }
        // Worker threads inherit the namespace of the thread that makes them.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(limit, test()).await.unwrap() });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

pub(crate) fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

pub(crate) fn world(link: Arc<FakeLink>) -> World {
    world_of(links(&[link]))
}

/// A device with its addresses and routes, and the data plane on it.
pub(crate) fn world_of(table: Arc<ClientTable>) -> World {
    world_with(table, MTU, UDP_IDLE)
}

/// The same with another MTU, and another time that associations may be silent.
pub(crate) fn world_with(table: Arc<ClientTable>, mtu: usize, udp_idle: Duration) -> World {
    let device = TunDevice::create("podway0", mtu).unwrap();
    let index = device.index().unwrap();
    ip(&format!("link set podway0 mtu {mtu} up"));
    ip("addr add 246.246.0.1/32 dev podway0");
    ip("addr add fd99::1/128 dev podway0 nodad");
    for route in ["10.96.0.0/12", "246.246.0.0/16", "fd00:10::/64", "fd99::/64"] {
        // As podway makes them.
        ip(&format!("route add {route} dev podway0 hoplimit 255"));
    }
    let (_, clients) = watch::channel(table);
    let (_, vips) = watch::channel(Arc::new(vips()));
    let (dns_tx, dns) = mpsc::channel(16);
    let sink = DnsSink::new(move |query| drop(dns_tx.try_send(query)));
    let (blocked_tx, _) = mpsc::channel(16);
    let handle = DataPlane::start(Arc::new(device), Wiring { clients, vips, dns: sink, blocked_tx, udp_idle });
    World { handle, dns, index }
}

fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length.div_ceil(8)).flat_map(|_| next()).take(length).collect()
}

#[test]
fn fifty_megabytes_come_back_unchanged() {
    in_namespace(|| async {
        let (link, _) = FakeLink::new(Manner::Echo);
        let world = world(link);
        for to in TO {
            let data = pattern(50_000_000);
            let (mut read, mut write) = TcpStream::connect(to).await.unwrap().into_split();
            let copy = data.clone();
            let writer = tokio::spawn(async move {
                write.write_all(&copy).await.unwrap();
                write.shutdown().await.unwrap();
            });
            let mut back = Vec::new();
            read.read_to_end(&mut back).await.unwrap();
            writer.await.unwrap();
            assert!(back == data, "{} bytes of {}", back.len(), data.len());
        }
        assert_eq!(world.handle.stop().await, Ended::Stopped);
    });
}

#[test]
fn either_side_may_close_first_and_go_on_reading() {
    in_namespace(|| async {
        let (link, mut opened) = FakeLink::new(Manner::Open);
        let _world = world(link);
        for to in TO {
            let mut stream = TcpStream::connect(to).await.unwrap();
            let far = opened.recv().await.unwrap();
            stream.write_all(b"question").await.unwrap();
            stream.shutdown().await.unwrap();
            assert_eq!(far.read(8).await, b"question");
            assert_eq!(far.next().await, Sent::Fin);
            far.write("answer");
            far.event(FlowEvent::Fin);
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, b"answer");

            let mut stream = TcpStream::connect(to).await.unwrap();
            let far = opened.recv().await.unwrap();
            far.write("greeting");
            far.event(FlowEvent::Fin);
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, b"greeting");
            stream.write_all(b"late").await.unwrap();
            drop(stream);
            assert_eq!(far.read(4).await, b"late");
            assert_eq!(far.next().await, Sent::Fin);

            let mut stream = TcpStream::connect(to).await.unwrap();
            opened.recv().await.unwrap().event(FlowEvent::Reset);
            assert_eq!(stream.read(&mut [0; 9]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
    });
}

#[test]
fn programs_see_why_they_cannot_connect() {
    in_namespace(|| async {
        let (link, _) = FakeLink::new(Manner::Open);
        let _world = world(Arc::clone(&link));
        for to in TO {
            for (error, kinds) in [
                (OpenError::Refused, [ErrorKind::ConnectionRefused; 2]),
                (OpenError::HostUnreachable, [ErrorKind::HostUnreachable; 2]),
                (OpenError::NetUnreachable, [ErrorKind::NetworkUnreachable; 2]),
                (OpenError::Forbidden, [ErrorKind::HostUnreachable, ErrorKind::PermissionDenied]),
            ] {
                *link.manner.lock().unwrap() = Manner::Fail(error);
                let seen = TcpStream::connect(to).await.unwrap_err();
                assert!(kinds.contains(&seen.kind()), "{to} {error:?}: {seen}");
            }
            let socket = UdpSocket::bind(if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" }).await.unwrap();
            socket.connect(to).await.unwrap();
            *link.manner.lock().unwrap() = Manner::Fail(OpenError::Refused);
            socket.send(b"x").await.unwrap();
            let seen = socket.recv(&mut [0; 9]).await.unwrap_err();
            assert_eq!(seen.kind(), ErrorKind::ConnectionRefused);
        }
    });
}

#[test]
fn dns_and_datagrams_reach_a_real_socket() {
    in_namespace(|| async {
        let (link, _) = FakeLink::new(Manner::Echo);
        let mut world = world(link);
        for (bind, dns, to) in [("0.0.0.0:0", "246.246.0.2:53", TO[0]), ("[::]:0", "[fd99::2]:53", TO[1])] {
            let socket = UdpSocket::bind(bind).await.unwrap();
            socket.send_to(b"query", dns).await.unwrap();
            let query = world.dns.recv().await.unwrap();
            query.reply.answer(Bytes::from_static(b"answer"));
            let mut buffer = [0; 2000];
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            assert_eq!((&buffer[..length], from), (&b"answer"[..], dns.parse::<SocketAddr>().unwrap()));
            socket.send_to(&pattern(1400), to).await.unwrap();
            let (length, _) = socket.recv_from(&mut buffer).await.unwrap();
            assert_eq!(buffer[..length], pattern(1400));
        }
    });
}

#[test]
fn the_device_is_exclusive_private_and_its_end_is_told() {
    in_namespace(|| async {
        ip("tuntap add podway0 mode tun");
        assert!(matches!(TunDevice::create("podway0", MTU), Err(TunError::Exists { .. })));
        ip("link delete podway0");
        for name in ["", "sixteen-letters-", "a/b", "podway%d", ".."] {
            assert!(matches!(TunDevice::create(name, MTU), Err(TunError::Name { .. })), "{name}");
        }
        let (link, _) = FakeLink::new(Manner::Echo);
        let world = world(link);
        assert!(matches!(TunDevice::create("podway0", MTU), Err(TunError::Exists { .. })));
        assert!(world.index > 0);
        assert_tuns_close_on_exec();
        let mut stream = TcpStream::connect(TO[0]).await.unwrap();
        let ended = world.handle.ended();
        ip("link delete podway0");
        assert_eq!(ended.await, Ended::DeviceGone("the link podway0 was deleted".into()));
        let _ = stream.write_all(b"x").await;

        let device = TunDevice::create("podway0", MTU).unwrap();
        drop(device);
        let left = Command::new("ip").args(["link", "show", "podway0"]).output().unwrap();
        assert!(!left.status.success(), "the device outlived its descriptor");
    });
}

fn assert_tuns_close_on_exec() {
    let mut seen = 0;
    for entry in std::fs::read_dir("/proc/self/fd").unwrap().flatten() {
        if std::fs::read_link(entry.path()).is_ok_and(|to| to == std::path::Path::new("/dev/net/tun")) {
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", entry.file_name().to_str().unwrap()));
            let info = info.unwrap();
            let flags = info.lines().find_map(|l| l.strip_prefix("flags:")).unwrap().trim();
            assert!(i64::from_str_radix(flags, 8).unwrap() & 0o2_000_000 != 0, "{flags}");
            seen += 1;
        }
    }
    assert!(seen > 0);
}

fn resident_kib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
#[ignore = "a measurement"]
fn measure() {
    in_namespace(|| async {
        let (link, _) = FakeLink::new(Manner::Echo);
        let mut world = world(link);
        // New connections with one exchange each, 16 at a time.
        let start = Instant::now();
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                tokio::spawn(async {
                    for _ in 0..1000 {
                        let mut stream = TcpStream::connect(TO[0]).await.unwrap();
                        stream.write_all(b"ping").await.unwrap();
                        stream.read_exact(&mut [0; 4]).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        println!("connections/s: {:.0}", 16_000.0 / start.elapsed().as_secs_f64());

        let before = resident_kib();
        let mut idle = Vec::new();
        for _ in 0..1000 {
            let mut stream = TcpStream::connect(TO[0]).await.unwrap();
            stream.write_all(b"ping").await.unwrap();
            stream.read_exact(&mut [0; 4]).await.unwrap();
            idle.push(stream);
        }
        println!(
            "KiB per idle flow: {:.1} (all {} MiB)",
            (resident_kib() - before) as f64 / 1000.0,
            resident_kib() / 1024
        );
        drop(idle);

        let (mut read, mut write) = TcpStream::connect(TO[0]).await.unwrap().into_split();
        let start = Instant::now();
        const CHUNKS: usize = 2000;
        tokio::spawn(async move {
            let chunk = vec![1; 1 << 20];
            for _ in 0..CHUNKS {
                write.write_all(&chunk).await.unwrap();
            }
            write.shutdown().await.unwrap();
        });
        let mut total = 0;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match read.read(&mut buffer).await.unwrap() {
                0 => break,
                n => total += n,
            }
        }
        assert_eq!(total, CHUNKS << 20);
        println!("one flow, echoed: {:.2} Gbit/s each way", total as f64 * 8e-9 / start.elapsed().as_secs_f64());

        let socket = UdpSocket::bind("0.0.0.0:0").await.unwrap();
        tokio::spawn(async move {
            while let Some(query) = world.dns.recv().await {
                query.reply.answer(query.query);
            }
        });
        let mut times = Vec::new();
        for _ in 0..5000 {
            let start = Instant::now();
            socket.send_to(b"query", "246.246.0.2:53").await.unwrap();
            socket.recv_from(&mut [0; 100]).await.unwrap();
            times.push(start.elapsed());
        }
        times.sort();
        println!("DNS over UDP: p50 {:?} p99 {:?}", times[2500], times[4950]);
        println!("{:?}", world.handle.counters());
    });
}
