//! What an agent in a test is started with.

use std::sync::Arc;
use std::time::Duration;

use podway_agent::args::Serve;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

/// An agent on loopback, and the key pair of those it serves.
pub fn serving() -> (Arc<Ed25519KeyPair>, Serve) {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
    let pair = Arc::new(Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("its pair"));
    let serve = Serve {
        listen: "127.0.0.1:0".parse().expect("an address"),
        authorized_key: pair.public_key().as_ref().try_into().expect("32 bytes"),
        pod_uid: "pod-1".into(),
        idle_exit: Duration::from_secs(3600),
        resolv_conf: "/nonexistent".into(),
    };
    (pair, serve)
}
