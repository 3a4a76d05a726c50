//! Top-level names that are never claimed, whatever a namespace is called.
//!
//! A namespace `dev` must not take every name under `dev` away from the internet. Country codes are all the two-letter
//! names (ISO 3166, RFC 1591); of the others `tlds.txt` has the ones in wide use, and below them the special ones of
//! RFC 6761, 6762, 7686, 8375 and 9476.

use std::collections::HashSet;
use std::sync::LazyLock;

static LISTED: LazyLock<HashSet<&str>> = LazyLock::new(|| include_str!("tlds.txt").split_whitespace().collect());

/// Whether `label` is a top-level name that belongs to somebody else. Lower case is expected.
pub fn is_public(label: &str) -> bool {
    let country = label.len() == 2 && label.bytes().all(|b| b.is_ascii_lowercase());
    country || label.starts_with("xn--") || LISTED.contains(label)
}

#[cfg(test)]
mod tests {
    use super::is_public;

    #[test]
    fn namespaces_that_are_public_names_are_recognised() {
        assert!(["dev", "com", "io", "prod", "local", "xn--p1ai"].iter().all(|name| is_public(name)));
        assert!(!["demo", "kube-system", "default", "staging", "podway", "svc"].iter().any(|name| is_public(name)));
    }
}
