//! Agents that cannot be placed, or do not work.

use serde_json::json;

use crate::case::{Case, Group, KUBELET, Stage, connect};
use crate::world::World;

const VIA: [&str; 2] = ["--proxy-via", "service=web"];

pub fn groups() -> Vec<Group> {
    let title = "Agents";
    let image = ["--proxy-via", "service=web", "--agent-image", "registry.example/podway-agent:1"];
    let own = ["--agent", "pod", "--agent-image", "registry.example/podway-agent:2"];
    let cases = vec![
        connect("a quota is full", &[], "AgentNotPlaced")
            .given(|world| {
                let message = "pods \"podway-agent\" is forbidden: exceeded quota: small, requested: pods=1, used: pods=9, limited: pods=9";
                for resource in ["jobs", "pods"] {
                    world.fault(json!({"on": {"verb": "create", "resource": resource}, "fault": "refuse", "code": 403, "message": message}));
                }
            })
            .says(&["exceeded quota: small"]),
        connect("the image cannot be pulled", &image, "AgentNotPlaced").says(&["registry.example", "--agent-image"]),
        connect("the image of podway's own pod cannot be pulled", &own, "AgentNotPlaced").says(&["registry.example"]),
        connect("the image is for another architecture", &["--proxy-via", "service=store", "--agent-image", "podway-foreign:1"], "AgentNotPlaced")
            .says(&["exit code 1,", "architecture"]),
        connect("the image of podway's own pod is for another architecture", &["--agent-image", "podway-foreign:1"], "AgentNotPlaced")
            .says(&["exit code 1,", "architecture"]),
        connect("Pod Security refuses", &VIA, "AgentNotPlaced")
            .given(|world| {
                level(world, "restricted");
                world.undo(|world| level(world, "privileged"));
            })
            .says(&["PodSecurity", "restricted"]),
        refused("an admission webhook denies", 400, "admission webhook \"agents.policy.example\" denied the request: no debug containers in this cluster")
            .says(&["agents.policy.example"]),
        refused("an admission webhook denies, and calls that forbidden", 403, "admission webhook \"gate.policy.example\" denied the request: no debug containers in this cluster")
            .says(&["gate.policy.example"]),
        refused("a webhook does not answer", 500, "Internal error occurred: failed calling webhook \"slow.policy.example\": failed to call webhook: Post \"https://policy.demo.svc:443/\": context deadline exceeded")
            .says(&["slow.policy.example"]),
        connect("the node does not answer", &["--proxy-via", "service=db", "--timeout", "2s"], "TimedOut")
            .given(|world| {
                let message = "error dialing backend: dial tcp 192.0.2.1:10250: connect: no route to host";
                world.fault(json!({"on": {"resource": "pods/portforward"}, "fault": "refuse", "code": 500, "message": message}));
            })
            .says(&["no route to host"]),
        connect("four agents in the pod already", &["--proxy-via", "service=db"], "AgentNotPlaced")
            .given(four)
            .says(&["holds 4 agents", "takes no more", "delete pod"]),
    ];
    let protocol = vec![
        connect("it speaks another protocol", &VIA, "AgentNotPlaced").says(&["protocol 2 to 3", "--agent-image"]),
        connect("podway's own speaks another protocol", &[], "AgentNotPlaced")
            .says(&["protocol 2 to 3", "--agent-image"]),
    ];
    [(Stage::Daemon, cases), (Stage::OtherAgents, protocol)]
        .map(|(stage, cases)| {
            let cases = cases.into_iter().map(|case| case.within(KUBELET, "")).collect();
            Group { title, stage, cases }
        })
        .into()
}

fn refused(name: &str, code: u16, message: &'static str) -> Case {
    connect(name, &VIA, "AgentNotPlaced").given(move |world| {
        let on = json!({"resource": "pods/ephemeralcontainers"});
        world.fault(json!({"on": on, "fault": "refuse", "code": code, "message": message}));
    })
}

fn level(world: &World, level: &str) {
    let labels = json!({"pod-security.kubernetes.io/enforce": level});
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo", "labels": labels}});
    world.cluster.apply(object).unwrap();
}

/// Four agents that ended, in the only pod of `db`.
fn four(world: &World) {
    let pod = world.cluster.pods("demo", "db").unwrap().remove(0);
    let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
    world.podway(&["connect", "-n", "demo", "--proxy-via", "service=db"]);
    let key = |pod: &serde_json::Value| {
        let args = pod["spec"]["ephemeralContainers"][0]["args"].as_array().unwrap().clone();
        let at = args.iter().position(|word| word == "--authorized-key").unwrap();
        args[at + 1].clone()
    };
    let key = key(&world.cluster.get("pods", "demo", &name).unwrap());
    world.podway(&["disconnect"]);
    // What a pod got stays in it, whatever became of it.
    let more = (1..=3).map(|n| {
        json!({
            "name": format!("podway-agent-0000-{n}"), "image": "podway-sample:dev", "args": ["exit", "1", "--authorized-key", key, "--listen", format!("127.0.0.1:{}", 40000 + n)],
        })
    });
    let mut all =
        world.cluster.get("pods", "demo", &name).unwrap()["spec"]["ephemeralContainers"].as_array().unwrap().clone();
    all.extend(more);
    let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "demo"}, "spec": {"ephemeralContainers": all}});
    world.cluster.apply(object).unwrap();
    world
        .cluster
        .signal("demo", &name, podway_minicluster::control::Target::Agent, podway_minicluster::control::Signal::Kill)
        .unwrap();
}
