//! Frames that nobody waits for go out with the next that somebody does.
//!
//! A flow of one exchange begins with the agent's headers, which say nothing yet, and ends with nine bytes each way that end
//! its HTTP/2 stream. Each message by itself wakes the API server, the kubelet and the container runtime, which costs more
//! than all else of such a flow. So these are written and not flushed until something follows, or [`PATIENCE`] is over.
#![expect(clippy::disallowed_methods, reason = "how long a frame waits is measured with the clock")]

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How long a frame waits for company. A stream that is over counts as one of its connection's until then.
pub const PATIENCE: Duration = Duration::from_millis(10);

/// Bytes of a frame's header (RFC 9113, section 4.1).
const HEADER: usize = 9;
/// Bytes of what a client says first (RFC 9113, section 3.4).
const PREFACE: usize = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;

/// Follows the frames of one direction, and notes what waits since the last flush. Pure.
#[derive(Debug)]
struct Frames {
    header: [u8; HEADER],
    /// Bytes of the header that are here.
    have: usize,
    /// Bytes of the preface or a payload that are still to come.
    ahead: usize,
    /// Something has passed.
    waits: bool,
    /// Something has passed that somebody waits for.
    hurries: bool,
    /// The frame under way is such.
    this_hurries: bool,
}

impl Frames {
    /// Before the first frame stand so many other bytes.
    fn new(ahead: usize) -> Frames {
        Frames { header: [0; HEADER], have: 0, ahead, waits: false, hurries: ahead > 0, this_hurries: ahead > 0 }
    }

    fn passed(&mut self, mut bytes: &[u8]) {
        self.waits |= !bytes.is_empty();
        while !bytes.is_empty() {
            if self.ahead > 0 {
                let skipped = self.ahead.min(bytes.len());
                self.ahead -= skipped;
                bytes = &bytes[skipped..];
                // What came before may be out already.
                self.hurries |= self.this_hurries;
                continue;
            }
            let (taken, after) = bytes.split_at(bytes.len().min(HEADER - self.have));
            self.header[self.have..][..taken.len()].copy_from_slice(taken);
            self.have += taken.len();
            bytes = after;
            if self.have == HEADER {
                self.begins();
            }
        }
    }

    /// A frame's header is whole.
    fn begins(&mut self) {
        let [a, b, c, kind, flags, ..] = self.header;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        // Headers are answered by nobody: what asks, answers or fails follows them as data.
        let can_wait = kind == HEADERS || (kind == DATA && length == 0 && flags & END_STREAM != 0);
        self.this_hurries = !can_wait;
        self.hurries |= self.this_hurries;
        self.have = 0;
        self.ahead = length;
    }

    fn flushed(&mut self) {
        self.waits = false;
        self.hurries = false;
    }
}

/// A connection's stream of HTTP/2 frames. What is below has to gather what is written until it is flushed. To be read and
/// written by one task: reading also flushes what has waited long enough.
#[derive(Debug)]
pub struct Unhurried<S> {
    io: S,
    frames: Frames,
    timer: Pin<Box<Sleep>>,
    /// The timer runs, or has run out.
    is_timed: bool,
}

impl<S> Unhurried<S> {
    /// Of the connection's client, from the first byte on.
    pub fn client(io: S) -> Unhurried<S> {
        Unhurried::after(io, PREFACE)
    }

    /// Of the connection's server, from the first byte on.
    pub fn server(io: S) -> Unhurried<S> {
        Unhurried::after(io, 0)
    }

    fn after(io: S, ahead: usize) -> Unhurried<S> {
        Unhurried { io, frames: Frames::new(ahead), timer: Box::pin(sleep(Duration::ZERO)), is_timed: false }
    }
}

impl<S: AsyncWrite + Unpin> Unhurried<S> {
    /// Ready once all is out that was written before.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What could not go out at once is not put off again.
        self.frames.hurries = true;
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.frames.flushed();
        self.is_timed = false;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Unhurried<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_timed && self.timer.as_mut().poll(cx).is_ready() {
            // That it failed is told by the next flush: what has come is read before.
            drop(self.poll_out(cx));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unhurried<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.frames.passed(buf.get(..written).unwrap_or(buf));
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs))?;
        let mut rest = written;
        for buf in bufs {
            let passed = rest.min(buf.len());
            self.frames.passed(&buf[..passed]);
            rest -= passed;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.frames.waits && !self.frames.hurries {
            if !self.is_timed {
                self.timer.as_mut().reset(Instant::now() + PATIENCE);
                self.is_timed = true;
            }
            // The reader is woken by it.
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Ready(Ok(()));
            }
        }
        self.poll_out(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufWriter, DuplexStream, duplex};

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        frame.extend_from_slice(payload);
        frame
    }

    fn hurries(ahead: usize, pieces: &[&[u8]]) -> bool {
        let mut frames = Frames::new(ahead);
        frames.flushed();
        frames.this_hurries = false;
        pieces.iter().for_each(|piece| frames.passed(piece));
        frames.hurries
    }

    #[test]
    fn headers_and_the_ends_of_streams_can_wait() {
        for (hurried, frame) in [
            (false, frame(HEADERS, 4, b"content-type")),
            (false, frame(HEADERS, 4 | END_STREAM, b"grpc-status")),
            (false, frame(DATA, END_STREAM, b"")),
            (true, frame(DATA, 0, b"")),
            (true, frame(DATA, END_STREAM, b"last")),
            (true, frame(DATA, 0, b"data")),
            (true, frame(3, 0, &[0; 4])),
            (true, frame(4, 0, b"")),
            (true, frame(6, 0, &[0; 8])),
            (true, frame(7, 0, &[0; 8])),
            (true, frame(8, 0, &[0; 4])),
        ] {
            assert_eq!(hurries(0, &[&frame]), hurried, "{frame:?}");
            let bytes: Vec<&[u8]> = frame.chunks(1).collect();
            assert_eq!(hurries(0, &bytes), hurried, "{frame:?} byte by byte");
        }
    }

    #[test]
    fn one_that_hurries_is_found_behind_others() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        // A payload that looks like frames.
        bytes.extend(frame(HEADERS, 4, &frame(DATA, 0, b"no")));
        bytes.extend(frame(DATA, END_STREAM, b""));
        assert!(!hurries(PREFACE, &[&bytes]));
        bytes.extend(frame(DATA, 0, b"yes"));
        for size in 1..bytes.len() {
            let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
            assert!(hurries(PREFACE, &pieces), "in pieces of {size}");
        }
    }

    #[test]
    fn the_rest_of_a_frame_hurries_as_its_beginning_did() {
        let mut frames = Frames::new(0);
        let data = frame(DATA, 0, &[7; 100]);
        frames.passed(&data[..50]);
        frames.flushed();
        frames.passed(&data[50..]);
        assert!(frames.hurries);
        frames.flushed();
        frames.passed(&frame(HEADERS, 4, b"content-type"));
        assert!(!frames.hurries);
    }

    #[test]
    fn the_preface_hurries() {
        assert!(Frames::new(PREFACE).hurries);
    }

    fn ends() -> (Unhurried<BufWriter<DuplexStream>>, DuplexStream) {
        let (near, far) = duplex(1 << 16);
        (Unhurried::server(BufWriter::new(near)), far)
    }

    /// What is there to be read now.
    async fn there(far: &mut DuplexStream) -> usize {
        let mut buffer = [0; 1024];
        tokio::select! {
            biased;
            count = far.read(&mut buffer) => count.expect("read"),
            () = tokio::task::yield_now() => 0,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_goes_with_what_follows() {
        let (mut near, mut far) = ends();
        near.write_all(&frame(DATA, END_STREAM, b"")).await.expect("written");
        near.flush().await.expect("put off");
        assert_eq!(there(&mut far).await, 0);
        near.write_all(&frame(DATA, 0, b"data")).await.expect("written");
        near.flush().await.expect("flushed");
        assert_eq!(there(&mut far).await, 9 + 13);
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_goes_alone_when_its_time_is_over() {
        let (mut near, mut far) = ends();
        near.write_all(&frame(DATA, END_STREAM, b"")).await.expect("written");
        near.flush().await.expect("put off");
        let began = Instant::now();
        let mut buffer = [0; 64];
        // As a connection's task does: it reads, and nothing comes.
        let count = tokio::select! {
            _ = near.read_u8() => unreachable!("nothing is sent"),
            count = far.read(&mut buffer) => count.expect("read"),
        };
        assert_eq!((count, began.elapsed()), (9, PATIENCE));
    }

    #[tokio::test(start_paused = true)]
    async fn each_has_its_own_time() {
        let (mut near, mut far) = ends();
        for _ in 0..3 {
            near.write_all(&frame(DATA, END_STREAM, b"")).await.expect("written");
            near.flush().await.expect("put off");
            assert_eq!(there(&mut far).await, 0);
            tokio::time::advance(PATIENCE / 2).await;
            near.write_all(&frame(DATA, 0, b"x")).await.expect("written");
            near.flush().await.expect("flushed");
            assert_eq!(there(&mut far).await, 9 + 10);
        }
    }

    #[tokio::test]
    async fn what_waits_goes_out_before_the_end() {
        let (mut near, mut far) = ends();
        near.write_all(&frame(DATA, END_STREAM, b"")).await.expect("written");
        near.flush().await.expect("put off");
        near.shutdown().await.expect("shut down");
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.expect("read");
        assert_eq!(all.len(), 9);
    }
}
