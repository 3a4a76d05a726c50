//! What it shows, and the exit codes.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use nix::unistd::geteuid;

use crate::allowed::{NOBODY, skipped, tun_is_open};
use crate::host::{Family, Host, Running, User, ended, users};
use crate::schema::Schema;

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code().unwrap_or_else(|| panic!("{status}")), text(&stdout), text(&stderr))
}

#[test]
fn it_shows_that_a_request_under_the_rule_comes_from_a_pod_of_its_workload() {
    let host = Host::new();
    for user in users() {
        let (code, out, err) = run(&mut host.demo(user, &[]));
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        let line = |word: &str| {
            let line = out.lines().find(|line| line.trim_start().starts_with(word));
            line.unwrap_or_else(|| panic!("no {word:?} in {out}")).to_owned()
        };
        for step in ["✓ cluster", "✓ daemon", "✓ connect", "✓ request", "✓ measure"] {
            assert!(line(step).contains(" s "), "{out}");
        }
        assert!(line("api.other is").contains(" 246.246."), "{out}");
        assert!(line("answered by").contains(", deployment/api in other"), "{out}");
        assert!(line("its caller was").contains(", deployment/web in demo"), "{out}");
        assert!(line("without the rule").contains("podway's own pod"), "{out}");
        for figure in ["latency", "down", "up"] {
            assert!(line(figure).contains(|c: char| c.is_ascii_digit()), "{out}");
        }
        let program = host.program();
        for line in out.lines().filter(|line| !line.contains(program.to_str().unwrap())) {
            assert!(line.chars().count() <= 80 && !line.contains('\u{1b}'), "{line:?}");
        }
        host.assert_clean();
    }
}

#[test]
fn for_programs_it_is_one_document_and_quietly_the_report_alone() {
    let host = Host::new();
    let Some(user) = users().first().copied() else { return };
    let (code, out, err) = run(&mut host.demo(user, &["-o", "json"]));
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("✓ measure") && !out.contains('✓'), "progress is no result: {out}");
    let document: serde_json::Value = serde_json::from_str(&out).unwrap();
    Schema::of_podway().check(&document);
    assert_eq!(document["demo"]["via"]["workload"], "deployment/web");
    assert_eq!(document["demo"]["steps"].as_array().unwrap().len(), 5);
    let (code, out, err) = run(&mut host.demo(user, &["--quiet"]));
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("its caller was") && !out.contains('✓'), "{out}");
    let (code, out, err) = run(&mut host.demo(user, &["-o", "json", "--", "true"]));
    let refused: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &refused["kind"], err.as_str()), (2, &"Error".into(), ""), "a command has a result of its own");
    host.assert_clean();
}

#[test]
fn without_curl_another_plain_client_asks() {
    let host = Host::new();
    for user in users() {
        let (code, out, err) = run(host.demo(user, &[]).env("PATH", "/no/such/place"));
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        assert!(out.contains("GET http://api.other/ by a plain client, as there is no curl"), "{out}");
        assert!(
            out.lines().any(|line| line.contains("its caller was") && line.contains("deployment/web in demo")),
            "{out}"
        );
        host.assert_clean();
    }
}

#[test]
fn a_command_gets_the_connection_stdin_and_stdout_and_its_exit_code_is_the_demos() {
    let host = Host::new();
    for user in users() {
        let script = "cat; podway status --check ready && curl -s http://api.other/ | grep -o '\"pod\":\"api-'; exit 7";
        let mut child = host.demo(user, &["--", "sh", "-c", script]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"typed\n").unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "typed\n\"pod\":\"api-\n", "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("✓ connect"));
        let (code, ..) = run(&mut host.demo(user, &["--", "sh", "-c", "kill -9 $$"]));
        assert_eq!(code, 137);
        host.assert_clean();
    }
}

#[test]
fn podway_itself_is_a_program_of_the_workstation() {
    let host = Host::new();
    for user in users() {
        let (code, out, err) = run(&mut host.demo(user, &["--", "podway", "status"]));
        assert!(code == 0 && out.contains("deployment/web"), "{code}: {out}{err}");
        host.assert_clean();
    }
}

#[test]
fn a_command_that_cannot_be_started_is_told_at_once() {
    let host = Host::new();
    for (command, code, cause) in
        [("no-such-program", 127, "no such program"), ("/etc/passwd", 126, "it cannot be executed")]
    {
        let (ended, out, err) = run(&mut host.demo(User::Own, &["--", command]));
        assert_eq!((ended, out.as_str()), (code, ""));
        let lines: Vec<&str> = err.lines().collect();
        assert_eq!(lines[0], format!("error: demo: {command}: {cause}"));
        assert!(lines.len() == 2 && lines[1].starts_with("hint: "), "{err}");
    }
    host.assert_clean();
}

#[test]
fn who_may_not_make_devices_is_told_what_helps() {
    if !geteuid().is_root() || tun_is_open() {
        return println!("skipped: needs root and a /dev/net/tun that is closed to others");
    }
    let host = Host::new();
    let (code, out, err) = run(&mut host.demo(User::Nobody, &[]));
    assert_eq!(code, 1, "{out}");
    assert_eq!(
        err,
        "error: demo: /dev/net/tun: Permission denied (os error 13)\n\
         hint: sudo chmod 0666 /dev/net/tun, as distributions ship it\n"
    );
    host.assert_clean();
}

#[test]
fn a_host_that_does_not_allow_it_is_told_with_what_helps() {
    if !geteuid().is_root() || !podway::demo::join::has("unshare") {
        return skipped("needs root, and unshare(1), to make a host that does not allow it");
    }
    let host = Host::new();
    let limits = "cd /proc/sys/user && echo 0 >max_user_namespaces && echo 0 >max_net_namespaces";
    for (flags, before, error, hint) in [
        (
            ["--user", "--map-root-user"].as_slice(),
            limits,
            "error: demo: user namespace: the host allows no user namespaces (user.max_user_namespaces is 0)",
            "hint: sudo sysctl -w user.max_user_namespaces=10000, or run it as root",
        ),
        (
            ["--mount"].as_slice(),
            "mount -t tmpfs none /dev/net",
            "error: demo: /dev/net/tun: No such file or directory (os error 2)",
            "hint: sudo modprobe tun; in a container: start it with --device /dev/net/tun",
        ),
    ] {
        let mut command = Command::new("unshare");
        command.args(flags).args(["sh", "-c", &format!("{before} && exec \"$0\" demo")]).arg(host.program());
        let (code, out, err) = run(command.stdin(Stdio::null()));
        assert_eq!((code, err), (1, format!("{error}\n{hint}\n")), "{out}");
        host.assert_clean();
    }
}

#[test]
fn several_run_side_by_side_also_beside_one_that_stands_still() {
    let host = Host::new();
    for user in users() {
        let mut first = Running::start(&mut host.demo(user, &["--keep"]));
        first.until("It stays until Ctrl-C");
        let family = Family::of(first.pid());
        for pid in &family.pids {
            crate::host::send(*pid, nix::sys::signal::SIGSTOP);
        }
        let (code, out, err) = run(&mut host.demo(user, &[]));
        assert_eq!(code, 0, "{out}{err}");
        drop(first);
        for pid in family.pids.iter().skip(1) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw((*pid).try_into().unwrap()), nix::sys::signal::SIGCONT)
                .ok();
        }
        family.assert_gone();
        host.assert_clean();
    }
}

#[test]
fn one_that_stays_is_joined_by_the_lines_that_it_prints() {
    let host = Host::new();
    for user in users() {
        let mut demo = Running::start(&mut host.demo(user, &["--keep"]));
        demo.until("kubectl get pods");
        let lines: Vec<String> = demo.said.lines().map(|line| line.trim().to_owned()).collect();
        let ours = lines.iter().find(|line| line.contains("podway-minicluster enter")).unwrap();
        let plain = lines.iter().find(|line| line.starts_with("nsenter ")).unwrap();
        for line in [ours, plain] {
            let line = line.strip_suffix(" bash").unwrap();
            let mut command = Command::new("sh");
            command.args(["-c", &format!("{line} curl -s http://api.other/")]).stdin(Stdio::null());
            if user == User::Nobody {
                std::os::unix::process::CommandExt::uid(&mut command, NOBODY.0);
            }
            let (code, out, err) = run(&mut command);
            assert!(code == 0 && out.contains("\"pod\":\"api-"), "{line}: {out}{err}");
        }
        let family = Family::of(demo.pid());
        demo.signal(nix::sys::signal::SIGINT);
        assert_eq!(ended(&mut demo.child).code(), Some(0));
        family.assert_gone();
        host.assert_clean();
    }
}

#[test]
fn it_is_coloured_on_a_terminal_unless_the_user_says_no() {
    if !podway::demo::join::has("script") {
        return println!("skipped: no script(1) here");
    }
    let host = Host::new();
    if users().is_empty() {
        return skipped("nobody can run the demo here");
    }
    for (no_color, coloured) in [(None, true), (Some("1"), false)] {
        let mut command = Command::new("script");
        command.args(["-qefc", &format!("{} demo", host.program().display()), "/dev/null"]);
        command.env("TERM", "xterm").env_remove("NO_COLOR").envs(no_color.map(|value| ("NO_COLOR", value)));
        let (code, out, err) = run(command.stdin(Stdio::null()));
        assert_eq!(code, 0, "{out}{err}");
        assert_eq!(out.contains('\u{1b}'), coloured, "{out}");
    }
    host.assert_clean();
}
