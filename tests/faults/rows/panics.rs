//! A bug in each handler of each actor, as `src/actors/falls.rs` makes one.

use std::thread;
use std::time::{Duration, Instant};

use podway::actors::falls::VARIABLE;
use podway::status::SessionStatus;
use serde_json::{Value, json};

use super::host::again;
use super::{HEALED, VIA};
use crate::look::lines;
use crate::rig::{PATIENCE, Rig};
use crate::row::{Case, Group, case, spread};
use crate::world::{Launch, World, until};

const BAR: &str = "the host is as before, and the daemon serves in 5 s";

/// Handlers that a day of work leads to; the others are named in docs/reliability.md.
const CHILDREN: &[(&str, &[&str])] = &[
    ("PodWatcher", &["Watch", "Observed", "Failed", "Rights", "ClientChanged", "ResolveWorkloads", "Stop", "Woke"]),
    (
        "ClientList",
        &[
            "Pods",
            "Rights",
            "Via",
            "Register",
            "DialEnded",
            "DialFinished",
            "LinkEnded",
            "LinkLost",
            "FlowsBlocked",
            "HangUpAll",
            "Stop",
            "Woke",
        ],
    ),
    ("AgentPlacer", &["Pods", "Rights", "Via", "Finished", "RemoveAll", "Stop"]),
    ("ProxyVia", &["Select", "Cluster", "Host", "Allocate", "InUse", "Remember", "Stop"]),
    (
        "Vif",
        &["Open", "OpenEnded", "Opened", "Plan", "Applied", "StopDataPlane", "DataPlaneStopped", "Close", "Closed"],
    ),
    (
        "Dns",
        &[
            "Configured",
            "Asked",
            "Records",
            "Info",
            "Translation",
            "Device",
            "Translated",
            "Attached",
            "Restore",
            "Restored",
            "Stop",
        ],
    ),
    ("Planner", &["Learned", "PodsChanged", "ClusterInfoChanged", "RightsChanged", "WatchHealthChanged"]),
];

const ROOTS: &[(&str, &[&str])] = &[
    (
        "Session",
        &[
            "Begin",
            "Made",
            "Reached",
            "Resolved",
            "Rights",
            "Watch",
            "Vif",
            "Dns",
            "Via",
            "Links",
            "Settled",
            "Flows",
            "CredentialsRenewed",
            "ClientRenewed",
            "Renewed",
            "Disconnect",
            "StepDone",
        ],
    ),
    (
        "Daemon",
        &[
            "OpenSession",
            "Open",
            "CloseSession",
            "Close",
            "Ending",
            "SessionEnded",
            "Ended",
            "ListSessions",
            "PlanSession",
            "PlanEnded",
        ],
    ),
    ("Control", &["ConnectionOpened", "RequestArrived", "ConnectionClosed"]),
];

pub fn children() -> Group {
    Group {
        title: "Bugs",
        connect: None,
        cases: CHILDREN.iter().map(|(actor, words)| falls(actor, words, "")).collect(),
    }
}

pub fn roots() -> Group {
    let cases = ROOTS.iter().map(|(actor, words)| falls(actor, words, ", which end the daemon; it is started again"));
    Group { title: "Bugs", connect: None, cases: cases.collect() }
}

fn falls(actor: &'static str, words: &'static [&'static str], then: &str) -> Case {
    case(format!("panics in {} handlers of {actor}{then}", words.len()), BAR, move |rig, row| {
        let file = rig.world.directory().join("falls");
        if rig.podway.launch.variables.is_empty() {
            let variables = vec![(VARIABLE.to_owned(), file.display().to_string())];
            again(rig, Launch { variables, ..Launch::default() });
        }
        let mut times = Vec::new();
        let world = rig.world;
        for word in words {
            // What is to be placed anew must not be there.
            if actor == "AgentPlacer" {
                rig.podway.connect(VIA);
                rig.podway.disconnect(&["--clean"]);
            }
            std::fs::write(&file, format!("{actor} {word}\n")).unwrap();
            let fell = thread::scope(|scope| {
                let working = scope.spawn(|| day(world, matches!(actor, "Planner" | "Daemon"), &|| !file.exists()));
                while file.exists() && !working.is_finished() {
                    thread::sleep(Duration::from_millis(2));
                }
                let at = (!file.exists()).then(Instant::now);
                let took = at.map(|at| serves(rig, at));
                working.join().unwrap();
                took
            });
            match fell {
                Some((took, step)) => {
                    row.holds(took <= HEALED, || format!("{word}: served again after {took:.2?}"));
                    times.push(took);
                    if row.shows.is_empty() {
                        row.shows.extend(step.map(|step| step.replace(&format!(" at {word},"), " at *,")));
                    }
                }
                None => {
                    std::fs::remove_file(&file).ok();
                    row.holds(false, || format!("{word}: a day of work does not lead there"));
                }
            }
            let done = world.podway(&[&["connect", "-n", "demo"], VIA].concat());
            row.holds(done.status.success(), || format!("{word}: it cannot connect: {}", done.err));
            row.holds(world.ws.who("web").is_ok(), || format!("{word}: no new connection works"));
            world.podway(&["disconnect", "--all"]);
            until(&format!("{actor} {word}: the host is as before"), HEALED, || world.is_as_before().then_some(()));
        }
        row.healed = times.iter().max().copied();
        row.figure(format!("{} falls: {}", times.len(), spread(&times)));
    })
}

/// What a user and the cluster do in a day, until it falls.
fn day(world: &World, plans: bool, fell: &(dyn Fn() -> bool + Sync)) {
    let connect = [&["connect", "-n", "demo"], VIA].concat();
    let fault = |line: Value| drop(world.cluster.fault(line).unwrap());
    let steps: [&dyn Fn(); 9] = [
        &|| {
            if plans {
                drop(world.podway(&[&connect[..], &["--dry-run"]].concat()));
            }
        },
        &|| drop(world.podway(&connect)),
        // Names, and flows.
        &|| {
            for _ in 0..30 {
                world.ws.get("web", 80, "/").ok();
                if fell() {
                    return;
                }
                thread::sleep(Duration::from_millis(50));
            }
        },
        // Other credentials.
        &|| drop(world.podway(&connect)),
        &|| {
            fault(json!({"do": "cut", "reset": true}));
            world.ws.who("web").ok();
        },
        &|| {
            fault(json!({"do": "set", "rule": {"fault": "away"}}));
            thread::sleep(Duration::from_millis(800));
            fault(json!({"do": "clear"}));
            world.ws.who("web").ok();
        },
        &|| drop(world.podway(&["status"])),
        &|| drop(world.podway(&["disconnect", "--clean"])),
        &|| drop(world.podway(&["status"])),
    ];
    for step in steps {
        if !fell() {
            step();
            thread::sleep(Duration::from_millis(30));
        }
    }
}

/// Waits until the daemon serves again, as systemd would have it, and what was connected is; how long after `at`, and the
/// step that tells of it.
fn serves(rig: &mut Rig<'_, '_>, at: Instant) -> (Duration, Option<String>) {
    // It may be about to end.
    thread::sleep(Duration::from_millis(20));
    until("the daemon serves, and what is connected works", PATIENCE, || {
        if rig.podway.ended().is_some() {
            rig.podway.start();
        }
        let sessions = rig.look.control().ok()?.status().ok()?;
        let is_well = |status: &SessionStatus| status.holds("Ready") && lines(status).is_empty();
        if !sessions.iter().all(is_well) {
            return None;
        }
        let mut steps = sessions.into_iter().flat_map(|status| status.steps);
        Some((at.elapsed(), steps.find(|step| step.text.contains("panicked")).map(|step| step.text)))
    })
    .0
}
