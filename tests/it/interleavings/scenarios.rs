//! Scenarios and failing orders that no other test shows (docs/testing.md says where the others are).

use std::collections::BTreeSet;

use podway::actors::agent_placer::core::{self as placer, AgentPlacerCore, Place, Plan};
use podway::actors::client_list::core::{ClientListCore, Effect, Input, Table, ViaFact};
use podway::actors::client_list::messages::WaiterOutcome;
use podway::cluster::PodFact;
use podway::ids::{Attempt, Generation, Millis, WaiterId};
use podway::net::views::Target;
use podway::spec::AgentMode;
use podway::workload::{Workload, WorkloadKind};

use crate::support::clients_world::ClientsWorld;
use crate::support::connect_world::{ConnectWorld, Event, Expected, Waits};
use crate::support::explore::assert_holds;
use crate::support::facts::{Agent, FINGERPRINT, KEY, connected, effects, pod, snapshot, target, via};

const DEADLINE: Millis = Millis(30_000);

fn list() -> ClientListCore {
    ClientListCore::new(KEY, FINGERPRINT)
}

fn register(id: u64, target: Target) -> Input {
    Input::Register { id: WaiterId(id), target, deadline: DEADLINE }
}

fn of(workload: &Workload) -> Target {
    Target::Workload(workload.clone())
}

/// A running pod with an agent of this workload.
fn pod_of(uid: &str, workload: &Workload) -> PodFact {
    let namespace = workload.namespace.clone();
    PodFact { namespace, workload: workload.clone(), ..pod(uid, &workload.name, Agent::Running) }
}

fn wants(workloads: &[&Workload]) -> ViaFact {
    ViaFact { workloads: workloads.iter().map(|workload| (*workload).clone()).collect(), ..via(&[]) }
}

#[test]
fn order_c_only_the_target_is_there() {
    let pods = snapshot([pod("t", "web", Agent::Running)]);
    let world = ClientsWorld::new(list())
        .sends("PodWatcher", [Input::Pods(Generation(1), pods)])
        .sends("ProxyVia", [Input::Via(Generation(1), via(&["web"]))])
        .sends("Session", [register(1, target("web"))]);
    assert_holds(world);
}

#[test]
fn order_g_wait_for_a_target_nobody_selected_after_the_snapshot() {
    let mut list = list();
    let mut feed = |input| effects(&mut list, Millis(0), input);
    feed(Input::Pods(Generation(1), snapshot([pod("a", "alpha", Agent::Running), pod("t", "web", Agent::Running)])));
    let came = feed(register(1, target("web")));
    let dialled = |effect: &Effect| matches!(effect, Effect::Dial { pod, .. } if pod.uid == "t".into());
    assert!(came.iter().any(dialled), "{came:?}");
    let came = feed(Input::DialFinished { pod: "t".into(), attempt: Attempt(1), outcome: connected() });
    let ready = WaiterOutcome::Ready { pod: "t".into() };
    assert!(came.contains(&Effect::Settle { id: WaiterId(1), outcome: ready }), "{came:?}");
}

#[test]
fn s02_agent_appears_between_test_and_registration() {
    let snapshots = [Agent::Absent, Agent::Running].map(|agent| snapshot([pod("t", "web", agent)]));
    let facts = snapshots.into_iter().zip(1..).map(|(pods, n)| Input::Pods(Generation(n), pods));
    let mut world = ClientsWorld::new(list())
        .sends("PodWatcher", facts)
        .sends("ProxyVia", [Input::Via(Generation(1), via(&[])), Input::Via(Generation(2), via(&["web"]))])
        .sends("Session", [register(1, target("web"))])
        .sends("Another registrant", [register(2, target("web"))]);
    (world.failing_dials, world.lost_links) = (1, 1);
    assert_holds(world);
}

#[test]
fn s06_dead_watch_is_no_success() {
    let world = ConnectWorld::new([pod("t", "web", Agent::Running)]).watching().naming().never(&[Waits::Watch]);
    let world = world.expects(Expected::TimedOut).says("network", [Event::FlowWaits, Event::Asks]);
    assert_holds(world.begun());
}

#[test]
fn s16_same_name_in_two_namespaces() {
    let [ours, theirs] = ["demo", "other"].map(|namespace| Workload::new(namespace, WorkloadKind::Deployment, "api"));
    only_the_second_is_reached(&ours, &theirs);
}

#[test]
fn s17_same_name_two_kinds() {
    let kinds = [WorkloadKind::Deployment, WorkloadKind::StatefulSet];
    let [ours, theirs] = kinds.map(|kind| Workload::new("demo", kind, "x"));
    only_the_second_is_reached(&ours, &theirs);
}

/// Both are wanted and waited for; only the second has a pod. The first is never taken for it, in any order.
fn only_the_second_is_reached(ours: &Workload, theirs: &Workload) {
    let world = ClientsWorld::new(list())
        .sends("PodWatcher", [Input::Pods(Generation(1), snapshot([pod_of("p", theirs)]))])
        .sends("ProxyVia", [Input::Via(Generation(1), wants(&[ours, theirs]))])
        .sends("Session", [register(1, of(ours)), register(2, of(theirs))]);
    assert_holds(world);
    let mut list = list();
    let mut came = Vec::new();
    for input in [
        register(1, of(ours)),
        register(2, of(theirs)),
        Input::Via(Generation(1), wants(&[ours, theirs])),
        Input::Pods(Generation(1), snapshot([pod_of("p", theirs)])),
        Input::DialFinished { pod: "p".into(), attempt: Attempt(1), outcome: connected() },
    ] {
        came.extend(effects(&mut list, Millis(0), input));
    }
    let settled = came.iter().filter_map(|effect| match effect {
        Effect::Settle { id, .. } => Some(id.0),
        _ => None,
    });
    assert_eq!(settled.collect::<Vec<_>>(), [2]);
    assert!(!list.is_ready(&of(ours)) && list.is_ready(&of(theirs)));
}

/// The newest table.
fn table(effects: &[Effect]) -> Option<Table> {
    effects.iter().rev().find_map(|effect| match effect {
        Effect::Publish(table) => Some(table.clone()),
        _ => None,
    })
}

#[test]
fn s18_bare_name_never_matches_elsewhere() {
    let [ours, theirs] = ["demo", "other"].map(|namespace| Workload::new(namespace, WorkloadKind::Deployment, "api"));
    let mut list = list();
    let mut feed = |input| effects(&mut list, Millis(0), input);
    feed(Input::Via(Generation(1), wants(&[&ours, &theirs])));
    feed(Input::Pods(Generation(1), snapshot([pod_of("p", &theirs)])));
    let came = feed(Input::DialFinished { pod: "p".into(), attempt: Attempt(1), outcome: connected() });
    let table = table(&came).expect("a link works");
    assert_eq!(table.workloads.keys().collect::<Vec<_>>(), [&theirs]);
    assert!(table.general.is_empty(), "an agent of a workload is no default egress");
}

#[test]
fn s22_the_order_of_links_is_that_of_pod_names_whichever_came_first() {
    let ends = [["a", "b", "c"], ["c", "a", "b"], ["b", "c", "a"]].map(|order| {
        let mut list = list();
        let mut feed = |input| effects(&mut list, Millis(0), input);
        feed(Input::Via(Generation(1), via(&["web"])));
        let mut attempts = Vec::new();
        for (n, _) in (1..).zip(order) {
            let there = order.iter().take(n).map(|uid| pod(uid, "web", Agent::Running));
            let came = feed(Input::Pods(Generation(u64::try_from(n).expect("few")), snapshot(there)));
            attempts.extend(came.into_iter().filter_map(|effect| match effect {
                Effect::Dial { pod, attempt, .. } => Some((pod.uid.clone(), attempt)),
                _ => None,
            }));
        }
        let mut last = None;
        for (pod, attempt) in attempts.into_iter().rev() {
            last = table(&feed(Input::DialFinished { pod, attempt, outcome: connected() })).or(last);
        }
        let links = last.expect("links work").workloads.into_values().flatten();
        links.map(|link| link.pod.name.to_string()).collect::<Vec<_>>()
    });
    assert_eq!(ends, [["web-a", "web-b", "web-c"]; 3]);
}

#[test]
fn s23_only_proxy_via_pins() {
    let mut list = list();
    let mut feed = |input| effects(&mut list, Millis(0), input);
    feed(Input::Pods(Generation(1), snapshot([pod("o", "other", Agent::Running), pod("t", "web", Agent::Running)])));
    let came = feed(Input::Via(Generation(1), via(&["web"])));
    let dialled = came.iter().filter_map(|effect| match effect {
        Effect::Dial { pod, .. } => Some(pod.uid.to_string()),
        _ => None,
    });
    assert_eq!(dialled.collect::<Vec<_>>(), ["t"], "an agent that is there is not for everybody");
}

#[test]
fn s45_agents_are_asked_for_at_once() {
    let plan = Plan {
        key: KEY.into(),
        fingerprint: FINGERPRINT.into(),
        first_port: 20_001,
        namespace: "demo".into(),
        mode: AgentMode::Auto,
    };
    let mut core = AgentPlacerCore::new(plan);
    effects(&mut core, Millis(0), placer::Input::Via(Generation(1), via(&["web", "db", "api"])));
    let bare = ["web", "db", "api"].map(|name| pod(name, name, Agent::Absent));
    let came = effects(&mut core, Millis(0), placer::Input::Pods(Generation(1), snapshot(bare)));
    let asked: BTreeSet<Place> = came
        .into_iter()
        .filter_map(|effect| match effect {
            placer::Effect::Place { place, .. } => Some(place),
            _ => None,
        })
        .collect();
    assert_eq!(asked, ["api", "db", "web"].map(|uid| Place::Pod(uid.into())).into(), "none waits for another");
}
