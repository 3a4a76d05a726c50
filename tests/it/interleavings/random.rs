//! Long runs at random, for lengths that cannot be walked whole: everything may wait, and anything may happen.

use proptest::prelude::*;

use crate::support::connect_world::{ConnectWorld, Event, Expected, Part, Step, host};
use crate::support::explore::World;
use crate::support::facts::{Agent, pod};
use crate::support::story;

/// One move of a run.
#[derive(Clone, Debug)]
enum Move {
    /// Something happens.
    Happens(Event),
    /// One of what can happen next does, by its number.
    Goes(u16),
}

/// Every kind of event there is, the misfortunes more rarely.
fn event() -> impl Strategy<Value = Event> {
    let uid = prop_oneof![Just("t"), Just("u"), Just("v")];
    let child = prop_oneof![
        Just(Part::ClientList),
        Just(Part::AgentPlacer),
        Just(Part::ProxyVia),
        Just(Part::Vif),
        Just(Part::PodWatcher),
        Just(Part::Dns),
    ];
    let edge = prop_oneof![
        Just((Part::PodWatcher, Part::ClientList)),
        Just((Part::PodWatcher, Part::ProxyVia)),
        Just((Part::ProxyVia, Part::Vif)),
        Just((Part::ProxyVia, Part::Session)),
    ];
    let other = || {
        let mut other = host();
        other.resolvers.insert([10, 42, 0, 53].into());
        Event::HostIs(Box::new(other))
    };
    prop_oneof![
        4 => Just(Event::Connect),
        2 => Just(Event::Disconnect),
        3 => uid.clone().prop_map(|uid| Event::PodIs(Box::new(pod(uid, "web", Agent::Running)))),
        2 => uid.clone().prop_map(|uid| Event::PodIs(Box::new(pod(uid, "web", Agent::Absent)))),
        2 => uid.clone().prop_map(Event::PodGoes),
        2 => uid.prop_map(Event::AgentRestarts),
        2 => Just(Event::WatchEnds),
        2 => Just(Event::RangesAreKnown),
        1 => Just(other()),
        1 => Just(Event::HostIs(Box::new(host()))),
        3 => Just(Event::Asks),
        2 => Just(Event::FlowBegins),
        1 => Just(Event::FlowsEnd),
        2 => Just(Event::FlowWaits),
        2 => Just(Event::CarrierLost),
        1 => Just(Event::CredentialsChange),
        1 => Just(Event::ResolverChanges),
        1 => child.prop_map(Event::Panics),
        1 => Just(Event::Crash),
        2 => edge.prop_map(|(from, to)| Event::Again(from, to)),
    ]
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![1 => event().prop_map(Move::Happens), 4 => any::<u16>().prop_map(Move::Goes)];
    prop::collection::vec(one, 1..=200)
}

/// The same, with standstills of a second to ten days: a daemon that is stopped and goes on, a host that sleeps.
fn moves_with_leaps() -> impl Strategy<Value = Vec<Move>> {
    let leap = prop_oneof![1_000..60_000_u64, Just(3_600_000_u64), Just(864_000_000_u64)].prop_map(Event::TimeLeaps);
    let event = prop_oneof![3 => event(), 1 => leap].prop_map(Move::Happens);
    let one = prop_oneof![1 => event, 4 => any::<u16>().prop_map(Move::Goes)];
    prop::collection::vec(one, 1..=200)
}

fn start() -> ConnectWorld {
    let mut world = ConnectWorld::via_rule("service=web", [pod("t", "web", Agent::Running)])
        .watching()
        .naming()
        .serving()
        .with(|script| script.ranges_known = false)
        .repeats(&[
            (Part::PodWatcher, Part::ClientList),
            (Part::PodWatcher, Part::ProxyVia),
            (Part::ProxyVia, Part::Vif),
            (Part::ProxyVia, Part::Session),
        ])
        .expects(Expected::Any)
        .all_slow();
    (world.failing_dials, world.failing_placements, world.failing_routes) = (3, 3, 3);
    (world.failing_names, world.failing_lists, world.early_deadlines) = (3, 3, 3);
    world.begun()
}

fn holds(world: &ConnectWorld, done: &[String]) -> Result<(), TestCaseError> {
    let held = world.always().and_then(|()| if world.steps().is_empty() { world.quiescent() } else { Ok(()) });
    held.map_err(|why| TestCaseError::fail(format!("{why}\nafter\n{}", done.join("\n"))))
}

/// Makes these moves, then lets everything come to its end, the connection too.
fn run(moves: Vec<Move>) -> Result<(), TestCaseError> {
    let mut world = start();
    let mut done = Vec::new();
    let mut say = |text: String, world: &mut ConnectWorld, step: &dyn Fn(&mut ConnectWorld)| {
        done.push(text);
        done.extend(story::of(|| step(world)).into_iter().map(|line| format!("       {line}")));
        holds(world, &done)
    };
    for one in moves {
        match one {
            Move::Happens(event) => say(format!("{event:?}"), &mut world, &|world| world.event(event.clone()))?,
            Move::Goes(number) => {
                let steps = world.steps();
                let Some(step) = steps.get(usize::from(number) % steps.len().max(1)).cloned() else { continue };
                say(format!("{step:?}"), &mut world, &|world| world.take(&step))?;
            }
        }
    }
    for _ in 0..2000 {
        let well = world.steps().into_iter().find(|step| !matches!(step, Step::Fails(_)));
        let Some(step) = well.or_else(|| world.at_last()) else {
            return if world.at_rest() { Ok(()) } else { Err(TestCaseError::fail("it does not come to rest")) };
        };
        say(format!("{step:?}"), &mut world, &|world| world.take(&step))?;
    }
    Err(TestCaseError::fail("it goes on and on"))
}

/// How many runs; `PODWAY_RUNS` says otherwise.
fn runs() -> u32 {
    std::env::var("PODWAY_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(40)
}

fn all_hold(moves: impl Strategy<Value = Vec<Move>>) {
    let config = ProptestConfig {
        cases: runs(),
        max_shrink_iters: 2000,
        failure_persistence: Some(Box::new(proptest::test_runner::FileFailurePersistence::Direct(
            "tests/it/interleavings/random.proptest-regressions",
        ))),
        ..ProptestConfig::default()
    };
    proptest::test_runner::TestRunner::new(config).run(&moves, run).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn long_runs_of_anything_hold_every_property() {
    all_hold(moves());
}

#[test]
fn long_runs_with_standstills_hold_every_property_and_no_core_tries_without_a_pause() {
    all_hold(moves_with_leaps());
}
