//! What connecting would change, from all that is known. Pure: it asks the cores that decide when a connection is made,
//! and carries out nothing of what they ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::actors::agent_placer::core as placer;
use crate::actors::agent_placer::core::{AgentPlacerCore, Place};
use crate::actors::client_list::core::{self as clients, ClientListCore, ViaFact};
use crate::actors::client_list::messages::{GeneralEgress, WaiterOutcome};
use crate::actors::pod_watcher::messages::WatchHealth;
use crate::actors::proxy_via::core::{self as via, ProxyViaConfig, ProxyViaCore};
use crate::actors::proxy_via::messages::{TranslationChanged, ViaState};
use crate::actors::session::core::report::range_line;
use crate::actors::session::core::{errors, needed, refusal_of, selection_of};
use crate::actors::shell::Core;
use crate::cluster::{ClusterInfo, PodSnapshot, Resolutions, Rights};
use crate::error::{Reason, UserError};
use crate::ids::{Generation, Millis, WaiterId};
use crate::net::route_plan::{HostFacts, RoutePlan};
use crate::net::views::Target;
use crate::net::vip::memory::VipMemory;
use crate::plan::{AgentAction, ConnectPlan, PlannedAgent, PlannedDevice, PlannedDns};
use crate::spec::{AgentMode, ConnectSpec, DnsMode, ViaRule};
use crate::status::WorkloadLine;
use crate::workload::Workload;

/// What is planned for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What is asked for, with the image that would be used.
    pub spec: ConnectSpec,
    /// URL of the API server.
    pub server: String,
    /// The device that would be made.
    pub device: String,
    /// Where virtual addresses come from.
    pub config: ProxyViaConfig,
}

/// What can have no agent, and why.
type Hopeless = BTreeMap<Target, Arc<str>>;

/// What is known so far.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The user's agents.
    pub agents: Option<placer::Plan>,
    /// Addresses of the API server, once it answered.
    pub api_server: Option<BTreeSet<IpAddr>>,
    /// The workloads of the rules.
    pub resolutions: Option<Resolutions>,
    /// Ranges of the cluster.
    pub info: Option<Arc<ClusterInfo>>,
    /// Pods.
    pub pods: Option<Arc<PodSnapshot>>,
    /// What the user may do.
    pub rights: Option<Arc<Rights>>,
    /// Whether the watches are fresh.
    pub watch: Option<WatchHealth>,
    /// The host's network.
    pub host: Option<Arc<HostFacts>>,
    /// How names would be attached: the back end, and what there is to say.
    pub dns: Option<(String, String)>,
    /// Why names cannot be attached as they are asked for, whatever is tried.
    pub dns_refused: Option<String>,
    /// Whether the device can be made, or why not.
    pub device: Option<Result<(), String>>,
    /// Virtual addresses of earlier connections.
    pub memory: Option<VipMemory>,
}

impl Facts {
    /// What is not known yet, in words.
    pub fn missing(&self, spec: &ConnectSpec) -> Vec<&'static str> {
        let interesting = || namespaces(spec);
        let rights = self.rights.as_ref().is_some_and(|rights| {
            interesting().iter().all(|namespace| rights.namespaces.contains_key(namespace.as_str()))
        });
        let known = [
            (self.agents.is_some() && self.memory.is_some(), "podwayd's own files"),
            (self.api_server.is_some(), "the API server's answer"),
            (spec.proxy_via.is_empty() || self.resolutions.is_some(), "the workloads of --proxy-via"),
            (self.info.as_ref().is_some_and(|info| info.complete), "the cluster's ranges"),
            (self.pods.is_some(), "the cluster's pods"),
            (rights, "your rights"),
            (self.host.is_some(), "this host's routes"),
            (self.device.is_some(), "this host's TUN driver"),
            (self.dns.is_some(), "this host's resolver"),
        ];
        known.into_iter().filter_map(|(known, what)| (!known).then_some(what)).collect()
    }

    /// Why no connection can be made, where that is known.
    fn refusal(&self, spec: &ConnectSpec) -> Option<UserError> {
        if let Some(error) =
            self.resolutions.as_ref().and_then(|resolutions| refusal_of(spec, resolutions, |_, _| false))
        {
            return Some(error);
        }
        if let Some(Err(why)) = &self.device {
            return Some(errors::device(why));
        }
        if let Some(why) = &self.dns_refused
            && !matches!(spec.dns, DnsMode::Auto | DnsMode::Off)
        {
            return Some(errors::dns(why));
        }
        match &self.watch {
            Some(WatchHealth::Unauthorized { why }) => Some(errors::unauthorized(why)),
            Some(WatchHealth::Starting | WatchHealth::Fresh | WatchHealth::Stale { .. }) | None => None,
        }
    }

    /// The plan or a refusal, once enough is known for either.
    pub fn outcome(&self, wanted: &Wanted) -> Option<Result<ConnectPlan, UserError>> {
        if let Some(error) = self.refusal(&wanted.spec) {
            return Some(Err(error));
        }
        // Without the right to see pods, what is there never becomes known.
        let blind = self.rights.as_ref().and_then(|rights| rights.namespaces.get(wanted.spec.namespace.as_str()));
        if let Some(rights) = blind.filter(|rights| !rights.watch_pods) {
            return Some(Err(errors::forbidden(*rights, &wanted.spec)));
        }
        self.missing(&wanted.spec).is_empty().then(|| self.plan(wanted)).flatten()
    }

    /// The refusal when the time is over.
    pub fn late(&self, wanted: &Wanted) -> UserError {
        let missing = self.missing(&wanted.spec).join(", ");
        let message = format!("connect {}: cannot be planned in time: not known: {missing}", wanted.spec.name);
        UserError::new(Reason::TimedOut, message, "give more time with --timeout")
    }

    fn plan(&self, wanted: &Wanted) -> Option<Result<ConnectPlan, UserError>> {
        let spec = &wanted.spec;
        let nothing = Resolutions::default();
        let selection = selection_of(spec, self.api_server.as_ref()?, self.resolutions.as_ref().unwrap_or(&nothing))?;
        if let Some(error) = errors::loopback(&via::loopback(&selection)) {
            return Some(Err(error));
        }
        let first = Generation(1);
        let mut core = ProxyViaCore::new(wanted.config.clone()).awaiting_memory();
        for input in [
            via::Input::Remember(self.memory.clone()?),
            via::Input::Select(selection.clone()),
            via::Input::Cluster(first, Arc::clone(self.info.as_ref()?)),
            via::Input::Host(first, Arc::clone(self.host.as_ref()?)),
        ] {
            core.handle(Millis(0), input);
        }
        let told = Told::by(&mut core);
        let (agents, hopeless) = self.agents(spec, &told.workloads)?;
        if let Some(error) = self.no_way(spec, &selection.rules, &told.workloads, hopeless) {
            return Some(Err(error));
        }
        Some(Ok(ConnectPlan {
            spec: spec.clone(),
            server: wanted.server.clone(),
            device: PlannedDevice {
                name: wanted.device.clone(),
                addresses: texts(told.routes.addresses.iter()),
                routes: texts(told.routes.routes.iter()),
            },
            ranges: told.state.ranges.iter().map(|range| range_line(range, &spec.allow_conflicting_subnets)).collect(),
            virtual_ranges: texts(told.state.virtual_ranges.iter()),
            dns: self.dns(told.translation.as_ref())?,
            agents,
            missing_rights: self.missing_rights(spec, &told.workloads),
        }))
    }

    fn dns(&self, translation: Option<&TranslationChanged>) -> Option<PlannedDns> {
        let (backend, message) = self.dns.clone()?;
        let servers = translation.map(|translation| texts(translation.dns_addresses.iter()));
        Some(PlannedDns { backend, servers: servers.unwrap_or_default(), message })
    }

    /// Why connecting would fail for want of an agent: what ClientList would tell whoever waits for one.
    fn no_way(
        &self,
        spec: &ConnectSpec,
        rules: &[ViaRule<Workload>],
        workloads: &ViaFact,
        hopeless: Hopeless,
    ) -> Option<UserError> {
        let (first, plan) = (Generation(1), self.agents.as_ref()?);
        let mut core = ClientListCore::new(&plan.key, &plan.fingerprint);
        let targets: BTreeMap<WaiterId, Target> = (0..).map(WaiterId).zip(needed(rules)).collect();
        for input in [
            clients::Input::Rights(first, Arc::clone(self.rights.as_ref()?)),
            clients::Input::Pods(first, Arc::clone(self.pods.as_ref()?)),
            clients::Input::Via(first, workloads.clone()),
            clients::Input::Hopeless(first, hopeless),
        ] {
            core.handle(Millis(0), input);
        }
        for (id, target) in &targets {
            let (id, target, deadline) = (*id, target.clone(), Millis(1));
            core.handle(Millis(0), clients::Input::Register { id, target, deadline });
        }
        // What it would dial or publish is not asked for here.
        std::iter::from_fn(|| core.poll_effect()).find_map(|effect| match effect {
            clients::Effect::Settle { id, outcome: WaiterOutcome::Hopeless { why } } => {
                Some(errors::target(targets.get(&id)?, &spec.namespace, &why))
            }
            clients::Effect::Settle { .. }
            | clients::Effect::Dial { .. }
            | clients::Effect::Abandon { .. }
            | clients::Effect::HangUp { .. }
            | clients::Effect::Publish(_)
            | clients::Effect::TellLinks(..)
            | clients::Effect::TellUnfit(..)
            | clients::Effect::HungUp(_) => None,
        })
    }

    /// The agents, and what would have none, with why.
    fn agents(&self, spec: &ConnectSpec, workloads: &ViaFact) -> Option<(Vec<PlannedAgent>, Hopeless)> {
        let first = Generation(1);
        let mut core = AgentPlacerCore::new(self.agents.clone()?);
        for input in [
            placer::Input::Rights(first, Arc::clone(self.rights.as_ref()?)),
            placer::Input::Pods(first, Arc::clone(self.pods.as_ref()?)),
            placer::Input::Via(first, workloads.clone()),
        ] {
            core.handle(Millis(0), input);
        }
        let agent = |workload: String, action| PlannedAgent {
            workload,
            action,
            pod: String::new(),
            placement: String::new(),
            image: String::new(),
            message: String::new(),
        };
        let placement = |own: bool| if own { "own pod" } else { "ephemeral container" }.to_owned();
        let mut planned: Vec<PlannedAgent> = Vec::new();
        let mut refused = BTreeMap::new();
        for (target, pod) in core.present() {
            let placement = placement(pod.own_pod_of.is_some());
            let pod = format!("{}/{}", pod.namespace, pod.name);
            planned.push(PlannedAgent { pod, placement, ..agent(title(&target), AgentAction::Use) });
        }
        while let Some(effect) = core.poll_effect() {
            match effect {
                placer::Effect::Place { place, pod, .. } => {
                    let (target, pod) = match (&place, pod) {
                        (Place::Pod(_), Some(pod)) => {
                            (Target::Workload(pod.workload.clone()), format!("{}/{}", pod.namespace, pod.name))
                        }
                        (Place::Pod(_) | Place::OwnJob | Place::OwnPod, _) => (Target::General, String::new()),
                    };
                    planned.push(PlannedAgent {
                        pod,
                        placement: placement(place.is_own()),
                        image: spec.agent_image.clone(),
                        ..agent(title(&target), AgentAction::Place)
                    });
                }
                placer::Effect::Tell(_, hopeless) => {
                    refused.clone_from(&hopeless);
                    for (target, why) in hopeless {
                        let message = why.to_string();
                        planned.push(PlannedAgent { message, ..agent(title(&target), AgentAction::Refused) });
                    }
                }
                placer::Effect::Remove(..)
                | placer::Effect::Withdraw
                | placer::Effect::Settle(_)
                | placer::Effect::Stopped(_) => {}
            }
        }
        let mut wanted: Vec<Target> = workloads.workloads.iter().cloned().map(Target::Workload).collect();
        wanted.extend((workloads.general == GeneralEgress::Wanted).then_some(Target::General));
        for name in wanted.iter().map(title) {
            if !planned.iter().any(|planned| planned.workload == name) {
                let message = "no pod runs; it attaches by itself when one does".to_owned();
                planned.push(PlannedAgent { message, ..agent(name, AgentAction::Wait) });
            }
        }
        planned.sort_by(|a, b| (&a.workload, a.action, &a.pod).cmp(&(&b.workload, b.action, &b.pod)));
        Some((planned, refused))
    }

    /// What the user may not do and would have to, in words.
    fn missing_rights(&self, spec: &ConnectSpec, workloads: &ViaFact) -> Vec<String> {
        let Some(rights) = &self.rights else { return Vec::new() };
        let via: BTreeSet<&str> = workloads.workloads.iter().map(|workload: &Workload| &*workload.namespace).collect();
        let own = workloads.general == GeneralEgress::Wanted;
        let mut missing = BTreeMap::new();
        for namespace in namespaces(spec) {
            let Some(rights) = rights.namespaces.get(namespace.as_str()) else { continue };
            let (via, own) = (via.contains(namespace.as_str()), own && namespace == spec.namespace);
            let needed = [
                (rights.watch_pods, via || own, "list and watch pods"),
                (rights.port_forward, via || own, "create pods/portforward"),
                (rights.ephemeral_containers, via && spec.agent != AgentMode::Pod, "patch pods/ephemeralcontainers"),
                (
                    rights.create_pods || rights.create_jobs,
                    own && spec.agent != AgentMode::Ephemeral,
                    "create jobs.batch or pods",
                ),
            ];
            let lacking = needed.into_iter().filter(|(has, needed, _)| *needed && !has).map(|(_, _, right)| right);
            missing.insert(namespace.clone(), lacking.collect::<Vec<_>>());
        }
        let lines = missing.iter().flat_map(|(namespace, rights)| {
            rights.iter().map(move |right| format!("{right} in namespace {namespace}"))
        });
        lines.collect()
    }
}

/// The connected namespace, and those that the rules name.
fn namespaces(spec: &ConnectSpec) -> BTreeSet<String> {
    let named = spec.proxy_via.iter().filter_map(|rule| rule.workload.namespace.as_deref());
    named.map(str::to_owned).chain([spec.namespace.clone()]).collect()
}

fn title(target: &Target) -> String {
    match target {
        Target::Workload(workload) => workload.to_string(),
        Target::General => WorkloadLine::GENERAL.to_owned(),
    }
}

fn texts<T: ToString>(all: impl Iterator<Item = T>) -> Vec<String> {
    all.map(|one| one.to_string()).collect()
}

/// What ProxyVia would tell, the last of each kind.
#[derive(Default)]
struct Told {
    routes: RoutePlan,
    workloads: ViaFact,
    state: ViaState,
    translation: Option<TranslationChanged>,
}

impl Told {
    fn by(core: &mut ProxyViaCore) -> Told {
        let mut told = Told::default();
        while let Some(effect) = core.poll_effect() {
            match effect {
                via::Effect::TellVif(changed) => told.routes = changed.plan,
                via::Effect::TellWorkloads(_, fact) => told.workloads = fact,
                via::Effect::TellSession(changed) => told.state = changed.state,
                via::Effect::TellDns(changed) => told.translation = Some(changed),
                via::Effect::Publish(_) | via::Effect::Answer(..) => {}
            }
        }
        told
    }
}

#[cfg(test)]
mod tests;
