use serde_json::json;

use crate::controllers::conditions;
use crate::controllers::testing::{Bed, workload};
use crate::object::{self, list, text};
use crate::resource::{DEPLOYMENTS, NODES, PODS};
use crate::strategy::Deletion;

fn set_ready(bed: &Bed, node: &str, status: &str) {
    bed.update(&NODES, node, |node| node["status"]["conditions"][0]["status"] = json!(status));
}

#[test]
fn a_node_that_is_not_well_is_tainted_and_its_pods_leave_when_they_tolerate_it_no_longer() {
    let mut bed = Bed::new(1);
    bed.create(&DEPLOYMENTS, "demo", "web", workload("web", 1));
    bed.settle();
    let pod = bed.names(&PODS).remove(0);
    bed.node("node2");
    set_ready(&bed, "node1", "Unknown");
    bed.settle();
    let taints: Vec<_> = list(&bed.get(&NODES, "node1").unwrap(), "/spec/taints")
        .iter()
        .map(|taint| format!("{}:{}", text(taint, "/key"), text(taint, "/effect")))
        .collect();
    assert_eq!(taints, ["node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"]);
    let ready = bed.get(&PODS, &pod).unwrap();
    assert_eq!(text(conditions::find(&ready, "Ready").unwrap(), "/status"), "False");
    assert_eq!(text(&bed.get(&PODS, &pod).unwrap(), "/spec/nodeName"), "node1");
    bed.pass(300);
    bed.settle();
    assert_eq!(bed.get(&PODS, &pod), None);
    assert!(bed.list(&PODS).iter().all(|pod| text(pod, "/spec/nodeName") == "node2"));
    set_ready(&bed, "node1", "True");
    bed.settle();
    assert!(bed.get(&NODES, "node1").unwrap()["spec"].get("taints").is_none());
}

#[test]
fn pods_of_a_node_that_is_gone_are_gone() {
    let bed = Bed::new(1);
    bed.create(&PODS, "demo", "lone", json!({"spec": {}}));
    bed.settle();
    bed.delete(&NODES, "node1", &Deletion::default());
    bed.delete(&PODS, "lone", &Deletion::default());
    assert!(object::is_going(&bed.get(&PODS, "lone").unwrap()), "nobody ends it");
    bed.settle_with(super::super::all, |_| ());
    assert_eq!(bed.get(&PODS, "lone"), None);
}
