//! What ClientList takes, and what it tells.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::actors::shell::told;
use crate::ids::{Generation, Millis, WaiterId};
use crate::net::cidr::Cidr;
use crate::net::views::Target;
use crate::workload::{PodUid, Workload};

/// ProxyVia → ClientList, AgentPlacer. Fact: which workloads must carry traffic, and whether a default egress must.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViaWorkloadsChanged {
    /// Version.
    pub generation: Generation,
    /// Workloads kept busy while selected.
    pub workloads: BTreeSet<Workload>,
    /// Whether any routed range has no via workload.
    pub general: GeneralEgress,
    /// Prefixes (pod loopback and the like) that a workload's agent shall be allowed to dial for this session.
    pub special: BTreeMap<Workload, BTreeSet<Cidr>>,
}

/// Whether a default egress is needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum GeneralEgress {
    /// Every range has a via workload.
    #[default]
    NotNeeded,
    /// Some traffic goes through no workload of its own.
    Wanted,
}

/// Session → ClientList. Settled exactly once with [`WaiterSettled`]; at once when already true.
#[derive(Debug)]
pub struct RegisterWaiter {
    /// Chosen by the registrant, unique in the session.
    pub id: WaiterId,
    /// What to wait for.
    pub target: Target,
    /// When to give up.
    pub deadline: Millis,
    /// Who is told.
    pub to: actix::Recipient<WaiterSettled>,
}

/// Registrant → ClientList. Idempotent; an unsettled waiter settles as [`WaiterOutcome::Cancelled`].
#[derive(Clone, Copy, Debug)]
pub struct CancelWaiter {
    /// Which.
    pub id: WaiterId,
}

/// ClientList → the registrant. Exactly one for each waiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaiterSettled {
    /// Which.
    pub id: WaiterId,
    /// How.
    pub outcome: WaiterOutcome,
}

/// How a wait ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WaiterOutcome {
    /// A link to the target works: its first call was answered. Carries the handle by which the table knows it.
    Ready {
        /// The pod of the link.
        pod: PodUid,
    },
    /// The deadline passed.
    TimedOut,
    /// Withdrawn, or the session ended.
    Cancelled,
    /// It cannot become true.
    Hopeless {
        /// Why.
        why: Arc<str>,
    },
}

/// AgentPlacer → ClientList. Fact, whole: for which targets no agent can be had, and why. Withdrawn by absence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacementHopeless {
    /// Version.
    pub generation: Generation,
    /// Target to reason.
    pub hopeless: BTreeMap<Target, Arc<str>>,
}

/// Why an agent will never do, as it said when it was dialled; in words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    /// It speaks no protocol of ours: nor does any other of its image.
    Protocol(Arc<str>),
    /// It takes another key, whatever its image.
    Key(Arc<str>),
}

impl Unfit {
    /// The words.
    pub fn why(&self) -> &Arc<str> {
        match self {
            Unfit::Protocol(why) | Unfit::Key(why) => why,
        }
    }
}

/// Agents that will not do, by pod and container.
pub type UnfitAgents = BTreeMap<(PodUid, Arc<str>), Unfit>;

/// ClientList → AgentPlacer. Fact, whole: which agents run and will not do. Withdrawn by absence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentsUnfit {
    /// Version.
    pub generation: Generation,
    /// The agents.
    pub agents: UnfitAgents,
}

/// Data plane → ClientList. Flows to this target wait for a link; rate-limited per target by the sender.
#[derive(Clone, Debug)]
pub struct FlowsBlocked {
    /// The target.
    pub target: Target,
}

/// ClientList → Session. Fact: state of every link and target, for status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinksChanged {
    /// Version.
    pub generation: Generation,
    /// Per wanted target.
    pub targets: BTreeMap<Target, TargetState>,
}

/// Where a wanted target stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TargetState {
    /// Pods of the target that are not ended.
    pub pods: usize,
    /// Of these, those that run and are not ending.
    pub running: usize,
    /// Its links.
    pub links: Vec<LinkStatus>,
    /// Why there can be none, if so. Agents of via workloads may serve the default egress all the same.
    pub hopeless: Option<Arc<str>>,
}

/// One link, for people.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkStatus {
    /// UID of the pod.
    pub pod: PodUid,
    /// `namespace/name` of the pod.
    pub pod_name: Arc<str>,
    /// Placement of its agent.
    pub placement: Placement,
    /// Image of the agent that was dialled; empty where none was.
    pub image: Arc<str>,
    /// What the agent says its version is; empty before it was reached, and where it says none.
    pub version: Arc<str>,
    /// State.
    pub state: LinkState,
}

/// Where the agent of a link lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Placement {
    /// An ephemeral container of the workload's pod.
    Ephemeral,
    /// A pod of ours.
    OwnPod,
}

/// State of one link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkState {
    /// The pod has no running agent yet.
    NoAgent,
    /// An agent of ours was added to the pod and does not run yet.
    Starting {
        /// Its image.
        image: Arc<str>,
    },
    /// Being dialled for the first time.
    Dialing,
    /// Works.
    Ready,
    /// Works for the flows it has; takes no new ones (the pod is terminating).
    Draining,
    /// The last dial failed, or the link was lost: it is dialled again.
    Lost {
        /// Why.
        why: Arc<str>,
        /// Whether that is being done now.
        dialing: bool,
    },
    /// The kubelet says that the agent does not start, or the agent that it will not do.
    Failed {
        /// Why.
        why: Arc<str>,
    },
}

told!(
    ViaWorkloadsChanged,
    RegisterWaiter,
    CancelWaiter,
    WaiterSettled,
    PlacementHopeless,
    AgentsUnfit,
    FlowsBlocked,
    LinksChanged
);
