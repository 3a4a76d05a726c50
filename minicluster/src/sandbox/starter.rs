//! The starter's side: starts the sandbox, asks the cluster things, ends it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::{Program, SandboxError, enter};
use crate::control::{Answered, Asked, Outcome, Request, Started};

/// How a sandbox is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// How to start this program, or one that does the same in its [`super::stage`].
    pub program: Program,
    /// What the cluster is told.
    pub settings: Value,
    /// How long a start and each question may last.
    pub patience: Duration,
    /// Whether the workstation needs a TUN device.
    pub needs_tun: bool,
    /// The user and group to become; `None` stays who one is. Needs root.
    pub user: Option<(u32, u32)>,
}

impl Options {
    fn become_user(&self, command: &mut Command) {
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
    }
}

/// A running sandbox. Ends, with all that is in it, when it is dropped and when this process dies.
#[derive(Debug)]
pub struct Sandbox {
    child: Child,
    asking: Mutex<Asking>,
    waiting: Arc<Waiting>,
    started: Started,
    options: Options,
}

/// The way in; `None` when it is closed.
#[derive(Debug)]
struct Asking {
    input: Option<ChildStdin>,
    asked: u64,
}

/// Who waits for which answer; `None` when no answer will come any more.
type Waiting = Mutex<Option<HashMap<u64, SyncSender<Outcome>>>>;

impl Sandbox {
    /// Starts one and waits until the cluster in it says that it runs. Blocks.
    pub fn start(options: Options) -> Result<Sandbox, SandboxError> {
        if options.needs_tun {
            check_tun("/dev/net/tun")?;
        }
        let failed = |error: io::Error| SandboxError::failed("starting the sandbox", error);
        let mut command = options.program.command(["sandbox", &options.settings.to_string()]);
        options.become_user(&mut command);
        // Ctrl-C on the terminal is for the starter, which ends what it started.
        command.process_group(0);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let asking = Mutex::new(Asking { input: child.stdin.take(), asked: 0 });
        let waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let (tell, first) = sync_channel(1);
        if let Some(output) = child.stdout.take() {
            let waiting = Arc::clone(&waiting);
            // Ends with the last process of the sandbox.
            std::thread::spawn(move || hear(output, &tell, &waiting));
        }
        let started = Started { kubeconfig: String::new(), server: String::new(), workstation: Vec::new() };
        let mut sandbox = Sandbox { child, asking, waiting, started, options };
        let line = received(&first, sandbox.options.patience)?;
        let said: Value = serde_json::from_str(&line).map_err(|error| SandboxError::failed("the cluster", error))?;
        if let Some(error) = said.get("error") {
            return Err(SandboxError::from_json(error));
        }
        sandbox.started = serde_json::from_value(said).map_err(|error| SandboxError::failed("the cluster", error))?;
        Ok(sandbox)
    }

    /// What the cluster said when it ran.
    pub fn started(&self) -> &Started {
        &self.started
    }

    /// The process whose end is the end of everything in the sandbox.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks the cluster something and waits for its answer, while others may ask. Blocks.
    pub fn ask(&self, request: Request) -> Result<Value, SandboxError> {
        let ended = || SandboxError::failed("the cluster", "it ended");
        let seconds = if let Request::Wait { seconds, .. } = &request { *seconds } else { 0.0 };
        let patience = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let (tell, answer) = sync_channel(1);
        let id = {
            let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
            asking.asked += 1;
            let id = asking.asked;
            let line = serde_json::to_string(&Asked { id, request })
                .map_err(|error| SandboxError::failed("question", error))?;
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).as_mut().ok_or_else(ended)?.insert(id, tell);
            let input = asking.input.as_mut().ok_or_else(ended)?;
            writeln!(input, "{line}").map_err(|error| SandboxError::failed("the cluster", error))?;
            id
        };
        let outcome = received(&answer, patience + self.options.patience);
        if let Some(waiting) = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            waiting.remove(&id);
        }
        match outcome? {
            Outcome::Ok(value) => Ok(value),
            Outcome::Error(error) => Err(SandboxError::failed("the cluster", error)),
        }
    }

    /// Begins its end; whoever waits for an answer is told so. Dropping it waits for that end.
    pub fn close(&self) {
        drop(self.asking.lock().unwrap_or_else(PoisonError::into_inner).input.take());
    }

    /// A command that runs `words` on the workstation.
    pub fn command(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut line = self.started.workstation.iter();
        let mut command = Command::new(line.next().map_or("false", String::as_str));
        command.args(line).args(words);
        self.options.become_user(&mut command);
        command
    }

    /// Lines for a shell in another terminal, each of which runs what follows it on the workstation: with our own
    /// program, and with that of util-linux.
    pub fn enter_lines(&self) -> [String; 2] {
        let words = self.started.workstation.iter().map(|word| super::quoted(word));
        [words.collect::<Vec<_>>().join(" "), enter::nsenter(&self.started.workstation)]
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // The process outside kills the cluster then, and ends when nothing of it is left.
        self.close();
        self.child.wait().ok();
    }
}

/// Passes lines on to who waits for them, until the last one.
fn hear(output: ChildStdout, first: &SyncSender<String>, waiting: &Waiting) {
    let mut lines = BufReader::new(output).lines().map_while(Result::ok);
    if let Some(line) = lines.next() {
        first.try_send(line).ok();
    }
    for line in lines {
        let Ok(answer) = serde_json::from_str::<Answered>(&line) else { continue };
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tell) = waiting.as_mut().and_then(|all| all.remove(&answer.id)) {
            // Its time may be over.
            tell.try_send(answer.outcome).ok();
        }
    }
    waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
}

fn received<T>(from: &Receiver<T>, patience: Duration) -> Result<T, SandboxError> {
    from.recv_timeout(patience).map_err(|error| match error {
        RecvTimeoutError::Timeout => SandboxError::failed("the cluster", format!("no answer within {patience:?}")),
        RecvTimeoutError::Disconnected => SandboxError::failed("the cluster", "it ended"),
    })
}

/// Whether this user may make TUN devices with `path`.
fn check_tun(path: &str) -> Result<(), SandboxError> {
    let Err(error) = OpenOptions::new().read(true).write(true).open(path) else { return Ok(()) };
    let hint = if error.kind() == ErrorKind::PermissionDenied {
        "sudo chmod 0666 /dev/net/tun, as distributions ship it"
    } else {
        "sudo modprobe tun; in a container: start it with --device /dev/net/tun"
    };
    Err(SandboxError::Tun { cause: error.to_string(), hint: hint.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tun_device_is_told_with_what_helps() {
        let error = check_tun("/dev/net/no-such-device").unwrap_err();
        assert!(matches!(error, SandboxError::Tun { .. }));
        assert!(error.hint().unwrap().contains("modprobe tun"), "{error:?}");
    }
}
