//! The process around the actors: runtime, signals, readiness, watchdog, the journal's undo at start.
#![expect(clippy::disallowed_methods, reason = "reads the wall clock for people; no decision depends on it")]

pub mod program;

use std::fs::{File, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix::{Actor as _, Addr, AsyncContext as _};
use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use crate::actors::control::listener::{self, Listener, Owner};
use crate::actors::control::{self, Control};
use crate::actors::daemon::Daemon;
use crate::actors::daemon::messages::{Caller, ListSessions, Shutdown};
use crate::actors::session::Settings;
use crate::actors::shell::{LateWork, Reply, Stop, start_monitored};
use crate::config::Config;
use crate::config::layers::Setting;
use crate::logs::LogRing;
use crate::net::os_journal::{OsJournal, Undone};
use crate::net::resolver::host;

/// All teardowns together; systemd's stop limit is above it and [`LATE_LIMIT`].
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// After that, what connections have not got an answer for yet: once more is looked for it, and it is deleted.
const LATE_LIMIT: Duration = Duration::from_millis(2500);

/// Where this host's resolver is configured.
const ETC: &str = "/etc";

/// What its log says when it takes requests.
pub const SERVES: &str = "podwayd serves";

/// Where the daemon keeps what it has.
#[derive(Clone, Debug)]
pub struct Directories {
    /// Runtime directory: socket, journal.
    pub runtime: PathBuf,
    /// State directory: keys, virtual addresses.
    pub state: PathBuf,
}

/// What of the daemon's start failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stage {
    /// Its configuration.
    #[error("configuration")]
    Configuration,
    /// What it is to log.
    #[error("log filter")]
    LogFilter,
    /// Its directories.
    #[error("directory")]
    Directory,
    /// Being the only one.
    #[error("another one runs with the same state directory")]
    Another,
    /// Its socket.
    #[error("control socket")]
    Socket,
}

/// What the daemon shows of itself.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Its latest log lines.
    pub logs: LogRing,
    /// Its settings, and where they come from.
    pub settings: Arc<[Setting]>,
}

/// Runs the daemon until a signal ends it. Must be called outside any runtime.
pub fn run(config: Config, directories: Directories, shown: Shown) -> anyhow::Result<()> {
    for directory in [&directories.runtime, &directories.state] {
        let made = std::fs::create_dir_all(directory).with_context(|| directory.display().to_string());
        made.context(Stage::Directory)?;
    }
    let _lock = lock(&directories)?;
    let undone = undo(&directories);
    for done in &undone.done {
        info!("after an earlier run: {done}");
    }
    for left in &undone.left {
        warn!("an earlier run left something: {left}");
    }
    if !may_configure_networks() {
        warn!(
            "without the capability CAP_NET_ADMIN no connection can be made: start podwayd with systemd, or with sudo"
        );
    }
    let given = listener::from_systemd().context("socket from systemd")?;
    let listener = match given {
        Some(listener) => listener,
        None => {
            if let Some(parent) = config.socket.parent() {
                let made = std::fs::create_dir_all(parent).with_context(|| parent.display().to_string());
                made.context(Stage::Directory)?;
            }
            listener::bind(&config.socket, Owner::of_this_host()).context(Stage::Socket)?
        }
    };
    // A second provider in the graph would make rustls's own choice ambiguous, which panics.
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = Arc::new(
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers())
            .enable_all()
            .build()
            .context("runtime")?,
    );
    let handle = Arc::clone(&runtime);
    let system = actix_rt::System::with_tokio_rt(move || handle);
    let journal = OsJournal::new(&directories.runtime);
    let result = system.block_on(serve(config, directories, listener, shown));
    drop(system);
    if let Some(runtime) = Arc::into_inner(runtime) {
        runtime.shutdown_timeout(Duration::from_secs(1));
    }
    // A teardown that was cut short, or a session that died of a bug, left this; nobody does more now.
    for left in journal.undo_all().left {
        warn!("left on this host: {left}");
    }
    result
}

/// Threads for all but the actors, which have the first. Where processors are few, a second one mostly wakes the first.
pub fn workers() -> usize {
    if std::thread::available_parallelism().is_ok_and(|processors| processors.get() > 2) { 2 } else { 1 }
}

async fn serve(config: Config, directories: Directories, listener: Listener, shown: Shown) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let (bug, mut broken) = Reply::new();
    let late = LateWork::default();
    let settings = Settings {
        mtu: config.mtu.into(),
        virtual_subnet: config.virtual_subnet,
        udp_idle: config.udp_idle,
        include_suffixes: config.include_suffixes.clone(),
        runtime_dir: directories.runtime.clone(),
        state_dir: directories.state.clone(),
        etc: ETC.into(),
        editor: Default::default(),
        late: late.clone(),
    };
    let daemon = Daemon::new(settings, config.agent_image.clone(), wall, bug).start();
    let edges = control::Edges {
        open: daemon.clone().recipient(),
        plan: daemon.clone().recipient(),
        close: daemon.clone().recipient(),
        list: daemon.clone().recipient(),
        renew: daemon.clone().recipient(),
        forgo: daemon.clone().recipient(),
        keep: daemon.clone().recipient(),
        logs: shown.logs,
        settings: shown.settings,
    };
    let (ended, mut control_ended) = Reply::new();
    let context = actix::Context::new();
    let control = context.address();
    start_monitored(Control::new(listener, edges), context, move |exit| ended.answer(exit));
    drop(sd_notify::notify(&[sd_notify::NotifyState::Ready]));
    let watchdog = tokio::spawn(watchdog(daemon.clone()));
    info!(version = env!("CARGO_PKG_VERSION"), "{SERVES}");

    let outcome = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        _ = &mut broken => Err(anyhow::anyhow!("a session died of a bug; see the log")),
        exit = &mut control_ended => Err(anyhow::anyhow!("the control socket's actor ended: {exit:?}")),
    };
    drop(sd_notify::notify(&[sd_notify::NotifyState::Stopping]));
    watchdog.abort();
    let (reply, stopped) = Reply::new();
    control.do_send(Stop { reply });
    let (reply, gone) = Reply::new();
    daemon.do_send(Shutdown { reply });
    let all = async { drop(tokio::join!(stopped, gone)) };
    if tokio::time::timeout(SHUTDOWN_LIMIT, all).await.is_err() {
        warn!("teardown took too long; what is left goes with the process or at the next start");
    }
    if tokio::time::timeout(LATE_LIMIT, late.over()).await.is_err() {
        warn!(
            "a pod of our own may be left in a cluster, whose API server has not answered: the next connection takes it \
             up, and podway disconnect --clean deletes it"
        );
    }
    outcome
}

/// Tells systemd that the daemon lives, as long as its root actor answers. Without a watchdog it ends at once.
async fn watchdog(daemon: Addr<Daemon>) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut tick = tokio::time::interval(limit / 3);
    loop {
        tick.tick().await;
        let (reply, answer) = Reply::new();
        daemon.do_send(ListSessions { caller: Caller { uid: 0, gid: 0, pid: None }, reply });
        match tokio::time::timeout(limit / 3, answer).await {
            Ok(Ok(_)) => drop(sd_notify::notify(&[sd_notify::NotifyState::Watchdog])),
            Ok(Err(_)) | Err(_) => error!("the root actor does not answer; the watchdog is not fed"),
        }
    }
}

fn wall() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Whether this process has CAP_NET_ADMIN (capabilities(7); proc_pid_status(5), `CapEff`). Where that cannot be read, the
/// first connection will tell.
fn may_configure_networks() -> bool {
    const CAP_NET_ADMIN: u32 = 12;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    effective.is_none_or(|bits| bits & 1 << CAP_NET_ADMIN != 0)
}

/// Makes this the only podwayd with its state directory, for as long as what it returns lives; the kernel gives it back
/// however the process ends. What a living one did to the host is nobody else's to undo.
///
/// # Errors
///
/// There is another one.
fn lock(directories: &Directories) -> anyhow::Result<Option<File>> {
    let path = directories.state.join("podwayd.lock");
    let file = match File::options().write(true).create(true).truncate(false).mode(0o600).open(&path) {
        Ok(file) => file,
        Err(error) => {
            // A disk that takes no file is no reason not to serve.
            warn!(path = %path.display(), %error, "a second podwayd could not be told apart");
            return Ok(None);
        }
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            Err(anyhow::anyhow!("{}", directories.state.display()).context(Stage::Another))
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("lock {}", path.display())),
    }
}

/// Undoes what an earlier run left on the host, unless it runs. Works twice.
pub fn cleanup(directories: &Directories) -> Undone {
    if !directories.state.exists() {
        return undo(directories);
    }
    match lock(directories) {
        Ok(_lock) => undo(directories),
        Err(why) => Undone {
            left: vec![format!("podwayd: {why:#}; podway disconnect puts back what it did")],
            ..Undone::default()
        },
    }
}

fn undo(directories: &Directories) -> Undone {
    host::recover(Path::new(ETC), &OsJournal::new(&directories.runtime))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_podwayd_that_runs_has_done_is_left_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let directories = Directories { runtime: directory.path().into(), state: directory.path().into() };
        let running = lock(&directories).unwrap();
        let second = lock(&directories).unwrap_err().to_string();
        assert_eq!(second, Stage::Another.to_string());
        let refused = cleanup(&directories);
        assert!(refused.done.is_empty() && refused.left[0].contains("podway disconnect"), "{refused:?}");
        drop(running);
        assert!(lock(&directories).is_ok());
    }
}
