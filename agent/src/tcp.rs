//! One TCP flow: dial, then copy both ways with credit, half-close and resets as they are.
//!
//! ```text
//!   going ── its carrier ended ──▶ detached ── nobody came in time, or room was needed ──▶ the far end sees a reset
//!     ▲                                │        (what both ends finished still goes out)
//!     └────── resumed on another ──────┘
//! ```
//!
//! Detached, it reads nothing from the far end, and goes on writing what it has.
#![expect(clippy::wildcard_enum_match_arm, reason = "kinds of io errors are many, and grow")]

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use podway_tunnel::acks::Acks;
use podway_tunnel::credit::{Grant, Receiver, Sender};
use podway_tunnel::frames::{
    CREDIT_BROKEN, Failed, Failure, FlowFrame, Open, Opened, Recall, Reset, Resumed, Yielded, flow_frame,
};
use podway_tunnel::queue::Queue;
use podway_tunnel::resume::{Keeping, Outbox, ResumeError};
use podway_tunnel::review::Reviews;
use podway_tunnel::wire::{WireError, Writer};
use podway_tunnel::words::Words;
use podway_tunnel::{STREAM_DATA, resend};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWrite as _;
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep, timeout};

use crate::dial::{Deaf, Dialled, dial};
use crate::places::{Arrival, Key, Place, Stream};
use crate::server::Shared;

/// The far end is probed after this long without a byte, so that a flow to a host that vanished ends some day.
const KEEPALIVE: Duration = Duration::from_secs(120);

/// How long the far end may take nothing of what is left for it, once nobody can be told any more.
const ORPHAN_STALL: Duration = Duration::from_secs(60);

/// Dials and serves one flow until it is over. It goes on over other carriers where it has a `key`.
pub async fn serve(open: Open, to: SocketAddr, key: Option<Key>, mut stream: Stream, shared: Arc<Shared>) {
    let asked = Duration::from_millis(open.dial_timeout_ms.into());
    let limit = if asked.is_zero() { shared.limits.dial } else { asked.min(shared.limits.dial) };
    let dialled = tokio::select! {
        dialled = timeout(limit, dial(to)) => dialled,
        // Nothing but an end can come before the answer: the workstation gave up.
        _ = stream.reader.next::<FlowFrame>() => return,
    };
    let writer = &mut stream.writer;
    let Dialled { socket, reset } = match dialled {
        Ok(Ok(dialled)) => dialled,
        Ok(Err(error)) => return refuse(writer, failure(&error), &shared),
        Err(_) => return refuse(writer, Failure::TimedOut, &shared),
    };
    drop(socket.set_nodelay(true));
    drop(SockRef::from(&socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE)));
    let Some(receiver) = Receiver::new(Buffers(Arc::clone(&shared)), shared.now()) else {
        return refuse(writer, Failure::Limit, &shared);
    };
    let place = key.map(|key| shared.places.enter(key));
    if matches!(place, Some(None)) {
        // A name is used once.
        return refuse(writer, Failure::Unspecified, &shared);
    }
    let place = place.flatten();
    let local_address = socket.local_addr().map(|address| address.to_string()).unwrap_or_default();
    let opened = Opened { local_address, limit: receiver.first_limit() };
    if writer.send_flow(flow_frame::Frame::Opened(opened)).is_err() {
        return;
    }
    let keeping = if place.is_some() { Keeping::Everything } else { Keeping::Nothing };
    let mut flow = Flow {
        socket,
        stream: Some(stream),
        place,
        receiver,
        reviews: Reviews::default(),
        words: Words::default(),
        acks: Acks::default(),
        sender: Sender::new(open.limit),
        outbox: Outbox::new(Buffers(Arc::clone(&shared)), keeping),
        queue: Queue::default(),
        shared,
        from_client: Half::Open,
        to_client: Half::Open,
        client_done: false,
        far_deaf: reset,
        far_reset: None,
        waits: None,
        orphaned: None,
    };
    std::future::poll_fn(|cx| flow.poll(cx)).await;
}

/// Says why there is no flow.
pub fn refuse(writer: &mut Writer, failure: Failure, shared: &Shared) {
    shared.count_refused();
    say_failed(writer, failure);
}

/// Says why a flow does not go on here, or is not there.
pub fn say_failed(writer: &mut Writer, failure: Failure) {
    drop(writer.send_flow(flow_frame::Frame::Failed(Failed { failure: failure.into() })));
    writer.finish_ok();
}

/// What a failed connect means (connect(2)).
pub fn failure(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Failure::Refused,
        io::ErrorKind::HostUnreachable => Failure::HostUnreachable,
        io::ErrorKind::NetworkUnreachable => Failure::NetUnreachable,
        io::ErrorKind::TimedOut => Failure::TimedOut,
        io::ErrorKind::PermissionDenied => Failure::Forbidden,
        // Out of descriptors or ports: ours, not the far side's.
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory => Failure::Limit,
        _ => match error.raw_os_error() {
            Some(23 | 24) => Failure::Limit,
            _ => Failure::HostUnreachable,
        },
    }
}

/// A handle on the agent's budget.
#[derive(Debug)]
struct Buffers(Arc<Shared>);

impl std::ops::Deref for Buffers {
    type Target = podway_tunnel::credit::Budget;
    fn deref(&self) -> &Self::Target {
        &self.0.budget
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    Open,
    /// The end came; what is queued still goes out.
    Ending,
    Finished,
}

struct Flow {
    socket: TcpStream,
    /// `None` while it is detached.
    stream: Option<Stream>,
    /// Where it may go on over another carrier.
    place: Option<Place>,
    receiver: Receiver<Buffers>,
    reviews: Reviews,
    words: Words,
    acks: Acks,
    sender: Sender,
    outbox: Outbox<Buffers>,
    /// From the workstation, not written yet; the credit we granted bounds it.
    queue: Queue,
    shared: Arc<Shared>,
    from_client: Half,
    to_client: Half,
    /// The workstation ended its side of the stream: it has everything, and knows that we do.
    client_done: bool,
    /// Set once it takes nothing any more; what it sent before may still be here.
    far_deaf: Option<Deaf>,
    /// The far end reset it, and why: the workstation is told after all that came before.
    far_reset: Option<String>,
    /// Set while it is detached: until when it waits for another carrier.
    waits: Option<Pin<Box<Sleep>>>,
    /// Set when the stream broke after both ends: when the far end's patience is over.
    orphaned: Option<Pin<Box<Sleep>>>,
}

/// The flow ended before both directions were finished.
enum Broken {
    /// The workstation went away or reset it: the far end sees a reset.
    ByClient,
    /// The workstation broke the protocol: both see a reset.
    Nonsense(&'static str),
    /// The far end reset it: the workstation sees a reset.
    ByFarEnd(String),
}

impl Flow {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.advance(cx) {
            Ok(()) if self.is_over() => {}
            Ok(()) => return Poll::Pending,
            Err(broken @ (Broken::ByClient | Broken::Nonsense(_))) => {
                match broken {
                    Broken::Nonsense(reason) => self.tell_reset(reason),
                    // What came before the end is the far end's, as far as it takes it.
                    Broken::ByClient | Broken::ByFarEnd(_) => self.write_out(cx),
                }
                // Linger 0: the socket's end is a reset (socket(7)).
                drop(SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)));
            }
            Err(Broken::ByFarEnd(reason)) => self.tell_reset(&reason),
        }
        if let Some(stream) = &mut self.stream {
            stream.writer.finish_ok();
        }
        Poll::Ready(())
    }

    fn tell_reset(&mut self, reason: &str) {
        if let Some(stream) = &mut self.stream {
            drop(stream.writer.send_flow(flow_frame::Frame::Reset(Reset { reason: reason.to_owned() })));
        }
    }

    /// Both ends have all there is, as far as anybody can still be asked.
    fn is_over(&self) -> bool {
        // Who ended its side after its `Fin` has what we sent, or does not want it any more.
        let told = self.place.is_none() || (self.client_done && !self.outbox.has_again());
        self.from_client == Half::Finished && self.to_client == Half::Finished && told
    }

    /// What is here of the workstation's direction, in words of the protocol.
    fn received(&self) -> u64 {
        self.receiver.received() + u64::from(self.from_client != Half::Open)
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Result<(), Broken> {
        self.take_arrivals(cx)?;
        // Frames before bytes: they bring credit and the end.
        self.take_frames(cx)?;
        self.write_out(cx);
        self.speak(cx);
        self.look_at_timers(cx)?;
        self.read_in(cx)?;
        match &self.far_reset {
            Some(reason) if self.stream.is_some() && !self.outbox.has_again() => Err(Broken::ByFarEnd(reason.clone())),
            Some(_) | None => Ok(()),
        }
    }

    fn take_arrivals(&mut self, cx: &mut Context<'_>) -> Result<(), Broken> {
        while let Some(place) = &mut self.place
            && let Poll::Ready(arrival) = place.poll(cx)
        {
            match arrival {
                Arrival::Stream(stream, received) => self.resume(stream, received)?,
                Arrival::End => self.orphan()?,
            }
        }
        Ok(())
    }

    /// Goes on over another carrier, with a workstation that has so much.
    fn resume(&mut self, mut stream: Stream, received: u64) -> Result<(), Broken> {
        match self.outbox.resume(received) {
            Ok(()) => {}
            Err(why) => {
                say_failed(&mut stream.writer, Failure::UnknownFlow);
                return match why {
                    // Of a carrier that is gone: the word that overtook it counts.
                    ResumeError::Stale => Ok(()),
                    // It wanted to move, and stays.
                    ResumeError::Lost if stream.bulk && self.stream.is_some() => Ok(()),
                    ResumeError::Lost => Err(Broken::ByClient),
                };
            }
        }
        if let Some(place) = &self.place {
            place.attach();
        }
        self.waits = None;
        // That this stream ended is read off it.
        drop(stream.writer.send_flow(flow_frame::Frame::Resumed(Resumed { received: self.received() })));
        self.stream = Some(stream);
        self.client_done = false;
        self.words = Words::default();
        let grant = Grant { received: self.received(), ..self.receiver.resumed() };
        self.grant(grant);
        Ok(())
    }

    fn grant(&mut self, grant: Grant) {
        self.acks.told(grant.received);
        self.words.grant(grant);
    }

    fn take_frames(&mut self, cx: &mut Context<'_>) -> Result<(), Broken> {
        while self.orphaned.is_none()
            && let Some(stream) = &mut self.stream
        {
            let frame = match stream.reader.poll_next::<FlowFrame>(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Some(Ok(frame))) => frame.frame,
                // After its Fin the workstation may leave its side of the stream closed.
                Poll::Ready(None) if self.from_client != Half::Open => {
                    self.client_done = true;
                    // Behind that end nothing tells what becomes of the stream but its reset (RFC 9113, section 5.1).
                    return match stream.writer.poll_reset(cx) {
                        Poll::Ready(()) => self.orphan(),
                        Poll::Pending => Ok(()),
                    };
                }
                Poll::Ready(Some(Err(WireError::Ended(error)))) => {
                    self.lost(&error)?;
                    continue;
                }
                Poll::Ready(Some(Err(_)) | None) => return Err(Broken::ByClient),
            };
            self.take(frame)?;
        }
        Ok(())
    }

    /// The stream broke.
    fn lost(&mut self, error: &h2::Error) -> Result<(), Broken> {
        // The workstation ended this stream, not its carrier.
        let cancelled = error.is_reset() && error.is_remote();
        let waits = |(place, stream): (&Place, &Stream)| place.detach(stream);
        if !cancelled && !self.client_done && self.place.as_ref().zip(self.stream.as_ref()).is_some_and(waits) {
            self.stream = None;
            self.waits = Some(Box::pin(sleep(self.shared.limits.resume)));
            return Ok(());
        }
        self.orphan()
    }

    /// Nobody can be told any more. What both ends finished still goes out: nobody took back what came.
    fn orphan(&mut self) -> Result<(), Broken> {
        let finished = self.from_client != Half::Open && self.to_client == Half::Finished;
        if !finished || self.far_reset.is_some() {
            return Err(Broken::ByClient);
        }
        self.place = None;
        self.waits = None;
        self.orphaned = Some(Box::pin(sleep(ORPHAN_STALL)));
        Ok(())
    }

    fn take(&mut self, frame: Option<flow_frame::Frame>) -> Result<(), Broken> {
        match frame {
            Some(flow_frame::Frame::Data(data)) => {
                let length = data.bytes.len() as u64;
                if self.from_client != Half::Open || self.receiver.arrived(data.offset, length).is_err() {
                    return Err(Broken::Nonsense(CREDIT_BROKEN));
                }
                self.queue.push(data.bytes);
            }
            Some(flow_frame::Frame::Ack(ack)) => {
                if self.place.is_some() && self.outbox.acknowledged(ack.received).is_err() {
                    return Err(Broken::Nonsense("more was acknowledged than was sent"));
                }
                self.sender.granted(ack.limit);
            }
            Some(flow_frame::Frame::Recall(Recall { limit })) => {
                let limit = self.sender.recalled(limit);
                self.words.yielded(limit);
            }
            Some(flow_frame::Frame::Yielded(Yielded { limit })) => {
                let grant = self.receiver.yielded(limit);
                grant.into_iter().for_each(|grant| self.grant(grant));
            }
            Some(flow_frame::Frame::Fin(_)) if self.from_client == Half::Open => {
                self.from_client = Half::Ending;
                self.receiver.finished();
            }
            Some(flow_frame::Frame::Reset(_)) => return Err(Broken::ByClient),
            _ => {}
        }
        Ok(())
    }

    /// Says what waits, and sends again what has to be.
    fn speak(&mut self, cx: &mut Context<'_>) {
        let received = self.received();
        let ends = self.has_to_tell_of_their_end(received);
        let Some(stream) = &mut self.stream else { return };
        if self.place.is_some() && (self.acks.poll(cx, received) || ends) {
            self.words.acknowledge(received);
            self.acks.told(received);
        }
        // That the stream ended is read off it.
        while let Poll::Ready(Ok(())) = self.words.poll(cx, &mut stream.writer)
            && let Some(limit) = self.reviews.poll(cx, &mut self.receiver)
        {
            self.words.recall(limit);
        }
        drop(resend::poll(&mut self.outbox, &mut stream.writer, cx));
    }

    /// The workstation waits for the word that its `Fin` is here. Where ours is still to come that goes along, and who has
    /// ended its side of the stream takes the end of ours for it, if that comes soon.
    fn has_to_tell_of_their_end(&self, received: u64) -> bool {
        let is_the_last = self.from_client != Half::Open && self.to_client == Half::Finished;
        is_the_last && !self.client_done && self.acks.owes(received)
    }

    fn look_at_timers(&mut self, cx: &mut Context<'_>) -> Result<(), Broken> {
        if let Some(until) = &mut self.waits
            && until.as_mut().poll(cx).is_ready()
        {
            self.orphan()?;
        }
        if let Some(deadline) = &mut self.orphaned
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Err(Broken::ByClient);
        }
        Ok(())
    }

    /// Whether bytes can still be written to the far end.
    fn takes(&self) -> bool {
        self.far_reset.is_none() && self.far_deaf.is_none()
    }

    fn write_out(&mut self, cx: &mut Context<'_>) {
        while self.takes() && !self.queue.is_empty() {
            match Pin::new(&mut self.socket).poll_write(cx, self.queue.front()) {
                Poll::Pending => return,
                Poll::Ready(Ok(written)) => {
                    if let Some(deadline) = &mut self.orphaned {
                        deadline.set(sleep(ORPHAN_STALL));
                    }
                    self.queue.advance(written);
                    let now = self.shared.now();
                    self.shared.moved(written);
                    self.receiver.is_on_bulk(self.stream.as_ref().is_some_and(|stream| stream.bulk));
                    let grant = self.receiver.taken(written as u64, now, self.shared.round_trip());
                    grant.into_iter().for_each(|grant| self.grant(grant));
                }
                Poll::Ready(Err(error)) if self.to_client == Half::Open => self.far_deaf = Some(Deaf::new(&error)),
                Poll::Ready(Err(error)) => self.far_reset = Some(error.to_string()),
            }
        }
        if self.from_client == Half::Ending && self.takes() {
            match Pin::new(&mut self.socket).poll_shutdown(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.from_client = Half::Finished,
                // The far end is gone already; reading tells how.
                Poll::Ready(Err(_)) => self.from_client = Half::Finished,
            }
        }
    }

    fn read_in(&mut self, cx: &mut Context<'_>) -> Result<(), Broken> {
        let received = self.received();
        while self.to_client == Half::Open && self.far_reset.is_none() {
            let credit = usize::try_from(self.sender.available()).unwrap_or(usize::MAX);
            if credit == 0 && self.far_deaf.is_some() {
                // A program that writes, and reads later, must not wait for itself.
                self.far_reset = self.far_deaf.take().map(|deaf| deaf.reason);
                return Ok(());
            }
            let Some(stream) = self.stream.as_mut().filter(|_| credit > 0 && !self.outbox.has_again()) else {
                return Ok(());
            };
            match self.socket.poll_read_ready(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    self.far_reset = Some(error.to_string());
                    return Ok(());
                }
            }
            let room = match stream.writer.poll_room(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(room)) => room,
                // That a stream ended whose flow may go on is read off it.
                Poll::Ready(Err(_)) if self.place.is_some() && !self.client_done => return Ok(()),
                Poll::Ready(Err(_)) => return Err(Broken::ByClient),
            };
            // A buffer only when there is something to read: idle flows hold none.
            let most = room.min(credit).min(STREAM_DATA);
            let mut buffer = BytesMut::with_capacity(most);
            let mut limited = bytes::BufMut::limit(&mut buffer, most);
            match self.socket.try_read_buf(&mut limited) {
                Ok(0) => {
                    let deaf = self.far_deaf.take();
                    let finished = deaf.as_ref().is_none_or(|deaf| deaf.after_fin);
                    self.far_reset = deaf.map(|deaf| deaf.reason);
                    if !finished {
                        return Ok(());
                    }
                    self.to_client = Half::Finished;
                    self.outbox.finish();
                    drop(resend::poll(&mut self.outbox, &mut stream.writer, cx));
                    if self.place.is_some() && self.acks.owes(received) {
                        self.words.acknowledge(received);
                        self.acks.told(received);
                        drop(self.words.poll(cx, &mut stream.writer));
                    }
                }
                Ok(_) => {
                    let offset = self.sender.offset();
                    self.shared.moved(buffer.len());
                    self.sender.sent(buffer.len() as u64);
                    let data = compact(buffer);
                    self.outbox.sent(&data);
                    if stream.writer.send_data(offset, data).is_err() && self.place.is_none() {
                        return Err(Broken::ByClient);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => self.far_reset = Some(error.to_string()),
            }
        }
        Ok(())
    }
}

/// Bytes that hold a buffer of at most twice their size: they may be kept until the workstation has them.
fn compact(buffer: BytesMut) -> Bytes {
    if buffer.len() * 2 < buffer.capacity() { Bytes::copy_from_slice(&buffer) } else { buffer.freeze() }
}
