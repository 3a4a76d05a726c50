//! `--proxy-via`: the target sees the address of a pod of the workload. That is the proof, in every test here.

use crate::world::World;

/// Connects with the rules; each host has to be seen from a pod of its workload.
fn proof(world: &World, rules: &[&str], ways: &[(&str, &str)]) {
    let flags: Vec<&str> = rules.iter().flat_map(|rule| ["--proxy-via", rule]).collect();
    world.connected(&flags, |_| {
        for (host, workload) in ways {
            assert_eq!(world.seen_from(host), *workload, "{host} with {rules:?}");
        }
    });
}

#[test]
fn each_range_goes_through_its_own_workload() {
    let Some(world) = World::start() else { return };
    let db = world.addresses("demo", "db")[0];
    let edge = world.service("demo", "edge")[0];
    let (web, of_db) = ("demo/deployment/web", "demo/deployment/db");
    proof(&world, &["service=web"], &[("edge", web), ("api.other", web)]);
    proof(&world, &["pods=web"], &[("db", web)]);
    proof(&world, &[&format!("{db}/32=web")], &[("db", web)]);
    proof(&world, &["service=web", "pods=db"], &[("edge", web), ("store-0.store", of_db)]);
    // The longest prefix wins over a symbol.
    proof(&world, &["service=web", &format!("{edge}/32=db")], &[("edge", of_db), ("api.other", web)]);
}

#[test]
fn workloads_of_every_kind_carry_traffic() {
    let Some(world) = World::start() else { return };
    for (rule, host, workload) in [
        // Another user than root, behind a headless service.
        ("service=deployment/db", "edge", "demo/deployment/db"),
        ("service=statefulset/store", "edge", "demo/statefulset/store"),
        ("service=daemonset/edge", "web", "demo/daemonset/edge"),
        ("service=other/deployment/api", "edge", "other/deployment/api"),
    ] {
        proof(&world, &[rule], &[(host, workload)]);
    }
}

#[test]
fn a_name_that_only_the_cluster_knows_is_reached_through_the_workload() {
    let Some(world) = World::start() else { return };
    world.connected(&["--proxy-via", "198.51.100.0/24=web"], |_| {
        let addresses = world.ws.lookup("ledger.site.example").unwrap();
        let real = |address: &std::net::IpAddr| address.to_string().starts_with("198.51.100.");
        assert!(!addresses.is_empty() && !addresses.iter().any(real), "{addresses:?}");
        let answer = world.ws.who_at("ledger.site.example", 8080).unwrap();
        assert_eq!(
            (answer.pod.as_str(), world.whose(answer.remote.ip())),
            ("ledger", "demo/deployment/web".to_owned())
        );
    });
}

#[test]
fn a_translated_range_is_not_routed_and_its_names_have_virtual_addresses_that_stay() {
    let Some(world) = World::start() else { return };
    let real = world.service("demo", "edge");
    let look = || {
        world.connected(&["--proxy-via", "service=web"], |podway| {
            let given = world.ws.lookup("edge.demo.svc.cluster.local").unwrap();
            assert!(!given.is_empty() && given.iter().all(|address| !real.contains(address)), "{given:?}");
            let status = podway.status();
            let of_services = status.device.routes.iter().find(|route| route.starts_with("10.43."));
            assert_eq!(of_services, None, "{:?}", status.device.routes);
            // What programs say to the real address goes where it went before: to the LAN's router, which refuses.
            assert!(world.ws.connect((real[0], 80).into()).is_err());
            given
        })
    };
    assert_eq!(look(), look());
}

#[test]
fn a_pods_loopback_is_reached_by_its_own_rule() {
    let Some(world) = World::start() else { return };
    world.connected(&["--proxy-via", "127.0.0.1/32=web"], |_| {
        let echoed = world.ws.exchange("127-0-0-1.web.demo.podway", 9005, 1000).unwrap();
        assert_eq!(echoed, crate::client::sum(1000));
    });
}

#[test]
fn with_ephemeral_containers_alone_what_no_rule_covers_is_off_and_nothing_is_hopeless() {
    let Some(world) = World::start() else { return };
    world.connected(&["--proxy-via", "service=web", "--agent", "ephemeral"], |podway| {
        assert_eq!(world.seen_from("edge"), "demo/deployment/web");
        let status = podway.status();
        assert!(status.holds("Ready"), "{status:?}");
        let hopeless = status.conditions.iter().find(|condition| condition.reason == "Hopeless");
        assert_eq!(hopeless, None);
        let general = status.workloads.iter().find(|line| line.workload == "general").unwrap();
        assert_eq!(general.state, "Off");
        let done = podway.expect(1, &["wait", "--for=condition=AgentReady"]);
        assert!(done.err.contains("--agent ephemeral") && done.err.contains("--agent auto"), "{}", done.err);
    });
}
