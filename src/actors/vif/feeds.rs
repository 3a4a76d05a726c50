//! What runs beside the actor: blocked targets to ClientList, counters to Session, the host's own network
//! to ProxyVia. Each is a task that Vif ends with itself.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;
use podway_tunnel::credit::Budget;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::warn;

use super::messages::{Dropped, FlowStats};
use crate::actors::client_list::messages::FlowsBlocked;
use crate::actors::proxy_via::messages::{HostFactsChanged, VipsInUseChanged};
use crate::actors::shell::blocking;
use crate::ids::Generation;
use crate::net::cidr::Cidr;
use crate::net::counters::{Counters, CountersSnapshot};
use crate::net::resolver::host::host_resolvers;
use crate::net::route::{Own, RouteError, RouteHandle, monitor};
use crate::net::route_plan::{HostFacts, Ipv6};
use crate::net::views::Target;

/// Where the kernel has its settings of IPv6 by link; absent where it has no IPv6.
const IPV6: &str = "/proc/sys/net/ipv6/conf";
/// How often counters are told at most.
const STATS_EVERY: Duration = Duration::from_millis(500);
/// How often flows that an agent broke are logged at most.
const BROKEN_LOG: Duration = Duration::from_secs(60);
/// The host's network is read again after this time even when the kernel told nothing: resolv.conf is only a file.
const FACTS_EVERY: Duration = Duration::from_secs(10);
/// The pause before the host's network is read again after a failure.
const FACTS_RETRY: Duration = Duration::from_secs(1);

/// Targets that flows wait for; the data plane bounds their rate.
pub(super) async fn pump_blocked(mut blocked: mpsc::Receiver<Target>, clients: Recipient<FlowsBlocked>) {
    while let Some(target) = blocked.recv().await {
        clients.do_send(FlowsBlocked { target });
    }
}

/// Counters to Session, at most once in [`STATS_EVERY`] and only when they differ.
pub(super) async fn pump_stats(counters: Arc<Counters>, buffers: Arc<Budget>, session: Recipient<FlowStats>) {
    let mut told = FlowStats::default();
    let (mut logged, mut log_at) = (0, None);
    let mut ticks = interval(STATS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let now = ticks.tick().await;
        let stats = flow_stats(counters.snapshot(), &buffers);
        if stats.broken != logged && log_at.is_none_or(|at| now >= at) {
            (logged, log_at) = (stats.broken, Some(now + BROKEN_LOG));
            warn!(flows = stats.broken, "bug: an agent sent more than it was granted; such flows were reset");
        }
        if stats != told {
            told = stats;
            session.do_send(stats);
        }
    }
}

/// Virtual addresses that flows use to ProxyVia, at once and with each change.
pub(super) async fn pump_in_use(mut in_use: watch::Receiver<BTreeSet<IpAddr>>, proxy_via: Recipient<VipsInUseChanged>) {
    loop {
        let vips = in_use.borrow_and_update().clone();
        proxy_via.do_send(VipsInUseChanged { vips });
        if in_use.changed().await.is_err() {
            return;
        }
    }
}

/// Tells the host's own network at once and whenever it differs from what was told last.
pub(super) async fn watch_host(
    proxy_via: Recipient<HostFactsChanged>,
    etc: PathBuf,
    device: String,
    mut taken: watch::Receiver<BTreeSet<Cidr>>,
) {
    let mut own = Own { device, taken: BTreeSet::new() };
    let mut told: (Generation, Option<Arc<HostFacts>>) = (Generation(0), None);
    loop {
        if let Err(error) = follow_host(&proxy_via, &etc, &mut own, &mut taken, &mut told).await {
            warn!(%error, "cannot read the host's network; trying again");
        }
        sleep(FACTS_RETRY).await;
    }
}

/// Follows the host's network until the kernel's messages end, or Vif does.
async fn follow_host(
    proxy_via: &Recipient<HostFactsChanged>,
    etc: &Path,
    own: &mut Own,
    taken: &mut watch::Receiver<BTreeSet<Cidr>>,
    told: &mut (Generation, Option<Arc<HostFacts>>),
) -> Result<(), RouteError> {
    // Listening begins before reading, so that no change is missed.
    let mut ticks = monitor()?;
    let routes = RouteHandle::open()?;
    loop {
        own.taken.clone_from(&taken.borrow_and_update());
        let (resolvers, ipv6) = read_files(etc, &own.device).await;
        let facts = HostFacts { ipv6, ..routes.host_facts(own, resolvers).await? };
        if told.1.as_deref() != Some(&facts) {
            let facts = Arc::new(facts);
            *told = (told.0.next(), Some(Arc::clone(&facts)));
            proxy_via.do_send(HostFactsChanged { generation: told.0, facts });
        }
        tokio::select! {
            tick = timeout(FACTS_EVERY, ticks.recv()) => if let Ok(None) = tick { return Ok(()) },
            changed = taken.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}

/// The host's own network at this moment, as a connection with the device `device` would find it. Changes nothing.
///
/// # Errors
///
/// The kernel does not tell.
pub(crate) async fn host_now(etc: &Path, device: &str) -> Result<HostFacts, RouteError> {
    let own = Own { device: device.to_owned(), taken: BTreeSet::new() };
    let (resolvers, ipv6) = read_files(etc, device).await;
    Ok(HostFacts { ipv6, ..RouteHandle::open()?.host_facts(&own, resolvers).await? })
}

/// What the host says in files: its name servers (none when they cannot be read), and whether `device` may have IPv6.
async fn read_files(etc: &Path, device: &str) -> (BTreeSet<IpAddr>, Ipv6) {
    let (etc, device) = (etc.to_owned(), device.to_owned());
    let read = blocking(move || (host_resolvers(&etc), ipv6(Path::new(IPV6), &device)));
    read.await.unwrap_or_default()
}

/// By the settings of `device`, or as long as it is not there, of those to come.
fn ipv6(settings: &Path, device: &str) -> Ipv6 {
    let disabled = |link: &str| std::fs::read_to_string(settings.join(link).join("disable_ipv6"));
    match disabled(device).or_else(|_| disabled("default")) {
        Ok(text) if text.trim() == "0" => Ipv6::On,
        Ok(_) | Err(_) => Ipv6::Off,
    }
}

fn dropped(counters: &CountersSnapshot) -> Dropped {
    Dropped {
        source: counters.dropped_source,
        forwarded: counters.dropped_forwarded,
        malformed: counters.dropped_malformed,
        fragment: counters.dropped_fragment,
        protocol: counters.dropped_protocol,
        multicast: counters.dropped_multicast,
        stray: counters.dropped_stray,
        flow_full: counters.dropped_flow_full,
        dns_full: counters.dropped_dns_full,
        echo_full: counters.dropped_echo_full,
        udp_full: counters.dropped_udp_full,
        too_long: counters.dropped_too_long,
        device_full: counters.dropped_device_full,
        device_refused: counters.dropped_device_refused,
    }
}

fn flow_stats(counters: CountersSnapshot, buffers: &Budget) -> FlowStats {
    FlowStats {
        tcp_open: counters.tcp_open,
        tcp_total: counters.tcp_total,
        udp_open: counters.udp_open,
        udp_total: counters.udp_total,
        dns_queries: counters.dns_queries,
        bytes_sent: counters.bytes_sent,
        bytes_received: counters.bytes_received,
        refused: counters.refused,
        over_limit: counters.over_limit,
        dropped: dropped(&counters),
        held: buffers.held(),
        broken: buffers.broken(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_is_off_without_settings_or_by_them() {
        let settings = tempfile::tempdir().unwrap();
        assert_eq!(ipv6(settings.path(), "podway0"), Ipv6::Off);
        let set = |link: &str, text: &str| {
            std::fs::create_dir_all(settings.path().join(link)).unwrap();
            std::fs::write(settings.path().join(link).join("disable_ipv6"), text).unwrap();
        };
        set("default", "0\n");
        assert_eq!(ipv6(settings.path(), "podway0"), Ipv6::On);
        set("default", "1\n");
        assert_eq!(ipv6(settings.path(), "podway0"), Ipv6::Off);
        set("podway0", "0\n");
        assert_eq!(ipv6(settings.path(), "podway0"), Ipv6::On);
    }
}
