//! Facts about the cluster as podway keeps them: slim, whole, and comparable.
//!
//! Full Kubernetes objects cost some 70 KiB a pod; these cost about 1 KiB. They are what PodWatcher publishes and what
//! every core reads.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::net::cidr::Cidr;
use crate::workload::{PodUid, Workload, WorkloadRef};

/// Every watched pod, keyed by UID. What is absent is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodSnapshot {
    /// The pods.
    pub pods: BTreeMap<PodUid, Arc<PodFact>>,
    /// Namespaces whose pods are in this snapshot's sight; `None` stands for all namespaces.
    pub namespaces: Option<BTreeSet<Arc<str>>>,
}

/// What podway keeps of a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodFact {
    /// UID.
    pub uid: PodUid,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// The workload that owns it, found by owner references; the pod itself when nothing known does.
    pub workload: Workload,
    /// Its addresses (`status.podIPs`), empty before it has any.
    pub ips: Vec<IpAddr>,
    /// Whether it lives in the node's network.
    pub host_network: bool,
    /// `status.phase`.
    pub phase: PodPhase,
    /// Condition `Ready` is true.
    pub ready: bool,
    /// `metadata.deletionTimestamp` is set.
    pub terminating: bool,
    /// The agents of ours in it, ephemeral containers and our own pod's container alike.
    pub agents: Vec<AgentContainer>,
    /// Fingerprint of the key whose own pod this is (label `podway.dev/agent`), when it is one.
    pub own_pod_of: Option<Arc<str>>,
    /// UID of the Job that made it, where it is our own pod and one did.
    pub own_job: Option<Arc<str>>,
}

/// `status.phase` of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PodPhase {
    /// Accepted, not all containers run.
    Pending,
    /// Bound, containers run.
    Running,
    /// All containers ended well.
    Succeeded,
    /// All containers ended, one badly.
    Failed,
    /// The node does not answer.
    Unknown,
}

/// One container that runs `podway-agent`, as its arguments and status tell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AgentContainer {
    /// Container name: `podway-agent-<fingerprint>-<n>`, or `podway-agent` in our own pod.
    pub name: Arc<str>,
    /// The image reference asked for.
    pub image: Arc<str>,
    /// `--listen 127.0.0.1:PORT`, read back from the arguments.
    pub port: u16,
    /// `--authorized-key`, read back from the arguments, base64.
    pub authorized_key: Arc<str>,
    /// Where its life stands.
    pub state: ContainerState,
}

impl AgentContainer {
    /// Why it does not start, where the kubelet says that.
    pub fn obstacle(&self) -> Option<String> {
        match &self.state {
            ContainerState::Stuck { reason } => Some(format!("image {} does not start: {reason}", self.image)),
            ContainerState::Waiting | ContainerState::Running | ContainerState::Terminated => None,
        }
    }
}

/// A container's state, with the kubelet's reason where it is not running.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ContainerState {
    /// In the spec, without a status yet, or waiting without a bad reason.
    Waiting,
    /// Waiting for something that does not look like coming (`ErrImagePull`, `CreateContainerConfigError`, …).
    Stuck {
        /// The kubelet's reason and message.
        reason: Arc<str>,
    },
    /// Running.
    Running,
    /// Ended for good.
    Terminated,
}

/// Ranges and names of the cluster. Absent knowledge is an empty list.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClusterInfo {
    /// Service ranges: ServiceCIDR objects, else /32 and /128 of the watched Services.
    pub service_cidrs: BTreeSet<Cidr>,
    /// Pod ranges: `node.spec.podCIDRs`, else /32 and /128 of the watched pods.
    pub pod_cidrs: BTreeSet<Cidr>,
    /// Addresses of the cluster's DNS service; empty for users who may not watch Services where it lives
    /// (`kube-system`, `openshift-dns`).
    pub dns_ips: BTreeSet<IpAddr>,
    /// The cluster's domain, `cluster.local` unless the pods' resolv.conf says otherwise.
    pub domain: Arc<str>,
    /// Whether the first list of each watch that feeds this has completed. Before that, absence means nothing.
    pub complete: bool,
}

/// What Dns answers at once: Services, their endpoints, and pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterRecords {
    /// Services by (namespace, name).
    pub services: BTreeMap<(Arc<str>, Arc<str>), Arc<ServiceRecord>>,
    /// Pods by address, for PTR and for `pod` names.
    pub pods: BTreeMap<IpAddr, (Arc<str>, Arc<str>)>,
    /// Namespaces whose Services are wholly in sight; `None` stands for all namespaces.
    pub namespaces: Option<BTreeSet<Arc<str>>>,
    /// Names of the namespaces that are known to exist (for search domains and `name.ns`).
    pub known_namespaces: BTreeSet<Arc<str>>,
    /// Whether the first lists have completed. Before that, absence means nothing.
    pub complete: bool,
}

/// A Service, and what its EndpointSlices say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceRecord {
    /// `spec.clusterIPs` without `None`; empty for a headless service.
    pub cluster_ips: Vec<IpAddr>,
    /// Whether `clusterIP` is `None`.
    pub headless: bool,
    /// `spec.externalName`, for services of that type.
    pub external_name: Option<Arc<str>>,
    /// Ports of the service.
    pub ports: Vec<ServicePort>,
    /// Endpoints that DNS may answer (ready, or `publishNotReadyAddresses`).
    pub endpoints: Vec<EndpointRecord>,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Name, empty when unnamed.
    pub name: Arc<str>,
    /// `TCP`, `UDP` or `SCTP`, lower case.
    pub protocol: Arc<str>,
    /// Port.
    pub port: u16,
}

/// Name, protocol in lower case, and port of an EndpointSlice.
pub type EndpointPort = (Arc<str>, Arc<str>, u16);

/// One address of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointRecord {
    /// Address.
    pub ip: IpAddr,
    /// `hostname`, for names of StatefulSet pods.
    pub hostname: Option<Arc<str>>,
    /// Name of the pod it targets.
    pub pod: Option<Arc<str>>,
    /// Ports of the slice.
    pub ports: Arc<[EndpointPort]>,
}

/// What the user may do, as SelfSubjectAccessReviews told. `None` is "not known yet".
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rights {
    /// Per namespace of interest.
    pub namespaces: BTreeMap<Arc<str>, NamespaceRights>,
    /// What else may not be watched there, and is done without: resource and namespace.
    pub unseen: BTreeSet<(&'static str, Arc<str>)>,
}

/// Rights in one namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamespaceRights {
    /// list and watch pods.
    pub watch_pods: bool,
    /// get and create pods/portforward.
    pub port_forward: bool,
    /// patch pods/ephemeralcontainers.
    pub ephemeral_containers: bool,
    /// create pods.
    pub create_pods: bool,
    /// delete pods.
    pub delete_pods: bool,
    /// create jobs.batch.
    pub create_jobs: bool,
}

impl NamespaceRights {
    /// Nothing is missing.
    pub const ALL: NamespaceRights = NamespaceRights {
        watch_pods: true,
        port_forward: true,
        ephemeral_containers: true,
        create_pods: true,
        delete_pods: true,
        create_jobs: true,
    };

    /// Whether none is missing.
    pub fn all(self) -> bool {
        self == NamespaceRights::ALL
    }
}

/// What a workload's text turned out to be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resolution {
    /// Exactly one workload; `replicas` is what its spec asks for, where it says (0 means scaled to zero).
    Found {
        /// The workload.
        workload: Workload,
        /// `spec.replicas`.
        replicas: Option<u32>,
    },
    /// None of that name; `near` are what may be meant: one of that name in another namespace, as `namespace/kind/name`,
    /// and names that look like it, as `kind/name`, or with the namespace where the user gave one.
    NotFound {
        /// Near names, best first, at most 3.
        near: Vec<String>,
        /// The namespace does not exist.
        namespace_missing: bool,
    },
    /// Several kinds have that name.
    Ambiguous {
        /// All of them.
        candidates: Vec<Workload>,
    },
    /// The question was refused by the API server.
    Forbidden {
        /// What right is missing, as `verb resource in namespace`.
        missing: String,
    },
    /// The question could not be asked; says why.
    Failed {
        /// Cause.
        why: String,
    },
}

/// Answers for each reference asked.
pub type Resolutions = BTreeMap<WorkloadRef, Resolution>;
