//! A map's "was already there" was read the other way round, so that the first waiter returned at once.

use podway::actors::client_list::core::{ClientListCore, Input};
use podway::ids::{Generation, Millis, WaiterId};

use crate::support::clients_world::ClientsWorld;
use crate::support::explore::assert_holds;
use crate::support::facts::{Agent, FINGERPRINT, KEY, effects, pod, snapshot, target, via};

fn register(id: u64) -> Input {
    Input::Register { id: WaiterId(id), target: target("web"), deadline: Millis(30_000) }
}

#[test]
fn the_first_waiter_for_a_workload_waits_like_every_other() {
    let mut list = ClientListCore::new(KEY, FINGERPRINT);
    assert_eq!(effects(&mut list, Millis(0), Input::Via(Generation(1), via(&["web"]))).len(), 1, "told of a target");
    assert_eq!(effects(&mut list, Millis(0), register(1)), []);
    assert_eq!(effects(&mut list, Millis(0), register(2)), []);
    assert_eq!(list.waiting().map(|(id, _)| id.0).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn first_and_later_waiters_are_answered_once_in_every_order() {
    let pods = snapshot([pod("t", "web", Agent::Running)]);
    let world = ClientsWorld::new(ClientListCore::new(KEY, FINGERPRINT))
        .sends("PodWatcher", [Input::Pods(Generation(1), pods)])
        .sends("ProxyVia", [Input::Via(Generation(1), via(&["web"]))])
        .sends("Session", [register(1), register(2)])
        .sends("Another registrant", [register(3)]);
    assert_holds(world);
}
