//! The machine beside the cluster, from which it is used: a network and a mount namespace, held by a process.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;

use nix::sched::{CloneFlags, setns, unshare};

use super::{Program, SandboxError, mounts};
use crate::net::NetNs;

/// The workstation, seen from the cluster. A clone is another handle to the same one.
#[derive(Clone, Debug)]
pub struct Workstation(Arc<Held>);

#[derive(Debug)]
struct Held {
    net: NetNs,
    mounts: File,
    host_pid: u32,
    _holder: Child,
}

/// Its name server is one of the LAN; a search domain as offices have one.
const RESOLV_CONF: &str = "nameserver 192.0.2.53\nsearch corp.example\n";
const HOSTS: &str =
    "127.0.0.1 localhost\n::1 localhost ip6-localhost\n192.0.2.2 workstation.corp.example workstation\n";

impl Workstation {
    /// Starts the process that holds it. `host_proc` is /proc of the host.
    pub(super) fn start(program: &Program, host_proc: &File) -> Result<Workstation, SandboxError> {
        let failed = |error: io::Error| SandboxError::failed("workstation", error);
        let mut command = program.command(["hold"]);
        let of_host = host_proc.try_clone().map_err(failed)?;
        let mut holder = command.stdin(of_host).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let mut line = String::new();
        if let Some(output) = holder.stdout.take() {
            BufReader::new(output).read_line(&mut line).map_err(failed)?;
        }
        let host_pid: u32 =
            line.trim().parse().map_err(|_| SandboxError::failed("workstation", "its process ended"))?;
        let of_holder = format!("/proc/self/fd/{}/{host_pid}/ns", host_proc.as_raw_fd());
        let net = NetNs::open(format!("{of_holder}/net")).map_err(failed)?;
        let mounts = File::open(format!("{of_holder}/mnt")).map_err(failed)?;
        Ok(Workstation(Arc::new(Held { net, mounts, host_pid, _holder: holder })))
    }

    /// Its network namespace.
    pub fn net(&self) -> &NetNs {
        &self.0.net
    }

    /// The number that the host gives to the process that holds it: the target of `enter` and of nsenter.
    pub fn host_pid(&self) -> u32 {
        self.0.host_pid
    }

    /// Starts a command on it. Waits for the start alone.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        self.within(|| command.spawn())
    }

    /// Does something among its files and in its network. Blocks.
    pub fn within<T: Send>(&self, act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // What a process may do to its threads' mounts, it may where they share no working directory.
                unshare(CloneFlags::CLONE_FS)?;
                setns(&self.0.mounts, CloneFlags::CLONE_NEWNS)?;
                self.0.net.enter()?;
                act()
            });
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread on the workstation panicked")))
        })
    }
}

/// The process that holds it. Says on the standard output how the host, whose /proc is the standard input, numbers it.
pub(super) fn hold() -> ExitCode {
    match prepare() {
        Ok(()) => loop {
            std::thread::park();
        },
        Err(error) => {
            eprintln!("error: minicluster: workstation: {error}");
            ExitCode::FAILURE
        }
    }
}

fn prepare() -> io::Result<()> {
    let number = fs::read_link("/proc/self/fd/0/self")?;
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
    mounts::keep_apart()?;
    mounts::own_run_and_etc(RESOLV_CONF, HOSTS)?;
    writeln!(io::stdout(), "{}", number.display())
}
