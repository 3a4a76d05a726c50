//! The sandbox as the demo uses it: questions, commands on the workstation, the daemon, the end.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use podway_minicluster::control::{Condition, Request, Settings};
use podway_minicluster::sandbox::{Options, Sandbox};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::error::DemoError;
use super::signals::Signals;
use crate::config::ONLY_FILE;
use crate::daemon::SERVES;
use crate::programs::Program;

/// How long the cluster may take to start, and each of its answers.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take to end before its first process is killed, which ends the others.
const END: Duration = Duration::from_secs(5);
/// The workstation's own, in memory.
const RUNTIME_DIR: &str = "/run/podway";
const STATE_DIR: &str = "/run/podway/state";

/// A running cluster and its workstation.
#[derive(Debug)]
pub struct Stage {
    sandbox: Arc<Sandbox>,
    own: PathBuf,
    variables: Vec<(OsString, OsString)>,
    /// Each question holds one: when all are gone, nobody uses the sandbox any more.
    busy_tx: mpsc::Sender<()>,
    busy_rx: mpsc::Receiver<()>,
}

impl Stage {
    /// Starts the cluster, unless a signal comes first.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub async fn start(signals: &mut Signals) -> Result<Stage, DemoError> {
        let failed = |error: io::Error| DemoError::step("cluster", error);
        let own = std::env::current_exe().map_err(failed)?;
        let agent = Program::Agent.command_line().map_err(failed)?;
        let agent = agent.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let options = Options {
            program: Program::Cluster.of_sandbox().map_err(failed)?,
            settings: json!(Settings { agent, ..Settings::default() }),
            patience: PATIENCE,
            needs_tun: true,
            user: None,
        };
        let mut starting = tokio::task::spawn_blocking(move || Sandbox::start(options));
        let started = tokio::select! {
            biased;
            asked = signals.next() => {
                // It ends when it is dropped, which is when it has started, or with this process.
                drop(timeout(END, starting).await);
                return Err(DemoError::Interrupted(asked.code()));
            }
            started = &mut starting => started,
        };
        let sandbox = started.map_err(|error| DemoError::step("cluster", error))??;
        let variables = environment(std::env::vars_os(), &sandbox.started().kubeconfig, own.parent().map(OsStr::new));
        let (busy_tx, busy_rx) = mpsc::channel(1);
        Ok(Stage { sandbox: Arc::new(sandbox), own, variables, busy_tx, busy_rx })
    }

    /// The URL of its API server.
    pub fn server(&self) -> &str {
        &self.sandbox.started().server
    }

    /// Where the administrator's kubeconfig is.
    pub fn kubeconfig(&self) -> &str {
        &self.sandbox.started().kubeconfig
    }

    /// Where this program lies.
    pub fn path(&self) -> &Path {
        &self.own
    }

    /// Lines for another terminal.
    pub fn enter_lines(&self) -> [String; 2] {
        self.sandbox.enter_lines()
    }

    /// Asks the cluster. Cancel safe: the answer is then not heard.
    ///
    /// # Errors
    ///
    /// What the cluster refuses, and that it is gone.
    pub async fn ask(&self, request: Request) -> Result<Value, DemoError> {
        let (sandbox, busy) = (Arc::clone(&self.sandbox), self.busy_tx.clone());
        let asked = tokio::task::spawn_blocking(move || {
            let answer = sandbox.ask(request);
            // In this order: whoever sees that nobody is busy has the sandbox alone.
            drop(sandbox);
            drop(busy);
            answer
        });
        Ok(asked.await.map_err(|error| DemoError::step("cluster", error))??)
    }

    /// Waits until the sample workloads run.
    ///
    /// # Errors
    ///
    /// Which does not.
    pub async fn samples(&self) -> Result<(), DemoError> {
        let request = Request::Wait { condition: Condition::SamplesReady, seconds: PATIENCE.as_secs_f64() };
        self.ask(request).await.map(drop)
    }

    /// All objects of a kind.
    ///
    /// # Errors
    ///
    /// As of [`Stage::ask`].
    pub async fn list(&self, kind: &str) -> Result<Value, DemoError> {
        self.ask(Request::List { kind: kind.to_owned(), namespace: None }).await
    }

    /// Whether the cluster is gone, as far as one learns within a second.
    pub async fn is_gone(&self) -> bool {
        matches!(timeout(Duration::from_secs(1), self.list("namespaces")).await, Ok(Err(_)))
    }

    /// A command on the workstation.
    ///
    /// It ends with the cluster, not when it is dropped: the process that entered the workstation for it has to live on
    /// to see it end. Killed, it would leave that to the host's first process, which may take its time, or never do it.
    pub fn command(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::from(self.sandbox.command(words));
        command.env_clear().envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// One of podway's own programs on the workstation; no words but these.
    pub fn own(&self, words: &[&str]) -> Vec<OsString> {
        std::iter::once(self.own.clone().into()).chain(words.iter().map(OsString::from)).collect()
    }

    /// Runs a command to its end, and returns what it printed.
    ///
    /// # Errors
    ///
    /// What it says on stderr when it fails, or that it took longer than `limit`.
    pub async fn run(&self, step: &'static str, words: &[OsString], limit: Duration) -> Result<String, DemoError> {
        let mut command = self.command(words);
        // Ctrl-C is for the demo, which ends what it started.
        command.process_group(0).stdin(Stdio::null());
        let output = timeout(limit, command.output())
            .await
            .map_err(|_| DemoError::TooSlow { step, seconds: limit.as_secs() })?
            .map_err(|error| DemoError::step(step, error))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(failure(step, &String::from_utf8_lossy(&output.stderr), &output.status.to_string())),
        }
    }

    /// Starts the daemon.
    ///
    /// # Errors
    ///
    /// When its process cannot be started.
    pub fn daemon(&self) -> Result<Daemon, DemoError> {
        let settings =
            ["--config", "/dev/null", "--runtime-dir", RUNTIME_DIR, "--state-dir", STATE_DIR, "--log", "info"];
        let line = Program::Daemon.command_line().map_err(|error| DemoError::step("daemon", error))?;
        let mut command = self.command(line.into_iter().chain(settings.map(OsString::from)));
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| DemoError::step("daemon", error))?;
        let (serves_tx, serves) = oneshot::channel();
        let last = Arc::new(Mutex::new(String::new()));
        if let Some(log) = child.stderr.take() {
            tokio::spawn(read(log, serves_tx, Arc::clone(&last)));
        }
        Ok(Daemon { child, serves: Some(serves), last })
    }

    /// Ends all of it, and waits until nothing is left.
    pub async fn end(self) {
        let Stage { sandbox, busy_tx, mut busy_rx, .. } = self;
        let pid = i32::try_from(sandbox.pid()).map(Pid::from_raw);
        sandbox.close();
        drop(busy_tx);
        // Questions fail as soon as the cluster is gone.
        drop(timeout(END, busy_rx.recv()).await);
        let mut ending = tokio::task::spawn_blocking(move || drop(sandbox));
        if timeout(END, &mut ending).await.is_err() {
            // It was stopped. Not waited for yet, so that the number is still its own.
            pid.map(|pid| kill(pid, Signal::SIGKILL)).ok();
            drop(timeout(END, ending).await);
        }
    }
}

/// The running daemon.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    serves: Option<oneshot::Receiver<()>>,
    last: Arc<Mutex<String>>,
}

impl Daemon {
    /// What tells that it serves; once.
    pub fn serving(&mut self) -> impl Future<Output = Result<(), DemoError>> + use<> {
        let serves = self.serves.take();
        async move {
            let serves = serves.ok_or_else(|| DemoError::step("daemon", "asked twice"))?;
            match timeout(PATIENCE, serves).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(DemoError::step("daemon", "it ended before it served")),
                Err(_) => Err(DemoError::TooSlow { step: "daemon", seconds: PATIENCE.as_secs() }),
            }
        }
    }

    /// Waits for its end, which nobody wants. Cancel safe.
    pub async fn ended(&mut self) -> DemoError {
        let how = match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let said = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        failure("daemon", &said, &format!("it ended: {how}"))
    }
}

/// Reads the daemon's log to its end; keeps the last line.
async fn read(log: tokio::process::ChildStderr, serves: oneshot::Sender<()>, last: Arc<Mutex<String>>) {
    let (mut lines, mut serves) = (BufReader::new(log).lines(), Some(serves));
    while let Ok(Some(line)) = lines.next_line().await {
        if line.contains(SERVES)
            && let Some(serves) = serves.take()
        {
            serves.send(()).ok();
        }
        *last.lock().unwrap_or_else(PoisonError::into_inner) = line;
    }
}

/// A program's failure in its own words, or in ours where it has none.
fn failure(step: &'static str, said: &str, otherwise: &str) -> DemoError {
    let after = |word: &str| said.lines().find_map(|line| line.strip_prefix(word).map(str::to_owned));
    let last = said.lines().map(str::trim).rfind(|line| !line.is_empty());
    let cause = after("error: ").or_else(|| after("not yet: ")).or(last.map(str::to_owned));
    DemoError::step(step, cause.unwrap_or_else(|| otherwise.to_owned()))
}

/// The variables of a process on the workstation: those of this one, but for what leads to the host's proxies and
/// daemons, or to other clusters. podway itself is found where `programs` is.
fn environment(
    of_host: impl Iterator<Item = (OsString, OsString)>,
    kubeconfig: &str,
    programs: Option<&OsStr>,
) -> Vec<(OsString, OsString)> {
    const LEADING_AWAY: [&str; 9] =
        ["PODWAY_", "SUDO_", "DBUS_", "NOTIFY_", "WATCHDOG_", "LISTEN_", "JOURNAL_", "KUBE", "RESOLV"];
    const DIRECTORIES: [&str; 5] =
        ["RUNTIME_DIRECTORY", "STATE_DIRECTORY", "HOSTALIASES", "LOCALDOMAIN", "RES_OPTIONS"];
    let leads_away = |name: &str| {
        LEADING_AWAY.iter().any(|start| name.starts_with(start))
            || DIRECTORIES.contains(&name)
            || name.to_ascii_lowercase().ends_with("_proxy")
    };
    let mut kept: Vec<_> = of_host.filter(|(name, _)| !name.to_str().is_some_and(leads_away)).collect();
    kept.push(("KUBECONFIG".into(), kubeconfig.into()));
    // Nor to the settings of this host and user.
    kept.push((ONLY_FILE.into(), "/dev/null".into()));
    kept.push(("PODWAY_SOCKET".into(), format!("{RUNTIME_DIR}/podway.sock").into()));
    if let (Some(programs), Some((_, path))) = (programs, kept.iter_mut().find(|(name, _)| name == "PATH")) {
        *path = search_path(programs, path);
    }
    kept
}

/// Where programs are looked for on the workstation: beside this one, then as on the host.
pub fn search_path(programs: &OsStr, of_host: &OsStr) -> OsString {
    let own = [PathBuf::from(programs)].into_iter().chain(std::env::split_paths(of_host));
    // A name with a colon in it cannot be part of a path.
    std::env::join_paths(own).unwrap_or_else(|_| of_host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_not_led_to_the_hosts_proxies_daemons_and_clusters() {
        let host = [
            ("HOME", "/home/ann"),
            ("PATH", "/usr/bin:/bin"),
            ("https_proxy", "http://proxy:3128"),
            ("NO_PROXY", "*"),
            ("KUBECONFIG", "/home/ann/.kube/config"),
            ("DBUS_SESSION_BUS_ADDRESS", "unix:path=/run/user/1000/bus"),
            ("SUDO_UID", "1000"),
            ("NOTIFY_SOCKET", "/run/systemd/notify"),
            ("NO_COLOR", "1"),
        ];
        let host = host.map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let kept = environment(host.into_iter(), "/run/admin", Some(OsStr::new("/opt/podway")));
        let kept: Vec<String> =
            kept.iter().map(|(name, value)| format!("{}={}", name.display(), value.display())).collect();
        assert_eq!(
            kept,
            [
                "HOME=/home/ann",
                "PATH=/opt/podway:/usr/bin:/bin",
                "NO_COLOR=1",
                "KUBECONFIG=/run/admin",
                "PODWAY_CONFIG=/dev/null",
                "PODWAY_SOCKET=/run/podway/podway.sock",
            ]
        );
    }

    #[test]
    fn a_failure_is_told_in_the_programs_words() {
        let told = |said: &str| failure("connect", said, "exit status: 1").to_string();
        assert_eq!(told("✓ 0.1s cluster\nerror: place agent: forbidden\nhint: x\n"), "connect: place agent: forbidden");
        assert_eq!(told("not yet: web: no pod runs\nwarning: x\n"), "connect: web: no pod runs");
        assert_eq!(told("one\ntwo\n\n"), "connect: two");
        assert_eq!(told("\n"), "connect: exit status: 1");
    }
}
