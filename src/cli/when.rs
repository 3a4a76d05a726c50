//! Times for people.

/// A number of seconds as its two largest units: `2d 3h`, `5m 4s`, `0s`.
pub fn span(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        (_, _, _) => format!("{days}d {hours}h"),
    }
}

/// Seconds since 1970 as `2026-11-23 02:01:00 UTC`. The host's zone is not asked: logs and the cluster write UTC.
pub fn moment(seconds: i64) -> String {
    crate::timestamp::rfc3339(seconds).replace('T', " ").replace('Z', " UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_keep_two_units() {
        for (seconds, text) in [(-5, "0s"), (59, "59s"), (61, "1m 1s"), (7_500, "2h 5m"), (90_000, "1d 1h")] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn moments_know_leap_years() {
        assert_eq!(moment(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(moment(951_782_399), "2000-02-28 23:59:59 UTC");
        assert_eq!(moment(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(moment(1_795_399_260), "2026-11-23 02:01:00 UTC");
        assert_eq!(moment(-1), "1969-12-31 23:59:59 UTC");
    }
}
