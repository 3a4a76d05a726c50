//! Subnets in prefix notation, and the set algebra on them.

use std::collections::BTreeSet;

/// A masked subnet of either family.
pub type Cidr = ipnet::IpNet;

/// Whether every address of `inner` is in `outer`.
pub fn covers(outer: &Cidr, inner: &Cidr) -> bool {
    outer.contains(inner)
}

/// Whether the two share an address.
pub fn overlaps(a: &Cidr, b: &Cidr) -> bool {
    covers(a, b) || covers(b, a)
}

/// The smallest set of disjoint subnets with the same addresses.
pub fn minimal<'a>(set: impl IntoIterator<Item = &'a Cidr>) -> BTreeSet<Cidr> {
    let masked = set.into_iter().map(Cidr::trunc).collect();
    Cidr::aggregate(&masked).into_iter().collect()
}

/// The addresses of `set` that are not in `minus`, minimal and disjoint.
pub fn subtract(set: &BTreeSet<Cidr>, minus: &BTreeSet<Cidr>) -> BTreeSet<Cidr> {
    let minus: Vec<Cidr> = minimal(minus).into_iter().collect();
    let mut left = Vec::new();
    for cidr in minimal(set) {
        carve(cidr, &minus, &mut left);
    }
    minimal(&left)
}

/// Halves `cidr` until each part is wholly outside `minus` (kept) or wholly inside (dropped).
fn carve(cidr: Cidr, minus: &[Cidr], left: &mut Vec<Cidr>) {
    let near: Vec<Cidr> = minus.iter().filter(|m| overlaps(m, &cidr)).copied().collect();
    if near.is_empty() {
        left.push(cidr);
    } else if !near.iter().any(|m| covers(m, &cidr)) {
        for half in cidr.subnets(cidr.prefix_len() + 1).into_iter().flatten() {
            carve(half, &near, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    /// Addresses of the models: 256 of each family.
    fn universe() -> impl Iterator<Item = IpAddr> {
        (0..=255_u8).flat_map(|n| {
            let v6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n.into());
            [IpAddr::V4(Ipv4Addr::new(10, 0, 0, n)), IpAddr::V6(v6)]
        })
    }

    fn members(set: &BTreeSet<Cidr>) -> BTreeSet<IpAddr> {
        universe().filter(|a| set.iter().any(|c| c.contains(a))).collect()
    }

    prop_compose! {
        fn cidr()(n in any::<u8>(), bits in 0..=8_u8, six in any::<bool>()) -> Cidr {
            let address = universe().nth(usize::from(n) * 2 + usize::from(six)).unwrap();
            Cidr::new(address, if six { 120 } else { 24 } + bits).unwrap().trunc()
        }
    }

    fn set() -> impl Strategy<Value = BTreeSet<Cidr>> {
        prop::collection::btree_set(cidr(), 0..6)
    }

    proptest! {
        #[test]
        fn subtracting_leaves_exactly_the_other_addresses(a in set(), b in set()) {
            let want: BTreeSet<IpAddr> = members(&a).difference(&members(&b)).copied().collect();
            prop_assert_eq!(members(&subtract(&a, &b)), want);
        }

        #[test]
        fn a_minimal_set_is_equal_disjoint_and_stable(a in set()) {
            let min = minimal(&a);
            prop_assert_eq!(members(&min), members(&a));
            prop_assert!(min.len() <= a.len());
            prop_assert!(min.iter().all(|x| min.iter().all(|y| x == y || !overlaps(x, y))));
            prop_assert_eq!(minimal(&min), min);
        }
    }
}
