//! podway's own protocol behind [`AgentLink`], over the `podway-tunnel` crate.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use podway_tunnel::client::{self, Carrier, Direction, Event};
use podway_tunnel::frames::Failure;

use super::{AgentLink, FlowEnded, FlowEvent, OpenError, TcpFlow, UdpEnded, UdpFlow};

/// Carriers that may be there or not, one for each direction.
#[derive(Clone, Debug, Default)]
pub struct Beside(Arc<Mutex<[Option<Carrier>; 2]>>);

impl Beside {
    /// That in one direction is there, or not any more.
    pub fn set(&self, direction: Direction, carrier: Option<Carrier>) {
        let [down, up] = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match direction {
            Direction::Down => *down = carrier,
            Direction::Up => *up = carrier,
        }
    }

    fn take(&self) -> [Option<Carrier>; 2] {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A link over one carrier, and others beside it for flows that move much.
#[derive(Debug)]
pub struct NativeLink {
    carrier: Carrier,
    bulk: Beside,
}

impl NativeLink {
    /// A link over a carrier whose handshake is done.
    pub fn new(carrier: Carrier, bulk: Beside) -> NativeLink {
        NativeLink { carrier, bulk }
    }

    fn error(&self, failure: Failure) -> OpenError {
        match failure {
            Failure::Refused => OpenError::Refused,
            Failure::HostUnreachable => OpenError::HostUnreachable,
            Failure::NetUnreachable => OpenError::NetUnreachable,
            Failure::TimedOut => OpenError::TimedOut,
            Failure::Forbidden => OpenError::Forbidden,
            Failure::Limit => OpenError::Limit,
            Failure::Unspecified | Failure::UnknownFlow => OpenError::LinkLost,
        }
    }
}

impl Drop for NativeLink {
    fn drop(&mut self) {
        // Flows that are still open hold their streams; the carrier ends with the link that owned it. They wait for the next
        // one, unless the agent was given up.
        self.carrier.close();
    }
}

#[async_trait::async_trait]
impl AgentLink for NativeLink {
    async fn open_tcp(&self, to: SocketAddr, dial_timeout: Duration) -> Result<Box<dyn TcpFlow>, OpenError> {
        let flow = self.carrier.open_tcp(to, dial_timeout).await.map_err(|failure| self.error(failure))?;
        Ok(Box::new(flow))
    }

    async fn open_udp(&self, to: SocketAddr, idle: Duration) -> Result<Box<dyn UdpFlow>, OpenError> {
        let flow = self.carrier.open_udp(to, idle).await.map_err(|failure| self.error(failure))?;
        Ok(Box::new(flow))
    }

    async fn dns(&self, query: Bytes, timeout: Duration) -> Result<Bytes, OpenError> {
        self.carrier.dns(query, timeout).await.map_err(|failure| self.error(failure))
    }

    async fn echo(&self, to: IpAddr, sequence: u16, payload: Bytes, timeout: Duration) -> Result<Bytes, OpenError> {
        self.carrier.echo(to, sequence, payload, timeout).await.map_err(|failure| self.error(failure))
    }

    fn is_alive(&self) -> bool {
        self.carrier.is_alive()
    }

    async fn leave(&self) {
        let beside = self.bulk.take();
        let leaving: Vec<_> = beside.iter().flatten().chain([&self.carrier]).collect();
        leaving.iter().for_each(|carrier| carrier.close());
        for carrier in leaving {
            carrier.gone().await;
        }
    }
}

impl TcpFlow for client::TcpFlow {
    fn poll_send_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, FlowEnded>> {
        client::TcpFlow::poll_send_ready(self, cx).map_err(|_| FlowEnded)
    }

    fn send(&mut self, data: Bytes) -> Result<(), FlowEnded> {
        client::TcpFlow::send(self, data).map_err(|_| FlowEnded)
    }

    fn send_fin(&mut self) {
        client::TcpFlow::send_fin(self);
    }

    fn send_reset(&mut self) {
        client::TcpFlow::send_reset(self);
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<FlowEvent> {
        client::TcpFlow::poll_event(self, cx).map(|event| match event {
            Event::Data(data) => FlowEvent::Data(data),
            Event::Fin => FlowEvent::Fin,
            Event::Reset => FlowEvent::Reset,
        })
    }

    fn poll_arrivals(&mut self, cx: &mut Context<'_>) {
        client::TcpFlow::poll_arrivals(self, cx);
    }

    fn stands_still(&self) -> bool {
        client::TcpFlow::stands_still(self)
    }
}

impl UdpFlow for client::UdpFlow {
    fn send(&mut self, datagram: Bytes) -> bool {
        client::UdpFlow::send(self, datagram)
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, UdpEnded>> {
        client::UdpFlow::poll_recv(self, cx).map_err(|ended| match ended {
            client::UdpEnded::Refused => UdpEnded::Refused,
            client::UdpEnded::Over => UdpEnded::Over,
        })
    }
}
