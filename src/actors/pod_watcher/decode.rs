//! Slim readings of Kubernetes objects: only the fields that podway keeps are ever in memory.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;

use super::facts::{Fact, Key, Kind, SliceAddress, SliceFact};
use super::kubelet;
use crate::cluster::{AgentContainer, ContainerState, PodFact, PodPhase, ServicePort, ServiceRecord};
use crate::net::cidr::Cidr;
use crate::workload::{PodUid, Workload, WorkloadKind};

/// What names of our containers begin with.
const AGENT: &str = "podway-agent";
/// Waiting reasons of a container that is on its way.
const ON_THE_WAY: [&str; 3] = ["", "ContainerCreating", "PodInitializing"];

/// Names that come again and again, kept once.
#[derive(Debug, Default)]
pub struct Names(BTreeSet<Arc<str>>);

impl Names {
    /// The one copy of `name`.
    fn get(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        let new: Arc<str> = name.into();
        self.0.insert(Arc::clone(&new));
        new
    }

    /// Forgets names that nothing else uses.
    pub fn shrink(&mut self) {
        self.0.retain(|name| Arc::strong_count(name) > 1);
    }
}

/// An object of any watched kind, with the fields of all of them.
#[derive(Clone, Debug, Deserialize)]
pub struct Object {
    /// Its metadata.
    #[serde(default)]
    pub metadata: Meta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
    // EndpointSlices have no spec.
    #[serde(default)]
    endpoints: Option<Vec<Endpoint>>,
    #[serde(default)]
    ports: Option<Vec<Port>>,
}

/// The metadata that podway reads.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    name: String,
    namespace: String,
    uid: String,
    /// Where a watch goes on.
    pub resource_version: String,
    deletion_timestamp: Option<String>,
    labels: Labels,
    owner_references: Vec<Owner>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Labels {
    #[serde(rename = "podway.dev/agent")]
    own_pod: Option<String>,
    #[serde(rename = "pod-template-hash")]
    template_hash: Option<String>,
    #[serde(rename = "kubernetes.io/service-name")]
    service: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Owner {
    kind: String,
    name: String,
    uid: String,
    controller: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    host_network: bool,
    containers: Vec<Container>,
    ephemeral_containers: Vec<Container>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Vec<String>,
    external_name: Option<String>,
    #[serde(rename = "type")]
    service_type: Option<String>,
    ports: Vec<Port>,
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
    cidrs: Vec<String>,
    replicas: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Container {
    name: String,
    image: String,
    args: Vec<String>,
    command: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<PodIp>,
    conditions: Vec<Condition>,
    container_statuses: Vec<ContainerStatus>,
    ephemeral_container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodIp {
    ip: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    name: String,
    status: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerStatus {
    name: String,
    state: State,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct State {
    running: Option<Detail>,
    waiting: Option<Detail>,
    terminated: Option<Detail>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Detail {
    reason: String,
    message: String,
    #[serde(rename = "exitCode")]
    exit_code: i32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Port {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<u16>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Endpoint {
    addresses: Vec<String>,
    conditions: Option<EndpointConditions>,
    hostname: Option<String>,
    target_ref: Option<Target>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct EndpointConditions {
    ready: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Target {
    kind: String,
    name: String,
}

impl Object {
    /// Key and fact together: a pod's key shares the fact's strings. `None` for what podway keeps nothing of.
    pub fn entry(&self, kind: Kind, names: &mut Names) -> (Key, Option<Fact>) {
        match self.fact(kind, names) {
            Some(Fact::Pod(pod)) => ((Arc::clone(&pod.namespace), Arc::clone(&pod.name)), Some(Fact::Pod(pod))),
            fact => (self.key(names), fact),
        }
    }

    /// Namespace and name.
    pub fn key(&self, names: &mut Names) -> Key {
        (names.get(&self.metadata.namespace), self.metadata.name.as_str().into())
    }

    /// What podway keeps of it; `None` for a slice that belongs to no service.
    pub fn fact(&self, kind: Kind, names: &mut Names) -> Option<Fact> {
        Some(match kind {
            Kind::Pods => Fact::Pod(Arc::new(self.pod(names))),
            Kind::Services => Fact::Service(Arc::new(self.service())),
            Kind::Slices => Fact::Slice(Arc::new(self.slice(names)?)),
            Kind::Nodes => Fact::Ranges(ranges(self.spec.pod_cidrs.iter().chain(&self.spec.pod_cidr))),
            Kind::ServiceCidrs => Fact::Ranges(ranges(self.spec.cidrs.iter())),
            Kind::Namespaces => Fact::Exists,
        })
    }

    /// The pod's fact.
    pub fn pod(&self, names: &mut Names) -> PodFact {
        let (meta, spec, status) = (&self.metadata, &self.spec, &self.status);
        let mut ips: Vec<IpAddr> = status.pod_ips.iter().filter_map(|ip| ip.ip.parse().ok()).collect();
        if ips.is_empty() {
            ips.extend(status.pod_ip.iter().filter_map(|ip| ip.parse::<IpAddr>().ok()));
        }
        ips.shrink_to_fit();
        let agents = agents(&spec.ephemeral_containers, &status.ephemeral_container_statuses)
            .chain(agents(&spec.containers, &status.container_statuses))
            .collect();
        let namespace = names.get(&meta.namespace);
        let name: Arc<str> = meta.name.as_str().into();
        PodFact {
            uid: PodUid(meta.uid.as_str().into()),
            workload: self.workload(&namespace, &name, names),
            namespace,
            name,
            ips,
            host_network: spec.host_network,
            phase: phase(status.phase.as_deref()),
            ready: status.conditions.iter().any(|c| c.name == "Ready" && c.status == "True"),
            terminating: meta.deletion_timestamp.is_some(),
            agents,
            own_pod_of: meta.labels.own_pod.as_deref().map(|key| names.get(key)),
            own_job: meta.labels.own_pod.is_some().then(|| self.job()).flatten(),
        }
    }

    /// The workload that an object of this kind stands for: a pod or ReplicaSet with an owner is its owner's.
    pub fn identity(&self, kind: WorkloadKind, names: &mut Names) -> Workload {
        let namespace = names.get(&self.metadata.namespace);
        match kind {
            WorkloadKind::Pod => self.workload(&namespace, &self.metadata.name.as_str().into(), names),
            WorkloadKind::Deployment
            | WorkloadKind::ReplicaSet
            | WorkloadKind::StatefulSet
            | WorkloadKind::DaemonSet
            | WorkloadKind::Job => {
                let owners = self.metadata.owner_references.iter();
                let mut owner =
                    owners.filter(|o| o.controller && kind == WorkloadKind::ReplicaSet && o.kind == "Deployment");
                match owner.next() {
                    Some(owner) => Workload { namespace, kind: WorkloadKind::Deployment, name: names.get(&owner.name) },
                    None => Workload { namespace, kind, name: names.get(&self.metadata.name) },
                }
            }
        }
    }

    /// `spec.replicas`.
    pub fn replicas(&self) -> Option<u32> {
        self.spec.replicas
    }

    /// UID of the Job that controls it.
    fn job(&self) -> Option<Arc<str>> {
        let mut owners = self.metadata.owner_references.iter();
        let job = owners.find(|owner| owner.controller && WorkloadKind::parse(&owner.kind) == Some(WorkloadKind::Job));
        job.map(|job| job.uid.as_str().into())
    }

    /// The workload that the pod belongs to, by its controller.
    fn workload(&self, namespace: &Arc<str>, name: &Arc<str>, names: &mut Names) -> Workload {
        let meta = &self.metadata;
        let of = |kind, name| Workload { namespace: Arc::clone(namespace), kind, name };
        let known = meta.owner_references.iter().filter(|owner| owner.controller).find_map(|owner| {
            let kind = WorkloadKind::parse(&owner.kind).filter(|kind| *kind != WorkloadKind::Pod)?;
            let hash = meta.labels.template_hash.as_deref().filter(|_| kind == WorkloadKind::ReplicaSet);
            let deployment = hash.and_then(|hash| owner.name.strip_suffix(hash)?.strip_suffix('-'));
            Some(match deployment.filter(|name| !name.is_empty()) {
                Some(name) => of(WorkloadKind::Deployment, names.get(name)),
                None => of(kind, names.get(&owner.name)),
            })
        });
        known.unwrap_or_else(|| of(WorkloadKind::Pod, Arc::clone(name)))
    }

    fn service(&self) -> ServiceRecord {
        let spec = &self.spec;
        let all = if spec.cluster_ips.is_empty() {
            spec.cluster_ip.iter().collect::<Vec<_>>()
        } else {
            spec.cluster_ips.iter().collect()
        };
        let external = spec.service_type.as_deref() == Some("ExternalName");
        let ports = spec.ports.iter().filter_map(|port| {
            Some(ServicePort {
                name: port.name.as_deref().unwrap_or_default().into(),
                protocol: protocol(port),
                port: port.port?,
            })
        });
        ServiceRecord {
            cluster_ips: all.iter().filter_map(|ip| ip.parse().ok()).collect(),
            headless: all.iter().any(|ip| *ip == "None"),
            external_name: spec.external_name.as_deref().filter(|_| external).map(Into::into),
            ports: ports.collect(),
            endpoints: Vec::new(),
        }
    }

    fn slice(&self, names: &mut Names) -> Option<SliceFact> {
        let service = names.get(self.metadata.labels.service.as_deref()?);
        let ports =
            self.ports.iter().flatten().filter_map(|port| {
                Some((names.get(port.name.as_deref().unwrap_or_default()), protocol(port), port.port?))
            });
        let ports = ports.collect();
        // Absent means ready (discovery/v1); a service that publishes unready addresses has them marked ready.
        let ready = |e: &&Endpoint| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
        let ready = self.endpoints.iter().flatten().filter(ready).flat_map(|endpoint| {
            let hostname: Option<Arc<str>> = endpoint.hostname.as_deref().map(Into::into);
            let target = endpoint.target_ref.as_ref().filter(|target| target.kind == "Pod");
            let pod: Option<Arc<str>> = target.map(|target| target.name.as_str().into());
            let ips = endpoint.addresses.iter().filter_map(|ip| ip.parse().ok());
            ips.map(move |ip| SliceAddress { ip, hostname: hostname.clone(), pod: pod.clone() })
        });
        Some(SliceFact { service, ports, ready: ready.collect() })
    }
}

fn protocol(port: &Port) -> Arc<str> {
    port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase().into()
}

fn ranges<'a>(texts: impl Iterator<Item = &'a String>) -> Arc<[Cidr]> {
    texts
        .filter_map(|text| text.parse::<Cidr>().ok())
        .map(|range| range.trunc())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

fn phase(text: Option<&str>) -> PodPhase {
    match text {
        Some("Running") => PodPhase::Running,
        Some("Succeeded") => PodPhase::Succeeded,
        Some("Failed") => PodPhase::Failed,
        Some("Unknown") => PodPhase::Unknown,
        Some(_) | None => PodPhase::Pending,
    }
}

fn agents<'a>(
    containers: &'a [Container],
    statuses: &'a [ContainerStatus],
) -> impl Iterator<Item = AgentContainer> + 'a {
    containers.iter().filter(|container| container.name.starts_with(AGENT)).filter_map(|container| {
        let words = || container.command.iter().chain(&container.args).map(String::as_str);
        let status = statuses.iter().find(|status| status.name == container.name);
        Some(AgentContainer {
            name: container.name.as_str().into(),
            image: container.image.as_str().into(),
            port: flag(words(), "--listen")?.rsplit_once(':')?.1.parse().ok()?,
            authorized_key: flag(words(), "--authorized-key")?.into(),
            state: status.map_or(ContainerState::Waiting, |status| state(&status.state)),
        })
    })
}

/// The value of `--flag value` or `--flag=value`.
fn flag<'a>(mut words: impl Iterator<Item = &'a str>, name: &str) -> Option<&'a str> {
    while let Some(word) = words.next() {
        if word == name {
            return words.next();
        }
        if let Some(value) = word.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
            return Some(value);
        }
    }
    None
}

fn state(state: &State) -> ContainerState {
    match (&state.running, &state.terminated, &state.waiting) {
        (Some(_), _, _) => ContainerState::Running,
        (None, Some(detail), _) => match never_ran(detail) {
            Some(reason) => ContainerState::Stuck { reason: reason.into() },
            None => ContainerState::Terminated,
        },
        (None, None, Some(detail)) if !ON_THE_WAY.contains(&detail.reason.as_str()) => {
            ContainerState::Stuck { reason: kubelet::reason(&detail.reason, &detail.message).into() }
        }
        (None, None, Some(_) | None) => ContainerState::Waiting,
    }
}

/// How containerd calls the end of a container that it found gone when it started (CRI plugin, `unknownExitReason`).
const LOST: &str = "Unknown";

/// Why a container that has ended never ran its program: the runtime's own exit codes, none of which an agent ends with.
/// 1 or 255, by its version, is all that runc leaves in the status of a program for another architecture (the container's log
/// says "exec format error"). 255 is also what a runtime tells, with a reason of its own, of what it lost sight of, as over
/// a reboot of the node.
fn never_ran(detail: &Detail) -> Option<String> {
    match detail.exit_code {
        code @ (1 | 255) if detail.reason != LOST => {
            Some(format!("exit code {code}, as of a program for another architecture than the node's"))
        }
        125..=128 => {
            let why = kubelet::reason(&detail.reason, &detail.message);
            Some(format!("exit code {}: {why}", detail.exit_code))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
