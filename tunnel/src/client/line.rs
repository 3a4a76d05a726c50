//! How flows that lost their carrier find the next one to the same agent.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::stream::{Going, Moved};
use super::{Direction, Inner};
use crate::frames::Failure;

/// The pause before the same carrier is asked again, at first and at last: it refused for a reason that may pass, or is
/// about to end.
const AGAIN: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(2)];

/// The carriers of a session to one agent, one after the other, and beside them some for bulk where flows want them. A clone is
/// another handle to the same ones.
#[derive(Clone, Debug, Default)]
pub struct Line(Arc<Carriers>);

#[derive(Debug, Default)]
struct Carriers {
    newest: watch::Sender<Newest>,
    down: Bulk,
    up: Bulk,
}

/// The carrier for bulk in one direction.
#[derive(Debug, Default)]
struct Bulk {
    carrier: Mutex<Weak<Inner>>,
    wanted: Notify,
}

#[derive(Clone, Debug, Default)]
enum Newest {
    /// There was none yet.
    #[default]
    None,
    Carrier(Weak<Inner>),
    /// None will come any more.
    Over,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").finish_non_exhaustive()
    }
}

impl Line {
    /// The agent is gone, or nobody wants it any more: flows that wait for a carrier end, and others when theirs does.
    pub fn end(&self) {
        self.0.newest.send_replace(Newest::Over);
    }

    /// Whether [`Line::end`] was called.
    pub fn is_over(&self) -> bool {
        matches!(*self.0.newest.borrow(), Newest::Over)
    }

    /// Whether a carrier or a flow has it. Where none has, nobody waits for a carrier.
    pub fn is_used(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    pub(super) fn leads_to(&self, carrier: &Arc<Inner>) {
        self.0.newest.send_if_modified(|newest| {
            let goes_on = !matches!(newest, Newest::Over);
            if goes_on {
                *newest = Newest::Carrier(Arc::downgrade(carrier));
            }
            goes_on
        });
    }

    fn of(&self, direction: Direction) -> &Bulk {
        match direction {
            Direction::Down => &self.0.down,
            Direction::Up => &self.0.up,
        }
    }

    /// Resolves when a flow moves so much in that direction that it wants a carrier for bulk, and there is none. Cancel safe.
    pub async fn bulk_wanted(&self, direction: Direction) {
        self.of(direction).wanted.notified().await;
    }

    pub(super) fn bulk_is(&self, direction: Direction, carrier: &Arc<Inner>) {
        *self.of(direction).carrier.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(carrier);
    }

    /// The carrier for bulk in that direction, if it stands; if not, asks for one.
    pub(super) fn bulk(&self, direction: Direction) -> Option<Arc<Inner>> {
        let bulk = self.of(direction);
        let carrier = bulk.carrier.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        let standing = carrier.filter(|carrier| carrier.is_alive());
        if standing.is_none() {
            bulk.wanted.notify_one();
        }
        standing
    }

    /// Resolves once none will come. Cancel safe.
    async fn over(&self) {
        // This handle keeps the sender.
        drop(self.0.newest.subscribe().wait_for(|newest| matches!(newest, Newest::Over)).await);
    }
}

/// The newest carrier as soon as it stands; `None` once none will come. Cancel safe.
async fn standing(newest: &mut watch::Receiver<Newest>) -> Option<Arc<Inner>> {
    loop {
        // One look decides: it may end at any time.
        let found = match &*newest.borrow_and_update() {
            Newest::Over => return None,
            Newest::None => None,
            Newest::Carrier(carrier) => carrier.upgrade().filter(|carrier| carrier.is_alive()),
        };
        if found.is_some() {
            return found;
        }
        newest.changed().await.ok()?;
    }
}

/// What it takes to go on with one flow over another carrier.
#[derive(Clone, Debug)]
pub(super) struct WayBack {
    pub(super) line: Line,
    pub(super) flow_id: [u8; 16],
    /// Of the agent. Whoever listens in its place now cannot know it.
    pub(super) run: Bytes,
    /// How long there may be none.
    pub(super) within: Duration,
}

impl WayBack {
    /// Waits for a carrier and takes the flow over, of which this side has `received`. Gives what the agent has; `None` when
    /// the flow is over. `idle` tells how often it was taken over since it last brought anything. Cancel safe.
    pub(super) async fn resume(self, received: u64, idle: u32) -> Moved {
        match timeout(self.within, self.try_resume(received, idle)).await {
            Ok(Some((going, has))) => Moved::There(going, has),
            Ok(None) | Err(_) => Moved::Over,
        }
    }

    /// Takes the flow over on the carrier for bulk from a stream that stands. That is held until the next one has answered, as
    /// the agent takes its end for that of the flow, and given back where that failed: what became of the flow shows there.
    ///
    /// Not given up sooner than the carrier, which ends by itself when it is silent: who has begun to take a flow over cannot
    /// know that the agent has not heard of it.
    pub(super) async fn move_to(self, carrier: Arc<Inner>, before: Going, received: u64) -> Moved {
        match carrier.resume(&self.flow_id, received).await {
            Ok((reader, writer, has)) => {
                Moved::There(Going { reader, writer, shared: Arc::clone(&carrier.shared) }, has)
            }
            Err(_) => Moved::Stayed(before),
        }
    }

    async fn try_resume(&self, received: u64, idle: u32) -> Option<(Going, u64)> {
        let [first, longest] = AGAIN;
        if idle > 0 {
            sleep((first * 2_u32.saturating_pow(idle.min(8))).min(longest)).await;
        }
        let mut pause = first;
        let mut newest = self.line.0.newest.subscribe();
        loop {
            let carrier = standing(&mut newest).await?;
            if carrier.welcome.run != self.run {
                return None;
            }
            let resumed = tokio::select! {
                resumed = carrier.resume(&self.flow_id, received) => resumed,
                () = self.line.over() => return None,
            };
            match resumed {
                Ok((reader, writer, has)) => {
                    return Some((Going { reader, writer, shared: Arc::clone(&carrier.shared) }, has));
                }
                Err(Failure::UnknownFlow) => return None,
                Err(_) if carrier.is_alive() => {
                    drop(carrier);
                    tokio::select! {
                        () = sleep(pause) => pause = (pause * 2).min(longest),
                        // Another carrier, or the end of the line.
                        changed = newest.changed() => {
                            changed.ok()?;
                            pause = first;
                        }
                    }
                }
                Err(_) => pause = first,
            }
        }
    }
}
