//! Whether a flow moves so much that it should not share a carrier with others, and which way. Pure.

use super::Direction;

/// So many bytes within [`WITHIN`] are bulk: 33 Mbit/s.
const BULK: u64 = 4 << 20;
/// Microseconds.
const WITHIN: u64 = 1_000_000;

/// What a flow moved of late.
#[derive(Debug, Default)]
pub(super) struct Tide {
    /// Both ways together.
    bytes: u64,
    /// Those of them that were sent.
    up: u64,
    /// When the count began.
    since: Option<u64>,
}

impl Tide {
    /// `length` more bytes were moved. Says, once for each [`BULK`] bytes, which way most of them went, if they took no longer
    /// than bulk does. `now` gives microseconds; it is asked as seldom.
    pub(super) fn moved(&mut self, length: u64, direction: Direction, now: impl FnOnce() -> u64) -> Option<Direction> {
        self.bytes += length;
        self.up += if direction == Direction::Up { length } else { 0 };
        if self.bytes < BULK && self.since.is_some() {
            return None;
        }
        let most = if self.up > self.bytes / 2 { Direction::Up } else { Direction::Down };
        (self.bytes, self.up) = (0, 0);
        let now = now();
        let since = self.since.replace(now)?;
        (now.saturating_sub(since) <= WITHIN).then_some(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use Direction::{Down, Up};

    #[test]
    fn bulk_is_much_in_little_time() {
        let mut tide = Tide::default();
        assert_eq!(tide.moved(BULK, Down, || 0), None, "the first bytes may have waited for long");
        assert_eq!(tide.moved(BULK - 1, Down, || unreachable!()), None);
        assert_eq!(tide.moved(1, Down, || WITHIN), Some(Down));
        assert_eq!(tide.moved(1, Down, || unreachable!()), None, "told once");
        assert_eq!(tide.moved(BULK, Down, || 2 * WITHIN + 1), None, "too slow");
        assert_eq!(tide.moved(BULK, Down, || 3 * WITHIN + 1), Some(Down), "and quick again");
    }

    #[test]
    fn it_goes_the_way_of_most_of_its_bytes() {
        let mut tide = Tide::default();
        tide.moved(1, Up, || 0);
        for (up, down, most) in
            [(BULK, 0, Up), (BULK / 2 + 1, BULK / 2, Up), (BULK / 2, BULK / 2, Down), (1, BULK, Down)]
        {
            assert_eq!(tide.moved(up.min(BULK - 1), Up, || unreachable!()), None);
            assert_eq!(
                tide.moved(down + up / BULK, if down > 0 { Down } else { Up }, || 0),
                Some(most),
                "{up} and {down}"
            );
        }
    }
}
