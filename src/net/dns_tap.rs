//! DNS taken out of the packet path: queries to a DNS address of ours, over UDP and TCP.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Sleep, sleep};

use crate::net::agent::{FlowEnded, FlowEvent, TcpFlow};
use crate::net::counters::add;
use crate::net::data_plane::{Fate, Plane};
use crate::net::packet;

/// The port of DNS (RFC 1035).
pub const DNS_PORT: u16 = 53;

/// How long an answer is waited for; resolvers ask again sooner.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Queries that may wait at once; more are dropped and asked again by the resolver.
pub(crate) const PENDING: usize = 4096;

/// How long a TCP connection may stay without a query (RFC 7766 section 6.2.3 wants seconds).
const TCP_IDLE: Duration = Duration::from_secs(30);

/// How long after our FIN the client has to close.
const TCP_CLOSE: Duration = Duration::from_secs(5);

/// A whole message with its length prefix.
const TCP_BUFFER: usize = 2 + u16::MAX as usize;

/// Where queries go. It is called by tasks of the packet path and must not wait.
#[derive(Clone)]
pub struct DnsSink(Arc<dyn Fn(DnsQuery) + Send + Sync>);

impl DnsSink {
    /// One that calls `take` with each query.
    pub fn new(take: impl Fn(DnsQuery) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }
}

impl fmt::Debug for DnsSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DnsSink")
    }
}

/// One raw query (RFC 1035) that came to a DNS address.
#[derive(Debug)]
pub struct DnsQuery {
    /// The message, without the length prefix of TCP.
    pub query: Bytes,
    /// Who asks.
    pub from: SocketAddr,
    /// Over what.
    pub transport: DnsTransport,
    /// Takes the raw answer.
    pub reply: DnsReply,
}

/// What a query came over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DnsTransport {
    /// UDP: the answer is truncated to the client's EDNS size.
    Udp,
    /// TCP.
    Tcp,
}

/// Answers one query; dropping it leaves the query unanswered.
#[derive(Debug)]
pub struct DnsReply {
    to: Asker,
    /// The query's place among those that may wait.
    _place: OwnedSemaphorePermit,
}

#[cfg(test)]
impl DnsReply {
    /// One whose answer a test hears.
    pub fn to_test() -> (DnsReply, oneshot::Receiver<Bytes>) {
        let (to, answer) = oneshot::channel();
        let place = Arc::new(tokio::sync::Semaphore::new(1)).try_acquire_owned().expect("it is free");
        (DnsReply { to: Asker::Exchange(to), _place: place }, answer)
    }
}

/// Who waits for an answer.
enum Asker {
    /// A client of UDP. Does not keep the device.
    Datagram {
        plane: Weak<Plane>,
        from: SocketAddr,
        at: SocketAddr,
    },
    Exchange(oneshot::Sender<Bytes>),
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Asker::Datagram { from, .. } => write!(f, "{from} over UDP"),
            Asker::Exchange(_) => f.write_str("a connection"),
        }
    }
}

impl DnsReply {
    /// Answers with a raw message, for UDP one that is short enough for the asker: as a packet, from the calling thread and
    /// at once.
    pub fn answer(self, answer: Bytes) {
        match self.to {
            Asker::Datagram { plane, from, at } => {
                let Some(plane) = plane.upgrade() else { return };
                match packet::datagram(at, from, &answer) {
                    Some(packet) => plane.send(&packet),
                    None => add(&plane.counters.dropped_too_long, 1),
                }
            }
            // An asker that went away wants no answer.
            Asker::Exchange(waits) => drop(waits.send(answer)),
        }
    }
}

/// Passes a query that came over UDP on.
pub(crate) fn udp_query(plane: &Arc<Plane>, from: SocketAddr, at: SocketAddr, query: Bytes) -> Fate {
    let asker = Asker::Datagram { plane: Arc::downgrade(plane), from, at };
    if pass(plane, from, DnsTransport::Udp, query, asker) { Fate::Taken } else { Fate::Dropped }
}

/// False when the query was dropped.
fn pass(plane: &Plane, from: SocketAddr, transport: DnsTransport, query: Bytes, to: Asker) -> bool {
    add(&plane.counters.dns_queries, 1);
    let Ok(place) = Arc::clone(&plane.dns_places).try_acquire_owned() else {
        add(&plane.counters.dropped_dns_full, 1);
        return false;
    };
    (plane.dns.0)(DnsQuery { query, from, transport, reply: DnsReply { to, _place: place } });
    true
}

/// The far side of a TCP connection to a DNS address: one query after the other, each with its length in front
/// (RFC 1035 section 4.2.2).
pub(crate) struct DnsExchange {
    plane: Arc<Plane>,
    from: SocketAddr,
    received: BytesMut,
    asked: Option<oneshot::Receiver<Bytes>>,
    input: Side,
    output: Side,
    idle: Pin<Box<Sleep>>,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Open,
    Finished,
}

impl DnsExchange {
    pub(crate) fn new(plane: Arc<Plane>, from: SocketAddr) -> Self {
        Self {
            plane,
            from,
            received: BytesMut::new(),
            asked: None,
            input: Side::Open,
            output: Side::Open,
            idle: Box::pin(sleep(TCP_IDLE)),
            waker: None,
        }
    }

    fn next_message(&mut self) -> Option<Bytes> {
        let length = usize::from(u16::from_be_bytes([*self.received.first()?, *self.received.get(1)?]));
        if self.received.len() < 2 + length {
            return None;
        }
        self.received.advance(2);
        Some(self.received.split_to(length).freeze())
    }

    fn set_idle(&mut self, limit: Duration) {
        let deadline = self.plane.now() + limit;
        self.idle.as_mut().reset(deadline);
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl TcpFlow for DnsExchange {
    fn poll_send_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<usize, FlowEnded>> {
        match TCP_BUFFER.saturating_sub(self.received.len()) {
            // Room comes with an answer, which `poll_event` waits for in the same task.
            0 => Poll::Pending,
            room => Poll::Ready(Ok(room)),
        }
    }

    fn send(&mut self, data: Bytes) -> Result<(), FlowEnded> {
        self.received.extend_from_slice(&data);
        self.wake();
        Ok(())
    }

    fn send_fin(&mut self) {
        self.input = Side::Finished;
        self.wake();
    }

    fn send_reset(&mut self) {
        self.asked = None;
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<FlowEvent> {
        self.waker = Some(cx.waker().clone());
        if self.output == Side::Finished {
            return self.idle.as_mut().poll(cx).map(|()| FlowEvent::Reset);
        }
        if self.asked.is_none()
            && let Some(query) = self.next_message()
        {
            self.set_idle(ANSWER_TIMEOUT);
            let (waits, answer) = oneshot::channel();
            if !pass(&self.plane, self.from, DnsTransport::Tcp, query, Asker::Exchange(waits)) {
                return Poll::Ready(FlowEvent::Reset);
            }
            self.asked = Some(answer);
        }
        let Some(asked) = self.asked.as_mut() else {
            let idle = self.idle.as_mut().poll(cx).is_ready();
            if idle || self.input == Side::Finished {
                self.output = Side::Finished;
                self.set_idle(TCP_CLOSE);
                return Poll::Ready(FlowEvent::Fin);
            }
            return Poll::Pending;
        };
        let Poll::Ready(answer) = Pin::new(asked).poll(cx) else {
            return self.idle.as_mut().poll(cx).map(|()| FlowEvent::Reset);
        };
        self.asked = None;
        self.set_idle(TCP_IDLE);
        let Some((answer, length)) = answer.ok().and_then(|a| u16::try_from(a.len()).ok().map(|l| (a, l))) else {
            return Poll::Ready(FlowEvent::Reset);
        };
        let mut message = BytesMut::with_capacity(2 + answer.len());
        message.put_u16(length);
        message.extend_from_slice(&answer);
        Poll::Ready(FlowEvent::Data(message.freeze()))
    }
}
