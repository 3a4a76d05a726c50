//! What the watches observe, decoded: the words between the watch tasks and the core.

use std::net::IpAddr;
use std::sync::Arc;

use crate::cluster::{PodFact, ServiceRecord};
use crate::net::cidr::Cidr;

/// What is watched. Each kind has its own request to the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Pods.
    Pods,
    /// Services.
    Services,
    /// EndpointSlices.
    Slices,
    /// Nodes, for their pod ranges.
    Nodes,
    /// ServiceCIDRs.
    ServiceCidrs,
    /// Namespaces.
    Namespaces,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 6] =
        [Kind::Pods, Kind::Services, Kind::Slices, Kind::Nodes, Kind::ServiceCidrs, Kind::Namespaces];

    /// Whether objects of it live in a namespace, so that the watch can fall back to single namespaces.
    pub fn namespaced(self) -> bool {
        match self {
            Kind::Pods | Kind::Services | Kind::Slices => true,
            Kind::Nodes | Kind::ServiceCidrs | Kind::Namespaces => false,
        }
    }

    /// The resource's name in URLs and in messages to users.
    pub fn plural(self) -> &'static str {
        match self {
            Kind::Pods => "pods",
            Kind::Services => "services",
            Kind::Slices => "endpointslices",
            Kind::Nodes => "nodes",
            Kind::ServiceCidrs => "servicecidrs",
            Kind::Namespaces => "namespaces",
        }
    }

    /// The path of its API group.
    pub fn group_path(self) -> &'static str {
        match self {
            Kind::Pods | Kind::Services | Kind::Nodes | Kind::Namespaces => "/api/v1",
            Kind::Slices => "/apis/discovery.k8s.io/v1",
            Kind::ServiceCidrs => "/apis/networking.k8s.io/v1",
        }
    }
}

/// One watch: a kind, in all namespaces or in one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId {
    /// What.
    pub kind: Kind,
    /// Where; `None` is everywhere.
    pub namespace: Option<Arc<str>>,
}

impl std::fmt::Display for WatchId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} in {namespace}", self.kind.plural()),
            None => f.write_str(self.kind.plural()),
        }
    }
}

/// Namespace and name; the namespace is empty for what has none.
pub type Key = (Arc<str>, Arc<str>);

/// A decoded object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A pod.
    Pod(Arc<PodFact>),
    /// A Service, its endpoints left empty.
    Service(Arc<ServiceRecord>),
    /// An EndpointSlice.
    Slice(Arc<SliceFact>),
    /// The ranges of a Node or of a ServiceCIDR.
    Ranges(Arc<[Cidr]>),
    /// A namespace exists.
    Exists,
}

/// What podway keeps of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceFact {
    /// Label `kubernetes.io/service-name`.
    pub service: Arc<str>,
    /// (name, protocol in lower case, port).
    pub ports: Arc<[SlicePort]>,
    /// Its ready addresses.
    pub ready: Vec<SliceAddress>,
}

/// Name, protocol in lower case, port.
pub type SlicePort = (Arc<str>, Arc<str>, u16);

/// One ready address of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceAddress {
    /// Address.
    pub ip: IpAddr,
    /// Hostname, for pods of StatefulSets.
    pub hostname: Option<Arc<str>>,
    /// Name of the pod behind it.
    pub pod: Option<Arc<str>>,
}

/// What a watch saw. Between `Init` and `InitDone` comes everything that exists; what is absent there is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A list begins.
    Init,
    /// An object of the list.
    InitApply(Key, Fact),
    /// The list is whole.
    InitDone,
    /// An object appeared or changed.
    Apply(Key, Fact),
    /// An object is gone.
    Delete(Key),
    /// The API server took the watch up (again).
    Alive,
}

/// Why a watch is down.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// 403: the right is missing.
    Forbidden(String),
    /// 401: the credentials are not taken.
    Unauthorized(String),
    /// 404: the API server does not know the kind.
    Unknown(String),
    /// The API server cannot be reached, or anything else that may pass.
    Down(String),
}

impl Trouble {
    /// The cause in words.
    pub fn why(&self) -> &str {
        match self {
            Trouble::Forbidden(why) | Trouble::Unauthorized(why) | Trouble::Unknown(why) | Trouble::Down(why) => why,
        }
    }
}
