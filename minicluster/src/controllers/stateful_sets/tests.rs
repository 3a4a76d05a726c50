use proptest::prelude::*;
use serde_json::{Value, json};

use crate::controllers::pods::is_ready;
use crate::controllers::testing::{Bed, with_kubelet, workload};
use crate::object::{self, text};
use crate::resource::{PODS, STATEFUL_SETS};
use crate::strategy::Deletion;

fn store_set(replicas: u32, policy: &str) -> Value {
    let mut set = workload("store", replicas);
    set["spec"]["serviceName"] = json!("store");
    set["spec"]["podManagementPolicy"] = json!(policy);
    set
}

#[test]
fn pods_have_numbers_and_are_known_by_their_names() {
    let bed = Bed::new(1);
    bed.create(&STATEFUL_SETS, "demo", "store", store_set(2, "Parallel"));
    bed.settle();
    assert_eq!(bed.names(&PODS), ["store-0", "store-1"]);
    let pod = bed.get(&PODS, "store-1").unwrap();
    assert_eq!((text(&pod, "/spec/hostname"), text(&pod, "/spec/subdomain")), ("store-1", "store"));
    assert_eq!(object::label(&pod, "statefulset.kubernetes.io/pod-name"), Some("store-1"));
    assert_eq!(object::label(&pod, "apps.kubernetes.io/pod-index"), Some("1"));
    let status = &bed.get(&STATEFUL_SETS, "store").unwrap()["status"];
    let revision = object::label(&pod, "controller-revision-hash").unwrap();
    assert!(revision.starts_with("store-"), "{revision}");
    assert_eq!(
        *status,
        json!({
            "observedGeneration": 1, "replicas": 2, "readyReplicas": 2, "availableReplicas": 2, "currentReplicas": 2,
            "updatedReplicas": 2, "collisionCount": 0, "currentRevision": revision, "updateRevision": revision,
        })
    );
}

#[test]
fn in_order_a_pod_waits_for_the_one_before_it() {
    let bed = Bed::new(1);
    bed.create(&STATEFUL_SETS, "demo", "store", store_set(3, "OrderedReady"));
    let ordered = |bed: &Bed| {
        let ready: Vec<bool> = bed.list(&PODS).iter().map(|pod| is_ready(pod)).collect();
        assert!(ready.iter().rev().skip(1).all(|ready| *ready), "{ready:?}");
    };
    bed.settle_with(with_kubelet, ordered);
    assert_eq!(bed.names(&PODS), ["store-0", "store-1", "store-2"]);
    bed.update(&STATEFUL_SETS, "store", |set| set["spec"]["replicas"] = json!(1));
    bed.settle_with(with_kubelet, |bed| {
        let names = bed.names(&PODS);
        assert!(!names.contains(&"store-2".to_owned()) || names.len() == 3, "the highest goes first: {names:?}");
    });
    assert_eq!(bed.names(&PODS), ["store-0"]);
}

#[test]
fn a_rollout_goes_from_the_highest_number_down_one_at_a_time() {
    let bed = Bed::new(1);
    bed.create(&STATEFUL_SETS, "demo", "store", store_set(3, "Parallel"));
    bed.settle();
    let uid = |bed: &Bed, name: &str| bed.get(&PODS, name).map(|pod| object::uid(&pod).to_owned());
    let before: Vec<_> = ["store-0", "store-1", "store-2"].map(|name| uid(&bed, name)).into();
    bed.update(&STATEFUL_SETS, "store", |set| {
        set["spec"]["template"]["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/restartedAt": "1"});
    });
    let mut seen = Vec::new();
    bed.settle_with(with_kubelet, |bed| {
        for (number, before) in before.iter().enumerate().rev() {
            if uid(bed, &format!("store-{number}")) != *before && !seen.contains(&number) {
                seen.push(number);
            }
        }
        let ready = bed.list(&PODS).iter().filter(|pod| is_ready(pod) && !object::is_going(pod)).count();
        assert!(ready >= 2, "{ready}");
    });
    assert_eq!(seen, [2, 1, 0]);
    let status = &bed.get(&STATEFUL_SETS, "store").unwrap()["status"];
    assert_eq!(status["currentRevision"], status["updateRevision"]);
    assert_eq!(status["updatedReplicas"], 3);
}

#[test]
fn a_pod_of_a_taken_name_is_told_and_made_when_the_name_is_free() {
    let bed = Bed::new(1);
    bed.create(&PODS, "demo", "store-0", json!({"spec": {}}));
    bed.create(&STATEFUL_SETS, "demo", "store", store_set(1, "OrderedReady"));
    bed.settle();
    assert_eq!(bed.events("FailedCreate").len(), 1);
    bed.delete(&PODS, "store-0", &Deletion::default());
    bed.settle();
    assert_eq!(bed.get(&STATEFUL_SETS, "store").unwrap()["status"]["readyReplicas"], 1);
}

#[test]
fn a_deleted_pod_comes_back_under_its_name_with_another_uid() {
    let bed = Bed::new(1);
    bed.create(&STATEFUL_SETS, "demo", "store", store_set(2, "Parallel"));
    bed.settle();
    let before = bed.get(&PODS, "store-0").unwrap();
    bed.delete(&PODS, "store-0", &Deletion::default());
    bed.settle();
    let after = bed.get(&PODS, "store-0").unwrap();
    assert_ne!(object::uid(&before), object::uid(&after));
    assert!(is_ready(&after));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_on_the_way_a_stateful_set_ends_as_it_was_last_asked(
        parallel in any::<bool>(),
        steps in prop::collection::vec((0_u32..5, 0_u32..3, 0_usize..6, 0_usize..4), 1..8),
    ) {
        let bed = Bed::new(2);
        bed.create(&STATEFUL_SETS, "demo", "store", store_set(2, if parallel { "Parallel" } else { "OrderedReady" }));
        for (replicas, template, killed, rounds) in &steps {
            bed.update(&STATEFUL_SETS, "store", |set| {
                set["spec"]["replicas"] = json!(replicas);
                set["spec"]["template"]["metadata"]["annotations"] = json!({"n": template.to_string()});
            });
            if let Some(name) = bed.names(&PODS).get(*killed) {
                bed.delete(&PODS, name, &Deletion::default());
            }
            (0..*rounds).for_each(|_| { bed.round(with_kubelet); });
        }
        bed.settle();
        let (replicas, template, ..) = steps.last().unwrap();
        let names: Vec<_> = (0..*replicas).map(|number| format!("store-{number}")).collect();
        prop_assert_eq!(bed.names(&PODS), names);
        for pod in bed.list(&PODS) {
            prop_assert_eq!(object::annotation(&pod, "n"), Some(&*template.to_string()));
        }
        let status = &bed.get(&STATEFUL_SETS, "store").unwrap()["status"];
        prop_assert_eq!(&status["readyReplicas"].as_u64().unwrap_or(0), &u64::from(*replicas));
        prop_assert_eq!(&status["currentRevision"], &status["updateRevision"]);
    }
}
