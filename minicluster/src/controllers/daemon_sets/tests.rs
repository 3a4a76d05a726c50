use serde_json::json;

use crate::controllers::testing::{Bed, with_kubelet, workload};
use crate::object::{self, text};
use crate::resource::{DAEMON_SETS, NODES, PODS};
use crate::strategy::Deletion;

fn nodes_of_pods(bed: &Bed) -> Vec<String> {
    let mut nodes: Vec<_> = bed.list(&PODS).iter().map(|pod| text(pod, "/spec/nodeName").to_owned()).collect();
    nodes.sort();
    nodes
}

#[test]
fn each_node_has_one_pod_as_nodes_come_and_go() {
    let bed = Bed::new(2);
    bed.create(&DAEMON_SETS, "demo", "edge", workload("edge", 0));
    bed.settle();
    assert_eq!(nodes_of_pods(&bed), ["node1", "node2"]);
    bed.node("node3");
    bed.settle();
    assert_eq!(nodes_of_pods(&bed), ["node1", "node2", "node3"]);
    bed.delete(&NODES, "node1", &Deletion::default());
    bed.settle();
    assert_eq!(nodes_of_pods(&bed), ["node2", "node3"]);
    let status = &bed.get(&DAEMON_SETS, "edge").unwrap()["status"];
    assert_eq!(
        *status,
        json!({
            "currentNumberScheduled": 2, "numberMisscheduled": 0, "desiredNumberScheduled": 2, "numberReady": 2,
            "observedGeneration": 1, "updatedNumberScheduled": 2, "numberAvailable": 2,
        })
    );
}

#[test]
fn a_rollout_has_one_pod_away_at_a_time() {
    let bed = Bed::new(3);
    bed.create(&DAEMON_SETS, "demo", "edge", workload("edge", 0));
    bed.settle();
    let before = bed.names(&PODS);
    bed.update(&DAEMON_SETS, "edge", |set| {
        set["spec"]["template"]["metadata"]["annotations"] = json!({"n": "1"});
    });
    bed.settle_with(with_kubelet, |bed| {
        let serving = bed.list(&PODS).iter().filter(|pod| super::pods::is_ready(pod) && !object::is_going(pod)).count();
        assert!(serving >= 2, "{serving}");
    });
    assert_eq!(nodes_of_pods(&bed), ["node1", "node2", "node3"]);
    assert!(bed.names(&PODS).iter().all(|pod| !before.contains(pod)));
}

#[test]
fn a_pod_stays_on_a_node_that_is_not_well_and_none_comes_to_it() {
    let bed = Bed::new(1);
    bed.create(&DAEMON_SETS, "demo", "edge", workload("edge", 0));
    bed.settle();
    let before = bed.names(&PODS);
    bed.update(&NODES, "node1", |node| node["status"]["conditions"][0]["status"] = json!("Unknown"));
    bed.settle();
    assert_eq!(bed.names(&PODS), before);
    bed.create(&DAEMON_SETS, "demo", "late", workload("late", 0));
    bed.settle();
    assert_eq!(bed.names(&PODS), before);
}

#[test]
fn only_nodes_that_the_template_selects_have_one() {
    let bed = Bed::new(2);
    let mut edge = workload("edge", 0);
    edge["spec"]["template"]["spec"]["nodeSelector"] = json!({"role": "edge"});
    bed.create(&DAEMON_SETS, "demo", "edge", edge);
    bed.settle();
    assert_eq!(bed.names(&PODS).len(), 0);
    bed.update(&NODES, "node2", |node| node["metadata"]["labels"] = json!({"role": "edge"}));
    bed.settle();
    assert_eq!(nodes_of_pods(&bed), ["node2"]);
    bed.update(&NODES, "node2", |node| node["metadata"]["labels"] = json!({}));
    bed.settle();
    assert_eq!(bed.names(&PODS).len(), 0);
}
