//! The workstation's end of a carrier: handshake, heartbeat, flows.
//!
//! ```text
//! connect ── HTTP/2 ── Hello … Welcome ──▶ Carrier ──▶ open_tcp / open_udp / dns
//!                                             └─ closed(): silence, GOAWAY, end of the stream below
//! ```
//!
//! A TCP flow whose carrier ends waits for the next one of its [`Line`] and goes on there.
#![expect(clippy::wildcard_enum_match_arm, reason = "a frame that means nothing where it comes is skipped")]
#![expect(clippy::disallowed_methods, reason = "round trips and silence are measured with the clock")]

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use self::after_others::AfterOthers;
use self::gather::Gather;
use self::heartbeat::{AbortOnDrop, Noted, end, heartbeat};
use crate::credit::{Budget, Receiver};
use crate::frames::{
    BULK, ClientHello, Denied, DnsAnswer, DnsQuery, EchoReply, EchoRequest, Failure, FlowFrame, HelloFrame, Open,
    Proof, Protocol, RESUME, Resume, Welcome, flow_frame, hello_frame,
};
use crate::round_trip::RoundTrip;
use crate::unhurried::Unhurried;
use crate::wire::{Reader, WireError, Writer};
use crate::{
    CONNECTION_WINDOW, DNS_PATH, ECHO_PATH, FLOW_PATH, FRAME_SIZE, HELLO_PATH, MAX_FLOWS, PROTOCOLS, RESUME_WINDOW,
    SEND_BUFFER, STREAM_WINDOW, WORKSTATION_BUFFERS, handshake,
};

mod after_others;
mod flow;
mod gather;
mod heartbeat;
mod line;
mod stream;
mod tide;
mod udp;

use flow::Buffers;
pub use flow::{Ended, Event, TcpFlow};
pub use line::Line;
use stream::{Going, Stream};
pub use udp::{UdpEnded, UdpFlow};

/// A budget for all flows of a session, whichever carriers they are on.
pub fn budget() -> Arc<Budget> {
    Arc::new(Budget::new(WORKSTATION_BUFFERS, MAX_FLOWS))
}

/// Who connects, and to whom.
#[derive(Clone)]
pub struct Config {
    /// The user's key pair.
    pub pair: Arc<Ed25519KeyPair>,
    /// Random, the same for all carriers of a session.
    pub session_id: [u8; 16],
    /// UID of the pod that was dialled.
    pub pod_uid: String,
    /// Prefixes beyond the usual that the agent shall dial for this session, in CIDR notation.
    pub special: Vec<String>,
    /// What the flows of all carriers of a session share.
    pub budget: Arc<Budget>,
    /// Where flows find the next carrier to this agent when they lose theirs; without one they end with it.
    pub line: Option<Line>,
    /// Whether it is for bulk alone: flows of the line's other carriers come to it when they move much, most of it that way.
    pub bulk: Option<Direction>,
}

/// Which way bytes go, as the workstation sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the workstation.
    Down,
    /// From it.
    Up,
}

/// Why there is no carrier.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// HTTP/2 could not be agreed on, or ended.
    #[error("the agent does not answer")]
    Http2(#[from] h2::Error),
    /// The stream broke during the handshake.
    #[error("the agent's answer broke off")]
    Wire(#[from] WireError),
    /// The agent ended the call without a word.
    #[error("the agent hung up")]
    HungUp,
    /// The agent said no, for a reason that may pass.
    #[error("the agent denied access: {0}")]
    Denied(String),
    /// The agent takes another key: it will not take this one, however often it is asked.
    #[error("the agent denied access: it takes another key")]
    Key,
    /// The challenge names another pod.
    #[error("the agent says it lives in pod {found}, not in {expected}")]
    WrongPod {
        /// The pod that was dialled.
        expected: String,
        /// The pod that the agent named.
        found: String,
    },
    /// The agent speaks no protocol that this version does: it will not, however often it is asked.
    #[error("the agent speaks protocol {}, this podway {}", range(.theirs), range(&PROTOCOLS))]
    Protocol {
        /// What it speaks.
        theirs: RangeInclusive<u32>,
    },
    /// The system has no random bytes.
    #[error("no random bytes")]
    Random,
}

/// One HTTP/2 connection to one agent, authenticated. A clone is another handle to it.
#[derive(Clone)]
pub struct Carrier(Arc<Inner>);

struct Inner {
    requests: SendRequest<Bytes>,
    agent_version: String,
    welcome: Welcome,
    closed: watch::Receiver<Option<Arc<str>>>,
    /// Its sender goes with the connection.
    gone: watch::Receiver<()>,
    shared: Arc<Shared>,
    line: Option<Line>,
}

impl std::fmt::Debug for Carrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Carrier").field("closed", &*self.0.closed.borrow()).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Shared {
    began: Instant,
    /// The shortest round trip of late, microseconds.
    round_trip: AtomicU64,
    /// When the last byte came, microseconds since `began`.
    last_byte: AtomicU64,
    close: Notify,
    budget: Arc<Budget>,
    /// Whether the carrier is for bulk alone.
    bulk: bool,
    /// Where the end of a dropped flow is waited for.
    runtime: tokio::runtime::Handle,
}

impl Shared {
    fn now(&self) -> u64 {
        micros(self.began.elapsed())
    }

    fn round_trip(&self) -> u64 {
        self.round_trip.load(Ordering::Relaxed)
    }
}

/// What every flow is opened with.
fn opening(flow_id: [u8; 16], protocol: Protocol, to: SocketAddr) -> Open {
    Open {
        flow_id: Bytes::copy_from_slice(&flow_id),
        protocol: protocol.into(),
        address: octets(to.ip()),
        port: to.port().into(),
        ..Open::default()
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// An address as frames carry it.
fn octets(address: IpAddr) -> Bytes {
    match address {
        IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Carrier {
    /// Agrees on HTTP/2 over `io`, authenticates, and keeps the connection going on a task of its own.
    ///
    /// Not cancel safe in the sense that a half-made carrier is dropped; the stream below ends with it. Has no time
    /// limit of its own.
    pub async fn connect<S>(io: S, config: &Config) -> Result<Carrier, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let shared = Arc::new(Shared {
            began: Instant::now(),
            round_trip: AtomicU64::new(1),
            last_byte: AtomicU64::new(0),
            close: Notify::new(),
            budget: Arc::clone(&config.budget),
            bulk: config.bulk.is_some(),
            runtime: tokio::runtime::Handle::current(),
        });
        let io = Unhurried::client(io);
        let noted = Noted { io, gather: Gather::new(shared.bulk), shared: Arc::clone(&shared) };
        let (mut requests, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME_SIZE)
            .max_send_buffer_size(SEND_BUFFER)
            .initial_max_send_streams(MAX_FLOWS as usize)
            .max_concurrent_reset_streams(MAX_FLOWS as usize)
            .enable_push(false)
            .handshake::<_, Bytes>(noted)
            .await?;
        let (ended, closed) = watch::channel(None);
        let ended = Arc::new(ended);
        let tell = Arc::clone(&ended);
        let running = tokio::spawn(async move {
            let why = match AfterOthers::new(connection).await {
                Ok(()) => "the agent closed the connection".to_owned(),
                // In the words of TLS that is an essay.
                Err(error) if error.get_io().is_some_and(|error| error.kind() == std::io::ErrorKind::UnexpectedEof) => {
                    "the connection was cut".to_owned()
                }
                Err(error) => format!("the connection broke: {error}"),
            };
            end(&tell, why);
        });
        let (_going, gone) = watch::channel(());
        let guard = AbortOnDrop { task: running.abort_handle(), _going };
        let (response, stream) = requests.send_request(request(HELLO_PATH)?, false)?;
        let mut writer = Writer::new(stream);
        let began = shared.now();
        writer.send(&hello(hello_frame::Frame::ClientHello(ClientHello {
            protocol_min: *PROTOCOLS.start(),
            protocol_max: *PROTOCOLS.end(),
            features: features(config),
            session_id: Bytes::copy_from_slice(&config.session_id),
            public_key: Bytes::copy_from_slice(config.pair.public_key().as_ref()),
        })))?;
        let mut reader = Reader::new(response.await?.into_body());
        let challenge = loop {
            match next_frame(&mut reader).await? {
                hello_frame::Frame::Challenge(challenge) => break challenge,
                hello_frame::Frame::Denied(denied) => return Err(refusal(denied)),
                _ => {}
            }
        };
        let round_trip = RoundTrip::new(shared.now() - began, shared.now());
        shared.round_trip.store((shared.now() - began).max(1), Ordering::Relaxed);
        if !PROTOCOLS.contains(&challenge.protocol) {
            return Err(ConnectError::Protocol { theirs: challenge.protocol..=challenge.protocol });
        }
        if challenge.pod_uid != config.pod_uid {
            return Err(ConnectError::WrongPod { expected: config.pod_uid.clone(), found: challenge.pod_uid });
        }
        let agent_version = challenge.agent_version;
        let special = config.special.clone();
        let signature =
            handshake::sign(&config.pair, &challenge.nonce, &config.session_id, &challenge.pod_uid, &special);
        writer
            .send(&hello(hello_frame::Frame::Proof(Proof { signature: signature.into(), allowed_special: special })))?;
        let welcome = loop {
            match next_frame(&mut reader).await? {
                hello_frame::Frame::Welcome(welcome) => break welcome,
                hello_frame::Frame::Denied(denied) => return Err(refusal(denied)),
                _ => {}
            }
        };
        let line = config.line.clone();
        tokio::spawn(heartbeat(reader, writer, round_trip, Arc::clone(&shared), ended, guard, line.clone()));
        let inner = Arc::new(Inner { requests, agent_version, welcome, closed, gone, shared, line });
        if let Some(line) = &inner.line {
            match config.bulk {
                Some(direction) => line.bulk_is(direction, &inner),
                None => line.leads_to(&inner),
            }
        }
        Ok(Carrier(inner))
    }

    /// What the agent says its version is: any text.
    pub fn agent_version(&self) -> &str {
        &self.0.agent_version
    }

    /// What the agent said of itself.
    pub fn welcome(&self) -> &Welcome {
        &self.0.welcome
    }

    /// Whether it still stands.
    pub fn is_alive(&self) -> bool {
        self.0.is_alive()
    }

    /// Resolves when the carrier has ended, with the reason. Cancel safe.
    pub fn closed(&self) -> impl Future<Output = String> + Send + 'static {
        let mut closed = self.0.closed.clone();
        async move {
            match closed.wait_for(Option::is_some).await {
                Ok(why) => why.as_deref().unwrap_or_default().to_owned(),
                Err(_) => "the connection ended".to_owned(),
            }
        }
    }

    /// Flows that were opened on it, or came to it and are there.
    pub fn flows(&self) -> usize {
        // The carrier's own, and that of its heartbeat and its stream.
        Arc::strong_count(&self.0.shared).saturating_sub(3)
    }

    /// Ends the carrier, soon: [`Carrier::closed`] tells when. Its flows wait for the next one of their line; where that is
    /// over, or there is none, they end, and the agent is told.
    pub fn close(&self) {
        self.0.shared.close.notify_one();
    }

    /// Resolves when nothing more goes out: where the agent had to be told of the end, it has ended the carrier as well, or
    /// did not within a second. Cancel safe.
    pub fn gone(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut gone = self.0.gone.clone();
        async move { while gone.changed().await.is_ok() {} }
    }

    /// Dials `to` from inside the pod. Cancel safe: dropping it ends the flow.
    pub async fn open_tcp(&self, to: SocketAddr, dial_timeout: Duration) -> Result<TcpFlow, Failure> {
        let shared = &self.0.shared;
        let receiver = Receiver::new(Buffers(Arc::clone(&shared.budget)), shared.now()).ok_or(Failure::Limit)?;
        let limit = receiver.first_limit();
        let flow_id = handshake::random::<16>().ok_or(Failure::Unspecified)?;
        let dial_timeout_ms = millis(dial_timeout);
        let open = Open { limit, dial_timeout_ms, ..opening(flow_id, Protocol::Tcp, to) };
        let (reader, writer, opened) = self.open(open).await?;
        let going = Going { reader, writer, shared: Arc::clone(shared) };
        let stream = Stream::new(going, self.0.way_back(flow_id));
        Ok(TcpFlow::new(stream, Arc::clone(shared), receiver, opened))
    }

    /// Opens an association to `to` from inside the pod, which lives for `idle` without a datagram. Cancel safe.
    pub async fn open_udp(&self, to: SocketAddr, idle: Duration) -> Result<UdpFlow, Failure> {
        let flow_id = handshake::random::<16>().ok_or(Failure::Unspecified)?;
        let open = Open { udp_idle_ms: millis(idle), ..opening(flow_id, Protocol::Udp, to) };
        let (reader, writer, _) = self.open(open).await?;
        Ok(UdpFlow::new(reader, writer))
    }

    /// Asks the pod's name servers one raw message. Cancel safe.
    pub async fn dns(&self, message: Bytes, timeout: Duration) -> Result<Bytes, Failure> {
        let query = DnsQuery { message, timeout_ms: millis(timeout) };
        let answer: DnsAnswer = self.ask(DNS_PATH, &query).await?;
        if answer.message.is_empty() { Err(Failure::TimedOut) } else { Ok(answer.message) }
    }

    /// Sends one ICMP echo to `to` from inside the pod, and returns what came back within `timeout`. Cancel safe: the
    /// answer is then not heard.
    pub async fn echo(&self, to: IpAddr, sequence: u16, payload: Bytes, timeout: Duration) -> Result<Bytes, Failure> {
        if !self.0.welcome.icmp {
            return Err(Failure::Forbidden);
        }
        let sequence = sequence.into();
        let request = EchoRequest { address: octets(to), sequence, payload, timeout_ms: millis(timeout) };
        let reply: EchoReply = self.ask(ECHO_PATH, &request).await?;
        if reply.answered { Ok(reply.payload) } else { Err(reply.failure()) }
    }

    /// A call with one message each way.
    async fn ask<A: prost::Message + Default>(
        &self,
        path: &'static str,
        question: &impl prost::Message,
    ) -> Result<A, Failure> {
        let lost = |_| Failure::Unspecified;
        let mut requests = self.0.requests.clone().ready().await.map_err(lost)?;
        let request = request(path).map_err(|_| Failure::Unspecified)?;
        let (response, stream) = requests.send_request(request, false).map_err(lost)?;
        let mut writer = Writer::new(stream);
        writer.send(question).map_err(|_| Failure::Unspecified)?;
        writer.finish();
        let mut reader = Reader::new(response.await.map_err(lost)?.into_body());
        match reader.next::<A>().await {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(_)) | None => Err(Failure::Unspecified),
        }
    }

    async fn open(&self, open: Open) -> Result<(Reader, Writer, u64), Failure> {
        let (mut reader, writer) = self.0.flow(flow_frame::Frame::Open(open)).await?;
        loop {
            match answer(&mut reader).await? {
                flow_frame::Frame::Opened(opened) => return Ok((reader, writer, opened.limit)),
                flow_frame::Frame::Failed(failed) => return Err(failed.failure()),
                _ => {}
            }
        }
    }
}

impl Inner {
    fn is_alive(&self) -> bool {
        self.closed.borrow().is_none()
    }

    /// How long the agent keeps a flow whose carrier ended; zero where it does not.
    fn resume_window(&self) -> Duration {
        let limits = self.welcome.limits.as_ref();
        limits.map_or(Duration::ZERO, |limits| Duration::from_millis(limits.resume_window_ms.into()))
    }

    /// How a flow that was opened here goes on elsewhere; `None` where it cannot.
    fn way_back(&self, flow_id: [u8; 16]) -> Option<line::WayBack> {
        let line = self.line.clone().filter(|_| !self.resume_window().is_zero())?;
        let within = self.resume_window().min(RESUME_WINDOW);
        Some(line::WayBack { line, flow_id, run: self.welcome.run.clone(), within })
    }

    /// A call about a flow, with its first frame.
    async fn flow(&self, first: flow_frame::Frame) -> Result<(Reader, Writer), Failure> {
        let lost = |_| Failure::Unspecified;
        let mut requests = self.requests.clone().ready().await.map_err(lost)?;
        let request = request(FLOW_PATH).map_err(|_| Failure::Unspecified)?;
        let (response, stream) = requests.send_request(request, false).map_err(lost)?;
        let mut writer = Writer::new(stream);
        writer.send_flow(first).map_err(|_| Failure::Unspecified)?;
        Ok((Reader::new(response.await.map_err(lost)?.into_body()), writer))
    }

    /// Takes a flow over from another carrier, with what this side has of it. Gives what the agent has. Cancel safe: the
    /// flow may be taken over again.
    async fn resume(&self, flow_id: &[u8; 16], received: u64) -> Result<(Reader, Writer, u64), Failure> {
        let resume = Resume { flow_id: Bytes::copy_from_slice(flow_id), received };
        let (mut reader, writer) = self.flow(flow_frame::Frame::Resume(resume)).await?;
        loop {
            match answer(&mut reader).await? {
                flow_frame::Frame::Resumed(resumed) => return Ok((reader, writer, resumed.received)),
                flow_frame::Frame::Failed(failed) => return Err(failed.failure()),
                _ => {}
            }
        }
    }
}

async fn answer(reader: &mut Reader) -> Result<flow_frame::Frame, Failure> {
    loop {
        let Some(Ok(frame)) = reader.next::<FlowFrame>().await else { return Err(Failure::Unspecified) };
        if let Some(frame) = frame.frame {
            return Ok(frame);
        }
    }
}

fn features(config: &Config) -> Vec<String> {
    let has = [(RESUME, config.line.is_some()), (BULK, config.bulk.is_some())];
    has.into_iter().filter(|(_, has)| *has).map(|(feature, _)| feature.to_owned()).collect()
}

fn hello(frame: hello_frame::Frame) -> HelloFrame {
    HelloFrame { frame: Some(frame) }
}

/// Why an agent says no: for its protocol, if it tells which, or for the key, else for what it says.
fn refusal(denied: Denied) -> ConnectError {
    match denied {
        Denied { protocol_min, protocol_max, .. } if protocol_max > 0 => {
            ConnectError::Protocol { theirs: protocol_min..=protocol_max }
        }
        Denied { wrong_key: true, .. } => ConnectError::Key,
        Denied { reason, .. } => ConnectError::Denied(reason),
    }
}

fn range(versions: &RangeInclusive<u32>) -> String {
    match (versions.start(), versions.end()) {
        (low, high) if low == high => low.to_string(),
        (low, high) => format!("{low} to {high}"),
    }
}

async fn next_frame(reader: &mut Reader) -> Result<hello_frame::Frame, ConnectError> {
    loop {
        match reader.next::<HelloFrame>().await {
            Some(Ok(HelloFrame { frame: Some(frame) })) => return Ok(frame),
            Some(Ok(HelloFrame { frame: None })) => {}
            Some(Err(error)) => return Err(error.into()),
            None => return Err(ConnectError::HungUp),
        }
    }
}

fn request(path: &str) -> Result<http::Request<()>, ConnectError> {
    http::Request::post(format!("http://agent{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .map_err(|_| ConnectError::HungUp)
}
