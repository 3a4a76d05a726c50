//! From what is wanted and what the host has to the routes on the device: pure set algebra.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::net::cidr::Cidr;

/// What the host's own network looks like, our device left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostFacts {
    /// Routes that are not ours: destination, interface name, and whether there is a gateway.
    pub routes: BTreeSet<HostRoute>,
    /// Addresses of gateways.
    pub gateways: BTreeSet<IpAddr>,
    /// The host's own addresses with the prefix of their link.
    pub addresses: BTreeSet<Cidr>,
    /// Name servers the host uses.
    pub resolvers: BTreeSet<IpAddr>,
}

/// One route of the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostRoute {
    /// Destination; the default route has prefix length 0.
    pub destination: Cidr,
    /// Name of the interface.
    pub interface: String,
    /// The gateway, where there is one.
    pub gateway: Option<IpAddr>,
}

/// What the device shall carry.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoutePlan {
    /// The device's own addresses, each a /32 or /128.
    pub addresses: BTreeSet<Cidr>,
    /// Destinations routed to the device, minimal and disjoint.
    pub routes: BTreeSet<Cidr>,
}
