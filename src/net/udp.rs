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
use crate::net::packet::{self, Body, FlowKey, Unreachable, View};

/// How long an association lives without a datagram, either way (RFC 4787 asks for more of a NAT; an association here is
/// made anew by the next datagram, only the far port changes).
const IDLE: Duration = Duration::from_secs(60);

/// The longest packet kept to be quoted in an ICMP error.
const QUOTED: usize = 1500;

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
    // A copy: a slice of the reader's chunk would keep all of it.
    let quoted = (first.len() <= QUOTED).then(|| Bytes::copy_from_slice(&first));
    // Datagrams that come meanwhile wait in the channel, which is bounded.
    let mut flow = tokio::select! {
        opened = far::open_udp(&plane, &via) => match opened {
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
    let mut idle = std::pin::pin!(sleep_until(last + IDLE));
    let refused = poll_fn(|cx| {
        for _ in 0..BUDGET {
            let mut nothing = true;
            // The end first: datagrams that are still in the channel then begin the next association.
            match flow.poll_recv(cx) {
                Poll::Ready(Ok(payload)) => {
                    nothing = false;
                    match packet::datagram(key.remote, key.local, &payload, plane.device.mtu()) {
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
                if plane.now() >= last + IDLE {
                    return Poll::Ready(false);
                }
                idle.as_mut().reset(last + IDLE);
            }
            return Poll::Pending;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
    if refused && let Some(packet) = quoted.and_then(|q| packet::unreachable(&q, Unreachable::Port)) {
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
