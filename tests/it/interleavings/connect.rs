//! `podway connect --proxy-via all=web`: five real cores, everything outside a model, every order of what a scenario
//! lets wait.

use crate::support::connect_world::{ConnectWorld, Expected, Part, Waits, host, ranges};
use crate::support::explore::{Explored, assert_holds, walk};
use crate::support::facts::{Agent, pod};

use Part::{AgentPlacer, ClientList, Host, PodWatcher, ProxyVia, Session, Vif};

/// Snapshots, selection, waiter: all ways to ClientList, and its way back.
const LINKS: [(Part, Part); 4] =
    [(PodWatcher, ClientList), (ProxyVia, ClientList), (Session, ClientList), (ClientList, Session)];
/// Everything that decides over agents.
const AGENTS: [(Part, Part); 4] =
    [(PodWatcher, AgentPlacer), (ProxyVia, AgentPlacer), (AgentPlacer, ClientList), (PodWatcher, ClientList)];
/// Everything that decides over ranges, and what becomes of it.
const ROUTES: [(Part, Part); 6] = [
    (Session, ProxyVia),
    (PodWatcher, ProxyVia),
    (Host, ProxyVia),
    (ProxyVia, Vif),
    (ProxyVia, Session),
    (Vif, Session),
];

fn there() -> ConnectWorld {
    ConnectWorld::new([pod("t", "web", Agent::Running)])
}

/// How many orders of a world that is too wide are tried; `PODWAY_WALKS` says otherwise.
fn walks() -> u64 {
    std::env::var("PODWAY_WALKS").ok().and_then(|walks| walks.parse().ok()).unwrap_or(100)
}

fn holds(world: ConnectWorld) -> Explored {
    assert_holds(world.begun())
}

#[test]
fn a_target_whose_agent_is_there_is_reached_in_every_order() {
    holds(there().slow(&[LINKS.as_slice(), &AGENTS[..2]].concat(), &[Waits::Start, Waits::Dial]));
}

#[test]
fn a_target_that_comes_at_any_moment_is_reached() {
    let bare = ConnectWorld::new([]).slow(&LINKS, &[Waits::Start, Waits::Dial]);
    holds(bare.pod_appears(pod("t", "web", Agent::Absent)).pod_appears(pod("t", "web", Agent::Running)));
}

#[test]
fn a_target_without_an_agent_gets_one_and_is_reached() {
    let world = ConnectWorld::new([pod("t", "web", Agent::Absent)]);
    holds(world.slow(&[AGENTS.as_slice(), &LINKS[1..]].concat(), &[Waits::Place, Waits::Dial]));
}

#[test]
fn our_own_pod_is_made_once_beside_the_agent_of_the_target() {
    let world = ConnectWorld::via_rule("service=web", [pod("t", "web", Agent::Running)]);
    let mut world = world.slow(&AGENTS, &[Waits::Place]);
    world.failing_placements = 1;
    holds(world);
}

#[test]
fn a_placement_that_fails_is_tried_again_without_any_event() {
    let mut world = ConnectWorld::new([pod("t", "web", Agent::Absent)]).slow(&AGENTS, &[Waits::Place]);
    world.failing_placements = 2;
    holds(world);
}

#[test]
fn a_dial_that_fails_is_tried_again_without_any_event() {
    let mut world = there().slow(&LINKS, &[Waits::Dial]);
    world.failing_dials = 2;
    holds(world);
}

#[test]
fn a_deadline_that_comes_early_does_not_stop_what_is_under_way() {
    let mut world = there().slow(&LINKS, &[Waits::Dial]);
    world.early_deadlines = 1;
    holds(world);
}

#[test]
fn a_target_that_never_comes_ends_at_the_deadline() {
    holds(ConnectWorld::new([]).slow(&LINKS, &[Waits::Start]).expects(Expected::TimedOut));
}

#[test]
fn zero_replicas_leave_the_connection_up_and_a_later_pod_is_taken() {
    let world = ConnectWorld::new([])
        .with(|script| script.workloads = [("web", 0)].into())
        .slow(&LINKS, &[Waits::Start, Waits::Dial]);
    holds(world.clone().expects(Expected::Degraded));
    // The pod may come before the outcome is decided, and then it is ready at once.
    holds(world.pod_appears(pod("t", "web", Agent::Running)).expects(Expected::ReadyOrDegraded));
}

#[test]
fn host_facts_that_are_late_or_change_move_the_routes() {
    let mut other = host();
    other.resolvers.insert([10, 42, 0, 53].into());
    let world = there().with(|script| script.host = vec![host(), other]);
    let mut world =
        world.slow(&[(Session, ProxyVia), (Host, ProxyVia), (ProxyVia, Vif)], &[Waits::Device, Waits::Routes]);
    world.questions = 1;
    holds(world);
}

#[test]
fn order_f_slow_device_and_instant_snapshot() {
    let mut world = there().slow(&[ROUTES.as_slice(), &LINKS[3..]].concat(), &[Waits::Device, Waits::Routes]);
    world.questions = 1;
    holds(world);
}

#[test]
fn routes_that_fail_are_tried_again() {
    let mut world = there().slow(&ROUTES[3..], &[Waits::Device, Waits::Routes]);
    world.failing_routes = 2;
    holds(world);
}

#[test]
fn order_h_a_disconnect_at_any_moment_of_the_dials_leaves_nothing_behind() {
    let mut world = there().slow(&LINKS, &[Waits::Start, Waits::Dial, Waits::Undo, Waits::Teardown]);
    world.disconnects = 1;
    holds(world);
}

#[test]
fn a_disconnect_at_any_moment_of_the_placement_leaves_nothing_behind() {
    let world = ConnectWorld::new([pod("t", "web", Agent::Absent)]);
    let mut world = world
        .slow(&[AGENTS.as_slice(), &[(Session, AgentPlacer)]].concat(), &[Waits::Place, Waits::Undo, Waits::Teardown]);
    world.disconnects = 1;
    holds(world);
}

#[test]
fn a_disconnect_at_any_moment_leaves_no_pod_of_ours_that_never_ran() {
    let world = ConnectWorld::via_rule("service=web", [pod("t", "web", Agent::Running)]);
    let world = world.with(|script| script.own_pod_is_stuck = true);
    let mut world = world
        .slow(&[AGENTS.as_slice(), &[(Session, AgentPlacer)]].concat(), &[Waits::Place, Waits::Undo, Waits::Teardown]);
    world.disconnects = 1;
    holds(world);
}

#[test]
fn a_disconnect_that_does_not_wait_for_a_create_leaves_no_pod_of_ours_that_never_ran() {
    let world = ConnectWorld::via_rule("service=web", [pod("t", "web", Agent::Running)]);
    let mut world =
        world.with(|script| script.own_pod_is_stuck = true).slow(&[], &[Waits::Place, Waits::Undo, Waits::Teardown]);
    (world.disconnects, world.early_deadlines, world.failing_placements) = (1, 2, 1);
    holds(world);
}

#[test]
fn a_pod_of_ours_that_was_wanted_for_a_while_is_not_left_behind() {
    // Until the ranges are known, general traffic may need a pod of ours; then these rules cover everything.
    let rules = ["10.42.0.0/16=web", "10.43.0.0/16=web"];
    let world = ConnectWorld::via_rules(&rules, [pod("t", "web", Agent::Running)]);
    let world = world.with(|script| script.own_pod_is_stuck = true);
    let slow = [&AGENTS[..3], &[(PodWatcher, ProxyVia), (Session, AgentPlacer)]].concat();
    let mut world = world.slow(&slow, &[Waits::Place, Waits::Undo, Waits::Teardown]);
    world.disconnects = 1;
    holds(world);
}

#[test]
fn an_agent_of_another_protocol_is_followed_by_one_of_ours_and_that_is_reached() {
    let mut world = there().with(|script| script.unfit = ["podway-agent-1a2b3c4d-1".to_owned()].into());
    world = world.slow(&[AGENTS.as_slice(), &[(ClientList, AgentPlacer)]].concat(), &[Waits::Place, Waits::Dial]);
    let explored = holds(world.clone());
    assert!(explored.ends > 0);
    let mut ended = world.slow(&[(ClientList, AgentPlacer), (Session, AgentPlacer)], &[Waits::Place, Waits::Dial]);
    (ended.disconnects, ended.failing_dials, ended.failing_placements) = (1, 1, 1);
    holds(ended);
}

#[test]
fn a_disconnect_at_any_moment_of_the_device_leaves_nothing_behind() {
    let mut world = there().slow(
        &[&ROUTES[3..], &[(Session, Vif)]].concat(),
        &[Waits::Device, Waits::Routes, Waits::Undo, Waits::Teardown],
    );
    world.disconnects = 2;
    holds(world);
}

#[test]
#[ignore = "takes a minute: all orders of everything, 875,513 steps"]
fn everything_slow_at_once_holds_in_every_order() {
    holds(there().all_slow());
}

#[test]
fn everything_slow_at_once_holds_in_many_orders() {
    let mut world =
        ConnectWorld::via_rule("service=web", [pod("a", "web", Agent::Absent), pod("o", "other", Agent::Running)])
            .pod_appears(pod("b", "web", Agent::Running))
            .with(|script| script.cluster = vec![ranges(false), ranges(true)])
            .all_slow();
    (world.failing_dials, world.failing_placements, world.questions) = (1, 1, 1);
    let mut ended = world.clone();
    ended.disconnects = 2;
    for world in [world, ended] {
        if let Err(broken) = walk(&world.begun(), walks()) {
            broken.fail("a walk");
        }
    }
}
