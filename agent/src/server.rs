//! Carriers, and who may use them.
//!
//! One task for each HTTP/2 connection. Nothing but `Hello` is served on it before `Welcome`.
#![expect(clippy::wildcard_enum_match_arm, reason = "a frame that means nothing where it comes is skipped")]
#![expect(clippy::disallowed_methods, reason = "silence and round trips are measured with the clock")]

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use ipnet::IpNet;
use podway_tunnel::credit::Budget;
use podway_tunnel::frames::{
    BULK, Challenge, ClientHello, Denied, DnsAnswer, DnsQuery, Draining, EchoReply, EchoRequest, Failure, FlowFrame,
    HelloFrame, Limits, Ping, Pong, Protocol, RESUME, Resume, Welcome, flow_frame, hello_frame,
};
use podway_tunnel::heap;
use podway_tunnel::rest::Rest;
use podway_tunnel::round_trip::RoundTrip;
use podway_tunnel::unhurried::Unhurried;
use podway_tunnel::wire::{Reader, WireError, Writer};
use podway_tunnel::{
    AGENT_BUFFERS, CONNECTION_WINDOW, DNS_PATH, ECHO_PATH, FLOW_PATH, FRAME_SIZE, HELLO_PATH, MAX_ECHO, MAX_FLOWS,
    MAX_SPECIAL, PROTOCOLS, RESUME_WINDOW, SEND_BUFFER, STREAM_WINDOW, UDP_IDLE_MOST, handshake,
};
use tokio::io::BufWriter;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, timeout};

use crate::args::Serve;
use crate::dns::{self, ResolvConf};
use crate::places::{CarrierOf, NotTaken, Places, Stream};
use crate::{icmp, policy, tcp, udp};

/// A client that has not pinged for this long is gone.
const CLIENT_SILENCE: Duration = Duration::from_secs(60);
/// Connections at once, authenticated or not.
const MAX_CONNECTIONS: usize = 64;
/// Bytes that a peer may have under way before it has authenticated: everyone in the pod can connect.
const STRANGERS_WINDOW: u32 = 64 * 1024;
/// Bytes of headers of one call; ours have about a hundred.
const MAX_HEADERS: u32 = 8 * 1024;
/// DNS questions under way at once.
const MAX_DNS: usize = 256;
/// Echo requests under way at once.
const MAX_ECHOES: usize = 256;
/// After SIGTERM flows may go on for this long.
const DRAIN: Duration = Duration::from_secs(20);

/// Limits on what flows may take, and who is talked to at all.
#[derive(Clone, Debug)]
pub struct FlowLimits {
    /// Versions of the protocol, the lowest and the highest.
    pub protocols: RangeInclusive<u32>,
    /// A peer that has not authenticated by then is cut.
    pub authenticate: Duration,
    /// Flows at once.
    pub flows: u32,
    /// Longest dial.
    pub dial: Duration,
    /// UDP associations end after this long without a datagram, where who opens one says nothing else.
    pub udp_idle: Duration,
    /// Bytes that all flows may have granted or hold.
    pub buffers: u64,
    /// How long a flow outlives its carrier.
    pub resume: Duration,
}

impl Default for FlowLimits {
    fn default() -> Self {
        FlowLimits {
            protocols: PROTOCOLS,
            authenticate: Duration::from_secs(10),
            flows: MAX_FLOWS,
            dial: Duration::from_secs(10),
            udp_idle: Duration::from_secs(60),
            buffers: AGENT_BUFFERS,
            resume: RESUME_WINDOW,
        }
    }
}

/// What all carriers share.
#[derive(Debug)]
pub struct Shared {
    /// Tells this run of the agent from any other.
    run: [u8; 16],
    serve: Serve,
    /// Limits.
    pub limits: FlowLimits,
    /// What flows may hold.
    pub budget: Budget,
    /// Those that may go on over another carrier.
    pub places: Arc<Places>,
    control: SocketAddr,
    began: Instant,
    round_trip: AtomicU64,
    /// Bytes of TCP flows, both ways.
    moved: AtomicU64,
    flows: AtomicU32,
    refused: AtomicU64,
    clients: AtomicUsize,
    changed: Notify,
    dns: Semaphore,
    echoes: Semaphore,
    draining: watch::Sender<bool>,
}

impl Shared {
    /// Microseconds since the start.
    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// A TCP flow has moved so many bytes.
    pub fn moved(&self, bytes: usize) {
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The shortest round trip to the workstation of late, microseconds.
    pub fn round_trip(&self) -> u64 {
        self.round_trip.load(Ordering::Relaxed)
    }

    /// The text of the pod's resolv.conf. Read in place: a few lines of a local file cost less than the thread that a
    /// read in the background would leave behind.
    fn resolv_conf(&self) -> String {
        std::fs::read_to_string(&self.serve.resolv_conf).unwrap_or_default()
    }

    /// Flows there are now.
    pub fn flows(&self) -> u32 {
        self.flows.load(Ordering::Relaxed)
    }

    /// Counts a flow that was not opened.
    pub fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    fn admit(self: &Arc<Self>) -> Option<FlowSlot> {
        let admitted = self.flows.fetch_update(Ordering::AcqRel, Ordering::Acquire, |flows| {
            (flows < self.limits.flows).then_some(flows + 1)
        });
        // Those that nobody may come for make room before others have to be refused.
        let (Ok(flows) | Err(flows)) = admitted;
        if flows >= self.limits.flows - self.limits.flows / 8 {
            self.places.make_room();
        }
        admitted.is_ok().then(|| FlowSlot(Arc::clone(self)))
    }
}

/// A place among the flows.
struct FlowSlot(Arc<Shared>);

impl Drop for FlowSlot {
    fn drop(&mut self) {
        if self.0.flows.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.changed.notify_waiters();
        }
    }
}

/// An agent that listens.
pub struct Agent {
    listener: TcpListener,
    shared: Arc<Shared>,
}

impl Agent {
    /// Starts to listen.
    pub async fn bind(serve: Serve, limits: FlowLimits) -> io::Result<Agent> {
        let listener = TcpListener::bind(serve.listen).await?;
        let control = listener.local_addr()?;
        let budget = Budget::new(limits.buffers, limits.flows);
        let run = handshake::random().ok_or_else(|| io::Error::other("no random bytes"))?;
        let shared = Arc::new(Shared {
            run,
            serve,
            limits,
            budget,
            places: Arc::default(),
            control,
            began: Instant::now(),
            round_trip: AtomicU64::new(10_000),
            moved: AtomicU64::new(0),
            flows: AtomicU32::new(0),
            refused: AtomicU64::new(0),
            clients: AtomicUsize::new(0),
            changed: Notify::new(),
            dns: Semaphore::new(MAX_DNS),
            echoes: Semaphore::new(MAX_ECHOES),
            draining: watch::Sender::new(false),
        });
        Ok(Agent { listener, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.shared.control
    }

    /// What it holds, also while it runs.
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Serves until `terminate` resolves and flows have drained, or until nobody authenticated has been there for the
    /// idle limit.
    pub async fn run(self, terminate: impl Future<Output = ()>) {
        let Agent { listener, shared } = self;
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let accepting = Arc::clone(&shared);
        let accept = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    // Out of descriptors: let some go.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let Ok(place) = Arc::clone(&connections).try_acquire_owned() else { continue };
                let shared = Arc::clone(&accepting);
                tokio::spawn(async move {
                    carrier(stream, shared).await;
                    drop(place);
                });
            }
        });
        let tidying = tokio::spawn(tidy(Arc::clone(&shared)));
        tokio::select! {
            () = idle(&shared) => {}
            () = terminate => {
                shared.draining.send_replace(true);
                shared.places.close();
                drop(timeout(DRAIN, drained(&shared)).await);
            }
        }
        accept.abort();
        tidying.abort();
    }
}

/// Gives memory back that bulk left behind, whenever it is quiet.
async fn tidy(shared: Arc<Shared>) {
    let mut rest = Rest::default();
    loop {
        tokio::time::sleep(LOOK).await;
        if rest.begins(shared.moved.load(Ordering::Relaxed)) {
            drop(tokio::task::spawn_blocking(heap::give_back));
        }
    }
}

async fn idle(shared: &Shared) {
    loop {
        let changed = shared.changed.notified();
        if shared.clients.load(Ordering::Acquire) > 0 {
            changed.await;
            continue;
        }
        if timeout(shared.serve.idle_exit, changed).await.is_err() && shared.clients.load(Ordering::Acquire) == 0 {
            return;
        }
    }
}

async fn drained(shared: &Shared) {
    loop {
        let changed = shared.changed.notified();
        if shared.flows.load(Ordering::Acquire) == 0 {
            return;
        }
        changed.await;
    }
}

/// How often is looked whether much was moved.
const LOOK: Duration = Duration::from_secs(1);

/// Echo has no port; this one stands for it where addresses are judged (RFC 862).
const ECHO_PORT: u16 = 7;
/// What a last word has to get out before the connection ends.
const LAST_WORD: Duration = Duration::from_millis(50);

/// What one connection may do; set by its `Hello`.
struct Session {
    id: [u8; 16],
    special: Vec<IpNet>,
    /// Whether its flows may go on over other carriers.
    resumes: bool,
    /// Whether this carrier is for bulk alone.
    bulk: bool,
    /// Flows have it beyond the connection.
    carrier: CarrierOf,
    _counted: Counted,
}

/// A client among those that keep the agent from leaving. Given back however the tasks that share it end.
struct Counted(Arc<Shared>);

impl Counted {
    fn new(shared: &Arc<Shared>) -> Counted {
        shared.clients.fetch_add(1, Ordering::AcqRel);
        shared.changed.notify_waiters();
        Counted(Arc::clone(shared))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_waiters();
    }
}

/// What the tasks of one connection share.
struct Connection {
    session: OnceLock<Session>,
    /// Whether `Hello` was called; a second one is refused.
    greeted: AtomicBool,
    /// Told when the session is set.
    authenticated: Notify,
    /// Told when the connection shall end.
    over: Notify,
}

impl Connection {
    /// A flow's stream on it.
    fn stream(&self, reader: Reader, writer: Writer) -> Stream {
        let session = self.session.get();
        let carrier = session.map(|session| session.carrier.clone()).unwrap_or_default();
        Stream { reader, writer, carrier, bulk: session.is_some_and(|session| session.bulk) }
    }
}

async fn carrier(stream: TcpStream, shared: Arc<Shared>) {
    drop(stream.set_nodelay(true));
    let handshake = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STRANGERS_WINDOW)
        .max_frame_size(FRAME_SIZE)
        .max_header_list_size(MAX_HEADERS)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_streams(MAX_FLOWS + 1024)
        .max_concurrent_reset_streams(MAX_FLOWS as usize)
        .max_pending_accept_reset_streams(MAX_FLOWS as usize)
        .handshake::<_, Bytes>(Unhurried::server(BufWriter::new(stream)));
    let deadline = tokio::time::sleep(shared.limits.authenticate);
    let Ok(Ok(mut http)) = timeout(shared.limits.authenticate, handshake).await else { return };
    let connection = Arc::new(Connection {
        session: OnceLock::new(),
        greeted: AtomicBool::new(false),
        authenticated: Notify::new(),
        over: Notify::new(),
    });
    tokio::pin!(deadline);
    let mut authenticated = false;
    loop {
        tokio::select! {
            () = connection.over.notified() => break,
            () = connection.authenticated.notified(), if !authenticated => {
                authenticated = true;
                http.set_target_window_size(CONNECTION_WINDOW);
            }
            () = &mut deadline, if !authenticated => break,
            request = http.accept() => match request {
                Some(Ok((request, respond))) => answer(request, respond, &connection, &shared),
                Some(Err(_)) | None => break,
            },
        }
    }
}

fn answer(
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    connection: &Arc<Connection>,
    shared: &Arc<Shared>,
) {
    let path = request.uri().path().to_owned();
    let welcome = match path.as_str() {
        HELLO_PATH => !connection.greeted.swap(true, Ordering::AcqRel),
        _ => connection.session.get().is_some(),
    };
    if !welcome {
        respond.send_reset(h2::Reason::REFUSED_STREAM);
        return;
    }
    let reader = Reader::new(request.into_body());
    let response = http::Response::builder().header("content-type", "application/grpc").body(());
    let Some(stream) = response.ok().and_then(|response| respond.send_response(response, false).ok()) else { return };
    let writer = Writer::new(stream);
    let (connection, shared) = (Arc::clone(connection), Arc::clone(shared));
    match path.as_str() {
        HELLO_PATH => {
            tokio::spawn(hello(reader, writer, connection, shared));
        }
        FLOW_PATH => {
            tokio::spawn(flow(reader, writer, connection, shared));
        }
        DNS_PATH => {
            tokio::spawn(dns_question(reader, writer, shared));
        }
        ECHO_PATH => {
            tokio::spawn(echo(reader, writer, connection, shared));
        }
        _ => {}
    }
}

async fn flow(mut reader: Reader, mut writer: Writer, connection: Arc<Connection>, shared: Arc<Shared>) {
    let Some(Ok(FlowFrame { frame: Some(first) })) = reader.next::<FlowFrame>().await else { return };
    let open = match first {
        flow_frame::Frame::Open(open) => open,
        flow_frame::Frame::Resume(resume) => {
            return take_over(resume, connection.stream(reader, writer), &connection, &shared);
        }
        // One carrier for a flow at a time in this version.
        flow_frame::Frame::Attach(_) => return tcp::refuse(&mut writer, Failure::UnknownFlow, &shared),
        _ => return writer.abort(),
    };
    let Some(slot) = shared.admit() else { return tcp::refuse(&mut writer, Failure::Limit, &shared) };
    let special = connection.session.get().map_or(&[][..], |session| &session.special);
    let Some(to) = address(&open.address, open.port) else {
        return tcp::refuse(&mut writer, Failure::Unspecified, &shared);
    };
    if !policy::may_dial(to, special, shared.control) {
        return tcp::refuse(&mut writer, Failure::Forbidden, &shared);
    }
    let session = connection.session.get().filter(|session| session.resumes);
    let key = session.and_then(|session| Some((session.id, name(&open.flow_id)?)));
    let stream = connection.stream(reader, writer);
    // What still goes out after the carrier's end is no client.
    drop(connection);
    match open.protocol() {
        Protocol::Tcp => tcp::serve(open, to, key, stream, shared).await,
        Protocol::Udp => {
            let idle = match open.udp_idle_ms {
                0 => shared.limits.udp_idle,
                asked => Duration::from_millis(asked.into()).min(UDP_IDLE_MOST),
            };
            udp::serve(to, idle, stream.reader, stream.writer, shared).await;
        }
    }
    drop(slot);
}

/// Goes on with a flow of the same session on this stream.
fn take_over(resume: Resume, stream: Stream, connection: &Connection, shared: &Shared) {
    let session = connection.session.get().filter(|session| session.resumes);
    let key = session.and_then(|session| Some((session.id, name(&resume.flow_id)?)));
    let taken = match key {
        Some(key) => shared.places.hand_over(&key, stream, resume.received),
        None => Err(NotTaken::Unknown(Box::new(stream))),
    };
    match taken {
        Ok(()) => {}
        Err(NotTaken::Unknown(mut stream)) => tcp::say_failed(&mut stream.writer, Failure::UnknownFlow),
        // The workstation asks again.
        Err(NotTaken::Busy(mut stream)) => stream.writer.abort(),
    }
}

/// A flow's name.
fn name(flow_id: &[u8]) -> Option<[u8; 16]> {
    flow_id.try_into().ok()
}

fn address(bytes: &[u8], port: u32) -> Option<SocketAddr> {
    Some((ip(bytes)?, u16::try_from(port).ok()?).into())
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
        16 => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
        _ => None,
    }
}

async fn echo(mut reader: Reader, mut writer: Writer, connection: Arc<Connection>, shared: Arc<Shared>) {
    let Some(Ok(request)) = reader.next::<EchoRequest>().await else { return };
    let special = connection.session.get().map_or(&[][..], |session| &session.special);
    let came = asked(&request, special, &shared).await;
    // What still goes out after the carrier's end is no client.
    drop(connection);
    let reply = match came {
        Ok(payload) => EchoReply { answered: true, payload: payload.into(), ..EchoReply::default() },
        Err(failure) => EchoReply { failure: failure.into(), ..EchoReply::default() },
    };
    drop(writer.send(&reply));
    writer.finish_ok();
}

async fn asked(request: &EchoRequest, special: &[IpNet], shared: &Shared) -> Result<Vec<u8>, Failure> {
    let (Some(to), Ok(sequence)) = (ip(&request.address), u16::try_from(request.sequence)) else {
        return Err(Failure::Unspecified);
    };
    if request.payload.len() > MAX_ECHO || !policy::may_dial((to, ECHO_PORT).into(), special, shared.control) {
        return Err(Failure::Forbidden);
    }
    let Ok(_place) = shared.echoes.try_acquire() else { return Err(Failure::Limit) };
    let limit = Duration::from_millis(request.timeout_ms.clamp(1, 10_000).into());
    icmp::echo(to, sequence, &request.payload, limit).await
}

async fn dns_question(mut reader: Reader, mut writer: Writer, shared: Arc<Shared>) {
    let Some(Ok(DnsQuery { message, timeout_ms })) = reader.next::<DnsQuery>().await else { return };
    let answer = match shared.dns.try_acquire() {
        Ok(_place) => {
            let text = shared.resolv_conf();
            let servers: Vec<SocketAddr> =
                ResolvConf::parse(&text).nameservers.into_iter().map(|ip| (ip, 53).into()).collect();
            let limit = Duration::from_millis(timeout_ms.clamp(1, 10_000).into());
            dns::ask(&servers, &message, limit).await.unwrap_or_default()
        }
        Err(_) => Vec::new(),
    };
    drop(writer.send(&DnsAnswer { message: answer.into() }));
    writer.finish_ok();
}

async fn hello(mut reader: Reader, mut writer: Writer, connection: Arc<Connection>, shared: Arc<Shared>) {
    match authenticate(&mut reader, &mut writer, &connection, &shared).await {
        Ok(round_trip) => {
            let end = serve_hello(&mut reader, &mut writer, round_trip, &connection, &shared).await;
            if end == End::Left {
                let session = connection.session.get().into_iter();
                session.for_each(|session| shared.places.left(&session.carrier));
                // That it was heard: the end of the connection itself comes late through a port-forward, or never.
                writer.finish_ok();
                tokio::time::sleep(LAST_WORD).await;
            }
        }
        Err(denied) => {
            let denied = hello_frame::Frame::Denied(denied);
            drop(writer.send(&HelloFrame { frame: Some(denied) }));
            writer.finish_ok();
            tokio::time::sleep(LAST_WORD).await;
        }
    }
    connection.over.notify_one();
}

/// A `Denied` for this reason.
fn no(reason: &str) -> Denied {
    Denied { reason: reason.to_owned(), ..Denied::default() }
}

/// Challenges the peer; what it is told when it is denied.
async fn authenticate(
    reader: &mut Reader,
    writer: &mut Writer,
    connection: &Connection,
    shared: &Arc<Shared>,
) -> Result<RoundTrip, Denied> {
    let nonsense = || no("the handshake was not understood");
    let frame = |frame| HelloFrame { frame: Some(frame) };
    let Some(hello_frame::Frame::ClientHello(ClientHello {
        protocol_min,
        protocol_max,
        features,
        session_id,
        public_key,
    })) = next(reader).await
    else {
        return Err(nonsense());
    };
    let (lowest, highest) = (*shared.limits.protocols.start(), *shared.limits.protocols.end());
    let protocol = protocol_max.min(highest);
    if protocol < protocol_min.max(lowest) {
        // Whoever hears it can tell another version from a fault that passes.
        return Err(Denied { protocol_min: lowest, protocol_max: highest, ..no("no protocol in common") });
    }
    let nonce = handshake::random::<32>().ok_or_else(|| no("no random bytes"))?;
    let challenge = Challenge {
        nonce: Bytes::copy_from_slice(&nonce),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        pod_uid: shared.serve.pod_uid.clone(),
        protocol,
    };
    let asked_at = shared.now();
    writer.send(&frame(hello_frame::Frame::Challenge(challenge))).map_err(|_| nonsense())?;
    let Some(hello_frame::Frame::Proof(proof)) = next(reader).await else { return Err(nonsense()) };
    let round_trip = RoundTrip::new(shared.now() - asked_at, shared.now());
    let ours = &shared.serve.authorized_key;
    if proof.allowed_special.len() > MAX_SPECIAL {
        return Err(no(&format!("it serves at most {MAX_SPECIAL} special prefixes")));
    }
    let valid = public_key.as_ref() == ours
        && session_id.len() == 16
        && handshake::verify(
            ours,
            &proof.signature,
            &nonce,
            &session_id,
            &shared.serve.pod_uid,
            &proof.allowed_special,
        );
    if !valid {
        return Err(Denied { wrong_key: true, ..no("the key is not the one this agent takes") });
    }
    let special: Result<Vec<IpNet>, _> = proof.allowed_special.iter().map(|prefix| prefix.parse()).collect();
    let special = special.map_err(|_| nonsense())?;
    let id = name(&session_id).ok_or_else(nonsense)?;
    let has = |wanted| features.iter().any(|feature| feature == wanted);
    let resumes = !shared.limits.resume.is_zero() && has(RESUME);
    let carrier = shared.places.carrier(id, has(BULK));
    if connection
        .session
        .set(Session { id, special, resumes, bulk: has(BULK), carrier, _counted: Counted::new(shared) })
        .is_err()
    {
        return Err(no("this connection is authenticated already"));
    }
    connection.authenticated.notify_one();
    let text = shared.resolv_conf();
    let conf = ResolvConf::parse(&text);
    let milliseconds = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    let welcome = Welcome {
        limits: Some(Limits {
            flows: shared.limits.flows,
            buffer_bytes: shared.limits.buffers,
            dial_timeout_ms: milliseconds(shared.limits.dial),
            udp_idle_ms: milliseconds(shared.limits.udp_idle),
            resume_window_ms: if resumes { milliseconds(shared.limits.resume) } else { 0 },
        }),
        search: conf.search,
        nameservers: conf.nameservers.iter().map(ToString::to_string).collect(),
        ipv4: has_route("192.0.2.1:9"),
        ipv6: has_route("[2001:db8::1]:9"),
        icmp: icmp::is_possible(),
        run: Bytes::copy_from_slice(&shared.run),
    };
    writer.send(&frame(hello_frame::Frame::Welcome(welcome))).map_err(|_| nonsense())?;
    Ok(round_trip)
}

/// Whether the pod has a way to a documentation address (RFC 5737, RFC 3849); nothing is sent.
fn has_route(to: &str) -> bool {
    let local = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    std::net::UdpSocket::bind(local).and_then(|socket| socket.connect(to)).is_ok()
}

/// How a carrier ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The workstation ended it in order.
    Left,
    /// It broke, or fell silent.
    Broke,
}

/// Answers pings, and sends one with each answer: what the agent lets flows send depends on the round trip as well.
async fn serve_hello(
    reader: &mut Reader,
    writer: &mut Writer,
    mut round_trip: RoundTrip,
    connection: &Connection,
    shared: &Shared,
) -> End {
    // A ping behind bulk says how long that waits.
    let bulk = connection.session.get().is_some_and(|session| session.bulk);
    let mut draining = shared.draining.subscribe();
    let mut told = false;
    let mut pinged_at = None;
    let mut next_id = 1;
    // One waits for room at most: a client that takes nothing off would else fill our memory.
    let mut pong = None;
    loop {
        tokio::select! {
            frame = timeout(CLIENT_SILENCE, hear(reader)) => match frame {
                Ok(Ok(Some(hello_frame::Frame::Ping(Ping { id })))) => pong = Some(id),
                Ok(Ok(Some(hello_frame::Frame::Pong(Pong { id })))) if id == next_id => {
                    next_id += 1;
                    if let Some(at) = pinged_at.take() {
                        let now = shared.now();
                        let measured = round_trip.measured(now - at, now);
                        if !bulk {
                            shared.round_trip.store(measured, Ordering::Relaxed);
                        }
                    }
                }
                Ok(Ok(Some(_))) => {}
                Ok(Ok(None)) => return End::Left,
                Ok(Err(_)) | Err(_) => return End::Broke,
            },
            room = poll_fn(|cx| writer.poll_room_for_word(cx)), if pong.is_some() => {
                let mut words = Vec::from_iter(pong.take().map(|id| hello_frame::Frame::Pong(Pong { id })));
                if pinged_at.is_none() {
                    pinged_at = Some(shared.now());
                    words.push(hello_frame::Frame::Ping(Ping { id: next_id }));
                }
                let mut sent = words.into_iter().map(|word| writer.send(&HelloFrame { frame: Some(word) }));
                if room.is_err() || sent.any(|sent| sent.is_err()) {
                    return End::Broke;
                }
            }
            changed = draining.wait_for(|draining| *draining), if !told => {
                told = true;
                if changed.is_ok() {
                    let draining = hello_frame::Frame::Draining(Draining {});
                    drop(writer.send(&HelloFrame { frame: Some(draining) }));
                }
            }
        }
    }
}

async fn next(reader: &mut Reader) -> Option<hello_frame::Frame> {
    hear(reader).await.ok().flatten()
}

/// The next frame; `None` when the peer ended the stream in order.
async fn hear(reader: &mut Reader) -> Result<Option<hello_frame::Frame>, WireError> {
    loop {
        match reader.next::<HelloFrame>().await {
            Some(Ok(HelloFrame { frame: Some(frame) })) => return Ok(Some(frame)),
            Some(Ok(HelloFrame { frame: None })) => {}
            Some(Err(error)) => return Err(error),
            None => return Ok(None),
        }
    }
}
