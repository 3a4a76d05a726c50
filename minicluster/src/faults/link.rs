//! One connection below TLS, which faults can cut, hold, delay and narrow.
//!
//! As long as nothing is wrong with it, it costs one atomic load per call.
#![expect(clippy::disallowed_methods, reason = "a shell: it stamps bytes with the time they may pass")]

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep};

use super::rule::{Way, Who};

/// Bytes under way in one direction of a long connection without a limit of its speed.
const UNDER_WAY: usize = 32 << 20;
/// Least bytes under way in a narrow one: more than a TLS record.
const LEAST_UNDER_WAY: usize = 64 << 10;
/// What is read from the socket at once.
const CHUNK: usize = 64 << 10;

/// What is wrong with a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    #[default]
    Normal,
    /// Nothing passes that way.
    BlackHole(Way),
    /// It is long or thin.
    Shaped {
        /// Added to the way of each byte.
        delay: Duration,
        /// Most bytes a second.
        bytes_per_second: Option<u64>,
    },
    /// It is over. That is final.
    Cut {
        /// By RST.
        reset: bool,
    },
}

/// What both the rules and the connection's socket know of a connection.
#[derive(Debug)]
pub struct Link {
    id: u64,
    /// Whether the mode is another than [`Mode::Normal`].
    faulty: AtomicBool,
    state: Mutex<(Mode, Option<Who>)>,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Link {
    pub(super) fn new(id: u64) -> Link {
        Link {
            id,
            faulty: AtomicBool::new(false),
            state: Mutex::new((Mode::Normal, None)),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, (Mode, Option<Who>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mode(&self) -> Mode {
        if self.faulty.load(Ordering::Acquire) { self.state().0 } else { Mode::Normal }
    }

    /// Changes what is wrong; says whether it did.
    pub(super) fn set(&self, mode: Mode) -> bool {
        let mut state = self.state();
        if state.0 == mode || matches!(state.0, Mode::Cut { .. }) {
            return false;
        }
        state.0 = mode;
        self.faulty.store(mode != Mode::Normal, Ordering::Release);
        drop(state);
        self.reader.wake();
        self.writer.wake();
        true
    }

    /// Its number.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// The connection's latest request.
    pub(super) fn asks(&self, who: Who) {
        self.state().1 = Some(who);
    }

    /// Who asked for what on it, latest.
    pub fn who(&self) -> Option<Who> {
        self.state().1.clone()
    }
}

/// The socket of a connection.
#[derive(Debug)]
pub struct LinkStream {
    socket: Arc<TcpStream>,
    link: Arc<Link>,
    inbound: Inbound,
    outbound: Option<Outbound>,
    shut: bool,
}

impl LinkStream {
    /// Around a socket.
    pub fn new(socket: TcpStream, link: Arc<Link>) -> LinkStream {
        LinkStream { socket: Arc::new(socket), link, inbound: Inbound::default(), outbound: None, shut: false }
    }

    /// Ends the connection at once: whoever serves it may hold it for longer.
    fn cut(&self, reset: bool) -> io::Error {
        // If it fails, the connection ends when it is held no more.
        if reset {
            drop(self.socket.set_zero_linger());
            // That is what sends RST (tcp(7), connect(2)).
            rustix::net::connect_unspec(&*self.socket).ok();
        } else {
            drop(socket2::SockRef::from(&*self.socket).shutdown(std::net::Shutdown::Both));
        }
        io::Error::new(io::ErrorKind::ConnectionReset, "the connection was cut on purpose")
    }

    fn poll_read_now(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.socket.poll_read_ready(cx))?;
            match self.socket.try_read(buf.initialize_unfilled()) {
                Ok(count) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_write_now(&self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_write_ready(cx))?;
            match self.socket.try_write_vectored(bufs) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_write_any(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.link.writer.register(cx.waker());
        match self.link.mode() {
            Mode::Cut { reset } => Poll::Ready(Err(self.cut(reset))),
            Mode::BlackHole(Way::Both | Way::ToClient) => Poll::Pending,
            Mode::Normal | Mode::BlackHole(Way::ToServer) => {
                if let Some(outbound) = &self.outbound {
                    if !outbound.is_empty()? {
                        return Poll::Pending;
                    }
                    self.outbound = None;
                }
                self.poll_write_now(cx, bufs)
            }
            Mode::Shaped { delay, bytes_per_second } => {
                let outbound = self.outbound.get_or_insert_with(|| Outbound::start(&self.socket, &self.link));
                outbound.push(bufs, delay, bytes_per_second)
            }
        }
    }
}

impl AsyncRead for LinkStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.link.reader.register(cx.waker());
        match this.link.mode() {
            Mode::Cut { reset } => Poll::Ready(Err(this.cut(reset))),
            Mode::BlackHole(Way::Both | Way::ToServer) => Poll::Pending,
            Mode::Normal | Mode::BlackHole(Way::ToClient) if this.inbound.is_empty() => this.poll_read_now(cx, buf),
            Mode::Normal | Mode::BlackHole(Way::ToClient) => {
                this.inbound.take(buf);
                Poll::Ready(Ok(()))
            }
            Mode::Shaped { delay, bytes_per_second } => {
                while this.inbound.has_room(delay, bytes_per_second) {
                    let mut chunk = vec![0; CHUNK];
                    let mut space = ReadBuf::new(&mut chunk);
                    match this.poll_read_now(cx, &mut space) {
                        Poll::Ready(Ok(())) => {
                            let count = space.filled().len();
                            chunk.truncate(count);
                            this.inbound.push(chunk, delay, bytes_per_second);
                        }
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => break,
                    }
                }
                ready!(this.inbound.poll_due(cx));
                this.inbound.take(buf);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for LinkStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_any(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_any(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was written is on its way.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.link.writer.register(cx.waker());
        match this.link.mode() {
            Mode::Cut { reset } => return Poll::Ready(Err(this.cut(reset))),
            Mode::BlackHole(Way::Both | Way::ToClient) => return Poll::Pending,
            Mode::Normal | Mode::BlackHole(Way::ToServer) | Mode::Shaped { .. } => {}
        }
        if let Some(outbound) = &this.outbound
            && !outbound.is_empty()?
        {
            return Poll::Pending;
        }
        if !this.shut {
            this.shut = true;
            socket2::SockRef::from(&*this.socket).shutdown(std::net::Shutdown::Write)?;
        }
        Poll::Ready(Ok(()))
    }
}

/// Bytes that came and may not be read yet. An empty chunk is the end.
#[derive(Debug, Default)]
struct Inbound {
    chunks: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    ended: bool,
    free_at: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Inbound {
    fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    fn has_room(&self, delay: Duration, bytes_per_second: Option<u64>) -> bool {
        !self.ended && self.bytes < under_way(delay, bytes_per_second)
    }

    fn push(&mut self, chunk: Vec<u8>, delay: Duration, bytes_per_second: Option<u64>) {
        self.ended |= chunk.is_empty();
        self.bytes += chunk.len();
        let due = due(&mut self.free_at, chunk.len(), delay, bytes_per_second);
        self.chunks.push_back((due, chunk));
    }

    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some((due, _)) = self.chunks.front() else { return Poll::Pending };
        if *due <= Instant::now() {
            return Poll::Ready(());
        }
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(*due)));
        sleep.as_mut().reset(*due);
        sleep.as_mut().poll(cx)
    }

    fn take(&mut self, buf: &mut ReadBuf<'_>) {
        let Some((_, chunk)) = self.chunks.front_mut() else { return };
        if chunk.is_empty() {
            // The end stays the end.
            return;
        }
        let count = chunk.len().min(buf.remaining());
        buf.put_slice(&chunk[..count]);
        chunk.drain(..count);
        self.bytes -= count;
        if chunk.is_empty() {
            self.chunks.pop_front();
        }
    }
}

/// Bytes that were written and have not left yet, and the task that sends them.
#[derive(Debug)]
struct Outbound {
    queue: Arc<Queue>,
    task: AbortHandle,
}

impl Drop for Outbound {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<QueueState>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct QueueState {
    chunks: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    free_at: Option<Instant>,
    failed: Option<io::ErrorKind>,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outbound {
    fn start(socket: &Arc<TcpStream>, link: &Arc<Link>) -> Outbound {
        let queue = Arc::new(Queue::default());
        let task = tokio::spawn(send(Arc::clone(socket), Arc::clone(link), Arc::clone(&queue))).abort_handle();
        Outbound { queue, task }
    }

    /// Whether all has left.
    fn is_empty(&self) -> io::Result<bool> {
        let state = self.queue.state();
        state.failed.map_or(Ok(state.bytes == 0), |kind| Err(kind.into()))
    }

    fn push(&self, bufs: &[IoSlice<'_>], delay: Duration, bytes_per_second: Option<u64>) -> Poll<io::Result<usize>> {
        let mut state = self.queue.state();
        if let Some(kind) = state.failed {
            return Poll::Ready(Err(kind.into()));
        }
        if state.bytes >= under_way(delay, bytes_per_second) {
            return Poll::Pending;
        }
        let chunk = bufs.iter().flat_map(|buf| buf.iter().copied()).collect::<Vec<u8>>();
        let count = chunk.len();
        state.bytes += count;
        let due = due(&mut state.free_at, count, delay, bytes_per_second);
        state.chunks.push_back((due, chunk));
        self.queue.filled.notify_one();
        Poll::Ready(Ok(count))
    }
}

async fn send(socket: Arc<TcpStream>, link: Arc<Link>, queue: Arc<Queue>) {
    loop {
        let next = queue.state().chunks.pop_front();
        let Some((due, chunk)) = next else {
            queue.filled.notified().await;
            continue;
        };
        tokio::time::sleep_until(due).await;
        let sent = send_all(&socket, &chunk).await;
        let mut state = queue.state();
        state.bytes -= chunk.len();
        if let Err(error) = sent {
            state.failed = Some(error.kind());
        }
        let failed = state.failed.is_some();
        drop(state);
        link.writer.wake();
        if failed {
            return;
        }
    }
}

async fn send_all(socket: &TcpStream, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        socket.writable().await?;
        match socket.try_write(rest) {
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// When bytes arrive that are handed over now.
fn due(free_at: &mut Option<Instant>, count: usize, delay: Duration, bytes_per_second: Option<u64>) -> Instant {
    let now = Instant::now();
    let Some(speed) = bytes_per_second else { return now + delay };
    let begins = free_at.map_or(now, |free| free.max(now));
    let ends = begins + Duration::from_secs_f64(count as f64 / speed as f64);
    *free_at = Some(ends);
    ends + delay
}

fn under_way(delay: Duration, bytes_per_second: Option<u64>) -> usize {
    let Some(speed) = bytes_per_second else { return UNDER_WAY };
    let bytes = speed as f64 * (delay.as_secs_f64() + 0.05);
    LEAST_UNDER_WAY.max(bytes as usize)
}
