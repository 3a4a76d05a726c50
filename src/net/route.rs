//! Addresses and routes of the device, and the facts of the host's own network, over rtnetlink.
//!
//! Only what lies on our own device is ever written: it vanishes with the device. A route of another program is never
//! replaced. Every exchange with the kernel has a time limit.
#![expect(clippy::wildcard_enum_match_arm, reason = "netlink's enums are open")]

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::LinkAttribute;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
    RouteType, RouteVia,
};
use nix::errno::Errno;
use rtnetlink::{LinkUnspec, MulticastGroup, RouteMessageBuilder};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::net::cidr::Cidr;
use crate::net::packet::FULL_HOPS;
use crate::net::route_plan::{HostFacts, HostRoute};

/// The protocol number by which our routes are known (`ip route show proto 112`).
pub const PROTOCOL: u8 = 112;

/// The longest exchange with the kernel.
const LIMIT: Duration = Duration::from_secs(1);

/// How long an address may take to become usable, on a host that is busy.
const SETTLES: Duration = Duration::from_millis(500);

/// A pause between two looks whether it has.
const LOOK: Duration = Duration::from_millis(1);

/// Changes within this time are told as one.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// Why the kernel did not do it.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// No socket to the kernel.
    #[error("cannot open a netlink socket: {0}")]
    Socket(std::io::Error),
    /// No answer.
    #[error("the kernel did not answer within a second")]
    TimedOut,
    /// There is no such link.
    #[error("there is no link {0}")]
    NoLink(String),
    /// Somebody else's route is in the way.
    #[error("another route to {0} exists on another link")]
    Taken(Cidr),
    /// The kernel refused.
    #[error("{0}")]
    Refused(Errno),
    /// Anything else.
    #[error("netlink: {0}")]
    Other(String),
}

impl From<rtnetlink::Error> for RouteError {
    fn from(error: rtnetlink::Error) -> Self {
        match error {
            rtnetlink::Error::NetlinkError(message) => RouteError::Refused(Errno::from_raw(message.raw_code().abs())),
            other => RouteError::Other(other.to_string()),
        }
    }
}

async fn limited<T>(work: impl Future<Output = Result<T, rtnetlink::Error>>) -> Result<T, RouteError> {
    match timeout(LIMIT, work).await {
        Ok(result) => result.map_err(RouteError::from),
        Err(_) => Err(RouteError::TimedOut),
    }
}

async fn all<T>(stream: impl Stream<Item = Result<T, rtnetlink::Error>>) -> Result<Vec<T>, RouteError> {
    limited(stream.try_collect::<Vec<T>>()).await
}

/// How the devices of all connections begin.
const OUR_LINKS: &str = "podway";

/// Which devices of ours count as the host's network, seen from one connection.
///
/// Of two connections that want overlapping ranges the one with the younger device gives way, so that they never both do.
/// Where the younger was first all the same, the kernel decided, and the older gives way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// Name of the connection's own device, whether or not it is there yet.
    pub device: String,
    /// Destinations that the kernel would not give to this connection, at any time.
    pub taken: BTreeSet<Cidr>,
}

impl Own {
    /// Whether this connection, whose device has the index `own` or none yet, gives way to all on a link.
    fn minds_link(&self, own: Option<u32>, name: &str, index: u32) -> bool {
        name != self.device && (!name.starts_with(OUR_LINKS) || own.is_none_or(|own| index < own))
    }

    fn minds_route(&self, own: Option<u32>, name: &str, index: u32, destination: &Cidr) -> bool {
        self.minds_link(own, name, index) || (name != self.device && self.taken.contains(destination))
    }
}

/// A connection to the kernel's routing tables. Clones share it.
#[derive(Clone, Debug)]
pub struct RouteHandle {
    handle: rtnetlink::Handle,
}

impl RouteHandle {
    /// Connects. Must be called within a tokio runtime; belongs to the network namespace of the calling thread.
    pub fn open() -> Result<Self, RouteError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(RouteError::Socket)?;
        tokio::spawn(connection);
        Ok(RouteHandle { handle })
    }

    /// The index of the link called `name`.
    pub async fn link_index(&self, name: &str) -> Result<u32, RouteError> {
        match all(self.handle.link().get().match_name(name).execute()).await {
            Ok(links) => links.first().map(|link| link.header.index).ok_or_else(|| RouteError::NoLink(name.to_owned())),
            Err(RouteError::Refused(Errno::ENODEV)) => Err(RouteError::NoLink(name.to_owned())),
            Err(error) => Err(error),
        }
    }

    /// Brings a link up with this MTU.
    pub async fn set_up(&self, index: u32, mtu: u32) -> Result<(), RouteError> {
        let link = LinkUnspec::new_with_index(index).mtu(mtu).up().build();
        limited(self.handle.link().set(link).execute()).await
    }

    /// Removes a link. One that is not there is fine.
    pub async fn del_link(&self, index: u32) -> Result<(), RouteError> {
        match limited(self.handle.link().del(index).execute()).await {
            Err(RouteError::Refused(Errno::ENODEV)) => Ok(()),
            result => result,
        }
    }

    /// Gives a link an address, which programs can use when this returns. One that it has already is fine.
    pub async fn add_address(&self, index: u32, address: Cidr) -> Result<(), RouteError> {
        let request = self.handle.address().add(index, address.addr(), address.prefix_len());
        match limited(request.execute()).await {
            Err(RouteError::Refused(Errno::EEXIST)) => {}
            result => result?,
        }
        if address.addr().is_ipv6() {
            // Not a failure: the host's own rules may lead elsewhere.
            timeout(SETTLES, self.is_local(address.addr())).await.ok();
        }
        Ok(())
    }

    /// Returns when packets to an address are for this host: the kernel makes the route of an IPv6 address later than the
    /// address, and tells nobody when it has.
    async fn is_local(&self, address: IpAddr) {
        let Ok(to) = RouteMessageBuilder::<IpAddr>::new().destination_prefix(address, 128) else { return };
        let message = to.build();
        loop {
            let answer = all(self.handle.route().get(message.clone()).execute()).await;
            if answer.is_ok_and(|routes| routes.iter().any(|route| route.header.kind == RouteType::Local)) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Takes an address from a link. One that is not there is fine.
    pub async fn del_address(&self, index: u32, address: Cidr) -> Result<(), RouteError> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.prefix_len = address.prefix_len();
        message.header.family = family(address);
        message.attributes.push(AddressAttribute::Local(address.addr()));
        match limited(self.handle.address().del(message).execute()).await {
            Err(RouteError::Refused(Errno::EADDRNOTAVAIL | Errno::ENODEV)) => Ok(()),
            result => result,
        }
    }

    /// Routes a destination to a link, in the main table. A route that is there already is fine when it is this one.
    pub async fn add_route(&self, index: u32, destination: Cidr) -> Result<(), RouteError> {
        let mut route = route(index, destination);
        // What is made on this host is told by it from what others send through it.
        route.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Hoplimit(FULL_HOPS.into())]));
        match limited(self.handle.route().add(route).execute()).await {
            Err(RouteError::Refused(Errno::EEXIST)) => {
                let ours = self.routes(index).await?.contains(&destination.trunc());
                if ours { Ok(()) } else { Err(RouteError::Taken(destination)) }
            }
            result => result,
        }
    }

    /// Removes the route to a destination from a link. One that is not there is fine.
    pub async fn del_route(&self, index: u32, destination: Cidr) -> Result<(), RouteError> {
        match limited(self.handle.route().del(route(index, destination)).execute()).await {
            Err(RouteError::Refused(Errno::ESRCH | Errno::ENODEV)) => Ok(()),
            result => result,
        }
    }

    /// The destinations that we routed to a link.
    pub async fn routes(&self, index: u32) -> Result<BTreeSet<Cidr>, RouteError> {
        let ours = |message: &RouteMessage| {
            message.header.protocol == RouteProtocol::Other(PROTOCOL) && hops(message).iter().any(|hop| hop.0 == index)
        };
        Ok(self.main_table().await?.iter().filter(|m| ours(m)).filter_map(destination).collect())
    }

    /// The host's own network, seen from the connection `own`.
    pub async fn host_facts(&self, own: &Own, resolvers: BTreeSet<IpAddr>) -> Result<HostFacts, RouteError> {
        let mut names = BTreeMap::new();
        for link in all(self.handle.link().get().execute()).await? {
            let name = link.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name.clone()),
                _ => None,
            });
            names.extend(name.map(|name| (link.header.index, name)));
        }
        // The kernel counts links upwards.
        let index_of_ours = names.iter().find(|(_, name)| **name == own.device).map(|(index, _)| *index);
        let mut facts = HostFacts { resolvers, ..HostFacts::default() };
        for message in self.main_table().await? {
            let Some(destination) = destination(&message) else { continue };
            for (index, gateway) in hops(&message) {
                let Some(interface) = names.get(&index) else { continue };
                if own.minds_route(index_of_ours, interface, index, &destination) {
                    facts.gateways.extend(gateway);
                    facts.routes.insert(HostRoute { destination, interface: interface.clone(), gateway });
                }
            }
        }
        for message in all(self.handle.address().get().execute()).await? {
            let index = message.header.index;
            if !names.get(&index).is_some_and(|name| own.minds_link(index_of_ours, name, index)) {
                continue;
            }
            // On a point-to-point link, `Address` is the other end.
            let local = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(address) => Some(*address),
                _ => None,
            });
            let any = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            });
            let address = local.or(any).and_then(|address| Cidr::new(address, message.header.prefix_len).ok());
            facts.addresses.extend(address);
        }
        Ok(facts)
    }

    /// Unicast routes of the main table, both families.
    async fn main_table(&self) -> Result<Vec<RouteMessage>, RouteError> {
        let v4 = RouteMessageBuilder::<std::net::Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<std::net::Ipv6Addr>::new().build();
        let mut routes = all(self.handle.route().get(v4).execute()).await?;
        routes.extend(all(self.handle.route().get(v6).execute()).await?);
        routes.retain(|message| {
            message.header.kind == RouteType::Unicast
                && !message.header.flags.contains(RouteFlags::Cloned)
                && table(message) == u32::from(RouteHeader::RT_TABLE_MAIN)
        });
        Ok(routes)
    }
}

/// Ticks whenever links, addresses or routes of the host changed; closed when the kernel's messages end.
///
/// A tick means "read again". Messages that the kernel dropped count as a change. Must be called within a tokio runtime.
pub fn monitor() -> Result<mpsc::Receiver<()>, RouteError> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ];
    let (connection, handle, mut messages) =
        rtnetlink::new_multicast_connection(&groups).map_err(RouteError::Socket)?;
    tokio::spawn(connection);
    let (tick, ticks) = mpsc::channel(1);
    tokio::spawn(async move {
        // The connection lives as long as its handle.
        let _handle = handle;
        loop {
            tokio::select! {
                message = messages.next() => if message.is_none() { return },
                () = tick.closed() => return,
            }
            let more = async { while messages.next().await.is_some() {} };
            if timeout(DEBOUNCE, more).await.is_ok() {
                return;
            }
            // Full means that a tick waits already.
            tick.try_send(()).ok();
        }
    });
    Ok(ticks)
}

fn family(cidr: Cidr) -> AddressFamily {
    match cidr {
        Cidr::V4(_) => AddressFamily::Inet,
        Cidr::V6(_) => AddressFamily::Inet6,
    }
}

fn route(index: u32, destination: Cidr) -> RouteMessage {
    let protocol = RouteProtocol::Other(PROTOCOL);
    match destination.trunc() {
        Cidr::V4(net) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
            .destination_prefix(net.addr(), net.prefix_len())
            .output_interface(index)
            .scope(RouteScope::Link)
            .protocol(protocol)
            .build(),
        Cidr::V6(net) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
            .destination_prefix(net.addr(), net.prefix_len())
            .output_interface(index)
            .protocol(protocol)
            .build(),
    }
}

fn table(message: &RouteMessage) -> u32 {
    let long = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    long.unwrap_or(u32::from(message.header.table))
}

fn destination(message: &RouteMessage) -> Option<Cidr> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => ip(address),
        _ => None,
    });
    let unspecified: IpAddr = match message.header.address_family {
        AddressFamily::Inet => std::net::Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    Cidr::new(address.unwrap_or(unspecified), message.header.destination_prefix_length).ok()
}

/// Link and gateway of each next hop.
fn hops(message: &RouteMessage) -> Vec<(u32, Option<IpAddr>)> {
    let mut hops = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => hops.push((*index, gateway(&message.attributes))),
            RouteAttribute::MultiPath(paths) => {
                hops.extend(paths.iter().map(|path| (path.interface_index, gateway(&path.attributes))));
            }
            _ => {}
        }
    }
    hops
}

fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet(address)) => Some((*address).into()),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some((*address).into()),
        _ => None,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
