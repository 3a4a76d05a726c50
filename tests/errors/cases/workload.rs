//! Workloads that are not there, or carry nothing.

use serde_json::{Value, json};

use crate::case::{Group, Stage, case, connect};
use crate::world::World;

pub fn groups() -> Vec<Group> {
    let cases = vec![
        connect("a name that is like others", &["--proxy-via", "service=wbe"], "WorkloadNotFound").says(&[
            "wbe",
            "demo",
            "did you mean deployment/web",
        ]),
        connect("a name that is like none", &["--proxy-via", "service=payments"], "WorkloadNotFound")
            .says(&["kubectl"]),
        connect("a name of another namespace", &["--proxy-via", "service=api"], "WorkloadNotFound")
            .says(&["other/deployment/api"]),
        connect("a pod that is not there", &["--proxy-via", "service=pod/lonely"], "WorkloadNotFound")
            .says(&["pod/lone"]),
        connect(
            "a DaemonSet of which there is a Deployment",
            &["--proxy-via", "service=daemonset/web"],
            "WorkloadNotFound",
        )
        .says(&["deployment/web"]),
        connect("a Job that is not there", &["--proxy-via", "service=job/migrate"], "WorkloadNotFound"),
        connect("a name that several kinds have", &["--proxy-via", "service=web"], "WorkloadAmbiguous")
            .given(|world| {
                apply(world, "pods", pod("web", json!({"image": "podway-sample:dev"})));
            })
            .says(&["deployment/web", "pod/web"]),
        connect(
            "the namespace of a rule is not there",
            &["--proxy-via", "service=nosuch/deployment/web"],
            "NamespaceNotFound",
        )
        .says(&["nosuch"]),
        case("the namespace is not there", &["connect", "-n", "nosuch"], "NamespaceNotFound").says(&["nosuch"]),
        connect("no replicas", &["--proxy-via", "service=idle"], "").notice().exits(4).says(&["scaled to zero"]),
        connect("no pod that runs", &["--proxy-via", "service=never", "--timeout", "1s"], "TimedOut").given(|world| {
            apply(world, "pods", pod("never", json!({"image": "registry.example/nosuch:1"})));
        }),
        connect("no pod that is ready", &["--proxy-via", "service=unready"], "").notice().given(|world| {
            let probe = json!({"httpGet": {"path": "/", "port": 1}, "periodSeconds": 1});
            apply(world, "pods", pod("unready", json!({"image": "podway-sample:dev", "readinessProbe": probe})));
        }),
        connect("pods whose containers crash", &["--proxy-via", "service=broken"], "").notice().given(|world| {
            apply(world, "pods", pod("broken", json!({"image": "podway-sample:dev", "args": ["exit", "1"]})));
        }),
    ];
    vec![Group { title: "Workloads", stage: Stage::Daemon, cases }]
}

/// Adds an object, for the case.
pub fn apply(world: &World, kind: &'static str, object: Value) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    let (namespace, name) = (text("namespace"), text("name"));
    world.cluster.apply(object).unwrap();
    world.undo(move |world| world.cluster.delete(kind, &namespace, &name).unwrap());
}

fn pod(name: &str, container: Value) -> Value {
    let mut container = container;
    container["name"] = json!("server");
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "demo", "name": name},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
    })
}
