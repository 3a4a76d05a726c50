//! When a credential ends, read from itself. A credential that does not say is no error.

use serde::Deserialize;

use super::files::from_base64;

#[derive(Deserialize)]
struct Claims {
    exp: Option<f64>,
}

/// The `exp` claim of a JSON web token (RFC 7519), in seconds since 1970.
pub fn of_token(token: &str) -> Option<i64> {
    let mut parts = token.split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    let claims: Claims = serde_json::from_slice(&from_base64(claims)?).ok()?;
    claims.exp.map(|seconds| seconds as i64)
}

/// The `notAfter` of the first certificate of a PEM text, in seconds since 1970.
pub fn of_certificate(pem: &str) -> Option<i64> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    let der = CertificateDer::pem_slice_iter(pem.as_bytes()).next()?.ok()?;
    let (certificate, _) = element(&der)?;
    let ((_, mut rest), _) = element(certificate.1)?;
    // version, when present, is tagged [0]; then serial, signature, issuer, validity (RFC 5280, 4.1).
    let (first, after) = element(rest)?;
    if first.0 == 0xa0 {
        rest = after;
    }
    for _ in 0..3 {
        rest = element(rest)?.1;
    }
    let (validity, _) = element(rest)?;
    let (_, after) = element(validity.1)?;
    let (not_after, _) = element(after)?;
    time(not_after.0, std::str::from_utf8(not_after.1).ok()?)
}

/// Tag and contents.
type Element<'a> = (u8, &'a [u8]);

/// One DER element, and what follows.
fn element(der: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let [tag, length, rest @ ..] = der else { return None };
    let (length, rest) = if length & 0x80 == 0 {
        (usize::from(*length), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
        (bytes.iter().try_fold(0_usize, |sum, byte| sum.checked_mul(256)?.checked_add(usize::from(*byte)))?, rest)
    };
    let (contents, after) = rest.split_at_checked(length)?;
    Some(((*tag, contents), after))
}

/// `YYMMDDhhmmssZ` (tag 23) or `YYYYMMDDhhmmssZ` (tag 24).
fn time(tag: u8, text: &str) -> Option<i64> {
    let text = match tag {
        23 => format!("{}{text}", if text.get(..2)?.parse::<u8>().ok()? < 50 { "20" } else { "19" }),
        24 => text.to_owned(),
        _ => return None,
    };
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    Some(seconds((number(0, 4)?, number(4, 6)?, number(6, 8)?), (number(8, 10)?, number(10, 12)?, number(12, 14)?)))
}

/// `2026-11-23T01:02:03Z`, with any fraction and offset (RFC 3339).
pub fn of_timestamp(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let base =
        seconds((number(0, 4)?, number(5, 7)?, number(8, 10)?), (number(11, 13)?, number(14, 16)?, number(17, 19)?));
    let zone = text.get(19..)?.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let Some(sign) = zone.chars().next().filter(|sign| matches!(sign, '+' | '-')) else {
        return zone.eq_ignore_ascii_case("z").then_some(base);
    };
    let offset = zone.get(1..3)?.parse::<i64>().ok()? * 3600 + zone.get(4..6)?.parse::<i64>().ok()? * 60;
    Some(if sign == '+' { base - offset } else { base + offset })
}

/// Days of the Gregorian calendar, counted from March so that the leap day is the year's last.
fn seconds((year, month, day): (i64, i64, i64), (hour, minute, second): (i64, i64, i64)) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day
            - 719_469;
    days * 86_400 + hour * 3600 + minute * 60 + second
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::kube_client::base64;

    #[test]
    fn tokens_and_timestamps_are_read() {
        let token = format!("h.{}.s", base64(br#"{"exp":1700000000,"sub":"x"}"#).trim_end_matches('='));
        assert_eq!(of_token(&token), Some(1_700_000_000));
        assert_eq!(of_token("opaque"), None);
        for (text, wanted) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2023-11-14T22:13:20Z", Some(1_700_000_000)),
            ("2023-11-14T23:13:20.5+01:00", Some(1_700_000_000)),
            ("2024-02-29T00:00:00Z", Some(1_709_164_800)),
            ("soon", None),
        ] {
            assert_eq!(of_timestamp(text), wanted, "{text}");
        }
        assert_eq!(time(23, "231114221320Z"), Some(1_700_000_000));
        assert_eq!(time(24, "20231114221320Z"), Some(1_700_000_000));
    }

    #[test]
    fn nonsense_has_no_end() {
        assert_eq!(of_certificate("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"), None);
        assert_eq!(of_certificate(""), None);
    }
}
