//! Reads that wait until more is there, as a network card gathers packets before it interrupts (ethtool(8), coalesce).
//!
//! Whoever takes bytes faster than they come is woken for each piece, which costs more than the piece. On a carrier for bulk
//! nobody waits for a single one.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How long it waits, once it has taken all there was. The shortest that timers do.
const PAUSE: Duration = Duration::from_millis(1);
/// With fewer bytes than this since the last pause there is nothing to gather.
const WORTH: usize = 64 * 1024;

/// A stream whose reads gather where much comes. Writes pass through.
pub(super) struct Gathering<S> {
    io: S,
    pause: Pin<Box<Sleep>>,
    pausing: bool,
    /// Bytes since the last pause.
    taken: usize,
    gathers: bool,
}

impl<S> Gathering<S> {
    pub(super) fn new(io: S, gathers: bool) -> Gathering<S> {
        Gathering { io, pause: Box::pin(sleep(Duration::ZERO)), pausing: false, taken: 0, gathers }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathering<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.pausing {
            ready!(self.pause.as_mut().poll(cx));
            self.pausing = false;
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        self.taken += buf.filled().len() - before;
        if read.is_pending() && self.gathers && self.taken >= WORTH {
            self.taken = 0;
            self.pause.as_mut().reset(Instant::now() + PAUSE);
            // The stream may wake this task meanwhile, once; what it has to say is heard after the pause.
            self.pausing = self.pause.as_mut().poll(cx).is_pending();
            if !self.pausing {
                cx.waker().wake_by_ref();
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathering<S> {
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
