//! Runs cases, and the rules that hold for each of them.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use podway_minicluster::handle::Done;
use serde_json::Value;

use crate::case::{Case, Daemon, Group};
use crate::world::World;

/// What came of a case.
pub struct Row {
    pub group: &'static str,
    pub name: &'static str,
    pub limit: Duration,
    pub slow: &'static str,
    pub notice: bool,
    pub seen: Seen,
    /// What is wrong with it.
    pub faults: Vec<String>,
}

/// What a command did.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub took: Duration,
    pub exit: i32,
    pub reason: String,
    /// Error and hint, or the notices, without what differs from run to run.
    pub text: String,
}

/// Runs a group on a cluster of its own.
pub fn group(group: &Group, show: &dyn Fn(&Row)) -> Vec<Row> {
    let serves = group.daemon == Daemon::Serves;
    let world = World::start();
    if serves {
        world.daemon(&[]);
    }
    let mut rows = Vec::new();
    for case in &group.cases {
        let (mut seen, mut faults) = (Seen::default(), Vec::new());
        let ran = catch_unwind(AssertUnwindSafe(|| {
            (case.setup)(&world);
            (seen, faults) = one(&world, case);
        }));
        if let Err(why) = ran {
            let why = why.downcast_ref::<String>().cloned().unwrap_or_default();
            faults.push(format!("cannot be made: {why}"));
        }
        if catch_unwind(AssertUnwindSafe(|| world.clean_up(serves))).is_err() {
            faults.push("cannot be undone".to_owned());
        }
        if serves && !world.serves() {
            faults.push("the daemon does not serve any more".to_owned());
        }
        let log = world.logs();
        if log.contains("panicked at") {
            faults.push(format!("something panicked: {log}"));
        }
        let Case { name, limit, slow, notice, .. } = *case;
        let row = Row { group: group.title, name, limit, slow, notice, seen, faults };
        show(&row);
        rows.push(row);
    }
    rows
}

fn one(world: &World, case: &Case) -> (Seen, Vec<String>) {
    let (done, took) = world.measured(case.command);
    let (said, mut faults) = said(&done, case.notice);
    let mut seen = Seen { took, exit: done.status.code().unwrap_or(-1), reason: String::new(), text: stable(&said) };
    if case.notice {
        seen.reason = "–".to_owned();
    } else if case.reason.is_empty() {
        seen.reason = "–".to_owned();
    } else {
        world.clean_up_connections();
        let (json, _) = world.measured(&[case.command, &["-o", "json"]].concat());
        let error = serde_json::from_str::<Value>(&json.out).unwrap_or_default()["error"].take();
        let text = |field: &str| error[field].as_str().unwrap_or_default().to_owned();
        seen.reason = text("reason");
        let form = stable(&format!("error: {}\nhint: {}\n", text("message"), text("hint")));
        if form != seen.text || json.status.code() != Some(seen.exit) {
            faults.push(format!("as JSON it is another: {json:?}"));
        }
        if seen.reason != case.reason {
            faults.push(format!("the reason is {}, not {}", seen.reason, case.reason));
        }
    }
    if seen.exit != case.exit {
        faults.push(format!("the exit code is {}, not {}: {done:?}", seen.exit, case.exit));
    }
    if took > case.limit {
        faults.push(format!("after {took:.2?}, later than {:?}", case.limit));
    }
    for word in case.says.iter().filter(|word| !seen.text.contains(**word)) {
        faults.push(format!("{word:?} is not said"));
    }
    (seen, faults)
}

/// The error in what was written, and what is wrong with its form.
fn said(done: &Done, notice: bool) -> (String, Vec<String>) {
    let mut faults = Vec::new();
    let starts = |kinds: &[&str]| -> String {
        let lines = done.err.lines().filter(|line| kinds.iter().any(|kind| line.starts_with(kind)));
        lines.map(|line| format!("{line}\n")).collect()
    };
    if notice {
        return (starts(&["note:", "warning:", "! "]), faults);
    }
    // Steps, and what a plugin says, come before; nothing comes behind.
    let text = done.err.find("error: ").map_or("", |at| &done.err[at..]);
    if text.lines().count() != 2 || text.lines().nth(1).is_none_or(|line| !line.starts_with("hint: ")) {
        faults.push(format!("not an error and a hint: {:?}", done.err));
    }
    if text.lines().any(|line| line == "hint: " || line == "error: ") {
        faults.push(format!("empty: {text:?}"));
    }
    (text.to_owned(), faults)
}

/// Without what differs from run to run: what controllers make up for names.
fn stable(text: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    let ends = |c: char| !(c.is_ascii_alphanumeric() || c == '-');
    for c in text.chars().chain(['\0']) {
        if !ends(c) {
            word.push(c);
            continue;
        }
        out.push_str(&named(&word));
        word.clear();
        if c != '\0' {
            out.push(c);
        }
    }
    out
}

/// `web-5d8c7b9f6d-x2x4z` as `web-*`.
fn named(word: &str) -> String {
    for workload in ["web", "db", "idle", "store", "edge", "api", "never", "podway-agent"] {
        let rest = word.strip_prefix(workload).and_then(|rest| rest.strip_prefix('-'));
        if rest.is_some_and(|rest| rest.len() > 4 && rest != "5d8c7b9f6d" && rest.chars().any(|c| c.is_ascii_digit())) {
            return format!("{workload}-*");
        }
    }
    word.to_owned()
}

/// What is wrong with the cases, alone and among each other.
pub fn faults(rows: &[Row]) -> Vec<String> {
    let mut faults: Vec<String> = Vec::new();
    let mut texts: BTreeMap<&str, &Row> = BTreeMap::new();
    for row in rows {
        faults.extend(row.faults.iter().map(|fault| format!("{}: {}: {fault}", row.group, row.name)));
        if let Some(other) = texts.insert(row.seen.text.as_str(), row).filter(|_| !row.seen.text.is_empty()) {
            faults.push(format!("{}: {}: says the same as {:?}", row.group, row.name, other.name));
        }
    }
    faults
}
