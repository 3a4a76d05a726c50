//! The program `podwayd`: arguments, configuration, log, then the daemon.

#![expect(clippy::print_stdout, reason = "what `cleanup` has undone goes to stdout")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::{Directories, Shown, Stage};
use crate::config::layers::{Origin, Setting, shown};
use crate::config::{self, Config, ConfigError, DaemonFlags, Looked};
use crate::core_files;
use crate::logs::LogRing;
use crate::logs::layer::RingLayer;
use crate::net::os_journal::Undone;

/// Connects this host to Kubernetes clusters, on behalf of `podway`.
#[derive(Parser)]
#[command(name = "podwayd", version)]
struct Args {
    /// Configuration file; the default one, /etc/podway/config.toml, may be absent.
    #[arg(long, env = config::ONLY_FILE)]
    config: Option<PathBuf>,
    /// The control socket.
    #[arg(long)]
    socket: Option<PathBuf>,
    /// Log filter, as in `info,podway::actors=debug`.
    #[arg(long)]
    log: Option<String>,
    /// Where the socket and the journal live.
    #[arg(long, env = "RUNTIME_DIRECTORY", default_value = RUNTIME_DIR, global = true)]
    runtime_dir: PathBuf,
    /// Where keys live.
    #[arg(long, env = "STATE_DIRECTORY", default_value = STATE_DIR, global = true)]
    state_dir: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Undo what an earlier run left on this host, and end.
    Cleanup,
}

const RUNTIME_DIR: &str = "/run/podway";
const STATE_DIR: &str = "/var/lib/podway";

/// What bulk flows have in front of carriers and programs, in bytes.
const KEPT_FREE: i32 = 8 << 20;

/// Runs the daemon until a signal ends it; `args` begin with the program's name. Must be called outside any runtime.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    podway_tunnel::heap::keep_freed(KEPT_FREE);
    match carry_out(Args::parse_from(args)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: podwayd: {error:#}\nhint: {}", hint(&error));
            ExitCode::FAILURE
        }
    }
}

fn carry_out(args: Args) -> anyhow::Result<ExitCode> {
    let directories = Directories { runtime: args.runtime_dir, state: args.state_dir };
    let file = match args.config.filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => Looked::at(path, true),
        // Only a missing file means the defaults: one that cannot be read was meant to be.
        None => Looked::at(config::HOST_FILE.into(), false),
    };
    let file = file.context(Stage::Configuration)?;
    // A runtime directory of one's own has a socket of its own.
    let own_directory =
        (directories.runtime != Path::new(RUNTIME_DIR)).then(|| directories.runtime.join("podway.sock"));
    let (config, settings) = settings(&file, args.socket, args.log, own_directory).context(Stage::Configuration)?;
    let settings = settings.into_iter().chain([
        directory("runtime_dir", "--runtime-dir", ("RUNTIME_DIRECTORY", RUNTIME_DIR), &directories.runtime),
        directory("state_dir", "--state-dir", ("STATE_DIRECTORY", STATE_DIR), &directories.state),
    ]);
    let settings = settings.collect();
    let logs = init_log(&config.log)?;
    match args.command {
        Some(Command::Cleanup) => {
            let undone = super::cleanup(&directories);
            undone.done.iter().for_each(|what| println!("{what}"));
            undone.left.iter().for_each(|what| eprintln!("error: cleanup: {what}"));
            if undone == Undone::default() {
                println!("nothing was left behind");
            }
            Ok(if undone.left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        None => {
            core_files::none();
            super::run(config, directories, Shown { logs, settings }).map(|()| ExitCode::SUCCESS)
        }
    }
}

/// What to do about an error that keeps the daemon from serving.
fn hint(error: &anyhow::Error) -> String {
    if let Some(wrong) = error.downcast_ref::<ConfigError>() {
        return wrong.hint();
    }
    let denied = |cause: &std::io::Error| cause.kind() == std::io::ErrorKind::PermissionDenied;
    if error.chain().any(|cause| cause.downcast_ref().is_some_and(denied)) {
        return "it runs as root: sudo podwayd, or sudo systemctl start podwayd".to_owned();
    }
    let hint = match error.downcast_ref::<Stage>() {
        Some(Stage::Configuration) => "correct it, or go without it: the defaults do",
        Some(Stage::LogFilter) => "such as --log info, or --log info,podway=debug",
        Some(Stage::Directory) => "name one that it may write to with --runtime-dir and --state-dir",
        Some(Stage::Another) => "use that one, or end it first: sudo systemctl stop podwayd",
        Some(Stage::Socket) => "use who serves it, or give this one another with --socket",
        None => "see its log: journalctl -u podwayd",
    };
    hint.to_owned()
}

/// The settings; the socket in the runtime directory where nothing says another.
fn settings(
    file: &Looked,
    socket: Option<PathBuf>,
    log: Option<String>,
    own_directory: Option<PathBuf>,
) -> Result<(Config, Vec<Setting>), ConfigError> {
    let flags = DaemonFlags { socket: socket.map(|socket| ("--socket", socket)), log };
    let (config, listed) = Config::of(file.source(), &config::variable, flags.clone())?;
    match own_directory {
        Some(own) if config.socket == Config::default().socket && flags.socket.is_none() => {
            let flags = DaemonFlags { socket: Some(("--runtime-dir", own)), ..flags };
            Config::of(file.source(), &config::variable, flags)
        }
        Some(_) | None => Ok((config, listed)),
    }
}

/// A directory as a setting: clap has put the flag over the variable.
fn directory(key: &str, flag: &str, (variable, default): (&str, &str), value: &Path) -> Setting {
    let from = if std::env::var_os(variable).is_some_and(|said| said == value.as_os_str()) {
        Origin::Variable { name: variable.to_owned() }
    } else if value == Path::new(default) {
        Origin::Default
    } else {
        Origin::Flag { name: flag.to_owned() }
    };
    Setting { key: key.to_owned(), value: shown(&value), from }
}

/// To the journal where systemd reads it, else to stderr; never to both. The latest of it is kept for `podway logs`.
fn init_log(filter: &str) -> anyhow::Result<LogRing> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .with_context(|| format!("{filter:?}"))
        .context(Stage::LogFilter)?;
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    let stderr = journal.is_none().then(|| {
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(coloured(
            std::io::IsTerminal::is_terminal(&std::io::stderr()),
            std::env::var_os("NO_COLOR").as_deref(),
        ))
    });
    let ring = LogRing::default();
    let kept = RingLayer(ring.clone());
    tracing_subscriber::registry().with(filter).with(kept).with(journal).with(stderr).try_init().context("log")?;
    Ok(ring)
}

/// Colours are for terminals, and for who has not said no (no-color.org).
fn coloured(terminal: bool, no_color: Option<&std::ffi::OsStr>) -> bool {
    terminal && no_color.is_none_or(std::ffi::OsStr::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_coloured_on_a_terminal_alone_and_not_against_the_users_will() {
        assert!(coloured(true, None) && coloured(true, Some("".as_ref())));
        assert!(!coloured(false, None) && !coloured(true, Some("1".as_ref())));
    }
}
