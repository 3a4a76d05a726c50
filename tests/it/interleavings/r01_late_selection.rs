//! The race that hung podway's ancestor: the snapshot comes, then the selection and the waiter, then silence.

use podway::actors::client_list::core::{ClientListCore, Input};
use podway::ids::{Generation, Millis, WaiterId};

use crate::support::clients_world::{ClientsWorld, Machine};
use crate::support::edge_triggered::EdgeTriggered;
use crate::support::explore::{assert_holds, explore};
use crate::support::facts::{Agent, FINGERPRINT, KEY, pod, snapshot, target, via};

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
