//! Finding the far side of a flow: which link, and what to do while there is none.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use crate::net::agent::{AgentLink, OpenError, TcpFlow, UdpFlow};
use crate::net::data_plane::Plane;
use crate::net::views::{ClientTable, LinkEntry, Target};

/// How long a flow waits for its far side, the wait for a link included. A program's own connect time is longer.
pub(crate) const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an echo request waits for its answer: longer than any way that is of use.
const ECHO_TIMEOUT: Duration = Duration::from_secs(4);

type Opening<T> = Pin<Box<dyn Future<Output = Result<Box<T>, OpenError>> + Send>>;

/// Where a flow goes.
#[derive(Clone, Debug)]
pub(crate) struct Via {
    pub to: SocketAddr,
    pub target: Target,
}

/// Dials over TCP. Cancel safe: dropping it resets what was opened.
pub(crate) async fn open_tcp(plane: &Plane, via: &Via) -> Result<Box<dyn TcpFlow>, OpenError> {
    let dial = |link: Arc<dyn AgentLink>, to, left| -> Opening<dyn TcpFlow> {
        Box::pin(async move { link.open_tcp(to, left).await })
    };
    open(plane, via, dial).await
}

/// Opens a UDP association that may be silent for so long. Cancel safe.
pub(crate) async fn open_udp(plane: &Plane, via: &Via, idle: Duration) -> Result<Box<dyn UdpFlow>, OpenError> {
    let dial = |link: Arc<dyn AgentLink>, to, _| -> Opening<dyn UdpFlow> {
        Box::pin(async move { link.open_udp(to, idle).await })
    };
    open(plane, via, dial).await
}

/// Sends one echo request and waits at most [`ECHO_TIMEOUT`] for what comes back, once there is a link. Cancel safe.
pub(crate) async fn echo(plane: &Plane, via: &Via, sequence: u16, payload: Bytes) -> Result<Bytes, OpenError> {
    let ask = |link: Arc<dyn AgentLink>, to: SocketAddr, left: Duration| -> Opening<Bytes> {
        let payload = payload.clone();
        Box::pin(async move { link.echo(to.ip(), sequence, payload, left.min(ECHO_TIMEOUT)).await.map(Box::new) })
    };
    open(plane, via, ask).await.map(|came| *came)
}

async fn open<T: ?Sized>(
    plane: &Plane,
    via: &Via,
    dial: impl Fn(Arc<dyn AgentLink>, SocketAddr, Duration) -> Opening<T>,
) -> Result<Box<T>, OpenError> {
    let deadline = plane.now() + DIAL_TIMEOUT;
    let mut clients = plane.clients.clone();
    let mut lost: Vec<Arc<dyn AgentLink>> = Vec::new();
    loop {
        let table = Arc::clone(&clients.borrow_and_update());
        while let Some(link) = usable(&table, via, &lost) {
            let left = deadline.saturating_duration_since(plane.now());
            match timeout_at(deadline, dial(Arc::clone(&link), via.to, left)).await {
                Ok(Ok(flow)) => return Ok(flow),
                // The dial was not answered, so nothing happened at the far side: another link may try.
                Ok(Err(OpenError::LinkLost)) => lost.push(link),
                Ok(Err(other)) => return Err(other),
                Err(_) => return Err(OpenError::TimedOut),
            }
        }
        if table.hopeless.contains_key(&via.target) {
            return Err(OpenError::Refused);
        }
        plane.tell_blocked(&via.target);
        let ready = |t: &Arc<ClientTable>| t.hopeless.contains_key(&via.target) || usable(t, via, &lost).is_some();
        match timeout_at(deadline, clients.wait_for(ready)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return Err(OpenError::HostUnreachable),
        }
    }
}

/// The best link that stands and was not lost under this very flow.
fn usable(table: &ClientTable, via: &Via, lost: &[Arc<dyn AgentLink>]) -> Option<Arc<dyn AgentLink>> {
    let fit = |entry: &LinkEntry| entry.link.is_alive() && !lost.iter().any(|l| Arc::ptr_eq(l, &entry.link));
    table.candidates(&via.target, via.to.ip()).into_iter().find(fit).map(|entry| entry.link)
}

impl Plane {
    /// Says that flows to `target` have no link, at most once a second per target.
    pub(crate) fn tell_blocked(&self, target: &Target) {
        /// How often the same target is told.
        const INTERVAL: Duration = Duration::from_secs(1);
        let now: Instant = self.now();
        let mut told = self.blocked_told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        told.retain(|_, at| now.saturating_duration_since(*at) < INTERVAL);
        if told.contains_key(target) {
            return;
        }
        // A full channel means that many blocked targets are being dealt with; the next flow or second tells again.
        if self.blocked_tx.try_send(target.clone()).is_ok() {
            told.insert(target.clone(), now);
        }
    }
}
