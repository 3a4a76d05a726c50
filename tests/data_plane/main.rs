//! The data plane against fake links and a scripted workstation, both families.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "tests measure time")]
#![expect(clippy::print_stdout, reason = "a skipped test says so, a measurement prints")]
#![expect(clippy::wildcard_enum_match_arm, reason = "a test names what it expects, the rest is a failure")]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use fake::{FakeLink, FarEnd, Manner, Sent};
use peer::{Peer, describe, echo_reply, echo_request, nothing, question, recv, segment, syn};
use podway::net::agent::{FlowEvent, OpenError};
use podway::net::counters::CountersSnapshot;
use podway::net::data_plane::{DataPlane, DataPlaneHandle, Ended, Wiring};
use podway::net::dns_tap::{DnsQuery, DnsSink, DnsTransport};
use podway::net::packet::{View, datagram};
use podway::net::tun::PacketDevice;
use podway::net::tun::pair::PairDevice;
use podway::net::views::{ClientTable, LinkEntry, Target, VipEntry, VipTable};
use smoltcp::socket::tcp::State;
use smoltcp::wire::TcpControl;
use tokio::sync::{mpsc, watch};

mod any_bytes;
mod corpora;
mod elsewhere;
mod fake;
mod neighbour;
mod nonsense;
mod peer;
mod real;
mod resets;
mod truth;

/// As podway has it by default.
const UDP_IDLE: Duration = Duration::from_secs(60);

struct Bench {
    device: Option<PairDevice>,
    /// The data plane's end.
    its: Weak<PairDevice>,
    handle: DataPlaneHandle,
    clients: watch::Sender<Arc<ClientTable>>,
    dns: mpsc::Receiver<DnsQuery>,
    blocked: mpsc::Receiver<Target>,
    v6: bool,
}

fn links(links: &[Arc<FakeLink>]) -> Arc<ClientTable> {
    let entry = |(i, link): (usize, &Arc<FakeLink>)| LinkEntry {
        pod: serde_json::from_value(serde_json::json!(format!("uid-{i}"))).unwrap(),
        pod_name: format!("ns/pod-{i}").into(),
        link: Arc::clone(link) as _,
    };
    Arc::new(ClientTable { general: links.iter().enumerate().map(entry).collect(), ..Default::default() })
}

fn vips() -> VipTable {
    VipTable {
        vips: [
            ("246.246.1.0".parse().unwrap(), VipEntry { real: "127.0.0.1".parse().unwrap(), target: Target::General }),
            ("fd99::100".parse().unwrap(), VipEntry { real: "::1".parse().unwrap(), target: Target::General }),
            ("246.246.1.8".parse().unwrap(), VipEntry { real: "10.88.0.7".parse().unwrap(), target: Target::General }),
            ("fd99::108".parse().unwrap(), VipEntry { real: "fd88::7".parse().unwrap(), target: Target::General }),
        ]
        .into(),
        virtual_ranges: vec!["246.246.0.0/16".parse().unwrap(), "fd99::/64".parse().unwrap()],
        device_addresses: vec!["246.246.0.1".parse().unwrap(), "fd99::1".parse().unwrap()],
        dns_addresses: vec!["246.246.0.2".parse().unwrap(), "fd99::2".parse().unwrap()],
        routed: vec!["10.96.0.0/12".parse().unwrap(), "fd00:10::/64".parse().unwrap()],
        ..Default::default()
    }
}

impl Bench {
    fn new(v6: bool, table: Arc<ClientTable>) -> Self {
        Self::with_vips(v6, table, vips())
    }

    fn with_vips(v6: bool, table: Arc<ClientTable>, vips: VipTable) -> Self {
        let (device, other) = PairDevice::pair(65_520);
        let (clients, clients_rx) = watch::channel(table);
        let (_, vips) = watch::channel(Arc::new(vips));
        let (dns_tx, dns) = mpsc::channel(16);
        let sink = DnsSink::new(move |query| drop(dns_tx.try_send(query)));
        let (blocked_tx, blocked) = mpsc::channel(16);
        let other = Arc::new(other);
        let its = Arc::downgrade(&other);
        let handle =
            DataPlane::start(other, Wiring { clients: clients_rx, vips, dns: sink, blocked_tx, udp_idle: UDP_IDLE });
        Self { device: Some(device), its, handle, clients, dns, blocked, v6 }
    }

    fn pick(&self, v4: &str, v6: &str) -> IpAddr {
        if self.v6 { v6 } else { v4 }.parse().unwrap()
    }
    fn from(&self) -> SocketAddr {
        SocketAddr::new(self.pick("246.246.0.1", "fd99::1"), 40_000)
    }
    fn to(&self) -> SocketAddr {
        SocketAddr::new(self.pick("10.96.0.7", "fd00:10::7"), 80)
    }
    fn dns_address(&self) -> SocketAddr {
        SocketAddr::new(self.pick("246.246.0.2", "fd99::2"), 53)
    }
    fn device(&self) -> &PairDevice {
        self.device.as_ref().unwrap()
    }
    fn send(&self, packet: &[u8]) {
        self.device().try_send(packet).unwrap();
    }
    fn peer(&mut self, to: SocketAddr) -> Peer {
        Peer::connect(self.device.take().unwrap(), self.from(), to)
    }
    async fn counted(&self, what: impl Fn(&CountersSnapshot) -> bool) {
        let wait = async {
            while !what(&self.handle.counters()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), wait).await;
        assert!(waited.is_ok(), "{:?}", self.handle.counters());
    }
}

/// Runs a test for both families under paused time.
fn both<F: Future<Output = ()>>(test: impl Fn(bool) -> F) {
    for v6 in [false, true] {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().unwrap().block_on(test(v6));
    }
}

async fn connected(v6: bool) -> (Bench, Peer, FarEnd) {
    let (link, mut opened) = FakeLink::new(Manner::Open);
    let mut bench = Bench::new(v6, links(&[link]));
    let to = bench.to();
    let mut peer = bench.peer(to);
    let far = opened.recv().await.unwrap();
    assert_eq!(far.to, to);
    peer.state_is(State::Established).await;
    (bench, peer, far)
}

#[test]
fn bytes_go_both_ways_and_each_way_closes_by_itself() {
    both(|v6| async move {
        let (bench, mut peer, far) = connected(v6).await;
        peer.write(b"question").await;
        assert_eq!(far.read(8).await, b"question");
        peer.close();
        peer.state_is(State::FinWait2).await;
        assert_eq!(far.next().await, Sent::Fin);
        far.write("answer");
        assert_eq!(peer.read(6).await, b"answer");
        far.event(FlowEvent::Fin);
        peer.state_is(State::TimeWait).await;
        bench.counted(|c| c.tcp_open == 0 && c.tcp_total == 1 && c.bytes_sent == 8 && c.bytes_received == 6).await;
        assert_eq!(far.next().await, Sent::Dropped);
    });
}

#[test]
fn the_far_side_may_close_first_and_still_receive() {
    both(|v6| async move {
        let (bench, mut peer, far) = connected(v6).await;
        far.write("greeting");
        far.event(FlowEvent::Fin);
        assert_eq!(peer.read(8).await, b"greeting");
        peer.state_is(State::CloseWait).await;
        peer.write(b"late").await;
        peer.until(|s| (s.send_queue() == 0).then_some(())).await;
        assert_eq!(far.read(4).await, b"late");
        peer.close();
        peer.state_is(State::Closed).await;
        assert_eq!(far.next().await, Sent::Fin);
        assert_eq!(far.next().await, Sent::Dropped);
        bench.counted(|c| c.tcp_open == 0).await;
    });
}

#[test]
fn resets_pass_both_ways() {
    both(|v6| async move {
        let (bench, mut peer, far) = connected(v6).await;
        far.event(FlowEvent::Reset);
        peer.state_is(State::Closed).await;
        bench.counted(|c| c.tcp_open == 0).await;

        let (bench, mut peer, far) = connected(v6).await;
        peer.socket().abort();
        peer.until(|_| Some(())).await;
        assert_eq!(far.next().await, Sent::Reset);
        bench.counted(|c| c.tcp_open == 0).await;
    });
}

#[test]
fn a_far_side_that_does_not_take_holds_the_program_back_and_nothing_is_lost() {
    both(|v6| async move {
        let (link, mut opened) = FakeLink::with_window(Manner::Open, 1000);
        let mut bench = Bench::new(v6, links(&[link]));
        let to = bench.to();
        let mut peer = bench.peer(to);
        let far = opened.recv().await.unwrap();
        let data: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 251) as u8).collect();
        let mut left = data.as_slice();
        let stuck = tokio::time::timeout(Duration::from_secs(5), async {
            peer.until(|s| {
                if s.may_send() {
                    left = &left[s.send_slice(left).unwrap()..];
                }
                left.is_empty().then_some(())
            })
            .await;
        });
        stuck.await.unwrap_err();
        assert_eq!(far.held(), 1000);
        let written = data.len() - left.len();
        assert!(written <= 1000 + (256 + 128) * 1024, "{written}");
        let rest = left.to_vec();
        let (read, ()) = tokio::join!(far.read(data.len()), async {
            peer.write(&rest).await;
            peer.until(|s| (s.send_queue() == 0).then_some(())).await;
        });
        assert!(read == data);
    });
}

#[test]
fn a_program_that_does_not_read_holds_the_far_side_back() {
    both(|v6| async move {
        let (_bench, mut peer, far) = connected(v6).await;
        let data: Vec<u8> = (0..2_000_000_u32).map(|i| (i % 251) as u8).collect();
        for part in data.chunks(20_000) {
            far.write(part.to_vec());
        }
        let _ = tokio::time::timeout(Duration::from_secs(5), peer.until(|_| None::<()>)).await;
        assert!(far.untaken() >= (2_000_000 - (256 + 128 + 20) * 1024) / 20_000, "{}", far.untaken());
        assert_eq!(far.on_the_carrier(), 0, "what nobody reads waits where it is counted");
        far.write("one more");
        let _ = tokio::time::timeout(Duration::from_secs(5), peer.until(|_| None::<()>)).await;
        assert_eq!(far.on_the_carrier(), 0, "and so does what comes later");
        assert!(peer.read(data.len()).await == data);
        assert_eq!(peer.read(8).await, b"one more");
    });
}

#[test]
fn a_program_that_has_finished_has_the_rest_as_soon_as_it_reads() {
    both(|v6| async move {
        let (_bench, mut peer, far) = connected(v6).await;
        peer.close();
        assert_eq!(far.next().await, Sent::Fin);
        let data: Vec<u8> = (0..380_000_u32).map(|i| (i % 251) as u8).collect();
        for part in data.chunks(20_000) {
            far.write(part.to_vec());
        }
        far.event(FlowEvent::Fin);
        // It reads nothing for a while: its window closes, upon the far side's last bytes too.
        let _ = tokio::time::timeout(Duration::from_secs(5), peer.until(|_| None::<()>)).await;
        let began = tokio::time::Instant::now();
        assert!(peer.read(data.len()).await == data);
        assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
        peer.state_is(State::TimeWait).await;
    });
}

#[test]
fn a_flow_whose_link_is_lost_stands_still_says_so_and_goes_on() {
    both(|v6| async move {
        let (mut bench, mut peer, far) = connected(v6).await;
        far.stand_still(true);
        let data: Vec<u8> = (0..600_000_u32).map(|i| (i % 251) as u8).collect();
        let mut left = data.as_slice();
        // Longer than any link takes to come back: the program sees a window that is closed.
        let stuck = tokio::time::timeout(Duration::from_secs(60), async {
            peer.until(|s| {
                assert_eq!(s.state(), State::Established);
                if s.may_send() {
                    left = &left[s.send_slice(left).unwrap()..];
                }
                left.is_empty().then_some(())
            })
            .await;
        });
        stuck.await.unwrap_err();
        assert_eq!(far.held(), 0);
        let mut told = 0;
        while bench.blocked.try_recv().is_ok() {
            told += 1;
        }
        assert!((10..=61).contains(&told), "told {told} times in a minute");
        far.stand_still(false);
        let rest = left.to_vec();
        let (read, ()) = tokio::join!(far.read(data.len()), async {
            peer.write(&rest).await;
            peer.until(|s| (s.send_queue() == 0).then_some(())).await;
        });
        assert!(read == data);
        far.write("answer");
        assert_eq!(peer.read(6).await, b"answer");
        assert_eq!(bench.handle.counters().tcp_open, 1);
    });
}

#[test]
fn a_refused_dial_is_refused_and_others_are_told_by_icmp() {
    both(|v6| async move {
        let (host, net, admin) = if v6 { ("1/3", "1/0", "1/1") } else { ("3/1", "3/0", "3/13") };
        for (error, answer) in [
            (OpenError::Refused, "rst 1001".to_owned()),
            (OpenError::Limit, "rst 1001".to_owned()),
            (OpenError::HostUnreachable, format!("icmp {host}")),
            (OpenError::TimedOut, format!("icmp {host}")),
            (OpenError::NetUnreachable, format!("icmp {net}")),
            (OpenError::Forbidden, format!("icmp {admin}")),
        ] {
            let bench = Bench::new(v6, links(&[FakeLink::new(Manner::Fail(error)).0]));
            bench.send(&syn(bench.from(), bench.to()));
            let said = describe(&recv(bench.device()).await);
            assert!(said.starts_with(&answer), "{error:?}: {said}");
            bench.counted(|c| c.refused == 1 && c.tcp_open == 0 && c.tcp_total == 1).await;
        }
    });
}

#[test]
fn the_syn_is_held_joined_by_its_repetition_and_given_up_in_time() {
    both(|v6| async move {
        let (link, _opened) = FakeLink::new(Manner::Silent);
        let bench = Bench::new(v6, links(&[Arc::clone(&link)]));
        for _ in 0..3 {
            bench.send(&syn(bench.from(), bench.to()));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(nothing(bench.device()));
        assert_eq!(link.dials.load(Ordering::SeqCst), 1);
        let start = tokio::time::Instant::now();
        let said = describe(&recv(bench.device()).await);
        assert!(said.starts_with(if v6 { "icmp 1/3" } else { "icmp 3/1" }), "{said}");
        assert!((6..=8).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
        assert_eq!(link.dropped_dials.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_program_that_gives_up_ends_the_dial() {
    both(|v6| async move {
        let (link, _opened) = FakeLink::new(Manner::Silent);
        let bench = Bench::new(v6, links(&[Arc::clone(&link)]));
        bench.send(&syn(bench.from(), bench.to()));
        bench.counted(|c| c.tcp_open == 1).await;
        bench.send(&segment(bench.from(), bench.to(), TcpControl::Rst, 1001, None));
        bench.counted(|c| c.tcp_open == 0).await;
        assert_eq!(link.dropped_dials.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_lost_link_is_followed_by_the_next_one() {
    both(|v6| async move {
        let (bad, _) = FakeLink::new(Manner::Fail(OpenError::LinkLost));
        let (good, mut opened) = FakeLink::new(Manner::Open);
        for order in [[Arc::clone(&bad), Arc::clone(&good)], [Arc::clone(&good), Arc::clone(&bad)]] {
            let mut bench = Bench::new(v6, links(&order));
            let to = bench.to();
            let mut peer = bench.peer(to);
            opened.recv().await.unwrap();
            peer.state_is(State::Established).await;
        }
        assert_eq!(bad.dials.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn without_a_link_the_syn_waits_tells_once_and_goes_on_when_one_comes() {
    both(|v6| async move {
        let mut bench = Bench::new(v6, links(&[]));
        bench.send(&syn(bench.from(), bench.to()));
        let mut other = bench.from();
        other.set_port(40_001);
        bench.send(&syn(other, bench.to()));
        assert_eq!(bench.blocked.recv().await, Some(Target::General));
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(bench.blocked.try_recv().is_err() && nothing(bench.device()));
        let (link, mut opened) = FakeLink::new(Manner::Open);
        bench.clients.send_replace(links(&[link]));
        opened.recv().await.unwrap();
        opened.recv().await.unwrap();
        assert_eq!(describe(&recv(bench.device()).await), "syn-ack");
    });
}

#[test]
fn without_hope_the_syn_is_refused_at_once_and_without_a_link_after_ten_seconds() {
    both(|v6| async move {
        let mut bench = Bench::new(v6, links(&[]));
        let start = tokio::time::Instant::now();
        bench.send(&syn(bench.from(), bench.to()));
        assert!(describe(&recv(bench.device()).await).starts_with(if v6 { "icmp 1/3" } else { "icmp 3/1" }));
        assert!(start.elapsed() >= Duration::from_secs(10));
        bench.send(&syn(bench.from(), bench.to()));
        bench.blocked.recv().await;
        let hopeless = BTreeMap::from([(Target::General, Arc::from("no rights"))]);
        bench.clients.send_replace(Arc::new(ClientTable { hopeless, ..Default::default() }));
        assert_eq!(describe(&recv(bench.device()).await), "rst 1001");
    });
}

#[test]
fn what_stands_for_nothing_is_refused_at_once_and_a_virtual_address_is_translated() {
    both(|v6| async move {
        let (link, mut opened) = FakeLink::new(Manner::Open);
        let bench = Bench::new(v6, links(&[link]));
        for (v4, v6) in [("246.246.9.9", "fd99::999"), ("192.0.2.1", "2001:db8::1"), ("246.246.0.2", "fd99::2")] {
            let to = SocketAddr::new(bench.pick(v4, v6), 80);
            bench.send(&syn(bench.from(), to));
            assert_eq!(describe(&recv(bench.device()).await), "rst 1001");
            bench.send(&question(bench.from(), to, b"x"));
            assert!(describe(&recv(bench.device()).await).starts_with(if bench.v6 { "icmp 1/4" } else { "icmp 3/3" }));
        }
        let vip = SocketAddr::new(bench.pick("246.246.1.0", "fd99::100"), 8080);
        bench.send(&syn(bench.from(), vip));
        let far = opened.recv().await.unwrap();
        assert_eq!(far.to, SocketAddr::new(bench.pick("127.0.0.1", "::1"), 8080));
    });
}

#[test]
fn foreign_sources_fragments_and_stray_segments_do_not_make_flows() {
    both(|v6| async move {
        let mut table = vips();
        table.device_addresses.push("10.244.0.9".parse().unwrap());
        table.device_addresses.push("fd00:244::9".parse().unwrap());
        table.pod_ranges = vec!["10.244.0.0/16".parse().unwrap(), "fd00:244::/64".parse().unwrap()];
        let bench = Bench::with_vips(v6, links(&[]), table);
        let foreign = SocketAddr::new(bench.pick("192.0.2.3", "2001:db8::3"), 4000);
        bench.send(&syn(foreign, bench.to()));
        bench.counted(|c| c.dropped_source == 1).await;
        // With the device's address, but from beyond this host: it has come over a hop at least.
        let mut travelled = syn(bench.from(), bench.to());
        travelled[if v6 { 7 } else { 8 }] -= 1;
        bench.send(&travelled);
        bench.counted(|c| c.dropped_forwarded == 1).await;
        let ourselves = SocketAddr::new(bench.pick("10.244.0.9", "fd00:244::9"), 4000);
        bench.send(&syn(ourselves, bench.to()));
        assert_eq!(describe(&recv(bench.device()).await), "rst 1001");
        bench.send(&segment(bench.from(), bench.to(), TcpControl::None, 5, Some(77)));
        assert_eq!(describe(&recv(bench.device()).await), "rst 0");
        bench.send(&segment(bench.from(), bench.to(), TcpControl::Rst, 5, Some(77)));
        let mut fragment = syn(bench.from(), bench.to());
        if v6 {
            fragment[6] = 44
        } else {
            fragment[6] = 0x20
        }
        bench.send(&fragment);
        if v6 {
            // Parts within parts, which would each be whole.
            let mut nested = fragment[..40].to_vec();
            (0..8000).for_each(|_| nested.extend([44, 0, 0, 0, 0, 0, 0, 1]));
            let length = u16::try_from(nested.len() - 40).unwrap();
            nested[4..6].copy_from_slice(&length.to_be_bytes());
            bench.send(&nested);
        } else {
            bench.send(b"E");
        }
        let many = SocketAddr::new(bench.pick("224.0.0.251", "ff02::fb"), 5353);
        bench.send(&question(bench.from(), many, b"who is there"));
        bench.counted(|c| c.dropped_multicast == 1).await;
        bench.counted(|c| (c.dropped_fragment, c.dropped_malformed, c.dropped_stray) == (1, 1, 1)).await;
        assert!(nothing(bench.device()));
    });
}

#[test]
fn datagrams_go_both_ways_and_an_idle_association_ends() {
    both(|v6| async move {
        let (link, mut opened) = FakeLink::new(Manner::Open);
        let bench = Bench::new(v6, links(&[link]));
        bench.send(&question(bench.from(), bench.to(), b"ping"));
        let far = opened.recv().await.unwrap();
        assert_eq!(far.read(4).await, b"ping");
        far.write(vec![7; 60_000]);
        let answer = recv(bench.device()).await;
        assert_eq!(answer, datagram(bench.to(), bench.from(), &[7; 60_000]).unwrap());
        assert_eq!(View::parse(&answer).unwrap().key().unwrap().remote, bench.from());
        tokio::time::sleep(Duration::from_secs(59)).await;
        assert_eq!(bench.handle.counters().udp_open, 1);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(bench.handle.counters().udp_open, 0);
        assert_eq!(far.next().await, Sent::Dropped);
        bench.send(&question(bench.from(), bench.to(), b"again"));
        let far = opened.recv().await.unwrap();
        far.event(FlowEvent::Reset);
        assert!(describe(&recv(bench.device()).await).starts_with(if v6 { "icmp 1/4" } else { "icmp 3/3" }));
    });
}

#[test]
fn an_echo_is_answered_only_when_the_far_side_was_and_else_it_is_said_why() {
    both(|v6| async move {
        let (link, _) = FakeLink::new(Manner::Open);
        let bench = Bench::new(v6, links(&[Arc::clone(&link)]));
        let ask = |sequence, payload: &[u8]| {
            bench.send(&echo_request(bench.from().ip(), bench.to().ip(), sequence, payload));
        };
        let manner = |manner| *link.manner.lock().unwrap() = manner;
        ask(1, b"abcdefg");
        assert_eq!(echo_reply(&recv(bench.device()).await), (7, 1, b"abcdefg".to_vec()));
        ask(2, &[9; 60_000]);
        assert_eq!(echo_reply(&recv(bench.device()).await), (7, 2, vec![9; 60_000]));
        assert_eq!(*link.echoed.lock().unwrap(), [(bench.to().ip(), 1), (bench.to().ip(), 2)]);
        for (why, v4, six) in [
            (OpenError::TimedOut, "icmp 3/1", "icmp 1/3"),
            (OpenError::Forbidden, "icmp 3/13", "icmp 1/1"),
            (OpenError::NetUnreachable, "icmp 3/0", "icmp 1/0"),
        ] {
            manner(Manner::Fail(why));
            ask(3, b"");
            assert!(describe(&recv(bench.device()).await).starts_with(if v6 { six } else { v4 }), "{why}");
        }
        // A far side that says nothing keeps no request for ever, and not more than so many.
        manner(Manner::Silent);
        (0..300).for_each(|sequence| ask(sequence, b"x"));
        bench.counted(|c| c.dropped_echo_full >= 300 - 256).await;
        bench.counted(|c| c.refused == 3 + 256).await;
        assert!(describe(&recv(bench.device()).await).starts_with(if v6 { "icmp 1/3" } else { "icmp 3/1" }));
    });
}

#[test]
fn an_association_that_its_far_side_did_not_refuse_ends_silently_and_the_next_datagram_begins_another() {
    both(|v6| async move {
        let (link, mut opened) = FakeLink::new(Manner::Open);
        let bench = Bench::new(v6, links(&[link]));
        let ask = |word: &[u8]| bench.send(&question(bench.from(), bench.to(), word));
        ask(b"one");
        let far = opened.recv().await.unwrap();
        assert_eq!(far.read(3).await, b"one");
        far.event(FlowEvent::Fin);
        bench.counted(|c| c.udp_open == 0).await;
        assert!(nothing(bench.device()));
        // The end and a datagram at once: the datagram is not lost with the association that ended.
        ask(b"two");
        let far = opened.recv().await.unwrap();
        assert_eq!(far.read(3).await, b"two");
        far.event(FlowEvent::Fin);
        ask(b"three");
        let far = opened.recv().await.unwrap();
        assert_eq!(far.read(5).await, b"three");
        assert!(nothing(bench.device()));
    });
}

#[test]
fn dns_over_udp_is_taken_out_and_answered() {
    both(|v6| async move {
        let mut bench = Bench::new(v6, links(&[]));
        bench.send(&question(bench.from(), bench.dns_address(), b"query"));
        let query = bench.dns.recv().await.unwrap();
        assert_eq!((&*query.query, query.from, query.transport), (&b"query"[..], bench.from(), DnsTransport::Udp));
        query.reply.answer(Bytes::from_static(b"answer"));
        let answer = datagram(bench.dns_address(), bench.from(), b"answer").unwrap();
        assert_eq!(recv(bench.device()).await, answer);
        assert_eq!(bench.handle.counters().dns_queries, 1);
    });
}

#[test]
fn dns_over_tcp_answers_several_queries_and_closes_when_idle() {
    both(|v6| async move {
        let mut bench = Bench::new(v6, links(&[]));
        let to = bench.dns_address();
        let mut peer = bench.peer(to);
        peer.state_is(State::Established).await;
        peer.write(b"\x00\x03one\x00\x03tw").await;
        for (rest, name) in [(&b""[..], "one"), (b"o", "two")] {
            peer.write(rest).await;
            let query = bench.dns.recv().await.unwrap();
            assert_eq!((&*query.query, query.transport), (name.as_bytes(), DnsTransport::Tcp));
            query.reply.answer(Bytes::from(name.to_uppercase()));
            assert_eq!(peer.read(5).await[2..], *name.to_uppercase().as_bytes());
        }
        let start = tokio::time::Instant::now();
        peer.until(|s| (s.state() == State::CloseWait).then_some(())).await;
        assert!(start.elapsed() >= Duration::from_secs(18));
        peer.close();
        peer.state_is(State::Closed).await;
        bench.counted(|c| c.tcp_open == 0).await;
    });
}

#[test]
fn the_same_ports_can_be_used_again_while_the_last_connection_lingers() {
    both(|v6| async move {
        let (bench, mut peer, far) = connected(v6).await;
        far.event(FlowEvent::Fin);
        peer.state_is(State::CloseWait).await;
        peer.close();
        peer.state_is(State::Closed).await;
        assert_eq!(bench.handle.counters().tcp_open, 1);
        let (from, to) = (bench.from(), bench.to());
        peer.again(from, to);
        peer.state_is(State::Established).await;
        assert_eq!(bench.handle.counters().tcp_total, 2);
    });
}

#[test]
fn stopping_resets_everything_quickly() {
    both(|v6| async move {
        let (link, _opened) = FakeLink::new(Manner::Silent);
        let (bench, mut peer, far) = connected(v6).await;
        bench.clients.send_replace(links(&[link]));
        let start = tokio::time::Instant::now();
        let Bench { handle, .. } = bench;
        let counters = handle.shared_counters();
        assert_eq!(handle.stop().await, Ended::Stopped);
        assert!(start.elapsed() < Duration::from_millis(100));
        assert_eq!(counters.snapshot().tcp_open, 0);
        assert_eq!(far.next().await, Sent::Reset);
        peer.state_is(State::Closed).await;
    });
}

#[test]
fn an_echo_that_waits_gives_the_device_back_when_all_ends() {
    both(|v6| async move {
        let (link, _) = FakeLink::new(Manner::Silent);
        let bench = Bench::new(v6, links(&[Arc::clone(&link)]));
        bench.send(&echo_request(bench.from().ip(), bench.to().ip(), 1, b"x"));
        while link.echoed.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(bench.handle.stop().await, Ended::Stopped);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(bench.its.upgrade().is_none());
    });
}

#[test]
fn a_device_that_is_gone_ends_it_with_the_reason() {
    both(|v6| async move {
        let mut bench = Bench::new(v6, links(&[]));
        let ended = bench.handle.ended();
        drop(bench.device.take());
        assert_eq!(ended.await, Ended::DeviceGone("the other end is gone".into()));
    });
}

#[test]
fn the_virtual_addresses_that_flows_use_are_told() {
    both(|v6| async move {
        let (link, mut opened) = FakeLink::new(Manner::Open);
        let mut bench = Bench::new(v6, links(&[link]));
        let mut in_use = bench.handle.virtual_in_use();
        assert!(in_use.borrow().is_empty());
        let vip = bench.pick("246.246.1.0", "fd99::100");
        let mut peer = bench.peer(SocketAddr::new(vip, 80));
        let far = opened.recv().await.unwrap();
        peer.state_is(State::Established).await;
        in_use.wait_for(|vips| vips.iter().eq([&vip])).await.unwrap();
        far.event(FlowEvent::Reset);
        peer.state_is(State::Closed).await;
        in_use.wait_for(std::collections::BTreeSet::is_empty).await.unwrap();
    });
}
