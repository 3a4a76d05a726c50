//! What the agent never dials, whoever asks: link-local and metadata addresses, multicast, its own control port. Pod
//! loopback only for prefixes that the session signed.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// Whether `to` may be dialled by a session that signed `special`, from an agent that listens on `control`.
pub fn may_dial(to: SocketAddr, special: &[IpNet], control: SocketAddr) -> bool {
    let ip = to.ip().to_canonical();
    if ip.is_multicast() || ip.is_unspecified() || is_link_local(ip) || to.port() == 0 {
        return false;
    }
    if let IpAddr::V4(v4) = ip
        && v4.is_broadcast()
    {
        return false;
    }
    if ip.is_loopback() {
        return to.port() != control.port() && special.iter().any(|prefix| prefix.contains(&ip));
    }
    true
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        // fe80::/10, and the metadata address of one large cloud.
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dialled_and_what_is_not() {
        let control = "127.0.0.1:20000".parse().expect("an address");
        let special = ["127.0.0.1/32".parse().expect("a prefix")];
        for (to, special, allowed) in [
            ("10.43.0.1:443", &[][..], true),
            ("[fd00::1]:80", &[], true),
            ("169.254.169.254:80", &[], false),
            ("[::ffff:169.254.169.254]:80", &[], false),
            ("[fe80::1]:80", &[], false),
            ("224.0.0.1:80", &[], false),
            ("255.255.255.255:80", &[], false),
            ("0.0.0.0:80", &[], false),
            ("10.0.0.1:0", &[], false),
            ("127.0.0.1:80", &[], false),
            ("127.0.0.1:80", &special, true),
            ("127.0.0.2:80", &special, false),
            ("127.0.0.1:20000", &special, false),
        ] {
            assert_eq!(may_dial(to.parse().expect(to), special, control), allowed, "{to}");
        }
    }
}
