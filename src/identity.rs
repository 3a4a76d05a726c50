//! The key pair by which agents know this user, and what is derived from it.
//!
//! One Ed25519 pair for each user, made once, kept in the daemon's state directory. Only the public half ever leaves
//! it: in an agent's arguments, where anyone may read it.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use crate::digest::{hex, sha256};

/// Ports of agents: above the usual services, below the usual ephemeral range of Linux (32768).
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A user's key pair.
#[derive(Clone)]
pub struct Identity {
    /// The pair.
    pub pair: Arc<Ed25519KeyPair>,
    /// The public half, base64.
    pub public: Arc<str>,
}

/// Why there is no key pair.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The state directory cannot be read or written.
    #[error("{path}: cannot be used")]
    Io {
        /// The file.
        path: String,
        /// Cause.
        source: io::Error,
    },
    /// No key could be made.
    #[error("no key pair could be generated")]
    Generate,
}

impl Identity {
    /// The pair of `uid` under `state_dir`, made when there is none or when it is damaged. Blocks: not for the thread of
    /// the actors.
    pub fn load_or_create(state_dir: &Path, uid: u32) -> Result<Identity, IdentityError> {
        // Two connections that are a user's first must not make two pairs.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let path = path_of(state_dir, uid);
        let failed = |source| IdentityError::Io { path: path.display().to_string(), source };
        match fs::read(&path) {
            Ok(bytes) => {
                if let Ok(pair) = Ed25519KeyPair::from_pkcs8(&bytes) {
                    return Ok(Identity::of(pair));
                }
                tracing::warn!(path = %path.display(), "a damaged key pair is replaced");
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| IdentityError::Generate)?;
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).map_err(|_| IdentityError::Generate)?;
        write_secret(&path, document.as_ref()).map_err(failed)?;
        Ok(Identity::of(pair))
    }

    /// The pair of `uid` under `state_dir`, where there is one that can be read. Blocks, too.
    pub fn load(state_dir: &Path, uid: u32) -> Option<Identity> {
        let bytes = fs::read(path_of(state_dir, uid)).ok()?;
        Ed25519KeyPair::from_pkcs8(&bytes).ok().map(Identity::of)
    }

    /// A pair that is kept nowhere.
    pub fn made_up() -> Result<Identity, IdentityError> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| IdentityError::Generate)?;
        Ed25519KeyPair::from_pkcs8(document.as_ref()).map(Identity::of).map_err(|_| IdentityError::Generate)
    }

    fn of(pair: Ed25519KeyPair) -> Identity {
        let public = podway_tunnel::encode_key(pair.public_key().as_ref()).into();
        Identity { pair: Arc::new(pair), public }
    }

    /// Eight hex digits that name the agents of this key with this image and protocol, and their first port.
    pub fn fingerprint(&self, image: &str) -> (String, u16) {
        let text = format!("{}\n{image}\npodway.tunnel.v{}", self.public, podway_tunnel::PROTOCOL);
        let hash = sha256(text.as_bytes());
        let name = hex(&hash[..4]);
        let word = hash.iter().skip(4).take(2).fold(0_u16, |word, byte| word << 8 | u16::from(*byte));
        (name, PORTS.start + word % (PORTS.end - PORTS.start))
    }
}

fn path_of(state_dir: &Path, uid: u32) -> PathBuf {
    state_dir.join("keys").join(format!("{uid}.pk8"))
}

/// Writes a file that only its owner reads, whole or not at all.
fn write_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    let temporary = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_made_once_and_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(Identity::load(dir.path(), 7).is_none());
        let first = Identity::load_or_create(dir.path(), 7).expect("made");
        let second = Identity::load_or_create(dir.path(), 7).expect("read");
        assert_eq!(Identity::load(dir.path(), 7).expect("read").public, first.public);
        assert_eq!(first.public, second.public);
        assert_eq!(first.fingerprint("a:1"), second.fingerprint("a:1"));
        assert_ne!(first.fingerprint("a:1"), first.fingerprint("a:2"));
    }

    #[test]
    fn first_uses_at_once_make_one_pair() {
        let dir = tempfile::tempdir().expect("a directory");
        let made = std::thread::scope(|scope| {
            let load = || Identity::load_or_create(dir.path(), 7).expect("made").public;
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(load)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .collect::<std::collections::BTreeSet<_>>()
        });
        assert_eq!(made.len(), 1, "{made:?}");
    }

    #[test]
    fn a_damaged_pair_is_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = Identity::load_or_create(dir.path(), 7).expect("made");
        fs::write(dir.path().join("keys/7.pk8"), b"nonsense").expect("written");
        let second = Identity::load_or_create(dir.path(), 7).expect("made again");
        assert_ne!(first.public, second.public);
    }
}
