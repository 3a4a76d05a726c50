//! A daemon that says what a test wants, and the command as a user runs it against that: a process.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

pub const CANARY: &str = "canary-7f3a";

/// What a daemon says: its first line, and the lines to each request. It closes when it has said all.
#[derive(Clone)]
pub struct Script {
    pub greeting: String,
    pub answers: Vec<String>,
}

impl Script {
    pub fn of(answers: &[Value]) -> Script {
        Script { greeting: r#"{"podway":1}"#.to_owned(), answers: answers.iter().map(Value::to_string).collect() }
    }

    pub fn raw(greeting: &str, answers: &[&str]) -> Script {
        Script { greeting: greeting.to_owned(), answers: answers.iter().map(|line| (*line).to_owned()).collect() }
    }
}

/// A socket with a scripted daemon behind it, and what it was asked.
pub struct Fake {
    pub dir: tempfile::TempDir,
    pub requests: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    pub fn start(script: Script) -> Fake {
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

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    pub fn kubeconfig(&self) -> PathBuf {
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

    pub fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, &[])
    }

    /// With more variables.
    pub fn run_with(&self, args: &[&str], variables: &[(&str, &str)]) -> Ran {
        let output = Command::new(env!("CARGO_BIN_EXE_podway"))
            .args(args)
            .env_clear()
            .env("PODWAY_SOCKET", self.socket())
            .env("KUBECONFIG", self.kubeconfig())
            // Not the settings of the host that runs the tests.
            .env("PODWAY_CONFIG", "/dev/null")
            .env("RUST_BACKTRACE", "1")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .output()
            .expect("podway ran");
        let ran = Ran::from(output);
        assert!(!ran.all().contains(CANARY), "{args:?} prints a credential: {}", ran.all());
        let forced = variables.iter().any(|(name, _)| *name == "CLICOLOR_FORCE");
        assert!(forced || !ran.all().contains('\u{1b}'), "{args:?} colours a pipe: {}", ran.all());
        ran
    }

    pub fn asked(&self) -> Vec<String> {
        self.requests.lock().expect("no test panicked with it").clone()
    }
}

pub fn serve(mut stream: &UnixStream, script: &Script, requests: &Mutex<Vec<String>>) -> std::io::Result<()> {
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

pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
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
    pub fn all(&self) -> String {
        format!("exit {}\n--- stdout\n{}--- stderr\n{}", self.code, self.stdout, self.stderr)
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).expect("one JSON document")
    }
}

pub fn status(ready: bool) -> Value {
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

pub fn result(value: Value) -> Value {
    json!({ "id": 1, "result": value })
}

pub fn event(ready: bool) -> Value {
    json!({ "id": 1, "event": "status", "status": status(ready) })
}

pub fn refused(reason: &str) -> Value {
    json!({ "id": 1, "error": { "reason": reason, "message": "connect demo: it is so", "hint": "do that" } })
}

pub fn connected(outcome: Value, ready: bool) -> Script {
    let steps = json!([
        { "at_ms": 40, "text": "cluster answers", "mark": "ok" },
        { "at_ms": 12_340, "text": "routes are on device podway0", "mark": "warn" },
    ]);
    let mut end = outcome;
    end["status"] = status(ready);
    Script::of(&[json!({ "id": 1, "event": "progress", "steps": steps }), result(end)])
}

pub fn sessions(ready: &[bool]) -> Script {
    let sessions: Vec<Value> = ready.iter().map(|ready| status(*ready)).collect();
    Script::of(&[result(json!({ "sessions": sessions }))])
}

/// A plan in which nothing is left out.
pub fn plan() -> Value {
    let spec = json!({ "name": "kind", "context": "kind", "namespace": "shop", "timeout_ms": 30_000 });
    let mut spec: podway::spec::ConnectSpec = serde_json::from_value(spec).expect("a spec");
    spec.proxy_via = vec!["service=web".parse().expect("a rule")];
    let (web, image) = ("shop/deployment/web", "podway-agent:0.1.0");
    json!({
        "spec": spec,
        "server": "https://192.0.2.1:6443",
        "device": { "name": "podway0", "addresses": ["246.246.0.1/32"], "routes": ["246.246.0.0/16"] },
        "ranges": [
            { "cidr": "10.43.0.0/16", "source": "service", "treatment": "via shop/deployment/web" },
            { "cidr": "10.42.0.0/16", "source": "pods", "treatment": "translated", "note": "conflicts with 10.0.0.0/8 via wg0" },
        ],
        "virtual_ranges": ["246.246.0.0/16"],
        "dns": { "backend": "resolv.conf", "servers": ["246.246.0.2"], "message": "resolv.conf is replaced" },
        "agents": [
            { "workload": web, "action": "use", "pod": "shop/web-1", "placement": "ephemeral container" },
            { "workload": web, "action": "place", "pod": "shop/web-2", "placement": "ephemeral container", "image": image },
            { "workload": "general", "action": "refused", "message": "missing right: create pods" },
        ],
        "missing_rights": ["create jobs.batch or pods in namespace shop"],
    })
}
