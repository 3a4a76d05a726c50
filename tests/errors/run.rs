//! Runs cases, and the rules that hold for each of them.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use podway_minicluster::handle::Done;
use serde_json::Value;

use crate::case::{Case, Group, LIMIT, Stage};
use crate::stable::stable;
use crate::world::{World, measured};

/// What came of a case.
pub struct Row {
    pub group: &'static str,
    pub name: String,
    pub slow: &'static str,
    /// Whether it works. What is said then need not tell causes apart.
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

/// What has no reason.
const NONE: &str = "–";

/// Runs a group on a cluster of its own.
pub fn group(group: &Group, show: &dyn Fn(&Row)) -> Vec<Row> {
    let serves = group.stage != Stage::Nothing;
    let started = catch_unwind(AssertUnwindSafe(|| {
        let world = World::start(group.stage == Stage::OtherAgents);
        if serves {
            world.daemon(&[]);
        }
        world
    }));
    let mut rows = Vec::new();
    for case in &group.cases {
        let (mut seen, mut faults) = (Seen::default(), Vec::new());
        match &started {
            Ok(world) => {
                let ran = catch_unwind(AssertUnwindSafe(|| {
                    (case.setup)(world);
                    (seen, faults) = one(world, case);
                }));
                faults.extend(ran.err().map(|why| format!("cannot be made: {}", said_by(&*why))));
                let undone = catch_unwind(AssertUnwindSafe(|| world.clean_up(serves)));
                faults.extend(undone.err().map(|why| format!("cannot be undone: {}", said_by(&*why))));
                if serves && !world.serves() {
                    faults.push("the daemon does not serve any more".to_owned());
                }
                let log = world.logs();
                if log.contains("panicked at") {
                    faults.push(format!("something panicked: {log}"));
                }
            }
            Err(why) => faults.push(format!("its cluster does not start: {}", said_by(&**why))),
        }
        let row =
            Row { group: group.title, name: case.name.clone(), slow: case.slow, notice: case.notice, seen, faults };
        show(&row);
        rows.push(row);
    }
    rows
}

fn said_by(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

fn one(world: &World, case: &Case) -> (Seen, Vec<String>) {
    let scripts = !case.notice && !case.reason.is_empty();
    let as_text = world.command(&case.command);
    let as_json = world.command(&[case.command.as_slice(), &["-o", "json"]].concat());
    // What waits for its limit does so twice at a time.
    let (text, json) = if scripts && case.limit > LIMIT * 3 {
        thread::scope(|scope| {
            let json = scope.spawn(|| measured(as_json));
            (measured(as_text), Some(json.join().unwrap()))
        })
    } else {
        (measured(as_text), scripts.then(|| measured(as_json)))
    };
    let (done, took) = text;
    let (said, mut faults) = said(&done, case);
    let mut seen = Seen { took, exit: done.status.code().unwrap_or(-1), reason: NONE.to_owned(), text: stable(&said) };
    if let Some((json, _)) = json {
        let error = serde_json::from_str::<Value>(&json.out).unwrap_or_default()["error"].take();
        let field = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        seen.reason = field("reason");
        let form = stable(&format!("error: {}\nhint: {}\n", field("message"), field("hint")));
        if form != seen.text || json.status.code() != Some(seen.exit) {
            faults.push(format!("as JSON it ends with {} and says: {form}", json.status));
        }
        if seen.reason != case.reason {
            faults.push(format!("the reason is {}, not {}", seen.reason, case.reason));
        }
    }
    if seen.exit != case.exit {
        faults.push(format!("the exit code is {}, not {}: {}", seen.exit, case.exit, done.err));
    }
    if took > case.limit {
        faults.push(format!("after {took:.2?}, later than {:?}", case.limit));
    }
    for word in case.says.iter().filter(|word| !seen.text.contains(word.as_str())) {
        faults.push(format!("{word:?} is not said: {}", done.err));
    }
    (seen, faults)
}

/// The error in what was written, and what is wrong with its form.
fn said(done: &Done, case: &Case) -> (String, Vec<String>) {
    let mut faults = Vec::new();
    if case.notice {
        let told = |line: &&str| {
            let marked = ["note:", "warning:", "!", "not yet:"].iter().any(|mark| line.starts_with(mark));
            marked || case.says.iter().any(|word| line.contains(word.as_str()))
        };
        // Which step is done first is open, so the table has them sorted.
        let mut lines: Vec<String> = done.err.lines().filter(told).map(step).collect();
        lines.sort();
        return (lines.iter().map(|line| format!("{line}\n")).collect(), faults);
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

/// A step without its time.
fn step(line: &str) -> String {
    let mut words = line.split_whitespace();
    match (words.next(), words.next()) {
        (Some(mark @ ("!" | "✓" | "✗")), Some(_)) => format!("{mark} {}", words.collect::<Vec<_>>().join(" ")),
        _ => line.to_owned(),
    }
}

/// What is wrong with the cases, alone and among each other.
pub fn faults(rows: &[Row]) -> Vec<String> {
    let mut faults: Vec<String> = Vec::new();
    let mut texts: BTreeMap<&str, &Row> = BTreeMap::new();
    for row in rows {
        faults.extend(row.faults.iter().map(|fault| format!("{}: {}: {fault}", row.group, row.name)));
        if row.notice || row.seen.text.is_empty() {
            continue;
        }
        if let Some(other) = texts.insert(row.seen.text.as_str(), row) {
            faults.push(format!("{}: {}: says the same as {:?}", row.group, row.name, other.name));
        }
    }
    faults
}
