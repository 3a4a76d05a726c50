//! Waiters under every order of snapshots, selections, dials that fail, links that are lost, deadlines and teardown.

use podway::actors::client_list::core::{ClientListCore, Input};
use podway::ids::{Generation, Millis, ReplyId, WaiterId};

use crate::support::clients_world::ClientsWorld;
use crate::support::explore::assert_holds;
use crate::support::facts::{Agent, FINGERPRINT, KEY, pod, snapshot, target, via};

const DEADLINE: Millis = Millis(30_000);

fn list() -> ClientsWorld<ClientListCore> {
    ClientsWorld::new(ClientListCore::new(KEY, FINGERPRINT))
}

fn register(id: u64, name: &str) -> Input {
    Input::Register { id: WaiterId(id), target: target(name), deadline: DEADLINE }
}

#[test]
fn order_e_two_workloads_both_settle_with_a_failing_dial() {
    let pods = snapshot([pod("t", "web", Agent::Running), pod("u", "db", Agent::Running)]);
    let mut world = list()
        .sends("PodWatcher", [Input::Pods(Generation(1), pods)])
        .sends("ProxyVia", [Input::Via(Generation(1), via(&["web"])), Input::Via(Generation(2), via(&["web", "db"]))])
        .sends("Session", [register(1, "web"), register(2, "db")]);
    world.failing_dials = 1;
    assert_holds(world);
}

#[test]
fn s05_cancel_and_teardown_answer_every_waiter_once() {
    let pods = snapshot([pod("t", "web", Agent::Running)]);
    let mut world = list()
        .sends("PodWatcher", [Input::Pods(Generation(1), pods)])
        .sends("ProxyVia", [Input::Via(Generation(1), via(&["web"]))])
        .sends("Session", [register(1, "web"), register(2, "db"), Input::HangUpAll(ReplyId(1))])
        .sends("Another registrant", [register(3, "web"), Input::Cancel(WaiterId(3))]);
    world.failing_dials = 1;
    world.early_deadlines = 1;
    assert_holds(world);
}

#[test]
fn s08_one_timeout_leaves_the_other_waiter() {
    let short = Input::Register { id: WaiterId(1), target: target("web"), deadline: Millis(10) };
    let world = list()
        .sends("PodWatcher", [Input::Pods(Generation(1), snapshot([pod("t", "web", Agent::Running)]))])
        .sends("ProxyVia", [Input::Via(Generation(1), via(&["web"]))])
        .sends("Session", [short, register(2, "web")]);
    let mut early = world.clone();
    early.early_deadlines = 2;
    assert_holds(world);
    assert_holds(early);
}
