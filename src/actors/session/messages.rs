//! What Session takes.

use crate::actors::shell::{Exit, Reply, told};
use crate::spec::ClusterAccess;

/// The children of a session, in the order in which they start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Child {
    /// PodWatcher.
    PodWatcher,
    /// ClientList.
    ClientList,
    /// AgentPlacer.
    AgentPlacer,
    /// ProxyVia.
    ProxyVia,
    /// Vif.
    Vif,
    /// Dns.
    Dns,
}

/// Daemon → Session. Tear down; idempotent, answered when teardown ended.
#[derive(Debug)]
pub struct Disconnect {
    /// Whether our own pod goes too.
    pub clean: bool,
    /// What is left of it.
    pub reply: Reply<Remains>,
}

/// What is left of a connection that was ended, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// What could not be undone, with the cause; empty when nothing.
    pub left: Vec<String>,
    /// What became of its agents in the cluster, a sentence each.
    pub agents: Vec<String>,
}

/// Daemon → Session. Fresh credentials for the same server.
#[derive(Debug)]
pub struct CredentialsRenewed {
    /// The access.
    pub access: ClusterAccess,
}

/// Monitor → Session. A child ended.
#[derive(Clone, Debug)]
pub struct ChildExited {
    /// Which.
    pub child: Child,
    /// How.
    pub exit: Exit,
}

told!(Disconnect, CredentialsRenewed, ChildExited);
