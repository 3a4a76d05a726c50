//! Completion as bash asks for it: the script is read, and the function in it is called as bash calls it.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;

use serde_json::{Value, json};

use crate::support::fake_daemon::{Fake, Script, result, sessions, status};

/// What bash offers for the last of these words; what it took for an end of a word is a word of its own.
fn offered(fake: &Fake, words: &[&str]) -> Vec<String> {
    let program = env!("CARGO_BIN_EXE_podway");
    let asked = r#"
        source <("$0" completion bash) || exit 9
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _podway_complete podway
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let ended = Command::new("bash")
        .args(["--norc", "-c", asked, program, "podway"])
        .args(words)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").expect("a path"))
        .env("PODWAY_SOCKET", fake.socket())
        .env("PODWAY_CONFIG", "/dev/null")
        .env("KUBECONFIG", fake.dir.path().join("kubeconfig"))
        .stdin(Stdio::null())
        .output()
        .expect("bash runs");
    let said = String::from_utf8(ended.stderr).expect("UTF-8");
    // Outside of an interactive shell there is no compopt.
    assert_eq!((ended.status.code(), said.as_str()), (Some(0), ""), "{words:?}");
    let offered = String::from_utf8(ended.stdout).expect("UTF-8");
    offered.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn kubeconfig(fake: &Fake, server: &str, user: Value) {
    let context = |namespace: &str| json!({ "cluster": "c", "user": "u", "namespace": namespace });
    let text = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "kind",
        "clusters": [{ "name": "c", "cluster": { "server": server } }],
        "users": [{ "name": "u", "user": user }],
        "contexts": [
            { "name": "kind", "context": context("shop") },
            { "name": "kiosk", "context": context("till") },
            { "name": "prod", "context": context("till") },
        ],
    });
    std::fs::write(fake.dir.path().join("kubeconfig"), text.to_string()).expect("written");
}

/// An API server that lists objects by the last part of the path; `None` says nothing at all.
fn api(answers: Option<fn(&str) -> Vec<&'static str>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let server = format!("http://{}", listener.local_addr().expect("its address"));
    // It ends with the test's process.
    thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let Some(answers) = answers else {
                kept.push(stream);
                continue;
            };
            thread::spawn(move || {
                let (mut request, mut part) = (Vec::new(), [0; 4096]);
                while let Ok(read @ 1..) = stream.read(&mut part) {
                    request.extend_from_slice(&part[..read]);
                    let text = String::from_utf8_lossy(&request).into_owned();
                    let Some((head, _)) = text.split_once("\r\n\r\n") else { continue };
                    let path = head.split(' ').nth(1).unwrap_or_default();
                    let kind = path.split('?').next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
                    let item = |name| json!({ "metadata": { "name": name } });
                    let items: Vec<Value> = answers(kind).into_iter().map(item).collect();
                    let list = json!({
                        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {}, "items": items,
                    });
                    let body = list.to_string();
                    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
                    drop(write!(stream, "{head}{}\r\n\r\n{body}", body.len()));
                    request.clear();
                }
            });
        }
    });
    server
}

fn two_connections() -> Fake {
    let mut second = status(true);
    second["name"] = json!("staging");
    Fake::start(Script::of(&[result(json!({ "sessions": [status(true), second] }))]))
}

#[test]
fn commands_flags_and_values_are_offered() {
    let fake = Fake::start(sessions(&[]));
    assert!(offered(&fake, &["conn"]).contains(&"connect".to_owned()));
    assert_eq!(offered(&fake, &["connect", "--proxy-v"]), ["--proxy-via"]);
    assert_eq!(offered(&fake, &["connect", "--agent", "e"]), ["ephemeral"]);
    assert_eq!(offered(&fake, &["status", "--check", "=", "re"]), ["ready"]);
    assert_eq!(offered(&fake, &["wait", "--for", "condition", "=", "Ro"]), ["RoutesReady"]);
}

#[test]
fn connections_are_offered_by_their_names() {
    let fake = two_connections();
    for command in ["status", "disconnect", "wait", "list", "logs"] {
        assert_eq!(offered(&fake, &[command, "st"]), ["staging"], "{command}");
    }
    assert_eq!(offered(&fake, &["status", ""]).len(), 2 + offered(&Fake::start(sessions(&[])), &["status", ""]).len());
    assert_eq!(offered(&fake, &["wait", "--for", "workload/"]), ["workload/shop/deployment/web"; 2]);
}

#[test]
fn contexts_and_namespaces_are_those_of_the_kubeconfig() {
    let fake = Fake::start(sessions(&[]));
    kubeconfig(&fake, "http://127.0.0.1:9", json!({ "token": "t" }));
    assert_eq!(offered(&fake, &["connect", "--context", "ki"]), ["kind", "kiosk"]);
    assert_eq!(offered(&fake, &["connect", "--context", "=", "ki"]), ["kind", "kiosk"]);
    assert_eq!(offered(&fake, &["connect", "-n", "t"]), ["till"]);
    assert_eq!(offered(&fake, &["rbac", "-n", "t"]), ["till"]);
}

#[test]
fn workloads_and_namespaces_are_those_of_the_cluster() {
    let fake = Fake::start(sessions(&[]));
    let server = api(Some(|kind| match kind {
        "deployments" => vec!["web", "worker"],
        "statefulsets" => vec!["store"],
        "namespaces" => vec!["till", "tools"],
        _ => vec![],
    }));
    kubeconfig(&fake, &server, json!({ "token": "t" }));
    assert_eq!(offered(&fake, &["connect", "--proxy-via", "ser"]), ["service="]);
    assert_eq!(offered(&fake, &["connect", "--proxy-via", "service", "=", "w"]), ["web", "worker"]);
    assert_eq!(offered(&fake, &["connect", "--proxy-via", "service", "="]), ["store", "web", "worker"]);
    assert_eq!(offered(&fake, &["connect", "-n", "t"]), ["till", "tools"]);
}

#[test]
fn no_plugin_is_started_and_nothing_is_said_where_nothing_is_known() {
    let fake = Fake::start(Script::raw("HTTP/1.1 400 Bad Request", &[]));
    let mark = fake.dir.path().join("ran");
    let plugin = json!({
        "apiVersion": "client.authentication.k8s.io/v1", "command": "touch", "args": [mark], "interactiveMode": "Never",
    });
    kubeconfig(&fake, "http://127.0.0.1:9", json!({ "exec": plugin }));
    assert_eq!(offered(&fake, &["connect", "--proxy-via", "service", "=", "w"]), Vec::<String>::new());
    assert_eq!(offered(&fake, &["connect", "-n", "s"]), ["shop"]);
    assert!(!mark.exists(), "the plugin ran");
    assert_eq!(offered(&fake, &["status", "s"]), Vec::<String>::new());
    std::fs::write(fake.dir.path().join("kubeconfig"), "{{{").expect("written");
    assert_eq!(offered(&fake, &["connect", "--context", "k"]), Vec::<String>::new());
}

#[test]
fn a_cluster_or_a_daemon_that_says_nothing_is_not_waited_for() {
    let fake = Fake::start(Script::raw(r#"{"podway":1}"#, &["wait"]));
    kubeconfig(&fake, &api(None), json!({ "token": "t" }));
    // Neither ever answers: that these end shows it.
    assert_eq!(offered(&fake, &["connect", "--proxy-via", "service", "=", "w"]), Vec::<String>::new());
    assert_eq!(offered(&fake, &["status", "s"]), Vec::<String>::new());
    assert_eq!(offered(&fake, &["connect", "-n", "s"]), ["shop"]);
}

/// What the scripts of the other shells ask, as they ask it: those shells are not everywhere.
#[test]
fn zsh_and_fish_ask_as_their_scripts_say_and_get_live_names() {
    let fake = two_connections();
    let script = |shell: &str| fake.run(&["completion", shell]).stdout;
    let (zsh, fish) = (script("zsh"), script("fish"));
    let balanced = |text: &str, open: char, close: char| text.matches(open).count() == text.matches(close).count();
    for (text, shell) in [(&zsh, "zsh"), (&fish, "fish")] {
        assert!(balanced(text, '(', ')') && balanced(text, '{', '}'), "{shell}: {text}");
        assert!(text.matches('"').count().is_multiple_of(2), "{shell}: {text}");
    }
    // zsh reads the first line where the script is a file in `fpath`, the last where it is sourced.
    assert!(
        zsh.starts_with("#compdef podway\n") && zsh.ends_with("compdef _clap_dynamic_completer_podway podway\n"),
        "{zsh}"
    );
    for part in ["_CLAP_COMPLETE_INDEX=", "_CLAP_IFS=", "PODWAY_COMPLETE=\"zsh\"", " -- \"${words[@]}\""] {
        assert!(zsh.contains(part), "{part} is not in {zsh}");
    }
    assert!(fish.starts_with("complete ") && fish.lines().count() == 1, "{fish}");
    for part in
        ["--command podway", "PODWAY_COMPLETE=fish", " -- (commandline --current-process --tokenize --cut-at-cursor) "]
    {
        assert!(fish.contains(part), "{part} is not in {fish}");
    }
    // The values, before what is said of each.
    let values = |words: &[&str], variables: &[(&str, &str)], end: char| {
        let ran = fake.run_with(&[&["--", "podway"], words].concat(), variables);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
        let lines = ran.stdout.lines().map(|line| line.split(end).next().unwrap_or_default().to_owned());
        lines.filter(|line| !line.is_empty()).collect::<Vec<_>>()
    };
    let in_zsh = [("PODWAY_COMPLETE", "zsh"), ("_CLAP_COMPLETE_INDEX", "2"), ("_CLAP_IFS", "\n")];
    assert_eq!(values(&["status", "st"], &in_zsh, ':'), ["staging"]);
    let in_fish = [("PODWAY_COMPLETE", "fish")];
    assert_eq!(values(&["status", "st"], &in_fish, '\t'), ["staging"]);
    assert_eq!(values(&["connect", "--proxy-v"], &in_fish, '\t'), ["--proxy-via"]);
    assert!(
        values(&["disc"], &[in_zsh[0], ("_CLAP_COMPLETE_INDEX", "1"), in_zsh[2]], ':')
            .contains(&"disconnect".to_owned())
    );
}

#[test]
fn each_shell_has_a_script() {
    let fake = Fake::start(sessions(&[]));
    for shell in ["bash", "zsh", "fish", "elvish"] {
        let ran = fake.run(&["completion", shell]);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{shell}");
        assert!(ran.stdout.contains("PODWAY_COMPLETE"), "{shell}: {}", ran.stdout);
    }
    assert_eq!(fake.run(&["completion", "tcsh"]).code, 2);
    // Another shell than it knows asks: nothing is said.
    let ran = fake.run_with(&["--", "podway", "st"], &[("PODWAY_COMPLETE", "tcsh")]);
    assert_eq!(ran.all(), "exit 0\n--- stdout\n--- stderr\n");
}
