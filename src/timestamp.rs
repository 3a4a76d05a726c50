//! Moments: seconds since 1970 inside, RFC 3339 in UTC where they are written.

use k8s_openapi::jiff::Timestamp;

/// Seconds since 1970 as `2026-11-23T02:01:00Z`; what no calendar holds counts as 1970.
pub fn rfc3339(seconds: i64) -> String {
    Timestamp::from_second(seconds).unwrap_or_default().to_string()
}

/// Milliseconds since 1970 as `2026-11-23T02:01:00.123Z`.
pub fn rfc3339_of_millis(millis: i64) -> String {
    format!("{:.3}", Timestamp::from_millisecond(millis).unwrap_or_default())
}

/// The way back, from any offset.
pub fn parse(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_second)
}

/// For serde: a moment as text.
pub mod text {
    use serde::{Deserialize as _, Deserializer, Serializer};

    /// Writes it.
    pub fn serialize<S: Serializer>(seconds: &i64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::rfc3339(*seconds))
    }

    /// Reads it.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
        let text = String::deserialize(from)?;
        super::parse(&text).ok_or_else(|| serde::de::Error::custom("not a time as RFC 3339 has it"))
    }
}

/// For serde: a moment in milliseconds as text.
pub mod text_of_millis {
    use serde::{Deserialize as _, Deserializer, Serializer};

    /// Writes it.
    pub fn serialize<S: Serializer>(millis: &i64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::rfc3339_of_millis(*millis))
    }

    /// Reads it.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
        let text = String::deserialize(from)?;
        let moment = text.parse::<super::Timestamp>();
        moment
            .map(|moment| moment.as_millisecond())
            .map_err(|_| serde::de::Error::custom("not a time as RFC 3339 has it"))
    }
}

/// For serde: a moment as text, or nothing.
pub mod optional_text {
    use serde::{Deserialize as _, Deserializer, Serializer};

    /// Writes it.
    pub fn serialize<S: Serializer>(seconds: &Option<i64>, to: S) -> Result<S::Ok, S::Error> {
        match seconds {
            Some(seconds) => to.serialize_str(&super::rfc3339(*seconds)),
            None => to.serialize_none(),
        }
    }

    /// Reads it.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
        match super::parse(&text) {
            Some(seconds) => Ok(Some(seconds)),
            None => Err(serde::de::Error::custom("not a time as RFC 3339 has it")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_are_always_three_digits() {
        assert_eq!(rfc3339_of_millis(1_795_399_260_120), "2026-11-23T02:01:00.120Z");
        assert_eq!(rfc3339_of_millis(1_795_399_260_000), "2026-11-23T02:01:00.000Z");
    }

    #[test]
    fn moments_are_written_in_utc_and_read_back() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_399_260, "2026-11-23T02:01:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!((rfc3339(seconds).as_str(), parse(text)), (text, Some(seconds)));
        }
        assert_eq!(parse("2026-11-23T03:01:00+01:00"), Some(1_795_399_260));
        assert_eq!(parse("soon"), None);
        assert_eq!(rfc3339(i64::MAX), "1970-01-01T00:00:00Z");
    }
}
