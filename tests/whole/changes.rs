//! The cluster changes while connected: pods restart, come, and go.

use serde_json::json;

use crate::world::{LIMIT, World, seconds, until};

const VIA: [&str; 2] = ["--proxy-via", "service=web"];

#[test]
fn after_a_rollout_new_connections_go_through_the_new_pods() {
    let Some(world) = World::start() else { return };
    world.connected(&VIA, |_| {
        let old = world.names("demo", "web");
        assert_eq!(world.seen_from("edge"), "demo/deployment/web");
        world.cluster.restart("deployments", "demo", "web").unwrap();
        world.cluster.wait_ready("deployments", "demo", "web", LIMIT).unwrap();
        let (_, took) = until("a new connection", seconds(5), || world.ws.who("edge").ok());
        println!("{took:?} after the new pods were ready");
        old.iter().for_each(|pod| world.gone("demo", pod));
        for _ in 0..10 {
            assert_eq!(world.seen_from("edge"), "demo/deployment/web");
        }
    });
}

#[test]
fn a_workload_without_pods_is_pending_and_attaches_by_itself() {
    let Some(world) = World::start() else { return };
    world.with_daemon(|podway| {
        podway.connect_to(4, &["--proxy-via", "service=idle"]);
        assert!(!podway.status().holds("WorkloadReady"));
        podway.expect(4, &["status", "--check", "ready"]);
        world.cluster.scale("deployments", "demo", "idle", 1).unwrap();
        world.cluster.wait_ready("deployments", "demo", "idle", LIMIT).unwrap();
        let ready = || podway.status().holds("WorkloadReady").then_some(());
        let (_, took) = until("the workload attaches", seconds(10), ready);
        println!("attached {took:?} after its pod was ready");
        podway.expect(0, &["wait", "--for=workload/idle", "--timeout", "5s"]);
        assert_eq!(world.seen_from("edge"), "demo/deployment/idle");
        podway.disconnect(&[]);
    });
}

#[test]
fn a_pod_that_carries_traffic_is_deleted_and_another_takes_over() {
    let Some(world) = World::start() else { return };
    world.connected(&VIA, |_| {
        let seen = || world.pods().find(world.ws.who("edge").unwrap().remote.ip()).unwrap().name;
        let deleted = seen();
        world.cluster.delete("pods", "demo", &deleted).unwrap();
        world.gone("demo", &deleted);
        let (_, took) = until("a new connection", seconds(10), || world.ws.who("edge").ok());
        println!("{took:?} after the pod had gone");
        assert_ne!(seen(), deleted);
    });
}

#[test]
fn our_own_agents_pod_is_deleted_and_comes_back() {
    let Some(world) = World::start() else { return };
    world.connected(&[], |podway| {
        world.ws.who("web").unwrap();
        let own = world.own_pods();
        assert_eq!(own.len(), 1);
        let (namespace, pod) = own[0].split_once('/').unwrap();
        world.cluster.delete("pods", namespace, pod).unwrap();
        world.gone(namespace, pod);
        let (_, took) = until("a new connection", seconds(20), || world.ws.who("web").ok());
        println!("{took:?} after the pod had gone");
        until("AgentReady", seconds(10), || podway.status().holds("AgentReady").then_some(()));
    });
}

#[test]
fn a_service_made_while_connected_has_a_name_at_once() {
    let Some(world) = World::start() else { return };
    world.connected(&[], |_| {
        world.ws.lookup("podway-new").unwrap_err();
        let spec = json!({"selector": {"app": "web"}, "ports": [{"port": 80}]});
        let metadata = json!({"namespace": "demo", "name": "podway-new"});
        world
            .cluster
            .apply(json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}))
            .unwrap();
        let (_, took) = until("its name", seconds(5), || world.ws.lookup("podway-new.demo.svc.cluster.local").ok());
        println!("its name after {took:?}");
        let (answer, _) = until("its answer", seconds(5), || world.ws.who("podway-new").ok());
        assert!(answer.pod.starts_with("web-"), "{answer:?}");
    });
}
