use serde_json::{Value, json};

use crate::controllers::conditions;
use crate::controllers::testing::{Bed, workload};
use crate::object::text;
use crate::resource::{DEPLOYMENTS, NODES, PODS};

fn node_of(bed: &Bed, pod: &str) -> String {
    text(&bed.get(&PODS, pod).unwrap(), "/spec/nodeName").to_owned()
}

fn pod(spec: Value) -> Value {
    json!({"spec": spec})
}

#[test]
fn pods_of_one_workload_spread_over_the_nodes() {
    let bed = Bed::new(3);
    bed.create(&DEPLOYMENTS, "demo", "web", workload("web", 6));
    bed.settle();
    for node in ["node1", "node2", "node3"] {
        let on = bed.list(&PODS).iter().filter(|pod| text(pod, "/spec/nodeName") == node).count();
        assert_eq!(on, 2, "{node}");
    }
    assert_eq!(bed.events("Scheduled").len(), 6);
}

#[test]
fn a_pod_without_a_node_says_why_and_goes_where_it_fits_later() {
    let bed = Bed::new(1);
    bed.update(&NODES, "node1", |node| node["spec"]["unschedulable"] = json!(true));
    bed.create(&PODS, "demo", "a", pod(json!({})));
    bed.settle();
    let scheduled = bed.get(&PODS, "a").unwrap();
    let scheduled = conditions::find(&scheduled, "PodScheduled").unwrap();
    assert_eq!((text(scheduled, "/status"), text(scheduled, "/reason")), ("False", "Unschedulable"));
    assert_eq!(
        bed.events("FailedScheduling"),
        ["0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/unschedulable: }."]
    );
    bed.node("node2");
    bed.settle();
    assert_eq!(node_of(&bed, "a"), "node2");
}

#[test]
fn taints_selectors_and_readiness_decide() {
    let bed = Bed::new(2);
    bed.update(&NODES, "node1", |node| {
        node["spec"]["taints"] = json!([{"key": "role", "value": "db", "effect": "NoSchedule"}]);
    });
    bed.update(&NODES, "node2", |node| node["metadata"]["labels"] = json!({"disk": "slow"}));
    let tolerations = json!([{"key": "role", "operator": "Equal", "value": "db"}]);
    bed.create(&PODS, "demo", "plain", pod(json!({})));
    bed.create(&PODS, "demo", "picky", pod(json!({"nodeSelector": {"disk": "fast"}})));
    bed.create(&PODS, "demo", "db", pod(json!({"tolerations": tolerations, "nodeSelector": {}})));
    bed.settle();
    assert_eq!((node_of(&bed, "plain"), node_of(&bed, "picky")), ("node2".to_owned(), String::new()));
    assert_eq!(node_of(&bed, "db"), "node1", "the emptier one");
    bed.update(&NODES, "node1", |node| node["status"]["conditions"][0]["status"] = json!("False"));
    bed.create(&PODS, "demo", "late", pod(json!({"tolerations": tolerations})));
    bed.settle();
    assert_eq!(node_of(&bed, "late"), "node2");
}

#[test]
fn without_nodes_pods_wait() {
    let bed = Bed::new(0);
    bed.create(&PODS, "demo", "a", pod(json!({})));
    bed.settle();
    assert_eq!(bed.events("FailedScheduling"), ["no nodes available to schedule pods"]);
}
