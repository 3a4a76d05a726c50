//! For tests that need a device: a network namespace of their own.

use std::future::Future;
use std::time::Duration;

use tokio::task::LocalSet;
use tokio::time::timeout;

/// A test that takes longer waits for what will not come.
const LIMIT: Duration = Duration::from_secs(20);

/// Says that a test was left out; fails where nothing may be.
pub fn skipped(why: &str) {
    assert!(std::env::var_os("PODWAY_REQUIRE_ROOT_TESTS").is_none(), "must not be left out here: {why}");
    eprintln!("skipped: {why}");
}

/// Runs in a network namespace of its own, which goes with it; skipped where that is not permitted.
pub fn in_namespace<F: Future<Output = ()>>(work: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(|| {
        if let Err(error) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
            return skipped(&format!("no network namespace ({error})"));
        }
        if !std::path::Path::new("/dev/net/tun").exists() {
            return skipped("no TUN driver");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let limited = async { timeout(LIMIT, work()).await };
        LocalSet::new().block_on(&runtime, limited).unwrap();
    });
    thread.join().unwrap();
}
