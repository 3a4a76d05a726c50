//! What ProxyVia takes, and what it tells.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::actors::shell::{Reply, told};
use crate::ids::Generation;
use crate::net::cidr::Cidr;
use crate::net::route_plan::{HostFacts, Ipv6, RoutePlan};
pub use crate::net::route_plan::{RangeStatus, Treatment};
use crate::spec::{RangeSelector, ViaRule};
use crate::workload::Workload;

/// Session → ProxyVia. Replaces all rules; symbols stay symbolic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SelectProxyVia {
    /// `--proxy-via`, resolved, in the order given.
    pub rules: Vec<ViaRule<Workload>>,
    /// `--vnat`.
    pub vnat: Vec<RangeSelector>,
    /// `--also-proxy`.
    pub also_proxy: Vec<Cidr>,
    /// `--never-proxy`.
    pub never_proxy: Vec<Cidr>,
    /// `--allow-conflicting-subnets`.
    pub allow_conflicting: Vec<Cidr>,
    /// Addresses of the API server (and its proxy), never routed to the device.
    pub api_server: BTreeSet<IpAddr>,
}

/// Vif → ProxyVia. Fact: the host's own network, our device left out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostFactsChanged {
    /// Version.
    pub generation: Generation,
    /// The facts.
    pub facts: Arc<HostFacts>,
}

/// Data plane → ProxyVia, at most once a second. Fact: the virtual addresses that flows use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VipsInUseChanged {
    /// The addresses.
    pub vips: BTreeSet<IpAddr>,
}

/// Real to handed-out address, or why there is none.
pub type Allocation = Result<BTreeMap<IpAddr, IpAddr>, AllocateError>;

/// Dns → ProxyVia. Translate the addresses of one answer. The VIP table is published before the reply.
#[derive(Debug)]
pub struct AllocateVips {
    /// The name asked for, kept with the VIPs for PTR and display.
    pub name: Arc<str>,
    /// The real addresses.
    pub addresses: Vec<IpAddr>,
    /// Real to handed-out address (the same where nothing is translated), or why there is none.
    pub reply: Reply<Allocation>,
}

/// Why an answer cannot be translated; the question is then answered SERVFAIL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum AllocateError {
    /// The ranges are not known yet.
    #[error("the cluster's ranges are not known yet")]
    NotReady,
    /// Every virtual address is in use.
    #[error("all virtual addresses are in use")]
    Exhausted,
    /// An address that no answer may hold (rebinding guard).
    #[error("{0} is no address of the cluster")]
    Foreign(IpAddr),
}

/// ProxyVia → Vif. Fact: what the device shall carry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoutePlanChanged {
    /// Version.
    pub generation: Generation,
    /// The plan.
    pub plan: RoutePlan,
}

/// ProxyVia → Dns. Fact: which ranges are translated, and the addresses at which Dns is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TranslationChanged {
    /// Version.
    pub generation: Generation,
    /// Translated ranges.
    pub translated: BTreeSet<Cidr>,
    /// Ranges of virtual addresses.
    pub virtual_ranges: Vec<Cidr>,
    /// DNS addresses on the device, of each family that it has.
    pub dns_addresses: Vec<IpAddr>,
    /// Names of the live VIPs, for PTR.
    pub names: Arc<BTreeMap<IpAddr, Arc<str>>>,
    /// Namespaces of the via workloads, for search domains.
    pub namespaces: BTreeSet<Arc<str>>,
    /// Whether the ranges of all symbols in the rules are known.
    pub ready: bool,
}

/// ProxyVia → Session. Fact: ranges and VIPs, for status and readiness.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ViaChanged {
    /// Version.
    pub generation: Generation,
    /// State.
    pub state: ViaState,
}

/// Ranges and VIPs as they stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ViaState {
    /// Each range, what it came from, and what happens to it.
    pub ranges: Vec<RangeStatus>,
    /// VIP range per family.
    pub virtual_ranges: Vec<Cidr>,
    /// VIPs in use and how many there can be.
    pub vips_in_use: usize,
    /// Capacity of all virtual ranges.
    pub vips_capacity: u64,
    /// VIPs that have a fixed meaning from connect on (pod loopback): VIP, real address, workload, name.
    pub fixed: Vec<(IpAddr, IpAddr, Workload, String)>,
    /// Generation of the route plan that belongs to this state.
    pub plan: Generation,
    /// Whether the host takes part in IPv6.
    pub ipv6: Ipv6,
    /// Whether every rule's range is known and routed as planned.
    pub ready: bool,
}

told!(
    SelectProxyVia,
    HostFactsChanged,
    AllocateVips,
    RoutePlanChanged,
    TranslationChanged,
    ViaChanged,
    VipsInUseChanged
);
