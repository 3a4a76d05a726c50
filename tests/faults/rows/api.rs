//! The API server as a whole.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{HEALED, VIA, seconds};
use crate::rig::{PATIENCE, Rig};
use crate::row::{Case, Group, Row, case};

/// What podway watches.
pub const RESOURCES: [&str; 6] = ["pods", "services", "endpointslices", "nodes", "servicecidrs", "namespaces"];
/// How long it is away in an everyday run.
const AWAY: Duration = Duration::from_secs(20);

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

fn outage(fault: &str, bar: &'static str, lasts: Duration, rules: fn() -> Vec<Value>, kept: bool) -> Case {
    let name = format!("podway-new-{}", fault.len());
    case(fault, bar, move |rig, row| {
        let (to, flows, before) = (rig.address("web"), rig.flows("web"), lists(rig));
        let fault = rig.fault(&rules());
        let since = fault.since;
        if kept {
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
        let came = flows.end();
        row.figure(format!("the longest wait of what was kept: {:.2?}", came.waited));
        row.holds(!kept || came.lost.is_empty(), || format!("lost: {:?}", came.lost));
        row.flows = came.told();
    })
}

pub fn group() -> Group {
    let away = || vec![json!({"fault": "away"})];
    let overloaded = || vec![json!({"fault": "refuse", "code": 503, "message": "the server is starting"})];
    Group {
        title: "The API server",
        connect: Some(VIA),
        cases: vec![
            outage(
                "it is restarted, and is away for 2 s",
                "caught up 5 s after its return, each resource listed once at most",
                seconds(2),
                away,
                false,
            ),
            outage(
                "it is away for 20 s",
                "caught up 5 s after its return, each resource listed once at most",
                AWAY,
                away,
                false,
            ),
            outage(
                "it ends its watches and refuses all requests for 20 s (503); carriers stay",
                "no open connection is lost, caught up 5 s after, each resource listed once at most",
                AWAY,
                overloaded,
                true,
            ),
            case("connections to it are reset", "healed in 5 s, each resource listed once at most", |rig, row| {
                let (to, flows, before) = (rig.address("web"), rig.flows("web"), lists(rig));
                let since = Instant::now();
                rig.cut(json!({}), true);
                let first = rig.new_connection(to, since, PATIENCE);
                let known = rig.appears("podway-reset", since, PATIENCE);
                let well = rig.well(since, PATIENCE);
                row.healed = Some(row.within("healed", first.max(known).max(well), HEALED));
                relists(rig, row, before, 1);
                row.flows = flows.end().told();
            }),
        ],
    }
}
