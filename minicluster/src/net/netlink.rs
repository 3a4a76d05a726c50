//! Devices, addresses and routes of one namespace, over rtnetlink. Every exchange has a time limit.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use futures_util::StreamExt as _;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use netlink_packet_route::route::{RouteHeader, RouteMessage, RouteScope, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use nix::errno::Errno;
use rtnetlink::{LinkUnspec, LinkVeth, RouteMessageBuilder, RouteNextHopBuilder};

use super::NetNs;

/// The longest exchange with the kernel: it waits where many namespaces end at once.
const LIMIT: Duration = Duration::from_secs(10);

/// The loopback device of each namespace.
pub(super) const LOOPBACK: u32 = 1;

/// The kernel's table of its own addresses.
pub(super) const TABLE_LOCAL: u8 = 255;

/// Why the kernel did not do it.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// No namespace, or no socket in it.
    #[error("network namespace: {0}")]
    Namespace(#[from] io::Error),
    /// The kernel refused.
    #[error("{what}: {errno}")]
    Refused {
        /// What was asked.
        what: String,
        /// Its answer.
        errno: Errno,
    },
    /// No answer, or a strange one.
    #[error("{what}: {cause}")]
    Netlink {
        /// What was asked.
        what: String,
        /// What came.
        cause: String,
    },
    /// All addresses are taken.
    #[error("no address is free")]
    Exhausted,
}

impl NetError {
    fn is(&self, wanted: Errno) -> bool {
        matches!(self, NetError::Refused { errno, .. } if *errno == wanted)
    }
}

/// One way of a route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hop {
    /// The device.
    pub index: u32,
    /// The router behind it; none where the destination is.
    pub via: Option<IpAddr>,
}

/// The kernel's network configuration in one namespace. Clones share a socket.
#[derive(Clone, Debug)]
pub struct Netlink(rtnetlink::Handle);

/// What a route does with packets.
enum Way<'a> {
    Hops(&'a [Hop]),
    Kind(RouteType),
}

impl Netlink {
    /// Opens a socket in `namespace`. Must be called within a tokio runtime.
    pub fn open(namespace: &NetNs) -> Result<Netlink, NetError> {
        let runtime = tokio::runtime::Handle::current();
        let (connection, handle, _) = namespace.run(|| {
            let _inside = runtime.enter();
            rtnetlink::new_connection()
        })?;
        tokio::spawn(connection);
        Ok(Netlink(handle))
    }

    /// Opens one in the namespace of the calling thread, which has to be in a runtime.
    pub fn here() -> Result<Netlink, NetError> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Netlink(handle))
    }

    /// Brings a device up.
    pub async fn up(&self, index: u32) -> Result<(), NetError> {
        let link = LinkUnspec::new_with_index(index).up().build();
        limited("link up", self.0.link().set(link).execute()).await
    }

    /// Makes a pair of devices, one here, up, the other in another namespace, down.
    pub async fn pair(
        &self,
        name: &str,
        index: u32,
        there: &NetNs,
        peer: &str,
        peer_index: u32,
    ) -> Result<(), NetError> {
        let mut far = LinkUnspec::new_with_index(peer_index).name(peer).build();
        far.attributes.push(LinkAttribute::NetNsFd(there.file().as_raw_fd()));
        let mut near = LinkVeth::new(name, peer).index(index).up();
        near = near.set_info_data(InfoData::Veth(InfoVeth::Peer(far)));
        limited(&format!("veth {name}"), self.0.link().add(near.build()).execute()).await
    }

    /// Removes a device, and its peer. One that is not there is fine.
    pub async fn remove(&self, index: u32) -> Result<(), NetError> {
        match limited("link del", self.0.link().del(index).execute()).await {
            Err(error) if error.is(Errno::ENODEV) => Ok(()),
            result => result,
        }
    }

    /// Gives a device an address, usable at once.
    pub async fn address(&self, index: u32, address: IpAddr, length: u8) -> Result<(), NetError> {
        let mut request = self.0.address().add(index, address, length);
        if address.is_ipv6() {
            request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        match limited(&format!("address {address}"), request.execute()).await {
            Err(error) if error.is(Errno::EEXIST) => {}
            result => result?,
        }
        if address.is_ipv6() { self.taken(address).await } else { Ok(()) }
    }

    /// Waits until packets to an address are for here. The kernel makes the route for one of IPv6 later, and when it has,
    /// it tells nobody.
    async fn taken(&self, address: IpAddr) -> Result<(), NetError> {
        const LOOK: Duration = Duration::from_millis(1);
        let message = route(address, 128, &Way::Hops(&[]), None, RouteHeader::RT_TABLE_UNSPEC)?;
        let look = async || {
            let answer = std::pin::pin!(self.0.route().get(message.clone()).execute()).next().await;
            answer.is_some_and(|answer| answer.is_ok_and(|answer| answer.header.kind == RouteType::Local))
        };
        limited(&format!("address {address}"), async {
            while !look().await {
                tokio::time::sleep(LOOK).await;
            }
            Ok(())
        })
        .await
    }

    /// Takes an address away. One that is not there is fine.
    pub async fn no_address(&self, index: u32, address: IpAddr, length: u8) -> Result<(), NetError> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.prefix_len = length;
        message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.attributes.push(AddressAttribute::Local(address));
        match limited(&format!("no address {address}"), self.0.address().del(message).execute()).await {
            Err(error) if error.is(Errno::EADDRNOTAVAIL) || error.is(Errno::ENODEV) => Ok(()),
            result => result,
        }
    }

    /// Routes a destination over one or several devices, in place of what was there. Flows are spread, each stays
    /// on its way. `source` is the address of what is sent from here.
    pub async fn route(&self, to: IpAddr, length: u8, hops: &[Hop], source: Option<IpAddr>) -> Result<(), NetError> {
        self.set(route(to, length, &Way::Hops(hops), source, RouteHeader::RT_TABLE_MAIN)?).await
    }

    /// Answers for a destination that there is no way to it.
    pub async fn unreachable(&self, to: IpAddr, length: u8) -> Result<(), NetError> {
        self.set(route(to, length, &Way::Kind(RouteType::Unreachable), None, RouteHeader::RT_TABLE_MAIN)?).await
    }

    /// Takes a whole range as addresses of this namespace.
    pub async fn local(&self, to: IpAddr, length: u8) -> Result<(), NetError> {
        self.set(route(to, length, &Way::Kind(RouteType::Local), None, TABLE_LOCAL)?).await
    }

    async fn set(&self, message: RouteMessage) -> Result<(), NetError> {
        let what = format!("route {:?}/{}", message.attributes.first(), message.header.destination_prefix_length);
        limited(&what, self.0.route().add(message).replace().execute()).await
    }

    /// Removes the route to a destination. One that is not there is fine.
    pub async fn no_route(&self, to: IpAddr, length: u8) -> Result<(), NetError> {
        let mut message = route(to, length, &Way::Hops(&[]), None, RouteHeader::RT_TABLE_MAIN)?;
        message.header.scope = RouteScope::NoWhere;
        match limited(&format!("no route {to}"), self.0.route().del(message).execute()).await {
            Err(error) if error.is(Errno::ESRCH) => Ok(()),
            result => result,
        }
    }

    /// Packets that come from `device`, to this range if one is given, are looked up in `table`; `None` refuses them.
    pub(super) async fn rule(
        &self,
        family: AddressFamily,
        priority: u32,
        from: Option<(&str, Option<(IpAddr, u8)>)>,
        table: Option<u8>,
    ) -> Result<(), NetError> {
        let message = rule(family, priority, from, table);
        let mut request = self.0.rule().add();
        *request.message_mut() = message;
        limited(&format!("rule {priority}"), request.execute()).await
    }

    /// Removes the rule that looks everything up in the table of local addresses before all others.
    pub(super) async fn no_first_rule(&self, family: AddressFamily) -> Result<(), NetError> {
        let message = rule(family, 0, None, Some(TABLE_LOCAL));
        limited("no first rule", self.0.rule().del(message).execute()).await
    }
}

fn rule(
    family: AddressFamily,
    priority: u32,
    from: Option<(&str, Option<(IpAddr, u8)>)>,
    table: Option<u8>,
) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family;
    message.header.table = table.unwrap_or(0);
    message.header.action = if table.is_some() { RuleAction::ToTable } else { RuleAction::Unreachable };
    message.attributes.push(RuleAttribute::Priority(priority));
    if let Some((device, to)) = from {
        message.attributes.push(RuleAttribute::Iifname(device.to_owned()));
        if let Some((address, length)) = to {
            message.header.dst_len = length;
            message.attributes.push(RuleAttribute::Destination(address));
        }
    }
    message
}

fn route(to: IpAddr, length: u8, way: &Way<'_>, source: Option<IpAddr>, table: u8) -> Result<RouteMessage, NetError> {
    let odd =
        |error: &dyn std::fmt::Debug| NetError::Netlink { what: format!("route {to}"), cause: format!("{error:?}") };
    let mut builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(to, length)
        .map_err(|error| odd(&error))?
        .table_id(table.into());
    match way {
        Way::Kind(kind) => {
            builder = builder.kind(*kind);
            if *kind == RouteType::Local {
                builder = builder.scope(RouteScope::Host).output_interface(LOOPBACK);
            }
        }
        Way::Hops([]) => {}
        Way::Hops([hop]) => {
            builder = builder.output_interface(hop.index);
            match hop.via {
                Some(via) => builder = builder.gateway(via).map_err(|error| odd(&error))?.onlink(),
                None if to.is_ipv4() => builder = builder.scope(RouteScope::Link),
                None => {}
            }
        }
        Way::Hops(hops) => {
            let mut all = Vec::new();
            for hop in *hops {
                let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
                let mut next = RouteNextHopBuilder::new(family).interface(hop.index);
                if let Some(via) = hop.via {
                    next = next.via(via).map_err(|error| odd(&error))?.onlink();
                }
                all.push(next.build());
            }
            builder = builder.multipath(all);
        }
    }
    if let Some(source) = source {
        builder = builder.pref_source(source).map_err(|error| odd(&error))?;
    }
    Ok(builder.build())
}

/// All packets, as a destination.
pub(super) fn everything(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

async fn limited<T>(what: &str, work: impl Future<Output = Result<T, rtnetlink::Error>>) -> Result<T, NetError> {
    match tokio::time::timeout(LIMIT, work).await {
        Ok(Err(rtnetlink::Error::NetlinkError(message))) => {
            Err(NetError::Refused { what: what.to_owned(), errno: Errno::from_raw(message.raw_code().abs()) })
        }
        Ok(result) => result.map_err(|error| NetError::Netlink { what: what.to_owned(), cause: error.to_string() }),
        Err(_) => Err(NetError::Netlink { what: what.to_owned(), cause: "the kernel did not answer".to_owned() }),
    }
}
