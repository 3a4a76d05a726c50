//! The API server as a whole.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{HEALED, VIA, seconds};
use crate::rig::{PATIENCE, Rig};
use crate::row::{Case, Group, Row, case};

/// What podway watches.
pub const RESOURCES: [&str; 6] = ["pods", "services", "endpointslices", "nodes", "servicecidrs", "namespaces"];
/// How long it is away, and how long it refuses.
const AWAY: Duration = Duration::from_secs(60);
const REFUSES: Duration = Duration::from_secs(20);

/// How often each of them was listed.
pub fn lists(rig: &Rig<'_, '_>) -> [u64; RESOURCES.len()] {
    RESOURCES.map(|resource| rig.requests("list", resource))
}

/// Holds the row to one list of each since then.
pub fn relists(rig: &Rig<'_, '_>, row: &mut Row, before: [u64; RESOURCES.len()], most: u64) {
    let now = lists(rig);
    let counts: Vec<u64> = now.iter().zip(before).map(|(now, before)| now - before).collect();
    row.figure(format!("lists of {RESOURCES:?}: {counts:?}"));
    row.holds(counts.iter().all(|count| *count <= most), || format!("listed more than {most} times: {counts:?}"));
}

fn outage(fault: &str, lasts: Duration, rules: fn() -> Vec<Value>, ends_watches: bool) -> Case {
    let bar = "no open connection is lost, caught up 5 s after, each resource listed once at most";
    let name = format!("podway-new-{}", fault.len());
    case(fault, bar, move |rig, row| {
        let (to, flows, before) = (rig.address("web"), rig.flows("web"), lists(rig));
        let fault = rig.fault(&rules());
        let since = fault.since;
        if ends_watches {
            rig.cut(json!({"verb": "watch"}), true);
        }
        rig.seen(since, PATIENCE, row);
        row.within("seen", row.seen.unwrap(), seconds(1));
        // What is known stays known.
        row.holds(rig.world.ws.lookup("web.demo.svc.cluster.local").is_ok(), || "a name is lost".to_owned());
        rig.serve(&name);
        rig.lasts(since, lasts);
        let over = rig.end(fault);
        let first = rig.new_connection(to, over, PATIENCE);
        let caught_up = rig.is_known(&name, over, PATIENCE);
        let well = rig.well(over, PATIENCE);
        row.healed = Some(row.within("caught up", first.max(caught_up).max(well), HEALED));
        row.figure(format!(
            "a new connection after {first:.2?}, a new name after {caught_up:.2?}, Ready after {well:.2?}"
        ));
        relists(rig, row, before, 1);
        rig.note(since, row);
        flows.end().kept(row);
    })
}

pub fn group() -> Group {
    let away = || vec![json!({"fault": "away"})];
    let overloaded = || vec![json!({"fault": "refuse", "code": 503, "message": "the server is starting"})];
    Group {
        title: "The API server",
        connect: Some(VIA),
        cases: vec![
            outage("it is restarted, and is away for 2 s", seconds(2), away, false),
            outage("it is away for 60 s", AWAY, away, false),
            outage(
                "it ends its watches and refuses all requests for 20 s (503); carriers stay",
                REFUSES,
                overloaded,
                true,
            ),
            case(
                "connections to it are reset",
                "no open connection is lost, healed in 5 s, each resource listed once at most",
                |rig, row| {
                    let (to, flows, before) = (rig.address("web"), rig.flows("web"), lists(rig));
                    let since = Instant::now();
                    rig.cut(json!({}), true);
                    let first = rig.new_connection(to, since, PATIENCE);
                    let known = rig.appears("podway-reset", since, PATIENCE);
                    let well = rig.well(since, PATIENCE);
                    row.healed = Some(row.within("healed", first.max(known).max(well), HEALED));
                    relists(rig, row, before, 1);
                    flows.end().kept(row);
                },
            ),
        ],
    }
}
