//! Connecting: with the agent absent and present, and what a user sees first.

use crate::world::{World, seconds, until};

const VIA: [&str; 2] = ["--proxy-via", "service=web"];

#[test]
fn agents_are_placed_where_there_are_none_and_used_again_where_there_are() {
    let Some(world) = World::start() else { return };
    assert!(world.agents().is_empty());
    world.connected(&VIA, |podway| {
        assert_eq!(world.seen_from("edge"), "demo/deployment/web");
        assert!(podway.status().holds("Ready"));
        // Its own pod comes too, although connect does not wait for it.
        let (_, took) = until("AgentReady", seconds(10), || podway.status().holds("AgentReady").then_some(()));
        println!("AgentReady {took:?} after the first answer");
    });
    let placed = world.agents();
    assert!(!placed.is_empty());
    world.connected(&VIA, |_| {
        assert_eq!(world.seen_from("edge"), "demo/deployment/web");
        assert!(world.agents().is_subset(&placed), "{:?}, before {placed:?}", world.agents());
    });
}

#[test]
fn without_a_rule_services_and_pods_answer_by_name_and_by_address() {
    let Some(world) = World::start() else { return };
    let (service, pod) = (world.service("demo", "web")[0].to_string(), world.addresses("demo", "web")[0].to_string());
    world.connected(&[], |podway| {
        for (host, port) in [
            ("web", 80),
            ("web.demo", 80),
            ("web.demo.svc.cluster.local", 80),
            ("api.other", 80),
            (&service, 80),
            (&pod, 8080),
        ] {
            let answer = world.ws.who_at(host, port).unwrap_or_else(|error| panic!("{host}: {error}"));
            assert_eq!(answer.pod.split('-').next(), if host == "api.other" { Some("api") } else { Some("web") });
            assert_eq!(world.whose(answer.remote.ip()), "own", "{host}");
        }
        assert!(podway.status().holds("AgentReady"));
    });
}

#[test]
fn status_shows_ranges_the_workload_with_its_agents_pod_names_and_the_device() {
    let Some(world) = World::start() else { return };
    world.connected(&VIA, |podway| {
        let status = podway.status();
        for wanted in ["Ready", "RoutesReady", "DNSReady", "WorkloadReady", "WatchReady"] {
            assert!(status.holds(wanted), "{wanted}: {:?}", status.conditions);
        }
        let condition = status.conditions.iter().find(|condition| condition.r#type == "WorkloadReady").unwrap();
        assert_eq!(condition.subject, "demo/deployment/web");
        let line = status.workloads.iter().find(|line| line.workload == "demo/deployment/web").unwrap();
        let link = line.links.iter().find(|link| link.health == "ready").unwrap_or_else(|| panic!("{line:?}"));
        assert!(world.names("demo", "web").iter().any(|pod| link.pod == format!("demo/{pod}")), "{link:?}");
        let text = podway.expect(0, &["status"]).out;
        for word in ["web", "podway0", "10.43.0.0/16", "/etc/resolv.conf"] {
            assert!(text.contains(word), "{word} is not in {text}");
        }
        podway.expect(0, &["wait", "--for=condition=Ready", "--timeout", "5s"]);
        podway.expect(0, &["status", "--check", "ready"]);
    });
}

#[test]
fn without_a_daemon_and_with_a_wrong_flag_the_command_says_so() {
    let Some(world) = World::start() else { return };
    let done = world.podway(&["status"]);
    assert_eq!(done.status.code(), Some(3), "{done:?}");
    assert!(done.err.contains("\nhint: "), "{done:?}");
    world.with_daemon(|podway| {
        for bad in ["service", "10.0.0.0/99=web", "0.0.0.0/0=web"] {
            podway.connect_to(2, &["--proxy-via", bad]);
        }
    });
}
