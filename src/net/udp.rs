//! UDP associations: one task per five-tuple.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::sleep_until;

use crate::net::agent::{OpenError, UdpEnded};
use crate::net::counters::{Open, add};
use crate::net::data_plane::Plane;
use crate::net::far::{self, Via};
use crate::net::packet::{self, Body, FlowKey, Quote, Unreachable, View};

/// How much longer the agent keeps an association: this side ends it, so that no datagram goes to one that ended there.
const LEEWAY: Duration = Duration::from_secs(5);

/// Datagrams handled before other tasks get their turn.
const BUDGET: usize = 64;

/// Carries datagrams until the association is idle, the far side ends it, or `packets` is closed.
///
/// A program hears of the end only if its far side refused it. Any other end is ours to hide: the next datagram begins a
/// new association.
pub(crate) async fn run(plane: Arc<Plane>, key: FlowKey, via: Via, packets: &mut mpsc::Receiver<Bytes>) {
    let Some(first) = packets.recv().await else {
        return;
    };
    let _open = Open::new(Arc::clone(&plane.counters), |c| &c.udp_open);
    let (quote, limit) = (Quote::of(&first), plane.udp_idle);
    // Datagrams that come meanwhile wait in the channel, which is bounded.
    let mut flow = tokio::select! {
        opened = far::open_udp(&plane, &via, limit + LEEWAY) => match opened {
            Ok(flow) => flow,
            Err(why) => {
                plane.refuse(&first, why);
                return;
            }
        },
        () = stopped(packets) => return,
    };
    add(&plane.counters.udp_total, 1);
    let send = |flow: &mut Box<dyn crate::net::agent::UdpFlow>, packet: Bytes| {
        if let Ok(View { body: Body::Udp { payload, .. }, .. }) = View::parse(&packet) {
            if flow.send(packet.slice_ref(payload)) {
                add(&plane.counters.bytes_sent, payload.len());
            } else {
                add(&plane.counters.dropped_udp_full, 1);
            }
        }
    };
    send(&mut flow, first);
    let mut last = plane.now();
    let mut idle = std::pin::pin!(sleep_until(last + limit));
    let refused = poll_fn(|cx| {
        for _ in 0..BUDGET {
            let mut nothing = true;
            // The end first: datagrams that are still in the channel then begin the next association.
            match flow.poll_recv(cx) {
                Poll::Ready(Ok(payload)) => {
                    nothing = false;
                    match packet::datagram(key.remote, key.local, &payload) {
                        Some(packet) => {
                            add(&plane.counters.bytes_received, payload.len());
                            plane.send(&packet);
                        }
                        None => add(&plane.counters.dropped_too_long, 1),
                    }
                }
                Poll::Ready(Err(UdpEnded::Refused)) => return Poll::Ready(true),
                Poll::Ready(Err(UdpEnded::Over)) => return Poll::Ready(false),
                Poll::Pending => {}
            }
            match packets.poll_recv(cx) {
                Poll::Ready(Some(packet)) => {
                    send(&mut flow, packet);
                    nothing = false;
                }
                Poll::Ready(None) => return Poll::Ready(false),
                Poll::Pending => {}
            }
            if !nothing {
                last = plane.now();
                continue;
            }
            while idle.as_mut().poll(cx).is_ready() {
                if plane.now() >= last + limit {
                    return Poll::Ready(false);
                }
                idle.as_mut().reset(last + limit);
            }
            return Poll::Pending;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
    if refused && let Some(packet) = quote.and_then(|quote| quote.unreachable(Unreachable::Port)) {
        plane.send(&packet);
    }
}

/// Returns when no more packets can come. Looks without taking any: they wait for the flow to open.
async fn stopped(packets: &mut mpsc::Receiver<Bytes>) {
    /// How often is looked; the time an unopened association may outlive its data plane.
    const LOOK: Duration = Duration::from_millis(20);
    while !packets.is_closed() {
        tokio::time::sleep(LOOK).await;
    }
}

/// What a program sees when its far side cannot be reached.
pub(crate) fn unreachable(why: OpenError) -> Unreachable {
    match why {
        OpenError::Refused | OpenError::Limit => Unreachable::Port,
        OpenError::HostUnreachable | OpenError::TimedOut | OpenError::LinkLost => Unreachable::Host,
        OpenError::NetUnreachable => Unreachable::Net,
        OpenError::Forbidden => Unreachable::Admin,
    }
}
