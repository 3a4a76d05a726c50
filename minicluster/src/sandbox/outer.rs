//! The process between the starter and the cluster: makes the namespaces, ends the cluster with the starter.

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::process::{ExitCode, ExitStatus};
use std::sync::mpsc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getegid, geteuid};
use serde_json::json;

use super::{Probe, Program, SandboxError};

/// Makes the namespaces and runs the cluster in them until it ends or the standard input hangs up.
pub(super) fn run(program: &Program, settings: &str) -> ExitCode {
    match contain(program, settings) {
        Ok(status) => code(status),
        Err(error) => {
            // To whoever reads the first line. One who is gone needs no answer.
            writeln!(std::io::stdout(), "{}", json!({"error": error.to_json()})).ok();
            ExitCode::FAILURE
        }
    }
}

/// The exit code of a process whose child ended so, as shells count.
pub(super) fn code(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt as _;
    let number = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(number).unwrap_or(1))
}

fn contain(program: &Program, settings: &str) -> Result<ExitStatus, SandboxError> {
    let apart = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    let direct = geteuid().is_root() && unshare(apart).is_ok();
    if !direct {
        own_users()?;
        unshare(apart).map_err(|errno| Probe::read().explain("network and mount namespace", errno))?;
    }
    // The kernel lets nobody make threads after the step to another PID namespace.
    let (started, child) = mpsc::channel();
    std::thread::spawn(move || end_with_the_starter(&child));
    unshare(CloneFlags::CLONE_NEWPID).map_err(|errno| Probe::read().explain("PID namespace", errno))?;
    let inside = program.command(["inside", settings]).spawn();
    let mut inside = inside.map_err(|error| SandboxError::failed("starting the cluster", error))?;
    if let Ok(pid) = i32::try_from(inside.id()) {
        started.send(Pid::from_raw(pid)).ok();
    }
    // Returns when all processes of the PID namespace are gone.
    inside.wait().map_err(|error| SandboxError::failed("waiting for the cluster", error))
}

/// Becomes root of a user namespace in which nobody else is known.
fn own_users() -> Result<(), SandboxError> {
    let (user, group) = (geteuid(), getegid());
    let explain = |errno| Probe::read().explain("user namespace", errno);
    unshare(CloneFlags::CLONE_NEWUSER).map_err(explain)?;
    for (file, text) in
        [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {user} 1")), ("gid_map", format!("0 {group} 1"))]
    {
        std::fs::write(format!("/proc/self/{file}"), text)
            .map_err(|error| explain(error.raw_os_error().map_or(Errno::EPERM, Errno::from_raw)))?;
    }
    Ok(())
}

/// Waits until nobody can write to the standard input any more, which is how a pipe tells that its other end died.
fn end_with_the_starter(child: &mpsc::Receiver<Pid>) {
    let Ok(child) = child.recv() else { return };
    let input = std::io::stdin();
    loop {
        let mut wanted = [PollFd::new(input.as_fd(), PollFlags::empty())];
        match poll(&mut wanted, PollTimeout::NONE) {
            Err(Errno::EINTR) | Ok(0) => {}
            _ => break,
        }
    }
    // Gone already is fine. Its number is not another's: it is waited for after this process only.
    kill(child, Signal::SIGKILL).ok();
}
