//! The process around the actors: runtime, signals, readiness, watchdog, the journal's undo at start.
#![expect(clippy::disallowed_methods, reason = "reads the wall clock for people; no decision depends on it")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix::{Actor as _, Addr};
use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use crate::actors::control::Control;
use crate::actors::control::listener::{self, Socket};
use crate::actors::daemon::Daemon;
use crate::actors::daemon::messages::{Caller, ListSessions, Shutdown};
use crate::actors::session::Settings;
use crate::actors::shell::{Reply, Stop, start_monitored};
use crate::config::Config;
use crate::net::os_journal;

/// All teardowns together; systemd's stop limit is above it.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// Where the daemon keeps what it has.
#[derive(Clone, Debug)]
pub struct Directories {
    /// Runtime directory: socket, journal.
    pub runtime: PathBuf,
    /// State directory: keys, virtual addresses.
    pub state: PathBuf,
}

/// Runs the daemon until a signal ends it. Must be called outside any runtime.
pub fn run(config: Config, directories: Directories, socket: Option<PathBuf>) -> anyhow::Result<()> {
    // A second provider in the graph would make rustls's own choice ambiguous, which panics.
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = Arc::new(
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("runtime")?,
    );
    let handle = Arc::clone(&runtime);
    let system = actix_rt::System::with_tokio_rt(move || handle);
    let result = system.block_on(serve(config, directories, socket));
    drop(system);
    if let Some(runtime) = Arc::into_inner(runtime) {
        runtime.shutdown_timeout(Duration::from_secs(1));
    }
    result
}

/// Undoes what an earlier run left on the host. Works twice.
pub fn cleanup(directories: &Directories) -> anyhow::Result<()> {
    for undone in os_journal::undo_all(&directories.runtime) {
        info!("{undone}");
    }
    Ok(())
}
