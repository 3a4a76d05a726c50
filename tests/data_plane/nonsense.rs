//! A million packets of every kind of nonsense. What comes out belongs to what was asked from the device's own address,
//! what goes in is counted, and what is kept is bounded.
//!
//! `PODWAY_SEED=N` replays, `PODWAY_PACKETS=N` says how many.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use podway::net::agent::OpenError;
use podway::net::counters::CountersSnapshot;
use podway::net::data_plane::MAX_FLOWS;
use podway::net::tun::PacketDevice;
use smoltcp::wire::{IpProtocol, TcpControl};

use super::fake::{FakeLink, Manner};
use super::peer::{echo_request, question, segment};
use super::truth::{Random, number};
use super::{Bench, links};

const PACKETS: u64 = 1_000_000;
/// Packets between two looks at what came of them.
const BATCH: u64 = 64;

const OWN: [&str; 2] = ["246.246.0.1", "fd99::1"];
const FOREIGN: [&str; 2] = ["192.0.2.3", "2001:db8::3"];
/// Routed, a virtual address, one that stands for nothing, the DNS, never routed here, for many.
const TO: [[&str; 6]; 2] = [
    ["10.96.0.7", "246.246.1.0", "246.246.9.9", "246.246.0.2", "203.0.113.5", "239.255.255.250"],
    ["fd00:10::7", "fd99::100", "fd99::999", "fd99::2", "2001:db8::9", "ff02::fb"],
];

/// What a packet asks for, or answers: protocol, the workstation's port, the other address and its port.
type Question = (u8, u16, IpAddr, u16);

/// Reads the addresses, the protocol and the ports where they would be. Its own eyes, not the product's.
fn read(packet: &[u8]) -> Option<(IpAddr, IpAddr, u8, [u16; 2])> {
    let (source, destination, protocol, start) = if packet.first()? >> 4 == 4 {
        let at = |from: usize| Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(from..from + 4)?).ok()?));
        (at(12)?, at(16)?, *packet.get(9)?, 4 * usize::from(packet[0] & 0xf))
    } else {
        let at = |from: usize| Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(from..from + 16)?).ok()?));
        (at(8)?, at(24)?, *packet.get(6)?, 40)
    };
    let port = |at: usize| Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?));
    let ports = if matches!(protocol, 6 | 17) { [port(start)?, port(start + 2)?] } else { [0, 0] };
    Some((source, destination, protocol, ports))
}

fn is_own(address: IpAddr) -> bool {
    OWN.iter().any(|own| *own == address.to_string())
}

struct Generator {
    random: Random,
    asked: BTreeSet<Question>,
    /// Flows that were opened: their sequence number, and what they have of ours.
    live: HashMap<(SocketAddr, SocketAddr), (i32, i32)>,
}

impl Generator {
    fn address(&mut self, v6: usize, own: bool) -> SocketAddr {
        let port = if self.random.once_in(300) { self.random.next() as u16 } else { 40_000 };
        let port = port.wrapping_add(u16::try_from(self.random.below(40)).unwrap());
        SocketAddr::new((if own { OWN[v6] } else { FOREIGN[v6] }).parse().unwrap(), port)
    }

    fn proper(&mut self) -> Vec<u8> {
        let v6 = self.random.below(2);
        let own = !self.random.once_in(12);
        let from = self.address(v6, own);
        let to = SocketAddr::new(self.random.of(&TO[v6]).parse().unwrap(), self.random.of(&[80, 443, 53, 0]));
        let controls = [TcpControl::None, TcpControl::Psh, TcpControl::Fin, TcpControl::Syn, TcpControl::Rst];
        let control = self.random.of(&controls);
        let sequence = self.random.next() as i32;
        let size = self.random.of(&[0, 1, 100, 1400]);
        let payload = vec![7; self.random.below(size + 1)];
        match self.random.below(10) {
            0..2 => segment(from, to, TcpControl::Syn, sequence, None),
            2 => segment(from, to, control, sequence, Some(sequence ^ 0x55)),
            3 => question(from, to, &payload),
            4 => echo_request(from.ip(), to.ip(), sequence as u16, &payload),
            5 => (0..self.random.below(120)).map(|_| self.random.next() as u8).collect(),
            _ => self.near().unwrap_or_else(|| segment(from, to, TcpControl::Syn, sequence, None)),
        }
    }

    /// A segment of a flow that is there, or nearly.
    fn near(&mut self) -> Option<Vec<u8>> {
        let which = self.random.below(self.live.len());
        let (&(from, to), &(theirs, ours)) = self.live.iter().nth(which)?;
        let off = self.random.of(&[0, 0, 0, 1, -1, 1000, 70_000, i32::MIN]);
        let ends = [TcpControl::Psh, TcpControl::Psh, TcpControl::Psh, TcpControl::Fin, TcpControl::Rst];
        let control = self.random.of(&ends);
        Some(segment(from, to, control, ours.wrapping_add(off), Some(theirs.wrapping_add(self.random.of(&[0, 0, 5])))))
    }

    fn spoil(&mut self, packet: &mut Vec<u8>) {
        let length = packet.len();
        let byte = self.random.next() as u8;
        match self.random.below(10) {
            0 => packet.truncate(self.random.below(length + 1)),
            1 => packet.extend(vec![byte; self.random.below(50)]),
            // The lengths of the headers.
            2 if length > 5 => packet[if byte & 1 == 0 { 3 } else { 5 }] = byte,
            // Fragments; extension headers of IPv6.
            3 if length > 7 => packet[6] = self.random.of(&[0x20, 0, 43, 44, 51, 60, 135]),
            // Options of IPv4.
            4 if length > 0 => packet[0] = self.random.of(&[0x46, 0x4f, 0x40, 0x55, 0x60]),
            5 if length > 9 => packet[9] = byte,
            // The checksum.
            6 if length > 11 => packet[10] ^= byte,
            // How far it has come.
            7 if length > 8 => {
                let at = if packet[0] >> 4 == 4 { 8 } else { 7 };
                packet[at] = byte;
            }
            _ => {
                for _ in 0..self.random.below(4) {
                    let at = self.random.below(length.max(1));
                    if let Some(place) = packet.get_mut(at) {
                        *place = self.random.next() as u8;
                    }
                }
            }
        }
    }

    fn next(&mut self) -> Vec<u8> {
        let mut packet = self.proper();
        if self.random.once_in(3) {
            self.spoil(&mut packet);
        }
        if let Some((source, destination, protocol, [from, to])) = read(&packet)
            && is_own(source)
        {
            self.asked.insert((protocol, from, destination, to));
        }
        packet
    }

    /// Looks at a packet that came out.
    fn came(&mut self, packet: &[u8]) {
        let (source, destination, protocol, [from, to]) = read(packet).expect("a packet");
        assert!(is_own(destination) && !source.is_multicast(), "to {destination} from {source}");
        let start = if packet[0] >> 4 == 4 { 20 } else { 40 };
        let question = match (IpProtocol::from(protocol), packet[start]) {
            // An error: what it quotes was asked.
            (IpProtocol::Icmp, 3) | (IpProtocol::Icmpv6, 1) => {
                let (asker, at, protocol, [from, to]) = read(&packet[start + 8..]).expect("a quotation");
                assert_eq!((asker, at), (destination, source));
                (protocol, from, at, to)
            }
            (IpProtocol::Icmp, 0) | (IpProtocol::Icmpv6, 129) | (IpProtocol::Tcp | IpProtocol::Udp, _) => {
                (protocol, to, source, from)
            }
            other => panic!("{other:?}"),
        };
        assert!(self.asked.contains(&question), "nobody asked {question:?}");
        if IpProtocol::from(protocol) == IpProtocol::Tcp {
            let key = (SocketAddr::new(destination, to), SocketAddr::new(source, from));
            let number = |at: usize| i32::from_be_bytes(packet[start + at..start + at + 4].try_into().unwrap());
            let (flags, ours) = (packet[start + 13], number(8));
            if flags & 4 != 0 {
                self.live.remove(&key);
            } else if self.live.len() < 500 || self.live.contains_key(&key) {
                let length = packet.len() - start - 4 * usize::from(packet[start + 12] >> 4);
                let ends = i32::try_from(length).unwrap() + i32::from(flags & 3 != 0);
                self.live.insert(key, (number(4).wrapping_add(ends), ours));
            }
        }
    }
}

fn accounted(c: &CountersSnapshot) -> u64 {
    let dropped = [c.dropped_source, c.dropped_malformed, c.dropped_fragment, c.dropped_protocol, c.dropped_multicast];
    let full = [c.dropped_forwarded, c.dropped_stray, c.dropped_flow_full, c.dropped_dns_full, c.dropped_echo_full];
    c.packets_taken + c.packets_answered + dropped.into_iter().chain(full).sum::<u64>()
}

#[test]
fn a_million_packets_of_nonsense_do_no_harm() {
    let seed = number("PODWAY_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let count = number("PODWAY_PACKETS").unwrap_or(PACKETS);
    println!("PODWAY_SEED={seed} PODWAY_PACKETS={count}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (link, _held) = FakeLink::new(Manner::Echo);
        let mut bench = Bench::new(false, links(&[Arc::clone(&link)]));
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let mut generator = Generator { random: Random::new(seed), asked: BTreeSet::new(), live: HashMap::new() };
        let mut buffer = vec![0; 65_536];
        let (mut most_tasks, mut came) = (0, 0_u64);
        let mut sent = 0;
        while sent < count {
            let manner = generator.random.of(&[
                Manner::Echo,
                Manner::Echo,
                Manner::Fail(OpenError::Refused),
                Manner::Fail(OpenError::HostUnreachable),
            ]);
            *link.manner.lock().unwrap() = manner;
            for _ in 0..BATCH.min(count - sent) {
                let packet = generator.next();
                bench.send(&packet);
                sent += 1;
            }
            bench.counted(|c| c.packets >= sent).await;
            // Their flows get their turn.
            tokio::task::yield_now().await;
            while let Ok(length) = bench.device().try_recv(&mut buffer) {
                generator.came(&buffer[..length]);
                came += 1;
            }
            while let Ok(query) = bench.dns.try_recv() {
                query.reply.answer(Bytes::from_static(b"answer"));
            }
            most_tasks = most_tasks.max(tasks());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        let counters = bench.handle.counters();
        println!("{sent} in, {came} out, {most_tasks} tasks at most; {counters:?}");
        assert_eq!(accounted(&counters), counters.packets, "{counters:?}");
        // Those that came too late for a flow are looked at twice.
        assert!(counters.packets < sent + sent / 100, "{counters:?}");
        assert!(most_tasks <= MAX_FLOWS + 512, "{most_tasks} tasks");
        let each = [counters.dropped_source, counters.dropped_malformed, counters.dropped_fragment];
        let kind = [counters.dropped_protocol, counters.dropped_multicast, counters.dropped_stray];
        let kind = kind.into_iter().chain([counters.dropped_forwarded]).collect::<Vec<_>>();
        let done = [counters.packets_taken, counters.packets_answered, counters.bytes_received, counters.tcp_total];
        let all = each.iter().chain(&kind).chain(&done);
        assert!(count < 10_000 || all.clone().all(|count| *count > 0), "a kind of packet is missing: {counters:?}");
        bench.handle.stop().await;
        let ended = async {
            while tasks() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), ended).await.expect("tasks stay");
    });
}
