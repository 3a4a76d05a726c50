//! The dial of an earlier attempt ends when a later one is under way. It is nobody's result any more.

use podway::actors::client_list::core::{ClientListCore, DialOutcome, Effect, Input};
use podway::ids::{Attempt, Generation, Millis, WaiterId};

use crate::support::by_name::ByName;
use crate::support::clients_world::{ClientsWorld, Machine};
use crate::support::explore::{assert_holds, explore};
use crate::support::facts::{Agent, FINGERPRINT, KEY, connected, effects, pod, snapshot, target, via};

/// The pod is there, is gone, is there again.
fn scenario<M: Machine>(machine: M) -> ClientsWorld<M> {
    let there = || snapshot([pod("t", "web", Agent::Running)]);
    let gone = Input::Pods(Generation(2), snapshot([]));
    ClientsWorld::new(machine)
        .sends("PodWatcher", [Input::Pods(Generation(1), there()), gone, Input::Pods(Generation(3), there())])
        .sends("ProxyVia", [Input::Via(Generation(1), via(&["web"]))])
        .sends("Session", [Input::Register { id: WaiterId(1), target: target("web"), deadline: Millis(30_000) }])
}

#[test]
fn s34_old_attempt_fails_after_return() {
    let mut world = scenario(ClientListCore::new(KEY, FINGERPRINT));
    (world.failing_dials, world.late_results) = (2, 1);
    assert_holds(world);
}

#[test]
fn the_explorer_finds_a_result_that_is_taken_for_a_later_attempt_s() {
    let mut world = scenario(ByName::new(ClientListCore::new(KEY, FINGERPRINT)));
    world.late_results = 1;
    let broken = explore(world).expect_err("the result belongs to another attempt");
    assert!(broken.path.iter().any(|step| step.starts_with("LateResult")), "{broken:?}");
}

#[test]
fn a_stale_failure_changes_nothing_and_a_stale_link_is_ended() {
    let mut list = ClientListCore::new(KEY, FINGERPRINT);
    let there = || snapshot([pod("t", "web", Agent::Running)]);
    let mut feed = |input| effects(&mut list, Millis(0), input);
    feed(Input::Via(Generation(1), via(&["web"])));
    feed(Input::Pods(Generation(1), there()));
    feed(Input::Pods(Generation(2), snapshot([])));
    feed(Input::Pods(Generation(3), there()));
    let finished = |attempt, outcome| Input::DialFinished { pod: "t".into(), attempt: Attempt(attempt), outcome };
    assert_eq!(feed(finished(1, DialOutcome::Refused)), []);
    let hang_up = Effect::HangUp { pod: "t".into(), attempt: Attempt(1) };
    assert_eq!(feed(finished(1, connected())), [hang_up]);
    feed(finished(2, connected()));
    assert!(list.is_ready(&target("web")));
}
