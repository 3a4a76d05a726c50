//! The program `podwayd`: arguments, configuration, log, then the daemon.

#![expect(clippy::print_stdout, reason = "what `cleanup` has undone goes to stdout")]

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::Directories;
use crate::config::Config;
use crate::logs::LogRing;
use crate::logs::layer::RingLayer;
use crate::net::os_journal::Undone;

/// Connects this host to Kubernetes clusters, on behalf of `podway`.
#[derive(Parser)]
#[command(name = "podwayd", version)]
struct Args {
    /// Configuration file; the default one may be absent.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The control socket.
    #[arg(long)]
    socket: Option<PathBuf>,
    /// Log filter, as in `info,podway::actors=debug`.
    #[arg(long)]
    log: Option<String>,
    /// Where the socket and the journal live.
    #[arg(long, env = "RUNTIME_DIRECTORY", default_value = "/run/podway", global = true)]
    runtime_dir: PathBuf,
    /// Where keys live.
    #[arg(long, env = "STATE_DIRECTORY", default_value = "/var/lib/podway", global = true)]
    state_dir: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Undo what an earlier run left on this host, and end.
    Cleanup,
}

/// The configuration file that may be absent.
const CONFIG: &str = "/etc/podway/config.toml";

/// Runs the daemon until a signal ends it; `args` begin with the program's name. Must be called outside any runtime.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match carry_out(Args::parse_from(args)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: podwayd: {error:#}");
            let denied = |cause: &std::io::Error| cause.kind() == std::io::ErrorKind::PermissionDenied;
            if error.chain().any(|cause| cause.downcast_ref().is_some_and(denied)) {
                eprintln!("hint: it runs as root: sudo podwayd, or sudo systemctl start podwayd");
            }
            ExitCode::FAILURE
        }
    }
}

fn carry_out(args: Args) -> anyhow::Result<ExitCode> {
    let directories = Directories { runtime: args.runtime_dir, state: args.state_dir };
    let mut config = read_config(args.config)?;
    if let Some(log) = args.log {
        config.log = log;
    }
    match args.socket {
        Some(socket) => config.socket = socket,
        // A runtime directory of one's own has a socket of its own.
        None if config.socket == Config::default().socket => config.socket = directories.runtime.join("podway.sock"),
        None => {}
    }
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
        None => super::run(config, directories, logs).map(|()| ExitCode::SUCCESS),
    }
}

fn read_config(path: Option<PathBuf>) -> anyhow::Result<Config> {
    let text = match &path {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("configuration {}", path.display()))?,
        // Only a missing file means the defaults: one that cannot be read was meant to be.
        None => match std::fs::read_to_string(CONFIG) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read.with_context(|| format!("configuration {CONFIG}"))?,
        },
    };
    let path = path.unwrap_or_else(|| CONFIG.into());
    Config::read(&path, &text, |name| std::env::var(name).ok()).context("configuration")
}

/// To the journal where systemd reads it, else to stderr; never to both. The latest of it is kept for `podway logs`.
fn init_log(filter: &str) -> anyhow::Result<LogRing> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter).with_context(|| format!("log filter {filter:?}"))?;
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
