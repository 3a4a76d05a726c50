//! Virtual addresses: which stands for what. Pure.
//!
//! A virtual address starts at a hash of what it stands for, so it tends to be the same after a reconnect, and is never
//! given to anything else while the pool lives.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::net::cidr::{Cidr, covers, overlaps};
use crate::net::views::{Target, VipEntry};

/// Addresses at the base of a range that are never handed out.
const RESERVED: u64 = 256;

/// IPv4 ranges tried when the wanted one is taken.
const OTHERS_V4: [[u8; 2]; 6] = [[246, 246], [247, 246], [245, 246], [241, 246], [198, 18], [198, 19]];
/// IPv6 ranges tried when the wanted one is taken.
const OTHERS_V6: [u16; 3] = [0x246, 0x247, 0x248];

/// Every virtual address is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("all virtual addresses are in use")]
pub struct Exhausted;

/// The ranges that addresses may be drawn from: `wanted`, then a fixed list of the same family.
pub fn candidates(wanted: Cidr) -> Vec<Cidr> {
    let others: Vec<Cidr> = match wanted {
        Cidr::V4(_) => OTHERS_V4.iter().filter_map(|[a, b]| net(Ipv4Addr::new(*a, *b, 0, 0).into(), 16)).collect(),
        Cidr::V6(_) => {
            OTHERS_V6.iter().filter_map(|n| net(Ipv6Addr::new(0xfd00, 0, 0, *n, 0, 0, 0, 0).into(), 64)).collect()
        }
    };
    let wanted = wanted.trunc();
    std::iter::once(wanted).chain(others.into_iter().filter(|other| *other != wanted)).collect()
}

/// Whether nothing of `taken` overlaps `range`.
pub fn is_free(range: &Cidr, taken: &[Cidr]) -> bool {
    !taken.iter().any(|t| overlaps(t, range))
}

/// Whether a range in use cannot work beside `taken`: one of it takes packets out of the range, or needs an address in
/// it. A destination that is wider than the range takes none.
pub fn is_broken_by(range: &Cidr, taken: &[Cidr]) -> bool {
    taken.iter().any(|t| covers(range, t))
}

fn net(address: IpAddr, prefix: u8) -> Option<Cidr> {
    Cidr::new(address, prefix).ok()
}

/// The device's own address in a virtual range.
pub fn device_address(range: &Cidr) -> IpAddr {
    nth(range, 1)
}

/// The address at which names are asked in a virtual range.
pub fn dns_address(range: &Cidr) -> IpAddr {
    nth(range, 2)
}

/// How many virtual addresses a range has.
pub fn capacity(range: &Cidr) -> u64 {
    let bits = u32::from(range.max_prefix_len() - range.prefix_len());
    1_u64.checked_shl(bits).unwrap_or(u64::MAX).saturating_sub(RESERVED)
}

fn nth(range: &Cidr, offset: u64) -> IpAddr {
    match range.network() {
        IpAddr::V4(base) => {
            let offset = u32::try_from(offset).unwrap_or(u32::MAX);
            Ipv4Addr::from_bits(base.to_bits().saturating_add(offset)).into()
        }
        IpAddr::V6(base) => Ipv6Addr::from_bits(base.to_bits().saturating_add(offset.into())).into(),
    }
}

/// The virtual addresses of one family.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VipPool {
    range: Cidr,
    by_key: BTreeMap<VipEntry, IpAddr>,
    entries: BTreeMap<IpAddr, VipEntry>,
    names: BTreeMap<IpAddr, Arc<str>>,
}

impl VipPool {
    /// An empty pool over `range`.
    pub fn new(range: Cidr) -> VipPool {
        VipPool { range: range.trunc(), by_key: BTreeMap::new(), entries: BTreeMap::new(), names: BTreeMap::new() }
    }

    /// The range.
    pub fn range(&self) -> Cidr {
        self.range
    }

    /// Each virtual address in use, and what it stands for.
    pub fn entries(&self) -> &BTreeMap<IpAddr, VipEntry> {
        &self.entries
    }

    /// The name that first led to each virtual address.
    pub fn names(&self) -> &BTreeMap<IpAddr, Arc<str>> {
        &self.names
    }

    /// The virtual address of `real` through `target`: the one it has, or a new one.
    pub fn allocate(&mut self, real: IpAddr, target: &Target, name: &Arc<str>) -> Result<IpAddr, Exhausted> {
        let key = VipEntry { real, target: target.clone() };
        if let Some(vip) = self.by_key.get(&key) {
            return Ok(*vip);
        }
        let capacity = capacity(&self.range);
        if u64::try_from(self.entries.len()).unwrap_or(u64::MAX) >= capacity {
            return Err(Exhausted);
        }
        let start = hash(&key) % capacity;
        let offsets = (start..capacity).chain(0..start);
        let mut free = offsets.map(|n| nth(&self.range, RESERVED + n)).filter(|vip| !self.entries.contains_key(vip));
        let vip = free.next().ok_or(Exhausted)?;
        self.entries.insert(vip, key.clone());
        self.by_key.insert(key, vip);
        self.names.insert(vip, Arc::clone(name));
        Ok(vip)
    }
}

/// FNV-1a over the key as text, mixed so that neighbours part.
fn hash(key: &VipEntry) -> u64 {
    let via = match &key.target {
        Target::Workload(workload) => workload.to_string(),
        Target::General => String::new(),
    };
    let text = format!("{} {via}", key.real);
    let h = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    h ^ (h >> 29)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::workload::{Workload, WorkloadKind};

    fn pool(range: &str) -> VipPool {
        VipPool::new(range.parse().unwrap())
    }

    fn via(name: &str) -> Target {
        Target::Workload(Workload::new("demo", WorkloadKind::Deployment, name))
    }

    #[test]
    fn the_same_key_has_the_same_address_in_every_pool() {
        let (mut a, mut b) = (pool("246.246.0.0/16"), pool("246.246.0.0/16"));
        let real = "10.96.0.9".parse().unwrap();
        let first = a.allocate(real, &via("web"), &"web".into()).unwrap();
        assert_eq!(a.allocate(real, &via("web"), &"other".into()), Ok(first));
        b.allocate("10.96.0.77".parse().unwrap(), &via("web"), &"x".into()).unwrap();
        assert_eq!(b.allocate(real, &via("web"), &"web".into()), Ok(first));
        assert_ne!(a.allocate(real, &via("db"), &"web".into()), Ok(first));
        assert_eq!(&*a.names()[&first], "web");
    }

    #[test]
    fn a_full_range_refuses_only_what_is_new() {
        let mut pool = pool("246.246.0.0/23");
        let real = |n: u32| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + n));
        for n in 0..256 {
            pool.allocate(real(n), &Target::General, &"n".into()).unwrap();
        }
        assert_eq!(pool.allocate(real(999), &Target::General, &"n".into()), Err(Exhausted));
        assert!(pool.allocate(real(7), &Target::General, &"n".into()).is_ok());
        assert_eq!(capacity(&"fd00::/64".parse().unwrap()), u64::MAX - RESERVED);
    }

    #[test]
    fn the_first_free_range_is_found() {
        let first = |taken: &[&str]| {
            let taken: Vec<Cidr> = taken.iter().map(|text| text.parse().unwrap()).collect();
            let ranges = candidates("246.246.0.0/16".parse().unwrap());
            ranges.iter().find(|range| is_free(range, &taken)).map(Cidr::to_string)
        };
        assert_eq!(first(&["10.0.0.0/8"]).unwrap(), "246.246.0.0/16");
        assert_eq!(first(&["246.246.1.0/24"]).unwrap(), "247.246.0.0/16");
        assert_eq!(first(&["246.246.0.0/16", "247.246.0.9/32", "245.0.0.0/8"]).unwrap(), "241.246.0.0/16");
        assert_eq!(first(&["0.0.0.0/0"]), None);
    }

    #[test]
    fn only_what_takes_packets_out_of_a_range_breaks_it() {
        let broken = |taken: &str| is_broken_by(&"246.246.0.0/16".parse().unwrap(), &[taken.parse().unwrap()]);
        assert!(broken("246.246.0.0/16") && broken("246.246.3.0/24") && broken("246.246.0.9/32"));
        assert!(!broken("240.0.0.0/4") && !broken("10.0.0.0/8"));
    }

    proptest! {
        #[test]
        fn addresses_are_distinct_and_above_the_reserve(reals in prop::collection::btree_set(any::<u32>(), 0..200)) {
            let mut pool = pool("246.246.0.0/23");
            for real in &reals {
                let _ = pool.allocate(Ipv4Addr::from_bits(*real).into(), &Target::General, &"n".into()).unwrap();
            }
            prop_assert_eq!(pool.entries().len(), reals.len());
            let low = nth(&pool.range(), RESERVED);
            prop_assert!(pool.entries().keys().all(|vip| *vip >= low && pool.range().contains(vip)));
        }
    }
}
