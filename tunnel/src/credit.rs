//! How much of one direction of a flow may be under way. Pure.
//!
//! The receiver grants a limit, the highest offset that may be sent. Its window starts small and doubles while the
//! sender uses it up within one round trip, as a kernel sizes its receive buffer; all flows draw growth from one
//! budget, so that many flows cannot hold more than that.

use std::sync::atomic::{AtomicU64, Ordering};

/// A flow's first window: a round trip of 1 ms at 2 Gbit/s, and what an idle flow may hold at most.
pub const FIRST_WINDOW: u64 = 256 * 1024;
/// A flow's largest window: 80 ms at 3 Gbit/s.
pub const LARGEST_WINDOW: u64 = 32 << 20;

/// Bytes by which windows may grow beyond their first size, over all flows of a session.
#[derive(Debug)]
pub struct Budget(AtomicU64);

impl Budget {
    /// A budget of so many bytes.
    pub fn new(bytes: u64) -> Budget {
        Budget(AtomicU64::new(bytes))
    }

    fn take(&self, bytes: u64) -> bool {
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(bytes)).is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::AcqRel);
    }
}

/// The receiver's side of one direction.
#[derive(Debug)]
pub struct Receiver<B: std::ops::Deref<Target = Budget>> {
    budget: B,
    window: u64,
    /// Bytes that arrived.
    arrived: u64,
    /// Bytes that the consumer took off.
    taken: u64,
    /// The limit last granted.
    granted: u64,
    /// Start of the round trip being measured: time in microseconds, and `taken` then.
    epoch: (u64, u64),
}

/// The peer sent beyond its limit, or left a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer broke the flow's credit")]
pub struct CreditBroken;

impl<B: std::ops::Deref<Target = Budget>> Receiver<B> {
    /// A direction on which nothing has come yet. `now` in microseconds.
    pub fn new(budget: B, now: u64) -> Self {
        Receiver { budget, window: FIRST_WINDOW, arrived: 0, taken: 0, granted: FIRST_WINDOW, epoch: (now, 0) }
    }

    /// The limit to name when the flow is opened.
    pub fn first_limit(&self) -> u64 {
        self.granted
    }

    /// Takes a chunk's place in the order.
    pub fn arrived(&mut self, offset: u64, length: u64) -> Result<(), CreditBroken> {
        let end = offset.checked_add(length).ok_or(CreditBroken)?;
        if offset != self.arrived || end > self.granted {
            return Err(CreditBroken);
        }
        self.arrived = end;
        Ok(())
    }

    /// The consumer took `length` bytes off. `now` and `round_trip` in microseconds. Gives the ack to send, if one is due.
    pub fn taken(&mut self, length: u64, now: u64, round_trip: u64) -> Option<(u64, u64)> {
        self.taken = self.taken.saturating_add(length).min(self.arrived);
        let (began, at_begin) = self.epoch;
        if now.saturating_sub(began) >= round_trip {
            // The sender used most of the window within a round trip: the window is the limit.
            let used = self.taken - at_begin;
            let fast = now.saturating_sub(began) <= round_trip.saturating_mul(2);
            if fast && used >= self.window / 2 && self.window < LARGEST_WINDOW && self.budget.take(self.window) {
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
        self.budget.give_back(self.window - FIRST_WINDOW);
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

    #[test]
    fn a_window_grows_only_while_it_is_the_limit() {
        let budget = Budget::new(LARGEST_WINDOW);
        let mut receiver = Receiver::new(&budget, 0);
        let (mut now, mut offset) = (0, 0);
        for _ in 0..20 {
            now += 80_000;
            let chunk = receiver.window;
            receiver.arrived(offset, chunk).expect("within the limit");
            offset += chunk;
            receiver.taken(chunk, now, 80_000);
        }
        assert_eq!(receiver.window, LARGEST_WINDOW);
        let mut slow = Receiver::new(&budget, 0);
        slow.arrived(0, 1000).expect("within the limit");
        slow.taken(1000, 80_000, 80_000);
        assert_eq!(slow.window, FIRST_WINDOW);
    }

    #[test]
    fn the_budget_is_given_back() {
        let budget = Budget::new(FIRST_WINDOW);
        let mut receiver = Receiver::new(&budget, 0);
        receiver.arrived(0, FIRST_WINDOW).expect("within the limit");
        receiver.taken(FIRST_WINDOW, 10, 10);
        assert_eq!(receiver.window, 2 * FIRST_WINDOW);
        assert!(!budget.take(1));
        drop(receiver);
        assert!(budget.take(FIRST_WINDOW));
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
        }
    }
}
