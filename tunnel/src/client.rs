//! The workstation's end of a carrier: handshake, heartbeat, flows.
//!
//! ```text
//! connect ── HTTP/2 ── Hello … Welcome ──▶ Carrier ──▶ open_tcp / open_udp / dns
//!                                             └─ closed(): silence, GOAWAY, end of the stream below
//! ```
#![expect(clippy::wildcard_enum_match_arm, reason = "a frame that means nothing where it comes is skipped")]
#![expect(clippy::disallowed_methods, reason = "round trips and silence are measured with the clock")]

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::credit::{Budget, Receiver, Sender};
use crate::frames::{
    Ack, ClientHello, Data, DnsAnswer, DnsQuery, Failure, Fin, FlowFrame, HelloFrame, Open, Ping, Pong, Proof,
    Protocol, Reset, Welcome, flow_frame, hello_frame,
};
use crate::round_trip::RoundTrip;
use crate::wire::{Reader, WireError, Writer};
use crate::{
    CONNECTION_WINDOW, DNS_PATH, FLOW_PATH, FRAME_SIZE, HEARTBEAT, HELLO_PATH, MAX_FLOWS, PROTOCOL, SEND_BUFFER,
    SILENCE, STREAM_WINDOW, handshake,
};

/// Bytes that the flows of a carrier may hold at the workstation.
const BUFFERS: u64 = 48 << 20;
/// Pings whose answer is still waited for.
const MAX_PINGS: usize = 8;

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
    /// The agent said no.
    #[error("the agent denied access: {0}")]
    Denied(String),
    /// The challenge names another pod.
    #[error("the agent says it lives in pod {found}, not in {expected}")]
    WrongPod {
        /// The pod that was dialled.
        expected: String,
        /// The pod that the agent named.
        found: String,
    },
    /// The agent speaks another protocol.
    #[error("the agent speaks protocol {0}, which this version does not")]
    Protocol(u32),
    /// The system has no random bytes.
    #[error("no random bytes")]
    Random,
}

/// One HTTP/2 connection to one agent, authenticated.
#[derive(Clone)]
pub struct Carrier {
    requests: SendRequest<Bytes>,
    welcome: Arc<Welcome>,
    closed: watch::Receiver<Option<Arc<str>>>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Carrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Carrier").field("closed", &*self.closed.borrow()).finish_non_exhaustive()
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
    budget: Budget,
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
            budget: Budget::new(BUFFERS),
            runtime: tokio::runtime::Handle::current(),
        });
        let noted = Noted { io, shared: Arc::clone(&shared) };
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
            let why = match connection.await {
                Ok(()) => "the agent closed the connection".to_owned(),
                Err(error) => format!("the connection broke: {error}"),
            };
            end(&tell, why);
        });
        let guard = AbortOnDrop(running.abort_handle());
        let (response, stream) = requests.send_request(request(HELLO_PATH)?, false)?;
        let mut writer = Writer::new(stream);
        let began = shared.now();
        writer.send(&hello(hello_frame::Frame::ClientHello(ClientHello {
            protocol_min: PROTOCOL,
            protocol_max: PROTOCOL,
            features: Vec::new(),
            session_id: Bytes::copy_from_slice(&config.session_id),
            public_key: Bytes::copy_from_slice(config.pair.public_key().as_ref()),
        })))?;
        let mut reader = Reader::new(response.await?.into_body());
        let challenge = loop {
            match next_frame(&mut reader).await? {
                hello_frame::Frame::Challenge(challenge) => break challenge,
                hello_frame::Frame::Denied(denied) => return Err(ConnectError::Denied(denied.reason)),
                _ => {}
            }
        };
        let round_trip = RoundTrip::new(shared.now() - began, shared.now());
        shared.round_trip.store((shared.now() - began).max(1), Ordering::Relaxed);
        if challenge.protocol != PROTOCOL {
            return Err(ConnectError::Protocol(challenge.protocol));
        }
        if challenge.pod_uid != config.pod_uid {
            return Err(ConnectError::WrongPod { expected: config.pod_uid.clone(), found: challenge.pod_uid });
        }
        let special = config.special.clone();
        let signature =
            handshake::sign(&config.pair, &challenge.nonce, &config.session_id, &challenge.pod_uid, &special);
        writer
            .send(&hello(hello_frame::Frame::Proof(Proof { signature: signature.into(), allowed_special: special })))?;
        let welcome = loop {
            match next_frame(&mut reader).await? {
                hello_frame::Frame::Welcome(welcome) => break welcome,
                hello_frame::Frame::Denied(denied) => return Err(ConnectError::Denied(denied.reason)),
                _ => {}
            }
        };
        tokio::spawn(heartbeat(reader, writer, round_trip, Arc::clone(&shared), ended, guard));
        Ok(Carrier { requests, welcome: Arc::new(welcome), closed, shared })
    }

    /// What the agent said of itself.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Whether it still stands.
    pub fn is_alive(&self) -> bool {
        self.closed.borrow().is_none()
    }

    /// Resolves when the carrier has ended, with the reason. Cancel safe.
    pub fn closed(&self) -> impl Future<Output = String> + Send + 'static {
        let mut closed = self.closed.clone();
        async move {
            match closed.wait_for(Option::is_some).await {
                Ok(why) => why.as_deref().unwrap_or_default().to_owned(),
                Err(_) => "the connection ended".to_owned(),
            }
        }
    }

    /// Ends the carrier and all its flows, soon: [`Carrier::closed`] tells when.
    pub fn close(&self) {
        self.shared.close.notify_one();
    }

    /// Dials `to` from inside the pod. Cancel safe: dropping it ends the flow.
    pub async fn open_tcp(&self, to: SocketAddr, dial_timeout: Duration) -> Result<TcpFlow, Failure> {
        let receiver = Receiver::new(Arc::clone(&self.shared).into(), self.shared.now());
        let limit = receiver.first_limit();
        let (reader, writer, opened) = self.open(Protocol::Tcp, to, dial_timeout, limit).await?;
        Ok(TcpFlow {
            reader: Some(reader),
            writer,
            receiver,
            sender: Sender::new(opened),
            shared: Arc::clone(&self.shared),
            unacknowledged: 0,
            ours: Side::Open,
            theirs: Side::Open,
            pending: VecDeque::new(),
        })
    }

    /// Opens an association to `to` from inside the pod. Cancel safe.
    pub async fn open_udp(&self, to: SocketAddr) -> Result<UdpFlow, Failure> {
        let (reader, writer, _) = self.open(Protocol::Udp, to, Duration::ZERO, 0).await?;
        Ok(UdpFlow { reader, writer, ended: false, waiting: VecDeque::new() })
    }

    /// Asks the pod's name servers one raw message. Cancel safe.
    pub async fn dns(&self, message: Bytes, timeout: Duration) -> Result<Bytes, Failure> {
        let lost = |_| Failure::Unspecified;
        let mut requests = self.requests.clone().ready().await.map_err(lost)?;
        let request = request(DNS_PATH).map_err(|_| Failure::Unspecified)?;
        let (response, stream) = requests.send_request(request, false).map_err(lost)?;
        let mut writer = Writer::new(stream);
        let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        writer.send(&DnsQuery { message, timeout_ms }).map_err(|_| Failure::Unspecified)?;
        writer.finish();
        let mut reader = Reader::new(response.await.map_err(lost)?.into_body());
        match reader.next::<DnsAnswer>().await {
            Some(Ok(answer)) if !answer.message.is_empty() => Ok(answer.message),
            Some(Ok(_)) => Err(Failure::TimedOut),
            Some(Err(_)) | None => Err(Failure::Unspecified),
        }
    }

    async fn open(
        &self,
        protocol: Protocol,
        to: SocketAddr,
        dial_timeout: Duration,
        limit: u64,
    ) -> Result<(Reader, Writer, u64), Failure> {
        let lost = |_| Failure::Unspecified;
        let mut requests = self.requests.clone().ready().await.map_err(lost)?;
        let request = request(FLOW_PATH).map_err(|_| Failure::Unspecified)?;
        let (response, stream) = requests.send_request(request, false).map_err(lost)?;
        let mut writer = Writer::new(stream);
        let flow_id = handshake::random::<16>().ok_or(Failure::Unspecified)?;
        let address = match to.ip() {
            IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
        };
        let open = Open {
            flow_id: Bytes::copy_from_slice(&flow_id),
            protocol: protocol.into(),
            address,
            port: to.port().into(),
            dial_timeout_ms: u32::try_from(dial_timeout.as_millis()).unwrap_or(u32::MAX),
            limit,
        };
        writer.send_flow(flow_frame::Frame::Open(open)).map_err(|_| Failure::Unspecified)?;
        let mut reader = Reader::new(response.await.map_err(lost)?.into_body());
        loop {
            let Some(Ok(frame)) = reader.next::<FlowFrame>().await else {
                return Err(Failure::Unspecified);
            };
            match frame.frame {
                Some(flow_frame::Frame::Opened(opened)) => return Ok((reader, writer, opened.limit)),
                Some(flow_frame::Frame::Failed(failed)) => return Err(failed.failure()),
                _ => {}
            }
        }
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn end(ended: &watch::Sender<Option<Arc<str>>>, why: String) {
    ended.send_if_modified(|slot| {
        let first = slot.is_none();
        if first {
            *slot = Some(why.into());
        }
        first
    });
}

/// Pings, answers pings, and ends the carrier when it is silent, told to close, or no one holds it any more.
async fn heartbeat(
    mut reader: Reader,
    mut writer: Writer,
    mut round_trip: RoundTrip,
    shared: Arc<Shared>,
    ended: Arc<watch::Sender<Option<Arc<str>>>>,
    connection: AbortOnDrop,
) {
    let broke = || "the connection broke".to_owned();
    let mut pings: VecDeque<(u64, u64)> = VecDeque::new();
    let (mut next_id, mut next_ping) = (1, shared.now());
    let why = loop {
        let silent_at = shared.last_byte.load(Ordering::Acquire) + micros(SILENCE);
        let wake = shared.began + Duration::from_micros(silent_at.min(next_ping));
        tokio::select! {
            biased;
            () = shared.close.notified() => break "closed".to_owned(),
            () = ended.closed() => break "nobody uses it".to_owned(),
            frame = reader.next::<HelloFrame>() => match frame {
                Some(Ok(HelloFrame { frame: Some(hello_frame::Frame::Pong(Pong { id })) })) => {
                    while let Some((sent_id, at)) = pings.pop_front() {
                        if sent_id == id {
                            let now = shared.now();
                            shared.round_trip.store(round_trip.measured(now - at, now), Ordering::Relaxed);
                            break;
                        }
                    }
                }
                Some(Ok(HelloFrame { frame: Some(hello_frame::Frame::Ping(Ping { id })) })) => {
                    if writer.send(&hello(hello_frame::Frame::Pong(Pong { id }))).is_err() {
                        break broke();
                    }
                }
                // Draining: the pod's deletion is seen in the cluster as well, and decides.
                Some(Ok(_)) => {}
                Some(Err(error)) => break format!("the connection broke: {error}"),
                None => break "the agent closed the connection".to_owned(),
            },
            () = tokio::time::sleep_until(wake) => {
                let now = shared.now();
                if now >= shared.last_byte.load(Ordering::Acquire) + micros(SILENCE) {
                    break format!("no byte came for {} s", SILENCE.as_secs_f32());
                }
                if now >= next_ping {
                    pings.push_back((next_id, now));
                    if pings.len() > MAX_PINGS {
                        pings.pop_front();
                    }
                    if writer.send(&hello(hello_frame::Frame::Ping(Ping { id: next_id }))).is_err() {
                        break broke();
                    }
                    next_id += 1;
                    next_ping = now + micros(HEARTBEAT);
                }
            }
        }
    };
    end(&ended, why);
    drop(connection);
}

fn hello(frame: hello_frame::Frame) -> HelloFrame {
    HelloFrame { frame: Some(frame) }
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

/// How far one direction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Open,
    Finished,
    /// Both directions ended at once.
    Reset,
}

/// What came from the far side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The next bytes.
    Data(Bytes),
    /// The far side finished its direction.
    Fin,
    /// The flow is over.
    Reset,
}

/// The flow is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the flow has ended")]
pub struct Ended;

/// A handle on the carrier's budget.
#[derive(Debug)]
struct Buffers(Arc<Shared>);

impl std::ops::Deref for Buffers {
    type Target = Budget;
    fn deref(&self) -> &Budget {
        &self.0.budget
    }
}

impl From<Arc<Shared>> for Buffers {
    fn from(shared: Arc<Shared>) -> Buffers {
        Buffers(shared)
    }
}

/// One TCP flow. Driven by polling from one task; dropping it unfinished resets it.
#[derive(Debug)]
pub struct TcpFlow {
    /// Taken only by `drop`.
    reader: Option<Reader>,
    writer: Writer,
    receiver: Receiver<Buffers>,
    sender: Sender,
    shared: Arc<Shared>,
    /// Bytes handed out by the last event and not yet acknowledged.
    unacknowledged: u64,
    ours: Side,
    theirs: Side,
    /// Taken off the stream while looking for credit; the credit we granted bounds it.
    pending: VecDeque<Event>,
}

impl TcpFlow {
    /// Ready with how many bytes may be sent now.
    pub fn poll_send_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Ended>> {
        if self.ours != Side::Open {
            return Poll::Ready(Err(Ended));
        }
        while self.sender.available() == 0 {
            // Credit comes on the same stream as data, so data is taken off to get at it.
            match ready!(self.poll_frame(cx)) {
                Some(Event::Reset) => {
                    self.pending.push_back(Event::Reset);
                    return Poll::Ready(Err(Ended));
                }
                Some(event) => self.pending.push_back(event),
                None => {}
            }
        }
        match ready!(self.writer.poll_room(cx)) {
            Ok(room) => {
                let credit = usize::try_from(self.sender.available()).unwrap_or(usize::MAX);
                Poll::Ready(Ok(room.min(credit)))
            }
            Err(_) => Poll::Ready(Err(Ended)),
        }
    }

    /// Sends at most as many bytes as [`TcpFlow::poll_send_ready`] last said.
    pub fn send(&mut self, data: Bytes) -> Result<(), Ended> {
        if self.ours != Side::Open {
            return Err(Ended);
        }
        let (offset, length) = (self.sender.offset(), data.len() as u64);
        self.sender.sent(length);
        self.writer.send_data(offset, data).map_err(|_| Ended)
    }

    /// Finishes our direction.
    pub fn send_fin(&mut self) {
        if self.ours == Side::Open {
            self.ours = Side::Finished;
            drop(self.writer.send_flow(flow_frame::Frame::Fin(Fin {})));
        }
    }

    /// Ends both directions at once.
    pub fn send_reset(&mut self) {
        if self.ours != Side::Reset {
            let over = self.ours == Side::Finished && self.theirs == Side::Finished;
            self.ours = Side::Reset;
            self.theirs = Side::Reset;
            if !over {
                drop(self.writer.send_flow(flow_frame::Frame::Reset(Reset { reason: String::new() })));
            }
            self.writer.finish();
        }
    }

    /// The next event. Taking one acknowledges the data of the event before.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        self.acknowledge();
        loop {
            if let Some(event) = self.pending.pop_front() {
                if let Event::Data(data) = &event {
                    self.unacknowledged = data.len() as u64;
                }
                return Poll::Ready(event);
            }
            if self.theirs != Side::Open && self.ours != Side::Open {
                return Poll::Pending;
            }
            let event = ready!(self.poll_frame(cx));
            self.pending.extend(event);
        }
    }

    fn acknowledge(&mut self) {
        let length = std::mem::take(&mut self.unacknowledged);
        if length == 0 || self.theirs != Side::Open {
            return;
        }
        if let Some((received, limit)) = self.receiver.taken(length, self.shared.now(), self.shared.round_trip()) {
            drop(self.writer.send_flow(flow_frame::Frame::Ack(Ack { received, limit })));
        }
    }

    /// Takes one frame off the stream: an event, or `None` for what only changes our state.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let Some(reader) = &mut self.reader else { return Poll::Pending };
        let frame = match ready!(reader.poll_next::<FlowFrame>(cx)) {
            Some(Ok(frame)) => frame.frame,
            Some(Err(_)) | None => return Poll::Ready(self.broken()),
        };
        Poll::Ready(match frame {
            Some(flow_frame::Frame::Data(Data { offset, bytes })) => {
                if self.theirs != Side::Open || self.receiver.arrived(offset, bytes.len() as u64).is_err() {
                    self.send_reset();
                    Some(Event::Reset)
                } else if bytes.is_empty() {
                    None
                } else {
                    Some(Event::Data(bytes))
                }
            }
            Some(flow_frame::Frame::Ack(Ack { limit, .. })) => {
                self.sender.granted(limit);
                None
            }
            Some(flow_frame::Frame::Fin(_)) if self.theirs == Side::Open => {
                self.theirs = Side::Finished;
                Some(Event::Fin)
            }
            Some(flow_frame::Frame::Reset(_)) => self.broken(),
            _ => None,
        })
    }

    /// The stream ended, or the far side reset the flow.
    fn broken(&mut self) -> Option<Event> {
        let orderly = self.theirs == Side::Finished && self.ours == Side::Finished;
        let known = self.ours == Side::Reset;
        self.ours = Side::Reset;
        self.theirs = Side::Reset;
        self.writer.finish();
        (!orderly && !known).then_some(Event::Reset)
    }
}

impl Drop for TcpFlow {
    fn drop(&mut self) {
        if self.ours != Side::Finished || self.theirs != Side::Finished {
            return self.send_reset();
        }
        self.writer.finish();
        let Some(mut reader) = self.reader.take() else { return };
        let mut cx = Context::from_waker(std::task::Waker::noop());
        if let Poll::Ready(None | Some(Err(_))) = reader.poll_next::<FlowFrame>(&mut cx) {
            return;
        }
        // A stream dropped before the agent ended it is cancelled, and h2 throws away what is queued on it.
        self.shared.runtime.spawn(async move { while let Some(Ok(_)) = reader.next::<FlowFrame>().await {} });
    }
}

/// One UDP association.
#[derive(Debug)]
pub struct UdpFlow {
    reader: Reader,
    writer: Writer,
    ended: bool,
    waiting: VecDeque<Bytes>,
}

impl UdpFlow {
    /// Sends one datagram; drops it when the way is congested.
    pub fn send(&mut self, datagram: Bytes) {
        if datagram.len() > crate::MAX_DATA || self.ended {
            return;
        }
        let mut cx = Context::from_waker(std::task::Waker::noop());
        if let Poll::Ready(Ok(room)) = self.writer.poll_room(&mut cx)
            && room >= datagram.len().min(crate::MAX_DATA / 2)
        {
            drop(self.writer.send_data(0, datagram));
        }
    }

    /// The next datagram; `None` when the association ended.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(datagram) = self.waiting.pop_front() {
                return Poll::Ready(Some(datagram));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            match ready!(self.reader.poll_next::<FlowFrame>(cx)) {
                Some(Ok(frame)) => match frame.frame {
                    Some(flow_frame::Frame::Data(data)) => self.waiting.push_back(data.bytes),
                    Some(flow_frame::Frame::Reset(_) | flow_frame::Frame::Fin(_)) => self.ended = true,
                    _ => {}
                },
                Some(Err(_)) | None => self.ended = true,
            }
        }
    }
}

impl Drop for UdpFlow {
    fn drop(&mut self) {
        if !self.ended {
            drop(self.writer.send_flow(flow_frame::Frame::Reset(Reset { reason: String::new() })));
        }
        self.writer.finish();
    }
}

/// Notes when bytes come, so that silence can be told from quiet.
struct Noted<S> {
    io: S,
    shared: Arc<Shared>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Noted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.shared.last_byte.store(self.shared.now(), Ordering::Release);
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
