//! The ways to agents: silent, or cut.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{HEALED, VIA, seconds};
use crate::rig::{PATIENCE, Rig};
use crate::row::{Case, Group, Row, case, quantile, spread};
use crate::transfers::carries;

/// Longer than it takes to give a carrier up.
const SILENT: Duration = Duration::from_secs(10);
const SEEN: Duration = Duration::from_secs(8);

const CUTS: usize = 100;
/// Bytes each way, over a way so thin that it takes a while.
const TRANSFER: usize = 100_000_000;
const THIN: u64 = 12_000_000;

fn portforward() -> Value {
    json!({"resource": "pods/portforward"})
}

pub fn half_open() -> Group {
    let hole = |fault: &str, on: fn() -> Value, way: &'static str| {
        case(
            fault,
            "seen in 8 s, healed in 5 s, no open connection is lost",
            move |rig: &mut Rig<'_, '_>, row: &mut Row| {
                let rule = json!({"fault": "black_hole", "way": way, "on": on()});
                rig.outage(row, &[rule], SILENT, SEEN, HEALED);
            },
        )
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
        "new connections work after 1 s (p50) and 5 s (p99), no open connection is lost",
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
                    flows.end().kept(row);
                }
            }
            row.figure(format!("{CUTS} cuts in {:.1?}: {}", began.elapsed(), spread(&times)));
            let (half, most) = (quantile(&times, 0.5), quantile(&times, 0.99));
            row.within("p50", half, seconds(1));
            row.healed = Some(row.within("p99", most, seconds(5)));
            rig.well(Instant::now(), PATIENCE);
        },
    );
    Group { title: "Cuts", connect: Some(VIA), cases: vec![cuts, under_transfers()] }
}

fn under_transfers() -> Case {
    let fault = "a carrier is cut every 2 s under 100 MB downwards and 100 MB up and back";
    case(fault, "each byte comes once, no reset", |rig, row| {
        let thin = rig.fault(&[json!({"fault": "link", "delay_millis": 2, "bytes_per_second": THIN})]);
        let (began, mut cuts) = (Instant::now(), 0);
        carries(&rig.world.ws, TRANSFER, |over| {
            while !over() {
                std::thread::sleep(seconds(2));
                cuts += rig.cut(portforward(), cuts % 2 == 0);
            }
        });
        rig.end(thin);
        row.figure(format!("{:.1?}, {cuts} carriers were cut", began.elapsed()));
        row.holds(cuts >= 5, || format!("{cuts} carriers were cut: it was too quick"));
        row.flows = "2 of 2 kept".to_owned();
        rig.well(Instant::now(), PATIENCE);
    })
}
