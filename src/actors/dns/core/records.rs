//! Answers from the watched objects, as CoreDNS's `kubernetes` plugin gives them (DNS-Based Service Discovery for
//! Kubernetes, schema 1.1.0; pods "verified").

use std::net::IpAddr;
use std::sync::Arc;

use super::TTL;
use super::facts::{Facts, OWN_ZONE, Place, within};
use crate::cluster::ServiceRecord;
use crate::net::dns_message::{Answer, Code, Data, Kind, Question, Record};

/// What the facts say to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// This, before translation.
    Answer(Answer),
    /// This, as it is: its addresses are virtual ones already.
    Virtual(Answer),
    /// The name stands for another one.
    Alias(Arc<str>),
    /// The cluster's name servers must be asked, by this name.
    Ask(Arc<str>),
    /// The host's own name servers must be asked.
    Host,
    /// Nobody answers that here.
    Refuse,
    /// The facts are not in yet.
    Wait,
}

/// One address of a service or an endpoint, with the port that it was found by.
struct Entry {
    target: String,
    address: IpAddr,
    port: Option<u16>,
}

impl Facts {
    pub(super) fn find(&self, question: &Question) -> Found {
        let elsewhere = || if self.forwarding { Found::Host } else { Found::Refuse };
        match self.place(&question.name) {
            Place::Unknown => Found::Wait,
            Place::Elsewhere => elsewhere(),
            Place::Own => Found::Virtual(self.own(question)),
            Place::Included if question.kind.is_binding() => Found::Answer(self.denial(Code::NoError, &question.name)),
            Place::Included => Found::Ask(question.name.clone()),
            Place::Reverse(address) => self.reverse(question, address).unwrap_or_else(elsewhere),
            Place::Cluster(canonical) => self.cluster(question, &canonical),
            Place::Bare(canonical) => match self.cluster(question, &canonical) {
                Found::Answer(answer) if answer.code == Code::NxDomain && self.forwarding => Found::Host,
                found @ (Found::Answer(_)
                | Found::Virtual(_)
                | Found::Alias(_)
                | Found::Ask(_)
                | Found::Host
                | Found::Refuse
                | Found::Wait) => found,
            },
        }
    }

    fn cluster(&self, question: &Question, canonical: &Arc<str>) -> Found {
        let (records, Some(domain)) = (&self.records.1, self.domain()) else { return Found::Wait };
        if !records.complete {
            return Found::Wait;
        }
        let deny = |code| Found::Answer(self.denial(code, domain));
        let inner = canonical.strip_suffix(domain).map_or("", |rest| rest.trim_end_matches('.'));
        let labels: Vec<&str> = if inner.is_empty() { Vec::new() } else { inner.rsplit('.').collect() };
        match labels[..] {
            [] => Found::Answer(self.apex(question, domain)),
            ["svc" | "pod"] => deny(Code::NoError),
            ["dns-version"] if question.kind == Kind::TXT => {
                Found::Answer(self.known(vec![record(&question.name, Data::Txt("1.1.0".into()))]))
            }
            ["dns-version"] => deny(Code::NoError),
            ["dns", "ns"] => Found::Answer(self.addresses(question, self.info.1.dns_ips.iter().copied())),
            ["svc" | "pod", namespace, ..] if !self.in_sight(namespace) => {
                if question.kind.is_binding() {
                    deny(Code::NoError)
                } else {
                    Found::Ask(canonical.clone())
                }
            }
            ["svc" | "pod", namespace] => {
                let exists =
                    self.namespace_known(namespace) || records.services.keys().any(|(of, _)| **of == *namespace);
                deny(if exists { Code::NoError } else { Code::NxDomain })
            }
            ["svc", namespace, service, ref rest @ ..] => {
                let found = records.services.get(&(Arc::from(namespace), Arc::from(service)));
                let Some(found) = found else { return deny(Code::NxDomain) };
                self.service(question, found, &format!("{service}.{namespace}.svc.{domain}"), rest)
            }
            ["pod", namespace, dashed] => {
                let address = undash(dashed).filter(|a| records.pods.get(a).is_some_and(|(of, _)| **of == *namespace));
                address.map_or_else(|| deny(Code::NxDomain), |a| Found::Answer(self.addresses(question, [a])))
            }
            [..] => deny(Code::NxDomain),
        }
    }

    fn service(&self, question: &Question, service: &ServiceRecord, base: &str, rest: &[&str]) -> Found {
        let deny = |code| Found::Answer(self.denial(code, self.domain().unwrap_or_default()));
        let (endpoint, port) = match *rest {
            [] => (None, None),
            [endpoint] => (Some(endpoint), None),
            [protocol, port] => match (protocol.strip_prefix('_'), port.strip_prefix('_')) {
                (Some(protocol), Some(port)) => (None, Some((port, protocol))),
                (Some(_) | None, _) => return deny(Code::NxDomain),
            },
            [..] => return deny(Code::NxDomain),
        };
        if let Some(target) = &service.external_name {
            let plain = endpoint.is_none() && port.is_none();
            let target = super::facts::lower(target.trim_end_matches('.'));
            return if plain { Found::Alias(target) } else { deny(Code::NxDomain) };
        }
        let entries = if service.headless || endpoint.is_some() {
            from_endpoints(service, base, endpoint, port)
        } else {
            from_cluster_ips(service, base, port)
        };
        if entries.is_empty() {
            return deny(Code::NxDomain);
        }
        match question.kind {
            Kind::SRV => Found::Answer(self.located(question, &entries)),
            _ => Found::Answer(self.addresses(question, entries.iter().map(|e| e.address))),
        }
    }

    /// SRV records with the addresses of their targets (RFC 2782). Weights share 100, as CoreDNS has it.
    fn located(&self, question: &Question, entries: &[Entry]) -> Answer {
        let weight = u16::try_from(100 / entries.len().max(1)).unwrap_or(1).max(1);
        let mut answer = self.known(Vec::new());
        for entry in entries {
            let Some(port) = entry.port else { continue };
            let target: Arc<str> = entry.target.as_str().into();
            let located = record(&question.name, Data::Srv { priority: 0, weight, port, target: target.clone() });
            let address = record(&target, entry.address.into());
            if !answer.answers.contains(&located) {
                answer.answers.push(located);
            }
            if !answer.additional.contains(&address) {
                answer.additional.push(address);
            }
        }
        if answer.answers.is_empty() { self.denial(Code::NoError, self.domain().unwrap_or_default()) } else { answer }
    }

    /// The addresses of the family asked; without one the name exists all the same (NODATA).
    fn addresses(&self, question: &Question, addresses: impl IntoIterator<Item = IpAddr>) -> Answer {
        let wanted = |a: &IpAddr| match question.kind {
            Kind::A => a.is_ipv4(),
            Kind::AAAA => a.is_ipv6(),
            _ => false,
        };
        let unique: std::collections::BTreeSet<IpAddr> = addresses.into_iter().filter(wanted).collect();
        if unique.is_empty() {
            return self.denial(Code::NoError, self.domain().unwrap_or_default());
        }
        self.known(unique.into_iter().map(|a| record(&question.name, a.into())).collect())
    }

    fn apex(&self, question: &Question, domain: &str) -> Answer {
        match question.kind {
            Kind::SOA => self.known(vec![self.soa(&question.name, domain)]),
            Kind::NS => self.known(vec![record(&question.name, Data::Ns(format!("ns.dns.{domain}").into()))]),
            _ => self.denial(Code::NoError, domain),
        }
    }

    /// Names of podway's own: the ones that virtual addresses are kept under.
    fn own(&self, question: &Question) -> Answer {
        let names = self.translation.as_ref().map(|t| t.names.clone()).unwrap_or_default();
        let same = |name: &str| name.trim_end_matches('.').eq_ignore_ascii_case(&question.name);
        let found: Vec<IpAddr> = names.iter().filter(|(_, name)| same(name)).map(|(a, _)| *a).collect();
        let below = |name: &str| within(&super::facts::lower(name.trim_end_matches('.')), &question.name);
        let exists = *question.name == *OWN_ZONE || names.values().any(|name| below(name));
        let mut answer = self.addresses(question, found.iter().copied());
        if answer.answers.is_empty() {
            answer = self.denial(if exists { Code::NoError } else { Code::NxDomain }, OWN_ZONE);
        }
        answer
    }

    /// The names of an address, or nothing if the address is none of the cluster's.
    fn reverse(&self, question: &Question, address: IpAddr) -> Option<Found> {
        let zone = if address.is_ipv4() { "in-addr.arpa" } else { "ip6.arpa" };
        let names = |names: Vec<Arc<str>>| match question.kind {
            Kind::PTR => {
                Found::Answer(self.known(names.into_iter().map(|n| record(&question.name, Data::Ptr(n))).collect()))
            }
            _ => Found::Answer(self.denial(Code::NoError, zone)),
        };
        if let Some(name) = self.virtual_name(address) {
            return Some(names(vec![name]));
        }
        if self.translated(address) {
            return None;
        }
        let Some(domain) = self.domain() else { return Some(Found::Wait) };
        let records = &self.records.1;
        if !records.complete {
            return Some(Found::Wait);
        }
        let mut services = records.services.iter();
        if let Some(((namespace, service), _)) = services.find(|(_, s)| s.cluster_ips.contains(&address)) {
            return Some(names(vec![format!("{service}.{namespace}.svc.{domain}").into()]));
        }
        let hosts = records.services.iter().flat_map(|((namespace, service), record)| {
            let named = record.endpoints.iter().filter(|e| e.ip == address).filter_map(|e| e.hostname.as_ref());
            named.map(move |host| Arc::from(format!("{host}.{service}.{namespace}.svc.{domain}")))
        });
        let hosts: std::collections::BTreeSet<Arc<str>> = hosts.collect();
        if !hosts.is_empty() {
            return Some(names(hosts.into_iter().collect()));
        }
        if let Some((namespace, _)) = records.pods.get(&address) {
            return Some(names(vec![format!("{}.{namespace}.pod.{domain}", dash(address)).into()]));
        }
        if !self.of_the_cluster(address) {
            return None;
        }
        let wholly_seen = records.namespaces.is_none();
        Some(if wholly_seen {
            Found::Answer(self.denial(Code::NxDomain, zone))
        } else {
            Found::Ask(question.name.clone())
        })
    }

    /// An answer of our own.
    pub(super) fn known(&self, answers: Vec<Record>) -> Answer {
        Answer { authoritative: true, answers, ..Answer::empty(Code::NoError) }
    }

    /// A denial with its SOA, so that it may be kept (RFC 2308 section 3).
    pub(super) fn denial(&self, code: Code, zone: &str) -> Answer {
        Answer { authoritative: true, authority: vec![self.soa(&zone.into(), zone)], ..Answer::empty(code) }
    }

    fn soa(&self, owner: &Arc<str>, zone: &str) -> Record {
        let serial = u32::try_from(self.records.0.0 & u64::from(u32::MAX)).unwrap_or(0);
        let primary = format!("ns.dns.{zone}").into();
        let mailbox = format!("hostmaster.{zone}").into();
        record(owner, Data::Soa { primary, mailbox, serial, minimum: TTL })
    }
}

fn from_cluster_ips(service: &ServiceRecord, base: &str, port: Option<(&str, &str)>) -> Vec<Entry> {
    let each = |address: IpAddr| {
        let ports = service.ports.iter().filter(move |p| matches(port, &p.name, &p.protocol));
        let mut entries: Vec<Entry> =
            ports.map(|p| Entry { target: base.to_owned(), address, port: Some(p.port) }).collect();
        if entries.is_empty() && port.is_none() {
            entries.push(Entry { target: base.to_owned(), address, port: None });
        }
        entries
    };
    service.cluster_ips.iter().copied().flat_map(each).collect()
}

fn from_endpoints(
    service: &ServiceRecord,
    base: &str,
    endpoint: Option<&str>,
    port: Option<(&str, &str)>,
) -> Vec<Entry> {
    let mut entries = Vec::new();
    for record in &service.endpoints {
        let host = record.hostname.as_deref().map_or_else(|| dash(record.ip), str::to_ascii_lowercase);
        if endpoint.is_some_and(|wanted| wanted != host) {
            continue;
        }
        let target = format!("{host}.{base}");
        let before = entries.len();
        for (_, _, number) in record.ports.iter().filter(|(name, protocol, _)| matches(port, name, protocol)) {
            entries.push(Entry { target: target.clone(), address: record.ip, port: Some(*number) });
        }
        if entries.len() == before && port.is_none() {
            entries.push(Entry { target, address: record.ip, port: None });
        }
    }
    entries
}

fn matches(wanted: Option<(&str, &str)>, name: &str, protocol: &str) -> bool {
    wanted.is_none_or(|(n, p)| n.eq_ignore_ascii_case(name) && p.eq_ignore_ascii_case(protocol))
}

pub(super) fn record(owner: &Arc<str>, data: Data) -> Record {
    Record { name: owner.clone(), ttl: TTL, data }
}

/// `10.42.0.7` as `10-42-0-7`, `fd00::1` as `fd00--1`.
fn dash(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

fn undash(label: &str) -> Option<IpAddr> {
    let four = label.replace('-', ".").parse::<std::net::Ipv4Addr>().map(IpAddr::V4);
    four.or_else(|_| label.replace('-', ":").parse::<std::net::Ipv6Addr>().map(IpAddr::V6)).ok()
}
