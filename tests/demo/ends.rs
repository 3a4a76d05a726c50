//! However it ends, nothing of it is left.

use nix::sys::signal::Signal;

use crate::host::{Family, Host, Running, send, users, words};

/// Whether everything ends by itself when a process with that command line is killed. Without the others the demo goes
/// on: the cluster starts agents anew, and the workstation outlives the process that stands for it.
fn is_vital(words: &str) -> bool {
    !words.contains("podway-agent") && !words.contains(" hold ") && !words.starts_with("/tmp/podway-agent")
}

#[test]
fn whichever_of_its_processes_is_killed_nothing_is_left() {
    let host = Host::new();
    for user in users() {
        let mut victim = 0;
        loop {
            let mut demo = Running::start(&mut host.demo(user, &["--keep"]));
            demo.until("kubectl get pods");
            let family = Family::of(demo.pid());
            let Some(&pid) = family.pids.get(victim) else {
                assert!(victim >= 6, "demo, sandbox, cluster, workstation, daemon, agents: only {victim}");
                demo.signal(Signal::SIGINT);
                assert_eq!(demo.end().0.code(), Some(0));
                family.assert_gone();
                break;
            };
            let what = words(pid);
            println!("{user:?}: kill {what}");
            send(pid, Signal::SIGKILL);
            if !is_vital(&what) {
                demo.signal(Signal::SIGINT);
            }
            let (status, complaint) = demo.end();
            family.assert_gone();
            host.assert_clean();
            if victim > 0 && is_vital(&what) {
                assert_eq!(status.code(), Some(1), "{what}: {complaint}");
                let lines: Vec<&str> = complaint.lines().collect();
                assert!(lines.len() == 2 && lines[0].starts_with("error: demo: "), "{what}: {complaint}");
                assert!(lines[1].starts_with("hint: "), "{what}: {complaint}");
            }
            victim += 1;
        }
        host.assert_clean();
    }
}

#[test]
fn ctrl_c_ends_it_at_any_step() {
    let host = Host::new();
    for user in users() {
        for (said, signal, code) in [
            ("podway demo", Signal::SIGINT, 130),
            ("✓ cluster", Signal::SIGINT, 130),
            ("✓ connect", Signal::SIGTERM, 143),
            ("✓ request", Signal::SIGHUP, 129),
        ] {
            let mut demo = Running::start(&mut host.demo(user, &[]));
            demo.until(said);
            let family = Family::of(demo.pid());
            demo.signal(signal);
            let (status, complaint) = demo.end();
            assert_eq!(status.code(), Some(code), "{said}: {complaint}");
            assert_eq!(complaint, "interrupted: all that was started is gone\n", "{said}");
            if said != "podway demo" {
                family.assert_gone();
            }
            host.assert_clean();
        }
    }
}

#[test]
fn a_command_ends_with_the_demo_and_the_demo_with_the_command() {
    let host = Host::new();
    for user in users() {
        for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            let mut demo = Running::start(&mut host.demo(user, &["--", "sh", "-c", "echo here; sleep 600 & wait"]));
            demo.until("here");
            let family = Family::with(demo.pid(), "sleep 600 ");
            demo.signal(signal);
            let (status, complaint) = demo.end();
            family.assert_gone();
            host.assert_clean();
            // As shells tell it; nobody is left to tell of a kill.
            assert_eq!(status.code(), (signal != Signal::SIGKILL).then_some(128 + signal as i32), "{complaint}");
        }
    }
}
