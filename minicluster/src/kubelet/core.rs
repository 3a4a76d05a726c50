//! What a node's kubelet decides: networks and containers of its pods, their statuses, their end. No IO.
//!
//! ```text
//! pod seen ─▶ network made ─▶ containers started ─▶ ready
//!    going: SIGTERM ─▶ all ended, or grace over: SIGKILL ─▶ object deleted ─▶ network removed
//!    object gone, or its node: all removed at once
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::container::{Container, Next, Obstacle, Restart, State};
use super::launch::{Launch, Probe, launch, probe};
use super::status::{self, Facts};
use crate::controllers::wanted::Wanted;
use crate::controllers::world::World;
use crate::events::{Note, Severity};
use crate::net::Pair;
use crate::object::{self, list, number, says, text};
use crate::resource::{NODES, PODS};
use crate::strategy::Deletion;
use crate::time::Time;

/// UID of a pod.
pub type Uid = String;

/// A run of a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// The pod.
    pub uid: Uid,
    /// The container's name.
    pub container: String,
    /// The number of the run.
    pub attempt: u32,
}

/// What is asked of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A network for a pod.
    MakeNetwork {
        /// The pod.
        uid: Uid,
        /// Its addresses.
        addresses: Pair,
    },
    /// A container started; told by [`Fact::Started`], [`Fact::NotStarted`], later [`Fact::Ended`].
    Start {
        /// Which run.
        run: Run,
        /// What.
        launch: Box<Launch>,
        /// Whose: namespace, pod, node.
        names: [String; 3],
        /// Its addresses.
        addresses: Pair,
        /// What tells whether it serves.
        probe: Option<Probe>,
    },
    /// SIGTERM to a container.
    Terminate(Run),
    /// SIGKILL to a container.
    Kill(Run),
    /// The end of a pod's network, with nothing in it any more.
    Detach(Uid),
    /// The end of all of a pod, its network included. Later facts of it are ignored.
    Remove(Uid),
}

/// What happened on the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A pod's network is there.
    NetworkMade(Uid),
    /// It cannot be made.
    NetworkFailed(Uid, String),
    /// A container runs, and whether that is enough for it to serve.
    Started(Run, bool),
    /// It could not be started.
    NotStarted(Run, String),
    /// It ended, with that code.
    Ended(Run, i32),
    /// Its probe says whether it serves.
    Probed(Run, bool),
}

/// A pod's network.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Network {
    /// Asked for.
    Making(Pair),
    /// There.
    Made(Pair),
    /// It failed; tried again then.
    Failed(String, Time),
    /// Ended with the pod.
    Removed(Pair),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pod {
    network: Network,
    containers: BTreeMap<String, Container>,
    /// When what still runs of a going pod is killed.
    kill_at: Option<Time>,
}

/// A pause before a network is tried again.
const NETWORK_PAUSE: Duration = Duration::from_secs(1);

/// The kubelets of all nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Core {
    pods: BTreeMap<Uid, Pod>,
    /// The address given last, of each node's range.
    latest: BTreeMap<String, u32>,
}

/// What follows from a look.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// To do on the machine, in order.
    pub effects: Vec<Effect>,
    /// To write, and when to look again.
    pub wanted: Wanted,
}

impl Core {
    /// Takes a fact in. Look afterwards.
    pub fn learn(&mut self, fact: Fact, now: Time) {
        match fact {
            Fact::NetworkMade(uid) => {
                if let Some(Pod { network, .. }) = self.pods.get_mut(&uid)
                    && let Network::Making(addresses) = *network
                {
                    *network = Network::Made(addresses);
                }
            }
            Fact::NetworkFailed(uid, why) => {
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.network = Network::Failed(why, now.after(NETWORK_PAUSE));
                }
            }
            Fact::Started(run, ready) => self.with(&run, |container| container.started(ready, now)),
            Fact::NotStarted(run, why) => self.with(&run, |container| container.failed(why)),
            Fact::Ended(run, code) => self.with(&run, |container| container.ended(code, now)),
            Fact::Probed(run, ready) => self.with(&run, |container| container.probed(ready)),
        }
    }

    fn with(&mut self, run: &Run, change: impl FnOnce(&mut Container)) {
        let container = self.pods.get_mut(&run.uid).and_then(|pod| pod.containers.get_mut(&run.container));
        if let Some(container) = container.filter(|container| container.attempt == run.attempt) {
            change(container);
        }
    }

    /// Decides what follows from the objects and from what was learnt.
    pub fn look(&mut self, world: &World, now: Time) -> Outcome {
        let mut outcome = Outcome::default();
        let mut present = Vec::new();
        for pod in world.list(&PODS) {
            let Some(node) = world.get(&NODES, "", text(pod, "/spec/nodeName")) else { continue };
            present.push(object::uid(pod).to_owned());
            self.one(pod, node, now, &mut outcome);
        }
        let gone: Vec<Uid> = self.pods.keys().filter(|uid| !present.contains(uid)).cloned().collect();
        for uid in gone {
            self.pods.remove(&uid);
            outcome.effects.push(Effect::Remove(uid));
        }
        outcome
    }

    fn one(&mut self, pod: &Arc<Value>, node: &Value, now: Time, outcome: &mut Outcome) {
        let uid = object::uid(pod).to_owned();
        let host = node_addresses(node);
        let going = object::is_going(pod);
        if !self.pods.contains_key(&uid) {
            if going || ["Succeeded", "Failed"].contains(&text(pod, "/status/phase")) {
                // Nothing of it ever ran here.
                finish(pod, outcome);
                return;
            }
            let network = self.begin(pod, node, host, &mut outcome.effects);
            self.pods.insert(uid.clone(), Pod { network, containers: BTreeMap::new(), kill_at: None });
        }
        self.retry_network(&uid, pod, node, host, now, outcome);
        let Some(known) = self.pods.get_mut(&uid) else { return };
        if going {
            known.end(&uid, pod, now, outcome);
        } else {
            known.advance(&uid, pod, host, now, outcome);
        }
        let over = matches!(status::phase(pod, &known.containers), "Succeeded" | "Failed");
        let idle = !known.containers.values().any(Container::is_alive);
        if over
            && idle
            && let Network::Made(addresses) = known.network
        {
            known.network = Network::Removed(addresses);
            outcome.effects.push(Effect::Detach(uid));
        }
        let facts = Facts {
            node: host,
            addresses: known.network.addresses(),
            containers: &known.containers,
            network_failure: known.network.failure(),
        };
        outcome.wanted.change(pod, |pod| status::write(pod, facts, now));
        if going && idle {
            finish(pod, outcome);
        }
    }

    /// The network that a new pod gets.
    fn begin(&mut self, pod: &Value, node: &Value, host: Pair, effects: &mut Vec<Effect>) -> Network {
        if says(pod, "/spec/hostNetwork") {
            return Network::Made(host);
        }
        let uid = object::uid(pod).to_owned();
        match self.free(node) {
            Some(addresses) => {
                effects.push(Effect::MakeNetwork { uid, addresses });
                Network::Making(addresses)
            }
            None => Network::Failed("no address is free on the node".to_owned(), Time::default()),
        }
    }

    fn retry_network(&mut self, uid: &str, pod: &Value, node: &Value, host: Pair, now: Time, outcome: &mut Outcome) {
        let Some(Network::Failed(_, until)) = self.pods.get(uid).map(|pod| &pod.network) else { return };
        let until = *until;
        if until > now {
            outcome.wanted.again_at(until);
            return;
        }
        let mut network = self.begin(pod, node, host, &mut outcome.effects);
        if let Network::Failed(_, again) = &mut network {
            *again = now.after(NETWORK_PAUSE);
            outcome.wanted.again_at(*again);
        }
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.network = network;
        }
    }

    /// The next address of the node's range that no pod has: those just given up rest longest.
    fn free(&mut self, node: &Value) -> Option<Pair> {
        let (first, count) = pod_range(node)?;
        let used: Vec<Pair> = self.pods.values().filter_map(|pod| pod.network.taken()).collect();
        let latest = self.latest.entry(object::name(node).to_owned()).or_insert(FIRST_POD - 1);
        for _ in 0..count {
            *latest = if *latest + 2 < count { *latest + 1 } else { FIRST_POD };
            let pair = Pair {
                v4: (u32::from(first.v4) + *latest).into(),
                v6: (u128::from(first.v6) + u128::from(*latest)).into(),
            };
            if !used.contains(&pair) {
                return Some(pair);
            }
        }
        None
    }
}

/// The first address of a node's range that pods get: .1 is the router's.
const FIRST_POD: u32 = 2;

impl Network {
    /// Addresses that nobody else may have.
    fn taken(&self) -> Option<Pair> {
        match self {
            Network::Making(addresses) | Network::Made(addresses) => Some(*addresses),
            Network::Removed(_) | Network::Failed(..) => None,
        }
    }

    /// Addresses that the pod has, or had to its end.
    fn addresses(&self) -> Option<Pair> {
        match self {
            Network::Made(addresses) | Network::Removed(addresses) => Some(*addresses),
            Network::Making(_) | Network::Failed(..) => None,
        }
    }

    fn failure(&self) -> Option<&str> {
        match self {
            Network::Failed(why, _) => Some(why),
            Network::Making(_) | Network::Made(_) | Network::Removed(_) => None,
        }
    }
}

impl Pod {
    /// Brings containers nearer to running.
    fn advance(&mut self, uid: &str, pod: &Arc<Value>, host: Pair, now: Time, outcome: &mut Outcome) {
        let Network::Made(addresses) = self.network else { return };
        let restart = match text(pod, "/spec/restartPolicy") {
            "Never" => Restart::Never,
            "OnFailure" => Restart::OnFailure,
            _ => Restart::Always,
        };
        let over = matches!(status::phase(pod, &self.containers), "Succeeded" | "Failed");
        let regular = list(pod, "/spec/containers").iter().map(|spec| (spec, restart));
        let ephemeral = list(pod, "/spec/ephemeralContainers").iter().map(|spec| (spec, Restart::Never));
        for (spec, restart) in regular.chain(ephemeral) {
            let name = text(spec, "/name").to_owned();
            let container = self.containers.entry(name.clone()).or_default();
            if over {
                // What is left of a pod that ended.
                if container.is_alive() {
                    outcome.effects.push(Effect::Kill(run(uid, &name, container)));
                }
                continue;
            }
            let (launch, obstacle) = match launch(pod, spec, host, addresses) {
                Ok(launch) => (Some(launch), None),
                Err(obstacle) => (None, Some(obstacle)),
            };
            let before = container.state.clone();
            match container.advance(restart, obstacle.clone(), now) {
                Next::Nothing => {}
                Next::Again(at) => outcome.wanted.again_at(at),
                Next::Start => {
                    let Some(launch) = launch else { continue };
                    let names = [object::namespace(pod), object::name(pod), text(pod, "/spec/nodeName")];
                    outcome.effects.push(Effect::Start {
                        run: run(uid, &name, container),
                        launch: Box::new(launch),
                        names: names.map(ToOwned::to_owned),
                        addresses,
                        probe: probe(spec),
                    });
                }
            }
            tell(pod, spec, &before, container, obstacle, outcome);
        }
    }

    /// Brings a going pod nearer to its end.
    fn end(&mut self, uid: &str, pod: &Arc<Value>, now: Time, outcome: &mut Outcome) {
        let grace = number(pod, "/metadata/deletionGracePeriodSeconds").unwrap_or(0);
        let kill_at = now.after(Duration::from_secs(u64::try_from(grace).unwrap_or(0)));
        let kill_at = self.kill_at.map_or(kill_at, |earlier| earlier.min(kill_at));
        self.kill_at = Some(kill_at);
        for (name, container) in &mut self.containers {
            let run = run(uid, name, container);
            match &mut container.state {
                State::New | State::Waiting(..) => container.state = State::New,
                State::Running { .. } if kill_at <= now => outcome.effects.push(Effect::Kill(run)),
                State::Running { terminated, .. } => {
                    if !*terminated {
                        *terminated = true;
                        outcome.effects.push(Effect::Terminate(run));
                        let message = format!("Stopping container {name}");
                        outcome.wanted.note(Note::new(pod, "kubelet", Severity::Normal, "Killing", message));
                    }
                    outcome.wanted.again_at(kill_at);
                }
                // It is told that it runs soon, and is ended then.
                State::Starting | State::Ended(_) => {}
            }
        }
    }
}

fn run(uid: &str, container: &str, state: &Container) -> Run {
    Run { uid: uid.to_owned(), container: container.to_owned(), attempt: state.attempt }
}

/// Tells people what changed for a container.
fn tell(
    pod: &Value,
    spec: &Value,
    before: &State,
    container: &Container,
    obstacle: Option<Obstacle>,
    outcome: &mut Outcome,
) {
    if *before == container.state {
        return;
    }
    let mut note = |severity, reason, message: String| {
        outcome.wanted.note(Note::new(pod, "kubelet", severity, reason, message));
    };
    let (name, image) = (text(spec, "/name"), text(spec, "/image"));
    match (&container.state, obstacle) {
        (State::Starting, _) => {
            note(Severity::Normal, "Pulled", format!("Container image \"{image}\" already present on machine"));
            note(Severity::Normal, "Created", format!("Created container: {name}"));
            note(Severity::Normal, "Started", format!("Started container {name}"));
        }
        (State::Waiting(waiting, _), _) if waiting.reason == "ErrImagePull" => {
            note(Severity::Warning, "Failed", format!("Failed to pull image \"{image}\": {}", waiting.message));
        }
        (State::Waiting(waiting, _), _) if waiting.reason == "CrashLoopBackOff" => {
            note(Severity::Warning, "BackOff", format!("{} {name}", waiting.message));
        }
        (State::Waiting(waiting, _), Some(Obstacle::Config(_))) => {
            note(Severity::Warning, "Failed", format!("Error: {}", waiting.message));
        }
        _ => {}
    }
}

/// Deletes the object of a going pod of which nothing is left.
fn finish(pod: &Arc<Value>, outcome: &mut Outcome) {
    if object::is_going(pod) && number(pod, "/metadata/deletionGracePeriodSeconds") != Some(0) {
        outcome.wanted.delete_even_if_going(pod, Deletion { grace: Some(0), ..Deletion::default() });
    }
}

/// The node's own addresses.
pub fn node_addresses(node: &Value) -> Pair {
    let of = list(node, "/status/addresses").iter();
    let all: Vec<IpAddr> = of.filter_map(|address| text(address, "/address").parse().ok()).collect();
    let v4 = all.iter().find_map(|address| if let IpAddr::V4(v4) = address { Some(*v4) } else { None });
    let v6 = all.iter().find_map(|address| if let IpAddr::V6(v6) = address { Some(*v6) } else { None });
    Pair { v4: v4.unwrap_or(crate::net::NODE.v4), v6: v6.unwrap_or(crate::net::NODE.v6) }
}

/// The first address of each family of a node's range, and how many there are.
fn pod_range(node: &Value) -> Option<(Pair, u32)> {
    let ranges =
        list(node, "/spec/podCIDRs").iter().filter_map(Value::as_str).filter_map(|range| range.split_once('/'));
    let (mut v4, mut v6, mut count) = (None, None, u32::MAX);
    for (first, length) in ranges {
        let length: u32 = length.parse().ok()?;
        let bits = match first.parse().ok()? {
            IpAddr::V4(first) => {
                v4 = Some(first);
                32
            }
            IpAddr::V6(first) => {
                v6 = Some(first);
                128
            }
        };
        count = count.min(1_u32.checked_shl(u32::checked_sub(bits, length)?).unwrap_or(u32::MAX));
    }
    Some((Pair { v4: v4?, v6: v6? }, count))
}

#[cfg(test)]
mod tests;
