//! When the peer is told what is here, where no word about credit does.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

/// How long what came may stay untold: what the peer keeps for us. Long beside the time between two packets, so that most
/// words tell of many.
const WITHIN: Duration = Duration::from_millis(100);

/// How much may stay untold, in bytes: in full swing a grant would tell only each quarter of a window, and what is kept that
/// long has left the processor's caches.
pub(crate) const AT_MOST: u64 = 128 * 1024;

/// What was told of one direction. The timer runs only while something is untold.
#[derive(Debug, Default)]
pub struct Acks {
    told: u64,
    timer: Option<Pin<Box<Sleep>>>,
    runs: bool,
}

impl Acks {
    /// The peer is told that `received` is here.
    pub fn told(&mut self, received: u64) {
        self.told = received;
    }

    /// Whether the peer does not know that `received` is here.
    pub fn owes(&self, received: u64) -> bool {
        received != self.told
    }

    /// To be called with each poll of the flow's task. Whether the peer has to be told now; it counts as told then.
    pub fn poll(&mut self, cx: &mut Context<'_>, received: u64) -> bool {
        if received == self.told {
            self.runs = false;
            return false;
        }
        if received.saturating_sub(self.told) >= AT_MOST {
            self.told(received);
            return true;
        }
        let timer = match &mut self.timer {
            Some(timer) => timer,
            None => {
                self.runs = true;
                self.timer.insert(Box::pin(sleep(WITHIN)))
            }
        };
        if !self.runs {
            timer.as_mut().set(sleep(WITHIN));
            self.runs = true;
        }
        let Poll::Ready(()) = timer.as_mut().poll(cx) else { return false };
        self.runs = false;
        self.told = received;
        true
    }
}
