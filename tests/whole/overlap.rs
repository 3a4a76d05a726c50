//! Ranges of the cluster that the host's own network has too. What clashes is reached by virtual addresses; nothing fails.

use std::net::IpAddr;

use podway_minicluster::net::{API, LAN_DNS};

use crate::world::{Daemon, World, seconds, until};

const NAME: &str = "edge.demo.svc.cluster.local";

fn router() -> Option<IpAddr> {
    Some(API.v4.into())
}

/// The addresses of IPv4 that a name has now.
fn four(world: &World, name: &str) -> Vec<IpAddr> {
    world.ws.lookup(name).unwrap_or_default().into_iter().filter(IpAddr::is_ipv4).collect()
}

/// What `podway status` says of the range of services: its treatment and its note.
fn services(podway: &Daemon<'_>) -> (String, String) {
    let status = podway.status();
    let range = status.ranges.into_iter().find(|range| range.cidr == "10.43.0.0/16").unwrap();
    (range.treatment, range.note)
}

/// Whether the device takes any of the range's addresses.
fn routed(podway: &Daemon<'_>, start: &str) -> bool {
    podway.status().device.routes.iter().any(|route| route.starts_with(start))
}

#[test]
fn an_equal_a_covering_and_a_covered_route_each_move_the_range_to_virtual_addresses() {
    let Some(mut world) = World::start() else { return };
    for route in ["10.43.0.0/16", "10.0.0.0/8", "10.43.7.0/24"] {
        world.ws.route(route, router());
        world.is_prepared();
        world.with_daemon(|podway| {
            let said = podway.connect(&[]).err;
            let note = format!("{route} via eth0");
            assert!(said.contains(&note), "connect does not name {note}: {said}");
            let (treatment, why) = services(podway);
            assert!(treatment == "translated" && why.contains(&note), "{treatment}, {why}");
            assert!(!routed(podway, "10.43."), "{:?}", podway.status().device.routes);
            let given = four(&world, NAME);
            assert!(!given.is_empty() && !given.contains(&world.service("demo", "edge")[0]), "{given:?}");
            world.ws.who("edge").unwrap();
            podway.disconnect(&[]);
        });
        world.ws.route(route, None);
    }
}

#[test]
fn a_route_that_comes_later_moves_the_range_and_brings_it_back_when_it_goes() {
    let Some(world) = World::start() else { return };
    let real = world.service("demo", "edge")[0];
    world.with_daemon(|podway| {
        podway.connect(&[]);
        assert_eq!(four(&world, NAME), [real]);
        for _ in 0..2 {
            world.ws.route("10.0.0.0/8", router());
            let (given, took) = until("a virtual address", seconds(5), || {
                let given = four(&world, NAME);
                (!given.is_empty() && !given.contains(&real)).then_some(given)
            });
            println!("after {took:?}: {given:?}");
            world.ws.who("edge").unwrap();
            assert!(services(podway).1.contains("10.0.0.0/8 via eth0"), "{:?}", services(podway));
            world.ws.route("10.0.0.0/8", None);
            let ((), took) = until("the real address", seconds(5), || (four(&world, NAME) == [real]).then_some(()));
            println!("back after {took:?}");
            world.ws.who("edge").unwrap();
        }
        let log = podway.expect(0, &["logs"]).out;
        for said in
            ["a route of this host overlaps the cluster", "10.0.0.0/8 via eth0", "a route that overlapped is gone"]
        {
            assert!(log.contains(said), "{said} is not in {log}");
        }
        podway.disconnect(&[]);
    });
}

#[test]
fn what_may_clash_is_routed_and_what_never_passes_stays_where_it_was() {
    let Some(mut world) = World::start() else { return };
    let [real, _] = world.service("demo", "edge");
    let [other, _] = world.service("demo", "web");
    world.ws.route("10.0.0.0/8", router());
    world.is_prepared();
    world.connected(&["--allow-conflicting-subnets", "10.43.0.0/16"], |podway| {
        assert!(routed(podway, "10.43."), "{:?}", podway.status().device.routes);
        assert_eq!(four(&world, NAME), [real]);
        world.ws.who("edge").unwrap();
    });
    world.with_daemon(|podway| {
        let said = podway.connect(&["--allow-conflicting-subnets", "10.43.7.0/24"]).err;
        assert!(said.contains("is a part of it and does nothing: allow 10.43.0.0/16"), "{said}");
        podway.disconnect(&[]);
    });
    world.connected(&["--never-proxy", &format!("{other}/32")], |_| {
        world.ws.who("edge").unwrap();
        assert_eq!(four(&world, "web"), [other], "what never passes keeps its own address");
        assert!(world.ws.who_at(&other.to_string(), 80).is_err());
    });
    world.ws.route("10.0.0.0/8", None);
    world.is_prepared();
    world.connected(&["--never-proxy", "10.43.0.0/16"], |podway| {
        assert_eq!(services(podway).0, "excluded");
        assert!(!routed(podway, "10.43."));
    });
}

#[test]
fn ranges_are_translated_without_a_workload_and_others_are_added() {
    let Some(world) = World::start() else { return };
    let real = world.service("demo", "edge")[0];
    world.connected(&["--vnat", "service"], |podway| {
        assert_eq!(services(podway).0, "translated");
        let given = four(&world, NAME);
        assert!(!given.is_empty() && !given.contains(&real), "{given:?}");
        world.ws.who("edge").unwrap();
    });
    // A range that no object of the cluster tells: the site behind it.
    let ledger = world.ws.who_at("198.51.100.7", 8080);
    assert!(ledger.is_err(), "reached without podway");
    world.connected(&["--also-proxy", "198.51.100.0/24"], |podway| {
        assert!(routed(podway, "198.51.100."), "{:?}", podway.status().device.routes);
        let address = four(&world, "ledger.site.example")[0];
        assert_eq!(world.ws.who_at(&address.to_string(), 8080).unwrap().pod, "ledger");
    });
}

#[test]
fn without_a_default_route_with_several_and_when_it_changes_it_works() {
    let Some(mut world) = World::start() else { return };
    world.ws.route("0.0.0.0/0", None);
    world.ws.route("::/0", None);
    world.is_prepared();
    world.with_daemon(|podway| {
        podway.connect(&[]);
        world.ws.who("edge").unwrap();
        world.ws.route("0.0.0.0/0", router());
        world.ws.who("edge").unwrap();
        world.ws.route("0.0.0.0/0", Some(LAN_DNS.v4.into()));
        world.ws.who("edge").unwrap();
        assert_eq!(podway.status().ranges.iter().filter(|range| !range.note.is_empty()).count(), 0);
        world.ws.route("0.0.0.0/0", None);
        world.ws.who("edge").unwrap();
        podway.disconnect(&[]);
    });
}
