//! The core through its inputs and effects.
#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks for the effects it is about")]

use super::*;
use crate::actors::pod_watcher::facts::{Fact, Key};
use crate::cluster::{PodFact, PodPhase, ServiceRecord};
use crate::refusal::Readiness;
use crate::workload::{PodUid, Workload, WorkloadKind};

fn key(namespace: &str, name: &str) -> Key {
    (namespace.into(), name.into())
}

fn pod(namespace: &str, name: &str, ip: &str) -> (Key, Fact) {
    let fact = PodFact {
        uid: PodUid::from(format!("uid-{namespace}-{name}").as_str()),
        namespace: namespace.into(),
        name: name.into(),
        workload: Workload::new(namespace, WorkloadKind::Pod, name),
        ips: vec![ip.parse().expect("address")],
        host_network: false,
        phase: PodPhase::Running,
        ready: true,
        terminating: false,
        agents: vec![],
        own_pod_of: None,
        own_job: None,
    };
    (key(namespace, name), Fact::Pod(Arc::new(fact)))
}

fn service(ip: &str) -> Fact {
    Fact::Service(Arc::new(ServiceRecord { cluster_ips: vec![ip.parse().expect("address")], ..Default::default() }))
}

/// A core with the effects it has had.
struct World {
    core: PodWatcherCore,
    now: Millis,
    attempts: BTreeMap<WatchId, Attempt>,
    asking: Attempt,
    seen: Vec<Effect>,
}

impl World {
    fn connected() -> World {
        let mut world = World {
            core: PodWatcherCore::new(),
            now: Millis(0),
            attempts: BTreeMap::new(),
            asking: Attempt(0),
            seen: Vec::new(),
        };
        world.input(Input::Watch(["demo".into()].into()));
        world
    }

    fn input(&mut self, input: Input) -> Vec<Effect> {
        self.core.handle(self.now, input);
        let mut effects = Vec::new();
        while let Some(effect) = self.core.poll_effect() {
            if let Effect::Start(id, attempt) = &effect {
                self.attempts.insert(id.clone(), *attempt);
            }
            if let Effect::AskRights(_, attempt) = &effect {
                self.asking = *attempt;
            }
            effects.push(effect);
        }
        self.seen.extend(effects.iter().cloned());
        effects
    }

    fn id(kind: Kind, namespace: Option<&str>) -> WatchId {
        WatchId { kind, namespace: namespace.map(Into::into) }
    }

    fn observe(&mut self, id: &WatchId, events: Vec<Event>) -> Vec<Effect> {
        let attempt = self.attempts[id];
        self.input(Input::Observed(id.clone(), attempt, events))
    }

    fn list(&mut self, id: &WatchId, objects: Vec<(Key, Fact)>) -> Vec<Effect> {
        let mut events = vec![Event::Init];
        events.extend(objects.into_iter().map(|(key, fact)| Event::InitApply(key, fact)));
        events.push(Event::InitDone);
        self.observe(id, events)
    }

    fn fail(&mut self, id: &WatchId, trouble: Trouble) -> Vec<Effect> {
        let attempt = self.attempts[id];
        self.input(Input::Failed(id.clone(), attempt, trouble, 255))
    }

    /// Reviews said this, after what the API server had said of itself.
    fn review(&mut self, rights: NamespaceRights, server: Readiness, jitter: u8) -> Vec<Effect> {
        self.input(Input::Rights("demo".into(), self.asking, Some(Reviewed { rights, server }), jitter))
    }

    /// Lets time pass until rights are asked for.
    fn wake_to_ask(&mut self) -> Duration {
        let begun = self.now;
        while !asks(&self.wake().1) {}
        self.now.since(begun)
    }

    /// Lets time pass to the next deadline.
    fn wake(&mut self) -> (Duration, Vec<Effect>) {
        let at = self.core.poll_deadline().expect("a deadline");
        let passed = at.since(self.now);
        self.now = self.now.max(at);
        (passed, self.input(Input::Woke))
    }

    /// Refuses the watch of all pods until it is given up.
    fn refuse_pods(&mut self) {
        while !self.fail(&pods(), Trouble::Forbidden("no".into())).contains(&Effect::End(pods())) {
            self.wake();
        }
    }

    fn fresh() -> World {
        let mut world = World::connected();
        world.list(&pods(), vec![pod("demo", "a", "10.0.0.1"), pod("other", "b", "10.0.0.2")]);
        for kind in [Kind::Services, Kind::Slices, Kind::Nodes, Kind::ServiceCidrs, Kind::Namespaces] {
            world.list(&World::id(kind, None), vec![]);
        }
        world
    }
}

fn pods() -> WatchId {
    World::id(Kind::Pods, None)
}

fn asks(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::AskRights(..)))
}

fn told_pods(effects: &[Effect]) -> Option<Vec<String>> {
    effects.iter().rev().find_map(|effect| match effect {
        Effect::TellPods(_, snapshot) => Some(snapshot.pods.values().map(|pod| pod.name.to_string()).collect()),
        _ => None,
    })
}

fn told_info(effects: &[Effect]) -> Option<Arc<ClusterInfo>> {
    effects.iter().rev().find_map(|effect| match effect {
        Effect::TellInfo(_, info) => Some(Arc::clone(info)),
        _ => None,
    })
}

fn health(effects: &[Effect]) -> Option<WatchHealth> {
    effects.iter().rev().find_map(|effect| match effect {
        Effect::TellHealth(_, health) => Some(health.clone()),
        _ => None,
    })
}

#[test]
fn everything_starts_at_once() {
    let world = World::connected();
    let starts = world.seen.iter().filter(|effect| matches!(effect, Effect::Start(..))).count();
    assert_eq!(starts, Kind::ALL.len());
    assert!(asks(&world.seen));
    assert_eq!(health(&world.seen), Some(WatchHealth::Starting));
}

#[test]
fn the_first_snapshot_is_told_with_the_end_of_the_list_and_not_before() {
    let mut world = World::connected();
    let (key, fact) = pod("demo", "a", "10.0.0.1");
    assert_eq!(world.observe(&pods(), vec![Event::Init, Event::InitApply(key, fact)]), []);
    let effects = world.observe(&pods(), vec![Event::InitDone]);
    assert_eq!(told_pods(&effects), Some(vec!["a".to_owned()]));
}

#[test]
fn a_list_replaces_what_is_known_only_when_it_is_whole() {
    let mut world = World::fresh();
    let (key, fact) = pod("demo", "c", "10.0.0.3");
    assert_eq!(world.observe(&pods(), vec![Event::Init, Event::InitApply(key, fact)]), []);
    assert_eq!(told_pods(&world.seen), Some(vec!["a".to_owned(), "b".to_owned()]));
    world.observe(&pods(), vec![Event::InitDone]);
    let (_, effects) = world.wake();
    assert_eq!(told_pods(&effects), Some(vec!["c".to_owned()]), "what the list does not hold is gone");
}

#[test]
fn a_burst_is_told_once() {
    let mut world = World::fresh();
    for n in 0..50 {
        let (key, fact) = pod("demo", &format!("p{n}"), "10.0.0.9");
        assert_eq!(told_pods(&world.observe(&pods(), vec![Event::Apply(key, fact)])), None);
    }
    let (passed, effects) = world.wake();
    assert_eq!(passed, GATHER);
    assert_eq!(told_pods(&effects).map(|names| names.len()), Some(52));
    assert_eq!(world.core.poll_deadline(), None);
}

#[test]
fn what_changes_nothing_is_not_told() {
    let mut world = World::fresh();
    let (key, fact) = pod("demo", "a", "10.0.0.1");
    assert_eq!(world.observe(&pods(), vec![Event::Apply(key, fact)]), []);
    assert_eq!(world.core.poll_deadline(), None);
}

#[test]
fn a_deleted_pod_is_gone() {
    let mut world = World::fresh();
    world.observe(&pods(), vec![Event::Delete(key("demo", "a"))]);
    let (_, effects) = world.wake();
    assert_eq!(told_pods(&effects), Some(vec!["b".to_owned()]));
}

#[test]
fn s38_a_failed_watch_keeps_what_is_known() {
    let mut world = World::fresh();
    let effects = world.fail(&pods(), Trouble::Down("connection refused".into()));
    assert_eq!(told_pods(&effects), None);
    assert_eq!(health(&effects), Some(WatchHealth::Stale { why: "pods: connection refused".into() }));
    let (_, effects) = world.wake();
    assert_eq!(effects, [Effect::Resume(pods())]);
    let effects = world.observe(&pods(), vec![Event::Alive]);
    assert_eq!(health(&effects), Some(WatchHealth::Fresh));
}

#[test]
fn s40_pauses_are_capped_and_start_anew_after_a_success() {
    let mut world = World::fresh();
    let mut pauses = Vec::new();
    for _ in 0..12 {
        world.fail(&pods(), Trouble::Down("x".into()));
        pauses.push(world.wake().0.as_millis());
    }
    assert_eq!(pauses[..6], [100, 200, 400, 800, 1600, 3000]);
    assert!(pauses[6..].iter().all(|pause| *pause == 3000));
    world.observe(&pods(), vec![Event::Alive]);
    world.fail(&pods(), Trouble::Down("x".into()));
    assert_eq!(world.wake().0.as_millis(), 100);
}

#[test]
fn without_the_right_to_all_namespaces_each_of_interest_is_watched() {
    let mut world = World::connected();
    let effects = world.fail(&pods(), Trouble::Forbidden("no".into()));
    let narrow = World::id(Kind::Pods, Some("demo"));
    assert!(effects.contains(&Effect::End(pods())));
    assert!(world.attempts.contains_key(&narrow));
    assert_eq!(told_pods(&effects), None);
    let effects = world.list(&narrow, vec![pod("demo", "a", "10.0.0.1")]);
    let Some(Effect::TellPods(_, snapshot)) = effects.iter().find(|e| matches!(e, Effect::TellPods(..))) else {
        panic!("no snapshot in {effects:?}");
    };
    assert_eq!(snapshot.namespaces, Some(["demo".into()].into()));
}

#[test]
fn losing_the_right_to_all_namespaces_keeps_those_of_interest() {
    let mut world = World::fresh();
    world.refuse_pods();
    let effects = world.list(&World::id(Kind::Pods, Some("demo")), vec![pod("demo", "a", "10.0.0.1")]);
    assert_eq!(told_pods(&effects).or(told_pods(&world.seen)), Some(vec!["a".to_owned()]));
}

#[test]
fn what_is_known_of_all_namespaces_is_not_given_up_for_a_refusal_that_passes() {
    let mut world = World::fresh();
    let mut passed = Duration::ZERO;
    while passed < Duration::from_secs(5) {
        let effects = world.fail(&pods(), Trouble::Forbidden("starting".into()));
        assert!(!effects.contains(&Effect::End(pods())), "after {passed:?}: {effects:?}");
        passed += world.wake().0;
    }
    world.observe(&pods(), vec![Event::Alive]);
    assert_eq!(told_pods(&world.seen), Some(vec!["a".to_owned(), "b".to_owned()]));
}

#[test]
fn a_watch_that_is_refused_is_tried_again_soon_at_first() {
    let mut world = World::connected();
    world.fail(&pods(), Trouble::Forbidden("starting".into()));
    let narrow = World::id(Kind::Pods, Some("demo"));
    let (mut tries, mut passed) = (0, Duration::ZERO);
    while passed < Duration::from_secs(2) {
        world.fail(&narrow, Trouble::Forbidden("starting".into()));
        loop {
            let (more, effects) = world.wake();
            passed += more;
            if effects.contains(&Effect::Resume(narrow.clone())) {
                break;
            }
        }
        tries += 1;
    }
    assert!((3..10).contains(&tries), "{tries}");
    // In the end, no more than twice a minute.
    for _ in 0..9 {
        world.fail(&narrow, Trouble::Forbidden("no".into()));
        while !world.wake().1.contains(&Effect::Resume(narrow.clone())) {}
    }
    world.fail(&narrow, Trouble::Forbidden("no".into()));
    let begun = world.now;
    while !world.wake().1.contains(&Effect::Resume(narrow.clone())) {}
    assert!(world.now.since(begun) >= Duration::from_secs(15));
}

#[test]
fn refused_cluster_facts_fall_back_to_addresses_and_are_complete() {
    let mut world = World::connected();
    world.list(&pods(), vec![pod("demo", "a", "10.0.0.1")]);
    let dns = (key("kube-system", "kube-dns"), service("10.43.0.10"));
    world.list(&World::id(Kind::Services, None), vec![dns]);
    world.fail(&World::id(Kind::Nodes, None), Trouble::Forbidden("no".into()));
    assert_eq!(told_info(&world.seen), None);
    let effects = world.fail(&World::id(Kind::ServiceCidrs, None), Trouble::Unknown("old".into()));
    let info = told_info(&effects).expect("told");
    assert!(info.complete);
    assert_eq!(info.pod_cidrs, ["10.0.0.1/32".parse().expect("range")].into());
    assert_eq!(info.service_cidrs, ["10.43.0.10/32".parse().expect("range")].into());
    assert_eq!(info.dns_ips, ["10.43.0.10".parse().expect("address")].into());
}

#[test]
fn ranges_of_nodes_and_service_cidrs_outweigh_addresses() {
    let mut world = World::fresh();
    let ranges = |text: &str| Fact::Ranges([text.parse().expect("range")].into());
    world.observe(&World::id(Kind::Nodes, None), vec![Event::Apply(key("", "n1"), ranges("10.42.0.0/24"))]);
    let (_, effects) = world.wake();
    let info = told_info(&effects).expect("told");
    assert_eq!(info.pod_cidrs, ["10.42.0.0/24".parse().expect("range")].into());
}

#[test]
fn refused_credentials_ask_for_a_login_until_others_are_taken() {
    let mut world = World::fresh();
    let effects = world.fail(&pods(), Trouble::Unauthorized("expired".into()));
    assert!(matches!(health(&effects), Some(WatchHealth::Stale { .. })), "it may be starting: {effects:?}");
    while health(&world.seen) != Some(WatchHealth::Unauthorized { why: "expired".into() }) {
        assert!(world.now < Millis(2_000), "{:?}", health(&world.seen));
        world.wake();
        world.fail(&pods(), Trouble::Unauthorized("expired".into()));
    }
    // Others that are refused as well are told to be so, and were never said to be well.
    for _ in 0..2 {
        let before = world.attempts[&pods()];
        let effects = world.input(Input::ClientChanged);
        assert!(matches!(health(&effects), Some(WatchHealth::Stale { .. })), "{effects:?}");
        assert!(world.attempts[&pods()] > before);
        assert_eq!(told_pods(&effects), None);
        let mut told = None;
        while told != Some(WatchHealth::Unauthorized { why: "expired".into() }) {
            let effects = world.fail(&pods(), Trouble::Unauthorized("expired".into()));
            told = health(&effects).or(told);
            assert_ne!(told, Some(WatchHealth::Fresh));
            world.wake();
        }
    }
    world.input(Input::ClientChanged);
    let effects = world.observe(&pods(), vec![Event::Alive]);
    assert_eq!(health(&effects), Some(WatchHealth::Fresh));
}

#[test]
fn a_dial_that_is_refused_has_one_watch_made_anew_which_tells() {
    let mut world = World::fresh();
    let started = |effects: &[Effect]| effects.iter().filter(|effect| matches!(effect, Effect::Start(..))).count();
    let effects = world.input(Input::Doubted);
    let Some(Effect::Start(id, attempt)) = effects.first().cloned() else { panic!("{effects:?}") };
    assert_eq!((started(&effects), health(&effects)), (1, None), "{effects:?}");
    // Many dials are refused at once.
    assert_eq!(started(&world.input(Input::Doubted)), 0);
    let expired = || Trouble::Unauthorized("expired".into());
    while health(&world.seen) != Some(WatchHealth::Unauthorized { why: "expired".into() }) {
        assert!(world.now < Millis(2_000), "{:?}", health(&world.seen));
        world.input(Input::Failed(id.clone(), attempt, expired(), 255));
        world.wake();
    }
    world.now = world.now + DOUBT_AGAIN;
    assert_eq!(started(&world.input(Input::Doubted)), 0, "it is known");
    world.input(Input::Observed(id, attempt, vec![Event::Alive]));
    assert_eq!(started(&world.input(Input::Doubted)), 1);
}

#[test]
fn a_refusal_of_one_kind_says_nothing_of_how_long_the_other_goes_on() {
    let (forbidden, unauthorized) = (Trouble::Forbidden("no".into()), Trouble::Unauthorized("expired".into()));
    // Nodes are refused for good; then one 401.
    let nodes = World::id(Kind::Nodes, None);
    let mut world = World::fresh();
    while world.now < Millis(60_000) {
        world.fail(&nodes, forbidden.clone());
        while !world.wake().1.contains(&Effect::Resume(nodes.clone())) {}
    }
    let effects = world.fail(&nodes, unauthorized.clone());
    assert!(matches!(health(&effects), Some(WatchHealth::Stale { .. })), "{effects:?}");
    // Credentials are refused for long; then one 403.
    let mut world = World::fresh();
    while world.now < Millis(20_000) {
        world.fail(&pods(), unauthorized.clone());
        world.wake();
    }
    let effects = world.fail(&pods(), forbidden);
    assert!(!effects.contains(&Effect::End(pods())), "{effects:?}");
}

#[test]
fn events_of_an_earlier_task_are_ignored() {
    let mut world = World::fresh();
    let old = world.attempts[&pods()];
    world.input(Input::ClientChanged);
    let stale = Input::Observed(pods(), old, vec![Event::Init, Event::InitDone]);
    assert_eq!(world.input(stale), []);
    assert_eq!(told_pods(&world.seen).map(|names| names.len()), Some(2));
}

#[test]
fn nothing_happens_after_stop() {
    let mut world = World::fresh();
    let effects = world.input(Input::Stop);
    assert_eq!(effects.len(), Kind::ALL.len());
    assert!(effects.iter().all(|effect| matches!(effect, Effect::End(_))));
    assert_eq!(world.input(Input::ClientChanged), []);
    assert_eq!(world.core.poll_deadline(), None);
}

#[test]
fn rights_are_told_when_all_are_known_and_asked_again_when_not() {
    let mut world = World::connected();
    assert_eq!(world.input(Input::Rights("demo".into(), world.asking, None, 0)), []);
    let (passed, effects) = world.wake();
    assert!(passed == RIGHTS_RETRY && asks(&effects), "{passed:?} {effects:?}");
    let rights = NamespaceRights { watch_pods: true, ..NamespaceRights::default() };
    let effects = world.review(rights, Readiness::Ready, 0);
    assert!(matches!(effects.as_slice(), [Effect::TellRights(_, told)] if told.namespaces["demo"] == rights));
}

#[test]
fn a_missing_right_is_told_when_it_is_certain_or_goes_on() {
    for (server, least, most) in [(Readiness::Silent, 1_000, 1_500), (Readiness::NotReady, 10_000, 10_500)] {
        let mut world = World::connected();
        while world.review(NamespaceRights::default(), server, 255).is_empty() {
            assert!(world.wake_to_ask() <= LOOK_FIRST);
        }
        assert!((least..most).contains(&world.now.0), "{server:?}: {:?}", world.now);
    }
    let mut world = World::connected();
    let told = world.review(NamespaceRights::default(), Readiness::Ready, 0);
    assert!(matches!(told.as_slice(), [Effect::TellRights(..)]), "{told:?}");
    // Nor is it known what may be done where even the question is refused.
    let mut world = World::connected();
    assert_eq!(world.review(NamespaceRights::ALL, Readiness::NotReady, 0), []);
}

#[test]
fn rights_are_not_lost_to_an_api_server_that_is_starting() {
    let mut world = World::fresh();
    world.review(NamespaceRights::ALL, Readiness::Ready, 0);
    world.fail(&World::id(Kind::Nodes, None), Trouble::Forbidden("starting".into()));
    world.input(Input::ClientChanged);
    for _ in 0..8 {
        assert_eq!(world.review(NamespaceRights::default(), Readiness::NotReady, 0), []);
        world.wake_to_ask();
    }
    assert_eq!(world.review(NamespaceRights::ALL, Readiness::Ready, 0), [], "nothing has changed");
    assert!(!world.core.doubts.contains_key("demo"));
}

#[test]
fn a_doubt_from_before_an_outage_does_not_make_the_next_refusal_certain() {
    let mut world = World::fresh();
    world.review(NamespaceRights::ALL, Readiness::Ready, 0);
    world.input(Input::ClientChanged);
    assert_eq!(world.review(NamespaceRights::default(), Readiness::Silent, 0), []);
    for _ in 0..5 {
        world.wake_to_ask();
        assert_eq!(world.input(Input::Rights("demo".into(), world.asking, None, 0)), [], "no answer");
    }
    world.wake_to_ask();
    assert_eq!(world.review(NamespaceRights::default(), Readiness::Silent, 0), [], "it was refused once since");
    while world.review(NamespaceRights::default(), Readiness::Silent, 0).is_empty() {
        world.wake_to_ask();
    }
}

#[test]
fn rights_that_were_asked_with_other_credentials_are_ignored() {
    let mut world = World::fresh();
    let old = world.asking;
    world.input(Input::ClientChanged);
    assert!(world.asking > old);
    let none = Reviewed { rights: NamespaceRights::default(), server: Readiness::Ready };
    assert_eq!(world.input(Input::Rights("demo".into(), old, Some(none), 0)), []);
    let told = world.review(NamespaceRights::ALL, Readiness::Ready, 0);
    assert!(matches!(told.as_slice(), [Effect::TellRights(..)]), "{told:?}");
}

#[test]
fn equal_histories_make_equal_cores() {
    assert_eq!(World::fresh().core, World::fresh().core);
}

#[test]
fn rights_are_asked_again_while_one_is_missing_and_no_longer() {
    let mut world = World::fresh();
    let some = NamespaceRights { create_jobs: false, ..NamespaceRights::ALL };
    let mut look = |jitter| {
        world.review(some, Readiness::Ready, jitter);
        let (passed, effects) = world.wake();
        assert!(matches!(effects.as_slice(), [Effect::AskRights(..)]), "{effects:?}");
        passed
    };
    let soon: Vec<u64> = (0..6).map(|_| look(0).as_secs()).collect();
    assert_eq!(soon, [0, 1, 3, 6, 12, 24]);
    assert_eq!([0, 100, 255].map(&mut look)[..1], [LOOK_AGAIN * 3 / 4]);
    assert_eq!(look(255), LOOK_AGAIN * 5 / 4);
    let effects = world.review(NamespaceRights::ALL, Readiness::Ready, 0);
    assert!(matches!(effects.as_slice(), [Effect::TellRights(..)]), "{effects:?}");
    assert_eq!(world.core.poll_deadline(), None);
}

#[test]
fn a_watch_that_is_no_longer_refused_makes_all_rights_be_asked() {
    let mut world = World::fresh();
    world.review(NamespaceRights::ALL, Readiness::Ready, 0);
    let nodes = World::id(Kind::Nodes, None);
    world.fail(&nodes, Trouble::Forbidden("no".into()));
    let effects = world.observe(&nodes, vec![Event::Alive]);
    assert!(asks(&effects), "{effects:?}");
    assert!(!asks(&world.observe(&nodes, vec![Event::Alive])));
}

/// A world whose pods were refused everywhere but in one namespace, when it has begun to look again.
fn probing() -> World {
    let mut world = World::fresh();
    world.review(NamespaceRights::ALL, Readiness::Ready, 0);
    world.refuse_pods();
    world.list(&World::id(Kind::Pods, Some("demo")), vec![pod("demo", "a", "10.0.0.1")]);
    let before = world.attempts[&pods()];
    let (mut passed, mut effects) = world.wake();
    while !asks(&effects) {
        let (more, next) = world.wake();
        (passed, effects) = (passed + more, next);
    }
    assert!(passed <= LOOK_AGAIN * 5 / 4);
    assert!(world.attempts[&pods()] > before, "{effects:?}");
    world
}

#[test]
fn all_namespaces_are_probed_again_and_taken_once_they_can_be_followed() {
    let mut world = probing();
    let listed = world.list(&pods(), vec![pod("demo", "a", "10.0.0.1"), pod("other", "b", "10.0.0.2")]);
    assert_eq!(listed, [], "listing alone is not enough");
    let effects = world.observe(&pods(), vec![Event::Alive]);
    assert!(effects.contains(&Effect::End(World::id(Kind::Pods, Some("demo")))), "{effects:?}");
    assert_eq!(told_pods(&effects), Some(vec!["a".to_owned(), "b".to_owned()]));
    let sight = effects.iter().find_map(|effect| match effect {
        Effect::TellPods(_, snapshot) => Some(snapshot.namespaces.clone()),
        _ => None,
    });
    assert_eq!(sight, Some(None));
    assert_eq!(world.core.poll_deadline(), None);
}

#[test]
fn a_probe_that_is_refused_changes_nothing_and_is_repeated() {
    let mut world = probing();
    assert_eq!(world.fail(&pods(), Trouble::Forbidden("no".into())), [Effect::End(pods())]);
    assert_eq!(told_pods(&world.seen), Some(vec!["a".to_owned()]));
    let (passed, effects) = world.wake();
    assert!(passed > Duration::from_secs(1) && passed <= LOOK_AGAIN * 5 / 4, "{passed:?}");
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Start(id, _) if *id == pods())), "{effects:?}");
}

#[test]
fn a_probe_that_fails_otherwise_goes_on_after_a_pause() {
    let mut world = probing();
    assert_eq!(world.fail(&pods(), Trouble::Down("x".into())), []);
    let (passed, effects) = world.wake();
    assert_eq!((passed.as_millis(), effects), (100, vec![Effect::Resume(pods())]));
}
