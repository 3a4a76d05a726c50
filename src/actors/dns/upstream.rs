//! Asking the cluster's name servers through an agent.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use crate::net::agent::{AgentLink, OpenError};
use crate::net::views::{ClientTable, Target};

/// How long a question waits for the first link: at connect one is about to come.
const LINK_WAIT: Duration = Duration::from_secs(1);
/// Links tried; the cluster's servers are the same behind each.
const MAX_TRIES: usize = 2;

/// Asks one raw question through the default egress, else through any link. `None` when nobody could be asked or nobody
/// answered within `limit`. Cancel safe.
pub(super) async fn ask(
    mut clients: watch::Receiver<Arc<ClientTable>>,
    query: Bytes,
    limit: Duration,
) -> Option<Bytes> {
    let enough = |table: &Arc<ClientTable>| !links(table).is_empty() || table.hopeless.contains_key(&Target::General);
    let waited = tokio::time::timeout(LINK_WAIT, clients.wait_for(enough)).await;
    let links = links(&waited.ok()?.ok()?.clone());
    for link in links {
        match link.dns(query.clone(), limit).await {
            Ok(answer) => return Some(answer),
            Err(OpenError::LinkLost | OpenError::Limit) => {}
            Err(
                OpenError::Refused
                | OpenError::HostUnreachable
                | OpenError::NetUnreachable
                | OpenError::TimedOut
                | OpenError::Forbidden,
            ) => return None,
        }
    }
    None
}

fn links(table: &ClientTable) -> Vec<Arc<dyn AgentLink>> {
    let all = table.general.iter().chain(table.workloads.values().flatten());
    all.filter(|entry| entry.link.is_alive()).map(|entry| entry.link.clone()).take(MAX_TRIES).collect()
}
