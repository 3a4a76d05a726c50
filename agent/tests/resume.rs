//! Flows that outlive their carriers: a real agent, the workstation's end, and a way between them that is cut.
#![allow(clippy::expect_used, clippy::allow_attributes, reason = "a test says what it expects")]
#![allow(clippy::disallowed_methods, reason = "tests measure time")]

use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use podway_agent::args::Serve;
use podway_agent::server::{Agent, FlowLimits};
use podway_tunnel::client::{Carrier, Config, Event, Line, TcpFlow};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

const SOON: Duration = Duration::from_secs(20);
const DIAL: Duration = Duration::from_secs(5);
/// Bytes of a bulk flow each way.
const BULK: usize = 12 << 20;

/// What becomes of the ways to the agent.
#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    /// How often those that were there were cut.
    cuts: u64,
    /// Takes nothing off, and says nothing of ends.
    frozen: bool,
    /// The same, towards the workstation only.
    mute: bool,
}

struct World {
    agent: tokio::task::JoinHandle<()>,
    address: SocketAddr,
    serve: Serve,
    limits: FlowLimits,
    config: Config,
    fate: watch::Sender<Fate>,
    /// Where not zero, each way is cut after some bytes, fewer than this.
    cut_within: AtomicU64,
    random: AtomicU64,
}

impl Drop for World {
    fn drop(&mut self) {
        self.agent.abort();
    }
}

/// Carries bytes until there are none, or `left` are through.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut fate: watch::Receiver<Fate>,
    left: &AtomicU64,
    passes_when: fn(&Fate) -> bool,
) {
    let mut buffer = vec![0; 20_000];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let before =
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(length as u64)));
        let passes = length.min(before.map_or(0, |left| usize::try_from(left).unwrap_or(usize::MAX)));
        let cuts = fate.borrow().cuts;
        if fate.wait_for(passes_when).await.is_ok_and(|fate| fate.cuts > cuts) {
            return;
        }
        if to.write_all(&buffer[..passes]).await.is_err() || passes < length {
            return;
        }
    }
    // A frozen way passes no end on.
    drop(fate.wait_for(passes_when).await);
}

impl World {
    async fn new() -> World {
        World::with(FlowLimits::default()).await
    }

    async fn with(limits: FlowLimits) -> World {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        let pair = Arc::new(Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("its pair"));
        let serve = Serve {
            listen: "127.0.0.1:0".parse().expect("an address"),
            authorized_key: pair.public_key().as_ref().try_into().expect("32 bytes"),
            pod_uid: "pod-1".into(),
            idle_exit: Duration::from_secs(3600),
            resolv_conf: "/nonexistent".into(),
        };
        let agent = Agent::bind(serve.clone(), limits.clone()).await.expect("bound");
        let address = agent.address();
        let config = Config {
            pair,
            session_id: [7; 16],
            pod_uid: "pod-1".into(),
            special: vec!["127.0.0.0/8".to_owned()],
            budget: podway_tunnel::client::budget(),
            line: Some(Line::default()),
        };
        let agent = tokio::spawn(agent.run(std::future::pending()));
        let (cut_within, random) = (AtomicU64::new(0), AtomicU64::new(0x9e37_79b9_7f4a_7c15));
        World { agent, address, serve, limits, config, fate: watch::Sender::default(), cut_within, random }
    }

    /// Another process in the agent's place.
    async fn restart_agent(&mut self) {
        self.agent.abort();
        let agent = Agent::bind(self.serve.clone(), self.limits.clone()).await.expect("bound");
        self.address = agent.address();
        self.agent = tokio::spawn(agent.run(std::future::pending()));
        self.cut();
    }

    /// Ends the ways that are there.
    fn cut(&self) {
        self.fate.send_modify(|fate| fate.cuts += 1);
    }

    fn freeze(&self, frozen: bool) {
        self.fate.send_modify(|fate| fate.frozen = frozen);
    }

    fn below(&self, limit: u64) -> u64 {
        let next = |mut state: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^ (state << 17)
        };
        let state = self.random.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |state| Some(next(state)));
        state.map_or(0, next) % limit.max(1)
    }

    async fn connect(&self) -> Carrier {
        self.try_connect(&self.config).await.expect("welcome")
    }

    async fn try_connect(&self, config: &Config) -> Option<Carrier> {
        let (ours, theirs) = tokio::io::duplex(256 << 10);
        let far = TcpStream::connect(self.address).await.expect("the agent listens");
        far.set_nodelay(true).expect("set");
        let within = self.cut_within.load(Ordering::Relaxed);
        let left = AtomicU64::new(if within == 0 { u64::MAX } else { self.below(within) });
        let fate = self.fate.subscribe();
        tokio::spawn(async move {
            let (near_read, near_write) = tokio::io::split(theirs);
            let (far_read, far_write) = far.into_split();
            let cuts = fate.borrow().cuts;
            let mut told = fate.clone();
            // Both are over when either is: what is under way is lost, in the middle of a frame or not.
            tokio::select! {
                () = carry(near_read, far_write, fate.clone(), &left, |fate| !fate.frozen) => {}
                () = carry(far_read, near_write, fate, &left, |fate| !fate.frozen && !fate.mute) => {}
                _ = told.wait_for(|fate| fate.cuts > cuts) => {}
            }
        });
        timeout(SOON, Carrier::connect(ours, config)).await.expect("in time").ok()
    }

    /// Connects whenever there is no carrier, as long as nobody aborts it.
    fn keep_connected(self: &Arc<Self>) -> tokio::task::JoinHandle<()> {
        let world = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                if let Some(carrier) = world.try_connect(&world.config).await {
                    carrier.closed().await;
                    sleep(Duration::from_millis(world.below(40))).await;
                }
            }
        })
    }

    fn kept(&self) -> u64 {
        self.config.budget.kept()
    }
}

async fn send_all(flow: &mut TcpFlow, mut data: Bytes) {
    while !data.is_empty() {
        let room = poll_fn(|cx| flow.poll_send_ready(cx)).await.expect("open");
        flow.send(data.split_to(room.min(data.len()))).expect("open");
    }
}

async fn next(flow: &mut TcpFlow) -> Event {
    timeout(SOON, poll_fn(|cx| flow.poll_event(cx))).await.expect("an event in time")
}

async fn read(flow: &mut TcpFlow, length: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < length {
        match next(flow).await {
            Event::Data(data) => all.extend_from_slice(&data),
            end @ (Event::Fin | Event::Reset) => panic!("{end:?} after {} bytes", all.len()),
        }
    }
    all
}

async fn far_end() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

/// A flow and its far end, on a carrier of its own, which is held.
async fn opened(world: &World) -> (Carrier, TcpFlow, TcpStream) {
    let carrier = world.connect().await;
    let (flow, far) = open(&carrier).await;
    (carrier, flow, far)
}

/// A flow and its far end.
async fn open(carrier: &Carrier) -> (TcpFlow, TcpStream) {
    let (listener, address) = far_end().await;
    let flow = carrier.open_tcp(address, DIAL).await.expect("opened");
    let (far, _) = listener.accept().await.expect("a connection");
    (flow, far)
}

/// Lets a flow notice what happened, for so long; nothing may come of it.
async fn stands_still(flow: &mut TcpFlow, how_long: Duration) {
    let event = timeout(how_long, poll_fn(|cx| flow.poll_event(cx))).await;
    assert!(event.is_err(), "{event:?} of a flow that stands still");
    assert!(flow.stands_still());
}

async fn is_reset(far: &mut TcpStream) -> bool {
    let read = timeout(SOON, far.read(&mut [0; 64])).await.expect("in time");
    matches!(read, Err(error) if error.kind() == ErrorKind::ConnectionReset)
}

fn pattern(length: usize, seed: usize) -> Bytes {
    (0..length).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8 ^ seed as u8).collect::<Vec<u8>>().into()
}

/// Sends and finishes, and reads until the other end finishes.
async fn both_ways(flow: &mut TcpFlow, mut left: Bytes) -> Vec<u8> {
    let (mut received, mut finished) = (Vec::new(), false);
    poll_fn(|cx| {
        loop {
            let mut moved = false;
            while !left.is_empty() {
                let Poll::Ready(room) = flow.poll_send_ready(cx) else { break };
                let room = room.expect("open");
                flow.send(left.split_to(room.min(left.len()))).expect("open");
                moved = true;
                if left.is_empty() {
                    flow.send_fin();
                }
            }
            match flow.poll_event(cx) {
                Poll::Ready(Event::Data(data)) => received.extend_from_slice(&data),
                Poll::Ready(Event::Fin) => finished = true,
                Poll::Ready(Event::Reset) => panic!("reset after {} bytes", received.len()),
                Poll::Pending if finished && left.is_empty() => return Poll::Ready(()),
                Poll::Pending if moved => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
    received
}

/// Two flows at once, each with other bytes both ways, over carriers that are cut after so many bytes.
async fn bulk(cut_within: u64) {
    let world = Arc::new(World::new().await);
    let carrier = world.connect().await;
    let mut flows = Vec::new();
    for seed in 1..3 {
        let (mut flow, far) = open(&carrier).await;
        let (up, down) = (pattern(BULK, seed), pattern(BULK, 100 + seed));
        let (sent, expected) = (up.clone(), down.clone());
        let far = tokio::spawn(async move {
            let (mut read, mut write) = far.into_split();
            let (mut got, writing) = (Vec::new(), async {
                write.write_all(&down).await.expect("no reset");
                write.shutdown().await.expect("finished");
            });
            let (read, ()) = tokio::join!(read.read_to_end(&mut got), writing);
            read.expect("no reset");
            assert!(got == up, "{} bytes arrived", got.len());
        });
        let near = tokio::spawn(async move {
            let got = both_ways(&mut flow, sent).await;
            assert!(got == expected, "{} bytes came", got.len());
        });
        flows.extend([far, near]);
    }
    world.cut_within.store(cut_within, Ordering::Relaxed);
    world.cut();
    let connected = world.keep_connected();
    for flow in flows {
        timeout(6 * SOON, flow).await.expect("in time").expect("whole");
    }
    assert!(world.fate.borrow().cuts == 1);
    world.cut_within.store(0, Ordering::Relaxed);
    timeout(SOON, async {
        while world.kept() > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("all of it is let go");
    connected.abort();
}

#[tokio::test]
async fn bulk_arrives_whole_though_carriers_are_cut_after_any_number_of_bytes() {
    bulk(3 << 20).await;
}

#[tokio::test]
async fn bulk_arrives_whole_though_many_carriers_end_while_flows_are_resumed() {
    bulk(600 << 10).await;
}

#[tokio::test]
async fn a_quiet_flow_goes_on_where_it_was() {
    let world = World::new().await;
    let (mut held, mut flow, mut far) = opened(&world).await;
    send_all(&mut flow, Bytes::from_static(b"one")).await;
    far.read_exact(&mut [0; 3]).await.expect("read");
    for round in 0..3 {
        world.cut();
        stands_still(&mut flow, Duration::from_millis(100)).await;
        far.write_all(b"meanwhile").await.expect("written");
        held = world.connect().await;
        assert_eq!(read(&mut flow, 9).await, b"meanwhile", "round {round}");
        send_all(&mut flow, Bytes::from_static(b"two")).await;
        let mut word = [0; 3];
        timeout(SOON, far.read_exact(&mut word)).await.expect("in time").expect("read");
        assert_eq!(&word, b"two");
    }
    assert!(held.is_alive());
}

#[tokio::test]
async fn halves_that_were_closed_stay_closed_and_those_that_were_not_go_on() {
    let world = World::new().await;
    for workstation_first in [true, false] {
        let (_held, mut flow, mut far) = opened(&world).await;
        let mut all = Vec::new();
        if workstation_first {
            send_all(&mut flow, Bytes::from_static(b"question")).await;
            flow.send_fin();
            far.read_to_end(&mut all).await.expect("read");
            assert_eq!(all, b"question");
            world.cut();
            stands_still(&mut flow, Duration::from_millis(50)).await;
            far.write_all(b"answer").await.expect("written");
            far.shutdown().await.expect("finished");
            let _carrier = world.connect().await;
            assert_eq!(read(&mut flow, 6).await, b"answer");
            assert_eq!(next(&mut flow).await, Event::Fin);
        } else {
            far.write_all(b"greeting").await.expect("written");
            far.shutdown().await.expect("finished");
            assert_eq!(read(&mut flow, 8).await, b"greeting");
            assert_eq!(next(&mut flow).await, Event::Fin);
            world.cut();
            stands_still(&mut flow, Duration::from_millis(50)).await;
            // Nothing can be sent, but that nothing more will be is known already.
            flow.send_fin();
            let _carrier = world.connect().await;
            let reading = async { timeout(SOON, far.read_to_end(&mut all)).await.expect("in time").expect("no reset") };
            tokio::select! {
                _ = reading => {}
                event = poll_fn(|cx| flow.poll_event(cx)) => panic!("{event:?}"),
            }
            assert!(all.is_empty());
        }
    }
}

#[tokio::test]
async fn what_a_flow_that_is_dropped_has_sent_arrives_over_the_next_carrier() {
    // Fewer than a carrier takes off before it has heard of any window.
    const BYTES: usize = 40_000;
    let world = World::new().await;
    let (_held, mut flow, mut far) = opened(&world).await;
    far.shutdown().await.expect("finished");
    assert_eq!(next(&mut flow).await, Event::Fin);
    world.freeze(true);
    send_all(&mut flow, pattern(BYTES, 0)).await;
    flow.send_fin();
    drop(flow);
    world.cut();
    world.freeze(false);
    let _carrier = world.connect().await;
    let mut all = Vec::new();
    timeout(SOON, far.read_to_end(&mut all)).await.expect("in time").expect("no reset");
    assert!(all == pattern(BYTES, 0), "{} bytes", all.len());
}

#[tokio::test]
async fn an_end_in_order_is_no_reset_though_the_last_word_of_it_was_lost() {
    let world = World::new().await;
    let (_held, mut flow, mut far) = opened(&world).await;
    let down = pattern(100_000, 3);
    far.write_all(&down).await.expect("written");
    far.shutdown().await.expect("finished");
    // All of it arrives, while the program reads nothing.
    let arriving = poll_fn(|cx| {
        flow.poll_arrivals(cx);
        Poll::<()>::Pending
    });
    timeout(Duration::from_millis(200), arriving).await.expect_err("nothing ends it");
    world.fate.send_modify(|fate| fate.mute = true);
    flow.send_fin();
    assert_eq!(timeout(SOON, far.read(&mut [0; 8])).await.expect("in time").expect("no reset"), 0);
    world.cut();
    world.fate.send_modify(|fate| fate.mute = false);
    sleep(Duration::from_millis(50)).await;
    let _carrier = world.connect().await;
    assert!(read(&mut flow, down.len()).await == down);
    assert_eq!(next(&mut flow).await, Event::Fin);
    let more = timeout(Duration::from_millis(300), poll_fn(|cx| flow.poll_event(cx))).await;
    assert!(more.is_err(), "{more:?} after an end in order");
}

#[tokio::test]
async fn resets_are_told_over_the_next_carrier() {
    let world = World::new().await;
    // The program's, while there is no carrier.
    let (_held, mut flow, mut far) = opened(&world).await;
    world.cut();
    stands_still(&mut flow, Duration::from_millis(50)).await;
    drop(flow);
    let carrier = world.connect().await;
    assert!(is_reset(&mut far).await);
    // The program's, on a carrier that takes the word along.
    let (flow, mut far) = open(&carrier).await;
    world.freeze(true);
    drop(flow);
    sleep(Duration::from_millis(50)).await;
    world.cut();
    world.freeze(false);
    let carrier = world.connect().await;
    assert!(is_reset(&mut far).await);
    // The far end's, after bytes that were under way.
    let (mut flow, mut far) = open(&carrier).await;
    world.freeze(true);
    far.write_all(b"last words").await.expect("written");
    sleep(Duration::from_millis(50)).await;
    world.cut();
    world.freeze(false);
    stands_still(&mut flow, Duration::from_millis(50)).await;
    socket2::SockRef::from(&far).set_linger(Some(Duration::ZERO)).expect("set");
    drop(far);
    let _carrier = world.connect().await;
    assert_eq!(read(&mut flow, 10).await, b"last words");
    assert_eq!(next(&mut flow).await, Event::Reset);
}

#[tokio::test]
async fn a_carrier_that_the_agent_believes_alive_holds_no_flow_back() {
    let world = World::new().await;
    let old = world.connect().await;
    let (mut flow, mut far) = open(&old).await;
    world.freeze(true);
    // Not left for good: its line goes on. The agent hears nothing of the end.
    old.close();
    stands_still(&mut flow, Duration::from_millis(100)).await;
    far.write_all(b"still here").await.expect("written");
    let stream = TcpStream::connect(world.address).await.expect("connected");
    let _carrier = Carrier::connect(stream, &world.config).await.expect("welcome");
    assert_eq!(read(&mut flow, 10).await, b"still here");
    world.freeze(false);
    send_all(&mut flow, Bytes::from_static(b"yes")).await;
    timeout(SOON, far.read_exact(&mut [0; 3])).await.expect("in time").expect("read");
}

#[tokio::test]
async fn another_session_cannot_have_the_flow() {
    let world = World::new().await;
    let line = Line::default();
    let config = Config { line: Some(line.clone()), ..world.config.clone() };
    let carrier = world.try_connect(&config).await.expect("welcome");
    let (mut flow, mut far) = open(&carrier).await;
    world.cut();
    stands_still(&mut flow, Duration::from_millis(50)).await;
    // Of the same user, who knows the flow's name: the line leads there.
    let stranger = Config { session_id: [8; 16], ..config.clone() };
    let _strange = world.try_connect(&stranger).await.expect("welcome");
    assert_eq!(next(&mut flow).await, Event::Reset);
    // To the agent's side it does not matter: it waits for its own.
    let heard = timeout(Duration::from_millis(200), far.read(&mut [0; 8])).await;
    assert!(heard.is_err(), "{heard:?}");
}

#[tokio::test]
async fn a_flow_that_nobody_resumes_in_time_is_reset_at_both_ends() {
    let limits = FlowLimits { resume: Duration::from_millis(300), ..FlowLimits::default() };
    let world = World::with(limits).await;
    let (_held, mut flow, mut far) = opened(&world).await;
    let began = Instant::now();
    world.cut();
    assert_eq!(next(&mut flow).await, Event::Reset);
    assert!(is_reset(&mut far).await);
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    let _carrier = world.connect().await;
}

#[tokio::test]
async fn the_flows_of_an_agent_that_is_gone_are_reset_as_soon_as_that_is_known() {
    let mut world = World::new().await;
    let (_held, mut flow, _far) = opened(&world).await;
    world.restart_agent().await;
    stands_still(&mut flow, Duration::from_millis(50)).await;
    let carrier = world.connect().await;
    assert_eq!(next(&mut flow).await, Event::Reset, "another process does not know it");
    // And where no other comes.
    let (mut flow, _far) = open(&carrier).await;
    world.cut();
    stands_still(&mut flow, Duration::from_millis(50)).await;
    world.config.line.as_ref().expect("a line").end();
    assert_eq!(next(&mut flow).await, Event::Reset);
}

#[tokio::test]
async fn a_workstation_that_leaves_on_purpose_leaves_nothing_behind() {
    let world = World::new().await;
    let carrier = world.connect().await;
    let (mut flow, mut far) = open(&carrier).await;
    world.config.line.as_ref().expect("a line").end();
    carrier.close();
    assert!(is_reset(&mut far).await);
    assert_eq!(next(&mut flow).await, Event::Reset);
}

#[tokio::test]
async fn with_one_who_does_not_know_how_flows_end_with_their_carrier() {
    // An older workstation.
    let world = World::new().await;
    let older = Config { line: None, ..world.config.clone() };
    let carrier = world.try_connect(&older).await.expect("welcome");
    let (mut flow, mut far) = open(&carrier).await;
    world.cut();
    assert_eq!(next(&mut flow).await, Event::Reset);
    assert!(is_reset(&mut far).await);
    // An older agent says zero.
    let world = World::with(FlowLimits { resume: Duration::ZERO, ..FlowLimits::default() }).await;
    let (_held, mut flow, mut far) = opened(&world).await;
    world.cut();
    assert_eq!(next(&mut flow).await, Event::Reset);
    assert!(is_reset(&mut far).await);
}

#[tokio::test]
async fn flows_that_nobody_has_come_for_make_room_for_others() {
    let world = World::with(FlowLimits { flows: 2, ..FlowLimits::default() }).await;
    let carrier = world.connect().await;
    let (first, mut first_far) = open(&carrier).await;
    let (mut second, mut second_far) = open(&carrier).await;
    world.cut();
    stands_still(&mut second, Duration::from_millis(50)).await;
    // Another session of the same user.
    let other = Config { session_id: [8; 16], line: Some(Line::default()), ..world.config.clone() };
    let carrier = world.try_connect(&other).await.expect("welcome");
    let (listener, address) = far_end().await;
    let opened = timeout(SOON, async {
        loop {
            if let Ok(flow) = carrier.open_tcp(address, DIAL).await {
                return flow;
            }
        }
    });
    let _flow = opened.await.expect("a place");
    listener.accept().await.expect("a connection");
    // One of them went, and was told.
    let (mut word, mut other_word) = ([0; 8], [0; 8]);
    let (one, other) = tokio::join!(
        timeout(Duration::from_millis(500), first_far.read(&mut word)),
        timeout(Duration::from_millis(500), second_far.read(&mut other_word)),
    );
    assert!(one.is_ok() || other.is_ok(), "nobody went");
    drop(first);
}

/// How much is kept where nobody reads, at the workstation for flows to the cluster, and that it goes when it has arrived.
#[tokio::test]
async fn what_is_kept_for_readers_that_stand_still_is_bounded() {
    const FLOWS: usize = 40;
    let world = World::new().await;
    let carrier = world.connect().await;
    let mut flows = Vec::new();
    for _ in 0..FLOWS {
        flows.push(open(&carrier).await);
    }
    // Nothing gets through, so nothing is acknowledged: the windows that the agent named bound what is kept.
    world.freeze(true);
    let chunk = pattern(64 << 10, 0);
    let mut sent = vec![0_usize; FLOWS];
    for ((flow, _far), sent) in flows.iter_mut().zip(&mut sent) {
        while let Ok(room) = timeout(Duration::from_millis(20), poll_fn(|cx| flow.poll_send_ready(cx))).await {
            let room = room.expect("open").min(chunk.len());
            flow.send(chunk.slice(..room)).expect("open");
            *sent += room;
        }
    }
    let kept = world.kept();
    println_kept("flows whose carrier stands still", kept, FLOWS);
    let first_window = podway_tunnel::credit::FIRST_WINDOW;
    assert!(kept > 0 && kept <= FLOWS as u64 * first_window && kept <= podway_tunnel::AGENT_BUFFERS, "{kept}");
    assert_eq!(kept, sent.iter().sum::<usize>() as u64, "no more than was sent");
    // Cut and resumed, it goes on; what the agent has is let go though the far ends read nothing.
    world.cut();
    world.freeze(false);
    let _carrier = world.connect().await;
    timeout(SOON, async {
        while world.kept() > 0 {
            for (flow, _far) in &mut flows {
                poll_fn(|cx| {
                    flow.poll_arrivals(cx);
                    Poll::Ready(())
                })
                .await;
            }
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the agent has it all");
    for ((_flow, far), sent) in flows.iter_mut().zip(sent) {
        let mut all = vec![0; sent];
        timeout(SOON, far.read_exact(&mut all)).await.expect("in time").expect("no reset");
    }
}

#[expect(clippy::print_stdout, reason = "a measurement prints")]
fn println_kept(what: &str, kept: u64, flows: usize) {
    println!("{what}: {kept} bytes kept for {flows} flows");
}
