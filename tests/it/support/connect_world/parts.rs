//! The words of the world: who there is, what they send, what is under way, what can happen.

use std::rc::Rc;
use std::sync::Arc;

use podway::actors::agent_placer::core::{self as placer, Place};
use podway::actors::client_list::core as clients;
use podway::actors::daemon::core as daemon;
use podway::actors::dns::core::{self as dns, QuestionId};
use podway::actors::pod_watcher::core as watcher;
use podway::actors::pod_watcher::facts::WatchId;
use podway::actors::proxy_via::core as via;
use podway::actors::session::core::{self as session, TeardownStep};
use podway::actors::vif::core as vif;
use podway::cluster::PodFact;
use podway::ids::{Attempt, Generation};
use podway::net::route_plan::HostFacts;
use podway::workload::PodUid;

/// Who sends and receives. The last two only send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Session,
    ClientList,
    AgentPlacer,
    ProxyVia,
    Vif,
    PodWatcher,
    Dns,
    Daemon,
    Host,
    Cluster,
}

/// What one part sends another.
#[derive(Clone, Debug)]
pub(super) enum Letter {
    Session(session::Input),
    Clients(clients::Input),
    Placer(placer::Input),
    Via(via::Input),
    Vif(vif::Input),
    Watcher(watcher::Input),
    Dns(dns::Input),
    Daemon(daemon::Input),
    /// Ends the actor.
    Stop,
}

/// What is under way outside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outside {
    /// The API client is being built.
    Client,
    /// The API server is asked for the namespace.
    Reach,
    /// PodWatcher looks the workloads up.
    Resolve,
    /// A list, and the watch that follows it.
    List(WatchId, Attempt),
    /// Rights are asked for.
    Rights(Arc<str>, Attempt),
    /// PodWatcher's next timer.
    WatcherWakes,
    /// A dial.
    Dial(PodUid, Attempt),
    /// A placement that the API server has not seen, with its container and port.
    Place(Place, Attempt, String, u16),
    /// A placement whose answer is on its way.
    Placed(Place, Attempt),
    /// Our own pod is being deleted.
    Withdraw,
    /// The device is being made.
    Open,
    /// Routes are being changed.
    Apply(Generation),
    /// Flows are being ended.
    StopFlows,
    /// The device is being removed.
    CloseDevice,
    /// A name server is asked.
    Upstream(QuestionId),
    /// The host's resolver is being attached.
    Attach(Attempt),
    /// The host's resolver is being given back.
    Detach(Attempt),
    /// The word that a teardown step is done.
    StepDone(TeardownStep),
}

/// Kinds of [`Outside`] that a scenario lets wait, or never end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Waits {
    Start,
    Watch,
    /// Rights, and PodWatcher's timers.
    Gather,
    Dial,
    Place,
    Device,
    Routes,
    Names,
    /// Flows, and the device.
    Undo,
    Teardown,
}

impl Outside {
    pub(super) fn kind(&self) -> Waits {
        match self {
            Outside::Client | Outside::Reach | Outside::Resolve => Waits::Start,
            Outside::List(..) => Waits::Watch,
            Outside::Rights(..) | Outside::WatcherWakes => Waits::Gather,
            Outside::Dial(..) => Waits::Dial,
            Outside::Place(..) | Outside::Placed(..) | Outside::Withdraw => Waits::Place,
            Outside::Open => Waits::Device,
            Outside::Apply(_) => Waits::Routes,
            Outside::Upstream(_) | Outside::Attach(_) | Outside::Detach(_) => Waits::Names,
            Outside::StopFlows | Outside::CloseDevice => Waits::Undo,
            Outside::StepDone(_) => Waits::Teardown,
        }
    }
}

/// What somebody outside does.
#[derive(Clone, Debug)]
pub enum Event {
    /// The user connects.
    Connect,
    /// The user disconnects.
    Disconnect,
    /// The daemon is asked to end.
    Quit,
    /// A pod appears, or changes.
    PodIs(Box<PodFact>),
    /// A pod is gone.
    PodGoes(&'static str),
    /// The agent's container in a pod ends, and another one listens on another port.
    AgentRestarts(&'static str),
    /// The watch of the pods ends; it lists again after a while.
    WatchEnds,
    /// The ranges of the cluster become known.
    RangesAreKnown,
    /// The host's network is this now.
    HostIs(Box<HostFacts>),
    /// A program asks for the address of `web`.
    Asks,
    /// A program opens a flow to the virtual address that it was given.
    FlowBegins,
    /// All flows end.
    FlowsEnd,
    /// A flow to `web` finds no link.
    FlowWaits,
    /// A carrier is lost, the first of those there are.
    CarrierLost,
    /// There are fresh credentials: links, watches go on, rights are asked for again.
    CredentialsChange,
    /// Something changes the host's resolver.
    ResolverChanges,
    /// An actor panics.
    Panics(Part),
    /// The whole daemon dies, and is started again.
    Crash,
    /// A message on an edge comes once more, late.
    Again(Part, Part),
    /// The process stood still for so many milliseconds; what is due since comes at once.
    TimeLeaps(u64),
}

/// One thing that can happen.
#[derive(Clone, Debug)]
pub enum Step {
    Deliver(Part, Part),
    Ends(Outside),
    Fails(Outside),
    /// A sender says its next.
    Says(&'static str, Rc<str>),
    PodAppears,
    DnsAsks,
    UserDisconnects,
    TimePassesFor(Part),
}

/// What must come of `connect` where nobody disconnects and no deadline comes early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    Ready,
    Degraded,
    ReadyOrDegraded,
    TimedOut,
    /// It depends on the order; what is there is connected in the end all the same.
    Any,
}

/// A kind of misfortune that a scenario opens for an actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dimension {
    /// What it asks for outside fails.
    Failure,
    /// It panics.
    Panic,
    /// What it waits for never comes.
    Never,
    /// Its timer comes early.
    Deadline,
    /// The process dies.
    Crash,
    /// It is told twice.
    Repeated,
}
