//! Addresses of services: which families one has, and the next free addresses of the cluster's ranges.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use super::Refusal;
use crate::object::{entries, list, text};
use crate::resource::{SERVICE_CIDRS, SERVICES};
use crate::store::{Key, Objects};

/// Fills in `ipFamilyPolicy`, `ipFamilies`, `clusterIP` and `clusterIPs`. `before` is the service as it was.
pub fn allocate(service: &mut Value, key: &Key, before: Option<&Value>, objects: &Objects) -> Result<(), Refusal> {
    if text(service, "/spec/type") == "ExternalName" {
        let spec = entries(service, "/spec");
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            spec.remove(field);
        }
        return Ok(());
    }
    let ranges = ranges(objects);
    let families = families(service, &ranges).map_err(|why| invalid(key, &why))?;
    let policy = policy(service, &families);
    let headless = text(service, "/spec/clusterIP") == "None"
        || list(service, "/spec/clusterIPs").first().is_some_and(|address| address == "None");
    let addresses = if headless {
        vec!["None".to_owned()]
    } else {
        let wanted = wanted(service, before);
        let used = used(key, objects);
        let mut addresses = Vec::new();
        for family in &families {
            let own = wanted.iter().find(|address| address.is_ipv6() == family.is_ipv6()).copied();
            let address = match own {
                Some(own) if !family.contains(own) => {
                    let why = format!(
                        "spec.clusterIPs: Invalid value: [\"{own}\"]: failed to allocate IP {own}: the \
                                       provided network does not match the current range"
                    );
                    return Err(invalid(key, &why));
                }
                Some(own) if used.contains(&own) => {
                    let why = format!(
                        "spec.clusterIPs: Invalid value: [\"{own}\"]: failed to allocate IP {own}: \
                                       provided IP is already allocated"
                    );
                    return Err(invalid(key, &why));
                }
                Some(own) => own,
                None => family.free(&used).ok_or_else(|| invalid(key, "spec.clusterIPs: range is full"))?,
            };
            addresses.push(address.to_string());
        }
        addresses
    };
    let spec = entries(service, "/spec");
    spec.insert("clusterIP".to_owned(), json!(addresses.first()));
    spec.insert("clusterIPs".to_owned(), json!(addresses));
    spec.insert("ipFamilies".to_owned(), families.iter().map(Range::family).collect());
    spec.insert("ipFamilyPolicy".to_owned(), json!(policy));
    Ok(())
}

fn invalid(key: &Key, why: &str) -> Refusal {
    Refusal::Invalid(format!("Service \"{}\" is invalid: {why}", key.name))
}

/// A range of service addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: IpAddr,
    bits: u32,
}

impl Range {
    fn parse(text: &str) -> Option<Range> {
        let (address, length) = text.split_once('/')?;
        let first: IpAddr = address.parse().ok()?;
        let length: u32 = length.parse().ok()?;
        let bits = (if first.is_ipv4() { 32_u32 } else { 128 }).checked_sub(length)?;
        Some(Range { first, bits })
    }

    fn is_ipv6(&self) -> bool {
        self.first.is_ipv6()
    }

    fn family(&self) -> Value {
        json!(if self.is_ipv6() { "IPv6" } else { "IPv4" })
    }

    fn contains(&self, address: IpAddr) -> bool {
        let same = number(self.first) ^ number(address);
        self.is_ipv6() == address.is_ipv6() && same.checked_shr(self.bits).unwrap_or(0) == 0
    }

    /// The lowest free address. The first is the API server's and the tenth the DNS's, by convention: they are passed over.
    fn free(&self, used: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        let first = number(self.first);
        let end = 1_u128.checked_shl(self.bits).unwrap_or(u128::MAX).min(1 << 16);
        let mut offsets = (16..end).chain((2..end.min(16)).filter(|offset| *offset != 10));
        offsets.find_map(|offset| {
            let number = first.checked_add(offset)?;
            let address = if self.is_ipv6() {
                IpAddr::V6(Ipv6Addr::from_bits(number))
            } else {
                IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(number).ok()?))
            };
            (!used.contains(&address)).then_some(address)
        })
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The cluster's ranges, the first of each family, in the cluster's order.
fn ranges(objects: &Objects) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    let all = objects.iter().filter(|(key, _)| key.resource == &SERVICE_CIDRS);
    for range in all.flat_map(|(_, object)| list(object, "/spec/cidrs")) {
        let Some(range) = range.as_str().and_then(Range::parse) else { continue };
        if !ranges.iter().any(|known| known.is_ipv6() == range.is_ipv6()) {
            ranges.push(range);
        }
    }
    ranges
}

/// The ranges of the families that a service has: those it names, then what its policy adds.
fn families(service: &Value, ranges: &[Range]) -> Result<Vec<Range>, String> {
    let mut families = Vec::new();
    for name in list(service, "/spec/ipFamilies") {
        let Some(range) = ranges.iter().find(|range| range.family() == *name) else {
            return Err(format!("spec.ipFamilies[0]: Invalid value: {name}: not configured on this cluster"));
        };
        families.push(*range);
    }
    if families.is_empty() {
        // The one is the first of the many.
        let asked = service.pointer("/spec/clusterIP").into_iter().chain(list(service, "/spec/clusterIPs"));
        let asked: Vec<IpAddr> = asked.filter_map(|address| address.as_str()?.parse().ok()).collect();
        let of = |address: &IpAddr| ranges.iter().find(|range| range.is_ipv6() == address.is_ipv6());
        families.extend(asked.iter().filter_map(of));
        families.dedup();
    }
    if families.is_empty() {
        families.extend(ranges.first());
    }
    match text(service, "/spec/ipFamilyPolicy") {
        "RequireDualStack" if ranges.len() < 2 => Err(
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack \
                 services"
                .to_owned(),
        ),
        "PreferDualStack" | "RequireDualStack" => {
            families.extend(ranges.iter().filter(|range| !families.contains(range)).copied().collect::<Vec<_>>());
            Ok(families)
        }
        "SingleStack" => {
            families.truncate(1);
            Ok(families)
        }
        _ => Ok(families),
    }
}

fn policy(service: &Value, families: &[Range]) -> String {
    match text(service, "/spec/ipFamilyPolicy") {
        "" if families.len() > 1 => "RequireDualStack".to_owned(),
        "" => "SingleStack".to_owned(),
        policy => policy.to_owned(),
    }
}

/// Addresses that the service names, or had.
fn wanted(service: &Value, before: Option<&Value>) -> Vec<IpAddr> {
    let of = |object: &Value| -> Vec<IpAddr> {
        let one = object.pointer("/spec/clusterIP").into_iter();
        let all = one.chain(list(object, "/spec/clusterIPs"));
        all.filter_map(|address| address.as_str()?.parse().ok()).collect()
    };
    let named = of(service);
    before.map(of).into_iter().fold(named, |mut all, had| {
        all.extend(had);
        all
    })
}

/// Addresses of the other services.
fn used(own: &Key, objects: &Objects) -> BTreeSet<IpAddr> {
    let others = objects.iter().filter(|(key, _)| key.resource == &SERVICES && *key != own);
    let addresses = others.flat_map(|(_, service)| list(service, "/spec/clusterIPs"));
    addresses.filter_map(|address| address.as_str()?.parse().ok()).collect()
}
