//! Objects as API servers write them, and what 10,000 pods cost.

use serde_json::{Value, json};

use super::*;

fn read(value: Value) -> Object {
    serde_json::from_str(&value.to_string()).expect("an object")
}

fn pod(value: Value) -> PodFact {
    read(value).pod(&mut Names::default())
}

fn owned(kind: &str, name: &str, labels: Value) -> Value {
    json!({"metadata": {"name": "web-5d4f-x1", "namespace": "demo", "uid": "u", "labels": labels,
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "o", "controller": true}]}})
}

#[test]
fn a_pods_workload_is_its_controllers() {
    let hash = json!({"pod-template-hash": "5d4f"});
    for (value, wanted) in [
        (owned("ReplicaSet", "web-5d4f", hash.clone()), "demo/deployment/web"),
        (owned("ReplicaSet", "web", json!({})), "demo/replicaset/web"),
        (owned("ReplicaSet", "web", hash), "demo/replicaset/web"),
        (owned("StatefulSet", "store", json!({})), "demo/statefulset/store"),
        (owned("DaemonSet", "edge", json!({})), "demo/daemonset/edge"),
        (owned("Job", "once", json!({})), "demo/job/once"),
        (owned("Widget", "w", json!({})), "demo/pod/web-5d4f-x1"),
    ] {
        assert_eq!(pod(value).workload.to_string(), wanted);
    }
}

#[test]
fn agents_are_read_back_from_arguments_and_status() {
    let agent = |name: &str| {
        json!({"name": name, "image": "i:1",
            "args": ["serve", "--listen", "127.0.0.1:7777", "--authorized-key=KEY"]})
    };
    let fact = pod(json!({
        "metadata": {"name": "p", "namespace": "demo", "uid": "u", "labels": {"podway.dev/agent": "f00d"}},
        "spec": {"containers": [{"name": "main", "image": "m"}, agent("podway-agent")],
            "ephemeralContainers": [agent("podway-agent-f00d-1"), agent("podway-agent-f00d-2"), {"name": "podway-agent-x"}]},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "podway-agent", "state": {"running": {"startedAt": "t"}}}],
            "ephemeralContainerStatuses": [
                {"name": "podway-agent-f00d-1", "state": {"terminated": {"exitCode": 71}}},
                {"name": "podway-agent-f00d-2", "state": {"waiting": {"reason": "ErrImagePull", "message": "none"}}}]},
    }));
    let states: Vec<_> = fact.agents.iter().map(|agent| (&*agent.name, agent.port, agent.state.clone())).collect();
    assert_eq!(
        states,
        [
            ("podway-agent-f00d-1", 7777, ContainerState::Terminated),
            ("podway-agent-f00d-2", 7777, ContainerState::Stuck { reason: "ErrImagePull: none".into() }),
            ("podway-agent", 7777, ContainerState::Running),
        ]
    );
    assert_eq!(fact.own_pod_of.as_deref(), Some("f00d"));
    assert_eq!(fact.ips.len(), 2);
    assert!(fact.ready && !fact.terminating);
}

#[test]
fn an_agent_that_the_runtime_could_not_run_is_stuck_and_one_that_ended_is_not() {
    let state = |terminated: Value| {
        let fact = pod(json!({
            "metadata": {"uid": "u", "name": "web-1", "namespace": "demo"},
            "spec": {"ephemeralContainers": [{"name": "podway-agent-f00d-1", "args": ["--listen", "127.0.0.1:7777", "--authorized-key", "k"]}]},
            "status": {"phase": "Running",
                "ephemeralContainerStatuses": [{"name": "podway-agent-f00d-1", "state": {"terminated": terminated}}]},
        }));
        fact.agents[0].state.clone()
    };
    let stuck = |terminated| {
        let state = state(terminated);
        let ContainerState::Stuck { reason } = &state else { panic!("{state:?}") };
        reason.to_string()
    };
    for code in [1, 255] {
        assert!(stuck(json!({"exitCode": code, "reason": "Error"})).contains("architecture"), "{code}");
    }
    let message = "failed to create containerd task: runc create failed: exec: \"/podway-agent\": stat /podway-agent: no such file";
    let reason = stuck(json!({"exitCode": 128, "reason": "StartError", "message": message}));
    assert!(reason.starts_with("exit code 128: StartError: ") && reason.ends_with("no such file"), "{reason}");
    // A node was rebooted under it.
    assert_eq!(state(json!({"exitCode": 255, "reason": "Unknown"})), ContainerState::Terminated);
    for code in [0, 71, 101, 137, 143] {
        assert_eq!(state(json!({"exitCode": code, "reason": "Error"})), ContainerState::Terminated, "{code}");
    }
}

#[test]
fn only_a_pod_of_our_own_keeps_the_uid_of_its_job() {
    let ours = json!({"podway.dev/agent": "f00d"});
    assert_eq!(pod(owned("Job", "podway-agent-f00d", ours.clone())).own_job.as_deref(), Some("o"));
    assert_eq!(pod(owned("StatefulSet", "store", ours)).own_job, None);
    assert_eq!(pod(owned("Job", "once", json!({}))).own_job, None);
}

#[test]
fn services_of_all_types_are_read() {
    let headless = read(json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}})).service();
    assert!(headless.headless && headless.cluster_ips.is_empty());
    let plain = read(json!({"spec": {"clusterIPs": ["10.43.0.1", "fd00::1"],
        "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]}}))
    .service();
    assert_eq!((plain.cluster_ips.len(), &*plain.ports[0].protocol, plain.ports[0].port), (2, "tcp", 80));
    let external = read(json!({"spec": {"type": "ExternalName", "externalName": "x.example"}})).service();
    assert_eq!(external.external_name.as_deref(), Some("x.example"));
}

#[test]
fn slices_keep_ready_addresses_only() {
    let slice = read(json!({
        "metadata": {"name": "s", "namespace": "demo", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": [
            {"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "hostname": "store-0",
             "targetRef": {"kind": "Pod", "name": "store-0"}},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
            {"addresses": ["10.0.0.3"], "conditions": {}}],
        "ports": [{"name": "", "port": 80, "protocol": "UDP"}, {"name": "all", "port": null}],
    }))
    .slice(&mut Names::default())
    .expect("a slice of a service");
    assert_eq!(slice.ready.len(), 2);
    assert_eq!(slice.ready[0].pod.as_deref(), Some("store-0"));
    assert_eq!(slice.ports.len(), 1);
    assert!(read(json!({"endpoints": null, "ports": null})).slice(&mut Names::default()).is_none());
}

#[test]
fn ranges_are_read_and_masked() {
    let node =
        read(json!({"metadata": {"name": "n"}, "spec": {"podCIDR": "10.42.0.0/24", "podCIDRs": ["10.42.0.0/24"]}}));
    let Some(Fact::Ranges(found)) = node.fact(Kind::Nodes, &mut Names::default()) else { panic!("no ranges") };
    assert_eq!(found.to_vec(), ["10.42.0.0/24".parse::<Cidr>().expect("range")]);
}
