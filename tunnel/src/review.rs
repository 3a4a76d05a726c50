//! When a flow is asked whether it needs what it was granted.

use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use crate::credit::{Budget, Receiver};

/// How often. Long beside any round trip, short beside the life of a flow that idles.
const EVERY: Duration = Duration::from_secs(10);

/// The timer of one flow. Runs only while the flow has something to give back.
#[derive(Debug, Default)]
pub struct Reviews(Option<Pin<Box<Sleep>>>);

impl Reviews {
    /// To be called with each poll of the flow's task. Gives the limit that the sender shall be asked to go back to.
    pub fn poll<B: Deref<Target = Budget>>(&mut self, cx: &mut Context<'_>, receiver: &mut Receiver<B>) -> Option<u64> {
        while receiver.is_reviewable() {
            let timer = self.0.get_or_insert_with(|| Box::pin(sleep(EVERY)));
            match timer.as_mut().poll(cx) {
                Poll::Pending => return None,
                Poll::Ready(()) => self.0 = None,
            }
            if let Some(limit) = receiver.review() {
                // The next round arms the timer.
                cx.waker().wake_by_ref();
                return Some(limit);
            }
        }
        self.0 = None;
        None
    }
}
