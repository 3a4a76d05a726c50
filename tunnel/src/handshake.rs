//! Who may use an agent: the holder of the private half of the key in its arguments.
//!
//! ```text
//! client ── ClientHello ─▶ agent        client checks that the challenge names the pod it dialled,
//!        ◀─ Challenge ────              so that one pod's agent cannot pass a challenge of another on
//!        ── Proof ───────▶
//!        ◀─ Welcome / Denied
//! ```

use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};

/// Binds a signature to this use.
const CONTEXT: &[u8] = b"podway.tunnel.v1 proof\0";
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What a proof signs; each part with its length, so that no two sets of parts give the same bytes.
pub fn signed_bytes(nonce: &[u8], session_id: &[u8], pod_uid: &str, allowed_special: &[String]) -> Vec<u8> {
    let mut bytes = CONTEXT.to_vec();
    let mut part = |part: &[u8]| {
        bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(part);
    };
    part(nonce);
    part(session_id);
    part(pod_uid.as_bytes());
    for prefix in allowed_special {
        part(prefix.as_bytes());
    }
    bytes
}

/// Signs a challenge.
pub fn sign(pair: &Ed25519KeyPair, nonce: &[u8], session_id: &[u8], pod_uid: &str, special: &[String]) -> Vec<u8> {
    pair.sign(&signed_bytes(nonce, session_id, pod_uid, special)).as_ref().to_vec()
}

/// Whether `signature` is that of `public_key` over these parts.
pub fn verify(
    public_key: &[u8],
    signature: &[u8],
    nonce: &[u8],
    session_id: &[u8],
    pod_uid: &str,
    special: &[String],
) -> bool {
    let bytes = signed_bytes(nonce, session_id, pod_uid, special);
    UnparsedPublicKey::new(&ED25519, public_key).verify(&bytes, signature).is_ok()
}

/// `N` random bytes of the system; `None` when it has none to give.
pub fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(bytes)
}

/// A key in base64 (RFC 4648, with padding), as the agent's arguments carry it.
pub fn encode_key(key: &[u8]) -> String {
    let mut text = String::with_capacity(key.len().div_ceil(3) * 4);
    for chunk in key.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for index in 0..4 {
            let sextet = (word >> (18 - 6 * index)) & 63;
            let letter = ALPHABET.get(usize::try_from(sextet).unwrap_or(0)).copied().unwrap_or(b'=');
            text.push(if index <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

/// An Ed25519 public key from base64; `None` unless it is exactly one.
pub fn decode_key(text: &str) -> Option<[u8; 32]> {
    let body = text.strip_suffix('=')?;
    if body.len() != 43 {
        return None;
    }
    let mut key = Vec::with_capacity(33);
    let (mut word, mut bits) = (0_u32, 0);
    for letter in body.bytes() {
        let sextet = ALPHABET.iter().position(|known| *known == letter)?;
        word = word << 6 | u32::try_from(sextet).ok()?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            key.push(u8::try_from(word >> bits & 0xff).ok()?);
        }
    }
    key.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::KeyPair as _;

    fn pair() -> Ed25519KeyPair {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("its pair")
    }

    #[test]
    fn a_proof_holds_for_exactly_what_it_signs() {
        let pair = pair();
        let key = pair.public_key().as_ref();
        let special = vec!["127.0.0.1/32".to_owned()];
        let proof = sign(&pair, b"nonce", b"session", "uid", &special);
        assert!(verify(key, &proof, b"nonce", b"session", "uid", &special));
        assert!(!verify(key, &proof, b"nonce2", b"session", "uid", &special));
        assert!(!verify(key, &proof, b"nonce", b"session", "other", &special));
        assert!(!verify(key, &proof, b"nonce", b"session", "uid", &[]));
        assert!(!verify(self::pair().public_key().as_ref(), &proof, b"nonce", b"session", "uid", &special));
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(signed_bytes(b"ab", b"c", "", &[]), signed_bytes(b"a", b"bc", "", &[]));
    }

    #[test]
    fn a_key_survives_its_text() {
        let key: [u8; 32] = random().expect("random bytes");
        assert_eq!(decode_key(&encode_key(&key)), Some(key));
        assert_eq!(encode_key(b"podway"), "cG9kd2F5");
        for bad in ["", "=", "cG9kd2F5", &"!".repeat(44), &format!("{}==", "A".repeat(42))] {
            assert_eq!(decode_key(bad), None, "{bad:?} was taken");
        }
    }
}
