//! What Control takes: all of it from its own tasks, each with a place in a bounded number of unacknowledged messages.

use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::actors::control::protocol::{Request, Response};
use crate::actors::daemon::messages::Caller;
use crate::actors::shell::told;

/// The accept loop → Control. Somebody connected; no byte of theirs was read.
#[derive(Debug)]
pub struct ConnectionOpened {
    /// The connection.
    pub stream: UnixStream,
    /// Who, by SO_PEERCRED.
    pub caller: Caller,
    /// Given back when Control took the message.
    pub place: OwnedSemaphorePermit,
}

/// A connection's task → Control. One request; answered on `responses`.
#[derive(Debug)]
pub struct RequestArrived {
    /// Who asks.
    pub caller: Caller,
    /// What.
    pub request: Request,
    /// Where responses go; bounded by the connection.
    pub responses: mpsc::Sender<Response>,
    /// Given back when the request is answered: bounds the requests of one connection.
    pub in_flight: OwnedSemaphorePermit,
    /// Given back when Control took the message.
    pub place: OwnedSemaphorePermit,
}

/// A connection's task → Control. It ended, however it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionClosed {
    /// Whose it was.
    pub uid: u32,
}

/// The accept loop → Control. Nothing more will be accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptEnded {
    /// Why; empty when Control asked for it.
    pub why: String,
}

told!(ConnectionOpened, RequestArrived, ConnectionClosed, AcceptEnded);
