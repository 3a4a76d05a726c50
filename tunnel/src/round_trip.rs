//! The shortest round trip of late. Pure.
//!
//! The shortest and not the mean: under bulk a ping waits behind the very queue that a flow's credit makes, so credit
//! sized by a mean would feed itself (BBR, draft-cardwell-iccrg-bbr-congestion-control, uses the minimum likewise).

/// Samples are forgotten after one to two of these, so that a way that became longer is noticed. Microseconds.
const PERIOD: u64 = 300_000_000;

/// The minimum over the last one to two periods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundTrip {
    before: u64,
    current: u64,
    began: u64,
}

impl RoundTrip {
    /// With its first sample. Times in microseconds.
    pub fn new(sample: u64, now: u64) -> RoundTrip {
        let sample = sample.max(1);
        RoundTrip { before: sample, current: sample, began: now }
    }

    /// One more sample. Gives the minimum. Times in microseconds.
    pub fn measured(&mut self, sample: u64, now: u64) -> u64 {
        let sample = sample.max(1);
        if now.saturating_sub(self.began) >= PERIOD {
            *self = RoundTrip { before: self.current, current: sample, began: now };
        }
        self.current = self.current.min(sample);
        self.current.min(self.before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_does_not_lengthen_the_round_trip_but_a_longer_way_does() {
        let mut round_trip = RoundTrip::new(200, 0);
        assert_eq!(round_trip.measured(9_000, 2_500_000), 200);
        assert_eq!(round_trip.measured(150, 5_000_000), 150);
        assert_eq!(round_trip.measured(80_000, PERIOD), 150);
        assert_eq!(round_trip.measured(80_000, 2 * PERIOD), 80_000);
        assert_eq!(round_trip.measured(0, 2 * PERIOD), 1);
    }
}
