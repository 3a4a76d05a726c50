//! A command of the user's on the workstation: it has the terminal, and its exit code is the demo's.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::{AccessFlags, Pid, access, getpgrp, tcgetpgrp, tcsetpgrp};
use tokio::time::timeout;

use super::error::DemoError;
use super::signals::{Asked, Signals};
use super::stage::Stage;

/// How long a command may take to end when it is told to.
const LEAVE: Duration = Duration::from_secs(5);

/// Why a command cannot be started, as shells tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// There is none.
    NotFound,
    /// It is there, and cannot be executed.
    NotExecutable,
}

impl Unusable {
    /// The exit code that shells have for it.
    pub fn code(self) -> u8 {
        match self {
            Unusable::NotFound => 127,
            Unusable::NotExecutable => 126,
        }
    }

    /// In words.
    pub fn cause(self) -> &'static str {
        match self {
            Unusable::NotFound => "no such program",
            Unusable::NotExecutable => "it cannot be executed",
        }
    }
}

/// Looks whether a program can be started, before anything is started for it.
///
/// # Errors
///
/// Why not.
pub fn check(program: &OsStr, path: Option<&OsStr>) -> Result<(), Unusable> {
    let places: Vec<PathBuf> = match program.as_encoded_bytes().contains(&b'/') {
        true => vec![PathBuf::from(program)],
        false => std::env::split_paths(path.unwrap_or_default()).map(|place| place.join(program)).collect(),
    };
    let is_program = |place: &&PathBuf| place.is_file() && access(place.as_path(), AccessFlags::X_OK).is_ok();
    match places.iter().find(is_program) {
        Some(_) => Ok(()),
        None if !program.is_empty() && places.iter().any(|place| place.exists()) => Err(Unusable::NotExecutable),
        None => Err(Unusable::NotFound),
    }
}

/// Whether a program of that name is there to be started.
pub fn has(program: &str) -> bool {
    check(OsStr::new(program), std::env::var_os("PATH").as_deref()).is_ok()
}

/// Runs the command to its end; returns its exit code, as shells count.
///
/// # Errors
///
/// When the way onto the workstation is gone.
pub async fn run(stage: &Stage, signals: &mut Signals, words: &[OsString]) -> Result<u8, DemoError> {
    let terminal = Terminal::ours();
    let failed = |error: std::io::Error| DemoError::step("command", error);
    let mut child = stage.command(words).spawn().map_err(failed)?;
    let number = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let status = loop {
        let asked = tokio::select! {
            status = child.wait() => break status.map_err(failed)?,
            asked = signals.next() => asked,
        };
        let signal = match asked {
            // Whoever has the terminal hears Ctrl-C as well, and may do with it what it likes.
            Asked::Interrupt if terminal.is_some() => continue,
            Asked::Interrupt | Asked::Terminate => Signal::SIGTERM,
            Asked::HangUp => Signal::SIGHUP,
        };
        if let Some(number) = number {
            kill(number, signal).ok();
        }
        // One that does not end so ends with the cluster.
        drop(timeout(LEAVE, child.wait()).await);
        return Ok(asked.code());
    };
    if let Some(terminal) = terminal {
        terminal.take_back();
    }
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(u8::try_from(code).unwrap_or(1))
}

/// The terminal, when this process's group has it.
struct Terminal(Pid);

impl Terminal {
    fn ours() -> Option<Terminal> {
        let input = std::io::stdin();
        let group = getpgrp();
        (input.is_terminal() && tcgetpgrp(&input) == Ok(group)).then_some(Terminal(group))
    }

    /// Shells give it to their jobs and, seen from another PID namespace, do not know whom to give it back to.
    fn take_back(&self) {
        let mut stop = SigSet::empty();
        stop.add(Signal::SIGTTOU);
        // Who takes it from the background is stopped otherwise.
        if stop.thread_block().is_ok() {
            tcsetpgrp(std::io::stdin(), self.0).ok();
            stop.thread_unblock().ok();
        }
    }
}

/// What a user types to start this program.
pub fn as_typed(own: Option<&OsStr>, by_cargo: bool) -> String {
    let own = own.map(Path::new).unwrap_or(Path::new("podway"));
    match (by_cargo, cfg!(debug_assertions)) {
        (true, true) => "cargo run --".to_owned(),
        (true, false) => "cargo run --release --".to_owned(),
        (false, _) => own.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_as_a_shell_finds_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("a directory");
        let file = |name: &str, mode: u32| {
            let path = directory.path().join(name);
            std::fs::write(&path, "").expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("changed");
            path
        };
        let (tool, text) = (file("tool", 0o755), file("text", 0o644));
        let path = std::env::join_paths(["/no/such/place".as_ref(), directory.path()]).expect("a path");
        let check = |program: &OsStr| check(program, Some(&path));
        assert_eq!(check(OsStr::new("tool")), Ok(()));
        assert_eq!(check(tool.as_os_str()), Ok(()));
        assert_eq!(check(OsStr::new("text")), Err(Unusable::NotExecutable));
        assert_eq!(check(text.as_os_str()), Err(Unusable::NotExecutable));
        assert_eq!(check(directory.path().as_os_str()), Err(Unusable::NotExecutable));
        for none in ["none", "/no/such/tool", ""] {
            assert_eq!(check(OsStr::new(none)), Err(Unusable::NotFound), "{none:?}");
        }
    }
}
