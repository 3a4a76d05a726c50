//! ICMP and ICMPv6 echo: each request is asked of the far side, and answered as that was.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::net::agent::OpenError;
use crate::net::counters::add;
use crate::net::data_plane::{Fate, Plane};
use crate::net::far::{self, Via};
use crate::net::packet::{self, Body, View};
use crate::net::views::{Destination, VipTable};

/// Requests that may wait at once; more are dropped, as a network does.
pub(crate) const PENDING: usize = 256;

/// Passes an echo request on, and what came of it back.
pub(crate) fn take(plane: &Arc<Plane>, table: &VipTable, view: &View<'_>, packet: Bytes) -> Fate {
    // The recursion guard, as for flows.
    if table.pod_ranges.iter().any(|range| range.contains(&view.source)) {
        return plane.refuse(&packet, OpenError::Refused);
    }
    let (Body::Echo { sequence, payload }, Destination::Dial { address, target }) =
        (view.body, table.lookup(view.destination))
    else {
        return plane.refuse(&packet, OpenError::HostUnreachable);
    };
    let Ok(place) = Arc::clone(&plane.echo_places).try_acquire_owned() else {
        add(&plane.counters.dropped_echo_full, 1);
        return Fate::Dropped;
    };
    // Copies: a slice of the reader's chunk would keep all of it.
    let payload = Bytes::copy_from_slice(payload);
    let (packet, plane) = (Bytes::copy_from_slice(&packet), Arc::clone(plane));
    let via = Via { to: SocketAddr::new(address, 0), target };
    tokio::spawn(async move {
        match plane.stop.run_until_cancelled(far::echo(&plane, &via, sequence, payload)).await {
            Some(Ok(came)) => {
                if let Some(answer) = packet::echo_reply(&packet, &came) {
                    plane.send(&answer);
                }
            }
            Some(Err(why)) => {
                plane.refuse(&packet, why);
            }
            None => {}
        }
        drop(place);
    });
    Fate::Taken
}
