//! Pauses between tries. Pure: cores ask it too.

use std::time::Duration;

/// `first` after the first failure, doubled after each more, `longest` at most. `before` are the failures before this one.
pub fn doubling(first: Duration, before: u32, longest: Duration) -> Duration {
    first.saturating_mul(1 << before.min(20)).min(longest)
}

/// A pause spread by a quarter either way, so that many do not try in step. `jitter` is a random byte.
pub fn spread(pause: Duration, jitter: u8) -> Duration {
    pause * 3 / 4 + pause * u32::from(jitter) / 510
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pause = |before| doubling(Duration::from_millis(250), before, Duration::from_secs(3)).as_millis();
        assert_eq!([0, 1, 2, 3, 4, 100, u32::MAX].map(pause), [250, 500, 1000, 2000, 3000, 3000, 3000]);
    }

    #[test]
    fn jitter_is_a_quarter_either_way() {
        let pause = Duration::from_secs(4);
        assert_eq!((spread(pause, 0), spread(pause, 255)), (Duration::from_secs(3), Duration::from_secs(5)));
    }
}
