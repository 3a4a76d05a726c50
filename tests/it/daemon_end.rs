//! The daemon as a process: what the journal still holds when it ends is undone, whatever made it end.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use podway::net::os_journal::{Change, OsJournal};
use podway::net::resolver::LinkPlan;
use podway::net::resolver::resolv_conf::ResolvConf;

/// Ends with the test, also when that fails.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A daemon that sees an empty `/etc`, so that it puts nothing of this host in order; none where that is not permitted.
fn start(directory: &Path) -> Option<Daemon> {
    let program = r#"mount -t tmpfs none /etc && exec "$0" "$@""#;
    let private = |program: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", program]);
        command
    };
    let probe = private("mount -t tmpfs none /etc").stderr(Stdio::null()).status();
    if !probe.is_ok_and(|status| status.success()) {
        let required = std::env::var_os("PODWAY_REQUIRE_ROOT_TESTS").is_some();
        assert!(!required, "must not be left out here: no mount namespace");
        eprintln!("skipped: no mount namespace");
        return None;
    }
    let mut command = private(program);
    command.arg(env!("CARGO_BIN_EXE_podwayd")).arg("--runtime-dir").arg(directory.join("run"));
    command
        .arg("--state-dir")
        .arg(directory.join("state"))
        .env("PODWAY_CONFIG", "/dev/null")
        .env_remove("LISTEN_FDS")
        .env_remove("NOTIFY_SOCKET");
    Some(Daemon(command.stdin(Stdio::null()).spawn().expect("podwayd starts")))
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_a_session_left_changed_is_put_back_when_the_daemon_ends() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(mut daemon) = start(directory.path()) else { return };
    let run = directory.path().join("run");
    until("podwayd serves", || run.join("podway.sock").exists());

    let etc = directory.path().join("etc");
    fs::create_dir(&etc).expect("made");
    let file = etc.join("resolv.conf");
    fs::write(&file, "nameserver 192.0.2.53\n").expect("written");
    OsJournal::new(&run).record(&Change::ResolvConf { directory: etc.clone() }).expect("journaled");
    let plan = LinkPlan {
        ifindex: 7,
        interface: "podway0".into(),
        servers: vec!["246.246.0.2".parse().expect("an address")],
        search: Vec::new(),
        routing: Vec::new(),
    };
    ResolvConf::new(&etc).apply(&plan).expect("replaced");

    let ended = Command::new("kill").arg(daemon.0.id().to_string()).status().expect("kill runs");
    assert!(ended.success());
    until("podwayd ends", || daemon.0.try_wait().expect("it is ours").is_some());
    assert_eq!(fs::read_to_string(&file).expect("it is there"), "nameserver 192.0.2.53\n");
    assert_eq!(fs::read_dir(&etc).expect("listed").count(), 1, "the backup goes as well");
    assert!(!run.join("os-journal.json").exists());
}

#[test]
fn podway_shows_the_log_of_a_daemon_that_runs_and_says_when_it_ends() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(mut daemon) = start(directory.path()) else { return };
    let socket = directory.path().join("run/podway.sock");
    until("podwayd serves", || socket.exists());
    let podway = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_podway"));
        command
            .args(args)
            .env("PODWAY_SOCKET", &socket)
            .env("PODWAY_CONFIG", "/dev/null")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    };
    let shown = podway(&["logs", "-o", "json"]).output().expect("podway ran");
    let shown = String::from_utf8(shown.stdout).expect("UTF-8");
    let mut schema = crate::support::schema::Schema::of_podway();
    let lines: Vec<serde_json::Value> =
        shown.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
    lines.iter().for_each(|line| schema.check(line));
    assert!(lines.iter().any(|line| line["message"] == podway::daemon::SERVES), "{shown}");

    let mut following = podway(&["logs", "--follow"]).spawn().expect("podway starts");
    let mut first = String::new();
    let mut out = BufReader::new(following.stdout.take().expect("piped"));
    out.read_line(&mut first).expect("a line");
    assert!(!first.is_empty(), "it shows what was logged before");
    let ended = Command::new("kill").arg(daemon.0.id().to_string()).status().expect("kill runs");
    assert!(ended.success());
    until("podwayd ends", || daemon.0.try_wait().expect("it is ours").is_some());
    let ended = following.wait_with_output().expect("it ends with the daemon");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(3), "{said}");
    assert!(said.starts_with("error: logs: podwayd ended"), "{said}");
}
