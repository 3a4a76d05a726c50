//! The command as a user runs it: a process, against a daemon that says what a test wants.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::fake_daemon::{CANARY, Fake, Script, connected, event, plan, refused, result, sessions, status};

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
fn a_dry_run_asks_for_a_plan_alone_and_prints_no_credential() {
    let fake = Fake::start(Script::of(&[result(json!({ "plan": plan() }))]));
    let ran = fake.run(&["connect", "--dry-run", "--token", CANARY]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.all());
    insta::assert_snapshot!("connect_dry_run", ran.stdout);
    let asked = fake.asked();
    assert!(asked.len() == 1 && asked[0].contains(r#""op":"plan""#), "{asked:?}");
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
    assert_eq!((ran.code, documents.len()), (3, 3));
    assert_eq!(documents[1]["status"]["dns"]["ready"], true);
    assert_eq!(documents[2]["error"]["reason"], "NotConnected", "it says why it ends");
    let ran = fake.run(&["status", "-w"]);
    assert!(ran.stderr.starts_with("error: status: connection demo ended\nhint: "), "{}", ran.all());
}

#[test]
fn a_watch_has_every_form() {
    let fake = Fake::start(Script::of(&[event(false), event(true), result(json!({ "name": "demo" }))]));
    let yaml = fake.run(&["status", "--watch", "-o", "yaml"]).stdout;
    let documents = yaml.split("---\n").filter(|text| !text.trim().is_empty());
    let ready = documents.map(|text| {
        let read: Value = serde_saphyr::from_str(text).expect("YAML");
        read["status"]["dns"]["ready"].clone()
    });
    assert_eq!(ready.collect::<Vec<_>>(), [json!(false), json!(true)]);
    let (brief, wide) = (fake.run(&["status", "-w"]).stdout, fake.run(&["status", "-w", "-o", "wide"]).stdout);
    assert_eq!((brief.matches("Connection").count(), wide.matches("Connection").count()), (2, 2));
    assert!(wide.contains("CONDITION") && !brief.contains("CONDITION"), "{wide}");
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
        let ran = fake.run(&["wait", "--for", goal, "-q"]);
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
