//! Subnets in prefix notation, and the set algebra on them.

/// A masked subnet of either family.
pub type Cidr = ipnet::IpNet;
