//! The relation to one traffic agent, whatever protocol it speaks.
//!
//! Nothing above this trait knows the dialect. A link is owned by ClientList; flows hold an `Arc` of it for as long as
//! they are opened through it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

pub mod native;

/// One link to one traffic agent.
#[async_trait::async_trait]
pub trait AgentLink: Send + Sync + fmt::Debug {
    /// Dials `to` over TCP from inside the pod. Returns when the far end has answered.
    ///
    /// Cancel safe: dropping the future resets the flow.
    async fn open_tcp(&self, to: SocketAddr, dial_timeout: Duration) -> Result<Box<dyn TcpFlow>, OpenError>;

    /// Opens a UDP association from inside the pod to `to`, which the agent keeps for so long without a datagram.
    async fn open_udp(&self, to: SocketAddr, idle: Duration) -> Result<Box<dyn UdpFlow>, OpenError>;

    /// Asks the pod's name servers one raw DNS message (RFC 1035) and returns the raw answer.
    async fn dns(&self, query: Bytes, timeout: Duration) -> Result<Bytes, OpenError>;

    /// Sends one ICMP echo (RFC 792, RFC 4443) from inside the pod and returns what came back, which is what was sent if the
    /// far side is truthful. [`OpenError::Forbidden`] where the pod may not.
    ///
    /// Cancel safe: the answer is then not heard.
    async fn echo(&self, to: IpAddr, sequence: u16, payload: Bytes, timeout: Duration) -> Result<Bytes, OpenError>;

    /// Whether the link still stands. Once false it stays false.
    fn is_alive(&self) -> bool;

    /// Ends the link, and resolves when the agent knows. Has no time limit of its own. Cancel safe: it ends anyway.
    async fn leave(&self) {}
}

/// Why a flow could not be opened: what the far side said, or that it could not be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum OpenError {
    /// Answered with a reset (ECONNREFUSED).
    #[error("connection refused")]
    Refused,
    /// No route to the host.
    #[error("host unreachable")]
    HostUnreachable,
    /// No route to the network.
    #[error("network unreachable")]
    NetUnreachable,
    /// No answer in time.
    #[error("timed out")]
    TimedOut,
    /// The agent does not dial that address.
    #[error("the agent may not dial this address")]
    Forbidden,
    /// The agent's limit of flows is reached.
    #[error("the agent's limit is reached")]
    Limit,
    /// The link ended; another one may work.
    #[error("the link to the agent was lost")]
    LinkLost,
}

/// What came from the far side of a TCP flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlowEvent {
    /// The next bytes, in order.
    Data(Bytes),
    /// The far side will send nothing more (half-close); sending to it is still possible.
    Fin,
    /// The flow is over at once, both directions.
    Reset,
}

/// One TCP flow through an agent, driven by one task by polling. Dropping it without both ends finished resets it.
pub trait TcpFlow: Send {
    /// Ready when at least one byte may be sent: how many are, now. `Err` when the flow is over.
    fn poll_send_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, FlowEnded>>;

    /// Sends bytes, at most as many as [`TcpFlow::poll_send_ready`] last said.
    fn send(&mut self, data: Bytes) -> Result<(), FlowEnded>;

    /// Half-closes our direction after everything sent so far.
    fn send_fin(&mut self);

    /// Ends both directions at once; the far end sees a reset.
    fn send_reset(&mut self);

    /// The next event from the far side. Taking `Data` gives the far side credit for as much again, so a caller that
    /// does not poll holds the sender back. `Pending` for ever after `Reset`.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<FlowEvent>;

    /// Takes in what has come and waits below the flow, without giving credit for it. To be called where
    /// [`TcpFlow::poll_event`] is not because nothing can be done with an event: what waits is then kept in as much
    /// memory as it has bytes, and the task is woken when more comes.
    fn poll_arrivals(&mut self, _: &mut Context<'_>) {}

    /// Whether nothing moves because the link was lost, until there is another to the same agent.
    fn stands_still(&self) -> bool {
        false
    }
}

/// The flow is over; nothing can be sent on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the flow has ended")]
pub struct FlowEnded;

/// One UDP association through an agent.
pub trait UdpFlow: Send {
    /// Sends one datagram; drops it when the way is congested, as a network does, and is then false.
    fn send(&mut self, datagram: Bytes) -> bool;

    /// The next datagram from the far side, or why none comes any more.
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, UdpEnded>>;
}

/// Why an association is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UdpEnded {
    /// The far side said that nobody listens there.
    #[error("the far side refused a datagram")]
    Refused,
    /// Nothing that the far side said: long silence, or the link's loss. Another may be opened.
    #[error("the association is over")]
    Over,
}
