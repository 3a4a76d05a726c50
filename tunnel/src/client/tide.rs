//! Whether a flow moves so much that it should not share a carrier with others. Pure.

/// So many bytes within [`WITHIN`] are bulk: 33 Mbit/s.
const BULK: u64 = 4 << 20;
/// Microseconds.
const WITHIN: u64 = 1_000_000;

/// What a flow moved of late, both ways together.
#[derive(Debug, Default)]
pub(super) struct Tide {
    bytes: u64,
    /// When the count began.
    since: Option<u64>,
}

impl Tide {
    /// `length` more bytes were moved. Says, once for each [`BULK`] bytes, whether they took no longer than bulk does. `now`
    /// gives microseconds; it is asked as seldom.
    pub(super) fn moved(&mut self, length: u64, now: impl FnOnce() -> u64) -> bool {
        self.bytes += length;
        if self.bytes < BULK && self.since.is_some() {
            return false;
        }
        self.bytes = 0;
        let now = now();
        self.since.replace(now).is_some_and(|since| now.saturating_sub(since) <= WITHIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bulk_is_much_in_little_time() {
        let mut tide = Tide::default();
        assert!(!tide.moved(BULK, || 0), "the first bytes may have waited for long");
        assert!(!tide.moved(BULK - 1, || unreachable!()));
        assert!(tide.moved(1, || WITHIN));
        assert!(!tide.moved(1, || unreachable!()), "told once");
        assert!(!tide.moved(BULK, || 2 * WITHIN + 1), "too slow");
        assert!(tide.moved(BULK, || 3 * WITHIN + 1), "and quick again");
    }
}
