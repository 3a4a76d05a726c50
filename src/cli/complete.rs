//! Completion of what is being typed: the command itself answers its shell, so that live names are among the answers.
//!
//! - [`candidates`]: the names. [`bash`]: what bash does in its own way.
//!
//! A completion prints candidates or nothing: no error, and nothing after less than a second. It starts no credential plugin.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use clap::{CommandFactory as _, ValueEnum};
use clap_complete::CompleteEnv;
use clap_complete::env::{Elvish, EnvCompleter, Fish, Shells, Zsh};

use super::args::{Cli, CompletionArgs};
use super::say::say;
use super::{Exit, Failure};
use crate::error::{Reason, UserError};
use bash::Bash;

pub mod bash;
pub mod candidates;

/// The variable by which a shell's script asks for candidates.
const VARIABLE: &str = "PODWAY_COMPLETE";
/// Whoever types waits for it.
const LIMIT: Duration = Duration::from_millis(900);

/// A shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// bash, from 4.4 on.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
    /// elvish.
    Elvish,
}

impl Shell {
    fn completer(self) -> &'static dyn EnvCompleter {
        match self {
            Shell::Bash => &Bash,
            Shell::Zsh => &Zsh,
            Shell::Fish => &Fish,
            Shell::Elvish => &Elvish,
        }
    }
}

/// Prints the script that makes a shell ask this program.
///
/// # Errors
///
/// This program has no name that a shell could call it by.
pub fn run(args: &CompletionArgs) -> Result<Exit, Failure> {
    let program = program().map_err(|error| {
        UserError::new(Reason::Internal, format!("completion: {error}"), "call podway by a plain path")
    })?;
    let mut script = Vec::new();
    let written = args.shell.completer().write_registration(VARIABLE, "podway", "podway", &program, &mut script);
    written.map_err(|error| UserError::new(Reason::Internal, format!("completion: {error}"), ""))?;
    say(String::from_utf8_lossy(&script).trim_end());
    Ok(Exit::Done)
}

/// How the shell calls this program: as it was called, by a whole path where that was a path.
fn program() -> io::Result<String> {
    let called = PathBuf::from(std::env::args_os().next().unwrap_or_else(|| "podway".into()));
    let program = match called.components().count() {
        0 | 1 => called,
        _ => std::path::absolute(called)?,
    };
    program.into_os_string().into_string().map_err(|path| io::Error::other(format!("{}: not UTF-8", path.display())))
}

/// Answers a shell, where one asks.
pub fn answered(args: &[OsString]) -> bool {
    if std::env::var_os(VARIABLE).is_none_or(|shell| shell.is_empty()) {
        return false;
    }
    std::panic::set_hook(Box::new(|_| {}));
    drop(rustls::crypto::ring::default_provider().install_default());
    let (done, end) = mpsc::channel();
    let args = args.to_vec();
    // What may hang (a file, a name server) hangs in there.
    std::thread::spawn(move || {
        let here = std::env::current_dir().ok();
        let shells: [&dyn EnvCompleter; 4] = [&Bash, &Zsh, &Fish, &Elvish];
        let asked = CompleteEnv::with_factory(Cli::command).var(VARIABLE).shells(Shells(&shells));
        drop(asked.try_complete(args, here.as_deref()));
        drop(io::stdout().flush());
        let _ = done.send(());
    });
    let _ = end.recv_timeout(LIMIT);
    true
}
