//! The command as a user runs it: a process, against a daemon that says what a test wants.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

const CANARY: &str = "canary-7f3a";

/// What a daemon says: its first line, and the lines to each request. It closes when it has said all.
#[derive(Clone)]
struct Script {
    greeting: String,
    answers: Vec<String>,
}

impl Script {
    fn of(answers: &[Value]) -> Script {
        Script { greeting: r#"{"podway":1}"#.to_owned(), answers: answers.iter().map(Value::to_string).collect() }
    }

    fn raw(greeting: &str, answers: &[&str]) -> Script {
        Script { greeting: greeting.to_owned(), answers: answers.iter().map(|line| (*line).to_owned()).collect() }
    }
}

/// A socket with a scripted daemon behind it, and what it was asked.
struct Fake {
    dir: tempfile::TempDir,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    fn start(script: Script) -> Fake {
        let fake = Fake { dir: tempfile::tempdir().expect("a directory"), requests: Arc::default() };
        let listener = UnixListener::bind(fake.socket()).expect("listening");
        let requests = Arc::clone(&fake.requests);
        // It ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.expect("a connection");
                let (script, requests) = (script.clone(), Arc::clone(&requests));
                thread::spawn(move || drop(serve(&stream, &script, &requests)));
            }
        });
        fake
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    fn kubeconfig(&self) -> PathBuf {
        let path = self.dir.path().join("kubeconfig");
        let text = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "kind",
            "clusters": [{ "name": "c", "cluster": { "server": "https://192.0.2.1:6443" } }],
            "users": [{ "name": "u", "user": { "token": CANARY } }],
            "contexts": [{ "name": "kind", "context": { "cluster": "c", "user": "u", "namespace": "shop" } }],
        });
        std::fs::write(&path, text.to_string()).expect("written");
        path
    }

    fn run(&self, args: &[&str]) -> Ran {
        let output = Command::new(env!("CARGO_BIN_EXE_podway"))
            .args(args)
            .env_clear()
            .env("PODWAY_SOCKET", self.socket())
            .env("KUBECONFIG", self.kubeconfig())
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .output()
            .expect("podway ran");
        let ran = Ran::from(output);
        assert!(!ran.all().contains(CANARY), "{args:?} prints a credential: {}", ran.all());
        assert!(!ran.all().contains('\u{1b}'), "{args:?} colours a pipe: {}", ran.all());
        ran
    }

    fn asked(&self) -> Vec<String> {
        self.requests.lock().expect("no test panicked with it").clone()
    }
}

fn serve(mut stream: &UnixStream, script: &Script, requests: &Mutex<Vec<String>>) -> std::io::Result<()> {
    writeln!(stream, "{}", script.greeting)?;
    let mut lines = BufReader::new(stream).lines();
    let _greeting = lines.next();
    let Some(Ok(request)) = lines.next() else { return Ok(()) };
    requests.lock().expect("no test panicked with it").push(request);
    for (at, answer) in script.answers.iter().enumerate() {
        match answer.strip_suffix('…') {
            Some(half) => write!(stream, "{half}")?,
            None if answer == "wait" => drop(lines.next()),
            None => writeln!(stream, "{answer}")?,
        }
        stream.flush()?;
        assert!(at < 100, "a script is short");
    }
    Ok(())
}

struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        Ran {
            code: output.status.code().expect("it was not killed"),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }
}

impl Ran {
    fn all(&self) -> String {
        format!("exit {}\n--- stdout\n{}--- stderr\n{}", self.code, self.stdout, self.stderr)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).expect("one JSON document")
    }
}

fn status(ready: bool) -> Value {
    let condition = |kind: &str, message: &str| {
        let holds = message.is_empty();
        json!({
            "type": kind, "status": if holds { "True" } else { "False" }, "reason": "Some",
            "message": message, "lastTransitionTime": "2026-11-23T02:01:00Z",
        })
    };
    let why = if ready { "" } else { "shop/deployment/web: no pod runs" };
    let mut status = serde_json::to_value(podway::status::SessionStatus::default()).expect("JSON");
    let known = json!({
        "name": "demo", "context": "kind", "server": "https://192.0.2.1:6443", "namespace": "shop",
        "phase": "Connected",
        "conditions": [condition("Ready", why), condition("RoutesReady", "")],
        "workloads": [{
            "workload": "shop/deployment/web", "state": if ready { "Ready" } else { "Pending" },
            "message": if ready { "" } else { "no pod runs" }, "links": [],
        }],
        "dns": {
            "backend": "resolved", "server": "246.246.0.1", "domains": [], "ready": ready,
            "message": "names are attached in part",
        },
        "warnings": ["DNS: names are attached in part"],
        "suggestion": "podway status demo",
    });
    for (key, value) in known.as_object().expect("an object") {
        status[key] = value.clone();
    }
    status
}

fn result(value: Value) -> Value {
    json!({ "id": 1, "result": value })
}

fn event(ready: bool) -> Value {
    json!({ "id": 1, "event": "status", "status": status(ready) })
}

fn refused(reason: &str) -> Value {
    json!({ "id": 1, "error": { "reason": reason, "message": "connect demo: it is so", "hint": "do that" } })
}

fn connected(outcome: Value, ready: bool) -> Script {
    let steps = json!([
        { "at_ms": 40, "text": "cluster answers", "mark": "ok" },
        { "at_ms": 12_340, "text": "routes are on device podway0", "mark": "warn" },
    ]);
    let mut end = outcome;
    end["status"] = status(ready);
    Script::of(&[json!({ "id": 1, "event": "progress", "steps": steps }), result(end)])
}

fn sessions(ready: &[bool]) -> Script {
    let sessions: Vec<Value> = ready.iter().map(|ready| status(*ready)).collect();
    Script::of(&[result(json!({ "sessions": sessions }))])
}

#[test]
fn connect_is_printed_as_committed_and_sends_the_credential() {
    let fake = Fake::start(connected(json!({ "outcome": "ready" }), true));
    insta::assert_snapshot!("connect_plain", fake.run(&["connect"]).all());
    assert!(fake.asked()[0].contains(CANARY), "the daemon was given no credential");
    let degraded = Fake::start(connected(json!({ "outcome": "degraded", "pending": ["web: no pod runs"] }), false));
    insta::assert_snapshot!("connect_degraded", degraded.run(&["connect"]).all());
    insta::assert_snapshot!("connect_json", fake.run(&["connect", "-o", "json"]).all());
}

#[test]
fn a_connect_that_finds_its_connection_says_so_in_one_line() {
    let again = Script::of(&[result(json!({ "outcome": "ready", "already": true, "status": status(true) }))]);
    let ran = Fake::start(again).run(&["connect"]);
    assert_eq!(ran.stdout, "already connected demo to namespace shop\ntry: podway status demo\n");
    assert_eq!((ran.code, ran.stderr.as_str()), (0, "warning: DNS: names are attached in part\n"));
}

#[test]
fn connect_exits_as_it_ended() {
    for (outcome, code) in [
        (json!({ "outcome": "ready" }), 0),
        (json!({ "outcome": "degraded", "pending": ["web"] }), 4),
        (json!({ "outcome": "timed_out", "missing": ["routes"] }), 124),
    ] {
        let fake = Fake::start(connected(outcome, code == 0));
        assert_eq!(fake.run(&["connect"]).code, code);
        let ran = fake.run(&["connect", "-o", "json"]);
        assert_eq!((ran.code, ran.json()["kind"].clone()), (code, json!("Connection")));
        // What is not ready in time is an error beside the connection, which stays.
        let reason = if code == 124 { json!("TimedOut") } else { json!(null) };
        assert_eq!(ran.json()["error"]["reason"], reason);
    }
    let fake = Fake::start(Script::of(&[refused("Forbidden")]));
    let ran = fake.run(&["connect"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (1, "error: connect demo: it is so\nhint: do that\n"));
    assert_eq!(fake.run(&["connect", "-o", "json"]).json()["error"]["reason"], "Forbidden");
}

#[test]
fn a_connect_that_runs_out_of_time_says_what_is_ready_and_what_is_not() {
    let fake =
        Fake::start(connected(json!({ "outcome": "timed_out", "missing": ["web: its agent is dialled"] }), false));
    let ran = fake.run(&["connect", "--timeout", "2s"]);
    assert!(!ran.all().contains("connected"), "{}", ran.all());
    insta::assert_snapshot!("connect_timed_out", ran.all());
}

#[test]
fn not_to_be_connected_is_no_error_for_people_and_a_reason_for_scripts() {
    let fake = Fake::start(sessions(&[]));
    for command in ["status", "list"] {
        let ran = fake.run(&[command]);
        assert_eq!((ran.code, ran.stderr.as_str()), (3, ""), "{command}");
        assert_eq!(ran.stdout, "not connected; podway connect makes a connection\n");
        assert_eq!(fake.run(&[command, "-o", "json"]).json()["error"]["reason"], "NotConnected");
    }
}

#[test]
fn what_is_asked_for_without_asking_holds_no_credential() {
    let fake = Fake::start(sessions(&[]));
    let ran = fake.run(&["connect", "--dry-run", "--token", CANARY]);
    assert_eq!((ran.code, ran.json()["kind"].clone()), (0, json!("ConnectSpec")));
    assert_eq!(fake.asked(), Vec::<String>::new());
}

#[test]
fn usage_errors_exit_2_and_print_no_token() {
    let fake = Fake::start(sessions(&[]));
    for args in [
        ["connect", "--token", CANARY, "--agent", "x"].as_slice(),
        &["connect", "--token", "-canary-7f3a", "--nothing"],
        &["connect", "--token", CANARY, "--proxy-via", "all=web,service=db"],
        &["status", "--token", CANARY],
        &["disconnect", "demo", "--all"],
        &["wait", "--for=rain"],
        &["status", "--watch", "--check", "ready"],
        &["rbac", "-n", "A B"],
        &["rbac", "--user", "ann", "--group", "staff"],
        &["fly"],
        &[],
    ] {
        assert_eq!(fake.run(args).code, 2, "{args:?}");
    }
    assert_eq!(fake.asked(), Vec::<String>::new());
}

#[test]
fn without_a_daemon_every_command_exits_3() {
    let fake = Fake { dir: tempfile::tempdir().expect("a directory"), requests: Arc::default() };
    for args in
        [["connect"].as_slice(), &["disconnect"], &["status"], &["status", "--check", "live"], &["wait"], &["list"]]
    {
        let ran = fake.run(args);
        assert_eq!(ran.code, 3, "{args:?}");
        assert!(ran.stderr.contains("hint: start the daemon"), "{args:?}: {}", ran.stderr);
    }
    assert_eq!(fake.run(&["status", "-o", "json"]).json()["error"]["reason"], "DaemonUnreachable");
    assert_eq!(fake.run(&["version"]).code, 0);
}

#[test]
fn status_checks_exit_by_what_holds() {
    for (ready, live, all_ready) in
        [(&[][..], 0, 3), (&[true][..], 0, 0), (&[false][..], 0, 4), (&[true, false][..], 0, 4)]
    {
        let fake = Fake::start(sessions(ready));
        for (check, code) in [("live", live), ("ready", all_ready)] {
            let ran = fake.run(&["status", "--check", check]);
            assert_eq!((ran.code, ran.stdout.as_str()), (code, ""), "{ready:?} {check}");
        }
    }
}

#[test]
fn status_lists_and_documents() {
    let fake = Fake::start(sessions(&[false]));
    insta::assert_snapshot!("list_plain", fake.run(&["list"]).all());
    assert_eq!(fake.run(&["list", "-o", "json"]).json()["items"][0]["workload"]["state"], "Pending");
    assert_eq!(fake.run(&["status", "-o", "json"]).json()["status"]["name"], "demo");
    let yaml = fake.run(&["status", "-o", "yaml"]).stdout;
    let read: Value = serde_saphyr::from_str(&yaml).expect("YAML");
    assert_eq!(read["status"]["name"], "demo");
    let table = fake.run(&["status"]);
    assert_eq!((table.code, table.stdout.matches("names are attached in part").count()), (0, 1));
    let several = Fake::start(sessions(&[true, true]));
    assert_eq!(several.run(&["status", "-o", "json"]).json()["kind"], "ConnectionList");
}

#[test]
fn a_watch_prints_one_document_a_line_until_the_end() {
    let fake = Fake::start(Script::of(&[event(false), event(true), result(json!({ "name": "demo" }))]));
    let ran = fake.run(&["status", "-w", "-o", "json"]);
    let documents: Vec<Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).expect("a document")).collect();
    assert_eq!((ran.code, documents.len()), (3, 2));
    assert_eq!(documents[1]["status"]["dns"]["ready"], true);
}

#[test]
fn wait_ends_when_the_goal_is_reached() {
    let fake = Fake::start(Script::of(&[event(false), event(true)]));
    for goal in [
        "condition=Ready",
        "condition=ready",
        "condition=RoutesReady",
        "workload/web",
        "workload/deployment/web",
        "workload/shop/deployment/web",
        "dns",
    ] {
        let ran = fake.run(&["wait", "--for", goal]);
        assert_eq!((ran.code, ran.all().lines().count()), (0, 3), "{goal}: {}", ran.all());
    }
    let ran = fake.run(&["wait", "demo", "-o", "json"]);
    assert_eq!((ran.code, ran.json()["status"]["name"].clone()), (0, json!("demo")));
    assert!(fake.asked().last().expect("asked").contains(r#""name":"demo""#));
}

#[test]
fn wait_gives_up_in_time_and_with_the_connection() {
    let fake = Fake::start(Script::raw(r#"{"podway":1}"#, &[&event(false).to_string(), "wait"]));
    let ran = fake.run(&["wait", "--timeout", "200ms"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (124, ""));
    let ran = fake.run(&["wait", "--timeout", "200ms", "-o", "json"]);
    assert_eq!((ran.code, ran.json()["error"]["reason"].clone()), (124, json!("TimedOut")));
    assert_eq!(fake.run(&["wait", "--timeout", "200ms", "--for=workload/eb"]).code, 124);
    let ended = Fake::start(Script::of(&[event(false), result(json!({ "name": "demo" }))]));
    assert_eq!(ended.run(&["wait"]).code, 3);
}

#[test]
fn disconnect_says_what_ended_and_what_was_left() {
    let agents = ["removed from shop: podway's own pod"];
    let closed =
        json!([{ "name": "demo", "left": ["a pod: forbidden"] }, { "name": "two", "left": [], "agents": agents }]);
    let fake = Fake::start(Script::of(&[result(json!({ "closed": closed }))]));
    let ran = fake.run(&["disconnect", "--all", "--clean"]);
    let lines = [
        "disconnected demo",
        "  left behind: a pod: forbidden",
        "disconnected two",
        "  removed from shop: podway's own pod",
    ];
    assert_eq!(ran.stdout.lines().collect::<Vec<_>>(), lines);
    assert_eq!(ran.code, 1, "it was to leave nothing");
    let ran = fake.run(&["disconnect", "--all"]);
    assert_eq!((ran.code, fake.run(&["quit", "--all", "-o", "json"]).json()["closed"].clone()), (0, closed));
    assert_eq!(fake.asked()[0], r#"{"id":1,"op":"disconnect","clean":true,"all":true}"#);
    let none = Fake::start(Script::of(&[result(json!({ "closed": [] }))]));
    let ran = none.run(&["disconnect", "--all"]);
    assert_eq!((ran.code, ran.stdout.as_str(), none.asked().len()), (0, "no connections\n", 1));
    let gone = Fake::start(Script::of(&[refused("NotConnected")]));
    assert_eq!(gone.run(&["disconnect"]).code, 3);
}

#[test]
fn a_daemon_that_talks_nonsense_is_an_error_and_no_hang() {
    let greeting = r#"{"podway":1}"#;
    for (script, code) in [
        (Script::raw("HTTP/1.1 400 Bad Request", &[]), 1),
        (Script::raw(r#"{"podway":2}"#, &[]), 1),
        (Script::raw(greeting, &[]), 3),
        (Script::raw(greeting, &["garbage"]), 3),
        (Script::raw(greeting, &["{}"]), 3),
        (Script::raw(greeting, &[r#"{"id":1,"result":…"#]), 3),
        (Script::raw(greeting, &[r#"{"id":1,"result":{"colour":"red"}}"#]), 1),
        (Script::raw(greeting, &[r#"{"id":2,"result":{}}"#]), 3),
        (Script::raw(greeting, &[r#"{"error":{"reason":"LimitReached","message":"full"}}"#]), 1),
    ] {
        let said = format!("{:?}", script.answers);
        let fake = Fake::start(script);
        for args in [["status"].as_slice(), &["connect"], &["disconnect"]] {
            let ran = fake.run(args);
            assert_eq!(ran.code, code, "{said} {args:?}: {}", ran.all());
            assert!(ran.stderr.starts_with("error: "), "{said} {args:?}: {}", ran.all());
        }
    }
}
