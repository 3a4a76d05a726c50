//! How much of one direction of a flow may be under way. Pure.
//!
//! The receiver grants a limit, the highest offset that may be sent. Its window starts small and doubles while the
//! sender uses it up within one round trip, as a kernel sizes its receive buffer. All flows of a session share one
//! budget: half of it for growth, a quarter for first windows, which shrink where flows are many, and its whole as
//! the bound on what arrived and was not taken off. Most flows never use their window, so windows are promised beyond
//! the budget; a flow that makes it overflow is reset.

use std::sync::atomic::{AtomicU64, Ordering};

/// A flow's first window where flows are few: a round trip of 1 ms at 2 Gbit/s.
pub const FIRST_WINDOW: u64 = 256 * 1024;
/// A flow's first window where flows are many; it grows as any other.
pub const SMALLEST_WINDOW: u64 = 8 * 1024;
/// A flow's largest window: 80 ms at 3 Gbit/s.
pub const LARGEST_WINDOW: u64 = 32 << 20;
/// Below this a round trip is mostly the scheduling of the tasks and relays on the way, which takes longer under load
/// than a ping does when all is quiet. An eighth of it costs a third of the throughput through an API server and a
/// kubelet; more only lengthens queues. Microseconds.
const SHORTEST_ROUND_TRIP: u64 = 4000;
/// Over less than this a rate says how tasks were scheduled: after a pause, what waited comes at once. Microseconds.
const SHORTEST_EPOCH: u64 = 20_000;

/// What the flows of a session share.
#[derive(Debug)]
pub struct Budget {
    total: u64,
    /// Bytes by which windows may still grow.
    growth: AtomicU64,
    /// Bytes that arrived and were not taken off.
    held: AtomicU64,
    flows: AtomicU64,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(total: u64) -> Budget {
        let growth = AtomicU64::new(total / 2);
        Budget { total, growth, held: AtomicU64::new(0), flows: AtomicU64::new(0) }
    }

    /// Bytes that arrived and were not taken off, over all flows.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    fn enter(&self) -> u64 {
        let flows = self.flows.fetch_add(1, Ordering::AcqRel) + 1;
        (self.total / 4 / flows).clamp(SMALLEST_WINDOW, FIRST_WINDOW)
    }

    /// Takes growth, but never more than half of what is left: those who come later find some too.
    fn grow(&self, bytes: u64) -> bool {
        let take = |left: u64| (bytes <= left / 2).then(|| left - bytes);
        self.growth.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
    }

    fn hold(&self, bytes: u64) -> bool {
        let take = |held: u64| held.checked_add(bytes).filter(|held| *held <= self.total);
        self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
    }

    fn release(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::AcqRel);
    }
}

/// The receiver's side of one direction.
#[derive(Debug)]
pub struct Receiver<B: std::ops::Deref<Target = Budget>> {
    budget: B,
    first_window: u64,
    window: u64,
    /// Bytes that arrived.
    arrived: u64,
    /// Bytes that the consumer took off.
    taken: u64,
    /// The limit last granted.
    granted: u64,
    /// Start of the measurement under way: time in microseconds, and `taken` then.
    epoch: (u64, u64),
}

/// Why a chunk is not taken; the end of its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// The peer sent beyond its limit, or left a gap.
    #[error("the peer broke the flow's credit")]
    CreditBroken,
    /// The session's flows hold all that they may.
    #[error("the session's buffers are full")]
    Full,
}

impl<B: std::ops::Deref<Target = Budget>> Receiver<B> {
    /// A direction on which nothing has come yet. `now` in microseconds.
    pub fn new(budget: B, now: u64) -> Self {
        let window = budget.enter();
        Receiver { budget, first_window: window, window, arrived: 0, taken: 0, granted: window, epoch: (now, 0) }
    }

    /// The limit to name when the flow is opened.
    pub fn first_limit(&self) -> u64 {
        self.granted
    }

    /// Takes a chunk's place in the order.
    pub fn arrived(&mut self, offset: u64, length: u64) -> Result<(), NotTaken> {
        let end = offset.checked_add(length).ok_or(NotTaken::CreditBroken)?;
        if offset != self.arrived || end > self.granted {
            return Err(NotTaken::CreditBroken);
        }
        if !self.budget.hold(length) {
            return Err(NotTaken::Full);
        }
        self.arrived = end;
        Ok(())
    }

    /// The consumer took `length` bytes off. `now` and the shortest `round_trip` in microseconds. Gives the ack to send,
    /// what was received and the new limit, if one is due.
    pub fn taken(&mut self, length: u64, now: u64, round_trip: u64) -> Option<(u64, u64)> {
        let length = length.min(self.arrived - self.taken);
        self.taken += length;
        self.budget.release(length);
        let round_trip = round_trip.max(SHORTEST_ROUND_TRIP);
        let (began, at_begin) = self.epoch;
        if now.saturating_sub(began) >= round_trip.max(SHORTEST_EPOCH) {
            // A window that is the limit is used up once in a round trip. Where a queue is the limit, the same takes
            // longer than the shortest round trip did, and more window would only lengthen the queue.
            let used = u128::from(self.taken - at_begin) * u128::from(round_trip) * 2;
            let limiting = used >= u128::from(self.window) * u128::from(now.saturating_sub(began));
            if limiting && self.window < LARGEST_WINDOW && self.budget.grow(self.window) {
                self.window *= 2;
            }
            self.epoch = (now, self.taken);
        }
        let limit = self.taken + self.window;
        // A quarter of the window at a time: few acks, and the sender never runs dry for them.
        (limit - self.granted >= self.window / 4).then(|| {
            self.granted = limit;
            (self.taken, limit)
        })
    }
}

impl<B: std::ops::Deref<Target = Budget>> Drop for Receiver<B> {
    fn drop(&mut self) {
        self.budget.growth.fetch_add(self.window - self.first_window, Ordering::AcqRel);
        self.budget.release(self.arrived - self.taken);
        self.budget.flows.fetch_sub(1, Ordering::AcqRel);
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, prop_assert_ne, proptest};

    /// Uses the whole window once in each round trip.
    fn bulk(receiver: &mut Receiver<&Budget>, round_trips: u64) {
        const ROUND_TRIP: u64 = 80_000;
        let begin = receiver.epoch.0;
        for round_trip in 1..=round_trips {
            let chunk = receiver.granted - receiver.arrived;
            receiver.arrived(receiver.arrived, chunk).expect("within the limit");
            receiver.taken(chunk, begin + round_trip * ROUND_TRIP, ROUND_TRIP);
        }
    }

    #[test]
    fn a_window_grows_only_while_it_is_the_limit() {
        let budget = Budget::new(8 * LARGEST_WINDOW);
        let mut receiver = Receiver::new(&budget, 0);
        bulk(&mut receiver, 20);
        assert_eq!(receiver.window, LARGEST_WINDOW);
        let mut slow = Receiver::new(&budget, 0);
        slow.arrived(0, 1000).expect("within the limit");
        slow.taken(1000, 80_000, 80_000);
        assert_eq!(slow.window, FIRST_WINDOW);
    }

    #[test]
    fn a_short_way_still_gets_a_window_that_covers_the_scheduling_at_its_ends() {
        /// 1 GB/s, the window's worth taken in quarters.
        const BYTES_A_MICROSECOND: u64 = 1000;
        let budget = Budget::new(48 << 20);
        let mut receiver = Receiver::new(&budget, 0);
        let mut now = 0;
        while now < 2_000_000 {
            let chunk = receiver.window / 4;
            receiver.arrived(receiver.arrived, chunk).expect("within the limit");
            now += chunk / BYTES_A_MICROSECOND;
            receiver.taken(chunk, now, 50);
        }
        // Twice what passes in four milliseconds, rounded up to a power of two, and no more.
        assert!((4 << 20..=8 << 20).contains(&receiver.window), "{}", receiver.window);
    }

    #[test]
    fn a_flow_that_grew_leaves_growth_to_others_and_gives_its_own_back() {
        let budget = Budget::new(32 << 20);
        let mut greedy = Receiver::new(&budget, 0);
        bulk(&mut greedy, 40);
        let mut second = Receiver::new(&budget, 0);
        bulk(&mut second, 40);
        assert!(greedy.window >= 4 << 20, "{}", greedy.window);
        assert!(second.window >= 2 << 20, "{}", second.window);
        drop((greedy, second));
        assert_eq!(budget.growth.load(Ordering::Relaxed), 16 << 20);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn many_flows_start_small_and_never_hold_more_than_the_budget() {
        const TOTAL: u64 = 32 << 20;
        let budget = Budget::new(TOTAL);
        let mut flows: Vec<_> = (0..16_384).map(|_| Receiver::new(&budget, 0)).collect();
        assert_eq!(flows.first().map(Receiver::first_limit), Some(FIRST_WINDOW));
        assert_eq!(flows.last().map(Receiver::first_limit), Some(SMALLEST_WINDOW));
        let mut full = 0;
        for flow in &mut flows {
            match flow.arrived(0, flow.first_limit()) {
                Ok(()) => {}
                Err(error) => {
                    assert_eq!(error, NotTaken::Full);
                    full += 1;
                }
            }
        }
        assert!(full > 0);
        assert!(budget.held() <= TOTAL);
        drop(flows);
        assert_eq!(budget.held(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Whatever the sizes and times: the sender is never stopped for good, never over its limit, and no byte is lost.
        #[test]
        fn a_transfer_ends(sizes in proptest::collection::vec(1_u64..100_000, 1..60), round_trip in 1_u64..200_000, jitter in any::<u16>()) {
            let budget = Budget::new(4 * FIRST_WINDOW);
            let mut receiver = Receiver::new(&budget, 0);
            let mut sender = Sender::new(receiver.first_limit());
            let mut now = 0;
            let total: u64 = sizes.iter().sum();
            for size in sizes {
                let mut left = size;
                while left > 0 {
                    let chunk = left.min(sender.available());
                    prop_assert_ne!(chunk, 0, "stopped for good");
                    prop_assert!(receiver.arrived(sender.offset(), chunk).is_ok());
                    sender.sent(chunk);
                    left -= chunk;
                    now += u64::from(jitter);
                    if let Some((_, limit)) = receiver.taken(chunk, now, round_trip) {
                        sender.granted(limit);
                    }
                }
            }
            prop_assert_eq!(receiver.taken, total);
            prop_assert!(receiver.arrived(sender.offset(), receiver.window * 3).is_err());
            prop_assert_eq!(budget.held(), 0);
        }
    }
}
