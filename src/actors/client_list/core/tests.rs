//! One behaviour each; every order is walked in the interleaving tests.
#![allow(clippy::wildcard_enum_match_arm, clippy::allow_attributes, reason = "a test looks at what it is about")]

use super::*;
use crate::cluster::NamespaceRights;
use crate::workload::WorkloadKind;

const DEADLINE: Millis = Millis(10_000);

fn workload(name: &str) -> Workload {
    Workload::new("demo", WorkloadKind::Deployment, name)
}

fn target(name: &str) -> Target {
    Target::Workload(workload(name))
}

fn pod(uid: &str, of: &str) -> PodFact {
    PodFact {
        uid: uid.into(),
        namespace: "demo".into(),
        name: format!("{of}-{uid}").into(),
        workload: workload(of),
        ips: Vec::new(),
        host_network: false,
        phase: PodPhase::Running,
        ready: true,
        terminating: false,
        agents: vec![AgentContainer {
            name: "podway-agent-fp-1".into(),
            image: "podway-agent:test".into(),
            port: 20_000,
            authorized_key: "key".into(),
            state: ContainerState::Running,
        }],
        own_pod_of: None,
        own_job: None,
    }
}

fn connected() -> DialOutcome {
    DialOutcome::Connected { version: "0.1.0".into() }
}

struct Bench {
    core: ClientListCore,
    generation: Generation,
    now: Millis,
}

impl Bench {
    fn new() -> Bench {
        Bench { core: ClientListCore::new("key", "fp"), generation: Generation(0), now: Millis(0) }
    }

    fn feed(&mut self, input: Input) -> Vec<Effect> {
        self.core.handle(self.now, input);
        std::iter::from_fn(|| self.core.poll_effect()).collect()
    }

    fn pods(&mut self, pods: &[PodFact]) -> Vec<Effect> {
        self.generation = self.generation.next();
        let pods = pods.iter().map(|pod| (pod.uid.clone(), Arc::new(pod.clone()))).collect();
        self.feed(Input::Pods(self.generation, Arc::new(PodSnapshot { pods, namespaces: None })))
    }

    /// A review of the rights in `demo`.
    fn may_forward(&mut self, port_forward: bool) -> Vec<Effect> {
        self.generation = self.generation.next();
        let rights = NamespaceRights { port_forward, ..NamespaceRights::default() };
        let rights = Rights { namespaces: BTreeMap::from([("demo".into(), rights)]), ..Rights::default() };
        self.feed(Input::Rights(self.generation, Arc::new(rights)))
    }

    /// Refuses every dial from now on until a waiter is told or `until` is over; says what it was told.
    fn refuse(&mut self, effects: &[Effect], until: Millis) -> Vec<WaiterOutcome> {
        let mut dialled = dials(effects);
        loop {
            let mut told = Vec::new();
            for (uid, attempt) in std::mem::take(&mut dialled) {
                told.extend(settled(&self.finish(&uid.0, attempt, DialOutcome::Forbidden("forbidden".into()))));
            }
            if !told.is_empty() || self.now > until {
                return told;
            }
            self.now = self.core.poll_deadline().expect("it is dialled again");
            dialled = dials(&self.feed(Input::Woke));
        }
    }

    fn select(&mut self, names: &[&str], general: GeneralEgress) -> Vec<Effect> {
        self.generation = self.generation.next();
        let workloads = names.iter().map(|name| workload(name)).collect();
        self.feed(Input::Via(self.generation, ViaFact { workloads, general, special: BTreeMap::new() }))
    }

    fn wait_for(&mut self, id: u64, target: Target) -> Vec<Effect> {
        self.feed(Input::Register { id: WaiterId(id), target, deadline: DEADLINE })
    }

    fn finish(&mut self, uid: &str, attempt: Attempt, outcome: DialOutcome) -> Vec<Effect> {
        self.feed(Input::DialFinished { pod: uid.into(), attempt, outcome })
    }

    /// Selects `web`, shows its pods, and lets every dial succeed.
    fn connected(pods: &[PodFact]) -> Bench {
        let mut bench = Bench::new();
        bench.select(&["web"], GeneralEgress::NotNeeded);
        for (uid, attempt) in dials(&bench.pods(pods)) {
            bench.finish(&uid.0, attempt, connected());
        }
        bench
    }
}

fn dials(effects: &[Effect]) -> Vec<(PodUid, Attempt)> {
    let dial = |effect: &Effect| match effect {
        Effect::Dial { pod, attempt, .. } => Some((pod.uid.clone(), *attempt)),
        _ => None,
    };
    effects.iter().filter_map(dial).collect()
}

fn settled(effects: &[Effect]) -> Vec<WaiterOutcome> {
    let settle = |effect: &Effect| match effect {
        Effect::Settle { outcome, .. } => Some(outcome.clone()),
        _ => None,
    };
    effects.iter().filter_map(settle).collect()
}

fn ready(uid: &str) -> WaiterOutcome {
    WaiterOutcome::Ready { pod: uid.into() }
}

#[test]
fn s09_ready_means_reached() {
    let mut bench = Bench::new();
    bench.select(&["web"], GeneralEgress::NotNeeded);
    let effects = bench.pods(&[pod("a", "web")]);
    assert_eq!(settled(&bench.wait_for(1, target("web"))), [], "an entry in a table is no link");
    let (uid, attempt) = dials(&effects).remove(0);
    let effects = bench.finish(&uid.0, attempt, connected());
    assert_eq!(settled(&effects), [ready("a")]);
    let link = &told(&effects)[&target("web")].links[0];
    assert_eq!((&link.state, &*link.version, &*link.image), (&LinkState::Ready, "0.1.0", "podway-agent:test"));
}

#[test]
fn a_waiter_for_what_is_there_is_settled_at_once() {
    let mut bench = Bench::connected(&[pod("a", "web")]);
    assert_eq!(settled(&bench.wait_for(1, target("web"))), [ready("a")]);
}

#[test]
fn s29_every_waiter_hears_of_a_forbidden_port_forward() {
    let mut bench = Bench::new();
    bench.may_forward(true);
    bench.wait_for(1, target("web"));
    bench.wait_for(2, target("web"));
    let effects = bench.pods(&[pod("a", "web")]);
    let hopeless = WaiterOutcome::Hopeless { why: "forbidden".into() };
    assert_eq!(bench.refuse(&effects, DEADLINE), [hopeless.clone(), hopeless]);
}

#[test]
fn a_refusal_before_the_rights_are_known_is_dialled_again_and_not_told() {
    let mut bench = Bench::new();
    bench.wait_for(1, target("web"));
    let effects = bench.pods(&[pod("a", "web")]);
    assert_eq!(bench.refuse(&effects, Millis(5_000)), [], "the API server may be starting");
    let at = bench.core.poll_deadline().expect("it is dialled again");
    assert!(at.since(bench.now) <= refusal::AGAIN * 5 / 4);
    // A review that says so needs no proof.
    let outcomes = settled(&bench.may_forward(false));
    assert!(matches!(outcomes.as_slice(), [WaiterOutcome::Hopeless { .. }]), "{outcomes:?}");
}

#[test]
fn a_refusal_of_what_is_granted_is_believed_only_when_it_goes_on() {
    let mut bench = Bench::new();
    bench.may_forward(true);
    bench.wait_for(1, target("web"));
    let effects = bench.pods(&[pod("a", "web")]);
    let outcomes = bench.refuse(&effects, DEADLINE);
    assert!(matches!(outcomes.as_slice(), [WaiterOutcome::Hopeless { .. }]), "{outcomes:?}");
    assert!((1_000..2_000).contains(&bench.now.0), "told at {:?}", bench.now);
    // Hopeless or not, it is asked again, soon at first; that alone takes nothing back.
    bench.select(&["web"], GeneralEgress::NotNeeded);
    let told = bench.now;
    bench.now = bench.core.poll_deadline().expect("it is dialled again");
    assert!(bench.now.since(told) < Duration::from_secs(3));
    let effects = bench.feed(Input::Woke);
    let taken_back = |effect: &Effect| matches!(effect, Effect::Publish(table) if table.hopeless.is_empty());
    assert!(!effects.iter().any(taken_back), "{effects:?}");
    let (uid, attempt) = dials(&effects).remove(0);
    bench.finish(&uid.0, attempt, connected());
    assert_eq!(settled(&bench.wait_for(2, target("web"))), [ready("a")]);
}

#[test]
fn other_failures_before_a_refusal_do_not_count_as_refusals() {
    let mut bench = Bench::new();
    bench.may_forward(true);
    bench.wait_for(1, target("web"));
    let mut effects = bench.pods(&[pod("a", "web")]);
    for _ in 0..6 {
        let (uid, attempt) = dials(&effects).remove(0);
        bench.finish(&uid.0, attempt, DialOutcome::Refused);
        bench.now = bench.core.poll_deadline().expect("it is dialled again");
        effects = bench.feed(Input::Woke);
    }
    let (uid, attempt) = dials(&effects).remove(0);
    assert_eq!(settled(&bench.finish(&uid.0, attempt, DialOutcome::Forbidden("no".into()))), []);
}

#[test]
fn one_pod_that_is_refused_does_not_take_the_hope_from_another() {
    let mut bench = Bench::new();
    bench.may_forward(true);
    bench.wait_for(1, target("web"));
    let mut effects = bench.pods(&[pod("a", "web"), pod("b", "web")]);
    let (_, slow) = dials(&effects).remove(1);
    while bench.now < Millis(3_000) {
        for (uid, attempt) in dials(&effects).into_iter().filter(|(uid, _)| *uid == "a".into()) {
            assert_eq!(settled(&bench.finish(&uid.0, attempt, DialOutcome::Forbidden("no".into()))), []);
        }
        bench.now = bench.core.poll_deadline().expect("it is dialled again");
        effects = bench.feed(Input::Woke);
    }
    assert_eq!(settled(&bench.finish("b", slow, connected())), [ready("b")]);
}

#[test]
fn what_was_refused_is_dialled_at_once_when_the_right_is_there() {
    let mut bench = Bench::new();
    bench.may_forward(true);
    bench.select(&["web"], GeneralEgress::NotNeeded);
    let effects = bench.pods(&[pod("a", "web")]);
    bench.refuse(&effects, Millis(60_000));
    let later = bench.core.poll_deadline().expect("it is dialled again");
    assert!(later.since(bench.now) > Duration::from_secs(5));
    bench.may_forward(false);
    bench.may_forward(true);
    let at = bench.core.poll_deadline().expect("it is dialled again");
    assert!(at.since(bench.now) <= RETRY_WHEN_BLOCKED);
}

/// A pod with a second agent, of another image.
fn two_agents() -> PodFact {
    let mut both = pod("a", "web");
    let other = AgentContainer { name: "podway-agent-other-1".into(), port: 20_001, ..both.agents[0].clone() };
    both.agents.push(other);
    both
}

fn told_unfit(effects: &[Effect]) -> Option<Vec<String>> {
    effects.iter().rev().find_map(|effect| match effect {
        Effect::TellUnfit(_, agents) => Some(agents.keys().map(|(pod, name)| format!("{pod}/{name}")).collect()),
        _ => None,
    })
}

#[test]
fn an_agent_that_will_not_do_is_told_and_dialled_no_more() {
    let mut bench = Bench::new();
    bench.select(&["web"], GeneralEgress::NotNeeded);
    let (uid, attempt) = dials(&bench.pods(&[pod("a", "web")])).remove(0);
    let effects =
        bench.finish(&uid.0, attempt, DialOutcome::Unfit(Unfit::Protocol("the agent speaks protocol 2".into())));
    assert_eq!(told_unfit(&effects), Some(vec!["a/podway-agent-fp-1".to_owned()]));
    assert_eq!((dials(&effects), bench.core.poll_deadline()), (Vec::new(), None));
    let state = &told(&effects)[&target("web")].links[0].state;
    assert_eq!(*state, LinkState::Failed { why: "the agent speaks protocol 2".into() });
    // The next one is dialled when it runs.
    let mut next = pod("a", "web");
    next.agents.push(AgentContainer { name: "podway-agent-fp-2".into(), ..next.agents[0].clone() });
    let effects = bench.pods(&[next]);
    let (uid, attempt) = dials(&effects).remove(0);
    bench.finish(&uid.0, attempt, connected());
    assert!(bench.core.is_ready(&target("web")));
    // With the pod the knowledge goes.
    assert_eq!(told_unfit(&bench.pods(&[])), Some(Vec::new()));
}

#[test]
fn another_agent_of_the_pod_is_dialled_where_one_will_not_do() {
    let mut bench = Bench::new();
    bench.select(&["web"], GeneralEgress::NotNeeded);
    let (uid, attempt) = dials(&bench.pods(&[two_agents()])).remove(0);
    let effects = bench.finish(&uid.0, attempt, DialOutcome::Unfit(Unfit::Protocol("no".into())));
    let port = effects.iter().find_map(|effect| match effect {
        Effect::Dial { port, .. } => Some(*port),
        _ => None,
    });
    assert_eq!(port, Some(20_001));
}

#[test]
fn a_stale_word_of_an_agent_is_not_taken_for_that_of_another() {
    let mut bench = Bench::new();
    bench.select(&["web"], GeneralEgress::NotNeeded);
    let (_, attempt) = dials(&bench.pods(&[two_agents()])).remove(0);
    bench.finish("a", attempt, DialOutcome::Unfit(Unfit::Protocol("no".into())));
    let again = bench.finish("a", attempt, DialOutcome::Unfit(Unfit::Protocol("no".into())));
    assert_eq!(again, [], "the second agent is still being dialled");
}

#[test]
fn a_known_missing_right_is_hopeless_before_any_dial() {
    let mut bench = Bench::new();
    bench.wait_for(1, target("web"));
    let rights =
        Rights { namespaces: BTreeMap::from([("demo".into(), NamespaceRights::default())]), ..Rights::default() };
    let outcomes = settled(&bench.feed(Input::Rights(Generation(1), Arc::new(rights))));
    let [WaiterOutcome::Hopeless { why }] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    assert!(why.contains("pods/portforward in namespace demo"), "{why}");
}

#[test]
fn s07_a_timed_out_waiter_is_gone_and_its_pods_are_not_wanted_any_more() {
    let mut bench = Bench::new();
    bench.wait_for(1, target("web"));
    bench.now = DEADLINE;
    assert_eq!(settled(&bench.feed(Input::Woke)), [WaiterOutcome::TimedOut]);
    assert_eq!(dials(&bench.pods(&[pod("a", "web")])), []);
    assert_eq!(bench.core.poll_deadline(), None);
}

#[test]
fn s36_a_failed_dial_is_tried_again_in_a_quiet_cluster() {
    let mut bench = Bench::new();
    bench.select(&["web"], GeneralEgress::NotNeeded);
    let (uid, attempt) = dials(&bench.pods(&[pod("a", "web")])).remove(0);
    bench.finish(&uid.0, attempt, DialOutcome::Refused);
    bench.now = bench.core.poll_deadline().expect("a retry");
    assert_eq!(dials(&bench.feed(Input::Woke)).len(), 1);
}

#[test]
fn a_blocked_flow_shortens_a_long_pause() {
    let mut bench = Bench::new();
    bench.select(&["web"], GeneralEgress::NotNeeded);
    let mut next = dials(&bench.pods(&[pod("a", "web")]));
    for _ in 0..8 {
        let (uid, attempt) = next.remove(0);
        bench.finish(&uid.0, attempt, DialOutcome::Refused);
        let pause = bench.core.poll_deadline().expect("a retry");
        bench.feed(Input::FlowsBlocked(target("web")));
        let hurried = bench.core.poll_deadline().expect("a retry");
        assert!(hurried <= pause);
        assert!(hurried.since(bench.now) <= RETRY_WHEN_BLOCKED);
        bench.now = hurried;
        next = dials(&bench.feed(Input::Woke));
    }
}

#[test]
fn what_is_lost_while_flows_may_still_wait_is_dialled_after_the_shortest_pause() {
    let mut bench = Bench::connected(&[pod("a", "web")]);
    let lose = |bench: &mut Bench, attempt| {
        bench.feed(Input::LinkLost { pod: "a".into(), attempt, why: "cut".into() });
        let at = bench.core.poll_deadline().expect("a retry");
        let pause = at.since(bench.now);
        bench.now = at;
        let (_, attempt) = dials(&bench.feed(Input::Woke)).remove(0);
        bench.finish("a", attempt, connected());
        (pause, attempt)
    };
    // Told once: whoever waits within that second is not told of again.
    bench.feed(Input::FlowsBlocked(target("web")));
    let mut attempt = Attempt(1);
    while bench.now < Millis(9_000) {
        let pause;
        (pause, attempt) = lose(&mut bench, attempt);
        assert!(pause <= RETRY_WHEN_BLOCKED, "{pause:?}");
    }
    bench.now = Millis(0) + BLOCKED;
    assert!(lose(&mut bench, attempt).0 > RETRY_WHEN_BLOCKED * 2, "no flow waits any more");
}

#[test]
fn why_a_link_was_lost_is_told_until_another_works() {
    let mut bench = Bench::connected(&[pod("a", "web")]);
    let told = |effects: &[Effect]| {
        let states = effects.iter().rev().find_map(|effect| match effect {
            Effect::TellLinks(_, targets) => Some(targets[&target("web")].links[0].state.clone()),
            _ => None,
        });
        states.expect("it is told")
    };
    let lost = |why: &str, dialing| LinkState::Lost { why: why.into(), dialing };
    let cut = bench.feed(Input::LinkLost { pod: "a".into(), attempt: Attempt(1), why: "cut".into() });
    assert_eq!(told(&cut), lost("cut", false));
    bench.now = bench.core.poll_deadline().expect("a retry");
    let again = bench.feed(Input::Woke);
    assert_eq!(told(&again), lost("cut", true));
    let attempt = dials(&again).remove(0).1;
    assert_eq!(told(&bench.finish("a", attempt, DialOutcome::TimedOut)), lost("no answer in time", false));
    bench.now = bench.core.poll_deadline().expect("a retry");
    let attempt = dials(&bench.feed(Input::Woke)).remove(0).1;
    assert_eq!(told(&bench.finish("a", attempt, connected())), LinkState::Ready);
}

#[test]
fn s10_an_empty_report_cuts_nothing() {
    let mut bench = Bench::connected(&[pod("a", "web")]);
    let effects = bench.pods(&[]);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::HangUp { .. })), "{effects:?}");
    assert!(bench.core.is_ready(&target("web")), "the link still stands");
}

#[test]
fn s25_a_terminating_pod_takes_no_new_flows_and_keeps_its_old_ones() {
    let mut bench = Bench::connected(&[pod("a", "web")]);
    let mut ending = pod("a", "web");
    ending.terminating = true;
    let effects = bench.pods(&[ending]);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::HangUp { .. })));
    let published = effects.iter().find_map(|effect| match effect {
        Effect::Publish(table) => Some(table.workloads.is_empty()),
        _ => None,
    });
    assert_eq!(published, Some(true));
}

#[test]
fn a_link_that_lived_is_dialled_again_at_once_with_a_new_attempt() {
    let mut bench = Bench::connected(&[pod("a", "web")]);
    bench.now = Millis(5_000);
    let effects = bench.feed(Input::LinkLost { pod: "a".into(), attempt: Attempt(1), why: "cut".into() });
    assert_eq!(dials(&effects), [(PodUid::from("a"), Attempt(2))]);
    let stale = bench.feed(Input::LinkLost { pod: "a".into(), attempt: Attempt(1), why: "cut".into() });
    assert_eq!(stale, []);
}

#[test]
fn a_link_that_is_lost_again_and_again_is_dialled_a_few_times_a_minute() {
    let mut bench = Bench::connected(&[pod("a", "web")]);
    let (mut attempt, mut dialled) = (Attempt(1), 0);
    while bench.now < Millis(60_000) {
        let lost = Input::LinkLost { pod: "a".into(), attempt, why: "cut".into() };
        let mut next = dials(&bench.feed(lost));
        if next.is_empty() {
            bench.now = bench.core.poll_deadline().expect("a retry");
            next = dials(&bench.feed(Input::Woke));
        }
        (_, attempt) = next.remove(0);
        dialled += 1;
        bench.now = bench.now + Duration::from_millis(10);
        bench.finish("a", attempt, connected());
    }
    assert!((10..=32).contains(&dialled), "{dialled} dials in a minute");
    // Once one lives, its end is an accident again.
    bench.now = bench.now + LIVED;
    let lost = bench.feed(Input::LinkLost { pod: "a".into(), attempt, why: "cut".into() });
    assert_eq!(dials(&lost).len(), 1);
}

#[test]
fn a_blocked_flow_does_not_make_a_flapping_link_a_busy_loop() {
    let mut bench = Bench::connected(&[pod("a", "web")]);
    for attempt in 1..10 {
        bench.feed(Input::LinkLost { pod: "a".into(), attempt: Attempt(attempt), why: "cut".into() });
        bench.feed(Input::FlowsBlocked(target("web")));
        let at = bench.core.poll_deadline().expect("a retry");
        assert!(at.since(bench.now) >= Duration::from_millis(75), "attempt {attempt}");
        bench.now = at;
        let (_, attempt) = dials(&bench.feed(Input::Woke)).remove(0);
        bench.finish("a", attempt, connected());
    }
}

#[test]
fn an_agent_of_our_own_image_is_dialled_before_one_of_another() {
    let port_of = |pod: PodFact| {
        let mut bench = Bench::new();
        bench.select(&["web"], GeneralEgress::NotNeeded);
        let dialled = |effect: &Effect| match effect {
            Effect::Dial { port, .. } => Some(*port),
            _ => None,
        };
        bench.pods(&[pod]).iter().find_map(dialled)
    };
    let mut both = pod("a", "web");
    let mut other = both.agents[0].clone();
    (other.name, other.port) = ("podway-agent-other-1".into(), 20_001);
    both.agents.push(other.clone());
    assert_eq!(port_of(both.clone()), Some(20_000));
    both.agents[0].state = ContainerState::Terminated;
    assert_eq!(port_of(both), Some(20_001));
}

#[test]
fn general_traffic_takes_a_via_agent_only_where_no_own_pod_can_be_had() {
    let mut bench = Bench::connected(&[pod("a", "web")]);
    bench.select(&["web"], GeneralEgress::Wanted);
    assert!(!bench.core.is_ready(&Target::General));
    let hopeless = BTreeMap::from([(Target::General, "missing right: create pods".into())]);
    let effects = bench.feed(Input::Hopeless(Generation(1), hopeless));
    assert!(bench.core.is_ready(&Target::General));
    // Nobody waits in vain; that there is no pod of our own is told all the same.
    assert!(!bench.core.table.hopeless.contains_key(&Target::General));
    assert_eq!(told(&effects)[&Target::General].hopeless.as_deref(), Some("missing right: create pods"));
}

#[test]
fn an_agent_that_does_not_start_is_told_as_soon_as_the_kubelet_says_so() {
    let with = |uid: &str, name: &str, state: ContainerState| {
        let mut pod = pod(uid, "web");
        (pod.agents[0].name, pod.agents[0].state) = (name.into(), state);
        pod
    };
    let stuck = ContainerState::Stuck { reason: "ErrImagePull: not found".into() };
    let mut bench = Bench::new();
    bench.select(&["web"], GeneralEgress::NotNeeded);
    let effects = bench.pods(&[
        with("a", "podway-agent-fp-1", stuck.clone()),
        with("b", "podway-agent-fp-1", ContainerState::Waiting),
        // What an earlier connection asked for is no matter of this one.
        with("c", "podway-agent-other-1", stuck),
    ]);
    let states: Vec<LinkState> = told(&effects)[&target("web")].links.iter().map(|link| link.state.clone()).collect();
    let why = "image podway-agent:test does not start: ErrImagePull: not found".into();
    let image = "podway-agent:test".into();
    assert_eq!(states, [LinkState::Failed { why }, LinkState::Starting { image }, LinkState::NoAgent]);
}

/// What Session was told last.
fn told(effects: &[Effect]) -> BTreeMap<Target, TargetState> {
    let mut told = effects.iter().rev().filter_map(|effect| match effect {
        Effect::TellLinks(_, targets) => Some(targets.clone()),
        _ => None,
    });
    told.next().expect("Session is told")
}

#[test]
fn nothing_is_dialled_after_hang_up_and_old_dials_are_ended() {
    let mut bench = Bench::new();
    bench.select(&["web"], GeneralEgress::NotNeeded);
    bench.pods(&[pod("a", "web")]);
    let effects = bench.feed(Input::HangUpAll(ReplyId(1)));
    assert!(effects.contains(&Effect::HangUp { pod: "a".into(), attempt: Attempt(1) }));
    assert!(effects.contains(&Effect::HungUp(ReplyId(1))));
    assert_eq!(dials(&bench.pods(&[pod("a", "web"), pod("b", "web")])), []);
    assert_eq!(settled(&bench.wait_for(1, target("web"))), [WaiterOutcome::Cancelled]);
}

#[test]
fn an_older_snapshot_is_dropped() {
    let mut bench = Bench::connected(&[pod("a", "web")]);
    let effects = bench.feed(Input::Pods(Generation(1), Arc::new(PodSnapshot::default())));
    assert_eq!(effects, []);
}

#[test]
fn a_link_made_before_the_rules_asks_again_for_what_they_allow() {
    let mut bench = Bench::new();
    bench.wait_for(1, target("web"));
    let effects = bench.pods(&[pod("a", "web")]);
    let (uid, attempt) = dials(&effects).remove(0);
    bench.finish(&uid.0, attempt, connected());
    let loopback: BTreeSet<Cidr> = ["127.0.0.1/32".parse().expect("a prefix")].into();
    let via = ViaFact {
        workloads: [workload("web")].into(),
        special: [(workload("web"), loopback.clone())].into(),
        ..ViaFact::default()
    };
    let effects = bench.feed(Input::Via(Generation(9), via));
    assert!(effects.contains(&Effect::HangUp { pod: "a".into(), attempt }), "{effects:?}");
    let asked = effects.iter().find_map(|effect| match effect {
        Effect::Dial { special, .. } => Some(special.clone()),
        _ => None,
    });
    assert_eq!(asked, Some(loopback));
}

fn abandoned(effects: &[Effect]) -> Vec<PodUid> {
    let abandon = |effect: &Effect| match effect {
        Effect::Abandon { pod } => Some(pod.clone()),
        _ => None,
    };
    effects.iter().filter_map(abandon).collect()
}

/// A bench with a link to `a` that was lost in an outage: nothing is heard of pods, and dials fail.
fn in_an_outage() -> Bench {
    let mut bench = Bench::connected(&[pod("a", "web")]);
    bench.now = Millis(60_000);
    let mut effects = bench.feed(Input::LinkLost { pod: "a".into(), attempt: Attempt(1), why: "cut".into() });
    while bench.now < Millis(120_000) {
        assert_eq!(abandoned(&effects), []);
        for (uid, attempt) in dials(&effects) {
            let failed = bench.finish(&uid.0, attempt, DialOutcome::Failed("unreachable".into()));
            assert_eq!(abandoned(&failed), []);
        }
        bench.now = bench.core.poll_deadline().expect("it is dialled again");
        effects = bench.feed(Input::Woke);
    }
    bench
}

#[test]
fn an_agent_that_is_out_of_reach_is_not_given_up_until_its_pod_is_known_to_be_gone() {
    let mut bench = in_an_outage();
    assert_eq!(abandoned(&bench.pods(&[pod("a", "web"), pod("b", "web")])), []);
    assert_eq!(abandoned(&bench.pods(&[pod("b", "web")])), [PodUid::from("a")]);
    assert_eq!(abandoned(&bench.pods(&[])), [], "it was said, and b was never reached");
}

#[test]
fn an_agent_that_ended_is_given_up_though_its_pod_is_there() {
    let mut bench = in_an_outage();
    let mut ended = pod("a", "web");
    ended.agents[0].state = ContainerState::Terminated;
    assert_eq!(abandoned(&bench.pods(&[ended])), [PodUid::from("a")]);
    let mut bench = in_an_outage();
    let succeeded = PodFact { phase: PodPhase::Succeeded, ..pod("a", "web") };
    assert_eq!(abandoned(&bench.pods(&[succeeded])), [PodUid::from("a")]);
}

#[test]
fn an_agent_whose_pod_is_about_to_end_is_given_up_once_its_link_is_lost() {
    let leaving = PodFact { terminating: true, ..pod("a", "web") };
    let mut bench = Bench::connected(&[pod("a", "web")]);
    assert_eq!(abandoned(&bench.pods(std::slice::from_ref(&leaving))), [], "it still works");
    let lost = bench.feed(Input::LinkLost { pod: "a".into(), attempt: Attempt(1), why: "cut".into() });
    assert_eq!(abandoned(&lost), [PodUid::from("a")], "nobody will dial it");
    assert_eq!(abandoned(&in_an_outage().pods(&[leaving])), [PodUid::from("a")]);
}

#[test]
fn an_agent_that_nobody_wants_is_given_up_before_its_link_ends() {
    let mut bench = Bench::connected(&[pod("a", "web")]);
    let effects = bench.select(&[], GeneralEgress::NotNeeded);
    let ends = effects.iter().position(|effect| matches!(effect, Effect::HangUp { .. })).expect("it is hung up");
    let given_up = effects.iter().position(|effect| matches!(effect, Effect::Abandon { .. })).expect("it is given up");
    assert!(given_up < ends, "{effects:?}");
    let mut bench = Bench::connected(&[pod("a", "web")]);
    let effects = bench.feed(Input::HangUpAll(ReplyId(1)));
    assert_eq!(effects.first(), Some(&Effect::Abandon { pod: "a".into() }));
}

#[test]
fn a_working_link_to_a_pod_out_of_sight_is_given_up_when_it_is_lost() {
    let mut bench = Bench::connected(&[pod("a", "web")]);
    assert_eq!(abandoned(&bench.pods(&[])), [], "only the link's own end is proof");
    let lost = bench.feed(Input::LinkLost { pod: "a".into(), attempt: Attempt(1), why: "cut".into() });
    assert_eq!(abandoned(&lost), [PodUid::from("a")]);
}
