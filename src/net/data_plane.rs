//! From packets to flows.
//!
//! One reader task takes packets from the device and sorts them by five-tuple to the tasks of their flows, through bounded
//! channels: a full one drops and counts, as a network does. It never dials, waits for a carrier or takes a lock. Flows
//! write their packets to the device themselves.
//!
//! - Only packets from the device's own addresses are taken, and only those that were made on this host: the device's routes give
//!   them the highest hop limit, and who sends through this host has less.
//! - What the kernel cut for the device's MTU is put together again: far ends have paths of their own.
//! - An echo request is answered when the agent's own was, else an unreachable says why not: never a made-up reply.
//! - Stopping drops the table of flows; each sees its channel closed, resets both its sides and ends.
#![expect(clippy::disallowed_methods, reason = "the shell of the data plane: timers and smoltcp need the clock")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use podway_tunnel::rest::Rest;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::net::agent::OpenError;
use crate::net::counters::{Counters, CountersSnapshot, add, take_back};
use crate::net::dns_tap::{self, DNS_PORT, DnsSink};
use crate::net::echo;
use crate::net::far::Via;
use crate::net::flow::{self, Far};
use crate::net::fragments::{Fragments, Part, Taken};
use crate::net::packet::{self, Body, FULL_HOPS, FlowKey, Protocol, Uncarried, View};
use crate::net::tun::PacketDevice;
use crate::net::udp;
use crate::net::views::{ClientTable, Destination, Target, VipTable};

/// Flows of one session, TCP and UDP together.
pub const MAX_FLOWS: usize = 16_384;

/// Packets that wait for one flow. The receive window bounds their bytes for a proper TCP; this bounds the rest.
const FLOW_QUEUE: usize = 64;

/// The same for datagrams, whose sender does not slow down by itself: ten milliseconds at 50,000 a second. Beyond
/// [`FLOW_QUEUE`] only short ones, which is what comes so often.
const DATAGRAM_QUEUE: usize = 512;
const SHORT: usize = 2048;

/// Packets read before other tasks get their turn.
const BUDGET: usize = 64;

/// Longest packet of either family that a device can hand over.
const LONGEST: usize = 65_536;

/// How long flows may take to end when the data plane stops.
const STOP_TIMEOUT: Duration = Duration::from_millis(100);

/// How often it is looked which virtual addresses flows use.
const IN_USE_EVERY: Duration = Duration::from_secs(1);

/// How often reaching the limit of flows is logged.
const LIMIT_LOG: Duration = Duration::from_secs(60);

/// What the data plane reads and whom it tells. All channels are bounded by their makers.
#[derive(Clone, Debug)]
pub struct Wiring {
    /// The links that work now.
    pub clients: watch::Receiver<Arc<ClientTable>>,
    /// What addresses stand for.
    pub vips: watch::Receiver<Arc<VipTable>>,
    /// Takes DNS queries.
    pub dns: DnsSink,
    /// Takes targets that flows wait for, each at most once a second.
    pub blocked_tx: mpsc::Sender<Target>,
    /// How long a UDP association lives without a datagram, either way.
    pub udp_idle: Duration,
}

/// Why the data plane ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was stopped.
    Stopped,
    /// The device is gone; says what the kernel said.
    DeviceGone(Arc<str>),
    /// The reader task panicked.
    Panicked,
}

/// The data plane's front.
#[derive(Debug)]
pub struct DataPlane;

/// A running data plane. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct DataPlaneHandle {
    counters: Arc<Counters>,
    virtual_in_use: watch::Receiver<BTreeSet<IpAddr>>,
    stop: CancellationToken,
    ended: watch::Receiver<Option<Ended>>,
}

impl Drop for DataPlaneHandle {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl DataPlane {
    /// Starts to carry packets of `device`. Must be called within a tokio runtime.
    pub fn start(device: Arc<dyn PacketDevice>, wiring: Wiring) -> DataPlaneHandle {
        let counters = Arc::new(Counters::default());
        let stop = CancellationToken::new();
        let plane = Arc::new(Plane {
            stop: stop.clone(),
            device,
            clients: wiring.clients,
            dns: wiring.dns,
            udp_idle: wiring.udp_idle,
            blocked_tx: wiring.blocked_tx,
            blocked_told: Mutex::new(BTreeMap::new()),
            counters: Arc::clone(&counters),
            dns_places: Arc::new(Semaphore::new(dns_tap::PENDING)),
            echo_places: Arc::new(Semaphore::new(echo::PENDING)),
            epoch: Instant::now(),
            seeds: RandomState::new(),
            seeded: AtomicU64::new(0),
        });
        let (ended_tx, ended) = watch::channel(None);
        let (in_use_tx, virtual_in_use) = watch::channel(BTreeSet::new());
        let reader = tokio::spawn(Reader::new(plane, wiring.vips, in_use_tx).run(stop.clone()));
        tokio::spawn(async move {
            let why = reader.await.unwrap_or(Ended::Panicked);
            ended_tx.send_replace(Some(why));
        });
        DataPlaneHandle { counters, virtual_in_use, stop, ended }
    }
}

impl DataPlaneHandle {
    /// The counters now.
    pub fn counters(&self) -> CountersSnapshot {
        self.counters.snapshot()
    }

    /// The counters themselves, for whoever publishes them.
    pub fn shared_counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// The virtual addresses that flows use, looked at once a second.
    pub fn virtual_in_use(&self) -> watch::Receiver<BTreeSet<IpAddr>> {
        self.virtual_in_use.clone()
    }

    /// Returns when the data plane has ended and says why; independent of the handle's life. Cancel safe.
    pub fn ended(&self) -> impl Future<Output = Ended> + Send + 'static {
        let mut ended = self.ended.clone();
        async move {
            match ended.wait_for(Option::is_some).await {
                Ok(why) => why.clone().unwrap_or(Ended::Panicked),
                Err(_) => Ended::Panicked,
            }
        }
    }

    /// Resets all flows and returns when none is left, after 100 ms at the latest. The device stays with its other owners.
    pub async fn stop(self) -> Ended {
        self.stop.cancel();
        self.ended().await
    }
}

/// What all flows share.
pub(crate) struct Plane {
    /// Cancelled when the data plane is to end: what is no flow ends by it, and gives the device back.
    pub stop: CancellationToken,
    pub device: Arc<dyn PacketDevice>,
    pub clients: watch::Receiver<Arc<ClientTable>>,
    pub dns: DnsSink,
    pub udp_idle: Duration,
    pub blocked_tx: mpsc::Sender<Target>,
    pub blocked_told: Mutex<BTreeMap<Target, Instant>>,
    pub counters: Arc<Counters>,
    /// Queries, and echo requests, that may wait at once.
    pub dns_places: Arc<Semaphore>,
    pub echo_places: Arc<Semaphore>,
    epoch: Instant,
    seeds: RandomState,
    seeded: AtomicU64,
}

impl Plane {
    pub(crate) fn now(&self) -> Instant {
        Instant::now()
    }

    /// The clock of the stacks: microseconds since the data plane started.
    pub(crate) fn stack_time(&self) -> smoltcp::time::Instant {
        let micros = self.now().saturating_duration_since(self.epoch).as_micros();
        smoltcp::time::Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }

    /// What a flow's initial sequence number comes from: unguessable and new each time (RFC 6528).
    pub(crate) fn seed(&self, key: &FlowKey) -> u64 {
        self.seeds.hash_one((key, self.seeded.fetch_add(1, Ordering::Relaxed)))
    }

    /// Writes a packet to the device. One that it does not take at once is dropped.
    pub(crate) fn send(&self, packet: &[u8]) {
        match self.device.try_send(packet) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => add(&self.counters.dropped_device_full, 1),
            // A device that is gone ends the reader, and so everything; a single refused packet is a lost one.
            Err(_) => add(&self.counters.dropped_device_refused, 1),
        }
    }

    /// Answers the packet that asked for a flow with what fits `why`.
    pub(crate) fn refuse(&self, packet: &[u8], why: OpenError) -> Fate {
        add(&self.counters.refused, 1);
        let tcp = matches!(View::parse(packet), Ok(View { body: Body::Tcp { .. }, .. }));
        let answer = match why {
            OpenError::Refused | OpenError::Limit if tcp => packet::reset(packet),
            OpenError::Refused
            | OpenError::Limit
            | OpenError::HostUnreachable
            | OpenError::NetUnreachable
            | OpenError::TimedOut
            | OpenError::Forbidden
            | OpenError::LinkLost => packet::unreachable(packet, udp::unreachable(why)),
        };
        if let Some(answer) = answer {
            self.send(&answer);
        }
        Fate::Answered
    }
}

/// Whether an address stands for more than one host.
fn is_for_many(address: IpAddr) -> bool {
    address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// What became of a packet of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// A flow, our DNS or an echo has it.
    Taken,
    /// It was answered at once.
    Answered,
    /// It was dropped, and counted by the reason.
    Dropped,
}

/// A flow as the reader knows it.
struct Entry {
    number: u64,
    packets: mpsc::Sender<Bytes>,
}

/// Tells the reader that a flow is over, also when its task panicked.
struct Farewell {
    key: FlowKey,
    number: u64,
    /// Packets that came when the flow was already over; they may begin the next one.
    left: Vec<Bytes>,
    /// Not bounded by itself, but each flow sends once, and flows are limited.
    over_tx: mpsc::UnboundedSender<(FlowKey, u64, Vec<Bytes>)>,
}

impl Farewell {
    fn leave(&mut self, left: Vec<Bytes>) {
        self.left = left;
    }
}

impl Drop for Farewell {
    fn drop(&mut self) {
        self.over_tx.send((self.key, self.number, std::mem::take(&mut self.left))).ok();
    }
}

/// The reader task: sole owner of the table of flows.
struct Reader {
    plane: Arc<Plane>,
    vips: watch::Receiver<Arc<VipTable>>,
    flows: HashMap<FlowKey, Entry>,
    in_use_tx: watch::Sender<BTreeSet<IpAddr>>,
    started: u64,
    over_tx: mpsc::UnboundedSender<(FlowKey, u64, Vec<Bytes>)>,
    over_rx: mpsc::UnboundedReceiver<(FlowKey, u64, Vec<Bytes>)>,
    limit_logged: Option<Instant>,
    forwarded_logged: Option<Instant>,
    fragments: Fragments,
    rest: Rest,
}

impl Reader {
    fn new(
        plane: Arc<Plane>,
        vips: watch::Receiver<Arc<VipTable>>,
        in_use_tx: watch::Sender<BTreeSet<IpAddr>>,
    ) -> Self {
        let (over_tx, over_rx) = mpsc::unbounded_channel();
        Self {
            plane,
            vips,
            flows: HashMap::new(),
            in_use_tx,
            started: 0,
            over_tx,
            over_rx,
            limit_logged: None,
            forwarded_logged: None,
            fragments: Fragments::default(),
            rest: Rest::default(),
        }
    }

    async fn run(mut self, stop: CancellationToken) -> Ended {
        let device = Arc::clone(&self.plane.device);
        let mut buffer = vec![0; LONGEST];
        let mut chunk = BytesMut::new();
        let mut looks = tokio::time::interval(IN_USE_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let why = loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break Ended::Stopped,
                _ = looks.tick() => {
                    self.tell_in_use();
                    self.fragments.age();
                    self.count_in_vain();
                    self.tidy();
                }
                Some((key, number, left)) = self.over_rx.recv() => {
                    if self.flows.get(&key).is_some_and(|entry| entry.number == number) {
                        self.flows.remove(&key);
                    }
                    for packet in left {
                        // It was counted when it came.
                        self.take(packet);
                    }
                }
                readable = device.readable() => {
                    let read = readable.and_then(|()| self.read(&mut buffer, &mut chunk));
                    if let Err(error) = read {
                        break Ended::DeviceGone(error.to_string().into());
                    }
                    // The device may stay readable for ever.
                    tokio::task::consume_budget().await;
                }
            }
        };
        self.end_flows().await;
        why
    }

    /// Gives memory back that bulk flows left behind, once it is quiet.
    fn tidy(&mut self) {
        let counters = self.plane.counters.snapshot();
        if self.rest.begins(counters.bytes_received + counters.bytes_sent) {
            drop(tokio::task::spawn_blocking(podway_tunnel::heap::give_back));
        }
    }

    fn tell_in_use(&self) {
        let table = self.vips.borrow();
        let remotes = self.flows.keys().map(|key| key.remote.ip());
        let now: BTreeSet<IpAddr> = remotes.filter(|ip| table.vips.contains_key(ip)).collect();
        self.in_use_tx.send_if_modified(|told| {
            let differs = *told != now;
            *told = now;
            differs
        });
    }

    fn read(&mut self, buffer: &mut [u8], chunk: &mut BytesMut) -> io::Result<()> {
        for _ in 0..BUDGET {
            let length = match self.plane.device.try_recv(buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            // Small packets share a chunk, so that most cost no allocation.
            if chunk.capacity() < length {
                chunk.reserve(LONGEST);
            }
            chunk.extend_from_slice(&buffer[..length]);
            let packet = chunk.split().freeze();
            self.count(packet);
        }
        Ok(())
    }

    fn count(&mut self, packet: Bytes) {
        let fate = self.take(packet);
        let counters = &self.plane.counters;
        add(&counters.packets, 1);
        match fate {
            Fate::Taken => add(&counters.packets_taken, 1),
            Fate::Answered => add(&counters.packets_answered, 1),
            Fate::Dropped => {}
        }
    }

    /// Drops a packet, and counts it.
    fn dropped(&self, reason: impl Fn(&Counters) -> &AtomicU64) -> Fate {
        add(reason(&self.plane.counters), 1);
        Fate::Dropped
    }

    /// Sorts one packet.
    fn take(&mut self, packet: Bytes) -> Fate {
        let view = match View::parse(&packet) {
            Ok(view) => view,
            Err(Uncarried::Malformed) => return self.dropped(|c| &c.dropped_malformed),
            Err(Uncarried::Fragment) => return self.take_part(&packet),
            Err(Uncarried::Protocol) => return self.dropped(|c| &c.dropped_protocol),
        };
        let table = self.vips.borrow();
        if !table.device_addresses.contains(&view.source) {
            return self.dropped(|c| &c.dropped_source);
        }
        // Nothing answers those with an error (RFC 1122 section 3.2.2, RFC 4443 section 2.4).
        if is_for_many(view.destination) {
            return self.dropped(|c| &c.dropped_multicast);
        }
        if view.hops != FULL_HOPS {
            let (source, destination, hops) = (view.source, view.destination, view.hops);
            drop(table);
            return self.forwarded(source, destination, hops);
        }
        let Some(key) = view.key() else {
            return echo::take(&self.plane, &table, &view, packet.clone());
        };
        if let Some(entry) = self.flows.get(&key) {
            let mut queued = packet.clone();
            if entry.packets.max_capacity() - entry.packets.capacity() >= FLOW_QUEUE {
                if packet.len() > SHORT {
                    return self.dropped(|c| &c.dropped_flow_full);
                }
                // A slice would keep the reader's whole chunk.
                queued = Bytes::copy_from_slice(&packet);
            }
            match entry.packets.try_send(queued) {
                Ok(()) => return Fate::Taken,
                Err(mpsc::error::TrySendError::Full(_)) => return self.dropped(|c| &c.dropped_flow_full),
                // It is over, but has not said so yet.
                Err(mpsc::error::TrySendError::Closed(_)) => {}
            }
        }
        let opens = match view.body {
            Body::Tcp { flags, .. } => flags.opens(),
            Body::Udp { .. } | Body::Echo { .. } => true,
        };
        if !opens {
            let Some(reset) = packet::reset(&packet) else {
                return self.dropped(|c| &c.dropped_stray);
            };
            self.plane.send(&reset);
            return Fate::Answered;
        }
        // The recursion guard: a pod's address on this device is our own traffic on its way round.
        if table.pod_ranges.iter().any(|range| range.contains(&view.source)) {
            return self.plane.refuse(&packet, OpenError::Refused);
        }
        let far = match table.lookup(view.destination) {
            Destination::Nowhere => return self.plane.refuse(&packet, OpenError::Refused),
            Destination::Dns if key.remote.port() != DNS_PORT => {
                return self.plane.refuse(&packet, OpenError::Refused);
            }
            Destination::Dns => Far::Dns,
            Destination::Dial { address, target } => {
                Far::Dial(Via { to: SocketAddr::new(address, key.remote.port()), target })
            }
        };
        drop(table);
        if let (Far::Dns, Body::Udp { payload, .. }) = (&far, view.body) {
            return dns_tap::udp_query(&self.plane, key.local, key.remote, packet.slice_ref(payload));
        }
        if self.flows.len() >= MAX_FLOWS {
            self.log_limit();
            add(&self.plane.counters.over_limit, 1);
            return self.plane.refuse(&packet, OpenError::Limit);
        }
        self.start(key, far, packet);
        Fate::Taken
    }

    /// Keeps a part of a packet, or sorts the packet that it completes.
    fn take_part(&mut self, packet: &Bytes) -> Fate {
        let Some(part) = Part::parse(packet) else {
            return self.dropped(|c| &c.dropped_malformed);
        };
        if !self.vips.borrow().device_addresses.contains(&part.source()) {
            return self.dropped(|c| &c.dropped_source);
        }
        if part.hops != FULL_HOPS {
            return self.forwarded(part.source(), part.destination(), part.hops);
        }
        let taken = self.fragments.take(&part);
        self.count_in_vain();
        match taken {
            Taken::Waits => Fate::Taken,
            Taken::Whole(whole) => self.take(whole),
            Taken::Dropped => self.dropped(|c| &c.dropped_fragment),
        }
    }

    /// Counts parts as dropped that were taken, and wait no longer.
    fn count_in_vain(&mut self) {
        let parts = self.fragments.in_vain();
        take_back(&self.plane.counters.packets_taken, parts);
        add(&self.plane.counters.dropped_fragment, parts);
    }

    fn start(&mut self, key: FlowKey, far: Far, first: Bytes) {
        self.started += 1;
        let room = match key.protocol {
            Protocol::Tcp => FLOW_QUEUE,
            Protocol::Udp => DATAGRAM_QUEUE,
        };
        let (packets, mut packet_rx) = mpsc::channel(room);
        // There is room: the channel is new.
        packets.try_send(first).ok();
        let mut farewell = Farewell { key, number: self.started, left: Vec::new(), over_tx: self.over_tx.clone() };
        self.flows.insert(key, Entry { number: self.started, packets });
        let plane = Arc::clone(&self.plane);
        match (key.protocol, far) {
            (Protocol::Udp, Far::Dial(via)) => {
                tokio::spawn(async move {
                    udp::run(plane, key, via, &mut packet_rx).await;
                    farewell.leave(left_over(&mut packet_rx));
                });
            }
            // DNS over UDP has no flow; it was passed on before.
            (Protocol::Udp, Far::Dns) => {}
            (Protocol::Tcp, far) => {
                tokio::spawn(async move {
                    let next = flow::run(plane, key, far, &mut packet_rx).await;
                    let mut left = left_over(&mut packet_rx);
                    left.retain(|packet| packet::tcp_flags(packet).opens());
                    farewell.leave(next.into_iter().chain(left).collect());
                });
            }
        }
    }

    fn log_limit(&mut self) {
        if is_time(&mut self.limit_logged, self.plane.now()) {
            tracing::warn!(limit = MAX_FLOWS, "the limit of flows is reached; new ones are refused");
        }
    }

    /// Drops what was not made on this host, as its hop limit says.
    fn forwarded(&mut self, source: IpAddr, destination: IpAddr, hops: u8) -> Fate {
        if is_time(&mut self.forwarded_logged, self.plane.now()) {
            let why = "another host sends it through this one, or a program here chose its hop limit (TTL)";
            tracing::warn!(%source, %destination, hops, "a packet was dropped: {why}");
        }
        self.dropped(|c| &c.dropped_forwarded)
    }

    /// Closes every flow's channel, which resets it, and waits until their tasks are gone.
    async fn end_flows(self) {
        let Self { flows, over_tx, mut over_rx, .. } = self;
        drop((flows, over_tx));
        let all = async { while over_rx.recv().await.is_some() {} };
        if tokio::time::timeout(STOP_TIMEOUT, all).await.is_err() {
            tracing::warn!("flows did not end in time");
        }
    }
}

/// Whether what is said at most once in [`LIMIT_LOG`] may be said now; it counts as said then.
fn is_time(logged: &mut Option<Instant>, now: Instant) -> bool {
    let is_time = logged.is_none_or(|at| now.saturating_duration_since(at) >= LIMIT_LOG);
    if is_time {
        *logged = Some(now);
    }
    is_time
}

/// Packets that came too late for their flow.
fn left_over(packets: &mut mpsc::Receiver<Bytes>) -> Vec<Bytes> {
    packets.close();
    std::iter::from_fn(|| packets.try_recv().ok()).collect()
}
