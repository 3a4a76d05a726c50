//! Whole connections: all actors with a core, and three or four senders whose messages come in every order.
//!
//! Each scenario says what it is made of; which actors it joins and which misfortunes it opens is read off that
//! ([`ConnectWorld::joins`], [`ConnectWorld::opens`]), and together they open every one for every actor.

use std::collections::BTreeSet;

use podway::cluster::PodFact;

use crate::support::connect_world::{ConnectWorld, Dimension, Event, Expected, Part, Waits, host};
use crate::support::explore::assert_holds;
use crate::support::facts::{Agent, pod};

use Event::{
    Again, AgentRestarts, Asks, CarrierLost, Connect, Crash, CredentialsChange, Disconnect, FlowBegins, FlowWaits,
    FlowsEnd, HostIs, Panics, PodGoes, PodIs, Quit, RangesAreKnown, ResolverChanges, TimeLeaps, WatchEnds,
};
use Part::{AgentPlacer, ClientList, Daemon, Dns, PodWatcher, ProxyVia, Session, Vif};

/// Orders of four messages each of three senders, if nothing else came between.
const THREE_BY_FOUR: u128 = 34_650;
/// Of three messages each of four senders.
const FOUR_BY_THREE: u128 = 369_600;
/// Of five messages each of three senders.
const THREE_BY_FIVE: u128 = 756_756;

/// `connect --proxy-via all=web`, with all actors.
fn all_actors(pods: impl IntoIterator<Item = PodFact>) -> ConnectWorld {
    ConnectWorld::new(pods).watching().naming().serving().expects(Expected::Any)
}

fn web(uid: &str) -> Event {
    PodIs(Box::new(pod(uid, "web", Agent::Running)))
}

fn bare(uid: &str) -> Event {
    PodIs(Box::new(pod(uid, "web", Agent::Absent)))
}

/// A pod of a stateful set keeps its name.
fn web_0(uid: &str) -> Event {
    PodIs(Box::new(PodFact { name: "web-0".into(), ..pod(uid, "web", Agent::Running) }))
}

fn other_host() -> Event {
    let mut other = host();
    other.resolvers.insert([10, 42, 0, 53].into());
    HostIs(Box::new(other))
}

fn same_host() -> Event {
    HostIs(Box::new(host()))
}

fn there() -> PodFact {
    pod("t", "web", Agent::Running)
}

/// Declares scenarios: what each explores, at least how many interleavings, and its world.
macro_rules! scenarios {
    ($($(#[doc = $doc:literal])* $name:ident, $ways:expr, $world:expr;)*) => {
        $(
            $(#[doc = $doc])*
            #[test]
            fn $name() {
                let explored = assert_holds($world.begun());
                assert!(explored.interleavings >= $ways, "{explored:?}");
            }
        )*

        /// All of them.
        fn all() -> Vec<(&'static str, u128, ConnectWorld)> {
            vec![$((stringify!($name), $ways, $world),)*]
        }
    };
}

scenarios! {
    /// The target comes before, during and after the connect, goes, and comes as another pod.
    the_target_comes_before_during_or_after_the_connect, THREE_BY_FOUR, all_actors([])
        .says("user", [Connect, Asks, Disconnect, Connect])
        .says("cluster", [bare("t"), web("t"), PodGoes("t"), web("u")])
        .says("host", [other_host(), FlowWaits, ResolverChanges, same_host()]);

    /// Two workloads, and no pod of the second ever comes: the first works all the same.
    of_two_workloads_one_never_comes, THREE_BY_FOUR, two_workloads()
        .says("user", [Connect, Asks, FlowBegins, FlowsEnd])
        .says("cluster", [web("t"), AgentRestarts("t"), PodGoes("t"), web("u")])
        .says("network", [FlowWaits, CarrierLost, FlowWaits, CarrierLost]);

    /// A pod is replaced under its name, by one with another UID.
    a_pod_is_replaced_under_its_name, THREE_BY_FOUR, a_dial_may_fail(all_actors([])).slow(&[], &[Waits::Dial])
        .says("user", [Connect, Asks, FlowWaits, Disconnect])
        .says("cluster", [web_0("old"), web_0("new"), PodGoes("new"), web_0("newer")])
        .says("network", [CarrierLost, CredentialsChange, CarrierLost, ResolverChanges]);

    /// The agent's container ends twice, and another one listens on another port.
    an_agent_restarts_on_another_port, THREE_BY_FOUR, all_actors([there()]).slow(&[], &[Waits::Dial])
        .says("user", [Connect, Asks, FlowBegins, FlowWaits])
        .says("cluster", [AgentRestarts("t"), WatchEnds, AgentRestarts("t"), web("u")])
        .says("network", [CarrierLost, FlowWaits, CarrierLost, FlowsEnd]);

    /// One pod's dial is slow, another's is not.
    a_slow_dial_stands_beside_healthy_ones, FOUR_BY_THREE, all_actors([there()]).slow(&[], &[Waits::Dial])
        .says("user", [Connect, Asks, FlowBegins])
        .says("cluster", [web("u"), FlowWaits, PodGoes("t")])
        .says("network", [CarrierLost, FlowWaits, FlowWaits])
        .says("host", [FlowWaits, FlowsEnd, FlowWaits]);

    /// Disconnects while the connection comes up, at every moment of the start.
    a_disconnect_comes_during_the_connect, THREE_BY_FOUR, all_actors([there()]).slow(&[], &[Waits::Start])
        .says("user", [Connect, Disconnect, Connect, Disconnect])
        .says("cluster", [web("u"), PodGoes("t"), WatchEnds, web("t")])
        .says("host", [FlowWaits, Asks, FlowBegins, FlowsEnd]);

    /// Two users' commands connect and disconnect the same.
    a_second_connect_finds_waits_or_is_the_first, FOUR_BY_THREE, all_actors([there()])
        .says("one", [Connect, Disconnect, Connect])
        .says("another", [Connect, Connect, Disconnect])
        .says("cluster", [PodGoes("t"), web("u"), FlowWaits])
        .says("host", [Asks, FlowWaits, FlowBegins]);

    /// The watch ends and lists anew, without a pod that went in between.
    a_list_comes_again_without_a_pod, FOUR_BY_THREE, all_actors([there()]).slow(&[], &[Waits::Watch])
        .says("user", [Connect, Asks, FlowWaits])
        .says("API server", [WatchEnds, PodGoes("t"), WatchEnds])
        .says("cluster", [web("u"), FlowWaits, AgentRestarts("u")])
        .says("network", [FlowWaits, FlowBegins, FlowsEnd]);

    /// All pods go, and others come.
    a_workload_is_scaled_to_zero_and_back, THREE_BY_FOUR, a_placement_may_fail(all_actors([there()])).slow(&[], &[Waits::Place])
        .says("user", [Connect, Asks, FlowBegins, FlowsEnd])
        .says("cluster", [PodGoes("t"), bare("u"), PodGoes("u"), web("v")])
        .says("network", [FlowWaits, WatchEnds, CarrierLost, FlowWaits]);

    /// The cluster's ranges become known after the selection, or before.
    cluster_facts_come_after_the_selection, FOUR_BY_THREE, all_actors([there()])
        .with(|script| script.ranges_known = false)
        .slow(&[(PodWatcher, ProxyVia)], &[])
        .says("user", [Connect, Asks, FlowBegins])
        .says("API server", [RangesAreKnown, web("u"), FlowWaits])
        .says("host", [other_host(), Asks, FlowWaits])
        .says("network", [FlowWaits, FlowsEnd, FlowWaits]);

    /// Questions come before the facts, before the routes and after them.
    a_question_comes_before_the_facts, THREE_BY_FOUR, names_may_fail(all_actors([there()])).slow(&[], &[Waits::Names])
        .says("program", [Asks, FlowBegins, Asks, FlowsEnd])
        .says("user", [Connect, ResolverChanges, Disconnect, FlowWaits])
        .says("cluster", [FlowWaits, web("u"), FlowWaits, PodGoes("t")]);

    /// Credentials end and are renewed while links are dialled and lists come.
    credentials_end_during_a_dial, THREE_BY_FOUR, a_dial_may_fail(all_actors([there()])).slow(&[], &[Waits::Dial])
        .says("user", [Connect, CredentialsChange, Asks, CredentialsChange])
        .says("cluster", [WatchEnds, AgentRestarts("t"), WatchEnds, web("u")])
        .says("network", [CarrierLost, FlowWaits, CarrierLost, FlowWaits]);

    /// The only carrier is lost again and again while somebody waits for it.
    a_carrier_is_lost_during_a_wait, THREE_BY_FIVE, all_actors([there()])
        .says("user", [Connect, Asks, FlowBegins, FlowWaits, FlowsEnd])
        .says("network", [CarrierLost, CarrierLost, FlowWaits, CarrierLost, CarrierLost])
        .says("cluster", [AgentRestarts("t"), WatchEnds, web("u"), PodGoes("t"), AgentRestarts("u")]);

    /// Disconnects, and the end of the daemon, while a teardown goes on.
    a_teardown_comes_during_a_teardown, THREE_BY_FOUR, all_actors([there()]).slow(&[], &[Waits::Undo])
        .says("one", [Connect, Disconnect, Disconnect, Disconnect])
        .says("another", [Disconnect, Disconnect, Disconnect, Quit])
        .says("cluster", [PodGoes("t"), web("u"), Asks, CarrierLost]);

    /// The links' owner falls, and the placer.
    client_list_and_agent_placer_panic, THREE_BY_FOUR, all_actors([there()])
        .says("user", [Connect, Asks, Disconnect, Connect])
        .says("bug", [Panics(ClientList), Panics(AgentPlacer), Panics(ClientList), FlowWaits])
        .says("cluster", [AgentRestarts("t"), bare("u"), PodGoes("t"), CarrierLost]);

    /// Those fall that know the cluster and its ranges.
    pod_watcher_and_proxy_via_panic, THREE_BY_FOUR, all_actors([there()])
        .says("user", [Connect, Asks, FlowBegins, Disconnect])
        .says("bug", [Panics(PodWatcher), Panics(ProxyVia), Asks, Panics(ProxyVia)])
        .says("cluster", [WatchEnds, web("u"), PodGoes("t"), other_host()]);

    /// Those fall that changed the host.
    vif_and_dns_panic, THREE_BY_FOUR, all_actors([there()])
        .says("user", [Connect, Asks, Disconnect, Connect])
        .says("bug", [Panics(Vif), Panics(Dns), Panics(Vif), ResolverChanges])
        .says("host", [other_host(), Asks, ResolverChanges, same_host()]);

    /// The process dies and is started again.
    the_daemon_dies_and_is_started_again, THREE_BY_FOUR, all_actors([there()])
        .says("user", [Connect, Asks, Disconnect, Connect])
        .says("bug", [Crash, CarrierLost, Crash, Connect])
        .says("cluster", [AgentRestarts("t"), web("u"), PodGoes("t"), ResolverChanges]);

    /// Facts come twice.
    facts_are_repeated, FOUR_BY_THREE, all_actors([there()])
        .says("user", [Connect, Asks, Connect])
        .says("PodWatcher", [Again(PodWatcher, ClientList), Again(PodWatcher, AgentPlacer), Again(PodWatcher, ProxyVia)])
        .says("ProxyVia", [Again(ProxyVia, Vif), Again(ProxyVia, Dns), Again(ProxyVia, Session)])
        .says("cluster", [CredentialsChange, Again(Session, PodWatcher), web("u")]);

    /// Routes fail, and deadlines come early.
    routes_fail_and_deadlines_come_early, THREE_BY_FOUR, routes_fail_early(all_actors([there()]))
        .says("user", [Connect, Asks, Disconnect, FlowWaits])
        .says("cluster", [FlowWaits, CarrierLost, FlowWaits, PodGoes("t")])
        .says("network", [FlowWaits, FlowBegins, FlowWaits, FlowsEnd]);

    /// What PodWatcher gathers, and the rights, come late.
    facts_are_gathered_late, THREE_BY_FOUR, all_actors([there()]).slow(&[], &[Waits::Gather])
        .says("user", [Connect, Asks, CredentialsChange, Disconnect])
        .says("cluster", [web("u"), FlowWaits, WatchEnds, FlowWaits])
        .says("host", [Asks, FlowWaits, FlowBegins, FlowsEnd]);
}

fn two_workloads() -> ConnectWorld {
    let world = ConnectWorld::via_rules(&["service=web", "pods=db"], []).watching().naming().serving();
    world.with(|script| script.workloads = [("web", 1), ("db", 1)].into()).expects(Expected::Any)
}

fn a_dial_may_fail(mut world: ConnectWorld) -> ConnectWorld {
    world.failing_dials = 1;
    world
}

fn a_placement_may_fail(mut world: ConnectWorld) -> ConnectWorld {
    world.failing_placements = 1;
    world
}

fn names_may_fail(mut world: ConnectWorld) -> ConnectWorld {
    world.failing_names = 1;
    world
}

fn routes_fail_early(world: ConnectWorld) -> ConnectWorld {
    let mut world = world.slow(&[], &[Waits::Routes]);
    (world.failing_routes, world.early_deadlines) = (1, 1);
    world
}

/// What never ends must not stop a teardown, nor the next connect.
#[test]
fn what_never_comes_stops_no_teardown() {
    for world in never() {
        assert_holds(world.begun());
    }
}

fn never() -> Vec<ConnectWorld> {
    let kinds = [
        Waits::Start,
        Waits::Watch,
        Waits::Gather,
        Waits::Dial,
        Waits::Place,
        Waits::Device,
        Waits::Routes,
        Waits::Names,
        Waits::Undo,
        Waits::Teardown,
    ];
    let world = |kind: &Waits| {
        let pods = if *kind == Waits::Place { pod("t", "web", Agent::Absent) } else { there() };
        all_actors([pod_of(pods)])
            .never(&[*kind])
            .says("user", [Connect, Disconnect, Connect])
            .says("program", [Asks, FlowWaits, Asks])
    };
    kinds.iter().map(world).collect()
}

fn pod_of(pod: PodFact) -> PodFact {
    pod
}

/// Few senders: times differ by when it stood still, so that no two of its orders meet again.
#[test]
fn the_daemon_stands_still_at_any_moment_and_goes_on() {
    for millis in [61_000, 864_000_000] {
        let world = all_actors([there()]).says("user", [Connect, Asks, Disconnect]);
        let world = world.says("network", [CarrierLost]).says("clock", [TimeLeaps(millis)]);
        assert!(assert_holds(world.begun()).interleavings >= 20);
    }
}

#[test]
fn there_are_well_over_a_million_interleavings() {
    assert!(all().len() >= 12);
    assert!(all().iter().map(|(_, ways, _)| ways).sum::<u128>() > 1_200_000);
}

#[test]
fn every_misfortune_is_opened_for_every_actor() {
    use Dimension::{Crash, Deadline, Failure, Never, Panic, Repeated};
    let worlds = all().into_iter().map(|(_, _, world)| world).chain(never());
    let opened: BTreeSet<(Part, Dimension)> = worlds.flat_map(|world| world.opens()).collect();
    let actors = [Session, ClientList, AgentPlacer, ProxyVia, Vif, PodWatcher, Dns, Daemon];
    // Session and Daemon are no one's children: where they panic, the process ends (a crash). ProxyVia only computes, and
    // neither it nor Daemon asks for anything outside that could fail; a start that fails is Session's own world.
    let not = [
        (Session, Panic),
        (Daemon, Panic),
        (ProxyVia, Failure),
        (Daemon, Failure),
        (Session, Failure),
        (ProxyVia, Deadline),
    ];
    for actor in actors {
        for dimension in [Failure, Panic, Never, Deadline, Crash, Repeated] {
            let wanted = !not.contains(&(actor, dimension));
            assert_eq!(opened.contains(&(actor, dimension)), wanted, "{actor:?}: {dimension:?}");
        }
    }
}
