//! IPv6 beside IPv4: by address and by name, with and without a rule.

use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, SocketAddr};

use hickory_proto::rr::RecordType::AAAA;

use crate::client::{Over, sum};
use crate::world::{LIMIT, World};

fn six(addresses: Vec<IpAddr>) -> IpAddr {
    addresses.into_iter().find(IpAddr::is_ipv6).unwrap()
}

/// What is carried to a host that answers on all ports of the samples.
fn carried(world: &World, host: &str) {
    let ws = &world.ws;
    assert_eq!(ws.echo_datagrams(host, 9004, 20).unwrap(), 20, "{host}");
    assert_eq!(ws.exchange(host, 9001, 300_000).unwrap(), sum(300_000), "{host}");
    let reset = ws.reach(host, 9006).and_then(|mut stream| stream.read(&mut [0]));
    assert_eq!(reset.unwrap_err().kind(), ErrorKind::ConnectionReset, "{host}");
    assert_eq!(ws.reach(host, 9999).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{host}");
}

#[test]
fn services_and_pods_are_reached_by_their_ipv6_addresses_and_names() {
    let Some(world) = World::start() else { return };
    let (service, pod) = (world.service("demo", "edge")[1], six(world.addresses("demo", "edge")));
    world.connected(&[], |podway| {
        let named = world.ws.query(podway.dns(), Over::Udp, AAAA, "edge.demo.svc.cluster.local").unwrap().addresses;
        assert_eq!(named, [service]);
        for address in [service, pod] {
            let host = address.to_string();
            let answer = world.ws.who_at(&host, 8080).unwrap();
            assert!(answer.pod.starts_with("edge-") && answer.local.ip() == address, "{host}: {answer:?}");
            assert!(answer.remote.is_ipv6(), "{host}: {answer:?}");
            assert_eq!(world.whose(answer.remote.ip()), "own", "{host}");
            carried(&world, &host);
        }
    });
}

#[test]
fn a_rule_gives_a_name_virtual_addresses_of_both_families() {
    let Some(world) = World::start() else { return };
    let real = world.service("demo", "edge");
    world.connected(&["--proxy-via", "service=web"], |_| {
        let addresses = world.ws.lookup("edge").unwrap();
        assert_eq!(addresses.iter().map(IpAddr::is_ipv4).collect::<Vec<_>>(), [true, false]);
        for address in addresses {
            assert!(!real.contains(&address));
            let host = address.to_string();
            let answer = world.ws.who(&host).unwrap();
            // The far side's family is that of the address.
            assert_eq!(answer.remote.is_ipv4(), address.is_ipv4(), "{answer:?}");
            assert!(real.contains(&answer.local.ip()), "{answer:?}");
            assert_eq!(world.whose(answer.remote.ip()), "demo/deployment/web");
            carried(&world, &host);
        }
    });
}

#[test]
fn ranges_of_ipv6_have_rules_of_their_own() {
    let Some(world) = World::start() else { return };
    let pod = six(world.addresses("demo", "db"));
    let rule = format!("{pod}/128=web");
    world.connected(&["--proxy-via", &rule, "--proxy-via", "fd43::/112=store"], |_| {
        for (name, workload) in [("db", "demo/deployment/web"), ("edge", "demo/statefulset/store")] {
            let host = six(world.ws.lookup(name).unwrap()).to_string();
            assert_eq!(world.seen_from(&host), workload, "{name}");
        }
        // IPv4 is not in the rules.
        let four = world.service("demo", "edge")[0].to_string();
        assert_eq!(world.seen_from(&four), "own");
    });
}

#[test]
fn a_service_of_ipv6_alone_is_reached() {
    let Some(world) = World::start() else { return };
    let spec = serde_json::json!({"selector": {"app": "web"}, "ports": [{"port": 80}], "ipFamilies": ["IPv6"]});
    let metadata = serde_json::json!({"namespace": "demo", "name": "six"});
    let object = serde_json::json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec});
    world.cluster.apply(object).unwrap();
    for flags in [&[][..], &["--proxy-via", "service=db"]] {
        world.connected(flags, |_| {
            assert!(world.ws.lookup("six").unwrap().iter().all(IpAddr::is_ipv6));
            let seen = world.seen_from("six");
            assert_eq!(seen, if flags.is_empty() { "own" } else { "demo/deployment/db" });
        });
    }
}

#[test]
fn an_address_of_ipv6_that_nobody_has_is_unreachable() {
    let Some(world) = World::start() else { return };
    world.connected(&[], |_| {
        let nobody: SocketAddr = "[fd43::fff0]:80".parse().unwrap();
        let error = world.ws.connect(nobody).unwrap_err();
        assert!([ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable].contains(&error.kind()), "{error:?}");
    });
}

#[test]
fn a_pods_loopback_of_ipv6_is_reached_by_its_own_rule() {
    let Some(world) = World::start() else { return };
    world.connected(&["--proxy-via", "::1/128=web"], |_| {
        let answer = world.ws.who("0-0-0-0-0-0-0-1.web.demo.podway").unwrap();
        assert!(answer.pod.starts_with("web-"), "{answer:?}");
        assert!(answer.local.ip().is_loopback() && answer.local.is_ipv6(), "{answer:?}");
    });
}

#[test]
fn the_api_server_is_reached_by_ipv6() {
    let Some(world) = World::start() else { return };
    let server = format!("https://[{}]:6443", podway_minicluster::net::API.v6);
    world.connected(&["--server", &server, "--proxy-via", "service=web"], |_| {
        assert_eq!(world.seen_from("edge"), "demo/deployment/web");
    });
}

#[test]
fn a_host_whose_ipv6_is_off_is_connected_by_ipv4_alone() {
    let Some(mut world) = World::start() else { return };
    let off = "for each in all default; do echo 1 >/proc/sys/net/ipv6/conf/$each/disable_ipv6; done";
    assert!(world.cluster.run(["sh", "-c", off], LIMIT).unwrap().status.success());
    world.is_prepared();
    world.connected(&["--proxy-via", "service=web", "--proxy-via", "::1/128=web"], |podway| {
        assert_eq!(world.seen_from("edge"), "demo/deployment/web");
        let status = podway.status();
        assert!(status.device.routes.iter().all(|route| !route.contains(':')), "{:?}", status.device.routes);
        let rule = status.ranges.iter().find(|range| range.cidr == "::1/128").unwrap();
        assert_eq!(rule.treatment, "excluded", "{rule:?}");
    });
}
