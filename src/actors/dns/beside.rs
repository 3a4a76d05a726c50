//! Asking the connections beside the one that edits the file, and following what they answer out of their clusters.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::core::open_end::OpenEnd;
use super::messages::Transport;
use crate::net::resolver::forward::forward_whole;

/// The host's servers, and who may ask them.
pub(super) struct Host {
    pub servers: Vec<IpAddr>,
    pub forwards: Arc<Semaphore>,
}

/// What another connection answered, with what the host's servers say of a name outside its cluster at its end; `None`
/// where they say nothing, or too many are asked already. Cancel safe.
pub(super) async fn followed(answer: Bytes, query: &Bytes, transport: Transport, host: Host) -> Option<Bytes> {
    let Some(open) = OpenEnd::of(query, &answer) else { return Some(answer) };
    let _permit = host.forwards.try_acquire_owned().ok()?;
    let rest = forward_whole(&host.servers, &open.query()?).await?;
    open.closed(&rest, transport)
}
