//! The error that a user sees: what, why, what to do; and a stable reason for scripts.

use serde::{Deserialize, Serialize};

/// A failure in the user's words: printed as `error: MESSAGE` and `hint: HINT`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct UserError {
    /// Stable, CamelCase.
    pub reason: Reason,
    /// `WHAT: CAUSE`.
    pub message: String,
    /// What to do next; empty when nothing can be said.
    #[serde(default)]
    pub hint: String,
}

impl UserError {
    /// An error from a sentence that ends with what to do, behind its last semicolon; `hint` where it says nothing of that.
    pub fn of_sentence(reason: Reason, sentence: &str, hint: &str) -> UserError {
        let (message, hint) = sentence.rsplit_once("; ").unwrap_or((sentence, hint));
        UserError::new(reason, message, hint)
    }

    /// An error with a hint.
    pub fn new(reason: Reason, message: impl Into<String>, hint: impl Into<String>) -> UserError {
        UserError { reason, message: message.into(), hint: hint.into() }
    }
}

/// An error with its causes in one line, none said twice.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    text
}

/// Stable reasons. Additive only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// The request is malformed or contradicts itself.
    BadRequest,
    /// The protocol versions do not meet.
    UnsupportedVersion,
    /// A limit of the control socket was reached.
    LimitReached,
    /// No daemon at the socket, or no right to talk to it.
    DaemonUnreachable,
    /// No such connection.
    NotConnected,
    /// A connection of that name exists and differs.
    AlreadyConnected,
    /// The connection belongs to another user.
    NotOwner,
    /// The API server cannot be reached.
    ClusterUnreachable,
    /// The API server does not take the credentials.
    Unauthorized,
    /// A right is missing.
    Forbidden,
    /// The namespace does not exist.
    NamespaceNotFound,
    /// The workload does not exist.
    WorkloadNotFound,
    /// Several workloads have that name.
    WorkloadAmbiguous,
    /// No agent can be placed.
    AgentNotPlaced,
    /// The device cannot be made.
    DeviceFailed,
    /// Names cannot be attached.
    DnsFailed,
    /// The daemon's own files cannot be read or written.
    StateFailed,
    /// The kubeconfig cannot be used.
    KubeconfigInvalid,
    /// The time was over.
    TimedOut,
    /// The demo cannot run, or did not show what it should.
    DemoFailed,
    /// Withdrawn.
    Cancelled,
    /// A bug of podway's.
    Internal,
}
