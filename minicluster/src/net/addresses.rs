//! Who has which address. Of both families; those of the LAN and the site are the ones of documentation.

use std::net::{Ipv4Addr, Ipv6Addr};

/// An address of each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

/// A range of each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first address of each.
    pub base: Pair,
    /// Prefix length of the first.
    pub v4_len: u8,
    /// Prefix length of the second.
    pub v6_len: u8,
}

const fn pair(v4: [u8; 4], v6: [u16; 8]) -> Pair {
    let [a, b, c, d] = v4;
    let [e, f, g, h, i, j, k, l] = v6;
    Pair { v4: Ipv4Addr::new(a, b, c, d), v6: Ipv6Addr::new(e, f, g, h, i, j, k, l) }
}

/// Pods.
pub const PODS: Range = Range { base: pair([10, 42, 0, 0], [0xfd42, 0, 0, 0, 0, 0, 0, 0]), v4_len: 16, v6_len: 64 };
/// Services. The kernel takes routes of at most some thousand addresses at a time; the API server hands out fewer.
pub const SERVICES: Range =
    Range { base: pair([10, 43, 0, 0], [0xfd43, 0, 0, 0, 0, 0, 0, 0]), v4_len: 16, v6_len: 112 };
/// The cluster's DNS service.
pub const CLUSTER_DNS: Pair = pair([10, 43, 0, 10], [0xfd43, 0, 0, 0, 0, 0, 0, 10]);
/// The node, to pods.
pub const NODE: Pair = pair([10, 41, 0, 1], [0xfd41, 0, 0, 0, 0, 0, 0, 1]);
/// The LAN.
pub const LAN: Range = Range { base: pair([192, 0, 2, 0], [0x2001, 0xdb8, 2, 0, 0, 0, 0, 0]), v4_len: 24, v6_len: 64 };
/// The API server, on the LAN.
pub const API: Pair = pair([192, 0, 2, 1], [0x2001, 0xdb8, 2, 0, 0, 0, 0, 1]);
/// The workstation, on the LAN.
pub const WORKSTATION: Pair = pair([192, 0, 2, 2], [0x2001, 0xdb8, 2, 0, 0, 0, 0, 2]);
/// The name server of the LAN.
pub const LAN_DNS: Pair = pair([192, 0, 2, 53], [0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x53]);
/// A network elsewhere that pods and nodes reach.
pub const SITE: Range =
    Range { base: pair([198, 51, 100, 0], [0x2001, 0xdb8, 0x198, 0, 0, 0, 0, 0]), v4_len: 24, v6_len: 64 };
/// The way there.
pub const SITE_GATEWAY: Pair = pair([198, 51, 100, 1], [0x2001, 0xdb8, 0x198, 0, 0, 0, 0, 1]);
/// The server there: `ledger.site.example`, and `www.vendor.example`.
pub const LEDGER: Pair = pair([198, 51, 100, 10], [0x2001, 0xdb8, 0x198, 0, 0, 0, 0, 0x10]);
/// The router of every pod, on each of its devices.
pub const POD_ROUTER: Pair = pair([10, 42, 0, 1], [0xfe80, 0, 0, 0, 0, 0, 0, 1]);

impl Range {
    /// The `n`th address of each family; `None` behind the end.
    pub fn nth(&self, n: u32) -> Option<Pair> {
        let v4 = u32::from(self.base.v4).checked_add(n).filter(|_| u64::from(n) < 1 << (32 - self.v4_len))?;
        let v6 = u128::from(self.base.v6) + u128::from(n);
        Some(Pair { v4: v4.into(), v6: v6.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_end_with_their_range() {
        assert_eq!(PODS.nth(5).unwrap().v4, Ipv4Addr::new(10, 42, 0, 5));
        assert_eq!(PODS.nth(65_535).unwrap().v6.to_string(), "fd42::ffff");
        assert_eq!(PODS.nth(65_536), None);
    }
}
