//! From what is wanted and what the host has to the routes on the device: pure set algebra.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::net::cidr::{Cidr, covers, minimal, overlaps, subtract};
use crate::net::views::Target;
use crate::spec::{RangeSelector, ViaRule};
use crate::workload::Workload;

/// Never routed: this host, loopback, link-local, multicast, broadcast.
const NEVER: [&str; 9] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "255.255.255.255/32",
    "::/128",
    "::1/128",
    "fe80::/10",
    "ff00::/8",
];

/// Whether a destination stands for "everything else". VPNs write a default route as two halves or more.
pub fn is_default(cidr: &Cidr) -> bool {
    match cidr {
        Cidr::V4(v4) => v4.prefix_len() <= 1,
        Cidr::V6(v6) => v6.prefix_len() <= 3,
    }
}

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
    /// Whether a device of ours may have an IPv6 address.
    pub ipv6: Ipv6,
}

/// Whether the host takes part in IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ipv6 {
    /// It does.
    #[default]
    On,
    /// It was built or booted without, or `disable_ipv6` is set.
    Off,
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

/// One range, for people.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RangeStatus {
    /// The range.
    pub cidr: Cidr,
    /// `service`, `pods`, `also`, or the rule's own CIDR as text.
    pub source: String,
    /// What happens to it.
    pub treatment: Treatment,
}

/// What happens to a range.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Treatment {
    /// Routed to the device as it is.
    Routed,
    /// Translated to virtual addresses, sent through the target.
    Translated {
        /// Through whom.
        target: Target,
        /// The host route it clashes with (`10.0.0.0/8 via wg0`), when that is the reason.
        conflict: Option<String>,
    },
    /// Kept off the device; says why.
    Excluded {
        /// Why.
        why: String,
    },
}

/// Everything that decides over ranges.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// `--proxy-via`, in the order given.
    pub rules: &'a [ViaRule<Workload>],
    /// `--vnat`.
    pub vnat: &'a [RangeSelector],
    /// `--also-proxy`.
    pub also: &'a [Cidr],
    /// `--never-proxy`.
    pub never: &'a [Cidr],
    /// `--allow-conflicting-subnets`.
    pub allow: &'a [Cidr],
    /// Addresses of the API server.
    pub api_server: &'a BTreeSet<IpAddr>,
    /// The cluster's service ranges.
    pub service: &'a BTreeSet<Cidr>,
    /// The cluster's pod ranges.
    pub pods: &'a BTreeSet<Cidr>,
    /// The host's own network.
    pub host: &'a HostFacts,
}

/// What happens to an address of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is handed out as it is.
    Plain,
    /// It gets a virtual address.
    Translated(Target),
    /// It is in none of the ranges.
    Foreign,
}

/// What was decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decisions {
    /// Each range and what happens to it: rules in the order given, then also, service and pods.
    pub ranges: Vec<RangeStatus>,
    /// Real ranges routed to the device, minimal and disjoint.
    pub routed: BTreeSet<Cidr>,
    rules: Vec<(Cidr, Target)>,
    cluster: Vec<(Cidr, (Treatment, BTreeSet<Cidr>))>,
    protected: BTreeSet<Cidr>,
    never: BTreeSet<Cidr>,
}

impl Decisions {
    /// What happens to `address`: rules first, longest prefix first, then declared order.
    pub fn place(&self, address: IpAddr) -> Place {
        let address = Cidr::from(address);
        if let Some((rule, target)) = winner(&self.rules, &address) {
            // Of a rule and a never-proxy the longer prefix wins, as between rules.
            let never = |never: &Cidr| covers(never, &address) && never.prefix_len() > rule.prefix_len();
            return if self.never.iter().any(never) { Place::Plain } else { Place::Translated(target.clone()) };
        }
        match winner(&self.cluster, &address).map(|(_, value)| value) {
            // A clash moves a range to virtual addresses; never-proxy leaves its part of it where it was.
            Some((Treatment::Translated { conflict: Some(_), .. }, never))
                if never.iter().any(|never| covers(never, &address)) =>
            {
                Place::Plain
            }
            Some((Treatment::Translated { target, .. }, _)) => Place::Translated(target.clone()),
            Some((Treatment::Routed | Treatment::Excluded { .. }, _)) => Place::Plain,
            None => Place::Foreign,
        }
    }

    /// Ranges whose addresses get virtual ones.
    pub fn translated(&self) -> BTreeSet<Cidr> {
        let is = |range: &&RangeStatus| matches!(range.treatment, Treatment::Translated { .. });
        self.ranges.iter().filter(is).map(|range| range.cidr).collect()
    }

    /// Whether some traffic goes through no workload of its own.
    pub fn wants_general(&self) -> bool {
        self.ranges.iter().any(|range| match &range.treatment {
            Treatment::Routed => true,
            Treatment::Translated { target, .. } => *target == Target::General,
            Treatment::Excluded { .. } => false,
        })
    }
}

/// Of the ranges that cover `cidr`, the longest; of equal ones the first.
fn winner<'a, T>(ranges: &'a [(Cidr, T)], cidr: &Cidr) -> Option<&'a (Cidr, T)> {
    let mut best: Option<&(Cidr, T)> = None;
    for range in ranges.iter().filter(|range| covers(&range.0, cidr)) {
        if best.is_none_or(|b| b.0.prefix_len() < range.0.prefix_len()) {
            best = Some(range);
        }
    }
    best
}

impl Wanted<'_> {
    /// The ranges that a selector stands for now, and their source. Loopback in the cluster's ranges is no range.
    pub fn expand(&self, selector: RangeSelector) -> Vec<(Cidr, String)> {
        let name = |cidrs: &mut dyn Iterator<Item = &Cidr>, source: &str| -> Vec<(Cidr, String)> {
            cidrs.map(|cidr| (cidr.trunc(), source.to_owned())).collect()
        };
        match selector {
            RangeSelector::Cidr(cidr) => vec![(cidr.trunc(), cidr.to_string())],
            RangeSelector::Also => name(&mut self.also.iter(), "also"),
            RangeSelector::Service => name(&mut self.service.iter().filter(|c| !c.addr().is_loopback()), "service"),
            RangeSelector::Pods => name(&mut self.pods.iter().filter(|c| !c.addr().is_loopback()), "pods"),
            RangeSelector::All => [RangeSelector::Also, RangeSelector::Pods, RangeSelector::Service]
                .into_iter()
                .flat_map(|selector| self.expand(selector))
                .collect(),
        }
    }

    /// Single addresses that are never routed: the API server, gateways, resolvers, the host's own.
    pub fn protected(&self) -> BTreeSet<Cidr> {
        let host = self.host;
        let own = host.addresses.iter().map(|cidr| Cidr::from(cidr.addr()));
        let others = self.api_server.iter().chain(&host.gateways).chain(&host.resolvers).map(|a| Cidr::from(*a));
        let hops = host.routes.iter().filter_map(|route| route.gateway).map(Cidr::from);
        own.chain(others).chain(hops).collect()
    }

    /// Why nothing of `cidr` can be carried on this host, whatever is wanted.
    fn off(&self, cidr: &Cidr) -> Option<&'static str> {
        (self.host.ipv6 == Ipv6::Off && matches!(cidr, Cidr::V6(_))).then_some("IPv6 is off on this host")
    }

    /// What `--never-proxy` takes from `cidr`: an also-proxy smaller than the never-proxy stays.
    fn never_of(&self, cidr: &Cidr, source: &str) -> BTreeSet<Cidr> {
        let wins = |never: &Cidr| source == "also" && never != cidr && covers(never, cidr);
        self.never.iter().map(Cidr::trunc).filter(|never| !wins(never)).collect()
    }

    /// The part of `cidr` that may be routed, and how it clashes with the host.
    fn treat(&self, cidr: &Cidr, source: &str) -> (Treatment, BTreeSet<Cidr>) {
        let excluded = |why: &str| (Treatment::Excluded { why: why.to_owned() }, BTreeSet::new());
        if is_default(cidr) {
            return excluded("a default route would take every connection");
        }
        if let Some(why) = self.off(cidr) {
            return excluded(why);
        }
        let special = NEVER.iter().filter_map(|text| text.parse().ok()).collect();
        let left = subtract(&BTreeSet::from([*cidr]), &special);
        if left.is_empty() {
            return excluded("loopback, link-local and multicast are never routed");
        }
        let left = subtract(&left, &self.never_of(cidr, source));
        if left.is_empty() {
            return excluded("never-proxy");
        }
        let left = subtract(&left, &self.protected());
        let allowed = |range: &Cidr| self.allow.iter().any(|allow| covers(allow, range));
        let clashes = |route: &&HostRoute| {
            !is_default(&route.destination) && left.iter().any(|part| overlaps(part, &route.destination))
        };
        if !allowed(cidr)
            && let Some(route) = self.host.routes.iter().find(clashes)
        {
            let conflict = Some(format!("{} via {}", route.destination, route.interface));
            return (Treatment::Translated { target: Target::General, conflict }, BTreeSet::new());
        }
        let links = self.host.addresses.iter().map(Cidr::trunc).filter(|link| !allowed(link)).collect();
        let left = subtract(&left, &links);
        if left.is_empty() {
            return excluded("the host's own addresses and links are never routed");
        }
        (Treatment::Routed, left)
    }

    /// Decides over every range.
    pub fn decide(&self) -> Decisions {
        let mut decisions = Decisions {
            protected: self.protected(),
            never: self.never.iter().map(Cidr::trunc).collect(),
            ..Decisions::default()
        };
        let same = |(earlier, _): &(Cidr, Target), cidr: &Cidr| earlier == cidr;
        let via = self.rules.iter().map(|rule| (rule.range, Target::Workload(rule.workload.clone())));
        for (selector, target) in via.chain(self.vnat.iter().map(|range| (*range, Target::General))) {
            for (cidr, source) in self.expand(selector) {
                let treatment = if cidr.prefix_len() == 0 || cidr.addr().is_multicast() {
                    Treatment::Excluded { why: "default and multicast ranges are never translated".to_owned() }
                } else if let Some(why) = self.off(&cidr) {
                    Treatment::Excluded { why: why.to_owned() }
                } else if cidr.addr().is_loopback()
                    && decisions.rules.iter().any(|rule| same(rule, &cidr) && rule.1 != target)
                {
                    // The names tell the workloads apart, and each has its virtual address.
                    Treatment::Translated { target: target.clone(), conflict: None }
                } else if decisions.rules.iter().any(|rule| same(rule, &cidr)) {
                    Treatment::Excluded { why: "an earlier rule has this range".to_owned() }
                } else {
                    decisions.rules.push((cidr, target.clone()));
                    Treatment::Translated { target: target.clone(), conflict: None }
                };
                decisions.ranges.push(RangeStatus { cidr, source, treatment });
            }
        }
        let ruled: BTreeSet<Cidr> = decisions.rules.iter().map(|(cidr, _)| *cidr).collect();
        let mut routed = Vec::new();
        for selector in [RangeSelector::Also, RangeSelector::Service, RangeSelector::Pods] {
            for (cidr, source) in self.expand(selector) {
                if ruled.contains(&cidr) {
                    continue;
                }
                let treatment = if let Some((_, target)) = winner(&decisions.rules, &cidr) {
                    Treatment::Translated { target: target.clone(), conflict: None }
                } else {
                    let (treatment, parts) = self.treat(&cidr, &source);
                    routed.extend(parts);
                    treatment
                };
                if !is_default(&cidr) {
                    let never = self.never_of(&cidr, &source);
                    decisions.cluster.push((cidr, (treatment.clone(), never)));
                }
                decisions.ranges.push(RangeStatus { cidr, source, treatment });
            }
        }
        decisions.routed = subtract(&minimal(&routed), &ruled);
        let excluded = |range: &&RangeStatus| matches!(range.treatment, Treatment::Excluded { .. });
        let holds =
            |range: &RangeStatus, never: &Cidr| !excluded(&range) && range.cidr != *never && covers(&range.cidr, never);
        let left_out: Vec<Cidr> = decisions
            .never
            .iter()
            .filter(|never| decisions.ranges.iter().any(|range| holds(range, never)))
            .copied()
            .collect();
        decisions.ranges.extend(left_out.into_iter().map(|cidr| RangeStatus {
            cidr,
            source: "never".to_owned(),
            treatment: Treatment::Excluded { why: "never-proxy".to_owned() },
        }));
        decisions
    }
}

/// The plan for the device: its addresses, each virtual range as one plain route, and what is routed as it is.
///
/// A virtual range that holds what is never routed is carved; ProxyVia chooses none such when there is another.
pub fn plan(decisions: &Decisions, virtual_ranges: &[Cidr], device_addresses: &[IpAddr]) -> RoutePlan {
    let virtual_ranges = subtract(&virtual_ranges.iter().copied().collect(), &decisions.protected);
    RoutePlan {
        addresses: device_addresses.iter().map(|address| Cidr::from(*address)).collect(),
        routes: minimal(decisions.routed.iter().chain(&virtual_ranges)),
    }
}

#[cfg(test)]
mod tests;
