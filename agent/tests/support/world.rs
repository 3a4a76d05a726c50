//! A real agent, the workstation's end, and a way between them that is cut.
#![allow(dead_code, clippy::allow_attributes, reason = "each test uses a part of it")]

#[path = "serving.rs"]
mod serving;

use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use podway_agent::args::Serve;
use podway_agent::server::{Agent, FlowLimits, Shared};
use podway_tunnel::client::{Carrier, Config, Event, Line, TcpFlow};
use serving::serving;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

pub const SOON: Duration = Duration::from_secs(20);
pub const DIAL: Duration = Duration::from_secs(5);

/// What becomes of the ways to the agent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fate {
    /// How often those that were there were cut.
    pub cuts: u64,
    /// Takes nothing off, and says nothing of ends.
    pub frozen: bool,
    /// The same, towards the workstation only.
    pub mute: bool,
}

pub struct World {
    pub agent: tokio::task::JoinHandle<()>,
    pub agents: Arc<Shared>,
    pub address: SocketAddr,
    pub serve: Serve,
    pub limits: FlowLimits,
    pub config: Config,
    pub fate: watch::Sender<Fate>,
    /// Where not zero, each way is cut after some bytes, fewer than this.
    pub cut_within: AtomicU64,
    pub random: AtomicU64,
}

impl Drop for World {
    fn drop(&mut self) {
        self.agent.abort();
    }
}

/// Carries bytes until there are none, or `left` are through.
pub async fn carry(
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
    pub async fn new() -> World {
        World::with(FlowLimits::default()).await
    }

    pub async fn with(limits: FlowLimits) -> World {
        let (pair, serve) = serving();
        let agent = Agent::bind(serve.clone(), limits.clone()).await.expect("bound");
        let (address, agents) = (agent.address(), agent.shared());
        let config = Config {
            pair,
            session_id: [7; 16],
            pod_uid: "pod-1".into(),
            special: vec!["127.0.0.0/8".to_owned()],
            budget: podway_tunnel::client::budget(),
            line: Some(Line::default()),
            bulk: None,
        };
        let agent = tokio::spawn(agent.run(std::future::pending()));
        let (cut_within, random) = (AtomicU64::new(0), AtomicU64::new(0x9e37_79b9_7f4a_7c15));
        World { agent, agents, address, serve, limits, config, fate: watch::Sender::default(), cut_within, random }
    }

    /// Another process in the agent's place.
    pub async fn restart_agent(&mut self) {
        self.agent.abort();
        let agent = Agent::bind(self.serve.clone(), self.limits.clone()).await.expect("bound");
        self.address = agent.address();
        self.agents = agent.shared();
        self.agent = tokio::spawn(agent.run(std::future::pending()));
        self.cut();
    }

    /// Ends the ways that are there.
    pub fn cut(&self) {
        self.fate.send_modify(|fate| fate.cuts += 1);
    }

    pub fn freeze(&self, frozen: bool) {
        self.fate.send_modify(|fate| fate.frozen = frozen);
    }

    pub fn below(&self, limit: u64) -> u64 {
        let next = |mut state: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^ (state << 17)
        };
        let state = self.random.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |state| Some(next(state)));
        state.map_or(0, next) % limit.max(1)
    }

    pub async fn connect(&self) -> Carrier {
        self.try_connect(&self.config).await.expect("welcome")
    }

    pub async fn try_connect(&self, config: &Config) -> Option<Carrier> {
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
    pub fn keep_connected(self: &Arc<Self>) -> tokio::task::JoinHandle<()> {
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

    pub fn kept(&self) -> u64 {
        self.config.budget.kept()
    }

    /// Waits until the agent holds nothing for any flow.
    pub async fn agent_is_empty(&self) {
        let counts = || (self.agents.flows(), self.agents.places.len(), self.agents.budget.kept());
        let empty = timeout(Duration::from_secs(3), async {
            while counts() != (0, 0, 0) {
                sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(empty.await.is_ok(), "slots, places, kept bytes: {:?}", counts());
    }
}

pub async fn send_all(flow: &mut TcpFlow, mut data: Bytes) {
    while !data.is_empty() {
        let room = poll_fn(|cx| flow.poll_send_ready(cx)).await.expect("open");
        flow.send(data.split_to(room.min(data.len()))).expect("open");
    }
}

pub async fn next(flow: &mut TcpFlow) -> Event {
    timeout(SOON, poll_fn(|cx| flow.poll_event(cx))).await.expect("an event in time")
}

pub async fn read(flow: &mut TcpFlow, length: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < length {
        match next(flow).await {
            Event::Data(data) => all.extend_from_slice(&data),
            end @ (Event::Fin | Event::Reset) => panic!("{end:?} after {} bytes", all.len()),
        }
    }
    all
}

pub async fn far_end() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

/// A flow and its far end, on a carrier of its own, which is held.
pub async fn opened(world: &World) -> (Carrier, TcpFlow, TcpStream) {
    let carrier = world.connect().await;
    let (flow, far) = open(&carrier).await;
    (carrier, flow, far)
}

/// A flow and its far end.
pub async fn open(carrier: &Carrier) -> (TcpFlow, TcpStream) {
    let (listener, address) = far_end().await;
    let flow = carrier.open_tcp(address, DIAL).await.expect("opened");
    let (far, _) = listener.accept().await.expect("a connection");
    (flow, far)
}

/// Lets a flow notice what happened, for so long; nothing may come of it.
pub async fn stands_still(flow: &mut TcpFlow, how_long: Duration) {
    let event = timeout(how_long, poll_fn(|cx| flow.poll_event(cx))).await;
    assert!(event.is_err(), "{event:?} of a flow that stands still");
    assert!(flow.stands_still());
}

pub async fn is_reset(far: &mut TcpStream) -> bool {
    let read = timeout(SOON, far.read(&mut [0; 64])).await.expect("in time");
    matches!(read, Err(error) if error.kind() == ErrorKind::ConnectionReset)
}

pub fn pattern(length: usize, seed: usize) -> Bytes {
    (0..length).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8 ^ seed as u8).collect::<Vec<u8>>().into()
}

/// Sends and finishes, and reads until the other end finishes.
pub async fn both_ways(flow: &mut TcpFlow, mut left: Bytes) -> Vec<u8> {
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
