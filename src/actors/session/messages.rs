//! What Session takes.

use tokio::sync::{oneshot, watch};

use super::core::renewal::Ask;
use crate::actors::shell::{Exit, Reply, told};
use crate::ids::AskId;
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
    /// The question that they answer; none where nobody asked.
    pub ask: Option<AskId>,
    /// Answered when they are taken up, dropped where they are not.
    pub taken: Reply<()>,
}

/// Daemon → Session. A keeper could not do what it was asked. Of another question than the last it means nothing.
#[derive(Debug)]
pub struct CredentialsForgone {
    /// The question.
    pub ask: AskId,
    /// Why, for people.
    pub why: String,
}

/// Daemon → Session. A keeper of credentials came; it takes the place of the one before, which is told so.
#[derive(Debug)]
pub struct KeeperCame {
    /// Where it is asked. Its end is the end of the connection.
    pub asking: watch::Sender<Asking>,
    /// Ends when the keeper goes.
    pub gone: oneshot::Receiver<()>,
}

/// What a keeper is told: the latest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asking {
    /// Wait.
    #[default]
    Nothing,
    /// Credentials are wanted.
    Wanted(Ask),
    /// Another keeper took its place.
    Replaced,
}

/// Monitor → Session. A child ended.
#[derive(Clone, Debug)]
pub struct ChildExited {
    /// Which.
    pub child: Child,
    /// How.
    pub exit: Exit,
}

told!(Disconnect, CredentialsRenewed, CredentialsForgone, KeeperCame, ChildExited);
