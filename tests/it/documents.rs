//! What programs read: every document of every command is one that `docs/schema/` describes, every failure is one error
//! with one hint, and stdout holds results alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use podway::actors::vif::messages::FlowStats;
use podway::error::{Reason, UserError};
use podway::status::{
    ApiServerLine, Condition, ConnectOutcome, CredentialsLine, DeviceLine, DnsLine, LinkLine, Mark, Phase, RangeLine,
    RenewalLine, SessionStatus, Step, Vips, WorkloadLine,
};
use serde_json::{Value, json};

use crate::support::fake_daemon::{CANARY, Fake, Script, connected, event, plan, refused, result, sessions, status};
use crate::support::schema::Schema;

/// A state in which nothing is left out.
fn whole(outcome: ConnectOutcome) -> Value {
    let text = |text: &str| text.to_owned();
    let link = LinkLine {
        pod: text("shop/web-1"),
        placement: text("own pod"),
        version: text("0.1.0"),
        health: text("failed"),
        message: text("no image"),
    };
    let status = SessionStatus {
        name: text("demo"),
        context: text("kind"),
        server: text("https://192.0.2.1:6443"),
        namespace: text("shop"),
        owner_uid: 1000,
        phase: Phase::Connected,
        outcome: Some(outcome),
        standing: None,
        since: 1_795_399_260,
        conditions: vec![Condition {
            r#type: text("WorkloadReady"),
            subject: text("shop/deployment/web"),
            status: text("False"),
            reason: text("Hopeless"),
            message: text("no image"),
            last_transition_time: 1_795_399_260,
        }],
        steps: vec![Step { at_ms: 40, text: text("cluster answers"), mark: Mark::Ok }],
        ranges: vec![RangeLine {
            cidr: text("10.43.0.0/16"),
            source: text("service"),
            treatment: text("routed"),
            note: text("why"),
        }],
        vips: Vips {
            ranges: vec![text("246.246.0.0/16")],
            in_use: 1,
            capacity: 65_280,
            fixed: vec![(text("246.246.1.0"), text("127.0.0.1"), text("shop/deployment/web"), text("a.podway"))],
        },
        workloads: vec![WorkloadLine {
            workload: text("shop/deployment/web"),
            state: text("Hopeless"),
            message: text("no image"),
            links: vec![link],
        }],
        dns: DnsLine {
            backend: text("resolved"),
            server: text("246.246.0.2"),
            domains: vec![text("shop")],
            only: Some(vec![text("shop")]),
            ready: false,
            message: text("no"),
        },
        device: DeviceLine {
            name: text("podway0"),
            routes: vec![text("10.43.0.0/16")],
            failed: vec![text("10.42.0.0/16: why")],
        },
        flows: FlowStats::default(),
        warnings: vec![text("look")],
        credentials_expire_at: Some(1_795_399_260),
        credentials: Some(CredentialsLine { renewal: RenewalLine::Failing, message: text("no login") }),
        api_server: Some(ApiServerLine {
            message: text("no answer"),
            waiting_since: 1_795_399_200,
            next_try: Some(1_795_399_260),
        }),
        suggestion: Some(text("curl http://web/")),
    };
    serde_json::to_value(status).expect("JSON")
}

fn outcomes() -> [ConnectOutcome; 4] {
    [
        ConnectOutcome::Ready,
        ConnectOutcome::Degraded { pending: vec!["web: no pod runs".to_owned()] },
        ConnectOutcome::TimedOut { missing: vec!["routes".to_owned()] },
        ConnectOutcome::Failed(UserError::new(Reason::Forbidden, "connect demo: no", "podway rbac")),
    ]
}

#[test]
fn every_document_of_every_command_is_one_that_the_schema_describes() {
    let mut schema = Schema::of_podway();
    let watched = Script::raw(r#"{"podway":1}"#, &[&event(false).to_string()]);
    let lines = Fake::start(watched).run(&["status", "-w", "-o", "json"]).stdout;
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("a document a line")).collect();
    assert_eq!(lines.iter().map(|line| &line["kind"]).collect::<Vec<_>>(), ["Connection", "Error"]);
    lines.iter().for_each(|line| schema.check(line));
    let mut run = |script: Script, args: &[&str], kind: &str| {
        let ran = Fake::start(script).run(args);
        for line in documents(&ran.stdout, args) {
            schema.check(&line);
            assert_eq!(line["kind"], kind, "{args:?}: {}", ran.all());
        }
    };
    for outcome in outcomes() {
        let one = Script::of(&[result(json!({ "sessions": [whole(outcome.clone())] }))]);
        run(one, &["status", "-o", "json"], "Connection");
    }
    let both = [whole(ConnectOutcome::Ready), status(false)];
    let both = Script::of(&[result(json!({ "sessions": both }))]);
    run(both.clone(), &["status", "-o", "json"], "ConnectionList");
    run(both, &["list", "-o", "json"], "WorkloadList");
    for outcome in [json!({ "outcome": "ready" }), json!({ "outcome": "timed_out", "missing": ["routes"] })] {
        run(connected(outcome, true), &["connect", "-o", "json"], "Connection");
    }
    run(Script::of(&[event(true)]), &["wait", "-o", "json"], "Connection");
    let closed = json!([{ "name": "demo", "left": ["a pod: forbidden"], "agents": ["left in shop: a pod"] }]);
    run(Script::of(&[result(json!({ "closed": closed }))]), &["disconnect", "--clean", "-o", "json"], "Disconnected");
    let version = Script::of(&[result(json!({ "version": "0.1.0", "protocol": 1 }))]);
    run(version, &["version", "-o", "json"], "Version");
    run(Script::raw("", &[]), &["version", "-o", "json"], "Version");
    run(Script::of(&[result(json!({ "plan": plan() }))]), &["connect", "--dry-run", "-o", "json"], "Plan");
    let settings: Vec<Value> = [
        json!({ "kind": "default" }),
        json!({ "kind": "file", "path": "/etc/podway/config.toml", "line": 3 }),
        json!({ "kind": "variable", "name": "PODWAY_MTU" }),
        json!({ "kind": "flag", "name": "--log" }),
    ]
    .map(|from| json!({ "key": "mtu", "value": 9000, "from": from }))
    .into();
    run(Script::of(&[result(json!({ "settings": settings }))]), &["config", "view", "-o", "json"], "Settings");
    run(Script::of(&[refused("Internal")]), &["config", "view", "-o", "json"], "Error");
    run(log_of(&["the device is up"]), &["logs", "-o", "json"], "LogLine");
    run(Script::of(&[refused("Forbidden")]), &["status", "-o", "json"], "Error");
    let unseen: BTreeSet<String> = schema
        .unseen()
        .into_iter()
        .filter(|path| !path.starts_with("#/$defs/Demo") && !path.starts_with("#/$defs/Pod/"))
        .collect();
    assert_eq!(unseen, BTreeSet::new(), "described, and in no document");
}

/// A daemon that logged these lines of connection `demo`, and one of no connection.
fn log_of(messages: &[&str]) -> Script {
    let line = |message: &&str| {
        json!({
            "time": "2026-11-23T02:01:00.123Z", "level": "info", "target": "podway::actors::vif", "session": "demo",
            "message": message, "fields": { "device": "podway0" },
        })
    };
    let mut lines: Vec<Value> = messages.iter().map(line).collect();
    lines.push(
        json!({ "time": "2026-11-23T02:01:01.000Z", "level": "warn", "target": "podway::daemon", "message": "x" }),
    );
    Script::of(&[json!({ "id": 1, "event": "log", "lines": lines }), result(json!({ "upto": 3 }))])
}

#[test]
fn the_log_is_printed_for_people_and_by_connection() {
    let fake = Fake::start(log_of(&["the device is up", "the device is gone"]));
    let ran = fake.run(&["logs", "--level", "info"]);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{}", ran.all());
    assert_eq!(lines[0], "2026-11-23T02:01:00.123Z info  demo: the device is up device=podway0");
    assert_eq!(fake.asked()[0], r#"{"id":1,"op":"logs","level":"info","follow":false}"#);
    assert_eq!(fake.run(&["logs", "demo"]).stdout.lines().count(), 2);
    let ran = fake.run(&["logs", "-o", "json"]);
    assert_eq!(ran.stdout.lines().count(), 3, "one object a line: {}", ran.all());
}

#[test]
fn a_log_that_is_followed_ends_with_the_daemon_and_says_so() {
    let line =
        json!({ "time": "2026-11-23T02:01:01.000Z", "level": "warn", "target": "podway::daemon", "message": "x" });
    let event = json!({ "id": 1, "event": "log", "lines": [line], "missed": true });
    let fake = Fake::start(Script::of(&[event]));
    let ran = fake.run(&["logs", "-f"]);
    assert_eq!((ran.code, ran.stdout.lines().count()), (3, 1), "{}", ran.all());
    let said: Vec<&str> = ran.stderr.lines().collect();
    assert!(said[0].starts_with("warning: some lines are gone"), "{}", ran.all());
    assert_eq!((said[1], said.len()), ("error: logs: podwayd ended, and these lines with it", 3), "{}", ran.all());
    assert!(said[2].starts_with("hint: "), "{}", ran.all());
    let ran = fake.run(&["logs", "-f", "-o", "json", "-q"]);
    let kinds: Vec<Value> =
        ran.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["kind"].clone()).collect();
    assert_eq!((kinds, ran.stderr.as_str()), (vec![json!("LogLine"), json!("Error")], ""));
}

/// What was printed: one document, or one a line where a command goes on.
fn documents(stdout: &str, args: &[&str]) -> Vec<Value> {
    let read: Vec<Value> = serde_json::Deserializer::from_str(stdout)
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap_or_else(|error| panic!("{args:?}: {error}: {stdout}"));
    assert!(!read.is_empty(), "{args:?} printed no document");
    read
}

#[test]
fn the_schema_has_every_reason_and_refuses_what_it_does_not_name() {
    let mut schema = Schema::of_podway();
    let error = |reason: Value| json!({ "apiVersion": "podway.dev/v1", "kind": "Error", "error": { "reason": reason, "message": "", "hint": "" } });
    // No variant can be forgotten: they are told apart by name, and counted by what the source says.
    let source = std::fs::read_to_string(crate::package().join("src/error.rs")).expect("the source");
    let body = source.split_once("pub enum Reason {").and_then(|(_, rest)| rest.split_once("\n}")).expect("the enum").0;
    let reasons: Vec<&str> = body.lines().filter_map(|line| line.trim().strip_suffix(',')).collect();
    assert!(reasons.len() > 20, "{reasons:?}");
    reasons.iter().for_each(|reason| schema.check(&error(json!(reason))));
    let protocol = std::fs::read_to_string(crate::package().join("docs/control-protocol.md")).expect("the document");
    for reason in reasons {
        assert!(protocol.contains(&format!("`{reason}`")), "docs/control-protocol.md does not name {reason}");
    }
    let mut more = error(json!("Internal"));
    more["error"]["colour"] = json!("red");
    for bad in [error(json!("Rain")), more, json!({ "kind": "Error" }), json!(null)] {
        let refused = std::panic::catch_unwind(|| Schema::of_podway().check(&bad));
        assert!(refused.is_err(), "{bad}");
    }
}

/// Command lines that fail, what the daemon says to them, and the exit code.
fn failures() -> Vec<(Vec<&'static str>, Script, i32)> {
    let no = || Script::of(&[refused("Forbidden")]);
    let silent = || Script::raw(r#"{"podway":1}"#, &[]);
    let late = connected(json!({ "outcome": "timed_out", "missing": ["routes"] }), false);
    let ended = Script::of(&[event(false), result(json!({ "name": "demo" }))]);
    let unhinted =
        json!({ "id": 1, "error": { "reason": "Cancelled", "message": "connect demo:\n withdrawn", "hint": "" } });
    vec![
        (vec!["connect"], no(), 1),
        (vec!["connect"], Script::of(&[unhinted]), 1),
        (vec!["connect"], silent(), 3),
        (vec!["connect", "--dry-run"], no(), 1),
        (vec!["connect", "--kubeconfig", "/no/such/file"], no(), 1),
        (vec!["connect", "--proxy-via=also=web"], no(), 2),
        (vec!["connect", "--agent=x"], no(), 2),
        (vec!["connect", "--tokn", "x"], no(), 2),
        (vec!["disconnect"], no(), 1),
        (vec!["disconnect"], Script::of(&[refused("NotConnected")]), 3),
        (vec!["disconnect", "a", "--all"], no(), 2),
        (vec!["status"], no(), 1),
        (vec!["status"], Script::raw(r#"{"podway":2}"#, &[]), 1),
        (vec!["status", "--watch"], Script::of(&[refused("NotConnected")]), 3),
        (vec!["wait", "--for=rain"], no(), 2),
        (vec!["wait"], ended, 3),
        (vec!["wait", "--timeout=10ms"], Script::raw(r#"{"podway":1}"#, &["wait"]), 124),
        (vec!["list"], no(), 1),
        (vec!["config", "view"], no(), 1),
        (vec!["config", "look"], no(), 2),
        (vec!["logs"], no(), 1),
        (vec!["logs"], silent(), 3),
        (vec!["logs", "--level=loud"], no(), 2),
        (vec!["rbac"], no(), 2),
        (vec!["rbac", "-n", "A B", "--user", "ann"], no(), 2),
        (vec!["version", "--colour"], no(), 2),
        (vec!["demo", "--colour"], no(), 2),
        (vec!["fly"], no(), 2),
        // A document of its own tells it; for people it is an error like others.
        (vec!["connect", "--timeout=2s"], late, 124),
    ]
}

#[test]
fn every_failure_is_one_error_with_one_hint_and_a_document_for_programs() {
    for (args, script, code) in failures() {
        let late = args.contains(&"--timeout=2s");
        let fake = Fake::start(script);
        let ran = fake.run(&[args.as_slice(), &["--quiet"]].concat());
        assert_eq!((ran.code, ran.stdout.as_str()), (code, ""), "{args:?}: {}", ran.all());
        let starts: Vec<&str> = ran.stderr.lines().map(|line| line.split(' ').next().unwrap_or_default()).collect();
        assert_eq!(starts, ["error:", "hint:"], "{args:?}: {}", ran.all());
        let ran = fake.run(&[args.as_slice(), &["-o", "json", "--quiet"]].concat());
        assert_eq!((ran.code, ran.stderr.as_str()), (code, ""), "{args:?}: {}", ran.all());
        let kind = if late { "Connection" } else { "Error" };
        Schema::of_podway().check(&ran.json());
        assert_eq!(ran.json()["kind"], kind, "{args:?}: {}", ran.all());
    }
}

#[test]
fn without_a_daemon_every_command_that_asks_one_says_so_in_both_forms() {
    for args in [["connect"].as_slice(), &["disconnect"], &["status"], &["wait"], &["list"], &["logs"]] {
        let fake = Fake { dir: tempfile::tempdir().expect("a directory"), requests: Arc::default() };
        let ran = fake.run(&[args, &["-o", "json"]].concat());
        Schema::of_podway().check(&ran.json());
        assert_eq!((ran.code, &ran.json()["error"]["reason"]), (3, &json!("DaemonUnreachable")), "{args:?}");
        assert_eq!(ran.stderr, "", "{args:?}");
    }
}

#[test]
fn rights_are_a_list_of_kubernetes_for_programs() {
    let fake = Fake::start(sessions(&[]));
    let ran = fake.run(&["rbac", "--user", "ann", "-o", "json"]);
    let list = ran.json();
    assert_eq!((ran.code, &list["kind"], &list["apiVersion"]), (0, &json!("List"), &json!("v1")));
    assert_eq!(list["items"].as_array().expect("items").len(), 4);
}

#[test]
fn quiet_leaves_the_result_and_what_went_wrong() {
    let fake = Fake::start(connected(json!({ "outcome": "degraded", "pending": ["web: no pod runs"] }), false));
    let (loud, quiet) = (fake.run(&["connect"]), fake.run(&["connect", "-q"]));
    assert!(loud.stderr.contains("not yet: web") && loud.stderr.contains("cluster answers"), "{}", loud.all());
    assert_eq!((quiet.code, quiet.stderr.as_str()), (4, ""));
    assert_eq!(quiet.stdout, "connected demo to namespace shop\n");
    let fake = Fake::start(Script::of(&[event(false), event(true)]));
    assert!(fake.run(&["wait"]).stderr.contains("0.0s   shop/deployment/web: no pod runs"));
    assert_eq!(fake.run(&["--quiet", "wait"]).all(), "exit 0\n--- stdout\n--- stderr\n");
}

#[test]
fn progress_has_its_time_and_stays_off_stdout() {
    let fake = Fake::start(connected(json!({ "outcome": "ready" }), true));
    for form in [["-o", "text"], ["-o", "json"]] {
        let ran = fake.run(&[["connect"].as_slice(), &form].concat());
        let steps: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with(['✓', '!'])).collect();
        assert_eq!(steps, ["✓ 0.0s   cluster answers", "! 12.3s  routes are on device podway0"]);
        assert!(!ran.stdout.contains("cluster answers"), "{}", ran.all());
    }
}

#[test]
fn colours_are_for_who_wants_them() {
    let fake = Fake::start(connected(json!({ "outcome": "ready" }), false));
    let down = Fake { dir: tempfile::tempdir().expect("a directory"), requests: Arc::default() };
    for (fake, args, coloured) in [
        (&fake, ["connect"].as_slice(), true),
        (&Fake::start(sessions(&[false])), &["status"], true),
        (&Fake::start(Script::of(&[event(false), event(true)])), &["wait"], true),
        (&down, &["status"], false),
        (&down, &["--help"], true),
        (&down, &["connect", "--agent=x"], false),
    ] {
        let forced = fake.run_with(args, &[("CLICOLOR_FORCE", "1")]).all();
        assert_eq!(forced.contains('\u{1b}'), coloured, "{args:?}: {forced}");
        let refused = fake.run_with(args, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]).all();
        assert!(!refused.contains('\u{1b}'), "{args:?}: {refused}");
    }
}

#[test]
fn a_usage_error_as_json_prints_no_token() {
    let fake = Fake::start(sessions(&[]));
    for args in [
        ["connect", "--token", CANARY, "--agent", "x", "-o", "json"].as_slice(),
        &["connect", "--token", "-canary-7f3a", "--nothing", "-o", "json"],
        &["status", "--token", CANARY, "-o", "json"],
    ] {
        // The fake looks for it in all that is printed.
        let ran = fake.run(args);
        assert_eq!((ran.code, &ran.json()["error"]["reason"]), (2, &json!("BadRequest")), "{args:?}");
    }
}
