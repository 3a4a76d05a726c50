//! A command on the workstation, from another terminal of the same user.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

use super::{Program, outer};

/// The words that run what follows them on the workstation that `host_pid` holds.
pub(super) fn words(program: &Program, host_pid: u32) -> Vec<String> {
    let command = program.command(["enter", &host_pid.to_string(), "--"]);
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect()
}

/// The same as a line for a shell, with util-linux's own program.
pub(super) fn nsenter(words: &[String]) -> String {
    let pid = words.iter().rev().nth(1).map_or("0", String::as_str);
    let users = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/user")).ok();
    let user = if users(pid) == users("self") { "" } else { "--user --preserve-credentials " };
    format!("nsenter --target {pid} {user}--net --mount --pid --wd=/ --")
}

/// Enters the workstation's namespaces, and runs the command in a child: only a child is in the PID namespace.
pub(super) fn run(program: &Program, pid: &str, command: &[OsString]) -> ExitCode {
    let Ok(number) = pid.parse::<u32>() else {
        return fail(&format!("{pid}: not the number of a process"), 2);
    };
    let directory = std::env::current_dir();
    if let Err(error) = enter(number) {
        return fail(&format!("workstation of process {pid}: {error}"), 1);
    }
    // A place that is not there on the workstation either: its root then.
    if let Ok(directory) = directory {
        std::env::set_current_dir(directory).ok();
    }
    let child = program.command([OsStr::new("exec"), OsStr::new("--")]).args(command).spawn();
    child.and_then(wait).unwrap_or_else(|error| fail(&format!("{}: {error}", command[0].display()), 1))
}

fn enter(pid: u32) -> io::Result<()> {
    let words = std::fs::read(format!("/proc/{pid}/cmdline"))?;
    if !words.ends_with(b"\0hold\0") {
        return Err(io::Error::new(io::ErrorKind::NotFound, "it is not one of a cluster"));
    }
    let open = |name: &str| File::open(format!("/proc/{pid}/ns/{name}"));
    let kinds =
        [("net", CloneFlags::CLONE_NEWNET), ("mnt", CloneFlags::CLONE_NEWNS), ("pid", CloneFlags::CLONE_NEWPID)];
    let users = open("user")?;
    let same_users = users.metadata()?.ino() == File::open("/proc/self/ns/user")?.metadata()?.ino();
    let files: Vec<_> = kinds.iter().map(|(name, kind)| Ok((open(name)?, *kind))).collect::<io::Result<_>>()?;
    if !same_users {
        setns(&users, CloneFlags::CLONE_NEWUSER)?;
    }
    for (file, kind) in &files {
        setns(file, *kind)?;
    }
    Ok(())
}

/// Waits for the child, which has the terminal: what is typed reaches it directly, what is sent to us is passed on.
fn wait(mut child: std::process::Child) -> io::Result<ExitCode> {
    let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _inside = runtime.enter();
    let mut ended = signal(SignalKind::child())?;
    let (mut terminate, mut hang_up) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    let (_typed, _quit) = (signal(SignalKind::interrupt())?, signal(SignalKind::quit())?);
    runtime.block_on(async {
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(outer::code(status));
            }
            let passed = tokio::select! {
                _ = ended.recv() => continue,
                _ = terminate.recv() => Signal::SIGTERM,
                _ = hang_up.recv() => Signal::SIGHUP,
            };
            kill(pid, passed).ok();
        }
    })
}

/// In the namespaces: becomes the command, which ends with whoever entered.
pub(super) fn exec(command: &[OsString]) -> ExitCode {
    if let Err(errno) = set_pdeathsig(Signal::SIGKILL) {
        return fail(&format!("tie to the caller: {errno}"), 1);
    }
    let error = Command::new(&command[0]).args(&command[1..]).exec();
    // As shells do.
    let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
    fail(&format!("{}: {error}", command[0].display()), code)
}

fn fail(what: &str, code: u8) -> ExitCode {
    eprintln!("error: minicluster: {what}");
    ExitCode::from(code)
}
