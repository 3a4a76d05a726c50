//! No core files of processes that have credentials in memory.

use nix::sys::resource::{Resource, setrlimit};

/// From now on this process and what it starts leave none. A program that the kernel pipes them to may get one all the
/// same (core(5)).
pub fn none() {
    // Less is always allowed.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
}
