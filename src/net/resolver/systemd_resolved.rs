//! systemd-resolved by D-Bus: per-link settings, which vanish with the link (org.freedesktop.resolve1(5)).

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use futures_util::StreamExt as _;
use nix::libc;
use zbus::proxy::CacheProperties;
use zbus::{Connection, OwnedObjectPath, Proxy};

use super::LinkPlan;

const SERVICE: &str = "org.freedesktop.resolve1";
const MANAGER: &str = "org.freedesktop.resolve1.Manager";
const LINK: &str = "org.freedesktop.resolve1.Link";
const PATH: &str = "/org/freedesktop/resolve1";
/// Any D-Bus call may hang; resolved answers within milliseconds.
const CALL: Duration = Duration::from_secs(1);
/// `ScopesMask`: the link takes part in unicast DNS.
const SCOPE_DNS: u64 = 1;
/// How often the DNS scope is looked for after the settings were made, and the pause between.
const SCOPE_TRIES: u32 = 20;
const SCOPE_PAUSE: Duration = Duration::from_millis(50);

/// Why resolved could not be set.
#[derive(Debug, thiserror::Error)]
pub enum ResolvedError {
    /// Nobody answers at its name.
    #[error("systemd-resolved does not answer on D-Bus: {0}")]
    Absent(zbus::Error),
    /// A call failed.
    #[error("systemd-resolved: {call}: {source}")]
    Call {
        /// Which.
        call: &'static str,
        /// Why.
        source: zbus::Error,
    },
    /// A call took longer than 1 s.
    #[error("systemd-resolved did not answer {0} within 1 s")]
    TimedOut(&'static str),
    /// It took the settings, but has others.
    #[error("systemd-resolved did not keep the settings of {0}")]
    NotKept(String),
    /// The link has no DNS scope: it is not up, or has no address.
    #[error("systemd-resolved does not ask on {0} although it was told to; is the interface up?")]
    NoScope(String),
}

/// resolved, over a connection of its own.
#[derive(Clone, Debug)]
pub struct Resolved {
    connection: Connection,
}

impl Resolved {
    /// Connects to the system bus and asks whether resolved is there (which starts it where the bus may).
    ///
    /// # Errors
    /// No bus, or nobody at the name.
    pub async fn connect() -> Result<Resolved, ResolvedError> {
        let connection = tokio::time::timeout(CALL, Connection::system()).await;
        let connection = connection.map_err(|_| ResolvedError::TimedOut("connect"))?.map_err(ResolvedError::Absent)?;
        let resolved = Resolved { connection };
        let manager = resolved.manager().await?;
        match within("LLMNRHostname", manager.get_property::<String>("LLMNRHostname")).await {
            Ok(_) => Ok(resolved),
            Err(ResolvedError::Call { source, .. }) => Err(ResolvedError::Absent(source)),
            Err(error) => Err(error),
        }
    }

    /// One that is spoken to over this connection.
    #[cfg(test)]
    pub(super) fn over(connection: Connection) -> Resolved {
        Resolved { connection }
    }

    /// Makes the link as planned, unless it is already, and verifies it. Returns whether anything had to be set.
    ///
    /// Cancel safe: each setting stands by itself and is set again by the next call.
    ///
    /// # Errors
    /// See [`ResolvedError`].
    pub async fn apply(&self, plan: &LinkPlan) -> Result<bool, ResolvedError> {
        let index = index_of(plan);
        if self.holds(plan).await? {
            return Ok(false);
        }
        let manager = self.manager().await?;
        let servers: Vec<(i32, Vec<u8>)> = plan.servers.iter().map(|server| on_bus(*server)).collect();
        let search = plan.search.iter().map(|domain| (domain.as_str(), false));
        let domains: Vec<(&str, bool)> =
            search.chain(plan.routing.iter().map(|domain| (domain.as_str(), true))).collect();
        // Explicit, because the host's defaults may be to sign, to encrypt or to ask everybody.
        within("SetLinkDNSSEC", manager.call::<_, _, ()>("SetLinkDNSSEC", &(index, "no"))).await?;
        within("SetLinkDNSOverTLS", manager.call::<_, _, ()>("SetLinkDNSOverTLS", &(index, "no"))).await?;
        within("SetLinkLLMNR", manager.call::<_, _, ()>("SetLinkLLMNR", &(index, "no"))).await?;
        within("SetLinkMulticastDNS", manager.call::<_, _, ()>("SetLinkMulticastDNS", &(index, "no"))).await?;
        within("SetLinkDefaultRoute", manager.call::<_, _, ()>("SetLinkDefaultRoute", &(index, false))).await?;
        within("SetLinkDomains", manager.call::<_, _, ()>("SetLinkDomains", &(index, domains))).await?;
        within("SetLinkDNS", manager.call::<_, _, ()>("SetLinkDNS", &(index, servers))).await?;
        within("FlushCaches", manager.call::<_, _, ()>("FlushCaches", &())).await?;
        if !self.holds(plan).await? {
            return Err(ResolvedError::NotKept(plan.interface.clone()));
        }
        for _ in 0..SCOPE_TRIES {
            let link = self.link(index).await?;
            if within("ScopesMask", link.get_property::<u64>("ScopesMask")).await? & SCOPE_DNS != 0 {
                return Ok(true);
            }
            tokio::time::sleep(SCOPE_PAUSE).await;
        }
        Err(ResolvedError::NoScope(plan.interface.clone()))
    }

    /// Domains of the host and of links other than this one, the root left out.
    ///
    /// # Errors
    /// See [`ResolvedError`].
    pub async fn domains_of_others(&self, ifindex: u32) -> Result<Vec<String>, ResolvedError> {
        let (manager, ours) = (self.manager().await?, i32::try_from(ifindex).unwrap_or(i32::MAX));
        let all = within("Domains", manager.get_property::<Vec<(i32, String, bool)>>("Domains")).await?;
        let others = all.into_iter().filter(|(link, ..)| *link != ours);
        let names = others.map(|(_, name, _)| name.trim_matches('.').to_owned());
        Ok(names.filter(|name| !name.is_empty()).collect())
    }

    /// Forgets all settings of a link. A link that is gone has none.
    ///
    /// # Errors
    /// See [`ResolvedError`].
    pub async fn revert(&self, ifindex: u32) -> Result<(), ResolvedError> {
        let index = i32::try_from(ifindex).unwrap_or(i32::MAX);
        let manager = self.manager().await?;
        match within("RevertLink", manager.call::<_, _, ()>("RevertLink", &(index,))).await {
            Err(ResolvedError::Call { source: zbus::Error::MethodError(name, _, _), .. })
                if name.as_str() == "org.freedesktop.resolve1.NoSuchLink" => {}
            other => other?,
        }
        within("FlushCaches", manager.call::<_, _, ()>("FlushCaches", &())).await
    }

    /// Calls `changed` whenever another resolved takes the name, until the bus goes away.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The name cannot be watched.
    pub async fn watch(&self, changed: impl Fn()) -> Result<(), ResolvedError> {
        let manager = self.manager().await?;
        let mut owners = within("NameOwnerChanged", manager.receive_owner_changed()).await?;
        while let Some(owner) = owners.next().await {
            if owner.is_some() {
                changed();
            }
        }
        Ok(())
    }

    async fn holds(&self, plan: &LinkPlan) -> Result<bool, ResolvedError> {
        let link = self.link(index_of(plan)).await?;
        let servers = within("DNS", link.get_property::<Vec<(i32, Vec<u8>)>>("DNS")).await?;
        let domains = within("Domains", link.get_property::<Vec<(String, bool)>>("Domains")).await?;
        let default_route = within("DefaultRoute", link.get_property::<bool>("DefaultRoute")).await?;
        let wanted: Vec<(i32, Vec<u8>)> = plan.servers.iter().map(|server| on_bus(*server)).collect();
        let mut domains: Vec<(String, bool)> =
            domains.into_iter().map(|(name, only)| (name.trim_end_matches('.').to_owned(), only)).collect();
        let search = plan.search.iter().map(|domain| (domain.clone(), false));
        let mut expected: Vec<(String, bool)> = search.chain(plan.routing.iter().map(|d| (d.clone(), true))).collect();
        domains.sort();
        expected.sort();
        Ok(servers == wanted && domains == expected && !default_route)
    }

    async fn manager(&self) -> Result<Proxy<'_>, ResolvedError> {
        self.proxy(PATH.to_owned(), MANAGER).await
    }

    async fn link(&self, index: i32) -> Result<Proxy<'_>, ResolvedError> {
        let manager = self.manager().await?;
        let path = within("GetLink", manager.call::<_, _, OwnedObjectPath>("GetLink", &(index,))).await?;
        self.proxy(path.to_string(), LINK).await
    }

    async fn proxy(&self, path: String, interface: &'static str) -> Result<Proxy<'_>, ResolvedError> {
        let builder = zbus::proxy::Builder::<Proxy<'_>>::new(&self.connection).cache_properties(CacheProperties::No);
        within("proxy", builder.destination(SERVICE).path(path).interface(interface).build()).await
    }
}

async fn within<T>(call: &'static str, work: impl Future<Output = zbus::Result<T>>) -> Result<T, ResolvedError> {
    let done = tokio::time::timeout(CALL, work).await.map_err(|_| ResolvedError::TimedOut(call))?;
    done.map_err(|source| ResolvedError::Call { call, source })
}

fn index_of(plan: &LinkPlan) -> i32 {
    i32::try_from(plan.ifindex).unwrap_or(i32::MAX)
}

/// An address as resolved takes it: family and octets.
fn on_bus(address: IpAddr) -> (i32, Vec<u8>) {
    let v4 = |a: Ipv4Addr| (libc::AF_INET, a.octets().to_vec());
    let v6 = |a: Ipv6Addr| (libc::AF_INET6, a.octets().to_vec());
    match address {
        IpAddr::V4(a) => v4(a),
        IpAddr::V6(a) => v6(a),
    }
}
