//! Virtual addresses: which stands for what. Pure.
//!
//! A virtual address is looked for from a hash of what it stands for, or is the one that [`memory`] knows. It loses its
//! meaning only when [`capacity`] is reached, nobody was told of it for [`QUARANTINE`], and no flow uses it; it is given to
//! something else only where no other is free.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use self::memory::{KeptVip, VipMemory};
use crate::ids::Millis;
use crate::net::cidr::{Cidr, covers, overlaps};
use crate::net::views::{Target, VipEntry};

pub mod memory;

/// How long an address stands for what it stands for after the last answer that held it: the time to live of answers and
/// a long grace, as programs keep addresses longer than they may.
pub const QUARANTINE: Duration = Duration::from_secs(600);

/// Addresses at the base of a range that are never handed out.
const RESERVED: u64 = 256;

/// Virtual addresses of one family at most: as many as an IPv4 /16 has. A larger range is used thinly.
const MOST: u64 = 65_536 - RESERVED;

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

/// How many virtual addresses of a range are in use at once, at most.
pub fn capacity(range: &Cidr) -> u64 {
    span(range).min(MOST)
}

/// How many addresses of a range can be handed out.
fn span(range: &Cidr) -> u64 {
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

/// Why an address is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    /// For an answer given at this time.
    Answer(Millis),
    /// For good.
    Fixed,
}

impl Hold {
    /// When it may be given to something else.
    fn until(self) -> Millis {
        match self {
            Hold::Answer(now) => now + QUARANTINE,
            Hold::Fixed => Millis(u64::MAX),
        }
    }
}

/// The virtual addresses of one family.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VipPool {
    range: Cidr,
    by_key: BTreeMap<VipEntry, IpAddr>,
    entries: BTreeMap<IpAddr, VipEntry>,
    names: BTreeMap<IpAddr, Arc<str>>,
    /// Whether an address got a meaning since this was last asked.
    drew: bool,
    /// When the quarantine of each address ends, unless an answer holds it again.
    until: BTreeMap<IpAddr, Millis>,
    /// Addresses of before, and when they were last in use, in seconds since 1970.
    remembered: BTreeMap<VipEntry, (IpAddr, u64)>,
    kept_free: BTreeSet<IpAddr>,
}

impl VipPool {
    /// A pool over `range` with nothing in use, that gives what it finds in `memory` the same address again.
    pub fn new(range: Cidr, memory: &VipMemory) -> VipPool {
        let range = range.trunc();
        let has = memory.all_ranges().any(|known| *known == range);
        let known = memory.vips.iter().filter(|kept| has && range.contains(&kept.vip));
        let remembered: BTreeMap<VipEntry, (IpAddr, u64)> =
            known.map(|kept| (kept.entry(), (kept.vip, kept.at))).collect();
        VipPool {
            range,
            by_key: BTreeMap::new(),
            entries: BTreeMap::new(),
            names: BTreeMap::new(),
            drew: false,
            until: BTreeMap::new(),
            kept_free: remembered.values().map(|(vip, _)| *vip).collect(),
            remembered,
        }
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

    /// What shall be remembered at `now` (seconds since 1970): what is in use, and what was remembered before.
    pub fn remember(&self, now: u64) -> impl Iterator<Item = KeptVip> {
        let used = self.entries.iter().map(move |(vip, entry)| KeptVip::new(*vip, entry, now));
        let before = self
            .remembered
            .iter()
            .filter(|(key, (vip, _))| !self.by_key.contains_key(key) && !self.entries.contains_key(vip));
        used.chain(before.map(|(key, (vip, at))| KeptVip::new(*vip, key, *at)))
    }

    /// The virtual address of `real` through `target`: the one it has or had, or a new one.
    ///
    /// `in_use` are the addresses that flows use now; while it is not known, no address is given to something else.
    ///
    /// # Errors
    ///
    /// Every address is in use or was told lately.
    pub fn allocate(
        &mut self,
        real: IpAddr,
        target: &Target,
        name: &Arc<str>,
        hold: Hold,
        in_use: Option<&BTreeSet<IpAddr>>,
    ) -> Result<IpAddr, Exhausted> {
        let key = VipEntry { real, target: target.clone() };
        if let Some(vip) = self.by_key.get(&key) {
            let until = self.until.entry(*vip).or_default();
            *until = hold.until().max(*until);
            return Ok(*vip);
        }
        let released = if self.is_full() { Some(self.release(hold, in_use).ok_or(Exhausted)?) } else { None };
        // Where there is another, the released one means nothing for now: who still holds it reaches nobody else.
        let only = released.filter(|_| span(&self.range) <= MOST);
        let vip = self.of_before(&key).or(only).or_else(|| self.free(&key)).ok_or(Exhausted)?;
        self.entries.insert(vip, key.clone());
        self.by_key.insert(key, vip);
        self.names.insert(vip, Arc::clone(name));
        self.until.insert(vip, hold.until());
        self.drew = true;
        Ok(vip)
    }

    /// Whether an address got a meaning, or another one, since this was asked before.
    pub fn take_drew(&mut self) -> bool {
        std::mem::take(&mut self.drew)
    }

    /// Flows used these addresses until now: their quarantine starts anew.
    pub fn touch<'a>(&mut self, in_use: impl Iterator<Item = &'a IpAddr>, now: Millis) {
        for vip in in_use {
            if let Some(until) = self.until.get_mut(vip) {
                *until = (*until).max(now + QUARANTINE);
            }
        }
    }

    fn of_before(&self, key: &VipEntry) -> Option<IpAddr> {
        self.remembered.get(key).map(|(vip, _)| *vip).filter(|vip| !self.entries.contains_key(vip))
    }

    fn is_full(&self) -> bool {
        u64::try_from(self.entries.len()).unwrap_or(u64::MAX) >= capacity(&self.range)
    }

    /// A free address; one that is remembered for something else only when there is no other.
    fn free(&self, key: &VipEntry) -> Option<IpAddr> {
        let span = span(&self.range);
        let start = hash(key) % span.max(1);
        let offsets = || (start..span).chain(0..start).map(|n| nth(&self.range, RESERVED + n));
        let free = |vip: &IpAddr| !self.entries.contains_key(vip);
        offsets().find(|vip| free(vip) && !self.kept_free.contains(vip)).or_else(|| offsets().find(free))
    }

    /// Takes its meaning from the least recently told address.
    fn release(&mut self, hold: Hold, in_use: Option<&BTreeSet<IpAddr>>) -> Option<IpAddr> {
        let (Hold::Answer(now), Some(in_use)) = (hold, in_use) else { return None };
        let idle = self.until.iter().filter(|(vip, until)| **until <= now && !in_use.contains(vip));
        let vip = *idle.min_by_key(|(vip, until)| (**until, **vip))?.0;
        let key = self.entries.remove(&vip)?;
        self.by_key.remove(&key);
        self.names.remove(&vip);
        self.until.remove(&vip);
        Some(vip)
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

    const NOW: Hold = Hold::Answer(Millis(0));

    fn pool(range: &str) -> VipPool {
        VipPool::new(range.parse().unwrap(), &VipMemory::default())
    }

    fn via(name: &str) -> Target {
        Target::Workload(Workload::new("demo", WorkloadKind::Deployment, name))
    }

    fn real(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0a00_0000 + n).into()
    }

    fn later(times: u32) -> Hold {
        Hold::Answer(Millis(0) + QUARANTINE * times)
    }

    /// A pool whose 256 addresses are all in use, each told one millisecond after the one before.
    fn full() -> VipPool {
        let mut pool = pool("246.246.0.0/23");
        for n in 0..256_u32 {
            let at = Hold::Answer(Millis(n.into()));
            pool.allocate(real(n), &Target::General, &"n".into(), at, None).unwrap();
        }
        pool
    }

    #[test]
    fn the_same_key_has_the_same_address_in_every_pool() {
        let (mut a, mut b) = (pool("246.246.0.0/16"), pool("246.246.0.0/16"));
        let first = a.allocate(real(9), &via("web"), &"web".into(), NOW, None).unwrap();
        assert_eq!(a.allocate(real(9), &via("web"), &"other".into(), NOW, None), Ok(first));
        b.allocate(real(77), &via("web"), &"x".into(), NOW, None).unwrap();
        assert_eq!(b.allocate(real(9), &via("web"), &"web".into(), NOW, None), Ok(first));
        assert_ne!(a.allocate(real(9), &via("db"), &"web".into(), NOW, None), Ok(first));
        assert_eq!(&*a.names()[&first], "web");
    }

    #[test]
    fn a_full_range_refuses_only_what_is_new() {
        let mut pool = full();
        let none = BTreeSet::new();
        assert_eq!(pool.allocate(real(999), &Target::General, &"n".into(), NOW, Some(&none)), Err(Exhausted));
        assert!(pool.allocate(real(7), &Target::General, &"n".into(), NOW, None).is_ok());
    }

    #[test]
    fn a_large_range_is_used_thinly_and_as_much_as_a_small_one() {
        assert_eq!(capacity(&"246.246.0.0/16".parse().unwrap()), MOST);
        let mut pool = pool("fd00::/64");
        assert_eq!(capacity(&pool.range()), MOST);
        let real = |n: u64| IpAddr::from(Ipv6Addr::from_bits(0xfd11_u128 << 112 | u128::from(n)));
        let ask = |pool: &mut VipPool, n: u64, hold: Hold| {
            pool.allocate(real(n), &Target::General, &"n".into(), hold, Some(&BTreeSet::new()))
        };
        let first: Vec<IpAddr> = (0..MOST).map(|n| ask(&mut pool, n, Hold::Answer(Millis(n))).unwrap()).collect();
        assert_eq!(ask(&mut pool, MOST, NOW), Err(Exhausted), "all were told lately");
        // The least recently told one loses its meaning, and is not given to something else.
        let next = ask(&mut pool, MOST, later(2)).unwrap();
        assert!(!first.contains(&next) && !pool.entries().contains_key(&first[0]));
        for size in [pool.entries.len(), pool.by_key.len(), pool.names.len(), pool.until.len()] {
            assert_eq!(u64::try_from(size).unwrap(), MOST);
        }
        let again = ask(&mut pool, 0, later(2)).unwrap();
        assert_eq!(again, first[0], "it comes back to what it stood for");
    }

    #[test]
    fn the_least_recently_told_address_is_given_to_something_else_after_its_quarantine() {
        let mut pool = full();
        let vip = |pool: &VipPool, n| pool.by_key[&VipEntry { real: real(n), target: Target::General }];
        let (second, third) = (vip(&pool, 1), vip(&pool, 2));
        let new = |pool: &mut VipPool, n: u32, in_use: Option<&[IpAddr]>| {
            let in_use: Option<BTreeSet<IpAddr>> = in_use.map(|vips| vips.iter().copied().collect());
            pool.allocate(real(n), &via("web"), &"new".into(), later(2), in_use.as_ref())
        };
        pool.allocate(real(0), &Target::General, &"n".into(), later(2), None).unwrap();
        assert_eq!(new(&mut pool, 1000, None), Err(Exhausted), "flows are not known");
        assert_eq!(new(&mut pool, 1000, Some(&[second])), Ok(third), "a flow uses the second");
        assert_eq!(new(&mut pool, 1001, Some(&[])), Ok(second));
        assert_eq!((&*pool.names()[&second], pool.entries().len(), pool.by_key.len()), ("new", 256, 256));
        assert_eq!(pool.until.len(), 256);
    }

    #[test]
    fn what_is_fixed_is_never_given_to_something_else() {
        let mut pool = full();
        for n in 0..256 {
            pool.allocate(real(n), &Target::General, &"n".into(), Hold::Fixed, None).unwrap();
            pool.allocate(real(n), &Target::General, &"n".into(), NOW, None).unwrap();
        }
        let got = pool.allocate(real(999), &Target::General, &"n".into(), later(9), Some(&BTreeSet::new()));
        assert_eq!(got, Err(Exhausted));
    }

    #[test]
    fn what_was_remembered_has_its_address_again_and_nothing_else_has() {
        let range: Cidr = "246.246.0.0/23".parse().unwrap();
        let mut first = pool("246.246.0.0/23");
        for n in 0..200 {
            first.allocate(real(n), &Target::General, &"n".into(), NOW, None).unwrap();
        }
        let memory = VipMemory::new(vec![range], vec![range], first.remember(7).collect());
        let mut second = VipPool::new(range, &memory);
        for n in (0..230).rev().step_by(2) {
            let vip = second.allocate(real(n), &Target::General, &"n".into(), NOW, None).unwrap();
            let before = first.by_key.get(&VipEntry { real: real(n), target: Target::General });
            assert_eq!(before.is_some(), first.entries.contains_key(&vip));
            assert!(before.is_none_or(|before| *before == vip));
        }
        let kept: Vec<KeptVip> = second.remember(9).collect();
        assert_eq!(kept.iter().filter(|kept| kept.at == 9).count(), second.entries.len());
        assert_eq!(kept.iter().filter(|kept| kept.at == 7).count(), 100);
        // When nothing else is left, what is only remembered gives way.
        for n in 1000..1141 {
            second.allocate(real(n), &Target::General, &"n".into(), NOW, None).unwrap();
        }
        assert_eq!(second.entries.len(), 256);
        assert_eq!(second.remember(9).count(), 256);
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
                let real = Ipv4Addr::from_bits(*real).into();
                pool.allocate(real, &Target::General, &"n".into(), NOW, None).unwrap();
            }
            prop_assert_eq!(pool.entries().len(), reals.len());
            let low = nth(&pool.range(), RESERVED);
            prop_assert!(pool.entries().keys().all(|vip| *vip >= low && pool.range().contains(vip)));
        }
    }
}
