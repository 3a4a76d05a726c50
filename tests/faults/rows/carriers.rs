//! The ways to agents: silent, or cut.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{HEALED, VIA, seconds};
use crate::rig::{PATIENCE, Rig};
use crate::row::{Group, Row, case, quantile, spread};

/// Longer than it takes to give a carrier up.
const SILENT: Duration = Duration::from_secs(10);
const SEEN: Duration = Duration::from_secs(8);

const CUTS: usize = 100;

fn portforward() -> Value {
    json!({"resource": "pods/portforward"})
}

pub fn half_open() -> Group {
    let hole = |fault: &str, on: fn() -> Value, way: &'static str| {
        case(fault, "seen in 8 s, healed in 5 s", move |rig: &mut Rig<'_, '_>, row: &mut Row| {
            let rule = json!({"fault": "black_hole", "way": way, "on": on()});
            rig.outage(row, &[rule], SILENT, SEEN, HEALED);
        })
    };
    Group {
        title: "Silence",
        connect: Some(VIA),
        cases: vec![
            hole("nothing passes between podway and the API server", || json!({}), "both"),
            hole("nothing passes on the carriers", portforward, "both"),
            hole("nothing passes on the carriers towards the agents", portforward, "to_server"),
            hole("nothing passes on the carriers from the agents", portforward, "to_client"),
        ],
    }
}

pub fn cut() -> Group {
    let cuts = case(
        format!("the carriers are cut, {CUTS} times, each as soon as new connections work"),
        "new connections work after 1 s (p50) and 5 s (p99)",
        |rig, row| {
            let to = rig.address("web");
            let began = Instant::now();
            let mut times = Vec::new();
            for round in 0..CUTS {
                let flows = (round == 0).then(|| rig.flows("web"));
                let since = Instant::now();
                let cut = rig.cut(portforward(), round % 2 == 0);
                row.holds(cut > 0, || "there was no carrier to cut".to_owned());
                times.push(rig.new_connection(to, since, PATIENCE));
                if let Some(flows) = flows {
                    row.flows = flows.end().told();
                }
            }
            row.figure(format!("{CUTS} cuts in {:.1?}: {}", began.elapsed(), spread(&times)));
            let (half, most) = (quantile(&times, 0.5), quantile(&times, 0.99));
            row.within("p50", half, seconds(1));
            row.healed = Some(row.within("p99", most, seconds(5)));
            rig.well(Instant::now(), PATIENCE);
        },
    );
    Group { title: "Cuts", connect: Some(VIA), cases: vec![cuts] }
}
