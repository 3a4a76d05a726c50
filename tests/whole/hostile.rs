//! Whoever says anything to the real daemon: on its socket, in packets on its device, as queries for names, and as an agent.
//! It goes on serving, grows by little, and nothing panics.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hickory_proto::rr::RecordType::A;
use podway_tunnel::frames::{Challenge, HelloFrame, Opened, Welcome, flow_frame, hello_frame};
use podway_tunnel::wire::{Reader, Writer};
use proptest::prelude::Strategy as _;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rustix::net::SendFlags;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::client::Over;
use crate::nonsense;
use crate::workstation::Kind;
use crate::world::{Daemon, SOCKET, World, seconds, until};

/// By how much the daemon may have grown.
const GROWTH: u64 = 48 << 20;
/// Connections through the agent that lies.
const ROUNDS: usize = 40;
const ZONE: &str = "demo.svc.cluster.local";

/// The same numbers in each run.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit.max(1)).unwrap()).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.byte()).collect()
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// The same bytes with some changed, and maybe cut short or with more behind.
    fn spoilt(&mut self, good: &[u8]) -> Vec<u8> {
        let mut bytes = good.to_vec();
        for _ in 0..self.below(4) {
            let at = self.below(bytes.len());
            bytes[at] = self.byte();
        }
        match self.below(4) {
            0 => bytes.truncate(self.below(good.len() + 1)),
            1 => bytes.extend(self.bytes(40)),
            _ => {}
        }
        bytes
    }
}

/// It serves as before, and has not grown.
fn serves(world: &World, podway: &Daemon<'_>, before: u64) {
    let began = Instant::now();
    let status = podway.status();
    assert!(began.elapsed() < seconds(2), "{:?}", began.elapsed());
    assert!(status.holds("Ready"), "{:?}", status.conditions);
    world.ws.who("edge").unwrap();
    let told = world.ws.query(podway.dns(), Over::Udp, A, &format!("web.{ZONE}")).unwrap();
    assert_eq!(told.addresses, world.service("demo", "web")[..1]);
    assert!(!podway.log().contains("panicked"), "something panicked");
    let grown = podway.resident().saturating_sub(before);
    println!("grown by {} KiB", grown >> 10);
    assert!(grown < GROWTH, "{grown} bytes more");
}

#[test]
fn whatever_is_said_on_the_socket_the_device_and_to_the_name_server_the_daemon_goes_on() {
    let Some(world) = World::start() else { return };
    world.connected(&[], |podway| {
        world.ws.who("edge").unwrap();
        let before = podway.resident();
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        for (what, misuse) in [
            ("socket", lines as fn(&World, &Daemon<'_>, &mut Dice)),
            ("queries", queries),
            ("packets of IPv4", packets4),
            ("packets of IPv6", packets6),
        ] {
            let (began, packets) = (Instant::now(), packets_on(&world));
            misuse(&world, podway, &mut dice);
            let packets = packets_on(&world) - packets;
            println!("{what}: {:?}, {packets} packets on the device", began.elapsed());
            assert!(what == "socket" || packets > 2000, "{what}: the kernel kept them");
            serves(&world, podway, before);
        }
    });
}

/// How many packets the host has sent to the device.
fn packets_on(world: &World) -> u64 {
    let devices = world.ws.read("/proc/net/dev");
    let line = devices.lines().find_map(|line| line.trim().strip_prefix("podway0:")).unwrap();
    line.split_whitespace().nth(9).unwrap().parse().unwrap()
}

/// Says this, then reads to the end of what comes, which has to come.
fn say(world: &World, said: &[u8]) -> String {
    let mut stream = world.ws.unix(SOCKET).unwrap();
    // It may have hung up in the middle.
    drop(stream.write_all(said));
    drop(stream.shutdown(Shutdown::Write));
    let mut all = Vec::new();
    if let Err(error) = stream.read_to_end(&mut all) {
        assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "it hangs");
    }
    String::from_utf8(all).unwrap()
}

fn lines(world: &World, podway: &Daemon<'_>, dice: &mut Dice) {
    const GREETING: &str = "{\"podway\":1}\n";
    let greeted = |line: &str| [GREETING.as_bytes(), line.as_bytes(), b"\n"].concat();
    let deep = |open: &str, levels: usize| open.repeat(levels);
    let refused = [
        (b"\0\n".to_vec(), "BadRequest"),
        (b"\xff\xfe\n".to_vec(), "BadRequest"),
        (greeted("\0"), "BadRequest"),
        ([GREETING.as_bytes(), b"{\"id\":1,\"op\":\"\xc3\x28\"}\n"].concat(), "BadRequest"),
        (greeted(&deep("[", 100_000)), "BadRequest"),
        (greeted(&format!("{{\"id\":1,\"op\":\"connect\",\"spec\":{}", deep("{\"a\":", 30_000))), "BadRequest"),
        (greeted("{\"id\":1,\"id\":2,\"op\":\"version\"}"), "BadRequest"),
        (greeted("{\"id\":-1,\"op\":\"version\"}"), "BadRequest"),
        (greeted(&"a".repeat(300 * 1024)), "LimitReached"),
        (b"{\"podway\":2}\n".to_vec(), "UnsupportedVersion"),
    ];
    for (said, reason) in refused {
        let answer = say(world, &said);
        let start = String::from_utf8_lossy(&said[..said.len().min(60)]).into_owned();
        assert!(answer.contains(reason), "{start:?}: {answer:?}");
    }
    let good = greeted("{\"id\":1,\"op\":\"status\",\"name\":\"demo\"}");
    for _ in 0..300 {
        say(world, &dice.spoilt(&good));
        say(world, &dice.bytes(200));
    }
    // Half lines, whose rest never comes, and somebody who asks and never listens: nobody else waits for them.
    let halves: Vec<UnixStream> = (0..8)
        .map(|_| {
            let mut stream = world.ws.unix(SOCKET).unwrap();
            stream.write_all(b"{\"podway\":").unwrap();
            stream
        })
        .collect();
    let mut deaf = world.ws.unix(SOCKET).unwrap();
    deaf.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    deaf.write_all(GREETING.as_bytes()).unwrap();
    let asked =
        (1..20_000).take_while(|id| deaf.write_all(format!("{{\"id\":{id},\"op\":\"status\"}}\n").as_bytes()).is_ok());
    let asked = asked.count();
    println!("{asked} questions of one who reads no answer");
    let began = Instant::now();
    podway.expect(0, &["version"]);
    assert!(began.elapsed() < seconds(2), "{:?}", began.elapsed());
    drop((halves, deaf));
}

fn queries(world: &World, podway: &Daemon<'_>, dice: &mut Dice) {
    let at = SocketAddr::new(podway.dns(), 53);
    // `web.demo.svc.cluster.local`, A, with EDNS of 4096.
    let name = b"\x03web\x04demo\x03svc\x07cluster\x05local\0\0\x01\0\x01";
    let good = [&b"\0\x07\x01\0\0\x01\0\0\0\0\0\x01"[..], name, b"\0\0\x29\x10\0\0\0\0\0\0\0"].concat();
    let socket = world.ws.datagrams(at).unwrap();
    let mut odd = vec![
        // Names that point at themselves, at each other, at their end, and beyond.
        b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\xc0\x0c\0\x01\0\x01".to_vec(),
        b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\xc0\x0e\xc0\x0c\0\x01\0\x01".to_vec(),
        b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\xff\xff\0\x01\0\x01".to_vec(),
        // Counts that lie, and labels that do.
        [&b"\0\x07\x01\0\xff\xff\xff\xff\xff\xff\xff\xff"[..], name].concat(),
        b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x3faa\0\0\x01\0\x01".to_vec(),
        vec![],
        vec![0],
        vec![0xff; 1400],
    ];
    odd.extend((0..3000).map(|_| if dice.below(3) == 0 { dice.bytes(300) } else { dice.spoilt(&good) }));
    let mut back = vec![0; 4096];
    socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    for query in &odd {
        drop(socket.send(query));
        drop(socket.recv(&mut back));
    }
    // Over TCP: lengths that lie in every way, and messages in one piece and in many.
    let framed = |length: usize, query: &[u8]| [&u16::try_from(length).unwrap().to_be_bytes()[..], query].concat();
    let mut held = Vec::new();
    for lie in [
        framed(0, b""),
        framed(65_535, &good),
        framed(3, &good),
        framed(good.len() + 1, &good),
        vec![0],
        dice.bytes(3000),
        [framed(good.len(), &good), framed(0, &good), framed(1, &good)].concat(),
    ] {
        let mut stream = world.ws.connect(at).unwrap();
        drop(stream.write_all(&lie));
        held.push(stream);
    }
    let mut stream = world.ws.connect(at).unwrap();
    for byte in framed(good.len(), &good) {
        stream.write_all(&[byte]).unwrap();
    }
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    assert!(u16::from_be_bytes(length) > 40, "an answer to what came byte by byte");
}

/// Where a packet may go, and where it may say to be from.
fn ends(world: &World, podway: &Daemon<'_>, v4: bool) -> (Vec<IpAddr>, Vec<IpAddr>) {
    let edge = world.ws.lookup("edge").unwrap();
    let server: Vec<IpAddr> = if v4 { vec![podway.dns()] } else { Vec::new() };
    let to = edge.into_iter().chain(server).filter(|address| address.is_ipv4() == v4).collect();
    let from: &[&str] = if v4 {
        &["246.246.0.1", "192.0.2.2", "203.0.113.9", "10.43.0.1", "224.0.0.1", "255.255.255.255"]
    } else {
        &["fd43::9", "2001:db8:2::2", "2001:db8::9", "fe80::1", "ff02::1", "::"]
    };
    (to, from.iter().map(|address| address.parse().unwrap()).collect())
}

/// A header of TCP, UDP or ICMP that may be good, and something behind it.
fn payload(dice: &mut Dice) -> (u8, Vec<u8>) {
    let port = |dice: &mut Dice| dice.one(&[80_u16, 53, 9001, 0, 65_535]).to_be_bytes();
    let protocol = dice.one(&[6, 6, 6, 17, 17, 1, 58, 0, 2, 41, 43, 44, 47, 50, 59, 60, 132, 255]);
    let mut bytes = [port(dice), port(dice)].concat();
    bytes.extend(dice.bytes(8));
    // Offsets of data, flags, lengths: of every kind.
    bytes.extend([dice.one(&[0x50, 0x00, 0xf0, 0x40]), dice.byte()]);
    bytes.extend(dice.bytes(120));
    (protocol, bytes)
}

fn packets4(world: &World, podway: &Daemon<'_>, dice: &mut Dice) {
    let (to, from) = ends(world, podway, true);
    let socket = world.ws.socket(Kind::Raw4);
    for _ in 0..6000 {
        let (protocol, body) = payload(dice);
        let (IpAddr::V4(source), IpAddr::V4(target)) = (dice.one(&from), dice.one(&to)) else { unreachable!() };
        let options = dice.one(&[0_usize, 0, 0, 1, 5, 10]);
        let fragment = dice.one(&[0_u16, 0, 0, 0x2000, 0x2001, 0x1fff, 0x4000, 0x8000]).to_be_bytes();
        let mut packet = vec![0x45 + u8::try_from(options).unwrap(), dice.byte(), 0, 0, 0, 7];
        packet.extend([fragment[0], fragment[1], dice.one(&[255, 255, 64, 0]), protocol, 0, 0]);
        packet.extend(Ipv4Addr::octets(&source).iter().chain(&target.octets()));
        packet.extend((0..4 * options).map(|_| dice.byte()));
        packet.extend(body);
        // The kernel refuses some itself.
        let _ = rustix::net::sendto(&socket, &packet, SendFlags::DONTWAIT, &SocketAddr::new(target.into(), 0));
    }
}

fn packets6(world: &World, podway: &Daemon<'_>, dice: &mut Dice) {
    let (to, from) = ends(world, podway, false);
    let socket = world.ws.socket(Kind::Raw6);
    for _ in 0..6000 {
        let (protocol, body) = payload(dice);
        let (IpAddr::V6(source), IpAddr::V6(target)) = (dice.one(&from), dice.one(&to)) else { unreachable!() };
        // Extension headers, one behind the other: hop by hop, routing, fragment, options; with lengths of every kind.
        let chain: Vec<u8> = (0..dice.below(5)).map(|_| dice.one(&[0, 43, 44, 60])).collect();
        let kinds: Vec<u8> = chain.iter().copied().chain([protocol]).collect();
        let mut extensions = Vec::new();
        for next in &kinds[1..] {
            let length = dice.one(&[0, 0, 0, 1, 255]);
            extensions.extend([*next, length]);
            extensions.extend((0..6).map(|_| dice.byte()));
        }
        let whole = extensions.len() + body.len();
        let length = dice.one(&[whole, whole, whole, 0, whole + 9, whole / 2]);
        let mut packet = vec![dice.one(&[0x60, 0x60, 0x60, 0x6f]), 0, 0, 0];
        packet.extend(u16::try_from(length).unwrap().to_be_bytes());
        packet.extend([kinds[0], 255]);
        packet.extend(Ipv6Addr::octets(&source).iter().chain(&target.octets()));
        packet.extend(extensions);
        packet.extend(body);
        let _ = rustix::net::sendto(&socket, &packet, SendFlags::DONTWAIT, &SocketAddr::new(target.into(), 0));
    }
}

#[test]
fn an_agent_that_says_anything_harms_no_more_than_what_goes_through_it() {
    let words = ["hostile::lie", "--exact", "--ignored", "--nocapture", "--"];
    let Some(world) = World::with_agent(&words) else { return };
    world.with_daemon(|podway| {
        podway.connect(&[]);
        let before = podway.resident();
        let addresses = world.ws.lookup("web").unwrap();
        let mut reached = 0;
        let began = Instant::now();
        // As many programs at a time, which do not wait for long.
        let mut streams = Vec::new();
        for _ in 0..ROUNDS {
            let socket = world.ws.socket(Kind::Tcp4);
            set_socket_timeout(&socket, Timeout::Send, Some(Duration::from_millis(200))).unwrap();
            if rustix::net::connect(&socket, &SocketAddr::new(addresses[0], 80)).is_ok() {
                streams.push(TcpStream::from(socket));
            }
        }
        for stream in &mut streams {
            reached += 1;
            stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            drop(stream.write_all(b"GET / HTTP/1.1\r\n\r\n"));
            drop(stream.read(&mut [0; 4096]));
        }
        println!("{reached} of {ROUNDS} were opened, in {:?}", began.elapsed());
        assert!(reached > 0, "nothing was said by the agent");
        drop(streams);
        for _ in 0..5 {
            drop(world.ws.query(podway.dns(), Over::Udp, A, "ledger.site.example"));
        }
        let status = podway.status();
        assert!(status.holds("DNSReady") && status.holds("RoutesReady"), "{:?}", status.conditions);
        assert_eq!(world.ws.lookup("web").unwrap(), addresses);
        assert!(!podway.log().contains("panicked"), "something panicked");
        let grown = podway.resident().saturating_sub(before);
        println!("grown by {} KiB", grown >> 10);
        assert!(grown < GROWTH, "{grown} bytes more");
        let (_, took) = until("a disconnect", seconds(10), || Some(podway.disconnect(&[])));
        println!("disconnected in {took:?}");
    });
}

/// Not a test: the agent of [`an_agent_that_says_anything_harms_no_more_than_what_goes_through_it`].
#[test]
#[ignore = "the miniature cluster starts it"]
fn lie() {
    let words: Vec<String> = std::env::args().collect();
    let Some(at) = words.iter().position(|word| word == "--listen") else { return };
    let listen: SocketAddr = words[at + 1].parse().unwrap();
    let uid = std::env::var("PODWAY_POD_UID").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(listen).await.unwrap();
        for seed in 1_u8.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(lie_to(stream, uid.clone(), seed));
        }
    });
}

async fn lie_to(stream: tokio::net::TcpStream, pod_uid: String, seed: u8) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut held = Vec::new();
    let mut calls = 0_u32;
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let Ok(stream) = respond.send_response(http::Response::new(()), false) else { continue };
        let said: Vec<Bytes> = nonsense::stream().new_tree(&mut runner).unwrap().current();
        calls += 1;
        if request.uri().path() == podway_tunnel::HELLO_PATH {
            let (pod_uid, body) = (pod_uid.clone(), request.into_body());
            tokio::spawn(async move {
                let mut writer = Writer::new(stream);
                let hello = |frame| HelloFrame { frame: Some(frame) };
                let challenge =
                    Challenge { pod_uid, protocol: 1, agent_version: "\u{1b}[31m".into(), ..Challenge::default() };
                drop(writer.send(&hello(hello_frame::Frame::Challenge(challenge))));
                drop(writer.send(&hello(hello_frame::Frame::Welcome(Welcome { icmp: true, ..Welcome::default() }))));
                // Pings go unanswered, so that it is given up after a while and dialled again.
                let mut reader = Reader::new(body);
                while let Some(Ok(_)) = reader.next::<HelloFrame>().await {}
            });
            continue;
        }
        let (request, mut stream) = (request, stream);
        if !calls.is_multiple_of(3) {
            let opened = flow_frame::Frame::Opened(Opened { limit: u64::MAX, ..Opened::default() });
            let mut frame = vec![0];
            let message = podway_tunnel::frames::FlowFrame { frame: Some(opened) };
            frame.extend(u32::try_from(prost::Message::encoded_len(&message)).unwrap().to_be_bytes());
            prost::Message::encode(&message, &mut frame).unwrap();
            drop(stream.send_data(frame.into(), false));
        }
        for piece in said {
            drop(stream.send_data(piece, false));
        }
        if calls.is_multiple_of(2) {
            drop(stream.send_data(Bytes::new(), true));
        }
        held.push((request, respond, stream));
    }
}
