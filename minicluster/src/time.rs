//! Moments: milliseconds since 1970 inside, RFC 3339 in UTC where objects carry them.

use std::time::Duration;

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
        let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
        let mut date = date.splitn(3, '-').map(|part| part.parse::<u64>().ok());
        let (year, month, day) = (date.next()??, date.next()??, date.next()??);
        let mut clock = clock.splitn(3, ':');
        let (hour, minute, second) = (clock.next()?, clock.next()?, clock.next()?);
        let (second, fraction) = second.split_once('.').unwrap_or((second, ""));
        let millis: u64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
        let (hour, minute, second): (u64, u64, u64) = (hour.parse().ok()?, minute.parse().ok()?, second.parse().ok()?);
        let fits = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
        let fits = fits && hour < 24 && minute < 60 && second <= 60;
        fits.then(|| Time(((days(year, month, day) * 24 + hour) * 60 + minute) * 60_000 + second * 1000 + millis))
    }

    /// As `2026-11-23T02:01:00.250Z`.
    pub fn rfc3339_with_millis(self) -> String {
        self.rfc3339().replace('Z', &format!(".{:03}Z", self.0 % 1000))
    }

    /// As `2026-11-23T02:01:00Z`.
    pub fn rfc3339(self) -> String {
        let seconds = self.0 / 1000;
        let (year, month, day) = date(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// Days from 1970 to a date. Years begin in March here, so that the leap day is a year's last.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = if month > 2 { year } else { year - 1 };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    365 * year + year / 4 - year / 100 + year / 400 + day_of_year - DAYS_BEFORE_1970
}

/// From March of year 0.
const DAYS_BEFORE_1970: u64 = 719_468;

/// The date so many days after 1970.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_BEFORE_1970;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
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
