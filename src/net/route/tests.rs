use std::collections::BTreeSet;

use super::{Own, RouteHandle, monitor};
use crate::net::cidr::Cidr;
use crate::net::in_namespace::{in_namespace, skipped};
use crate::net::tun::TunDevice;

fn cidrs(texts: &[&str]) -> Vec<Cidr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn an_address_is_usable_when_it_was_added() {
    in_namespace(|| async {
        let tun = match TunDevice::create("podwayt0", 1400) {
            Ok(tun) => tun,
            Err(error) => return skipped(&error.to_string()),
        };
        let (routes, index) = (RouteHandle::open().unwrap(), tun.index().unwrap());
        routes.set_up(index, 1400).await.unwrap();
        // Many, as the kernel is only sometimes slower than we are.
        for number in 1..=200 {
            for address in [format!("10.9.0.{number}/32"), format!("fd09::{number}/128")] {
                let address: Cidr = address.parse().unwrap();
                routes.add_address(index, address).await.unwrap();
                let bound = std::net::UdpSocket::bind((address.addr(), 0));
                assert!(bound.is_ok(), "{address}: {bound:?}");
            }
        }
    });
}

#[test]
fn addresses_and_routes_come_and_go() {
    in_namespace(|| async {
        let tun = match TunDevice::create("podwayt0", 1400) {
            Ok(tun) => tun,
            Err(error) => return skipped(&error.to_string()),
        };
        let other = TunDevice::create("other0", 1400).unwrap();
        let routes = RouteHandle::open().unwrap();
        let mut ticks = monitor().unwrap();
        let index = routes.link_index("podwayt0").await.unwrap();
        assert_eq!(index, tun.index().unwrap());
        assert!(routes.link_index("nothing0").await.is_err());
        let theirs = other.index().unwrap();
        routes.set_up(index, 1300).await.unwrap();
        routes.set_up(theirs, 1300).await.unwrap();

        for address in cidrs(&["10.9.0.1/32", "fd09::1/128"]) {
            routes.add_address(index, address).await.unwrap();
            routes.add_address(index, address).await.unwrap();
        }
        let wanted = cidrs(&["10.1.0.0/16", "10.2.0.0/31", "fd01::/64", "fd02::5/128"]);
        for route in &wanted {
            routes.add_route(index, *route).await.unwrap();
            routes.add_route(index, *route).await.unwrap();
        }
        assert_eq!(routes.routes(index).await.unwrap(), wanted.iter().copied().collect());

        // Another program's route is neither replaced nor removed.
        for taken in cidrs(&["10.3.0.0/16", "fd03::/64"]) {
            routes.add_route(theirs, taken).await.unwrap();
            assert!(routes.add_route(index, taken).await.is_err());
            routes.del_route(index, taken).await.unwrap();
            assert!(routes.routes(theirs).await.unwrap().contains(&taken));
        }
        routes.add_address(theirs, "192.0.2.7/24".parse().unwrap()).await.unwrap();
        let own = |device: &str, taken: &[Cidr]| Own { device: device.into(), taken: taken.iter().copied().collect() };
        let facts = routes.host_facts(&own("podwayt0", &[]), BTreeSet::new()).await.unwrap();
        assert!(facts.addresses.contains(&"192.0.2.7/24".parse().unwrap()), "{facts:?}");
        assert!(facts.routes.iter().any(|r| r.destination == "192.0.2.0/24".parse().unwrap()), "{facts:?}");
        assert!(facts.routes.iter().all(|r| r.interface != "podwayt0"), "{facts:?}");
        assert!(!facts.addresses.contains(&"10.9.0.1/32".parse().unwrap()));

        // A younger connection is minded only where it was first, an older one always.
        let younger = TunDevice::create("podwayt1", 1400).unwrap();
        let its = younger.index().unwrap();
        routes.set_up(its, 1300).await.unwrap();
        let [first, second] = cidrs(&["10.4.0.0/16", "10.5.0.0/16"])[..] else { panic!() };
        routes.add_route(its, first).await.unwrap();
        routes.add_route(its, second).await.unwrap();
        assert!(matches!(routes.add_route(index, first).await, Err(super::RouteError::Taken(_))));
        let minded = |facts: &super::HostFacts, cidr| facts.routes.iter().any(|route| route.destination == cidr);
        let facts = routes.host_facts(&own("podwayt0", &[first]), BTreeSet::new()).await.unwrap();
        assert!(minded(&facts, first) && !minded(&facts, second), "{facts:?}");
        // Also before its own device is there.
        for device in ["podwayt1", "podwayt2"] {
            let facts = routes.host_facts(&own(device, &[]), BTreeSet::new()).await.unwrap();
            assert!(wanted.iter().all(|cidr| minded(&facts, *cidr)), "{device}: {facts:?}");
            assert_eq!(minded(&facts, first), device == "podwayt2");
            assert!(facts.addresses.contains(&"10.9.0.1/32".parse().unwrap()));
        }

        for route in &wanted {
            routes.del_route(index, *route).await.unwrap();
            routes.del_route(index, *route).await.unwrap();
        }
        assert!(routes.routes(index).await.unwrap().is_empty());
        for address in cidrs(&["10.9.0.1/32", "fd09::1/128"]) {
            routes.del_address(index, address).await.unwrap();
            routes.del_address(index, address).await.unwrap();
        }
        ticks.recv().await.unwrap();
        drop(tun);
        assert!(routes.link_index("podwayt0").await.is_err());
    });
}
