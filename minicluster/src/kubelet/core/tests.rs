use serde_json::{Value, json};

use super::*;
use crate::controllers::testing::Bed;
use crate::controllers::wanted::apply;
use crate::controllers::{conditions, pods};
use crate::manifests;
use crate::resource::{EVENTS, NODES};
use crate::store::Key;
use crate::strategy;

/// A kubelet beside objects, whose machine is the test.
struct Desk {
    bed: Bed,
    core: Core,
    effects: Vec<Effect>,
    again: Option<Time>,
}

impl Desk {
    fn new() -> Desk {
        let bed = Bed::new(0);
        let (key, node) = manifests::node(1, "2026-01-01T00:00:00Z");
        strategy::create(&bed.store, &key, node).unwrap();
        Desk { bed, core: Core::default(), effects: Vec::new(), again: None }
    }

    fn pod(&mut self, name: &str, spec: Value) -> String {
        let mut spec = spec;
        spec["nodeName"] = json!("node1");
        if spec["containers"].is_null() {
            spec["containers"] = json!([{"name": "server", "image": "podway-sample:dev"}]);
        }
        let pod = self.bed.create(&PODS, "demo", name, json!({"spec": spec}));
        self.look();
        object::uid(&pod).to_owned()
    }

    /// Looks until nothing is written any more.
    fn look(&mut self) {
        for _ in 0..10 {
            let outcome = self.core.look(&World::read(&self.bed.store), self.bed.now);
            self.effects.extend(outcome.effects);
            self.again = outcome.wanted.again;
            let writes = outcome.wanted.writes;
            if writes.is_empty() {
                return;
            }
            assert_eq!(apply(&self.bed.store, writes, self.bed.now), []);
        }
        panic!("it never settles");
    }

    fn learn(&mut self, fact: Fact) {
        self.core.learn(fact, self.bed.now);
        self.look();
    }

    fn took(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Lets the pod's network be made, and returns its run that is started then.
    fn start(&mut self, uid: &str) -> Run {
        self.learn(Fact::NetworkMade(uid.to_owned()));
        self.started_run()
    }

    fn started_run(&mut self) -> Run {
        let effects = self.took();
        let mut starts = effects
            .iter()
            .filter_map(|effect| if let Effect::Start { run, .. } = effect { Some(run.clone()) } else { None });
        starts.next_back().unwrap_or_else(|| panic!("nothing starts: {effects:?}"))
    }

    fn status(&self, name: &str) -> Value {
        self.bed.get(&PODS, name).unwrap()["status"].clone()
    }

    fn state(&self, name: &str) -> Value {
        self.status(name)["containerStatuses"][0]["state"].clone()
    }

    fn delete(&mut self, name: &str, grace: Option<i64>) {
        self.bed.delete(&PODS, name, &Deletion { grace, ..Deletion::default() });
        self.look();
    }
}

#[test]
fn a_pod_comes_up_step_by_step() {
    let mut desk = Desk::new();
    let probe = json!({"httpGet": {"path": "/healthz", "port": 80}});
    let uid = desk
        .pod("a", json!({"containers": [{"name": "server", "image": "podway-sample:dev", "readinessProbe": probe}]}));
    let addresses = Pair { v4: "10.42.0.2".parse().unwrap(), v6: "fd42::2".parse().unwrap() };
    assert_eq!(desk.took(), [Effect::MakeNetwork { uid: uid.clone(), addresses }]);
    assert_eq!((&desk.status("a")["phase"], &desk.status("a")["podIP"]), (&json!("Pending"), &Value::Null));
    assert_eq!(desk.state("a")["waiting"]["reason"], "ContainerCreating");

    let run = desk.start(&uid);
    assert_eq!(desk.status("a")["podIPs"], json!([{"ip": "10.42.0.2"}, {"ip": "fd42::2"}]));
    desk.learn(Fact::Started(run.clone(), false));
    assert_eq!(desk.status("a")["phase"], "Running");
    assert!(!pods::is_ready(&desk.bed.get(&PODS, "a").unwrap()));
    let ready = conditions::find(&desk.bed.get(&PODS, "a").unwrap(), "Ready").unwrap().clone();
    assert_eq!(
        (&ready["reason"], &ready["message"]),
        (&json!("ContainersNotReady"), &json!("containers with unready status: [server]"))
    );
    desk.learn(Fact::Probed(run.clone(), true));
    assert!(pods::is_ready(&desk.bed.get(&PODS, "a").unwrap()));
    desk.learn(Fact::Probed(run, false));
    assert!(!pods::is_ready(&desk.bed.get(&PODS, "a").unwrap()));
    assert_eq!(desk.took(), []);
    assert!(desk.bed.events("Started").contains(&"Started container server".to_owned()));
}

#[test]
fn a_going_pod_is_asked_to_end_and_its_object_goes_when_it_has() {
    let mut desk = Desk::new();
    let uid = desk.pod("a", json!({"terminationGracePeriodSeconds": 30}));
    let run = desk.start(&uid);
    desk.learn(Fact::Started(run.clone(), true));
    desk.delete("a", None);
    assert_eq!(desk.took(), [Effect::Terminate(run.clone())]);
    assert_eq!(desk.again, Some(desk.bed.now.after(Duration::from_secs(30))));
    desk.look();
    assert_eq!(desk.took(), [], "asked once");
    desk.learn(Fact::Ended(run, 0));
    assert!(desk.bed.get(&PODS, "a").is_none());
    assert_eq!(desk.took(), [Effect::Detach(uid.clone()), Effect::Remove(uid)]);
    assert_eq!(desk.core, Core { latest: desk.core.latest.clone(), ..Core::default() }, "nothing is remembered of it");
}

#[test]
fn what_does_not_end_in_time_is_killed_and_a_shorter_time_counts() {
    let mut desk = Desk::new();
    let uid = desk.pod("a", json!({}));
    let run = desk.start(&uid);
    desk.learn(Fact::Started(run.clone(), true));
    desk.delete("a", Some(30));
    desk.bed.pass(1);
    desk.delete("a", Some(2));
    desk.took();
    desk.bed.pass(1);
    desk.look();
    assert_eq!(desk.took(), []);
    desk.bed.pass(1);
    desk.look();
    assert_eq!(desk.took(), [Effect::Kill(run.clone())]);
    desk.learn(Fact::Ended(run, 137));
    assert!(desk.bed.get(&PODS, "a").is_none());
}

#[test]
fn what_is_deleted_while_it_starts_is_ended_when_it_has() {
    let mut desk = Desk::new();
    let uid = desk.pod("a", json!({}));
    let run = desk.start(&uid);
    desk.delete("a", None);
    assert_eq!(desk.took(), []);
    desk.learn(Fact::Started(run.clone(), true));
    assert_eq!(desk.took(), [Effect::Terminate(run)]);
}

#[test]
fn an_object_that_is_gone_or_whose_node_is_takes_its_pod_along() {
    for by_node in [false, true] {
        let mut desk = Desk::new();
        let uid = desk.pod("a", json!({}));
        let run = desk.start(&uid);
        desk.learn(Fact::Started(run.clone(), true));
        if by_node {
            desk.bed.delete(&NODES, "node1", &Deletion::default());
            desk.look();
        } else {
            desk.delete("a", Some(0));
        }
        assert_eq!(desk.took(), [Effect::Remove(uid)]);
        desk.learn(Fact::Ended(run, 137));
        assert_eq!(desk.took(), [], "nobody is there to start it again");
    }
}

#[test]
fn a_pod_that_never_restarts_ends_with_its_containers() {
    for (code, phase, reason) in [(0, "Succeeded", "PodCompleted"), (3, "Failed", "PodFailed")] {
        let mut desk = Desk::new();
        let uid = desk.pod("a", json!({"restartPolicy": "Never"}));
        let run = desk.start(&uid);
        desk.learn(Fact::Started(run.clone(), true));
        desk.learn(Fact::Ended(run, code));
        let pod = desk.bed.get(&PODS, "a").unwrap();
        assert_eq!(pod["status"]["phase"], phase);
        assert_eq!(conditions::find(&pod, "Ready").unwrap()["reason"], reason);
        assert_eq!(desk.state("a")["terminated"]["exitCode"], code);
        assert_eq!(desk.took(), [Effect::Detach(uid)], "its network ends with it");
        assert_eq!(pod["status"]["podIP"], "10.42.0.2", "its address is still told");
        desk.delete("a", None);
        assert!(desk.bed.get(&PODS, "a").is_none());
    }
}

#[test]
fn a_crash_shows_in_restarts_and_the_last_state() {
    let mut desk = Desk::new();
    let uid = desk.pod("a", json!({}));
    let run = desk.start(&uid);
    desk.learn(Fact::Started(run.clone(), true));
    desk.learn(Fact::Ended(run.clone(), 137));
    let second = desk.started_run();
    assert_eq!(second.attempt, 2);
    desk.learn(Fact::Ended(run, 1));
    desk.learn(Fact::Started(second.clone(), true));
    let status = desk.status("a");
    assert_eq!(status["phase"], "Running");
    let container = &status["containerStatuses"][0];
    assert_eq!(
        (&container["restartCount"], &container["lastState"]["terminated"]["exitCode"]),
        (&json!(1), &json!(137))
    );
    desk.learn(Fact::Ended(second, 1));
    let container = desk.status("a")["containerStatuses"][0].clone();
    assert_eq!(container["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert_eq!(container["ready"], false);
}

#[test]
fn ephemeral_containers_join_a_running_pod_and_never_run_again() {
    let mut desk = Desk::new();
    let uid = desk.pod("a", json!({}));
    let run = desk.start(&uid);
    desk.learn(Fact::Started(run, true));
    desk.bed.update(&PODS, "a", |pod| {
        pod["spec"]["ephemeralContainers"] =
            json!([{"name": "agent", "image": "podway-agent:dev"}, {"name": "odd", "image": "r.example/no:1"}]);
    });
    desk.look();
    let agent = desk.started_run();
    assert_eq!(agent.container, "agent");
    desk.learn(Fact::Started(agent.clone(), true));
    let of = |desk: &Desk, n: usize| desk.status("a")["ephemeralContainerStatuses"][n].clone();
    assert_eq!((&of(&desk, 0)["ready"], &of(&desk, 0)["state"]["running"].is_object()), (&json!(false), &true));
    assert_eq!(of(&desk, 1)["state"]["waiting"]["reason"], "ErrImagePull");
    desk.bed.pass(1);
    desk.look();
    let waiting = of(&desk, 1)["state"]["waiting"].clone();
    assert_eq!(waiting["reason"], "ImagePullBackOff");
    let message = waiting["message"].as_str().unwrap();
    assert!(
        message.starts_with("Back-off pulling image \"r.example/no:1\": ErrImagePull: rpc error: code = NotFound"),
        "{message}"
    );
    desk.learn(Fact::Ended(agent, 0));
    assert_eq!(of(&desk, 0)["state"]["terminated"]["reason"], "Completed");
    assert!(pods::is_ready(&desk.bed.get(&PODS, "a").unwrap()), "the pod does not rest on them");
    assert!(!desk.took().iter().any(|effect| matches!(effect, Effect::Start { .. })));
}

#[test]
fn a_pod_in_the_nodes_network_has_the_nodes_addresses() {
    let mut desk = Desk::new();
    desk.pod("a", json!({"hostNetwork": true}));
    let effects = desk.took();
    assert!(matches!(&effects[..], [Effect::Start { launch, .. }] if launch.host_network), "{effects:?}");
    let status = desk.status("a");
    assert_eq!(status["podIPs"], status["hostIPs"]);
    assert_eq!(status["podIP"], "10.41.0.1");
}

#[test]
fn addresses_are_not_given_again_before_all_others_were() {
    let mut desk = Desk::new();
    let mut seen = Vec::new();
    for round in 0..300 {
        let name = format!("pod-{round}");
        desk.pod(&name, json!({}));
        let effects = desk.took();
        let [Effect::MakeNetwork { addresses, .. }] = &effects[..] else { panic!("{effects:?}") };
        seen.push(addresses.v4.octets()[3]);
        desk.delete(&name, Some(0));
        desk.took();
    }
    let first: Vec<u8> = (2..=254).collect();
    assert_eq!(seen[..253], first[..]);
    assert_eq!(seen[253..], first[..47]);
}

#[test]
fn a_network_that_fails_is_tried_again_and_the_reason_is_told() {
    let mut desk = Desk::new();
    let uid = desk.pod("a", json!({}));
    desk.took();
    desk.learn(Fact::NetworkFailed(uid.clone(), "no device".to_owned()));
    let pod = desk.bed.get(&PODS, "a").unwrap();
    assert_eq!(conditions::find(&pod, "PodReadyToStartContainers").unwrap()["message"], "no device");
    assert_eq!(desk.took(), []);
    desk.bed.pass(1);
    desk.look();
    assert!(matches!(&desk.took()[..], [Effect::MakeNetwork { .. }]));
    desk.start(&uid);
}

#[test]
fn a_full_node_says_so() {
    let mut desk = Desk::new();
    desk.bed.update(&NODES, "node1", |node| node["spec"]["podCIDRs"] = json!(["10.42.0.0/30", "fd42::/126"]));
    desk.pod("a", json!({}));
    assert_eq!(desk.took().len(), 1);
    desk.pod("b", json!({}));
    assert_eq!(desk.took(), []);
    let key = Key::new(&PODS, "demo", "b");
    let pod = desk.bed.store.get(&key).unwrap();
    assert_eq!(
        conditions::find(&pod, "PodReadyToStartContainers").unwrap()["message"],
        "no address is free on the node"
    );
    desk.delete("a", Some(0));
    desk.bed.pass(1);
    desk.look();
    assert!(matches!(&desk.took()[..], [Effect::Remove(_), .., Effect::MakeNetwork { .. }]));
    assert!(!desk.bed.list(&EVENTS).is_empty() || desk.bed.get(&PODS, "b").is_some());
}
