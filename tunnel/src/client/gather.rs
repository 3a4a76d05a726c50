//! Reads that wait until more is there, as a network card gathers packets before it interrupts (ethtool(8), coalesce).
//!
//! Whoever takes bytes faster than they come is woken for each piece, which costs more than the piece. On a carrier for bulk
//! nobody waits for a single one.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// How long it waits, once it has taken all there was. The shortest that timers do.
const PAUSE: Duration = Duration::from_millis(1);
/// With fewer bytes than this since the last pause there is nothing to gather.
const WORTH: usize = 64 * 1024;
/// With more than this they come in large pieces by themselves, faster than a pause in between allows.
const PLENTY: usize = 1 << 20;

/// Whether and until when the reads of a carrier wait.
pub(super) struct Gather {
    pause: Pin<Box<Sleep>>,
    pausing: bool,
    /// Bytes since the last pause.
    taken: usize,
    gathers: bool,
}

impl Gather {
    pub(super) fn new(gathers: bool) -> Gather {
        Gather { pause: Box::pin(sleep(Duration::ZERO)), pausing: false, taken: 0, gathers }
    }

    /// Ready when it is time to read.
    pub(super) fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.pausing && self.pause.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.pausing = false;
        Poll::Ready(())
    }

    /// So many bytes were read.
    pub(super) fn took(&mut self, bytes: usize) {
        self.taken += bytes;
    }

    /// There is nothing more to read: begins a pause where that is worth it.
    pub(super) fn drained(&mut self, cx: &mut Context<'_>) {
        let taken = self.taken;
        if self.gathers && taken >= WORTH {
            self.taken = 0;
            if taken >= PLENTY {
                return;
            }
            self.pause.as_mut().reset(Instant::now() + PAUSE);
            // The stream may wake this task meanwhile, once; what it has to say is heard after the pause.
            self.pausing = self.pause.as_mut().poll(cx).is_pending();
            if !self.pausing {
                cx.waker().wake_by_ref();
            }
        }
    }
}
