//! Names that are made: hashes of templates, suffixes. All of them are functions of what they are made from.

use std::hash::Hasher;

use serde_json::Value;

/// No vowels and nothing that looks like another: what the real cluster draws its suffixes from.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Five characters for a name, such as of a pod; the same for the same seed.
pub fn suffix(seed: &[&str]) -> String {
    let mut number = hash(seed);
    let mut draw = || {
        let letter = usize::try_from(number % 27).unwrap_or(0);
        number /= 27;
        char::from(ALPHABET[letter])
    };
    (0..5).map(|_| draw()).collect()
}

/// The hash of a pod template, as names and labels carry it.
pub fn template_hash(template: &Value, collisions: i64) -> String {
    let digits = (hash(&[&template.to_string(), &collisions.to_string()]) & 0xffff_ffff).to_string();
    digits.bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

/// 64 bits of some texts.
pub fn hash(texts: &[&str]) -> u64 {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    for text in texts {
        hasher.write(text.as_bytes());
        hasher.write_u8(0xff);
    }
    // FNV's low bits depend on few of the input's: mix.
    let number = hasher.finish();
    (number ^ (number >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ (number >> 32)
}

/// FNV-1a: short, and the same on every run, which the standard hasher does not promise.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn suffixes_differ_with_their_seed_and_only_then() {
        let all: BTreeSet<String> = (0..1000).map(|n| suffix(&["web", &n.to_string()])).collect();
        assert!(all.len() > 998, "{}", all.len());
        assert_eq!(suffix(&["web", "1"]), suffix(&["web", "1"]));
        assert_ne!(suffix(&["we", "b"]), suffix(&["w", "eb"]));
        assert!(all.iter().all(|suffix| suffix.len() == 5));
    }
}
