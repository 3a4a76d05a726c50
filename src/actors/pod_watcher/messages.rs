//! What PodWatcher takes, and the facts it tells.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::actors::shell::{Reply, told};
use crate::cluster::{ClusterInfo, ClusterRecords, PodSnapshot, Resolutions, Rights};
use crate::ids::Generation;
use crate::workload::WorkloadRef;

/// Session → PodWatcher. Start watching; sent once. All namespaces if the rights allow, else these.
#[derive(Debug)]
pub struct Watch {
    /// The connected namespace and those of the via workloads.
    pub namespaces: BTreeSet<Arc<str>>,
}

/// Session → PodWatcher. Which workloads do these references name? Answered once, as soon as the API server has told,
/// however often it has to be asked; a stopped PodWatcher drops the reply.
#[derive(Debug)]
pub struct ResolveWorkloads {
    /// Namespace of references that name none.
    pub default_namespace: Arc<str>,
    /// The references.
    pub references: BTreeSet<WorkloadRef>,
    /// One resolution for each reference, or fewer where one of them names no workload.
    pub reply: Reply<Resolutions>,
}

/// PodWatcher → ClientList, AgentPlacer. Fact: every pod in sight. Twice is harmless, an older generation is dropped.
#[derive(Clone, Debug)]
pub struct PodsChanged {
    /// Version.
    pub generation: Generation,
    /// The pods.
    pub pods: Arc<PodSnapshot>,
}

/// PodWatcher → ProxyVia, Dns, Session. Fact: ranges and names of the cluster.
#[derive(Clone, Debug)]
pub struct ClusterInfoChanged {
    /// Version.
    pub generation: Generation,
    /// The facts.
    pub info: Arc<ClusterInfo>,
}

/// PodWatcher → Dns. Fact: Services, endpoints and pods by address.
#[derive(Clone, Debug)]
pub struct RecordsChanged {
    /// Version.
    pub generation: Generation,
    /// The records.
    pub records: Arc<ClusterRecords>,
}

/// PodWatcher → Session, ClientList, AgentPlacer. Fact: what the user may do.
#[derive(Clone, Debug)]
pub struct RightsChanged {
    /// Version.
    pub generation: Generation,
    /// The rights.
    pub rights: Arc<Rights>,
}

/// PodWatcher → Session. Fact: whether the watches are fresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchHealthChanged {
    /// Version.
    pub generation: Generation,
    /// State of the watches as a whole.
    pub health: WatchHealth,
}

/// State of the watches as a whole. What is known stays in use whatever it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WatchHealth {
    /// First lists are still coming.
    Starting,
    /// Every watch that matters is up.
    Fresh,
    /// At least one is down and being retried; says which and why.
    Stale {
        /// `pods: connection refused`.
        why: String,
    },
    /// The credentials are refused (401): needs login.
    Unauthorized {
        /// The API server's words.
        why: String,
    },
}

told!(Watch, ResolveWorkloads, PodsChanged, ClusterInfoChanged, RecordsChanged, RightsChanged, WatchHealthChanged);

/// Session → PodWatcher. Credentials were renewed: watch with this client from now on. Twice is harmless; what is known
/// stays in use.
pub struct UseClient {
    /// The new client.
    pub client: kube::Client,
}

/// ClientList → PodWatcher. The API server refused the credentials of a dial (401). A watch that goes on says nothing of
/// that, and may go on for long: one is made anew.
#[derive(Debug)]
pub struct Doubt;

told!(UseClient, Doubt);
