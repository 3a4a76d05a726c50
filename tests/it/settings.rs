//! Settings as a user sees them: which counts, where it comes from, and what is said of a wrong one.

use serde_json::{Value, json};

use crate::support::fake_daemon::{CANARY, Fake, Script, connected, result, sessions};
use crate::support::schema::Schema;

fn write(fake: &Fake, name: &str, text: &str) -> String {
    let path = fake.dir.path().join(name);
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
    std::fs::write(&path, text).expect("written");
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn connect_takes_from_files_variables_and_flags_in_this_order() {
    let fake = Fake::start(connected(json!({ "outcome": "ready" }), true));
    let file = write(&fake, "config.toml", "[connect]\nagent = \"pod\"\ndns = \"off\"\ntimeout = \"7s\"\n");
    let variables = [("PODWAY_CONFIG", file.as_str()), ("PODWAY_CONNECT_DNS", "file")];
    assert_eq!(fake.run_with(&["connect", "--agent", "ephemeral"], &variables).code, 0);
    let asked: Value = serde_json::from_str(&fake.asked()[0]).expect("JSON");
    let spec = &asked["spec"];
    assert_eq!((&spec["agent"], &spec["dns"]), (&json!("ephemeral"), &json!("file")));
    assert_eq!((&spec["timeout_ms"], &spec["agent_image"]), (&json!(7000), &json!("")));
}

#[test]
fn the_socket_is_found_in_a_users_own_file() {
    let fake = Fake::start(sessions(&[true]));
    let socket = fake.socket();
    write(&fake, "home/.config/podway/config.toml", &format!("socket = {:?}\n", socket.to_str().expect("UTF-8")));
    let home = fake.dir.path().join("home");
    let variables = [("PODWAY_SOCKET", ""), ("PODWAY_CONFIG", ""), ("HOME", home.to_str().expect("UTF-8"))];
    assert_eq!(fake.run_with(&["status", "--check", "ready"], &variables).code, 0);
    let ran = fake.run_with(&["status", "--check", "ready", "--socket", "/no/such/socket"], &variables);
    assert_eq!(ran.code, 3, "the flag comes before: {}", ran.all());
}

#[test]
fn what_counts_is_shown_with_where_it_is_from_and_nothing_secret() {
    let of_daemon = json!([{
        "key": "mtu", "value": 9000, "from": { "kind": "file", "path": "/etc/podway/config.toml", "line": 24 },
    }]);
    let fake = Fake::start(Script::of(&[result(json!({ "settings": of_daemon }))]));
    let file = write(&fake, "config.toml", "log = \"debug\"\n[connect]\ndns = \"off\"\n");
    let socket = fake.socket();
    let socket = socket.to_str().expect("UTF-8");
    // Where others put their secrets.
    let variables = [("PODWAY_CONFIG", file.as_str()), ("PODWAY_TOKEN", CANARY), ("PODWAY_CONNECT_TIMEOUT", "1m")];
    let ran = fake.run_with(&["config", "view", "--socket", socket], &variables);
    let row = |key: &str| {
        let line = ran.stdout.lines().find(|line| line.split_whitespace().next() == Some(key));
        line.unwrap_or_else(|| panic!("{key}: {}", ran.all())).split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(row("socket"), format!("{socket} --socket"));
    assert_eq!(row("connect.dns"), format!("off {file}:3"));
    assert_eq!(row("connect.timeout"), "60s PODWAY_CONNECT_TIMEOUT");
    assert_eq!(row("connect.agent"), "auto default");
    assert_eq!(row("mtu"), "9000 /etc/podway/config.toml:24");
    assert_eq!(row(&file), "read");
}

#[test]
fn without_a_daemon_the_commands_own_settings_are_shown() {
    let fake = Fake { dir: tempfile::tempdir().expect("a directory"), requests: Default::default() };
    let ran = fake.run(&["config", "view"]);
    assert_eq!(ran.code, 0);
    assert!(ran.stdout.contains("podwayd is not running, or not in reach"), "{}", ran.all());
    let document = fake.run(&["config", "view", "-o", "json"]).json();
    Schema::of_podway().check(&document);
    assert_eq!((&document["settings"]["daemon"], &document["kind"]), (&json!(null), &json!("Settings")));
}

#[test]
fn a_wrong_setting_is_an_error_with_its_place_and_what_was_meant() {
    let fake = Fake::start(sessions(&[true]));
    let file = write(&fake, "config.toml", "[connect]\nagnt = \"pod\"\n");
    for args in [["status"].as_slice(), &["connect"], &["config", "view"], &["logs"]] {
        let ran = fake.run_with(args, &[("PODWAY_CONFIG", &file)]);
        let said: Vec<&str> = ran.stderr.lines().collect();
        assert_eq!((ran.code, said.len()), (1, 2), "{}", ran.all());
        assert!(said[0].starts_with(&format!("error: configuration: {file}:2: unknown key `agnt`")), "{}", said[0]);
        assert_eq!(said[1], "hint: did you mean agent?");
    }
    let ran = fake.run_with(&["status", "-o", "json"], &[("PODWAY_CONNECT_TIMEOUT", "soon")]);
    assert_eq!((ran.code, &ran.json()["error"]["reason"]), (1, &json!("ConfigInvalid")), "{}", ran.all());
    let gone = fake.run_with(&["status"], &[("PODWAY_CONFIG", "/no/such/file")]);
    assert!(gone.stderr.starts_with("error: configuration: /no/such/file: "), "{}", gone.all());
    let rights = fake.run_with(&["rbac", "--user", "ann"], &[("PODWAY_CONFIG", &file)]);
    assert_eq!(rights.code, 0, "it needs no settings");
}

#[test]
fn podwayd_says_the_same_of_a_wrong_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("config.toml");
    std::fs::write(&file, "\nmtuu = 1\n").expect("written");
    let podwayd = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_podwayd"));
        command.env_clear().arg("--runtime-dir").arg(directory.path()).arg("--state-dir").arg(directory.path());
        command
    };
    for ended in [podwayd().arg("--config").arg(&file).output(), podwayd().env("PODWAY_CONFIG", &file).output()] {
        let ended = ended.expect("podwayd ran");
        let said = String::from_utf8(ended.stderr).expect("UTF-8");
        let said: Vec<&str> = said.lines().collect();
        assert_eq!((ended.status.code(), said.len()), (Some(1), 2), "{said:?}");
        let expected = format!("error: podwayd: configuration: {}:2: unknown key `mtuu`", file.display());
        assert!(said[0].starts_with(&expected), "{said:?}");
        assert_eq!(said[1], "hint: did you mean mtu?");
    }
}
