//! From watched objects to the facts that are told. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::facts::{Fact, Key, Kind, WatchId};
use super::watched::Watched;
use crate::cluster::{ClusterInfo, ClusterRecords, EndpointRecord, PodFact, PodPhase, PodSnapshot, ServiceRecord};
use crate::net::cidr::Cidr;

/// Services that are the cluster's DNS, by namespace and name.
const DNS_SERVICES: [(&str, &str); 4] = [
    ("kube-system", "kube-dns"),
    ("kube-system", "coredns"),
    ("kube-system", "rke2-coredns-rke2-coredns"),
    ("openshift-dns", "dns-default"),
];
/// The domain of nearly every cluster; no object says another.
const DOMAIN: &str = "cluster.local";

/// All watches.
pub type Watches = BTreeMap<WatchId, Watched>;

/// The pods in sight.
pub fn pods(watches: &Watches, namespaces: Option<BTreeSet<Arc<str>>>) -> PodSnapshot {
    PodSnapshot { pods: pod_facts(watches).map(|pod| (pod.uid.clone(), Arc::clone(pod))).collect(), namespaces }
}

/// Ranges and names.
pub fn info(watches: &Watches) -> ClusterInfo {
    let mut info = ClusterInfo {
        service_cidrs: ranges(watches, Kind::ServiceCidrs),
        pod_cidrs: ranges(watches, Kind::Nodes),
        dns_ips: BTreeSet::new(),
        domain: DOMAIN.into(),
        complete: true,
    };
    if info.service_cidrs.is_empty() {
        info.service_cidrs = services(watches).flat_map(|(_, s)| s.cluster_ips.iter().copied()).map(host).collect();
    }
    if info.pod_cidrs.is_empty() {
        let own = pod_facts(watches).filter(|pod| !pod.host_network && lives(pod));
        info.pod_cidrs = own.flat_map(|pod| pod.ips.iter().copied()).map(host).collect();
    }
    for (key, service) in services(watches) {
        if DNS_SERVICES.contains(&(&*key.0, &*key.1)) {
            info.dns_ips.extend(service.cluster_ips.iter().copied());
        }
    }
    info
}

/// What Dns answers.
pub fn records(
    watches: &Watches,
    namespaces: Option<BTreeSet<Arc<str>>>,
    interest: &BTreeSet<Arc<str>>,
) -> ClusterRecords {
    let mut endpoints: BTreeMap<(Arc<str>, Arc<str>), Vec<EndpointRecord>> = BTreeMap::new();
    for (key, fact) in objects(watches, Kind::Slices) {
        let Fact::Slice(slice) = fact else { continue };
        let of_service = endpoints.entry((Arc::clone(&key.0), Arc::clone(&slice.service))).or_default();
        of_service.extend(slice.ready.iter().map(|address| EndpointRecord {
            ip: address.ip,
            hostname: address.hostname.clone(),
            pod: address.pod.clone(),
            ports: Arc::clone(&slice.ports),
        }));
    }
    let services = services(watches).map(|(key, service)| {
        let record = match endpoints.remove(key) {
            Some(endpoints) => Arc::new(ServiceRecord { endpoints, ..ServiceRecord::clone(service) }),
            None => Arc::clone(service),
        };
        (key.clone(), record)
    });
    let services = services.collect();
    let own = pod_facts(watches).filter(|pod| !pod.host_network && lives(pod));
    let pods: BTreeMap<IpAddr, (Arc<str>, Arc<str>)> = own
        .flat_map(|pod| pod.ips.iter().map(|ip| (*ip, (Arc::clone(&pod.namespace), Arc::clone(&pod.name)))))
        .collect();
    let named = objects(watches, Kind::Namespaces).map(|(key, _)| Arc::clone(&key.1));
    let mut known: BTreeSet<Arc<str>> = named.collect();
    if known.is_empty() {
        let seen = [Kind::Pods, Kind::Services].into_iter().flat_map(|kind| objects(watches, kind));
        known.extend(seen.map(|(key, _)| Arc::clone(&key.0)));
        known.extend(interest.iter().cloned());
    }
    ClusterRecords { services, pods, namespaces, known_namespaces: known, complete: true }
}

fn lives(pod: &PodFact) -> bool {
    match pod.phase {
        PodPhase::Pending | PodPhase::Running | PodPhase::Unknown => true,
        // Their addresses may already belong to others.
        PodPhase::Succeeded | PodPhase::Failed => false,
    }
}

fn host(ip: IpAddr) -> Cidr {
    Cidr::from(ip)
}

fn ranges(watches: &Watches, kind: Kind) -> BTreeSet<Cidr> {
    let facts = objects(watches, kind).filter_map(|(_, fact)| match fact {
        Fact::Ranges(ranges) => Some(ranges),
        Fact::Pod(_) | Fact::Service(_) | Fact::Slice(_) | Fact::Exists => None,
    });
    facts.flat_map(|ranges| ranges.iter().copied()).collect()
}

fn services(watches: &Watches) -> impl Iterator<Item = (&Key, &Arc<ServiceRecord>)> {
    objects(watches, Kind::Services).filter_map(|(key, fact)| match fact {
        Fact::Service(service) => Some((key, service)),
        Fact::Pod(_) | Fact::Slice(_) | Fact::Ranges(_) | Fact::Exists => None,
    })
}

fn pod_facts(watches: &Watches) -> impl Iterator<Item = &Arc<PodFact>> {
    objects(watches, Kind::Pods).filter_map(|(_, fact)| match fact {
        Fact::Pod(pod) => Some(pod),
        Fact::Service(_) | Fact::Slice(_) | Fact::Ranges(_) | Fact::Exists => None,
    })
}

fn objects(watches: &Watches, kind: Kind) -> impl Iterator<Item = (&Key, &Fact)> {
    watches.iter().filter(move |(id, _)| id.kind == kind).flat_map(|(_, watched)| watched.objects.iter())
}
