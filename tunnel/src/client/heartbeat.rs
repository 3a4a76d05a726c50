//! What keeps a carrier honest: pings, silence, and its end.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use super::{CLOSE, Shared, hello, micros};
use crate::frames::{HelloFrame, Ping, Pong, hello_frame};
use crate::wire::{Reader, Writer};
use crate::{HEARTBEAT, SILENCE};

/// Ends a task with its owner.
pub(super) struct AbortOnDrop(pub(super) tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
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
    shared: Arc<Shared>,
    ended: Arc<watch::Sender<Option<Arc<str>>>>,
    connection: AbortOnDrop,
) {
    /// How often silence and a wish to close are looked for.
    const LOOK: Duration = Duration::from_millis(250);
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut last_bytes, mut last_change, mut last_ping) = (0, shared.now(), 0);
    let mut pings: VecDeque<(u64, u64)> = VecDeque::new();
    let mut next_id = 0;
    let why = loop {
        tokio::select! {
            frame = reader.next::<HelloFrame>() => match frame {
                Some(Ok(HelloFrame { frame: Some(hello_frame::Frame::Pong(Pong { id })) })) => {
                    while let Some((sent_id, at)) = pings.pop_front() {
                        if sent_id == id {
                            shared.measured(shared.now() - at);
                            break;
                        }
                    }
                }
                Some(Ok(HelloFrame { frame: Some(hello_frame::Frame::Ping(Ping { id })) })) => {
                    if writer.send(&hello(hello_frame::Frame::Pong(Pong { id }))).is_err() {
                        break "the connection broke".to_owned();
                    }
                }
                // Draining: the pod's deletion is seen in the cluster as well, and decides.
                Some(Ok(_)) => {}
                Some(Err(error)) => break format!("the connection broke: {error}"),
                None => break "the agent closed the connection".to_owned(),
            },
            _ = look.tick() => {
                let now = shared.now();
                let bytes = shared.bytes_read.load(Ordering::Acquire);
                if bytes == CLOSE {
                    break "closed".to_owned();
                }
                if ended.is_closed() {
                    break "nobody uses it".to_owned();
                }
                if bytes != last_bytes {
                    (last_bytes, last_change) = (bytes, now);
                }
                if now - last_change >= micros(SILENCE) {
                    break format!("no byte came for {} s", SILENCE.as_secs_f32());
                }
                if now - last_ping >= micros(HEARTBEAT) || last_ping == 0 {
                    last_ping = now;
                    next_id += 1;
                    pings.push_back((next_id, now));
                    pings.truncate(8);
                    if writer.send(&hello(hello_frame::Frame::Ping(Ping { id: next_id }))).is_err() {
                        break "the connection broke".to_owned();
                    }
                }
            }
        }
    };
    end(&ended, why);
    drop(connection);
}

/// Counts what is read, so that silence can be told from quiet.
pub(super) struct Counted<S> {
    pub(super) io: S,
    pub(super) shared: Arc<Shared>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        let read = (buf.filled().len() - before) as u64;
        if read > 0 && self.shared.bytes_read.load(Ordering::Relaxed) != CLOSE {
            self.shared.bytes_read.fetch_add(read, Ordering::Release);
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
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
