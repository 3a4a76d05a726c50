//! Namespaces of one's own in which the cluster runs, and the workstation beside it.
//!
//! ```text
//! starter ─spawns─▶ sandbox: user (if not root), network and mount namespace     in the host's PID namespace
//!                     └─▶ inside: PID 1 of a PID namespace; the cluster
//!                           ├─▶ hold: the workstation's network and mount namespace
//!                           └─▶ agents
//! ```
//!
//! Each arrow is our own program started anew (a [`Program`] with a [`stage`]), as a namespace is entered safely by a
//! process of one thread only. When *inside* ends, the kernel ends all it contains. *sandbox* ends it when the starter
//! closes its end of the standard input, dead or alive; it is ended by a signal when *sandbox* dies. Namespaces, devices
//! and mounts have no name in the host and go with the last process.

mod enter;
mod error;
mod inside;
pub(crate) mod mounts;
mod outer;
mod starter;
mod workstation;

use std::ffi::{OsStr, OsString};
use std::process::{Command, ExitCode};

use serde_json::Value;

pub use error::{Probe, SandboxError};
pub use inside::Inside;
pub use starter::{Options, Sandbox};
pub use workstation::Workstation;

/// The command line with which a program starts itself for a [`stage`]; the stage's own words follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    path: OsString,
    words: Vec<OsString>,
}

impl Program {
    /// A program and the words that lead to its call of [`stage`].
    pub fn new(path: impl Into<OsString>, words: impl IntoIterator<Item = impl Into<OsString>>) -> Program {
        Program { path: path.into(), words: words.into_iter().map(Into::into).collect() }
    }

    /// The program that runs, with these words.
    pub fn current(words: impl IntoIterator<Item = impl Into<OsString>>) -> std::io::Result<Program> {
        Ok(Program::new(std::env::current_exe()?, words))
    }

    /// Where it lies.
    pub fn path(&self) -> &OsStr {
        &self.path
    }

    /// A command that starts it where it also lies.
    pub fn at(&self, path: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(path);
        command.args(&self.words);
        command
    }

    /// A command that starts it with more words.
    pub fn command(&self, more: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.words).args(more);
        command
    }
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// What a program does when it was started by this module: `args` are the words after those of `program`.
///
/// Must be called by the first thread before there is another: before a runtime, too. `serve` is the cluster.
pub fn stage(program: &Program, args: &[OsString], serve: impl FnOnce(Inside) -> ExitCode) -> ExitCode {
    let words: Vec<&str> = args.iter().map_while(|word| word.to_str()).collect();
    match (words.as_slice(), args) {
        (["sandbox", settings], [_, _]) => outer::run(program, settings),
        (["inside", settings], [_, _]) => match serde_json::from_str::<Value>(settings) {
            Ok(settings) => inside::run(program, settings, serve),
            Err(error) => usage(&format!("settings: {error}")),
        },
        (["hold"], [_]) => workstation::hold(),
        (["enter", pid, "--", _, ..], [_, _, _, command @ ..]) => enter::run(program, pid, command),
        (["exec", "--", _, ..], [_, _, command @ ..]) => enter::exec(command),
        _ => usage("not a stage of the sandbox"),
    }
}

fn usage(what: &str) -> ExitCode {
    eprintln!("error: minicluster: {what}\nhint: enter PID -- CMD... runs a command on its workstation");
    ExitCode::from(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_a_shell_keeps_odd_words_whole() {
        assert_eq!(quoted("/opt/podway-0.1"), "/opt/podway-0.1");
        assert_eq!(quoted("/opt/it's here"), r"'/opt/it'\''s here'");
    }
}
