//! What Daemon takes.

use std::sync::Arc;

use tokio::sync::watch;

use crate::actors::session::messages::{KeeperCame, Remains};
use crate::actors::shell::{Exit, Reply, told};
use crate::error::{Reason, UserError};
use crate::ids::AskId;
use crate::plan::ConnectPlan;
use crate::spec::{ClusterAccess, ConnectSpec};
use crate::status::SessionStatus;

/// Who speaks on the control socket, by SO_PEERCRED.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Process.
    pub pid: Option<i32>,
}

/// A connection as others see it: its name and its published status (latest wins).
#[derive(Clone, Debug)]
pub struct SessionView {
    /// Name.
    pub name: Arc<str>,
    /// Whose.
    pub owner_uid: u32,
    /// Status; the sender's end is gone when the session is.
    pub status: watch::Receiver<Arc<SessionStatus>>,
}

/// A connection that was asked for.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The connection.
    pub view: SessionView,
    /// Whether it was there before.
    pub existed: bool,
}

/// Control → Daemon. Make a connection, or find the equal one that exists.
#[derive(Debug)]
pub struct OpenSession {
    /// Who asks.
    pub caller: Caller,
    /// What.
    pub spec: ConnectSpec,
    /// How to reach the cluster.
    pub access: ClusterAccess,
    /// The accepted connection, whose status tells the rest; or a refusal.
    pub reply: Reply<Result<Opened, UserError>>,
}

/// Control → Daemon. Say what making this connection would change, and change nothing.
#[derive(Debug)]
pub struct PlanSession {
    /// Who asks.
    pub caller: Caller,
    /// What.
    pub spec: ConnectSpec,
    /// How to reach the cluster.
    pub access: ClusterAccess,
    /// The plan, or why there could be no such connection.
    pub reply: Reply<Result<Box<ConnectPlan>, UserError>>,
}

/// Control → Daemon. End a connection, or withdraw one that waits for the end of another. Answered when teardown ended.
#[derive(Debug)]
pub struct CloseSession {
    /// Who asks.
    pub caller: Caller,
    /// Which; `None` when the caller has only one.
    pub name: Option<String>,
    /// Whether our own pod goes too.
    pub clean: bool,
    /// Name of what ended and what was left behind.
    pub reply: Reply<Result<Closed, UserError>>,
}

/// A connection that was ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Name.
    pub name: String,
    /// What is left of it.
    pub remains: Remains,
}

/// Control → Daemon. The connections that the caller may see (its own; all for root), those that wait to be made too.
#[derive(Debug)]
pub struct ListSessions {
    /// Who asks.
    pub caller: Caller,
    /// The connections by name.
    pub reply: Reply<Vec<SessionView>>,
}

/// Control → Daemon. Fresh credentials for a connection.
#[derive(Debug)]
pub struct RenewCredentials {
    /// Who asks.
    pub caller: Caller,
    /// Which connection.
    pub name: String,
    /// The access.
    pub access: ClusterAccess,
    /// The question of the connection that they answer; none where nobody asked.
    pub ask: Option<AskId>,
    /// Done, or a refusal.
    pub reply: Reply<Result<(), UserError>>,
}

/// Control → Daemon. A keeper could not do what a connection asked of it.
#[derive(Debug)]
pub struct ForgoCredentials {
    /// Who tells.
    pub caller: Caller,
    /// Which connection.
    pub name: String,
    /// The question.
    pub ask: AskId,
    /// Why, for people.
    pub why: String,
    /// Heard, or a refusal.
    pub reply: Reply<Result<(), UserError>>,
}

/// Control → Daemon. Somebody keeps the credentials of a connection, and is asked for them from now on.
#[derive(Debug)]
pub struct KeepCredentials {
    /// Who.
    pub caller: Caller,
    /// Which connection.
    pub name: String,
    /// The keeper.
    pub keeper: KeeperCame,
    /// It is one, or a refusal.
    pub reply: Reply<Result<(), UserError>>,
}

/// Signals → Daemon. End every connection, then the process.
#[derive(Debug)]
pub struct Shutdown {
    /// Answered when all is gone.
    pub reply: Reply<()>,
}

/// Session or monitor → Daemon. A session's actor ended.
#[derive(Clone, Debug)]
pub struct SessionEnded {
    /// Name.
    pub name: Arc<str>,
    /// How.
    pub exit: Exit,
}

/// The refusal of a request for a connection that there is none of; `others`: whether the caller has some.
pub fn not_found(name: Option<&str>, others: bool) -> UserError {
    let message = name.map_or_else(|| "not connected".to_owned(), |name| format!("connection {name}: not found"));
    let hint = if others { "podway status shows those there are" } else { "podway connect makes a connection" };
    UserError::new(Reason::NotConnected, message, hint)
}

told!(
    OpenSession,
    PlanSession,
    CloseSession,
    ListSessions,
    RenewCredentials,
    ForgoCredentials,
    KeepCredentials,
    Shutdown,
    SessionEnded,
);
