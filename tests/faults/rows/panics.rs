//! A bug in each handler of each actor, as `src/actors/falls.rs` makes one.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use podway::actors::falls::VARIABLE;
use serde_json::json;

use super::{HEALED, VIA};
use crate::look::Control;
use crate::rig::{PATIENCE, Rig};
use crate::row::{Case, Group, Row, case, spread};
use crate::world::until;

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
    ("ProxyVia", &["Select", "Cluster", "Host", "Allocate", "InUse", "Remember", "Stop", "Woke"]),
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
            "Woke",
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
    Group { title: "Bugs", connect: None, cases: CHILDREN.iter().map(|(actor, words)| falls(actor, words)).collect() }
}

pub fn roots() -> Group {
    let cases = ROOTS.iter().map(|(actor, words)| falls(actor, words));
    Group { title: "Bugs", connect: None, cases: cases.collect() }
}

fn falls(actor: &'static str, words: &'static [&'static str]) -> Case {
    case(format!("a panic in each of {} handlers of {actor}", words.len()), BAR, move |rig, row| {
        let file = rig.world.directory().join("falls");
        if rig.podway.launch.variables.is_empty() {
            rig.podway.stop();
            rig.podway.launch.variables.push((VARIABLE.to_owned(), file.display().to_string()));
            rig.podway.start();
        }
        let mut times = Vec::new();
        for word in words {
            std::fs::write(&file, format!("{actor} {word}\n")).unwrap();
            let fall = Fall::watch(file.clone());
            day(rig, &fall);
            match fall.at() {
                Some(at) => {
                    let took = serves(rig, at, row);
                    row.holds(took <= HEALED, || format!("{word}: served again after {took:.2?}"));
                    times.push(took);
                }
                None => {
                    std::fs::remove_file(&file).ok();
                    row.holds(false, || format!("{word}: a day of work does not lead there"));
                }
            }
            // Fails when the host is not as it was.
            rig.world.podway(&["disconnect", "--all"]);
            until(&format!("{actor} {word}: the host is as before"), HEALED, || rig.world.is_as_before().then_some(()));
        }
        row.healed = times.iter().max().copied();
        row.figure(format!("{} falls: {}", times.len(), spread(&times)));
    })
}

/// When the file goes.
struct Fall {
    over: Arc<AtomicBool>,
    thread: thread::JoinHandle<Option<Instant>>,
    file: PathBuf,
}

impl Fall {
    fn watch(file: PathBuf) -> Fall {
        let over: Arc<AtomicBool> = Arc::default();
        let (stop, path) = (Arc::clone(&over), file.clone());
        let thread = thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if !path.exists() {
                    return Some(Instant::now());
                }
                thread::sleep(Duration::from_millis(2));
            }
            None
        });
        Fall { over, thread, file }
    }

    fn is_there(&self) -> bool {
        !self.file.exists()
    }

    fn at(self) -> Option<Instant> {
        // It may be about to look.
        if self.file.exists() {
            self.over.store(true, Ordering::Relaxed);
        }
        self.thread.join().unwrap()
    }
}

/// What a user and the cluster do in a day, until it falls.
fn day(rig: &mut Rig<'_, '_>, fall: &Fall) {
    let (world, connect) = (rig.world, [&["connect", "-n", "demo"], VIA].concat());
    let steps: [&dyn Fn(&Rig<'_, '_>); 9] = [
        &|_| drop(world.podway(&[&connect[..], &["--dry-run"]].concat())),
        &|_| drop(world.podway(&connect)),
        // Names, and flows.
        &|_| {
            for _ in 0..30 {
                world.ws.get("web", 80, "/").ok();
                if fall.is_there() {
                    return;
                }
                thread::sleep(Duration::from_millis(50));
            }
        },
        // Others credentials.
        &|_| drop(world.podway(&connect)),
        &|rig| {
            rig.cut(json!({}), true);
            world.ws.who("web").ok();
        },
        &|rig| {
            let fault = rig.fault(&[json!({"fault": "away"})]);
            thread::sleep(Duration::from_millis(800));
            rig.end(fault);
            world.ws.who("web").ok();
        },
        &|rig| {
            rig.serve("podway-day");
            thread::sleep(Duration::from_millis(300));
            world.cluster.delete("services", "demo", "podway-day").unwrap();
        },
        &|_| drop(world.podway(&["disconnect", "--clean"])),
        &|_| drop(world.podway(&["status"])),
    ];
    for step in steps {
        if !fall.is_there() {
            step(rig);
            thread::sleep(Duration::from_millis(30));
        }
    }
}

/// Waits until the daemon serves again, as systemd would have it, and what was connected is; how long after `at`.
fn serves(rig: &mut Rig<'_, '_>, at: Instant, row: &mut Row) -> Duration {
    let answers = until("the daemon answers", PATIENCE, || {
        if rig.podway.ended().is_some() {
            rig.podway.start();
        }
        let mut control = Control::open(&rig.world.ws).ok()?;
        control.status().ok()
    });
    let mut took = at.elapsed();
    if answers.0.is_empty() {
        let done = rig.world.podway(&[&["connect", "-n", "demo"], VIA].concat());
        row.holds(done.status.success(), || format!("it cannot connect: {}", done.err));
    } else {
        rig.well(at, PATIENCE);
        took = at.elapsed();
        let steps = rig.look.latest().map(|status| status.steps).unwrap_or_default();
        if let Some(step) = steps.into_iter().find(|step| step.text.contains("panicked"))
            && row.shows.is_empty()
        {
            row.shows = vec![step.text];
        }
    }
    row.holds(rig.world.ws.who("web").is_ok(), || "no new connection works".to_owned());
    took
}
