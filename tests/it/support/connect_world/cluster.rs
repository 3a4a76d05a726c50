//! The API server: what it holds, and which watches follow it.

use std::collections::BTreeMap;
use std::sync::Arc;

use podway::actors::agent_placer::core::{self as placer, Made, Place, PlaceOutcome};
use podway::actors::client_list::core as clients;
use podway::actors::pod_watcher::core as watcher;
use podway::actors::pod_watcher::facts::{Event, Fact, Key, Kind, WatchId};
use podway::cluster::{AgentContainer, ContainerState, PodFact, PodPhase, PodSnapshot, ServiceRecord};
use podway::ids::Attempt;
use podway::workload::PodUid;

use super::*;
use crate::support::facts::{Agent, pod};

/// Objects but for pods, and the watches that follow.
#[derive(Clone, Debug, Default)]
pub(super) struct ClusterModel {
    pub objects: BTreeMap<Kind, BTreeMap<Key, Fact>>,
    pub streams: BTreeMap<WatchId, Attempt>,
    /// The tasks of the watches, whether they follow or wait.
    pub tasks: BTreeMap<WatchId, Attempt>,
    /// Watches that have listed.
    pub listed: BTreeSet<WatchId>,
    /// Creates of a pod of our own whose answer was lost, until they are settled.
    pub unsettled: BTreeSet<Attempt>,
}

fn key(namespace: &str, name: &str) -> Key {
    (namespace.into(), name.into())
}

fn pod_key(pod: &PodFact) -> Key {
    (Arc::clone(&pod.namespace), Arc::clone(&pod.name))
}

impl ConnectWorld {
    pub(super) fn fill_cluster(&mut self) {
        let known = self.script.ranges_known;
        self.cluster.change(|cluster| {
            let web = ServiceRecord { cluster_ips: vec![SERVICE_IP.into()], ..ServiceRecord::default() };
            let services = cluster.objects.entry(Kind::Services).or_default();
            services.insert(key("demo", "web"), Fact::Service(Arc::new(web)));
            let namespaces = cluster.objects.entry(Kind::Namespaces).or_default();
            namespaces.insert(key("", "demo"), Fact::Exists);
            let nodes = cluster.objects.entry(Kind::Nodes).or_default();
            nodes.insert(key("", "node"), Fact::Ranges([cidr("10.42.0.0/16")].into()));
        });
        if known {
            self.ranges_are_known();
        }
    }

    pub(super) fn ranges_are_known(&mut self) {
        let (key, fact) = (key("", "kubernetes"), Fact::Ranges([cidr("10.43.0.0/16")].into()));
        self.cluster.change(|cluster| {
            cluster.objects.entry(Kind::ServiceCidrs).or_default().insert(key.clone(), fact.clone());
        });
        self.observed(Kind::ServiceCidrs, Event::Apply(key, fact));
    }

    /// Everything of a kind.
    pub(super) fn listed(&self, kind: Kind) -> Vec<Event> {
        let pods = self.pods.1.pods.values().map(|pod| (pod_key(pod), Fact::Pod(Arc::clone(pod))));
        let others =
            self.cluster.objects.get(&kind).into_iter().flatten().map(|(key, fact)| (key.clone(), fact.clone()));
        let all: Vec<(Key, Fact)> = if kind == Kind::Pods { pods.collect() } else { others.collect() };
        let all = all.into_iter().map(|(key, fact)| Event::InitApply(key, fact));
        [Event::Init].into_iter().chain(all).chain([Event::InitDone, Event::Alive]).collect()
    }

    /// Tells the watches that follow.
    fn observed(&mut self, kind: Kind, event: Event) {
        let streams: Vec<(WatchId, Attempt)> =
            self.cluster.streams.iter().filter(|(id, _)| id.kind == kind).map(|(id, a)| (id.clone(), *a)).collect();
        for (id, attempt) in streams {
            let seen = watcher::Input::Observed(id, attempt, vec![event.clone()]);
            self.send(Part::Cluster, PodWatcher, Letter::Watcher(seen));
        }
    }

    pub(super) fn tell_pods(&mut self) {
        if !self.alive.contains(&PodWatcher) || self.watcher.is_some() {
            return;
        }
        let (generation, pods) = (self.pods.0, Arc::new((*self.pods.1).clone()));
        self.send(PodWatcher, ClientList, Letter::Clients(clients::Input::Pods(generation, Arc::clone(&pods))));
        self.send(PodWatcher, AgentPlacer, Letter::Placer(placer::Input::Pods(generation, pods)));
    }

    fn pods_change(&mut self, change: impl FnOnce(&mut PodSnapshot)) {
        self.pods.0 = self.pods.0.next();
        self.pods.1.change(change);
        self.tell_pods();
    }

    /// A pod appears, or changes. One of the same name is replaced, as a stateful set does it.
    pub(super) fn pod_is(&mut self, pod: PodFact) {
        let (key, fact) = (pod_key(&pod), Fact::Pod(Arc::new(pod.clone())));
        self.pods_change(|snapshot| {
            snapshot.pods.retain(|_, other| pod_key(other) != pod_key(&pod));
            snapshot.pods.insert(pod.uid.clone(), Arc::new(pod));
        });
        self.observed(Kind::Pods, Event::Apply(key, fact));
    }

    pub(super) fn pod_goes(&mut self, uid: &str) {
        let uid = PodUid::from(uid);
        let Some(pod) = self.pods.1.pods.get(&uid).cloned() else { return };
        self.pods_change(|snapshot| drop(snapshot.pods.remove(&uid)));
        self.seen.placed_in.remove(&uid);
        self.observed(Kind::Pods, Event::Delete(pod_key(&pod)));
        // Its links end with it, sooner or later.
        self.carriers_end(&uid);
    }

    pub(super) fn agent_restarts(&mut self, uid: &str) {
        let uid = PodUid::from(uid);
        let Some(pod) = self.pods.1.pods.get(&uid) else { return };
        let mut pod = (**pod).clone();
        let Some(last) = pod.agents.last_mut() else { return };
        last.state = ContainerState::Terminated;
        let number = pod.agents.len() + 1;
        let port = 20_000 + u16::try_from(number).expect("few");
        pod.agents.push(agent(&format!("podway-agent-{FINGERPRINT}-{number}"), port));
        self.pod_is(pod);
        self.carriers_end(&uid);
    }

    fn carriers_end(&mut self, uid: &PodUid) {
        let lost: Vec<_> = self.seen.links.iter().filter(|(pod, _)| pod == uid).cloned().collect();
        for (pod, attempt) in lost {
            self.carrier_lost(pod, attempt);
        }
    }

    pub(super) fn carrier_lost(&mut self, pod: PodUid, attempt: Attempt) {
        self.seen.links.remove(&(pod.clone(), attempt));
        if self.alive.contains(&ClientList) {
            self.clients(clients::Input::LinkLost { pod, attempt, why: "cut".into() });
        }
    }

    pub(super) fn placed(&mut self, place: Place, attempt: Attempt, container: &str, port: u16) {
        match &place {
            Place::Pod(uid) => self.agent_placed(uid, container, port),
            Place::OwnJob | Place::OwnPod if self.pods.1.pods.contains_key(&PodUid::from("own")) => {
                // 409: there is one already, of an earlier run.
                return self.placer_hears(place, attempt, Made::Before, PlaceOutcome::Failed("it exists".into()));
            }
            Place::OwnJob | Place::OwnPod => self.own_pod_placed(),
        }
        // The snapshot that shows it may come before the answer.
        self.under_way(Outside::Placed(place, attempt));
    }

    fn agent_placed(&mut self, uid: &PodUid, container: &str, port: u16) {
        let Some(pod) = self.pods.1.pods.get(uid) else { return };
        if pod.agents.iter().any(|agent| *agent.name == *container) {
            // Asked for again, as no snapshot showed it in time: an equal container is no change.
            return;
        }
        if !self.seen.placed_in.insert(uid.clone()) {
            self.fault("one_agent_per_pod", &format!("a second agent in pod {uid}"));
        }
        let Some(pod) = self.pods.1.pods.get(uid) else { return };
        let mut pod = (**pod).clone();
        pod.agents.push(agent(container, port));
        self.pod_is(pod);
    }

    fn own_pod_placed(&mut self) {
        if !self.seen.placed_in.insert("own".into()) {
            self.fault("one_agent_per_pod", "a second pod of our own");
        }
        let mut own = PodFact { own_pod_of: Some(FINGERPRINT.into()), ..pod("own", "podway-agent", Agent::Running) };
        if self.script.own_pod_is_stuck {
            own.phase = PodPhase::Pending;
            own.agents[0].state = ContainerState::Stuck { reason: "ErrImagePull".into() };
        }
        self.pod_is(own);
    }

    pub(super) fn withdrawn(&mut self) {
        self.pod_goes("own");
        if self.alive.contains(&AgentPlacer) {
            self.placer(placer::Input::Withdrawn);
        }
    }

    pub(super) fn placer_told(&mut self, place: Place, attempt: Attempt, outcome: PlaceOutcome) {
        let made = match &outcome {
            PlaceOutcome::Accepted => Made::Exactly("own".into()),
            // The API server did not say whether it made one; here it made none.
            _ => Made::Perhaps,
        };
        self.placer_hears(place, attempt, made, outcome);
    }

    fn placer_hears(&mut self, place: Place, attempt: Attempt, made: Made, outcome: PlaceOutcome) {
        if !self.alive.contains(&AgentPlacer) {
            return;
        }
        if place.is_own() {
            self.cluster.change(|cluster| cluster.unsettled.insert(attempt));
            self.placer(placer::Input::Made(place.clone(), attempt, made));
        }
        self.placer(placer::Input::Finished { place, attempt, outcome });
    }

    /// Whoever asked for it need not look for what came of it.
    pub(super) fn unsettled_is_settled(&mut self, attempt: Attempt) {
        if !self.cluster.change(|cluster| cluster.unsettled.remove(&attempt)) {
            self.fault("each_create_is_settled_once", &format!("{attempt:?} was settled again"));
        }
    }

    /// What an earlier run asked for is not told to a later one: a pod of its own that does not run is deleted, an agent in a
    /// pod is not asked for any more.
    pub(super) fn placements_end(&mut self) {
        self.outside.retain(|outside| !matches!(outside, Outside::Place(..) | Outside::Placed(..) | Outside::Withdraw));
        let own = PodUid::from("own");
        if self.pods.1.pods.get(&own).is_some_and(|pod| pod.phase != PodPhase::Running) {
            self.pod_goes("own");
        }
        self.placer_gone();
    }

    /// What is not settled is looked for now, by who asked for it.
    pub(super) fn placer_gone(&mut self) {
        self.cluster.change(|cluster| cluster.unsettled.clear());
    }
}

fn agent(name: &str, port: u16) -> AgentContainer {
    AgentContainer {
        name: name.into(),
        image: "podway-agent:test".into(),
        port,
        authorized_key: KEY.into(),
        state: ContainerState::Running,
    }
}
