//! Spans of time as people type them.

use std::time::Duration;

/// Reads `90`, `500ms`, `30s`, `5m`, `1h`, `1m30s`.
///
/// # Errors
///
/// A sentence that says what was expected.
pub fn read(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time such as 30s, 500ms or 1m30s");
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let (mut rest, mut total) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let millis: u64 = match &rest[..unit] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        rest = &rest[unit..];
        let part = number.checked_mul(millis).map(Duration::from_millis).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
    }
    match text.is_empty() {
        true => Err(wrong()),
        false => Ok(total),
    }
}

/// As it is typed: `500ms`, `30s`.
pub fn typed(span: Duration) -> String {
    match (span.as_secs(), span.subsec_millis()) {
        (seconds, 0) => format!("{seconds}s"),
        (_, _) => format!("{}ms", span.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_kubectl_writes_them() {
        assert_eq!(read("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(read("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(read("7"), Ok(Duration::from_secs(7)));
        for bad in ["", "s", "1x", "-1s", "1m3"] {
            assert!(read(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn what_is_typed_reads_back() {
        for text in ["30s", "500ms", "90s", "1500ms", "0s"] {
            assert_eq!(typed(read(text).expect("a time")), text);
        }
    }
}
