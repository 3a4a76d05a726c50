//! How much of one direction of a flow may be under way. Pure.
//!
//! The receiver grants a limit, the highest offset that may be sent. All flows of a session share one budget, and
//! **nothing is granted that the budget could not hold**: what was granted and not taken off yet, wherever it is (with
//! the sender, on the carrier, in a queue), is never more than its total. So no flow can make it overflow, and none has
//! to end because others stand still.
//!
//! - A smallest window is kept for each flow that may come.
//! - The rest is a pool. A new flow gets a small part of what is left of it, a window doubles while its sender uses it up
//!   within one round trip (as a kernel sizes its receive buffer), and never takes more than half of what is left.
//! - When half of the pool is out, flows that do not use what they were granted give it back: see [`Receiver::review`].

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{WORKSTATION_BUFFERS, acks};

/// A flow's first window where flows are few: a round trip of 1 ms at 2 Gbit/s.
pub const FIRST_WINDOW: u64 = 256 * 1024;
/// The window that every flow has at least; it grows as any other.
pub const SMALLEST_WINDOW: u64 = 512;
/// A flow's largest window: 80 ms at 3 Gbit/s.
pub const LARGEST_WINDOW: u64 = 32 << 20;
/// Below this a round trip is mostly the scheduling of the tasks and relays on the way, which takes longer under load
/// than a ping does when all is quiet. An eighth of it costs a third of the throughput through an API server and a
/// kubelet; more only lengthens queues. Microseconds.
const SHORTEST_ROUND_TRIP: u64 = 4000;
/// The same on a carrier for bulk alone, whose queue keeps nobody waiting: relays that find more at once wake up less
/// often, which is most of what they cost. Microseconds.
const BULK_ROUND_TRIP: u64 = 20_000;
/// And up to this window a longer one, so that flows that come to it later are not held small by one that was there.
const BULK_WINDOW: u64 = 1 << 20;
const SMALL_BULK_ROUND_TRIP: u64 = 100_000;
/// Over less than this a rate says how tasks were scheduled: after a pause, what waited comes at once. Microseconds.
const SHORTEST_EPOCH: u64 = 20_000;
/// The part of what is left that a new flow gets, the first of the workstation's or the agent's just [`FIRST_WINDOW`]: a hundred
/// flows that come together leave a third of it.
const NEWCOMERS_PART: u64 = 96;
/// The part of what is left that a flow keeps which has no use for it. Smaller, so that thousands of idle flows leave
/// most of the pool to those that move.
const IDLE_PART: u64 = 512;

/// What the flows of a session share.
#[derive(Debug)]
pub struct Budget {
    /// Smallest windows that nobody has yet.
    places: AtomicU64,
    pool_size: u64,
    /// Bytes beyond the smallest windows that may still be granted.
    pool: AtomicU64,
    /// Bytes that arrived and were not taken off.
    held: AtomicU64,
    /// Flows whose peer broke their credit.
    broken: AtomicU64,
    /// Bytes that were sent and are kept until the peer has them: it granted them within a budget of its own. See
    /// [`crate::resume`].
    kept: AtomicU64,
    /// The most of them, however much peers grant.
    keeps: u64,
}

impl Budget {
    /// A budget of `total` bytes, at most half of them kept for the smallest windows of as many flows as may come.
    pub fn new(total: u64, flows: u32) -> Budget {
        let places = u64::from(flows).min(total / 2 / SMALLEST_WINDOW);
        let pool_size = total - places * SMALLEST_WINDOW;
        let [held, broken, kept] = [0; 3].map(AtomicU64::new);
        let (places, pool) = (AtomicU64::new(places), AtomicU64::new(pool_size));
        Budget { places, pool_size, pool, held, broken, kept, keeps: WORKSTATION_BUFFERS }
    }

    /// The same, which keeps at most so many bytes of what was sent.
    pub fn that_keeps(self, bytes: u64) -> Budget {
        Budget { keeps: bytes, ..self }
    }

    /// Bytes kept of what was sent, over all flows.
    pub fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// Room for so many bytes of what was sent.
    pub(crate) fn keep(&self, bytes: u64) -> bool {
        let keep = |kept: u64| kept.checked_add(bytes).filter(|kept| *kept <= self.keeps);
        self.kept.fetch_update(Ordering::AcqRel, Ordering::Acquire, keep).is_ok()
    }

    pub(crate) fn let_go(&self, bytes: u64) {
        self.kept.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Bytes that arrived and were not taken off, over all flows.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Flows that ended because their peer broke their credit.
    pub fn broken(&self) -> u64 {
        self.broken.load(Ordering::Relaxed)
    }

    /// A place for a flow, with its first window.
    fn enter(&self) -> Option<u64> {
        let place = |places: u64| places.checked_sub(1);
        self.places.fetch_update(Ordering::AcqRel, Ordering::Acquire, place).ok()?;
        let window = self.part(NEWCOMERS_PART);
        let found = window > SMALLEST_WINDOW && self.take(window - SMALLEST_WINDOW);
        Some(if found { window } else { SMALLEST_WINDOW })
    }

    fn leave(&self, beyond: u64) {
        self.give(beyond);
        self.places.fetch_add(1, Ordering::AcqRel);
    }

    /// A window of so small a part of what is left.
    fn part(&self, part: u64) -> u64 {
        (self.pool.load(Ordering::Relaxed) / part).clamp(SMALLEST_WINDOW, FIRST_WINDOW)
    }

    /// Takes from the pool, but never more than half of what is left: those who come later find some too.
    fn take(&self, bytes: u64) -> bool {
        let take = |left: u64| (bytes <= left / 2).then(|| left - bytes);
        self.pool.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
    }

    fn give(&self, bytes: u64) {
        self.pool.fetch_add(bytes, Ordering::AcqRel);
    }

    fn scarce(&self) -> bool {
        self.pool.load(Ordering::Relaxed) < self.pool_size / 2
    }
}

/// What was asked back of the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recall {
    /// Nothing, or it has answered.
    None,
    Asked,
    /// More was granted since: the answer will say nothing about that.
    Overtaken,
}

/// The peer sent beyond its limit, or left a gap: the end of the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer broke the flow's credit")]
pub struct CreditBroken;

/// A word to the sender: `received` bytes are here, and it may send up to `limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Bytes that arrived so far.
    pub received: u64,
    /// The highest offset that may be sent.
    pub limit: u64,
}

/// The receiver's side of one direction.
#[derive(Debug)]
pub struct Receiver<B: Deref<Target = Budget>> {
    budget: B,
    /// How far beyond `taken` the next grant goes; 0 once nothing more comes.
    window: u64,
    /// Bytes of the pool that this flow has: it covers all that was granted and not taken off, and the window.
    beyond: u64,
    /// Bytes that arrived.
    arrived: u64,
    /// Bytes that the consumer took off.
    taken: u64,
    /// The limit last granted.
    granted: u64,
    /// Start of the measurement under way: time in microseconds, and `taken` then.
    epoch: (u64, u64),
    /// `taken` at the last review.
    reviewed: u64,
    /// It is on a carrier for bulk.
    bulk: bool,
    recall: Recall,
}

impl<B: Deref<Target = Budget>> Receiver<B> {
    /// A direction on which nothing has come yet; `None` when there are as many flows as the budget has places for.
    /// `now` in microseconds.
    pub fn new(budget: B, now: u64) -> Option<Self> {
        let window = budget.enter()?;
        Some(Receiver {
            budget,
            window,
            beyond: window - SMALLEST_WINDOW,
            arrived: 0,
            taken: 0,
            granted: window,
            epoch: (now, 0),
            reviewed: 0,
            bulk: false,
            recall: Recall::None,
        })
    }

    /// Whether it is on a carrier for bulk now.
    pub fn is_on_bulk(&mut self, bulk: bool) {
        self.bulk = bulk;
    }

    /// The limit to name when the flow is opened.
    pub fn first_limit(&self) -> u64 {
        self.granted
    }

    /// Bytes that arrived.
    pub fn received(&self) -> u64 {
        self.arrived
    }

    /// The flow goes on over another carrier, and what was said on the last one may be lost. Gives what the sender has to
    /// know.
    pub fn resumed(&mut self) -> Grant {
        self.recall = Recall::None;
        Grant { received: self.arrived, limit: self.granted }
    }

    /// Takes a chunk's place in the order.
    pub fn arrived(&mut self, offset: u64, length: u64) -> Result<(), CreditBroken> {
        let end = offset.checked_add(length).filter(|end| offset == self.arrived && *end <= self.granted);
        let Some(end) = end else {
            self.budget.broken.fetch_add(1, Ordering::Relaxed);
            return Err(CreditBroken);
        };
        self.budget.held.fetch_add(length, Ordering::Relaxed);
        self.arrived = end;
        Ok(())
    }

    /// Nothing more comes.
    pub fn finished(&mut self) {
        self.window = 0;
        self.granted = self.arrived;
        self.settle();
    }

    /// The consumer took `length` bytes off. `now` and the shortest `round_trip` in microseconds. Gives the word to the
    /// sender that is due.
    pub fn taken(&mut self, length: u64, now: u64, round_trip: u64) -> Option<Grant> {
        let length = length.min(self.arrived - self.taken);
        self.taken += length;
        self.budget.held.fetch_sub(length, Ordering::Relaxed);
        // In the round trip after a window has doubled, what comes was sent within half of it, less what was not granted yet;
        // where many are looked at together that does not matter.
        let eighths = if round_trip >= SHORTEST_EPOCH { 3 } else { 4 };
        let round_trip = round_trip.max(match self.bulk {
            true if self.window < BULK_WINDOW => SMALL_BULK_ROUND_TRIP,
            true => BULK_ROUND_TRIP,
            false => SHORTEST_ROUND_TRIP,
        });
        let (began, at_begin) = self.epoch;
        // A small window is too small however tasks were scheduled.
        let epoch = if self.window < FIRST_WINDOW { round_trip } else { round_trip.max(SHORTEST_EPOCH) };
        if now.saturating_sub(began) >= epoch {
            // A window that is the limit is used up once in a round trip. Where a queue is the limit, the same takes
            // longer than the shortest round trip did, and more window would only lengthen the queue.
            let used = u128::from(self.taken - at_begin) * u128::from(round_trip) * 8;
            if used >= u128::from(self.window) * u128::from(now.saturating_sub(began)) * eighths {
                self.grow();
            }
            self.epoch = (now, self.taken);
        }
        let grant = self.due();
        self.settle();
        grant
    }

    fn grow(&mut self) {
        let window = self.window * 2;
        let beyond = window.max(self.granted - self.taken).saturating_sub(SMALLEST_WINDOW);
        let more = beyond.saturating_sub(self.beyond);
        if window <= LARGEST_WINDOW && (more == 0 || self.budget.take(more)) {
            self.window = window;
            self.beyond += more;
        }
    }

    /// A quarter of the window at a time: few words, and the sender never runs dry for them. But no more than what a word is
    /// owed for anyway: what is granted in large parts comes in large parts, and each takes its time on the way.
    fn due(&mut self) -> Option<Grant> {
        let limit = self.taken + self.window;
        if self.window == 0 || limit < self.granted + (self.window / 4).min(acks::AT_MOST) {
            return None;
        }
        self.granted = limit;
        if self.recall == Recall::Asked {
            self.recall = Recall::Overtaken;
        }
        Some(Grant { received: self.arrived, limit })
    }

    /// Gives back to the pool what neither the window nor what is granted needs.
    fn settle(&mut self) {
        let beyond = self.window.max(self.granted - self.taken).saturating_sub(SMALLEST_WINDOW);
        if beyond < self.beyond {
            self.budget.give(self.beyond - beyond);
            self.beyond = beyond;
        }
    }

    /// Whether a review could find anything.
    pub fn is_reviewable(&self) -> bool {
        self.beyond > 0 && self.window > 0
    }

    /// To be called every few round trips. Where budget is scarce, a flow that used little of its window since the last
    /// time gets a smaller one; gives the limit that the sender shall be asked to go back to, when that is worth a word.
    pub fn review(&mut self) -> Option<u64> {
        let used = self.taken - self.reviewed;
        self.reviewed = self.taken;
        if self.window == 0 || !self.budget.scarce() {
            return None;
        }
        // More than it used in all that time is more than a round trip needs.
        let enough = used.next_power_of_two().max(self.budget.part(IDLE_PART));
        if enough <= self.window / 2 {
            self.window = enough;
            self.settle();
        }
        let limit = self.arrived.max(self.taken + self.window);
        let worth = self.granted.saturating_sub(limit) >= self.window;
        (worth && self.recall == Recall::None).then(|| {
            self.recall = Recall::Asked;
            limit
        })
    }

    /// The sender answered that it will not go beyond `limit` without a new grant. Gives the word that is due to it.
    pub fn yielded(&mut self, limit: u64) -> Option<Grant> {
        let asked = std::mem::replace(&mut self.recall, Recall::None);
        if asked != Recall::Asked || !(self.arrived..=self.granted).contains(&limit) {
            return None;
        }
        self.granted = limit;
        // It may have used up what it kept, and what it sent may be taken off already.
        let grant = self.due();
        self.settle();
        grant
    }
}

impl<B: Deref<Target = Budget>> Drop for Receiver<B> {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.arrived - self.taken, Ordering::Relaxed);
        self.budget.leave(self.beyond);
    }
}

/// The sender's side of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sender {
    sent: u64,
    limit: u64,
}

impl Sender {
    /// A direction with the limit that the peer named first.
    pub fn new(limit: u64) -> Sender {
        Sender { sent: 0, limit }
    }

    /// Bytes that may be sent now.
    pub fn available(&self) -> u64 {
        self.limit.saturating_sub(self.sent)
    }

    /// Offset of the next byte.
    pub fn offset(&self) -> u64 {
        self.sent
    }

    /// `length` bytes were sent, at most [`Sender::available`].
    pub fn sent(&mut self, length: u64) {
        self.sent += length;
    }

    /// The peer granted a limit; a lower one than before is ignored.
    pub fn granted(&mut self, limit: u64) {
        self.limit = self.limit.max(limit);
    }

    /// The peer asked for what it granted beyond `limit`. Gives the limit that now holds, to be told.
    pub fn recalled(&mut self, limit: u64) -> u64 {
        self.limit = self.limit.min(limit).max(self.sent);
        self.limit
    }
}

#[cfg(test)]
mod tests;
