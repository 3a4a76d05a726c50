//! The demo as a process, and the host before and after it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use crate::allowed::{NOBODY, skipped, tun_is_open};

/// On a machine that is busy with other tests.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Who runs the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// Who runs the test.
    Own,
    /// Somebody without rights.
    Nobody,
}

/// Those for whom the demo can be expected to work here.
pub fn users() -> Vec<User> {
    let mut users = Vec::new();
    if geteuid().is_root() || tun_is_open() {
        users.push(User::Own);
    } else {
        skipped("/dev/net/tun is closed to this user");
    }
    if geteuid().is_root() && tun_is_open() {
        users.push(User::Nobody);
    }
    users
}

/// podway in a place where everybody may start it, and the host as it was.
///
/// One at a time: what one test leaves behind would be found by another.
pub struct Host {
    directory: tempfile::TempDir,
    before: Traces,
    _alone: MutexGuard<'static, ()>,
}

/// What a program could leave on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Traces {
    devices: BTreeSet<String>,
    mounts: BTreeSet<String>,
    files: BTreeSet<PathBuf>,
}

static ALONE: Mutex<()> = Mutex::new(());

impl Host {
    pub fn new() -> Host {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
        fs::copy(env!("CARGO_BIN_EXE_podway"), directory.path().join("podway")).unwrap();
        fs::create_dir(directory.path().join("tmp")).unwrap();
        fs::set_permissions(directory.path().join("tmp"), fs::Permissions::from_mode(0o777)).unwrap();
        Host { directory, before: Traces::read(), _alone: alone }
    }

    pub fn program(&self) -> PathBuf {
        self.directory.path().join("podway")
    }

    pub fn demo(&self, user: User, args: &[&str]) -> Command {
        let mut command = Command::new(self.program());
        command.arg("demo").args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env_remove("CARGO").env("TMPDIR", self.directory.path().join("tmp"));
        if user == User::Nobody {
            command.uid(NOBODY.0).gid(NOBODY.1).current_dir("/");
        }
        command
    }

    /// Fails when the host is not as it was.
    pub fn assert_clean(&self) {
        assert_eq!(Traces::read(), self.before);
        assert_eq!(fs::read_dir(self.directory.path().join("tmp")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(self.directory.path()).unwrap().count(), 2);
    }
}

impl Traces {
    /// Of the host's own: what others do meanwhile, on a machine that serves a cluster too, is theirs.
    fn read() -> Traces {
        const OURS: [&str; 4] = ["podway0", "podway-agent", "podway-probe", "minicluster"];
        const DEVICES: [&str; 3] = ["lan0", "site0", "none0"];
        let ours = |name: &str| OURS.iter().any(|word| name.contains(word)) || DEVICES.contains(&name);
        let names = |directory: &str| fs::read_dir(directory).into_iter().flatten().flatten();
        let devices = names("/sys/class/net").map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let covered =
            |line: &&str| ours(line) || [" /run ", " /etc ", " /proc "].iter().any(|path| line.contains(path));
        let files = ["/tmp", "/run", "/run/podway", "/var/lib", "/var/lib/podway", "/etc", "/dev/shm"];
        Traces {
            devices: devices.filter(|name| ours(name)).collect(),
            mounts: mounts.lines().filter(covered).map(str::to_owned).collect(),
            files: files
                .into_iter()
                .flat_map(names)
                .map(|entry| entry.path())
                .filter(|path| path.starts_with("/run/podway") || ours(&path.to_string_lossy()))
                .collect(),
        }
    }
}

/// A demo that runs.
pub struct Running {
    pub child: Child,
    lines: BufReader<ChildStdout>,
    pub said: String,
}

impl Running {
    pub fn start(command: &mut Command) -> Running {
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Running { child, lines, said: String::new() }
    }

    /// Reads until a line says that.
    pub fn until(&mut self, words: &str) {
        loop {
            let from = self.said.len();
            if self.lines.read_line(&mut self.said).unwrap() == 0 {
                let mut complaint = String::new();
                self.child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
                panic!("no {words:?} in {}{complaint}", self.said);
            }
            if self.said[from..].contains(words) {
                return;
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// Its end, and what it said on stderr.
    pub fn end(mut self) -> (ExitStatus, String) {
        let status = ended(&mut self.child);
        let mut complaint = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
        (status, complaint)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that failed: everything that was started ends with its starter.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Waits for the end, with a limit.
pub fn ended(child: &mut Child) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(began.elapsed() < LIMIT, "the demo does not end");
        std::thread::yield_now();
    }
}

pub fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
}

/// Processes and the namespaces that they live in.
#[derive(Clone, Debug, Default)]
pub struct Family {
    pub pids: Vec<u32>,
    namespaces: BTreeSet<PathBuf>,
}

impl Family {
    /// A process and all that descend from it.
    pub fn of(root: u32) -> Family {
        let parents: Vec<(u32, u32)> = processes().filter_map(|pid| Some((pid, parent(pid)?))).collect();
        let mut pids = vec![root];
        let mut at = 0;
        while at < pids.len() {
            let above = pids[at];
            pids.extend(parents.iter().filter(|(_, parent)| *parent == above).map(|(pid, _)| *pid));
            at += 1;
        }
        let own: BTreeSet<PathBuf> = namespaces(std::process::id()).collect();
        let theirs = pids.iter().flat_map(|pid| namespaces(*pid)).filter(|namespace| !own.contains(namespace));
        Family { namespaces: theirs.collect(), pids }
    }

    /// The same, as soon as one of them has been started with these words.
    pub fn with(root: u32, command: &str) -> Family {
        let began = Instant::now();
        loop {
            let family = Family::of(root);
            if family.pids.iter().any(|pid| words(*pid) == command) {
                return family;
            }
            assert!(began.elapsed() < LIMIT, "no {command:?} in {family:?}");
            std::thread::yield_now();
        }
    }

    /// Waits until no process of it, and no process in one of its namespaces, is left.
    pub fn assert_gone(&self) {
        assert!(self.namespaces.len() >= 4, "a network, mounts and processes of its own: {:?}", self.namespaces);
        let began = Instant::now();
        loop {
            let left = self.pids.iter().copied().find(|pid| runs(*pid)).or_else(|| {
                processes()
                    .filter(|pid| runs(*pid))
                    .find(|pid| namespaces(*pid).any(|ns| self.namespaces.contains(&ns)))
            });
            let Some(left) = left else { return };
            let what = fs::read_to_string(format!("/proc/{left}/cmdline")).unwrap_or_default().replace('\0', " ");
            assert!(began.elapsed() < LIMIT, "process {left} is left: {what}");
            std::thread::yield_now();
        }
    }
}

fn processes() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn namespaces(pid: u32) -> impl Iterator<Item = PathBuf> {
    let of = move |kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
    ["net", "mnt", "pid", "pid_for_children", "user"].into_iter().filter_map(of)
}

fn stat(pid: u32) -> Option<String> {
    Some(fs::read_to_string(format!("/proc/{pid}/stat")).ok()?.rsplit_once(')')?.1.trim().to_owned())
}

fn parent(pid: u32) -> Option<u32> {
    stat(pid)?.split_whitespace().nth(1)?.parse().ok()
}

/// Whether it still runs: one that only waits to be asked how it ended does not.
fn runs(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| !stat.starts_with('Z') && !stat.starts_with('X'))
}

/// What a process was started with.
pub fn words(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ")
}
