//! Moments: milliseconds since 1970 inside, RFC 3339 in UTC where objects carry them.

use std::time::Duration;

use jiff::Timestamp;

/// A moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// Milliseconds since 1970.
    pub const fn from_millis(millis: u64) -> Time {
        Time(millis)
    }

    /// Later by that.
    pub fn after(self, wait: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long until then; nothing if it is past.
    pub fn until(self, then: Time) -> Duration {
        Duration::from_millis(then.0.saturating_sub(self.0))
    }

    /// Reads `2026-11-23T02:01:00Z`, with or without parts of a second.
    pub fn parse(text: &str) -> Option<Time> {
        // Objects carry UTC alone, though the standard knows other offsets and spellings.
        let plain = text.ends_with('Z') && text.contains('T');
        let moment = plain.then(|| text.parse::<Timestamp>().ok()).flatten()?;
        u64::try_from(moment.as_millisecond()).ok().map(Time)
    }

    /// As `2026-11-23T02:01:00.250Z`.
    pub fn rfc3339_with_millis(self) -> String {
        self.rfc3339().replace('Z', &format!(".{:03}Z", self.0 % 1000))
    }

    /// As `2026-11-23T02:01:00Z`.
    pub fn rfc3339(self) -> String {
        let seconds = i64::try_from(self.0 / 1000).unwrap_or(i64::MAX);
        Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_in_utc_and_read_back() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_399_260, "2026-11-23T02:01:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Time::from_millis(seconds * 1000).rfc3339(), text);
            assert_eq!(Time::parse(text), Some(Time::from_millis(seconds * 1000)));
        }
        for day in 0..200_000 {
            let time = Time::from_millis(day * 86_400_000);
            assert_eq!(Time::parse(&time.rfc3339()), Some(time));
        }
        assert_eq!(Time::parse("1970-01-01T00:00:01.25Z"), Some(Time::from_millis(1250)));
    }

    #[test]
    fn what_is_no_moment_is_not_read() {
        for text in ["", "Z", "2026-11-23", "2026-13-23T02:01:00Z", "0000-01-01T00:00:00Z", "1970-01-01T00:00:00.éZ"] {
            assert_eq!(Time::parse(text), None, "{text}");
        }
    }
}
