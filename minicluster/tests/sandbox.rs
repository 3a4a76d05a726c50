//! The sandbox as its starter sees it: started, entered, killed.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test says what it expects"
)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use podway_minicluster::sandbox::{Options, Program, Sandbox, SandboxError};
use serde_json::json;

const BINARY: &str = env!("CARGO_BIN_EXE_podway-minicluster");

/// An ordinary user, as everybody's machine has one.
const NOBODY: (u32, u32) = (65534, 65534);

/// Says that a test was left out; fails where nothing may be.
fn skipped(why: &str) {
    assert!(std::env::var_os("PODWAY_REQUIRE_ROOT_TESTS").is_none(), "must not be left out here: {why}");
    println!("skipped: {why}");
}

fn options(binary: &Path, user: Option<(u32, u32)>) -> Options {
    let program = Program::new(binary, ["stage"]);
    Options { program, settings: json!({}), patience: Duration::from_secs(30), needs_tun: false, user }
}

/// Starts one; `None` where the kernel forbids it.
fn start(options: Options) -> Option<Sandbox> {
    match Sandbox::start(options) {
        Ok(sandbox) => Some(sandbox),
        Err(error @ SandboxError::Forbidden { .. }) => {
            skipped(&format!("{error}; hint: {:?}", error.hint()));
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// The users of this test: who runs it, and an ordinary one if that is root. The program lies where both may start it.
fn as_each_user(test: impl Fn(Options)) {
    let directory = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    let binary = directory.path().join("podway-minicluster");
    // By another process: what a test starts meanwhile would hold a file that we write, which then cannot be started.
    output(Command::new("cp").args([Path::new(BINARY), &binary]));
    test(options(&binary, None));
    if geteuid().is_root() {
        test(options(&binary, Some(NOBODY)));
    } else {
        skipped("the other user");
    }
}

fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_workstation_is_a_machine_of_its_own() {
    as_each_user(|options| {
        let Some(sandbox) = start(options) else { return };
        let host = fs::read_link("/proc/self/ns/net").unwrap();
        let there = output(&mut sandbox.command(["readlink", "/proc/self/ns/net"]));
        assert_ne!(there.trim(), host.to_str().unwrap());
        let files = "cat /etc/resolv.conf; grep ^hosts: /etc/nsswitch.conf; echo changed >/etc/new; mv /etc/new /etc/resolv.conf; cat /etc/resolv.conf; ls -d /run/systemd /run/dbus /run/nscd 2>/dev/null; cat /proc/net/dev | grep -c :; id -u";
        let seen = output(&mut sandbox.command(["sh", "-c", files]));
        assert_eq!(seen, "nameserver 192.0.2.53\nsearch corp.example\nhosts: files dns\nchanged\n2\n0\n");
        assert!(!Path::new("/etc/new").exists());
    });
}

#[test]
fn a_command_there_ends_as_the_command_did() {
    as_each_user(|options| {
        let Some(sandbox) = start(options) else { return };
        let code = |script: &str| sandbox.command(["sh", "-c", script]).status().unwrap().code();
        assert_eq!((code("exit 7"), code("kill -9 $$")), (Some(7), Some(137)));
        assert_eq!(sandbox.command(["/no/such/program"]).stderr(Stdio::null()).status().unwrap().code(), Some(127));
        // From its own PID namespace, in which the cluster is the first process.
        assert_eq!(
            output(&mut sandbox.command(["sh", "-c", "tr '\\0' ' ' </proc/1/cmdline | grep -o inside"])),
            "inside\n"
        );
    });
}

#[test]
fn util_linux_enters_as_well() {
    as_each_user(|options| {
        let user = options.user;
        let Some(sandbox) = start(options) else { return };
        let line = format!("{} cat /etc/resolv.conf", sandbox.enter_lines()[1]);
        let mut command = Command::new("sh");
        command.args(["-c", &line]);
        if let Some((user, group)) = user {
            std::os::unix::process::CommandExt::gid(&mut command, group);
            std::os::unix::process::CommandExt::uid(&mut command, user);
        }
        assert_eq!(output(&mut command), "nameserver 192.0.2.53\nsearch corp.example\n");
    });
}

/// Processes of the sandbox, as the host sees them: those that are in one of its namespaces.
fn processes(sandbox: &Sandbox) -> BTreeSet<u32> {
    let mut all = BTreeSet::from([sandbox.pid()]);
    loop {
        let before = all.len();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            if parent(pid).is_some_and(|parent| all.contains(&parent)) {
                all.insert(pid);
            }
        }
        if all.len() == before {
            return all;
        }
    }
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Whether it still runs: one that only waits to be asked how it ended does not.
fn runs(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')))
}

fn wait_until_gone(all: &BTreeSet<u32>) {
    let began = Instant::now();
    while let Some(left) = all.iter().find(|pid| runs(**pid)) {
        assert!(began.elapsed() < Duration::from_secs(20), "process {left} outlived the sandbox");
        std::thread::yield_now();
    }
}

fn mounts() -> String {
    fs::read_to_string("/proc/self/mounts").unwrap()
}

#[test]
fn whichever_of_its_processes_is_killed_nothing_is_left() {
    as_each_user(|options| {
        let before = mounts();
        let Some(first) = start(options.clone()) else { return };
        let count = processes(&first).len();
        assert!(count >= 3, "sandbox, inside, hold: {count}");
        drop(first);
        for victim in 0..count {
            let sandbox = start(options.clone()).unwrap();
            let mut visitor = sandbox.command(["sleep", "600"]).spawn().unwrap();
            let all = processes(&sandbox);
            let pid = *all.iter().nth(victim).unwrap();
            kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
            // The workstation's holder alone is no reason for the others to end; the starter's end is.
            drop(sandbox);
            wait_until_gone(&all);
            assert!(!visitor.wait().unwrap().success());
        }
        assert_eq!(mounts(), before);
    });
}

#[test]
fn it_ends_with_its_starter() {
    as_each_user(|options| {
        // A starter of its own, that can be killed: a shell that holds the other end of the pipe.
        let mut starter = Command::new("sh");
        let sandbox = options.program.command(["sandbox", "{}"]);
        starter.args(["-c", "sleep 600 | \"$@\"", "sh"]).arg(sandbox.get_program()).args(sandbox.get_args());
        starter.stdin(Stdio::null()).stdout(Stdio::piped());
        if let Some((user, group)) = options.user {
            std::os::unix::process::CommandExt::gid(&mut starter, group);
            std::os::unix::process::CommandExt::uid(&mut starter, user);
        }
        let mut starter = starter.spawn().unwrap();
        let mut first = String::new();
        let output = starter.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut first).unwrap();
        if first.contains("forbidden") {
            starter.wait().unwrap();
            return skipped(&first);
        }
        assert!(first.contains("workstation"), "{first}");
        let children = |of: u32| {
            let all = fs::read_dir("/proc").unwrap().flatten();
            let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
            numbers.filter(|pid| parent(*pid) == Some(of)).collect::<Vec<_>>()
        };
        let mut all = BTreeSet::from_iter(children(starter.id()));
        let sleeper =
            *all.iter().find(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap() == "sleep\n").unwrap();
        for _ in 0..3 {
            all.extend(all.clone().into_iter().flat_map(children));
        }
        assert!(all.len() >= 4, "{all:?}");
        kill(Pid::from_raw(sleeper.try_into().unwrap()), Signal::SIGKILL).unwrap();
        wait_until_gone(&all);
        starter.wait().unwrap();
    });
}
