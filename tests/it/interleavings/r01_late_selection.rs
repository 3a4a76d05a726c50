//! The race that hung podway's ancestor: the snapshot comes, then the selection and the waiter, then silence.

use podway::actors::client_list::core::{ClientListCore, Effect, Input};
use podway::ids::{Generation, Millis, WaiterId};

use crate::support::clients_world::{ClientsWorld, Machine};
use crate::support::edge_triggered::EdgeTriggered;
use crate::support::explore::{assert_holds, explore};
use crate::support::facts::{Agent, FINGERPRINT, KEY, effects, pod, snapshot, target, via};

/// Three workloads with agents, one of them selected and waited for. Nothing more ever happens.
fn scenario<M: Machine>(machine: M) -> ClientsWorld<M> {
    let pods = snapshot([
        pod("a", "alpha", Agent::Running),
        pod("b", "beta", Agent::Running),
        pod("t", "web", Agent::Running),
    ]);
    ClientsWorld::new(machine)
        .sends("PodWatcher", [Input::Pods(Generation(1), pods)])
        .sends("ProxyVia", [Input::Via(Generation(1), via(&["web"]))])
        .sends("Session", [Input::Register { id: WaiterId(1), target: target("web"), deadline: Millis(30_000) }])
}

#[test]
fn s01_target_seen_before_it_is_wanted() {
    let explored = assert_holds(scenario(ClientListCore::new(KEY, FINGERPRINT)));
    assert!(explored.ends > 0, "no order came to its end: {explored:?}");
}

#[test]
fn the_explorer_finds_the_lost_wake_up_of_an_edge_triggered_list() {
    let broken = explore(scenario(EdgeTriggered::default())).expect_err("the ancestor's race");
    assert!(broken.why.contains("lost wake-up"), "{broken:?}");
    let path = broken.path.join(" ");
    let (pods, waiter) = (path.find("Pods"), path.find("Register"));
    assert!(pods < waiter, "the snapshot comes before the waiter in {path}");
}

#[test]
fn order_a_snapshot_then_selection_then_silence() {
    let mut list = ClientListCore::new(KEY, FINGERPRINT);
    let now = Millis(0);
    assert!(!dials(&effects(&mut list, now, Input::Pods(Generation(1), snapshot([pod("t", "web", Agent::Running)])))));
    assert!(dials(&effects(&mut list, now, Input::Via(Generation(1), via(&["web"])))), "the snapshot was kept");
}

fn dials(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Dial { .. }))
}

#[test]
fn order_b_agent_arrives_before_registration() {
    let bare = snapshot([pod("t", "web", Agent::Absent)]);
    let placed = snapshot([pod("t", "web", Agent::Running)]);
    let world = ClientsWorld::new(ClientListCore::new(KEY, FINGERPRINT))
        .sends("PodWatcher", [Input::Pods(Generation(1), bare), Input::Pods(Generation(2), placed)])
        .sends("ProxyVia", [Input::Via(Generation(1), via(&["web"]))])
        .sends("Session", [Input::Register { id: WaiterId(1), target: target("web"), deadline: Millis(30_000) }]);
    assert_holds(world);
}

#[test]
fn order_d_result_equal_with_and_without_later_event() {
    let later = snapshot([pod("a", "alpha", Agent::Running), pod("t", "web", Agent::Running)]);
    let world = scenario(ClientListCore::new(KEY, FINGERPRINT));
    assert_holds(world.sends("PodWatcher", [Input::Pods(Generation(2), later)]));
}
