//! The systemd files: they verify, stay under the exposure score that is promised, and name the paths and rights
//! that the daemon really uses. What needs systemd's own tools is skipped where they are not installed.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

fn config() -> PathBuf {
    crate::package().join("config")
}

/// The units in a directory of their own, with a program that exists on every machine in podwayd's place.
fn staged() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let unit = fs::read_to_string(config().join("podwayd.service")).unwrap();
    fs::write(dir.path().join("podwayd.service"), unit.replace("/usr/sbin/podwayd", "/bin/true")).unwrap();
    fs::copy(config().join("podway.socket"), dir.path().join("podway.socket")).unwrap();
    let drop_ins = dir.path().join("podwayd.service.d");
    fs::create_dir(&drop_ins).unwrap();
    fs::copy(config().join("podwayd.service.d/resolv-conf.conf"), drop_ins.join("resolv-conf.conf")).unwrap();
    dir
}

/// Runs `systemd-analyze`, or says why not.
fn analyze(args: &[&str]) -> Option<std::process::Output> {
    match Command::new("systemd-analyze").args(args).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let required = std::env::var_os("PODWAY_REQUIRE_ROOT_TESTS").is_some();
            assert!(!required, "must not be left out here: systemd-analyze is not installed");
            eprintln!("skipped: systemd-analyze is not installed");
            None
        }
        Err(error) => panic!("systemd-analyze: {error}"),
    }
}

#[test]
fn the_units_verify_without_a_complaint() {
    let dir = staged();
    let [service, socket] = ["podwayd.service", "podway.socket"].map(|f| dir.path().join(f));
    let Some(output) = analyze(&["verify", service.to_str().unwrap(), socket.to_str().unwrap()]) else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("podway"), "{said}");
}

#[test]
fn the_exposure_score_is_at_most_two() {
    let dir = staged();
    let service = dir.path().join("podwayd.service");
    // The threshold is ten times the score.
    let Some(output) = analyze(&["security", "--offline=true", "--threshold=20", service.to_str().unwrap()]) else {
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn the_socket_is_where_everybody_expects_it() {
    let socket = fs::read_to_string(config().join("podway.socket")).unwrap();
    for line in ["ListenStream=/run/podway/podway.sock", "SocketMode=0660", "SocketGroup=podway"] {
        assert!(socket.lines().any(|l| l == line), "{line} is missing");
    }
    let group = fs::read_to_string(config().join("podway.sysusers")).unwrap();
    assert!(group.lines().any(|l| l.split_whitespace().take(2).eq(["g", "podway"])));
}

#[test]
fn the_daemon_has_one_capability_and_undoes_what_outlives_it() {
    let unit = fs::read_to_string(config().join("podwayd.service")).unwrap();
    for line in [
        "CapabilityBoundingSet=CAP_NET_ADMIN",
        "ExecStopPost=/usr/sbin/podwayd cleanup",
        "NoExecPaths=/",
        "StateDirectory=podway",
        "RuntimeDirectory=podway",
    ] {
        assert!(unit.lines().any(|l| l == line), "{line} is missing");
    }
    assert!(!unit.contains("AmbientCapabilities"));
}

/// A hardening line without a reason is removed by the first person it annoys.
#[test]
fn every_paragraph_of_the_unit_has_a_comment() {
    let unit = fs::read_to_string(config().join("podwayd.service")).unwrap();
    for paragraph in unit.split("\n\n").filter(|p| p.contains('=')) {
        assert!(paragraph.contains('#') || paragraph.starts_with("[Install]"), "no reason is given in:\n{paragraph}");
    }
}
