//! A pod of a stateful set comes back under its name. It is another pod: its UID says so.

use podway::actors::client_list::core::{ClientListCore, Input};
use podway::cluster::PodFact;
use podway::ids::{Generation, Millis, WaiterId};

use crate::support::by_name::ByName;
use crate::support::clients_world::{ClientsWorld, Machine};
use crate::support::explore::{assert_holds, explore};
use crate::support::facts::{Agent, FINGERPRINT, KEY, pod, snapshot, target, via};

fn store_0(uid: &str) -> PodFact {
    PodFact { name: "store-0".into(), ..pod(uid, "store", Agent::Running) }
}

fn scenario<M: Machine>(machine: M) -> ClientsWorld<M> {
    let (old, new) = (snapshot([store_0("old")]), snapshot([store_0("new")]));
    ClientsWorld::new(machine)
        .sends("PodWatcher", [Input::Pods(Generation(1), old), Input::Pods(Generation(2), new)])
        .sends("ProxyVia", [Input::Via(Generation(1), via(&["store"]))])
        .sends("Session", [Input::Register { id: WaiterId(1), target: target("store"), deadline: Millis(30_000) }])
}

#[test]
fn s19_recreated_pod_same_name() {
    let mut world = scenario(ClientListCore::new(KEY, FINGERPRINT));
    (world.failing_dials, world.lost_links, world.late_results) = (1, 1, 1);
    assert_holds(world);
}

#[test]
fn the_explorer_finds_the_old_pod_s_result_taken_for_the_new_pod() {
    let mut world = scenario(ByName::new(ClientListCore::new(KEY, FINGERPRINT)));
    world.late_results = 1;
    let broken = explore(world).expect_err("the result belongs to another pod");
    assert!(broken.path.iter().any(|step| step.starts_with("LateResult")), "{broken:?}");
}
