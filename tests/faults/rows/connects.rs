//! Connects while the API server answers each request at another time.

use std::time::{Duration, Instant};

use serde_json::json;

use super::seconds;
use crate::rig::{PATIENCE, Rig};
use crate::row::{Group, Row, case, spread};
use crate::world::until;

/// What an everyday run has for it.
const EVERYDAY: Duration = Duration::from_secs(80);
/// The longest that an answer is held back.
const LONGEST: u64 = 400;
/// After that a connect hangs.
const HANGS: Duration = Duration::from_secs(10);

/// Numbers that look random and are the same in each run (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// When the pod comes that the connection leads through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comes {
    Before,
    During,
    After,
}

pub fn group(asked: Option<usize>) -> Group {
    let fault = match asked {
        Some(count) => format!(
            "{count} connects, each request answered up to 0.4 s later, the target there before, during or after"
        ),
        None => "connects for 80 s, each request answered up to 0.4 s later, the target there before, during or after"
            .to_owned(),
    };
    let connects = case(fault, "no failure, no hang (10 s)", move |rig, row| {
        let mut random = Random(1);
        let (began, mut times) = (Instant::now(), [Vec::new(), Vec::new(), Vec::new()]);
        let goes_on = |done: usize| asked.map_or(began.elapsed() < EVERYDAY, |count| done < count);
        let mut done = 0;
        while goes_on(done) {
            let comes = [Comes::Before, Comes::During, Comes::After][done % 3];
            match one(rig, &mut random, comes) {
                Ok(took) => times[done % 3].push(took),
                Err(why) => row.holds(false, || format!("connect {done}, {comes:?}: {why}")),
            }
            done += 1;
        }
        row.figure(format!("{done} connects in {:.0?}", began.elapsed()));
        for (comes, times) in ["before", "during", "after"].into_iter().zip(&times) {
            row.figure(format!("the target there {comes}: {} connects, {}", times.len(), spread(times)));
        }
        let all = times.concat();
        row.healed = all.iter().max().copied();
        told(row, done);
    });
    Group { title: "Connects", connect: None, cases: vec![connects] }
}

fn told(row: &mut Row, done: usize) {
    row.holds(done >= 30, || format!("only {done} connects"));
}

/// One connection, through a workload whose pod comes at some time; how long until it works, from when both were there.
fn one(rig: &mut Rig<'_, '_>, random: &mut Random, comes: Comes) -> Result<Duration, String> {
    let world = rig.world;
    let scale = |replicas: u32| world.cluster.scale("deployments", "demo", "idle", replicas).unwrap();
    let ready = || world.cluster.wait_ready("deployments", "demo", "idle", PATIENCE).unwrap();
    if comes == Comes::Before {
        scale(1);
        ready();
    }
    let rules: Vec<_> = [
        ("list", "pods"), ("list", "services"), ("list", "endpointslices"), ("list", "nodes"), ("list", "servicecidrs"),
        ("list", "namespaces"), ("watch", "pods"), ("watch", "services"), ("get", "namespaces"), ("get", "deployments"),
        ("list", "deployments"), ("create", "selfsubjectrulesreviews"), ("create", "selfsubjectaccessreviews"),
        ("create", "jobs"), ("patch", "pods/ephemeralcontainers"), ("get", "pods/portforward"),
        ("create", "pods/portforward"), ("get", "jobs"),
    ]
    .into_iter()
    .map(|(verb, resource)| {
        json!({"fault": "delay", "millis": random.below(LONGEST), "on": {"verb": verb, "resource": resource}})
    })
    .collect();
    let fault = rig.fault(&rules);
    let mut began = Instant::now();
    let when = Duration::from_millis(random.below(700));
    let came = std::thread::scope(|scope| {
        let came = scope.spawn(move || {
            if comes == Comes::During {
                std::thread::sleep(when);
                scale(1);
            }
        });
        let done = world.podway(&["connect", "-n", "demo", "--proxy-via", "service=idle"]);
        came.join().unwrap();
        done
    });
    let code = came.status.code();
    if !matches!(code, Some(0 | 4)) || (comes == Comes::Before && code != Some(0)) {
        rig.end(fault);
        world.podway(&["disconnect", "--all"]);
        return Err(format!("it ends with {code:?}: {}", came.err));
    }
    if comes != Comes::Before {
        if comes == Comes::After {
            scale(1);
        }
        ready();
        began = began.max(Instant::now());
    }
    rig.look.fresh("Ready", HANGS, |status| status.holds("Ready"));
    until("a new connection", seconds(5), || {
        world.ws.who("edge").ok().filter(|answer| world.whose(answer.remote.ip()) == "demo/deployment/idle")
    });
    let took = began.elapsed();
    rig.end(fault);
    let done = world.podway(&["disconnect"]);
    if !done.status.success() {
        return Err(format!("disconnect: {}", done.err));
    }
    scale(0);
    for pod in world.names("demo", "idle") {
        world.gone("demo", &pod);
    }
    Ok(took)
}
