//! The cluster's network: namespaces, the pairs of devices between them, addresses, routes.
//!
//! ```text
//! workstation                 node                                  pods
//! eth0 192.0.2.2 ────── lan0 192.0.2.1                veth… ────── eth0 10.42.0.x, fd42::x
//!                            192.0.2.53 name server   veth… ────── eth0
//!                       lo   10.41.0.1 the node       site0 ────── 198.51.100.10 a server elsewhere
//!                                                     none0 ────── where services without endpoints end
//! ```
//!
//! Everything is routed; the node forwards, but nothing from the workstation. There is no translation of addresses: a
//! service's address is an address of each of its backends too.

mod addresses;
mod netlink;
mod netns;
mod node;
#[cfg(test)]
pub(crate) mod tests;

pub use addresses::*;
pub use netlink::{Hop, NetError, Netlink};
pub use netns::NetNs;
pub use node::{ETH0, NodeNet, PodNet};
