//! One behaviour each.

use std::collections::BTreeSet;

use super::*;
use crate::actors::client_list::messages::Unfit;
use crate::cluster::{AgentContainer, ContainerState};
use crate::refusal;
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
        own_job: None,
    }
}

/// An agent of our key with another image.
fn of_other_image(n: usize, port: u16, state: ContainerState) -> AgentContainer {
    AgentContainer {
        name: format!("podway-agent-99999999-{n}").into(),
        image: "podway-agent:wrong".into(),
        port,
        authorized_key: "key".into(),
        state,
    }
}

fn stuck() -> ContainerState {
    ContainerState::Stuck { reason: "ErrImagePull: not found".into() }
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

    /// Rights in the connected namespace, all of them but for what `change` takes.
    fn rights(&mut self, now: u64, change: impl FnOnce(&mut NamespaceRights)) -> Vec<Effect> {
        self.generation = self.generation.next();
        let mut rights = NamespaceRights::ALL;
        change(&mut rights);
        let rights = Rights { namespaces: [("demo".into(), rights)].into(), ..Rights::default() };
        self.feed(now, Input::Rights(self.generation, Arc::new(rights)))
    }

    /// Ends everything that these effects asked for in this way.
    fn end(&mut self, now: u64, effects: &[Effect], outcome: &PlaceOutcome) -> Vec<Effect> {
        let mut came = Vec::new();
        for effect in effects {
            if let Effect::Place { place, attempt, .. } = effect {
                let (place, outcome) = (place.clone(), outcome.clone());
                came.extend(self.feed(now, Input::Finished { place, attempt: *attempt, outcome }));
            }
        }
        came
    }

    /// Refuses whatever is asked, from `now` on, until that is told or `until` is over; says when it was told.
    fn refuse(&mut self, now: u64, effects: &[Effect], until: u64) -> (u64, Vec<Effect>) {
        let (mut now, mut effects) = (now, effects.to_vec());
        loop {
            effects = self.end(now, &effects, &PlaceOutcome::Forbidden("pods is forbidden".into()));
            if hopeless(&effects).is_some_and(|told| !told.is_empty()) || now > until {
                return (now, effects);
            }
            if placed(&effects).is_empty() {
                now = self.core.poll_deadline().expect("it is asked again").0;
                effects = self.feed(now, Input::Woke);
            }
        }
    }

    fn unfit(&mut self, now: u64, agents: &[(&str, &str)]) -> Vec<Effect> {
        self.unfit_for(now, agents, &Unfit::Protocol("the agent speaks protocol 2, this podway 1".into()))
    }

    fn unfit_for(&mut self, now: u64, agents: &[(&str, &str)], unfit: &Unfit) -> Vec<Effect> {
        self.generation = self.generation.next();
        let agents = agents.iter().map(|(pod, name)| (((*pod).into(), (*name).into()), unfit.clone()));
        self.feed(now, Input::Unfit(self.generation, agents.collect()))
    }

    fn select(&mut self, general: GeneralEgress) -> Vec<Effect> {
        let workloads = BTreeSet::from([web()]);
        self.feed(0, Input::Via(Generation(1), ViaFact { workloads, general, special: BTreeMap::new() }))
    }
}

fn placed(effects: &[Effect]) -> Vec<(Place, String)> {
    let place = |effect: &Effect| match effect {
        Effect::Place { place, container, .. } => Some((place.clone(), container.clone())),
        Effect::Tell(..) | Effect::Remove(..) | Effect::Settle(_) | Effect::Withdraw | Effect::Stopped(_) => None,
    };
    effects.iter().filter_map(place).collect()
}

fn hopeless(effects: &[Effect]) -> Option<BTreeMap<Target, Arc<str>>> {
    effects.iter().rev().find_map(|effect| match effect {
        Effect::Tell(_, hopeless) => Some(hopeless.clone()),
        Effect::Place { .. } | Effect::Remove(..) | Effect::Settle(_) | Effect::Withdraw | Effect::Stopped(_) => None,
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
fn an_agent_of_a_wrong_image_does_not_stand_in_the_way_of_the_right_one() {
    for state in [stuck(), ContainerState::Waiting, ContainerState::Terminated] {
        let mut bench = Bench::new();
        bench.select(GeneralEgress::NotNeeded);
        let mut old = pod("a", &[]);
        // One of them has the port that would be ours.
        old.agents = vec![of_other_image(1, 20_000, state.clone()), of_other_image(2, 20_001, state)];
        let effects = bench.pods(0, std::slice::from_ref(&old));
        let [Effect::Place { container, port, .. }] = effects.as_slice() else { panic!("{effects:?}") };
        assert_eq!((container.as_str(), *port), ("podway-agent-1a2b3c4d-1", 20_002));
        // Once it is there it is the one that counts, and is not placed again.
        old.agents.push(AgentContainer { port: 20_002, ..pod("a", &[ContainerState::Waiting]).agents.remove(0) });
        assert_eq!(bench.pods(20_000, std::slice::from_ref(&old)), []);
    }
}

#[test]
fn a_running_agent_of_another_image_is_used() {
    let mut bench = Bench::new();
    bench.select(GeneralEgress::NotNeeded);
    let mut old = pod("a", &[]);
    old.agents = vec![of_other_image(1, 20_000, ContainerState::Running)];
    assert_eq!(bench.pods(0, &[old]), []);
}

#[test]
fn an_agent_of_our_own_image_that_does_not_start_is_told() {
    let mut bench = Bench::new();
    bench.select(GeneralEgress::NotNeeded);
    let effects = bench.pods(0, &[pod("a", &[stuck()])]);
    assert_eq!(placed(&effects), []);
    let why = hopeless(&effects).expect("told")[&Target::Workload(web())].clone();
    assert!(why.contains("podway-agent:test") && why.contains("ErrImagePull"), "{why}");
}

#[test]
fn wrong_images_count_towards_what_a_pod_may_collect() {
    let mut bench = Bench::new();
    bench.select(GeneralEgress::NotNeeded);
    let mut full = pod("a", &[]);
    full.agents = (1..=4).map(|n| of_other_image(n, 20_000, stuck())).collect();
    let effects = bench.pods(0, std::slice::from_ref(&full));
    assert_eq!(placed(&effects), []);
    assert!(hopeless(&effects).expect("told")[&Target::Workload(web())].contains("delete the pod"));
    // Agents of other users do not count; their ports do.
    for agent in &mut full.agents {
        agent.authorized_key = "another key".into();
    }
    let effects = bench.pods(1, &[full]);
    assert!(matches!(effects.first(), Some(Effect::Place { port: 20_001, .. })), "{effects:?}");
}

#[test]
fn a_number_that_is_free_is_taken() {
    let mut bench = Bench::new();
    bench.select(GeneralEgress::NotNeeded);
    let mut gap = pod("a", &[ContainerState::Terminated]);
    gap.agents[0].name = "podway-agent-1a2b3c4d-2".into();
    let effects = bench.pods(0, &[gap]);
    assert_eq!(placed(&effects), [(Place::Pod("a".into()), "podway-agent-1a2b3c4d-1".to_owned())]);
}

#[test]
fn our_own_pod_of_a_wrong_image_does_not_stand_in_the_way_and_of_ours_is_told() {
    let mut own = pod("own", &[stuck()]);
    own.phase = PodPhase::Pending;
    own.agents[0].name = "podway-agent".into();
    for (fingerprint, made) in [("99999999", 1), ("1a2b3c4d", 0)] {
        let mut bench = Bench::new();
        own.own_pod_of = Some(fingerprint.into());
        bench.pods(0, std::slice::from_ref(&own));
        let via = ViaFact { general: GeneralEgress::Wanted, ..ViaFact::default() };
        let effects = bench.feed(0, Input::Via(Generation(1), via));
        assert_eq!(placed(&effects).len(), made, "{effects:?}");
        let told = hopeless(&effects);
        assert_eq!(told.is_some(), made == 0, "{told:?}");
    }
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
    bench.pods(0, &[pod("a", &[])]);
    let told = bench.rights(1, |rights| rights.ephemeral_containers = false);
    let why = &hopeless(&told).expect("told")[&Target::Workload(web())];
    assert!(why.contains("patch pods/ephemeralcontainers in namespace demo"), "{why}");
    assert!(hopeless(&bench.pods(2, &[pod("a", &[ContainerState::Running])])).expect("told").is_empty());
}

#[test]
fn a_refusal_before_the_rights_are_known_is_asked_again_and_not_told() {
    let mut bench = Bench::new();
    bench.select(GeneralEgress::NotNeeded);
    let effects = bench.pods(0, &[pod("a", &[])]);
    let (now, effects) = bench.refuse(0, &effects, 5_000);
    assert_eq!(hopeless(&effects), None, "the API server may be starting");
    let at = bench.core.poll_deadline().expect("it is asked again");
    assert!(at.since(Millis(now)) <= refusal::AGAIN);
    // A review that says so needs no proof.
    let told = bench.rights(now + 1, |rights| rights.ephemeral_containers = false);
    assert!(hopeless(&told).is_some_and(|told| !told.is_empty()));
}

#[test]
fn a_refusal_of_what_is_granted_counts_when_it_goes_on_and_is_asked_again_all_the_same() {
    let mut bench = Bench::new();
    bench.select(GeneralEgress::NotNeeded);
    bench.rights(0, |_| {});
    let effects = bench.pods(0, &[pod("a", &[])]);
    let (now, told) = bench.refuse(0, &effects, 60_000);
    assert!((1_000..2_000).contains(&now), "told after {now} ms");
    assert!(hopeless(&told).expect("told")[&Target::Workload(web())].contains("forbidden"));
    let at = bench.core.poll_deadline().expect("it is asked again");
    assert!(at.0 <= now + 60_000);
    let effects = bench.feed(at.0, Input::Woke);
    assert_eq!((placed(&effects).len(), hopeless(&effects)), (1, None), "asking alone takes nothing back");
    let effects = bench.end(at.0 + 1, &effects, &PlaceOutcome::Accepted);
    assert_eq!(hopeless(&effects), Some(BTreeMap::new()));
}

#[test]
fn a_refusal_that_goes_on_is_not_waited_for_in_each_pod() {
    let mut bench = Bench::new();
    bench.select(GeneralEgress::NotNeeded);
    bench.rights(0, |_| {});
    let pods: Vec<PodFact> = (0..30).map(|n| pod(&format!("p{n}"), &[])).collect();
    let effects = bench.pods(0, &pods);
    let (now, _) = bench.refuse(0, &effects, 60_000);
    assert!(now < 2_000, "told after {now} ms");
    // Later it is asked again in a few of them.
    let mut asked = 0;
    for _ in 0..4 {
        let at = bench.core.poll_deadline().expect("it is asked again");
        let effects = bench.feed(at.0, Input::Woke);
        asked += placed(&effects).len();
        bench.end(at.0, &effects, &PlaceOutcome::Forbidden("no".into()));
    }
    assert!((1..=8).contains(&asked), "{asked}");
}

/// A bench where pod `a` was refused `until` then.
fn refused_in_one(until: u64) -> (Bench, u64) {
    let mut bench = Bench::new();
    bench.select(GeneralEgress::NotNeeded);
    bench.rights(0, |_| {});
    let mut effects = bench.pods(0, &[pod("a", &[])]);
    let mut now = 0;
    loop {
        bench.end(now, &effects, &PlaceOutcome::Forbidden("no".into()));
        if now >= until {
            return (bench, now);
        }
        now = bench.core.poll_deadline().expect("it is asked again").0;
        effects = bench.feed(now, Input::Woke);
    }
}

/// Whether the first refusal in `pods`, besides those in sight, is told as theirs.
fn first_refusal_is_believed(bench: &mut Bench, now: u64, uid: &str, pods: &[PodFact]) -> bool {
    let effects = bench.pods(now, pods);
    let place = Place::Pod(uid.into());
    let asked = effects.iter().find(|effect| matches!(effect, Effect::Place { place: of, .. } if *of == place));
    bench.end(now, asked.map(std::slice::from_ref).expect("asked"), &PlaceOutcome::Forbidden("no".into()));
    bench.core.refusal(&place).is_some()
}

#[test]
fn a_refusal_that_goes_on_elsewhere_counts_until_something_is_accepted() {
    let both = [pod("a", &[]), pod("b", &[])];
    let (mut bench, now) = refused_in_one(100_000);
    assert!(first_refusal_is_believed(&mut bench, now + 1, "b", &both), "it goes on in all of them");
    // Of three pods one took an agent meanwhile: it is the first pod's own matter.
    let (mut bench, now) = refused_in_one(100_000);
    let effects = bench.pods(now + 1, &both);
    bench.end(now + 2, &effects, &PlaceOutcome::Accepted);
    let three = [both[0].clone(), PodFact { terminating: true, ..both[1].clone() }, pod("c", &[])];
    assert!(!first_refusal_is_believed(&mut bench, now + 3, "c", &three));
    assert!(bench.core.refusal(&Place::Pod("a".into())).is_some(), "there it still goes on");
}

#[test]
fn a_refusal_of_long_ago_elsewhere_does_not_count() {
    let (mut bench, now) = refused_in_one(0);
    // It runs no more, so nothing is asked there.
    let resting = PodFact { phase: PodPhase::Pending, ..pod("a", &[]) };
    bench.pods(now + 1, std::slice::from_ref(&resting));
    let later = now + 3_600_000;
    assert!(!first_refusal_is_believed(&mut bench, later, "b", &[resting, pod("b", &[])]));
}

#[test]
fn what_is_rejected_is_told_at_once_and_asked_again_later() {
    let mut bench = Bench::new();
    bench.select(GeneralEgress::NotNeeded);
    let effects = bench.pods(0, &[pod("a", &[])]);
    let told = bench.end(1, &effects, &PlaceOutcome::Rejected("invalid image".into()));
    assert!(hopeless(&told).expect("told")[&Target::Workload(web())].contains("invalid image"));
    let at = bench.core.poll_deadline().expect("it is asked again");
    assert_eq!(placed(&bench.feed(at.0, Input::Woke)).len(), 1);
}

#[test]
fn rights_that_change_do_not_forget_what_is_being_asked() {
    let mut bench = Bench::new();
    bench.select(GeneralEgress::NotNeeded);
    let effects = bench.pods(0, &[pod("a", &[])]);
    assert_eq!(bench.rights(1, |rights| rights.create_jobs = false), []);
    assert_eq!(bench.end(2, &effects, &PlaceOutcome::Accepted), []);
    assert_eq!(bench.feed(3, Input::Woke), [], "it is waited for, not asked again");
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
    let mut own = pod("own", &[ContainerState::Running]);
    own.own_pod_of = Some("1a2b3c4d".into());
    assert_eq!(placed(&bench.pods(3, &[own])), []);
}

#[test]
fn a_bare_pod_is_made_where_a_job_is_refused_and_both_refusals_are_told_soon() {
    let mut bench = Bench::new();
    bench.rights(0, |_| {});
    bench.pods(0, &[]);
    let via = ViaFact { general: GeneralEgress::Wanted, ..ViaFact::default() };
    let mut effects = bench.feed(0, Input::Via(Generation(1), via));
    let mut now = 0;
    while placed(&effects) != [(Place::OwnPod, "podway-agent".to_owned())] {
        assert!(now < 2_000, "no bare pod: {effects:?}");
        effects = bench.end(now, &effects, &PlaceOutcome::Forbidden("cannot create jobs".into()));
        if placed(&effects).is_empty() {
            now = bench.core.poll_deadline().expect("it is asked again").0;
            effects = bench.feed(now, Input::Woke);
        }
    }
    let mut other = Bench { core: bench.core.clone(), ..bench };
    let (told_at, told) = bench.refuse(now, &effects, 60_000);
    assert!(told_at < 2_000 && hopeless(&told).is_some_and(|told| !told.is_empty()), "told after {told_at} ms");
    // While the bare pod is on its way, no Job is made beside it, although it is time to ask again.
    other.end(now, &effects, &PlaceOutcome::Accepted);
    assert_eq!(placed(&other.feed(now + 9_000, Input::Woke)), []);
}

#[test]
fn a_job_that_gets_no_pod_is_looked_at_and_what_refuses_its_pod_is_told_soon() {
    let mut bench = Bench::new();
    bench.rights(0, |rights| rights.create_pods = false);
    bench.pods(0, &[]);
    let via = ViaFact { general: GeneralEgress::Wanted, ..ViaFact::default() };
    let effects = bench.feed(0, Input::Via(Generation(1), via));
    bench.end(0, &effects, &PlaceOutcome::Accepted);
    assert_eq!(placed(&bench.feed(999, Input::Woke)), [], "a pod takes its time");
    let effects = bench.feed(1_000, Input::Woke);
    assert_eq!(placed(&effects), [(Place::OwnJob, "podway-agent".to_owned())]);
    let (told_at, told) = bench.refuse(1_000, &effects, 60_000);
    assert!(told_at < 3_000 && hopeless(&told).is_some_and(|told| !told.is_empty()), "told after {told_at} ms");
    // It would get its pod as soon as there is room, for nobody.
    assert_eq!(bench.feed(told_at + 1, STOP), [Effect::Withdraw]);
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
fn a_pod_of_our_own_whose_agent_cannot_run_is_told_although_it_is_gone_soon() {
    let mut bench = Bench::new();
    bench.select(GeneralEgress::Wanted);
    let effects = bench.pods(0, &[]);
    bench.end(0, &effects, &PlaceOutcome::Accepted);
    let mut own = finished_own();
    (own.uid, own.phase) = ("new".into(), PodPhase::Failed);
    own.agents[0].state = ContainerState::Stuck { reason: "exit code 255".into() };
    let told = hopeless(&bench.pods(1, &[own])).expect("it is told");
    assert!(told[&Target::General].contains("exit code 255"), "{told:?}");
    // The Job and its pod go; what was told stays, and no other is made that would end as it did.
    let effects = bench.pods(2, &[]);
    assert!(hopeless(&effects).is_none() && placed(&effects).is_empty(), "{effects:?}");
}

#[test]
fn nothing_is_placed_after_stop() {
    let mut bench = Bench::new();
    bench.select(GeneralEgress::Wanted);
    assert_eq!(bench.feed(0, Input::Stop(ReplyId(1))), [Effect::Stopped(ReplyId(1))]);
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
    let rights = Rights { namespaces: [("demo".into(), rights)].into(), ..Rights::default() };
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
    let outcome = PlaceOutcome::Rejected("no".into());
    let effects = bench.feed(1, Input::Finished { place: place.clone(), attempt: *attempt, outcome });
    assert!(!hopeless(&effects).expect("told").is_empty());
    let all = NamespaceRights { ephemeral_containers: true, ..NamespaceRights::default() };
    let rights = Rights { namespaces: [("demo".into(), all)].into(), ..Rights::default() };
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

/// A bench that wants a pod of its own and sees these.
fn wanting_own(pods: &[PodFact]) -> (Bench, Vec<Effect>) {
    let mut bench = Bench::new();
    bench.feed(0, Input::Via(Generation(1), ViaFact { general: GeneralEgress::Wanted, ..ViaFact::default() }));
    let effects = bench.pods(0, pods);
    (bench, effects)
}

fn own_in(phase: PodPhase, state: ContainerState) -> PodFact {
    let mut own = pod("own", &[state]);
    (own.own_pod_of, own.phase) = (Some("1a2b3c4d".into()), phase);
    own
}

const STOP: Input = Input::Stop(ReplyId(1));
const STOPPED: Effect = Effect::Stopped(ReplyId(1));

#[test]
fn our_own_pod_that_never_ran_is_taken_back_and_one_that_runs_stays() {
    let (mut bench, _) = wanting_own(&[own_in(PodPhase::Pending, stuck())]);
    assert_eq!(bench.feed(1, STOP), [Effect::Withdraw]);
    assert_eq!(bench.feed(2, Input::Withdrawn), [STOPPED]);
    assert_eq!(bench.core.poll_deadline(), None);
    let (mut bench, _) = wanting_own(&[own_in(PodPhase::Running, ContainerState::Running)]);
    assert_eq!(bench.feed(1, STOP), [STOPPED]);
}

#[test]
fn a_job_that_is_being_made_is_taken_back_once_it_is_there() {
    let (mut bench, effects) = wanting_own(&[]);
    let [Effect::Place { place, attempt, .. }] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(bench.feed(1, STOP), []);
    let finished = Input::Finished { place: place.clone(), attempt: *attempt, outcome: PlaceOutcome::Accepted };
    assert_eq!(bench.feed(2, finished), [Effect::Withdraw]);
    assert_eq!(bench.feed(3, Input::Withdrawn), [STOPPED]);
}

#[test]
fn an_api_server_that_does_not_answer_does_not_hold_up_the_end() {
    let (mut bench, _) = wanting_own(&[]);
    assert_eq!(bench.feed(1, STOP), []);
    let at = bench.core.poll_deadline().expect("a limit");
    assert!(at <= Millis(1_300));
    assert_eq!(bench.feed(at.0, Input::Woke), [Effect::Withdraw, STOPPED], "it is asked all the same");
    let (mut bench, _) = wanting_own(&[own_in(PodPhase::Pending, stuck())]);
    bench.feed(1, STOP);
    let at = bench.core.poll_deadline().expect("a limit");
    assert_eq!(bench.feed(at.0, Input::Woke), [STOPPED]);
}

#[test]
fn nothing_is_taken_back_that_this_session_did_not_want() {
    let mut bench = Bench::new();
    bench.select(GeneralEgress::NotNeeded);
    bench.pods(0, &[own_in(PodPhase::Pending, ContainerState::Waiting)]);
    assert_eq!(bench.feed(1, STOP), [STOPPED]);
}

#[test]
fn clean_takes_our_pods_of_every_image_and_nobody_elses() {
    let named = |uid: &str, fingerprint: Option<&str>, key: &str| {
        let mut own = own_in(PodPhase::Running, ContainerState::Running);
        own.uid = uid.into();
        own.own_pod_of = fingerprint.map(Into::into);
        own.agents[0].authorized_key = key.into();
        own
    };
    let mut elsewhere = named("e", Some("1a2b3c4d"), "key");
    elsewhere.namespace = "other".into();
    let (mut bench, _) = wanting_own(&[
        named("a", Some("1a2b3c4d"), "key"),
        named("b", Some("99999999"), "key"),
        named("c", Some("99999999"), "another key"),
        named("d", None, "key"),
        elsewhere,
    ]);
    let effects = bench.feed(1, Input::RemoveAll(ReplyId(7)));
    let [Effect::Remove(ReplyId(7), pods)] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(pods.iter().map(|pod| pod.uid.to_string()).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn what_was_asked_for_is_taken_back_though_nobody_wants_it_any_more() {
    let (mut bench, effects) = wanting_own(&[]);
    bench.feed(1, Input::Via(Generation(2), ViaFact::default()));
    bench.end(2, &effects, &PlaceOutcome::Accepted);
    assert_eq!(bench.feed(3, STOP), [Effect::Withdraw]);
    let (mut bench, effects) = wanting_own(&[]);
    bench.end(1, &effects, &PlaceOutcome::Accepted);
    bench.pods(2, &[own_in(PodPhase::Pending, ContainerState::Waiting)]);
    bench.feed(3, Input::Via(Generation(2), ViaFact::default()));
    assert_eq!(bench.feed(4, STOP), [Effect::Withdraw]);
}

#[test]
fn clean_waits_for_what_is_being_made() {
    let (mut bench, effects) = wanting_own(&[]);
    assert_eq!(bench.feed(1, Input::RemoveAll(ReplyId(7))), []);
    let effects = bench.end(2, &effects, &PlaceOutcome::Accepted);
    assert!(matches!(effects.as_slice(), [Effect::Remove(ReplyId(7), _)]), "{effects:?}");
    assert_eq!(bench.feed(3, STOP), [STOPPED], "what was removed is not taken back besides");
}

#[test]
fn clean_does_not_wait_for_ever_and_takes_back_what_comes_later() {
    let (mut bench, effects) = wanting_own(&[]);
    bench.feed(1, Input::RemoveAll(ReplyId(7)));
    let at = bench.core.poll_deadline().expect("a limit");
    assert!(at <= Millis(1_300));
    assert!(matches!(bench.feed(at.0, Input::Woke).as_slice(), [Effect::Remove(ReplyId(7), _)]));
    bench.end(at.0 + 1, &effects, &PlaceOutcome::Accepted);
    // Even one that runs by now: all were to go.
    bench.pods(at.0 + 2, &[own_in(PodPhase::Running, ContainerState::Running)]);
    assert_eq!(bench.feed(at.0 + 3, STOP), [Effect::Withdraw]);
}

/// The one agent of pod `a` said that it will not do.
fn unfit_bench(agents: &[ContainerState], rights: impl FnOnce(&mut NamespaceRights)) -> (Bench, Vec<Effect>) {
    let mut bench = Bench::new();
    bench.select(GeneralEgress::NotNeeded);
    bench.rights(0, rights);
    assert_eq!(bench.pods(0, &[pod("a", agents)]), [], "it runs");
    let effects = bench.unfit(1, &[("a", "podway-agent-1a2b3c4d-1")]);
    (bench, effects)
}

#[test]
fn an_agent_that_will_not_do_is_followed_by_the_next() {
    let (mut bench, effects) = unfit_bench(&[ContainerState::Running], |_| {});
    let [Effect::Place { container, port, .. }] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!((container.as_str(), *port), ("podway-agent-1a2b3c4d-2", 20_001));
    bench.end(2, &effects, &PlaceOutcome::Accepted);
    let both = [ContainerState::Running, ContainerState::Running];
    assert_eq!(bench.pods(3, &[pod("a", &both)]), [], "the next one serves");
}

#[test]
fn why_an_agent_will_not_do_is_told_where_no_other_can_be_had() {
    let (_, effects) = unfit_bench(&[ContainerState::Running], |rights| rights.ephemeral_containers = false);
    let why = hopeless(&effects).expect("told")[&Target::Workload(web())].clone();
    assert!(why.contains("pod web-a: the agent speaks protocol 2") && why.contains("missing right"), "{why}");
    let mut four = [const { ContainerState::Terminated }; 4];
    four[0] = ContainerState::Running;
    let (_, effects) = unfit_bench(&four, |_| {});
    assert_eq!(placed(&effects), []);
    let why = hopeless(&effects).expect("told")[&Target::Workload(web())].clone();
    assert!(why.contains("speaks protocol 2") && why.contains("delete the pod to go on"), "{why}");
}

#[test]
fn an_image_of_another_version_is_placed_once_and_no_more() {
    let mut bench = Bench::new();
    bench.select(GeneralEgress::NotNeeded);
    let pods: Vec<PodFact> = ["a", "b", "c", "d"].map(|uid| pod(uid, &[])).into();
    let effects = bench.pods(0, &pods);
    assert_eq!(placed(&effects).len(), 2);
    bench.end(1, &effects, &PlaceOutcome::Accepted);
    let mut pods = pods;
    for at in [0, 1] {
        pods[at].agents = pod("x", &[ContainerState::Running]).agents;
    }
    assert_eq!(bench.pods(2, &pods), []);
    let effects = bench.unfit(3, &[("a", "podway-agent-1a2b3c4d-1"), ("b", "podway-agent-1a2b3c4d-1")]);
    assert_eq!(placed(&effects), [], "the same image would say the same");
    let why = hopeless(&effects).expect("told")[&Target::Workload(web())].clone();
    assert!(why.contains("another version") && why.contains("protocol 2"), "{why}");
}

#[test]
fn a_denied_key_says_nothing_of_the_image() {
    let key = Unfit::Key("it takes another key".into());
    let mut bench = Bench::new();
    bench.select(GeneralEgress::NotNeeded);
    let mut pods = vec![pod("a", &[])];
    let effects = bench.pods(0, &pods);
    bench.end(1, &effects, &PlaceOutcome::Accepted);
    pods[0].agents = pod("x", &[ContainerState::Running]).agents;
    bench.pods(2, &pods);
    let effects = bench.unfit_for(3, &[("a", "podway-agent-1a2b3c4d-1")], &key);
    assert_eq!(placed(&effects), [(Place::Pod("a".into()), "podway-agent-1a2b3c4d-2".to_owned())]);
    assert_eq!(hopeless(&effects), None);
    // A pod of our own that was given the key is made once all the same.
    let (mut bench, effects) = wanting_own(&[]);
    bench.end(1, &effects, &PlaceOutcome::Accepted);
    let mut own = own_in(PodPhase::Running, ContainerState::Running);
    own.agents[0].name = "podway-agent".into();
    bench.pods(2, &[own]);
    let effects = bench.unfit_for(3, &[("own", "podway-agent")], &key);
    assert_eq!(placed(&effects), []);
    let why = hopeless(&effects).expect("told")[&Target::General].clone();
    assert!(why.contains("another key") && !why.contains("version"), "{why}");
}

/// A bench that sees a running pod of our own, made by a Job of an earlier session, whose agent will not do.
fn unfit_own() -> (Bench, PodFact, Vec<Effect>) {
    let mut own = own_in(PodPhase::Running, ContainerState::Running);
    own.workload = Workload::new("demo", WorkloadKind::Job, "podway-agent-1a2b3c4d");
    own.agents[0].name = "podway-agent".into();
    let (mut bench, effects) = wanting_own(std::slice::from_ref(&own));
    assert_eq!(effects, []);
    bench.rights(0, |_| {});
    let effects = bench.unfit(1, &[("own", "podway-agent")]);
    (bench, own, effects)
}

#[test]
fn our_own_pod_that_will_not_do_is_replaced() {
    let (mut bench, own, effects) = unfit_own();
    let [Effect::Place { place: Place::OwnJob, pod: Some(old), .. }] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    assert_eq!(old.uid, own.uid);
    bench.end(2, &effects, &PlaceOutcome::Accepted);
    // The old one goes slowly; the new one serves.
    let new = PodFact { uid: "new".into(), ..own.clone() };
    assert_eq!(bench.pods(3, &[own, new.clone()]), []);
    assert_eq!(bench.pods(4, std::slice::from_ref(&new)), []);
    // If that will not do either, it is the image: it is made no third time.
    let effects = bench.unfit(5, &[("new", "podway-agent")]);
    assert_eq!(placed(&effects), []);
    let why = hopeless(&effects).expect("told")[&Target::General].clone();
    assert!(why.contains("another version"), "{why}");
}

#[test]
fn our_own_pod_that_may_not_be_replaced_is_told_with_what_to_do() {
    let (mut bench, _, effects) = unfit_own();
    let (now, told) = bench.refuse(1, &effects, 60_000);
    assert!(now < 2_000, "told after {now} ms");
    let why = hopeless(&told).expect("told")[&Target::General].clone();
    for part in ["pod demo/web-own", "speaks protocol 2", "forbidden", "delete it, or wait"] {
        assert!(why.contains(part), "{part:?} is not in {why}");
    }
}

#[test]
fn a_create_without_an_answer_is_settled_by_a_later_one() {
    let mut bench = Bench::new();
    let settled = |effects: Vec<Effect>| -> Vec<u64> {
        let attempt = |effect| if let Effect::Settle(attempt) = effect { Some(attempt.0) } else { None };
        effects.into_iter().filter_map(attempt).collect()
    };
    let mut made = |attempt, made| settled(bench.feed(0, Input::Made(Place::OwnJob, Attempt(attempt), made)));
    assert_eq!(made(1, Made::Perhaps), [0; 0], "it is looked for when this actor ends");
    assert_eq!(made(2, Made::Nothing), [2], "a refusal says nothing of the first");
    assert_eq!(made(3, Made::Perhaps), [1], "one for each place");
    assert_eq!(made(4, Made::Before), [4, 3], "there is one, and it is that");
}
