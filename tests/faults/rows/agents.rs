//! Agents and their pods.

use std::collections::BTreeSet;
use std::time::Instant;

use podway_minicluster::control::{Signal, Target};

use super::{HEALED, VIA, seconds};
use crate::rig::{PATIENCE, Rig};
use crate::row::{Group, case};
use crate::world::until;

fn signal(rig: &Rig<'_, '_>, signal: Signal) {
    for pod in rig.world.names("demo", "web") {
        rig.world.cluster.signal("demo", &pod, Target::Agent, signal).unwrap();
    }
}

pub fn agents() -> Group {
    let killed = case("all agents of a workload are killed (SIGKILL)", "new connections after 5 s", |rig, row| {
        let (to, flows) = (rig.address("web"), rig.flows("web"));
        let of_web = |(pod, _): &(String, String)| pod.starts_with("demo/web-");
        let before: BTreeSet<_> = rig.world.agents().into_iter().filter(of_web).collect();
        let since = Instant::now();
        signal(rig, Signal::Kill);
        let first = rig.new_connection(to, since, PATIENCE);
        row.healed = Some(row.within("a new connection", first, HEALED));
        until("other agents", PATIENCE, || (rig.world.agents().is_disjoint(&before)).then_some(()));
        let well = rig.well(since, PATIENCE);
        // Whether no agent works for a moment is open: the first may be replaced before the second is missed.
        row.figure(format!("all agents are back after {well:.2?}"));
        row.figures.extend(rig.look.story_since(since));
        row.flows = flows.end().told();
    });
    let stopped = case(
        "all agents of a workload stand still for 60 s (SIGSTOP)",
        "seen in 8 s, healed in 5 s, no open connection is lost",
        |rig, row| {
            let (to, flows) = (rig.address("web"), rig.flows("web"));
            let since = Instant::now();
            signal(rig, Signal::Stop);
            rig.seen(since, PATIENCE, row);
            row.within("seen", row.seen.unwrap(), seconds(8));
            rig.lasts(since, seconds(60));
            let over = Instant::now();
            signal(rig, Signal::Continue);
            let first = rig.new_connection(to, over, PATIENCE);
            let well = rig.well(over, PATIENCE);
            row.healed = Some(row.within("healed", first.max(well), HEALED));
            rig.note(since, row);
            flows.end().kept(row);
        },
    );
    Group { title: "Agents", connect: Some(VIA), cases: vec![killed, stopped] }
}

pub fn replaced() -> Group {
    let replaced = case(
        "the one pod of a StatefulSet is replaced under its name",
        "5 s after the new one is ready",
        |rig, row| {
            let world = rig.world;
            world.cluster.scale("statefulsets", "demo", "store", 1).unwrap();
            world.gone("demo", "store-1");
            rig.well(Instant::now(), PATIENCE);
            let (to, flows) = (rig.address("web"), rig.flows("web"));
            let uid = || world.cluster.get("pods", "demo", "store-0").unwrap()["metadata"]["uid"].clone();
            let (before, since) = (uid(), Instant::now());
            world.cluster.delete("pods", "demo", "store-0").unwrap();
            rig.seen(since, PATIENCE, row);
            until("another pod", PATIENCE, || {
                let now = uid();
                (!now.is_null() && now != before).then_some(())
            });
            world.cluster.wait_ready("pods", "demo", "store-0", PATIENCE).unwrap();
            let ready = Instant::now();
            let first = rig.new_connection(to, ready, PATIENCE);
            let well = rig.well(ready, PATIENCE);
            row.healed = Some(row.within("healed", first.max(well), HEALED));
            row.figure(format!("ready after {:.2?}", ready - since));
            rig.note(since, row);
            row.flows = flows.end().told();
        },
    );
    Group { title: "Agents", connect: Some(&["--proxy-via", "service=store"]), cases: vec![replaced] }
}
