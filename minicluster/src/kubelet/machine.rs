//! What the kubelets have on the machine: networks and processes of pods.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};

use super::agent::Agent;
use super::core::{Effect, Fact, Run, Uid};
use super::launch::{Image, Launch, Probe};
use super::probe;
use crate::control::{Signal, Target};
use crate::net::{NetNs, NodeNet, Pair, PodNet};
use crate::pod_server::{self, Bind, Identity, Log, Process};
use crate::sandbox::Program;

/// Networks of pods by each of their addresses.
pub type Networks = BTreeMap<IpAddr, PodNet>;

/// All of it.
#[derive(Debug)]
pub struct Machine {
    node: NodeNet,
    agent: Program,
    tell: mpsc::Sender<Fact>,
    pods: Mutex<BTreeMap<Uid, Pod>>,
    networks: watch::Sender<Arc<Networks>>,
}

/// A pod; in the node's network if it has none.
#[derive(Debug, Default)]
struct Pod {
    network: Option<PodNet>,
    containers: BTreeMap<String, Container>,
}

#[derive(Debug)]
struct Container {
    attempt: u32,
    image: Image,
    log: Log,
    process: Option<Handle>,
}

/// A process of either kind.
#[derive(Clone, Debug)]
enum Handle {
    Thread(Process),
    Agent(Agent),
}

impl Handle {
    fn signal(&self, signal: Signal) {
        match (self, signal) {
            (Handle::Thread(process), Signal::Kill) => process.kill(),
            (Handle::Thread(process), Signal::Terminate) => process.terminate(),
            (Handle::Thread(process), Signal::Stop) => process.stop(),
            (Handle::Thread(process), Signal::Continue) => process.go_on(),
            (Handle::Agent(agent), signal) => agent.signal(signal),
        }
    }
}

impl Machine {
    /// With nothing on it.
    pub fn new(node: NodeNet, agent: Program, tell: mpsc::Sender<Fact>) -> Machine {
        let (networks, _) = watch::channel(Arc::default());
        Machine { node, agent, tell, pods: Mutex::default(), networks }
    }

    /// The node's network.
    pub fn node(&self) -> &NodeNet {
        &self.node
    }

    /// The networks of pods, as they are.
    pub fn networks(&self) -> watch::Receiver<Arc<Networks>> {
        self.networks.subscribe()
    }

    fn pods(&self) -> MutexGuard<'_, BTreeMap<Uid, Pod>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to do it; what comes of it is told. Needs a runtime around it.
    pub fn apply(self: &Arc<Self>, effect: Effect) {
        match effect {
            Effect::MakeNetwork { uid, addresses } => {
                self.pods().insert(uid.clone(), Pod::default());
                let machine = Arc::clone(self);
                tokio::spawn(async move { machine.make_network(uid, addresses).await });
            }
            Effect::Start { run, launch, names, addresses, probe } => {
                let machine = Arc::clone(self);
                tokio::spawn(async move { machine.start(run, launch, names, addresses, probe).await });
            }
            Effect::Terminate(run) => self.signal_run(&run, Signal::Terminate),
            Effect::Kill(run) => self.signal_run(&run, Signal::Kill),
            Effect::Detach(uid) => self.detach(&uid),
            Effect::Remove(uid) => self.remove(&uid),
        }
    }

    async fn make_network(&self, uid: Uid, addresses: Pair) {
        let made = async {
            let namespace = tokio::task::spawn_blocking(NetNs::create).await.map_err(io::Error::other)??;
            self.node.attach(namespace, addresses).await
        };
        let fact = match made.await {
            Ok(network) => {
                // The pod may be gone meanwhile.
                if !self.attach(&uid, &network) {
                    self.node.detach(&network).await.ok();
                    return;
                }
                Fact::NetworkMade(uid)
            }
            Err(error) => Fact::NetworkFailed(uid, error.to_string()),
        };
        self.tell(fact).await;
    }

    fn attach(&self, uid: &str, network: &PodNet) -> bool {
        let mut pods = self.pods();
        let Some(pod) = pods.get_mut(uid) else { return false };
        pod.network = Some(network.clone());
        self.publish(&pods);
        true
    }

    fn publish(&self, pods: &BTreeMap<Uid, Pod>) {
        let networks = pods.values().filter_map(|pod| pod.network.as_ref());
        let by_address = networks.flat_map(|network| {
            let Pair { v4, v6 } = network.addresses;
            [(v4.into(), network.clone()), (v6.into(), network.clone())]
        });
        self.networks.send_replace(Arc::new(by_address.collect()));
    }

    async fn tell(&self, fact: Fact) {
        // Nobody listens when all of it ends.
        self.tell.send(fact).await.ok();
    }

    async fn start(
        self: Arc<Self>,
        run: Run,
        launch: Box<Launch>,
        [namespace, pod, node]: [String; 3],
        addresses: Pair,
        probe: Option<Probe>,
    ) {
        let log = Log::default();
        let place = {
            let mut pods = self.pods();
            let entry = if launch.host_network {
                Some(pods.entry(run.uid.clone()).or_default())
            } else {
                pods.get_mut(&run.uid)
            };
            let Some(entry) = entry else { return };
            let container = Container { attempt: run.attempt, image: launch.image, log: log.clone(), process: None };
            entry.containers.insert(run.container.clone(), container);
            entry.network.as_ref().map_or_else(|| self.node.namespace().clone(), |network| network.namespace.clone())
        };
        let begun = match launch.image {
            Image::Sample => {
                let bind = if launch.host_network {
                    Bind::Only(vec![addresses.v4.into(), addresses.v6.into()])
                } else {
                    Bind::All
                };
                let identity = Identity { pod, namespace, node, bind, resolver: launch.resolver.clone() };
                sample(&run, &launch, identity, &place, log)
            }
            // As runc does it: the container was started, its program cannot be, and the status says no more than the code.
            Image::Foreign => {
                log.line(format_args!("exec /podway-agent: exec format error"));
                let identity = Identity { pod, namespace, node, bind: Bind::All, resolver: launch.resolver.clone() };
                let launch = Launch { args: vec!["exit".to_owned(), "1".to_owned()], ..*launch.clone() };
                sample(&run, &launch, identity, &place, log)
            }
            Image::Agent => Agent::start(&self.agent, &launch, &pod, &place, log)
                .map(|(agent, ended)| (Handle::Agent(agent), None, ended)),
        };
        let (handle, serves, mut ended) = match begun {
            Ok(begun) => begun,
            Err(error) => return self.tell(Fact::NotStarted(run, error.to_string())).await,
        };
        if !self.keep(&run, &handle) {
            return handle.signal(Signal::Kill);
        }
        let serves = async {
            if let Some(serves) = serves {
                // An error says that it ended before.
                drop(serves.await);
            }
        };
        let code = tokio::select! {
            biased;
            code = &mut ended => Some(code),
            () = serves => None,
        };
        if code.is_none() {
            self.tell(Fact::Started(run.clone(), probe.is_none())).await;
        }
        let code = match (code, probe) {
            (Some(code), _) => code,
            (None, None) => ended.await,
            (None, Some(probe)) => {
                let told = |ready| self.tell(Fact::Probed(run.clone(), ready));
                tokio::select! {
                    biased;
                    code = ended => code,
                    never = probe::repeat(addresses.v4.into(), &probe, told) => match never {},
                }
            }
        };
        self.forget(&run);
        self.tell(Fact::Ended(run, code.unwrap_or(1))).await;
    }

    /// Notes the process of a run, unless its pod is gone.
    fn keep(&self, run: &Run, handle: &Handle) -> bool {
        let mut pods = self.pods();
        let container = pods.get_mut(&run.uid).and_then(|pod| pod.containers.get_mut(&run.container));
        match container.filter(|container| container.attempt == run.attempt) {
            Some(container) => {
                container.process = Some(handle.clone());
                true
            }
            None => false,
        }
    }

    fn forget(&self, run: &Run) {
        let mut pods = self.pods();
        let container = pods.get_mut(&run.uid).and_then(|pod| pod.containers.get_mut(&run.container));
        if let Some(container) = container.filter(|container| container.attempt == run.attempt) {
            container.process = None;
        }
    }

    fn signal_run(&self, run: &Run, signal: Signal) {
        let pods = self.pods();
        let container = pods.get(&run.uid).and_then(|pod| pod.containers.get(&run.container));
        if let Some(process) =
            container.filter(|container| container.attempt == run.attempt).and_then(|c| c.process.as_ref())
        {
            process.signal(signal);
        }
    }

    fn detach(&self, uid: &str) {
        let mut pods = self.pods();
        let Some(network) = pods.get_mut(uid).and_then(|pod| pod.network.take()) else { return };
        self.publish(&pods);
        self.end_network(network);
    }

    fn remove(&self, uid: &str) {
        let mut pods = self.pods();
        let Some(pod) = pods.remove(uid) else { return };
        self.publish(&pods);
        self.end_pod(pod);
    }

    fn end_pod(&self, pod: Pod) {
        for process in pod.containers.into_values().filter_map(|container| container.process) {
            process.signal(Signal::Kill);
        }
        if let Some(network) = pod.network {
            self.end_network(network);
        }
    }

    fn end_network(&self, network: PodNet) {
        // Without a runtime all ends, and it with the namespace.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let node = self.node.clone();
            runtime.spawn(async move { node.detach(&network).await });
        }
    }

    /// Ends all pods.
    pub fn end(&self) {
        let all = std::mem::take(&mut *self.pods());
        all.into_values().for_each(|pod| self.end_pod(pod));
    }

    /// Sends a signal to processes of a pod. An error says that there are none.
    pub fn signal(&self, uid: &str, target: Target, signal: Signal) -> io::Result<()> {
        let pods = self.pods();
        let pod = pods.get(uid).ok_or_else(not_here)?;
        let meant = pod.containers.values().filter(|container| match target {
            Target::Containers => container.image != Image::Agent,
            Target::Agent => container.image == Image::Agent,
        });
        let processes = meant.filter_map(|container| container.process.as_ref());
        match processes.map(|process| process.signal(signal)).count() {
            0 => Err(io::Error::new(io::ErrorKind::NotFound, "no such process runs in the pod")),
            _ => Ok(()),
        }
    }

    /// The network namespace of a pod.
    pub fn namespace(&self, uid: &str) -> io::Result<NetNs> {
        let pods = self.pods();
        let pod = pods.get(uid).ok_or_else(not_here)?;
        Ok(pod.network.as_ref().map_or_else(|| self.node.namespace().clone(), |network| network.namespace.clone()))
    }

    /// What a container wrote.
    pub fn log(&self, uid: &str, container: &str) -> io::Result<Vec<u8>> {
        let pods = self.pods();
        let container = pods.get(uid).and_then(|pod| pod.containers.get(container));
        let container =
            container.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the container was not started"))?;
        Ok(container.log.read())
    }
}

fn not_here() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the pod runs on no node")
}

type Begun = (Handle, Option<tokio::sync::oneshot::Receiver<()>>, tokio::sync::oneshot::Receiver<i32>);

/// Starts a container of the sample image.
fn sample(run: &Run, launch: &Launch, identity: Identity, place: &NetNs, log: Log) -> io::Result<Begun> {
    let words: Vec<String> = launch.args.clone();
    let (process, serves, ended) = Process::start(&run.container, place, move |started| async move {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            [] | ["serve"] => match pod_server::serve(identity, log.clone(), started).await {
                Ok(()) => 0,
                Err(error) => {
                    log.line(format_args!("error: {error}"));
                    1
                }
            },
            ["sleep", ..] => {
                started.tell();
                std::future::pending().await
            }
            ["exit", code] => {
                started.tell();
                code.parse().unwrap_or(2)
            }
            _ => {
                log.line(format_args!("usage: serve | sleep | exit CODE"));
                2
            }
        }
    })?;
    Ok((Handle::Thread(process), Some(serves), ended))
}
