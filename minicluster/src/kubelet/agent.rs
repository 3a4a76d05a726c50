//! Agents: real processes in a pod's network, with files of the pod, and with no more rights than a pod gives.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_no_new_privs;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

use super::launch::Launch;
use crate::control::Signal;
use crate::net::NetNs;
use crate::pod_server::Log;
use crate::sandbox::{Program, mounts};

/// A process of the agent. A clone is another handle.
#[derive(Clone, Debug)]
pub struct Agent(Arc<Mutex<Option<Pid>>>);

impl Agent {
    /// Starts one in a pod's namespace. The receiver resolves with its exit code. Needs a runtime around it.
    pub fn start(
        program: &Program,
        launch: &Launch,
        pod: &str,
        namespace: &NetNs,
        log: Log,
    ) -> io::Result<(Agent, oneshot::Receiver<i32>)> {
        let runtime = tokio::runtime::Handle::current();
        let mut child = namespace.run(|| {
            let _inside = runtime.enter();
            spawn(program, launch, pod)
        })?;
        let number = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let agent = Agent(Arc::new(Mutex::new(number)));
        let (tell, ended) = oneshot::channel();
        for output in [child.stdout.take().map(Output::Out), child.stderr.take().map(Output::Err)].into_iter().flatten()
        {
            tokio::spawn(copy(output, log.clone()));
        }
        let own = agent.clone();
        tokio::spawn(async move {
            let status = child.wait().await;
            // Its number may be another's from here on.
            own.number().take();
            tell.send(status.map_or(1, code)).ok();
        });
        Ok((agent, ended))
    }

    fn number(&self) -> std::sync::MutexGuard<'_, Option<Pid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a signal, if it runs.
    pub fn signal(&self, signal: Signal) {
        let signal = match signal {
            Signal::Kill => nix::sys::signal::SIGKILL,
            Signal::Terminate => nix::sys::signal::SIGTERM,
            Signal::Stop => nix::sys::signal::SIGSTOP,
            Signal::Continue => nix::sys::signal::SIGCONT,
        };
        if let Some(number) = *self.number() {
            kill(number, signal).ok();
        }
    }
}

enum Output {
    Out(tokio::process::ChildStdout),
    Err(tokio::process::ChildStderr),
}

async fn copy(output: Output, log: Log) {
    let mut output: Box<dyn AsyncRead + Send + Unpin> = match output {
        Output::Out(output) => Box::new(output),
        Output::Err(output) => Box::new(output),
    };
    let mut buffer = vec![0; 4096];
    while let Ok(length @ 1..) = output.read(&mut buffer).await {
        log.write(&buffer[..length]);
    }
}

fn code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1)
}

/// Starts it from a thread that is in the pod's network, and ends: what is done to the thread is the child's.
fn spawn(program: &Program, launch: &Launch, pod: &str) -> io::Result<Child> {
    // What a process may do to its threads' mounts, it may where they share no working directory.
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
    mounts::keep_apart()?;
    let path = files(program, launch, pod)?;
    let mut command: Command = program.at(&path).into();
    command.args(&launch.args).current_dir("/").kill_on_drop(true);
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOSTNAME", pod);
    command.envs(launch.env.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    match launch.user {
        Some((user, group)) if is_known("uid_map", user) && is_known("gid_map", group) => {
            command.uid(user).gid(group);
        }
        // In a user namespace of one user there is nobody else to become: but nothing is allowed to this one.
        Some((1.., _)) => drop_rights()?,
        Some((0, _)) | None => {}
    }
    if !launch.may_gain_rights {
        set_no_new_privs()?;
    }
    command.spawn()
}

/// Whether the user namespace knows this user or group.
fn is_known(map: &str, id: u32) -> bool {
    let text = fs::read_to_string(format!("/proc/self/{map}")).unwrap_or_default();
    text.lines().any(|line| {
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
        let (first, _, count) = (numbers.next(), numbers.next(), numbers.next());
        first.zip(count).is_some_and(|(first, count)| (first..first.saturating_add(count)).contains(&u64::from(id)))
    })
}

/// Gives up all capabilities, now and for what is executed.
fn drop_rights() -> io::Result<()> {
    let bits = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED;
    rustix::thread::set_capabilities_secure_bits(bits)?;
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(())
}

/// A /tmp of its own, in which lies the program, where every user may start it; and how names are resolved.
fn files(program: &Program, launch: &Launch, pod: &str) -> io::Result<PathBuf> {
    // Opened before its directory may be covered.
    let original = fs::File::open(program.path())?;
    mounts::own_tmp()?;
    let path = Path::new("/tmp/podway-agent");
    fs::File::create(path)?;
    mounts::bind_file(&original, path)?;
    for (name, text) in [
        ("resolv.conf", launch.resolver.resolv_conf()),
        ("hosts", format!("127.0.0.1 localhost {pod}\n::1 localhost\n")),
    ] {
        let own = Path::new("/tmp").join(name);
        fs::write(&own, text)?;
        mounts::bind(&own, &Path::new("/etc").join(name))?;
    }
    Ok(path.to_owned())
}
