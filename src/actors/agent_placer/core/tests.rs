//! One behaviour each.

use std::collections::BTreeSet;

use super::*;
use crate::cluster::AgentContainer;
use crate::workload::WorkloadKind;

fn plan() -> Plan {
    Plan {
        key: "key".into(),
        fingerprint: "1a2b3c4d".into(),
        first_port: 20_000,
        namespace: "demo".into(),
        mode: AgentMode::Auto,
    }
}

fn web() -> Workload {
    Workload::new("demo", WorkloadKind::Deployment, "web")
}

fn pod(uid: &str, agents: &[ContainerState]) -> PodFact {
    let agents = agents.iter().enumerate().map(|(n, state)| AgentContainer {
        name: format!("podway-agent-1a2b3c4d-{}", n + 1).into(),
        image: "podway-agent:test".into(),
        port: 20_000,
        authorized_key: "key".into(),
        state: state.clone(),
    });
    PodFact {
        uid: uid.into(),
        namespace: "demo".into(),
        name: format!("web-{uid}").into(),
        workload: web(),
        ips: Vec::new(),
        host_network: false,
        phase: PodPhase::Running,
        ready: true,
        terminating: false,
        agents: agents.collect(),
        own_pod_of: None,
    }
}

struct Bench {
    core: AgentPlacerCore,
    generation: Generation,
}

impl Bench {
    fn new() -> Bench {
        Bench { core: AgentPlacerCore::new(plan()), generation: Generation(0) }
    }

    fn feed(&mut self, now: u64, input: Input) -> Vec<Effect> {
        self.core.handle(Millis(now), input);
        std::iter::from_fn(|| self.core.poll_effect()).collect()
    }

    fn pods(&mut self, now: u64, pods: &[PodFact]) -> Vec<Effect> {
        self.generation = self.generation.next();
        let pods = pods.iter().map(|pod| (pod.uid.clone(), Arc::new(pod.clone()))).collect();
        let snapshot = PodSnapshot { pods, namespaces: None };
        self.feed(now, Input::Pods(self.generation, Arc::new(snapshot)))
    }

    fn select(&mut self, general: GeneralEgress) -> Vec<Effect> {
        let workloads = BTreeSet::from([web()]);
        self.feed(0, Input::Via(Generation(1), ViaFact { workloads, general, special: BTreeMap::new() }))
    }
}

fn placed(effects: &[Effect]) -> Vec<(Place, String)> {
    let place = |effect: &Effect| match effect {
        Effect::Place { place, container, .. } => Some((place.clone(), container.clone())),
        Effect::Tell(..) | Effect::Remove(..) => None,
    };
    effects.iter().filter_map(place).collect()
}

fn hopeless(effects: &[Effect]) -> Option<BTreeMap<Target, Arc<str>>> {
    effects.iter().rev().find_map(|effect| match effect {
        Effect::Tell(_, hopeless) => Some(hopeless.clone()),
        Effect::Place { .. } | Effect::Remove(..) => None,
    })
}

#[test]
fn s03_a_pod_that_has_an_agent_gets_no_other() {
    let mut bench = Bench::new();
    bench.select(GeneralEgress::NotNeeded);
    assert_eq!(placed(&bench.pods(0, &[pod("a", &[ContainerState::Running])])), []);
    assert_eq!(placed(&bench.pods(1, &[pod("a", &[ContainerState::Waiting])])), []);
}

#[test]
fn two_pods_get_an_agent_whatever_comes_first() {
    let pods = [pod("a", &[]), pod("b", &[]), pod("c", &[])];
    let wanted =
        [PodUid::from("a"), PodUid::from("b")].map(|uid| (Place::Pod(uid), "podway-agent-1a2b3c4d-1".to_owned()));
    let mut bench = Bench::new();
    bench.select(GeneralEgress::NotNeeded);
    assert_eq!(placed(&bench.pods(0, &pods)), wanted);
    let mut bench = Bench::new();
    bench.pods(0, &pods);
    assert_eq!(placed(&bench.select(GeneralEgress::NotNeeded)), wanted);
    assert_eq!(placed(&bench.pods(1, &pods)), [], "asked already");
}

#[test]
fn an_ended_agent_is_followed_by_the_next_number() {
    let mut bench = Bench::new();
    bench.select(GeneralEgress::NotNeeded);
    let effects = bench.pods(0, &[pod("a", &[ContainerState::Terminated])]);
    assert_eq!(placed(&effects), [(Place::Pod("a".into()), "podway-agent-1a2b3c4d-2".to_owned())]);
    assert!(matches!(effects.first(), Some(Effect::Place { port: 20_001, .. })));
}

#[test]
fn a_pod_full_of_ended_agents_is_hopeless_and_says_what_to_do() {
    let ended = [const { ContainerState::Terminated }; 4];
    let mut bench = Bench::new();
    bench.select(GeneralEgress::NotNeeded);
    let told = hopeless(&bench.pods(0, &[pod("a", &ended)])).expect("told");
    assert!(told[&Target::Workload(web())].contains("delete the pod"));
    let back = hopeless(&bench.pods(1, &[pod("b", &[])])).expect("withdrawn");
    assert!(back.is_empty());
}

#[test]
fn a_missing_right_is_named_and_withdrawn() {
    let mut bench = Bench::new();
    bench.select(GeneralEgress::NotNeeded);
    let effects = bench.pods(0, &[pod("a", &[])]);
    let [Effect::Place { place, attempt, .. }] = effects.as_slice() else { panic!("{effects:?}") };
    let outcome = PlaceOutcome::Forbidden("cannot patch pods/ephemeralcontainers".into());
    let told = bench.feed(1, Input::Finished { place: place.clone(), attempt: *attempt, outcome });
    assert!(hopeless(&told).expect("told")[&Target::Workload(web())].contains("cannot patch"));
    assert!(hopeless(&bench.pods(2, &[pod("a", &[ContainerState::Running])])).expect("told").is_empty());
}

#[test]
fn a_failed_placement_is_asked_again_after_a_pause_without_any_event() {
    let mut bench = Bench::new();
    bench.select(GeneralEgress::NotNeeded);
    let effects = bench.pods(0, &[pod("a", &[])]);
    let [Effect::Place { place, attempt, .. }] = effects.as_slice() else { panic!("{effects:?}") };
    let outcome = PlaceOutcome::Failed("500".into());
    bench.feed(1, Input::Finished { place: place.clone(), attempt: *attempt, outcome });
    let at = bench.core.poll_deadline().expect("a retry");
    assert!(at > Millis(1));
    assert_eq!(placed(&bench.feed(at.0, Input::Woke)).len(), 1);
}

#[test]
fn our_own_pod_is_made_once_and_only_where_needed() {
    let mut bench = Bench::new();
    bench.select(GeneralEgress::NotNeeded);
    bench.pods(0, &[pod("a", &[ContainerState::Running])]);
    let via = ViaFact { general: GeneralEgress::Wanted, ..ViaFact::default() };
    let effects = bench.feed(1, Input::Via(Generation(2), via));
    assert_eq!(placed(&effects), [(Place::OwnJob, "podway-agent".to_owned())]);
    let [Effect::Place { attempt, .. }] = effects.as_slice() else { panic!("{effects:?}") };
    let refused = PlaceOutcome::Forbidden("cannot create jobs".into());
    let effects = bench.feed(2, Input::Finished { place: Place::OwnJob, attempt: *attempt, outcome: refused });
    assert_eq!(placed(&effects), [(Place::OwnPod, "podway-agent".to_owned())]);
    let mut own = pod("own", &[ContainerState::Running]);
    own.own_pod_of = Some("1a2b3c4d".into());
    assert_eq!(placed(&bench.pods(3, &[own])), []);
}

#[test]
fn ephemeral_mode_makes_no_pod_of_our_own_and_says_so() {
    let mut bench = Bench::new();
    bench.core = AgentPlacerCore::new(Plan { mode: AgentMode::Ephemeral, ..plan() });
    bench.pods(0, &[pod("a", &[])]);
    let effects = bench.select(GeneralEgress::Wanted);
    assert_eq!(placed(&effects), [(Place::Pod("a".into()), "podway-agent-1a2b3c4d-1".to_owned())]);
    let hopeless = hopeless(&effects).expect("it is told");
    assert_eq!(hopeless.keys().collect::<Vec<_>>(), [&Target::General]);
}

#[test]
fn nothing_is_placed_after_stop() {
    let mut bench = Bench::new();
    bench.select(GeneralEgress::Wanted);
    bench.feed(0, Input::Stop);
    assert_eq!(bench.pods(1, &[pod("a", &[])]), []);
    assert_eq!(bench.core.poll_deadline(), None);
}

fn finished_own() -> PodFact {
    let mut own = pod("old", &[ContainerState::Terminated]);
    own.name = "podway-agent-1a2b3c4d".into();
    own.workload = Workload::new("demo", WorkloadKind::Pod, "podway-agent-1a2b3c4d");
    own.own_pod_of = Some("1a2b3c4d".into());
    own.phase = PodPhase::Succeeded;
    own
}

/// A bench where only bare pods may be made, with `own` in sight.
fn bare_pods_only(delete_pods: bool, own: &PodFact) -> (Bench, Vec<Effect>) {
    let mut bench = Bench::new();
    let rights = NamespaceRights { create_pods: true, delete_pods, ..NamespaceRights::default() };
    let rights = Rights { namespaces: [("demo".into(), rights)].into() };
    bench.feed(0, Input::Rights(Generation(1), Arc::new(rights)));
    bench.pods(0, std::slice::from_ref(own));
    let via = ViaFact { general: GeneralEgress::Wanted, ..ViaFact::default() };
    let effects = bench.feed(0, Input::Via(Generation(1), via));
    (bench, effects)
}

#[test]
fn a_finished_bare_pod_of_ours_is_deleted_before_the_next() {
    let (mut bench, effects) = bare_pods_only(true, &finished_own());
    let [Effect::Place { place: Place::OwnPod, attempt, pod: Some(old), .. }] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    assert_eq!(old.uid, "old".into());
    // It may be slow to go (409): then it is asked again, and is never hopeless.
    let outcome = PlaceOutcome::Failed("already exists".into());
    let effects = bench.feed(1, Input::Finished { place: Place::OwnPod, attempt: *attempt, outcome });
    assert_eq!(effects, []);
    let at = bench.core.poll_deadline().expect("a retry");
    assert_eq!(placed(&bench.feed(at.0, Input::Woke)), [(Place::OwnPod, "podway-agent".to_owned())]);
}

#[test]
fn a_finished_bare_pod_that_may_not_be_deleted_is_named_until_it_is_gone() {
    let (mut bench, effects) = bare_pods_only(false, &finished_own());
    assert_eq!(placed(&effects), []);
    let why = hopeless(&effects).expect("told");
    assert!(why[&Target::General].contains("podway-agent-1a2b3c4d"), "{why:?}");
    let effects = bench.pods(1, &[]);
    assert_eq!(hopeless(&effects), Some(BTreeMap::new()));
    assert!(matches!(effects.as_slice(), [Effect::Place { pod: None, .. }, Effect::Tell(..)]), "{effects:?}");
}

#[test]
fn others_finished_pods_are_never_deleted() {
    let mut other = finished_own();
    other.own_pod_of = None;
    let (_, effects) = bare_pods_only(true, &other);
    assert!(matches!(effects.as_slice(), [Effect::Place { pod: None, .. }]), "{effects:?}");
}

#[test]
fn what_was_refused_is_asked_again_when_the_rights_change() {
    let mut bench = Bench::new();
    bench.select(GeneralEgress::NotNeeded);
    let effects = bench.pods(0, &[pod("a", &[])]);
    let [Effect::Place { place, attempt, .. }] = effects.as_slice() else { panic!("{effects:?}") };
    let outcome = PlaceOutcome::Forbidden("no".into());
    let effects = bench.feed(1, Input::Finished { place: place.clone(), attempt: *attempt, outcome });
    assert!(!hopeless(&effects).expect("told").is_empty());
    let all = NamespaceRights { ephemeral_containers: true, ..NamespaceRights::default() };
    let rights = Rights { namespaces: [("demo".into(), all)].into() };
    let effects = bench.feed(2, Input::Rights(Generation(1), Arc::new(rights)));
    assert_eq!((placed(&effects).len(), hopeless(&effects)), (1, Some(BTreeMap::new())));
}

#[test]
fn review_no_deadline_in_the_past() {
    let mut bench = Bench::new();
    bench.feed(
        0,
        Input::Via(
            Generation(1),
            ViaFact { workloads: BTreeSet::new(), general: GeneralEgress::Wanted, special: BTreeMap::new() },
        ),
    );
    let effects = bench.pods(0, &[]);
    let Some(Effect::Place { place, attempt, .. }) =
        effects.iter().find(|e| matches!(e, Effect::Place { .. })).cloned()
    else {
        panic!("{effects:?}")
    };
    bench.feed(10, Input::Finished { place, attempt, outcome: PlaceOutcome::Failed("409".into()) });
    let mut own = pod("own", &[ContainerState::Running]);
    own.own_pod_of = Some("1a2b3c4d".into());
    bench.pods(20, &[own]);
    bench.feed(5_000, Input::Woke);
    assert!(bench.core.poll_deadline().is_none_or(|at| at > Millis(5_000)), "{:?}", bench.core.poll_deadline());
}
