//! What this machine allows a test to do.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

/// An ordinary user and their group, as everybody's machine has them.
pub const NOBODY: (u32, u32) = (65534, 65534);

/// Says that a test was left out; fails where nothing may be.
pub fn skipped(why: &str) {
    assert!(std::env::var_os("PODWAY_REQUIRE_ROOT_TESTS").is_none(), "must not be left out here: {why}");
    println!("skipped: {why}");
}

/// Whether `/dev/net/tun` is open to a user who has no rights.
pub fn tun_is_open() -> bool {
    fs::metadata("/dev/net/tun").is_ok_and(|device| device.permissions().mode() & 0o006 == 0o006)
}
