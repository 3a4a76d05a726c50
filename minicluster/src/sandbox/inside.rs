//! The cluster's own process: PID 1 of its namespace.

use std::fs::File;
use std::io::Write as _;
use std::process::ExitCode;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{Program, SandboxError, Workstation, enter, mounts};

/// Where the cluster runs: the calling process is in the node's namespaces.
#[derive(Debug)]
pub struct Inside {
    /// What the starter passed on.
    pub settings: Value,
    /// How this program starts itself.
    pub program: Program,
    /// The machine beside the cluster.
    pub workstation: Workstation,
}

impl Inside {
    /// A command line that runs what is appended to it on the workstation, in the host's own view.
    pub fn enter(&self) -> Vec<String> {
        enter::words(&self.program, self.workstation.host_pid())
    }
}

/// The node resolves names as any machine of its LAN.
const RESOLV_CONF: &str = "nameserver 192.0.2.53\n";
const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n";

pub(super) fn run(program: &Program, settings: Value, serve: impl FnOnce(Inside) -> ExitCode) -> ExitCode {
    match prepare(program) {
        Ok(workstation) => serve(Inside { settings, program: program.clone(), workstation }),
        Err(error) => {
            writeln!(std::io::stdout(), "{}", json!({"error": error.to_json()})).ok();
            ExitCode::FAILURE
        }
    }
}

fn prepare(program: &Program) -> Result<Workstation, SandboxError> {
    // Should the process outside be killed. One that is dead already has closed nothing that we hold: then the end
    // of the standard input ends us.
    set_pdeathsig(Signal::SIGKILL).map_err(|errno| SandboxError::failed("tie to the starter", errno))?;
    mounts::keep_apart().map_err(|error| SandboxError::failed("mount namespace", error))?;
    let host_proc = File::open("/proc").map_err(|error| SandboxError::failed("/proc", error))?;
    mounts::own_proc().ok();
    mounts::own_run_and_etc(RESOLV_CONF, HOSTS).map_err(|error| SandboxError::failed("/run and /etc", error))?;
    Workstation::start(program, &host_proc)
}
