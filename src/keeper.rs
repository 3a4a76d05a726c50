//! The keeper of credentials: a process that `podway connect` leaves in the user's session where credentials end and can
//! be had again without a person.
//!
//! ```text
//! podway connect ─ start, errand on stdin ─▶ keeper ══ op keep ══▶ podwayd
//!                ◀─ it is on its own ───────
//!                                              ◀═ credentials_wanted ═
//!                            resolves the kubeconfig, as the user
//!                                              ── op renew, forgo ──▶
//! ```
//!
//! It ends with the connection, with the daemon, when a newer one takes its place, and by a signal. It asks nobody
//! anything, says nothing, and writes nothing; what it needs to know comes by a pipe, so that no list of processes shows
//! it. It is in no directory but while it resolves: no file system is in use for as long as it lives.

use std::io::{Error, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::actors::control::protocol::{Ended, Event, Op, Renewed};
use crate::control_client::{ClientError, ControlClient, Next};
use crate::core_files;
use crate::error::{Reason, UserError};
use crate::kubeconfig::{self, ConnectionFlags, Resolved, Source, Surroundings, Words};
use crate::programs::Program;

/// The longest errand, in bytes: flags of one command line.
const LONGEST: u64 = 256 * 1024;
/// How long a keeper may take to be on its own.
const STARTED: Duration = Duration::from_secs(5);
/// What it says then.
const ON_ITS_OWN: &[u8] = b".";
/// How long the daemon may take to hear an answer.
const HEARD: Duration = Duration::from_secs(10);
/// What of the time for an answer is left for telling it.
const TELLING: Duration = Duration::from_secs(5);
/// Certificates in files that last so much longer than any connection need no keeper, in seconds.
const LONG: i64 = 30 * 86_400;

/// What a keeper is to do.
#[derive(Serialize, Deserialize)]
pub struct Errand {
    socket: PathBuf,
    name: String,
    flags: ConnectionFlags,
    /// Where the command ran: paths among the flags and in `$KUBECONFIG` may begin there.
    directory: Option<PathBuf>,
}

impl Errand {
    /// To keep the credentials of connection `name`, which were `resolved` from `flags` at `now`, in seconds since 1970;
    /// `None` where a person is needed for others, or where they last for long.
    pub fn of(socket: &Path, name: &str, flags: ConnectionFlags, resolved: &Resolved, now: i64) -> Option<Errand> {
        let wanted = match resolved.source {
            Source::Given => false,
            Source::File => resolved.access.expires_at.is_none_or(|at| at.saturating_sub(now) < LONG),
            Source::Plugin => true,
        };
        // The current context may become another one meanwhile.
        let context = Some(resolved.context.clone()).filter(|context| !context.is_empty());
        let flags = ConnectionFlags { context: context.or(flags.context.clone()), ..flags };
        wanted.then(|| Errand {
            socket: std::path::absolute(socket).unwrap_or_else(|_| socket.to_owned()),
            name: name.to_owned(),
            flags,
            directory: std::env::current_dir().ok(),
        })
    }

    /// Starts a keeper, gives it this errand, and waits until it is on its own: whoever started it may end then, and with
    /// that a terminal or a login.
    ///
    /// # Errors
    ///
    /// As the system says, or it did not become so in time.
    pub async fn start(&self) -> std::io::Result<()> {
        let line = serde_json::to_vec(self)?;
        let words = Program::Keeper.command_line()?;
        let [program, arguments @ ..] = words.as_slice() else { return Ok(()) };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let starting = async {
            if let Some(mut stdin) = stdin {
                stdin.write_all(&line).await?;
            }
            let mut said = Vec::new();
            if let Some(stdout) = stdout {
                stdout.take(ON_ITS_OWN.len() as u64 + 1).read_to_end(&mut said).await?;
            }
            if said == ON_ITS_OWN { Ok(()) } else { Err(Error::other("its keeper ended at once")) }
        };
        timeout(STARTED, starting).await.unwrap_or_else(|_| Err(Error::other("its keeper does not start")))
    }
}

/// Runs it.
pub fn run() -> ExitCode {
    // Away from the terminal, whose end is no end of the connection. It fails only for one that is away already.
    let _ = nix::unistd::setsid();
    core_files::none();
    let_go();
    let mut text = Vec::new();
    if std::io::stdin().take(LONGEST).read_to_end(&mut text).is_err() {
        return ExitCode::FAILURE;
    }
    let Ok(errand) = serde_json::from_slice::<Errand>(&text) else { return ExitCode::FAILURE };
    drop(text);
    if !on_its_own() {
        return ExitCode::FAILURE;
    }
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return ExitCode::FAILURE;
    };
    runtime.block_on(async {
        tokio::select! {
            _ = keep(&errand) => {}
            () = told_to_end() => {}
        }
    });
    // Not even for a thread that waits for something.
    runtime.shutdown_background();
    ExitCode::SUCCESS
}

/// Tells whoever started this that it may end, and lets go of the way to it and of the directory.
fn on_its_own() -> bool {
    let _ = std::env::set_current_dir("/");
    let nowhere = std::fs::File::options().write(true).open("/dev/null");
    let told = std::io::stdout().write_all(ON_ITS_OWN).and_then(|()| std::io::stdout().flush());
    told.is_ok() && nowhere.is_ok_and(|nowhere| nix::unistd::dup2_stdout(nowhere).is_ok())
}

/// Closes whatever it was given besides its three: a lock, say, that would be held for as long as this lives.
fn let_go() {
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else { return };
    // All are read before one is closed; that of the directory has been closed by then.
    let open: Vec<i32> = open.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        let _ = nix::unistd::close(fd);
    }
}

/// The end of the user's session, or whoever wants this to end.
async fn told_to_end() {
    let kinds = [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt()];
    let [Ok(mut terminate), Ok(mut hangup), Ok(mut interrupt)] = kinds.map(signal) else { return };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Answers what it is asked, until there is nobody to ask any more.
async fn keep(errand: &Errand) -> Result<(), ClientError> {
    let mut client = open(errand).await?;
    client.send_request(Op::Keep { name: errand.name.clone() }).await?;
    let mut question = None;
    loop {
        let next = match question.take() {
            None => client.next::<Ended>().await?,
            Some((ask, within)) => tokio::select! {
                // A newer question, or the end: the plugin that runs is killed.
                biased;
                next = client.next::<Ended>() => next?,
                // An answer that is not heard, as the daemon is busy, say, is asked for again. Its end shows here.
                () = answer(errand, ask, within) => continue,
            },
        };
        match next {
            Next::Event(Event::CredentialsWanted { ask, within_ms }) => {
                question = Some((ask, Duration::from_millis(within_ms)));
            }
            Next::Event(Event::Progress { .. } | Event::Status { .. } | Event::Log { .. }) => {}
            Next::Result(Ended { .. }) => return Ok(()),
        }
    }
}

/// Resolves the kubeconfig again and tells what came of it.
async fn answer(errand: &Errand, ask: u64, within: Duration) {
    let resolved = timeout(within.saturating_sub(TELLING), resolve(errand))
        .await
        .unwrap_or_else(|_| Err(UserError::new(Reason::TimedOut, "the kubeconfig gave no credentials in time", "")));
    let refused = match resolved {
        Ok(Resolved { access, .. }) => {
            let op = Op::Renew { name: errand.name.clone(), access: Box::new(access), ask: Some(ask) };
            match tell(errand, op).await {
                // Not the cluster of this connection any more, for example.
                Err(ClientError::Refused(error)) => error,
                Ok(()) | Err(ClientError::NoDaemon(_)) => return,
            }
        }
        Err(error) => error,
    };
    drop(tell(errand, Op::Forgo { name: errand.name.clone(), ask, why: refused.message }).await);
}

/// Resolves it where the command ran, if that is still there.
async fn resolve(errand: &Errand) -> Result<Resolved, UserError> {
    let _there = errand.directory.as_deref().map(There::go);
    let around = Surroundings { words: Words::Kept, ..Surroundings::of_process(false) };
    kubeconfig::resolve(&errand.flags, &around).await
}

/// In a directory, until it is dropped.
struct There;

impl There {
    fn go(directory: &Path) -> There {
        let _ = std::env::set_current_dir(directory);
        There
    }
}

impl Drop for There {
    fn drop(&mut self) {
        let _ = std::env::set_current_dir("/");
    }
}

/// One request, on a connection of its own: the first is busy with the questions.
async fn tell(errand: &Errand, op: Op) -> Result<(), ClientError> {
    in_time(async {
        let mut client = ControlClient::open(&errand.socket).await?;
        client.ask::<Renewed>(op).await.map(|_| ())
    })
    .await
}

async fn open(errand: &Errand) -> Result<ControlClient, ClientError> {
    in_time(ControlClient::open(&errand.socket)).await
}

async fn in_time<T>(asking: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
    let late = || UserError::new(Reason::TimedOut, "podwayd: no answer", "");
    timeout(HEARD, asking).await.unwrap_or_else(|_| Err(ClientError::NoDaemon(late())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ClusterAccess;

    fn resolved(source: Source, expires_at: Option<i64>) -> Resolved {
        let access = ClusterAccess { expires_at, ..ClusterAccess::bare("https://h") };
        Resolved { access, context: "dev".into(), namespace: "demo".into(), source }
    }

    #[test]
    fn there_is_a_keeper_where_other_credentials_can_be_had_and_are_needed() {
        let errand = |source, expires_at| {
            let flags = ConnectionFlags { user: Some("ann".into()), ..ConnectionFlags::default() };
            Errand::of(Path::new("/s"), "demo", flags, &resolved(source, expires_at), 1000)
        };
        assert!(errand(Source::Given, Some(1060)).is_none());
        assert!(errand(Source::Plugin, None).is_some() && errand(Source::File, None).is_some());
        assert!(errand(Source::File, Some(1000 + LONG - 1)).is_some());
        assert!(errand(Source::File, Some(1000 + LONG)).is_none());
        let flags = errand(Source::Plugin, None).expect("a keeper").flags;
        assert_eq!((flags.context.as_deref(), flags.user.as_deref()), (Some("dev"), Some("ann")));
    }
}
