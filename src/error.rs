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

    /// As it is shown: each part in one line, and a next step where the error names none.
    pub fn shown(&self) -> UserError {
        let hint = if self.hint.is_empty() { self.reason.next_step() } else { &self.hint };
        UserError { reason: self.reason, message: one_line(&self.message), hint: one_line(hint) }
    }

    /// An error with a hint.
    pub fn new(reason: Reason, message: impl Into<String>, hint: impl Into<String>) -> UserError {
        UserError { reason, message: message.into(), hint: hint.into() }
    }
}

/// A text of another program in one line.
pub fn one_line(text: &str) -> String {
    text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
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
    /// podway's own configuration cannot be used.
    ConfigInvalid,
    /// The time was over.
    TimedOut,
    /// The demo cannot run, or did not show what it should.
    DemoFailed,
    /// Withdrawn.
    Cancelled,
    /// Not all could be removed.
    LeftBehind,
    /// A bug of podway's.
    Internal,
}

impl Reason {
    /// What helps where nothing closer to the cause is known.
    fn next_step(self) -> &'static str {
        match self {
            Reason::BadRequest => "podway --help shows what it takes",
            Reason::UnsupportedVersion => "install the same version of podway and podwayd, then restart the daemon",
            Reason::LimitReached => "podway status shows what is there; podway disconnect ends what is not needed",
            Reason::DaemonUnreachable => "start the daemon: sudo systemctl start podwayd, or by hand: sudo podwayd",
            Reason::NotConnected | Reason::Cancelled => "podway connect makes a connection",
            Reason::AlreadyConnected => "podway disconnect first, or choose another --name",
            Reason::NotOwner => "its owner or root may do that",
            Reason::ClusterUnreachable => "see whether kubectl reaches the cluster from here",
            Reason::Unauthorized => "renew the credentials of your kubeconfig, then podway connect again",
            Reason::Forbidden => "podway rbac prints the rights that are needed",
            Reason::NamespaceNotFound => "kubectl get namespaces lists those there are",
            Reason::WorkloadNotFound | Reason::WorkloadAmbiguous => "name it as namespace/kind/name",
            Reason::LeftBehind => "podway rbac prints the rights that removing takes",
            Reason::AgentNotPlaced | Reason::DnsFailed => "podway status tells more",
            Reason::DeviceFailed => "podway logs tells more",
            Reason::StateFailed => "see that podwayd may write to its state directory; podway logs tells more",
            Reason::KubeconfigInvalid => "kubectl config view shows what your kubeconfig says",
            Reason::ConfigInvalid => "config/podway.toml of podway's sources shows every setting",
            Reason::TimedOut => "podway status shows what is missing",
            Reason::DemoFailed => "run it again; if it stays, please report it with the output of podway version",
            Reason::Internal => "please report it with the output of podway version and podway logs",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_one_line_each_and_never_without_a_next_step() {
        let error = UserError::new(Reason::Cancelled, "connect demo:\n  withdrawn\n", "");
        let shown = error.shown();
        assert_eq!(shown.message, "connect demo:; withdrawn");
        assert_eq!(shown.hint, "podway connect makes a connection");
        assert_eq!(UserError::new(Reason::Internal, "a", "b").shown().hint, "b");
    }
}
