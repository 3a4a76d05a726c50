//! The read-only tables that actors publish for the data plane.
//!
//! One writer each, through `tokio::sync::watch` as `Arc` snapshots. Readers wait for a condition on the value, never
//! for "it changed".

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::ids::Generation;
use crate::net::agent::AgentLink;
use crate::net::cidr::Cidr;
use crate::workload::{PodUid, Workload};

/// Through whom a destination is reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// Through a pod of this workload, and nothing else.
    Workload(Workload),
    /// Through the default egress.
    General,
}

/// The links that work now. Written by ClientList.
#[derive(Clone, Debug, Default)]
pub struct ClientTable {
    /// Number of this version.
    pub generation: Generation,
    /// Usable links by workload, in a stable order (by pod name).
    pub workloads: BTreeMap<Workload, Vec<LinkEntry>>,
    /// The links of the default egress, in the order of preference; empty while there is none.
    pub general: Vec<LinkEntry>,
    /// Usable links by the address of their pod: a destination that is such a pod is dialled by itself.
    pub by_pod_ip: HashMap<IpAddr, LinkEntry>,
    /// Targets to which there will be no link unless something changes, and why.
    pub hopeless: BTreeMap<Target, Arc<str>>,
}

/// A usable link.
#[derive(Clone, Debug)]
pub struct LinkEntry {
    /// The pod its agent lives in.
    pub pod: PodUid,
    /// `namespace/name` of that pod, for people.
    pub pod_name: Arc<str>,
    /// The link.
    pub link: Arc<dyn AgentLink>,
}

impl ClientTable {
    /// The links that may carry a flow to `target`, best first; sticky per destination, so that one destination keeps
    /// its exit while the set of links stays the same.
    pub fn candidates(&self, target: &Target, destination: IpAddr) -> Vec<LinkEntry> {
        let (links, own): (&[LinkEntry], Option<&LinkEntry>) = match target {
            Target::Workload(workload) => (self.workloads.get(workload).map_or(&[], Vec::as_slice), None),
            Target::General => (&self.general, self.by_pod_ip.get(&destination)),
        };
        let start = if links.is_empty() { 0 } else { sticky(destination) % links.len() };
        let rotated = links.iter().skip(start).chain(links.iter().take(start));
        own.into_iter().chain(rotated.filter(|l| own.is_none_or(|o| o.pod != l.pod))).cloned().collect()
    }
}

/// A number that depends on the address alone (FNV-1a).
fn sticky(address: IpAddr) -> usize {
    let fold = |bytes: &[u8]| {
        bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
    };
    let hash = match address {
        IpAddr::V4(a) => fold(&a.octets()),
        IpAddr::V6(a) => fold(&a.octets()),
    };
    usize::try_from(hash >> 33).unwrap_or(0)
}

/// What virtual addresses stand for. Written by ProxyVia.
#[derive(Clone, Debug, Default)]
pub struct VipTable {
    /// Number of this version.
    pub generation: Generation,
    /// Virtual address to what it stands for.
    pub vips: HashMap<IpAddr, VipEntry>,
    /// The ranges virtual addresses come from: an address in one that is not in `vips` is refused at once.
    pub virtual_ranges: Vec<Cidr>,
    /// The device's own addresses: the only sources taken from the device.
    pub device_addresses: Vec<IpAddr>,
    /// Addresses at which DNS queries are taken out of the packet path.
    pub dns_addresses: Vec<IpAddr>,
    /// Real ranges routed to the device as they are.
    pub routed: Vec<Cidr>,
    /// Pod ranges as far as known: a source within one is ourselves by a detour and refused (recursion guard).
    pub pod_ranges: Vec<Cidr>,
}

/// What one virtual address stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VipEntry {
    /// The address that the agent dials.
    pub real: IpAddr,
    /// Through whom.
    pub target: Target,
}

/// Where the data plane sends a new flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Dial `address` through `target`.
    Dial {
        /// The real address.
        address: IpAddr,
        /// Through whom.
        target: Target,
    },
    /// A DNS address of ours.
    Dns,
    /// A virtual address that stands for nothing, or an address never routed here: refuse at once.
    Nowhere,
}

impl VipTable {
    /// Decides where a flow to `address` goes.
    pub fn lookup(&self, address: IpAddr) -> Destination {
        if self.dns_addresses.contains(&address) {
            return Destination::Dns;
        }
        if let Some(entry) = self.vips.get(&address) {
            return Destination::Dial { address: entry.real, target: entry.target.clone() };
        }
        if self.virtual_ranges.iter().any(|range| range.contains(&address)) {
            return Destination::Nowhere;
        }
        if self.routed.iter().any(|range| range.contains(&address)) {
            return Destination::Dial { address, target: Target::General };
        }
        Destination::Nowhere
    }
}
