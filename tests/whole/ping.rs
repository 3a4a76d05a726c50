//! Echo by ICMP and ICMPv6: answered by the pod or not at all.

use std::time::Duration;

use podway_minicluster::net::API;

use crate::world::{World, seconds, until};

#[test]
fn an_echo_is_answered_by_who_is_there_and_by_nobody_else() {
    let Some(world) = World::start() else { return };
    let ping = |host, limit| world.ws.ping(host, limit);
    assert_eq!(ping(API.v4.into(), seconds(5)).unwrap(), b"podway", "what is not of the cluster answers");
    let pod = world.cluster.pods("demo", "web").unwrap().remove(0);
    let addresses = pod["status"]["podIPs"].as_array().unwrap().clone();
    let addresses: Vec<std::net::IpAddr> =
        addresses.iter().map(|address| address["ip"].as_str().unwrap().parse().unwrap()).collect();
    assert_eq!(addresses.len(), 2);
    world.connected(&[], |podway| {
        for host in addresses.iter().copied().chain(world.service("demo", "web")) {
            assert_eq!(ping(host, seconds(10)).unwrap(), b"podway", "{host}");
        }
        // Within the pods' ranges, but nobody's.
        for host in ["10.42.0.250", "fd42::fa"] {
            let host = host.parse().unwrap();
            let before = podway.status().flows.refused;
            assert!(ping(host, Duration::from_millis(100)).is_err(), "{host} answers");
            until("it is said so", seconds(15), || (podway.status().flows.refused > before).then_some(()));
        }
        assert_eq!(ping(API.v6.into(), seconds(5)).unwrap(), b"podway", "the rest of the network still does");
    });
}
