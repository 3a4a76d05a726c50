//! What Dns knows, and whose name a name is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::actors::dns::messages::Configure;
use crate::actors::proxy_via::messages::TranslationChanged;
use crate::cluster::{ClusterInfo, ClusterRecords};
use crate::ids::Generation;
use crate::net::resolver::tlds;

/// The zone of names that podway itself invents (pod loopback).
pub(super) const OWN_ZONE: &str = "podway";

/// The newest version of every fact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub namespace: Arc<str>,
    pub suffixes: Vec<Arc<str>>,
    /// Whether names that are not ours come here too and go on to the host's servers.
    pub forwarding: bool,
    /// Domains of the workstation's own, whose names its own servers know.
    pub host_domains: Vec<Arc<str>>,
    pub records: (Generation, Arc<ClusterRecords>),
    pub info: (Generation, Arc<ClusterInfo>),
    pub translation: Option<TranslationChanged>,
}

/// Whose name it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the cluster's domain; the canonical name, under whatever short form it was asked.
    Cluster(Arc<str>),
    /// A single label, which may be a service of the connected namespace or a name of the host's network.
    Bare(Arc<str>),
    /// One of podway's own names.
    Own,
    /// Answered by the cluster's name servers only (`dns.include_suffixes`).
    Included,
    /// The name of an address.
    Reverse(IpAddr),
    /// Somebody else's.
    Elsewhere,
    /// Not to be told before the first facts are in.
    Unknown,
}

impl Facts {
    pub(super) fn configure(&mut self, configure: &Configure) {
        self.namespace = lower(&configure.namespace);
        self.suffixes = configure.include_suffixes.iter().map(|s| lower(s.trim_matches('.'))).collect();
        self.suffixes.retain(|suffix| !suffix.is_empty());
    }

    /// The cluster's domain without dots at the ends; `None` before it is known.
    pub(super) fn domain(&self) -> Option<&str> {
        Some(self.info.1.domain.trim_matches('.')).filter(|domain| !domain.is_empty())
    }

    pub(super) fn place(&self, name: &str) -> Place {
        if let Some(address) = reverse(name) {
            return Place::Reverse(address);
        }
        if within(name, OWN_ZONE) {
            return Place::Own;
        }
        if self.suffixes.iter().any(|suffix| within(name, suffix)) {
            return Place::Included;
        }
        let Some(domain) = self.domain() else { return Place::Unknown };
        if within(name, domain) {
            return Place::Cluster(name.into());
        }
        if name == "svc" || name.ends_with(".svc") {
            return Place::Cluster(format!("{name}.{domain}").into());
        }
        let Some((_, last)) = name.rsplit_once('.') else {
            if name.is_empty() || name == "localhost" || self.namespace.is_empty() {
                return Place::Elsewhere;
            }
            return Place::Bare(format!("{name}.{}.svc.{domain}", self.namespace).into());
        };
        if tlds::is_public(last) {
            return Place::Elsewhere;
        }
        if self.namespace_known(last) {
            return Place::Cluster(format!("{name}.svc.{domain}").into());
        }
        if self.records.1.complete { Place::Elsewhere } else { Place::Unknown }
    }

    /// Whether a namespace of this name is known to exist.
    pub(super) fn namespace_known(&self, namespace: &str) -> bool {
        let via = self.translation.as_ref().is_some_and(|t| t.namespaces.contains(namespace));
        *self.namespace == *namespace || via || self.records.1.known_namespaces.contains(namespace)
    }

    /// Whether absence of a service in this namespace means that there is none.
    pub(super) fn in_sight(&self, namespace: &str) -> bool {
        self.records.1.namespaces.as_ref().is_none_or(|seen| seen.contains(namespace))
    }

    /// Whether a name that is not ours is asked of the cluster's name servers when one of the cluster leads to it.
    pub(super) fn is_outside(&self, name: &str) -> bool {
        self.is_elsewhere(name) && !self.host_domains.iter().any(|domain| within(name, domain))
    }

    /// Whether it is somebody else's name for certain, and no single label.
    pub(super) fn is_elsewhere(&self, name: &str) -> bool {
        name.contains('.') && self.place(name) == Place::Elsewhere
    }

    /// Whether what is translated is known.
    pub(super) fn translation_ready(&self) -> bool {
        self.translation.as_ref().is_some_and(|t| t.ready)
    }

    /// Whether the address may be handed out as it is: nothing at all is translated, and it is the cluster's for certain.
    pub(super) fn plain(&self, address: IpAddr) -> bool {
        let nothing_translated = self.translation.as_ref().is_some_and(|t| t.ready && t.translated.is_empty());
        nothing_translated && self.of_the_cluster(address)
    }

    /// Whether the address lies within the cluster's ranges or is one of its pods.
    pub(super) fn of_the_cluster(&self, address: IpAddr) -> bool {
        let mut ranges = self.info.1.service_cidrs.iter().chain(&self.info.1.pod_cidrs);
        ranges.any(|range| range.contains(&address)) || self.records.1.pods.contains_key(&address)
    }

    /// Whether real addresses like this one are hidden behind virtual ones, so that the host may use it for itself.
    pub(super) fn translated(&self, address: IpAddr) -> bool {
        self.translation.as_ref().is_some_and(|t| t.translated.iter().any(|range| range.contains(&address)))
    }

    /// The name that a virtual address stands for.
    pub(super) fn virtual_name(&self, address: IpAddr) -> Option<Arc<str>> {
        self.translation.as_ref().and_then(|t| t.names.get(&address)).map(|name| lower(name.trim_end_matches('.')))
    }
}

/// Whether `name` is `zone` or below it.
pub(super) fn within(name: &str, zone: &str) -> bool {
    name.strip_suffix(zone).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Whether an address is of the Internet and none of a local network, so that a name outside the cluster may have it
/// (RFC 6890).
pub(super) fn public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => match v4.octets() {
            [0 | 10 | 127 | 224.., ..] | [169, 254, ..] | [192, 168, ..] | [192, 0, 0, _] => false,
            [100, 64..128, ..] | [172, 16..32, ..] | [198, 18 | 19, ..] => false,
            [..] => true,
        },
        // 6to4 and Teredo hold an IPv4 address, which may be any.
        IpAddr::V6(v6) => match v6.segments() {
            [0x2002, ..] | [0x2001, 0, ..] => false,
            [first, ..] => first & 0xe000 == 0x2000,
        },
    }
}

pub(super) fn lower(text: &str) -> Arc<str> {
    text.to_ascii_lowercase().into()
}

/// The address whose name is asked (RFC 1035 section 3.5, RFC 3596 section 2.5); `None` for partial ones.
fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = labels.split('.').map(|label| label.parse::<u8>().ok());
        let [d, c, b, a] = [octets.next()??, octets.next()??, octets.next()??, octets.next()??];
        return octets.next().is_none().then(|| Ipv4Addr::new(a, b, c, d).into());
    }
    let labels = name.strip_suffix(".ip6.arpa")?;
    let mut bits: u128 = 0;
    let mut count = 0_u32;
    for label in labels.split('.') {
        let &[digit] = label.as_bytes() else { return None };
        let nibble = char::from(digit).to_digit(16).filter(|_| count < 32)?;
        bits |= u128::from(nibble) << (4 * count);
        count += 1;
    }
    (count == 32).then(|| Ipv6Addr::from_bits(bits).into())
}
