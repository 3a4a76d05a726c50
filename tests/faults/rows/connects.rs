//! Connects while the API server answers each request at another time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use podway::actors::late;
use serde_json::json;

use super::host::again;
use super::seconds;
use crate::look::Look;
use crate::rig::{PATIENCE, Rig};
use crate::row::{Group, case, spread};
use crate::world::{Launch, World, until};

/// What an everyday run has for it.
const EVERYDAY: Duration = Duration::from_secs(80);
/// Clusters at a time: most of a connect is waiting.
const LANES: usize = 3;
/// The longest that an answer is held back, in milliseconds.
const LONGEST: u64 = 150;
/// The longest that an actor is given an input late, in milliseconds.
const LATE: &str = "30";
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

const COMES: [Comes; 3] = [Comes::Before, Comes::During, Comes::After];

pub fn group(asked: Option<usize>) -> Group {
    let many = asked.map_or(format!("connects for {} s", EVERYDAY.as_secs()), |count| format!("{count} connects"));
    let fault = format!(
        "{many}, each answer of the API server and each message to an actor late by chance, the target there before, during \
         or after"
    );
    let connects = case(fault, "no failure, no hang (10 s)", move |rig, row| {
        let (began, done) = (Instant::now(), AtomicUsize::new(0));
        let goes_on = |number: usize| asked.map_or(began.elapsed() < EVERYDAY, |count| number < count);
        let worlds: Vec<World> = (0..LANES).map(|_| rig.world.beside().unwrap()).collect();
        let came: Vec<Came> = thread::scope(|scope| {
            let lanes: Vec<_> = worlds
                .iter()
                .enumerate()
                .map(|(lane, world)| {
                    let (goes_on, next) = (&goes_on, || done.fetch_add(1, Ordering::Relaxed));
                    scope.spawn(move || {
                        self::lane(world, lane as u64, || Some(next()).filter(|number| goes_on(*number)))
                    })
                })
                .collect();
            lanes.into_iter().map(|lane| lane.join().unwrap()).collect()
        });
        let mut all = Vec::new();
        let failed: Vec<&String> = came.iter().flat_map(|came| &came.failed).collect();
        for (at, comes) in COMES.into_iter().enumerate() {
            let times: Vec<Duration> = came.iter().flat_map(|came| &came.times[at]).copied().collect();
            row.figure(format!("the target there {comes:?}: {} connects, {}", times.len(), spread(&times)));
            all.extend(times);
        }
        row.figure(format!("{} connects in {:.0?}", all.len() + failed.len(), began.elapsed()));
        failed.iter().for_each(|why| row.holds(false, || (*why).clone()));
        row.holds(all.len() >= 30, || format!("only {} connects", all.len()));
        row.healed = all.iter().max().copied();
    });
    Group { title: "Connects", connect: None, cases: vec![connects] }
}

/// What came of the connects on one cluster.
#[derive(Default)]
struct Came {
    /// By when the target came.
    times: [Vec<Duration>; COMES.len()],
    failed: Vec<String>,
}

/// Connects on a cluster of its own for as long as there is a next one.
fn lane(world: &World, lane: u64, mut next: impl FnMut() -> Option<usize>) -> Came {
    let mut came = Came::default();
    let variables = vec![(late::VARIABLE.to_owned(), LATE.to_owned())];
    world.with_daemon(|podway| {
        let mut rig = Rig { world, podway, look: Look::start(world), connect: None };
        again(&mut rig, Launch { variables, ..Launch::default() });
        let mut random = Random(lane + 1);
        while let Some(number) = next() {
            let at = number % COMES.len();
            match one(&mut rig, &mut random, COMES[at]) {
                Ok(took) => came.times[at].push(took),
                Err(why) => came.failed.push(format!("connect {number}, {:?}: {why}", COMES[at])),
            }
        }
    });
    came
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
    let came = thread::scope(|scope| {
        let came = scope.spawn(move || {
            if comes == Comes::During {
                thread::sleep(when);
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
