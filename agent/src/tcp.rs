//! One TCP flow: dial, then copy both ways with credit, half-close and resets as they are.
#![expect(clippy::wildcard_enum_match_arm, reason = "kinds of io errors are many, and grow")]

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use podway_tunnel::MAX_DATA;
use podway_tunnel::credit::{Receiver, Sender};
use podway_tunnel::frames::{
    CREDIT_BROKEN, Failed, Failure, Fin, FlowFrame, Open, Opened, Recall, Reset, Yielded, flow_frame,
};
use podway_tunnel::queue::Queue;
use podway_tunnel::review::Reviews;
use podway_tunnel::wire::{Reader, WireError, Writer};
use podway_tunnel::words::Words;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWrite as _;
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep, timeout};

use crate::server::Shared;

/// The far end is probed after this long without a byte, so that a flow to a host that vanished ends some day.
const KEEPALIVE: Duration = Duration::from_secs(120);

/// How long the far end may take nothing of what is left for it, once nobody can be told any more.
const ORPHAN_STALL: Duration = Duration::from_secs(60);

/// Dials and serves one flow until it is over.
pub async fn serve(open: Open, to: SocketAddr, mut reader: Reader, mut writer: Writer, shared: Arc<Shared>) {
    let asked = Duration::from_millis(open.dial_timeout_ms.into());
    let limit = if asked.is_zero() { shared.limits.dial } else { asked.min(shared.limits.dial) };
    let dialled = tokio::select! {
        dialled = timeout(limit, TcpStream::connect(to)) => dialled,
        // Nothing but an end can come before the answer: the workstation gave up.
        _ = reader.next::<FlowFrame>() => return,
    };
    let socket = match dialled {
        Ok(Ok(socket)) => socket,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => return reset_at_once(&mut writer, &error),
        Ok(Err(error)) => return refuse(&mut writer, failure(&error), &shared),
        Err(_) => return refuse(&mut writer, Failure::TimedOut, &shared),
    };
    drop(socket.set_nodelay(true));
    drop(SockRef::from(&socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE)));
    let Some(receiver) = Receiver::new(Buffers(Arc::clone(&shared)), shared.now()) else {
        return refuse(&mut writer, Failure::Limit, &shared);
    };
    let local_address = socket.local_addr().map(|address| address.to_string()).unwrap_or_default();
    let opened = Opened { local_address, limit: receiver.first_limit() };
    if writer.send_flow(flow_frame::Frame::Opened(opened)).is_err() {
        return;
    }
    let mut flow = Flow {
        socket,
        reader,
        writer,
        receiver,
        reviews: Reviews::default(),
        words: Words::default(),
        sender: Sender::new(open.limit),
        queue: Queue::default(),
        shared,
        from_client: Half::Open,
        to_client: Half::Open,
        orphaned: None,
    };
    std::future::poll_fn(|cx| flow.poll(cx)).await;
}

/// Says that the far end accepted, and reset before the dial had heard of it. An RST that answers a SYN is told apart from
/// this one: as a refusal (connect(2)).
fn reset_at_once(writer: &mut Writer, error: &io::Error) {
    let reset = Reset { reason: error.to_string() };
    for frame in [flow_frame::Frame::Opened(Opened::default()), flow_frame::Frame::Reset(reset)] {
        drop(writer.send_flow(frame));
    }
    writer.finish_ok();
}

/// Says why there is no flow.
pub fn refuse(writer: &mut Writer, failure: Failure, shared: &Shared) {
    shared.count_refused();
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
    reader: Reader,
    writer: Writer,
    receiver: Receiver<Buffers>,
    reviews: Reviews,
    words: Words,
    sender: Sender,
    /// From the workstation, not written yet; the credit we granted bounds it.
    queue: Queue,
    shared: Arc<Shared>,
    from_client: Half,
    to_client: Half,
    /// Set when the stream broke after both ends: when the far end's patience is over.
    orphaned: Option<Pin<Box<Sleep>>>,
}

/// The flow ended before both directions were finished.
enum Broken {
    /// The workstation went away or reset it: the far end sees a reset.
    ByClient,
    /// The workstation broke the protocol: both see a reset.
    Nonsense,
    /// The far end reset it: the workstation sees a reset.
    ByFarEnd(io::Error),
}

impl Flow {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.advance(cx) {
            Ok(()) if self.from_client == Half::Finished && self.to_client == Half::Finished => {
                self.writer.finish_ok();
                Poll::Ready(())
            }
            Ok(()) => Poll::Pending,
            Err(broken @ (Broken::ByClient | Broken::Nonsense)) => {
                if matches!(broken, Broken::Nonsense) {
                    let reset = Reset { reason: CREDIT_BROKEN.to_owned() };
                    drop(self.writer.send_flow(flow_frame::Frame::Reset(reset)));
                }
                // Linger 0: the socket's end is a reset (socket(7)).
                drop(SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)));
                self.writer.finish_ok();
                Poll::Ready(())
            }
            Err(Broken::ByFarEnd(error)) => {
                drop(self.writer.send_flow(flow_frame::Frame::Reset(Reset { reason: error.to_string() })));
                self.writer.finish_ok();
                Poll::Ready(())
            }
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Result<(), Broken> {
        // Frames first: they bring credit and the end.
        self.take_frames(cx)?;
        self.write_out(cx)?;
        // That the stream ended is read off it as well.
        while let Poll::Ready(Ok(())) = self.words.poll(cx, &mut self.writer)
            && let Some(limit) = self.reviews.poll(cx, &mut self.receiver)
        {
            self.words.recall(limit);
        }
        if let Some(deadline) = &mut self.orphaned
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Err(Broken::ByClient);
        }
        self.read_in(cx)
    }

    fn take_frames(&mut self, cx: &mut Context<'_>) -> Result<(), Broken> {
        while self.orphaned.is_none() {
            let frame = match self.reader.poll_next::<FlowFrame>(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Some(Ok(frame))) => frame.frame,
                // After its Fin the workstation may leave its side of the stream closed.
                Poll::Ready(None) if self.from_client != Half::Open => return Ok(()),
                // The stream broke after both ends: nobody took back what came, so it still goes out.
                Poll::Ready(Some(Err(WireError::Ended(_))))
                    if self.from_client != Half::Open && self.to_client == Half::Finished =>
                {
                    self.orphaned = Some(Box::pin(sleep(ORPHAN_STALL)));
                    return Ok(());
                }
                Poll::Ready(Some(Err(_)) | None) => return Err(Broken::ByClient),
            };
            match frame {
                Some(flow_frame::Frame::Data(data)) => {
                    let length = data.bytes.len() as u64;
                    if self.from_client != Half::Open || self.receiver.arrived(data.offset, length).is_err() {
                        return Err(Broken::Nonsense);
                    }
                    self.queue.push(data.bytes);
                }
                Some(flow_frame::Frame::Ack(ack)) => self.sender.granted(ack.limit),
                Some(flow_frame::Frame::Recall(Recall { limit })) => {
                    let limit = self.sender.recalled(limit);
                    self.words.yielded(limit);
                }
                Some(flow_frame::Frame::Yielded(Yielded { limit })) => {
                    let grant = self.receiver.yielded(limit);
                    grant.into_iter().for_each(|grant| self.words.grant(grant));
                }
                Some(flow_frame::Frame::Fin(_)) if self.from_client == Half::Open => {
                    self.from_client = Half::Ending;
                    self.receiver.finished();
                }
                Some(flow_frame::Frame::Reset(_)) => return Err(Broken::ByClient),
                _ => {}
            }
        }
        Ok(())
    }

    fn write_out(&mut self, cx: &mut Context<'_>) -> Result<(), Broken> {
        while !self.queue.is_empty() {
            match Pin::new(&mut self.socket).poll_write(cx, self.queue.front()) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(written)) => {
                    if let Some(deadline) = &mut self.orphaned {
                        deadline.set(sleep(ORPHAN_STALL));
                    }
                    self.queue.advance(written);
                    let now = self.shared.now();
                    let grant = self.receiver.taken(written as u64, now, self.shared.round_trip());
                    grant.into_iter().for_each(|grant| self.words.grant(grant));
                }
                Poll::Ready(Err(error)) => return Err(Broken::ByFarEnd(error)),
            }
        }
        if self.from_client == Half::Ending {
            match Pin::new(&mut self.socket).poll_shutdown(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.from_client = Half::Finished,
                // The far end is gone already; reading tells how.
                Poll::Ready(Err(_)) => self.from_client = Half::Finished,
            }
        }
        Ok(())
    }

    fn read_in(&mut self, cx: &mut Context<'_>) -> Result<(), Broken> {
        while self.to_client == Half::Open {
            let credit = usize::try_from(self.sender.available()).unwrap_or(usize::MAX);
            if credit == 0 {
                return Ok(());
            }
            match self.socket.poll_read_ready(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Err(Broken::ByFarEnd(error)),
            }
            let room = match self.writer.poll_room(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(room)) => room,
                Poll::Ready(Err(_)) => return Err(Broken::ByClient),
            };
            // A buffer only when there is something to read: idle flows hold none.
            let mut buffer = BytesMut::with_capacity(room.min(credit).min(MAX_DATA));
            let mut limited = bytes::BufMut::limit(&mut buffer, room.min(credit).min(MAX_DATA));
            match self.socket.try_read_buf(&mut limited) {
                Ok(0) => {
                    self.to_client = Half::Finished;
                    drop(self.writer.send_flow(flow_frame::Frame::Fin(Fin {})));
                }
                Ok(_) => {
                    let offset = self.sender.offset();
                    self.sender.sent(buffer.len() as u64);
                    let data = compact(buffer);
                    self.writer.send_data(offset, data).map_err(|_| Broken::ByClient)?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(Broken::ByFarEnd(error)),
            }
        }
        Ok(())
    }
}

/// Bytes that do not hold a large buffer for a small chunk.
fn compact(buffer: BytesMut) -> Bytes {
    if buffer.len() * 4 < buffer.capacity() { Bytes::copy_from_slice(&buffer) } else { buffer.freeze() }
}
