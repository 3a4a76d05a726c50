//! What keeps a carrier honest: pings, silence, and its end.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use super::gather::Gather;
use super::{Line, Shared, hello, micros};
use crate::frames::{HelloFrame, Ping, Pong, hello_frame};
use crate::round_trip::RoundTrip;
use crate::wire::{Reader, Writer};
use crate::{HEARTBEAT, SILENCE};

/// How long the agent may take to end a carrier that we leave.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);
/// Pings whose answer is still waited for.
const MAX_PINGS: usize = 8;

/// Ends a task with its owner, and whoever waits for that hears of it.
pub(super) struct AbortOnDrop {
    pub(super) task: tokio::task::AbortHandle,
    pub(super) _going: watch::Sender<()>,
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Notes the first reason for an end.
pub(super) fn end(ended: &watch::Sender<Option<Arc<str>>>, why: String) {
    ended.send_if_modified(|slot| {
        let first = slot.is_none();
        if first {
            *slot = Some(why.into());
        }
        first
    });
}

/// Pings, answers pings, and ends the carrier when it is silent, told to close, or no one holds it any more.
pub(super) async fn heartbeat(
    mut reader: Reader,
    mut writer: Writer,
    mut round_trip: RoundTrip,
    shared: Arc<Shared>,
    ended: Arc<watch::Sender<Option<Arc<str>>>>,
    connection: AbortOnDrop,
    line: Option<Line>,
) {
    let broke = || "the connection broke".to_owned();
    let mut pings: VecDeque<(u64, u64)> = VecDeque::new();
    let (mut next_id, mut next_ping) = (1, shared.now());
    // One of each waits for room at most: an agent that takes nothing off would else fill our memory.
    let (mut ping, mut pong) = (None, None);
    let mut leaves = false;
    let why = loop {
        let silent_at = shared.last_byte.load(Ordering::Acquire) + micros(SILENCE);
        let wake = shared.began + Duration::from_micros(silent_at.min(next_ping));
        tokio::select! {
            biased;
            () = shared.close.notified() => {
                leaves = line.as_ref().is_none_or(Line::is_over);
                break "closed".to_owned();
            }
            () = ended.closed() => break "nobody uses it".to_owned(),
            room = poll_fn(|cx| writer.poll_room_for_word(cx)), if ping.is_some() || pong.is_some() => {
                let answer = pong.take().map(|id| hello_frame::Frame::Pong(Pong { id }));
                let question = ping.take().map(|id| hello_frame::Frame::Ping(Ping { id }));
                if room.is_err() || answer.into_iter().chain(question).any(|word| writer.send(&hello(word)).is_err()) {
                    break broke();
                }
            }
            frame = reader.next::<HelloFrame>() => match frame {
                Some(Ok(HelloFrame { frame: Some(hello_frame::Frame::Pong(Pong { id })) })) => {
                    while let Some((sent_id, at)) = pings.pop_front() {
                        if sent_id == id {
                            let now = shared.now();
                            let measured = round_trip.measured(now - at, now);
                            // Behind bulk it says how long that waits; what the handshake took says more.
                            if !shared.bulk {
                                shared.round_trip.store(measured, Ordering::Relaxed);
                            }
                            break;
                        }
                    }
                }
                Some(Ok(HelloFrame { frame: Some(hello_frame::Frame::Ping(Ping { id })) })) => pong = Some(id),
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
                    ping = Some(next_id);
                    next_id += 1;
                    next_ping = now + micros(HEARTBEAT);
                }
            }
        }
    };
    end(&ended, why);
    if leaves {
        // The end of this stream says that no flow shall be kept, and is said after the last words of flows.
        writer.finish();
        let ends = async { while let Some(Ok(_)) = reader.next::<HelloFrame>().await {} };
        drop(tokio::time::timeout(LEAVE_WITHIN, ends).await);
    }
    drop(connection);
}

/// Notes when bytes come, so that silence can be told from quiet, and lets bulk gather.
pub(super) struct Noted<S> {
    pub(super) io: S,
    pub(super) gather: Gather,
    pub(super) shared: Arc<Shared>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Noted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        ready!(self.gather.poll_due(cx));
        let before = buf.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        let came = buf.filled().len() - before;
        if came > 0 {
            self.shared.last_byte.store(self.shared.now(), Ordering::Release);
            self.gather.took(came);
        }
        if result.is_pending() {
            self.gather.drained(cx);
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
