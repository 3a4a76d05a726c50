use proptest::prelude::*;
use serde_json::{Value, json};

use super::TRACKING;
use crate::controllers::conditions;
use crate::controllers::testing::{Bed, with_kubelet};
use crate::object::{self, text};
use crate::resource::{JOBS, PODS};
use crate::strategy::{Deletion, Propagation};

fn job(spec: &Value, annotations: &Value) -> Value {
    let mut job = json!({"spec": {"template": {
        "metadata": {"annotations": annotations},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "x:1"}]},
    }}});
    for (name, value) in spec.as_object().unwrap() {
        job["spec"][name] = value.clone();
    }
    job
}

fn status(bed: &Bed) -> Value {
    bed.get(&JOBS, "once").unwrap()["status"].clone()
}

fn condition(bed: &Bed, kind: &str) -> Option<String> {
    let job = bed.get(&JOBS, "once").unwrap();
    conditions::holds(&job, kind).then(|| text(conditions::find(&job, kind).unwrap(), "/reason").to_owned())
}

#[test]
fn a_job_is_complete_when_enough_pods_succeeded() {
    let bed = Bed::new(1);
    let spec = json!({"completions": 3, "parallelism": 2});
    bed.create(&JOBS, "demo", "once", job(&spec, &json!({"test/succeeds": ""})));
    bed.settle_with(with_kubelet, |bed| assert!(bed.active() <= 2));
    assert_eq!(condition(&bed, "Complete").as_deref(), Some("CompletionsReached"));
    let status = status(&bed);
    assert_eq!((&status["succeeded"], &status["uncountedTerminatedPods"]), (&json!(3), &json!({})));
    assert!(status["completionTime"].is_string() && status["startTime"].is_string());
    let pods = bed.list(&PODS);
    assert_eq!(pods.len(), 3);
    assert!(pods.iter().all(|pod| !object::has_finalizer(pod, TRACKING)));
    assert_eq!(object::label(&pods[0], "batch.kubernetes.io/job-name"), Some("once"));
    assert_eq!(bed.events("Completed"), ["Job completed"]);
}

#[test]
fn a_running_job_says_what_is_active_and_ready() {
    let bed = Bed::new(1);
    bed.create(&JOBS, "demo", "once", job(&json!({}), &json!({})));
    bed.settle();
    let status = status(&bed);
    assert_eq!((&status["active"], &status["ready"], &status["terminating"]), (&json!(1), &json!(1), &json!(0)));
    let pod = bed.list(&PODS).remove(0);
    assert!(object::has_finalizer(&pod, TRACKING));
}

#[test]
fn failures_are_tried_again_later_and_later_until_there_are_too_many() {
    let mut bed = Bed::new(1);
    bed.create(&JOBS, "demo", "once", job(&json!({"backoffLimit": 2}), &json!({"test/fails": ""})));
    bed.settle();
    assert_eq!(status(&bed)["failed"], 1);
    for (wait, failed) in [(9, 1), (1, 2), (19, 2), (1, 3)] {
        bed.pass(wait);
        bed.settle();
        assert_eq!(status(&bed)["failed"], failed, "after {wait} s more");
    }
    assert_eq!(condition(&bed, "Failed").as_deref(), Some("BackoffLimitExceeded"));
    assert_eq!(bed.events("BackoffLimitExceeded").len(), 1);
}

#[test]
fn a_job_that_takes_too_long_fails_and_its_pods_go() {
    let mut bed = Bed::new(1);
    bed.create(&JOBS, "demo", "once", job(&json!({"activeDeadlineSeconds": 30}), &json!({})));
    bed.settle();
    assert!(bed.again().is_some());
    bed.pass(30);
    bed.settle();
    assert_eq!(condition(&bed, "Failed").as_deref(), Some("DeadlineExceeded"));
    assert_eq!(bed.active(), 0);
}

#[test]
fn a_finished_job_expires_with_its_pods() {
    let mut bed = Bed::new(1);
    bed.create(&JOBS, "demo", "once", job(&json!({"ttlSecondsAfterFinished": 60}), &json!({"test/succeeds": ""})));
    bed.settle();
    assert_eq!((bed.list(&JOBS).len(), bed.list(&PODS).len()), (1, 1));
    bed.pass(60);
    bed.settle();
    assert_eq!((bed.list(&JOBS).len(), bed.list(&PODS).len()), (0, 0));
    bed.create(&JOBS, "demo", "once", job(&json!({"ttlSecondsAfterFinished": 0}), &json!({"test/succeeds": ""})));
    bed.settle();
    assert_eq!((bed.list(&JOBS).len(), bed.list(&PODS).len()), (0, 0));
}

#[test]
fn a_deleted_pod_counts_as_a_failure_and_another_takes_its_place() {
    let bed = Bed::new(1);
    bed.create(&JOBS, "demo", "once", job(&json!({}), &json!({})));
    bed.settle();
    let name = bed.names(&PODS).remove(0);
    bed.delete(&PODS, &name, &Deletion::default());
    bed.settle();
    assert_eq!(status(&bed)["failed"], 1);
    let names = bed.names(&PODS);
    assert!(names.len() == 1 && names[0] != name, "{names:?}");
}

#[test]
fn a_deleted_job_takes_its_pods_along_or_leaves_them() {
    for (propagation, left) in [(Propagation::Background, 0), (Propagation::Foreground, 0), (Propagation::Orphan, 1)] {
        let bed = Bed::new(1);
        bed.create(&JOBS, "demo", "once", job(&json!({}), &json!({})));
        bed.settle();
        bed.delete(&JOBS, "once", &Deletion { propagation: Some(propagation), ..Deletion::default() });
        bed.settle();
        assert_eq!((bed.list(&JOBS).len(), bed.list(&PODS).len()), (0, left), "{propagation:?}");
        assert!(bed.list(&PODS).iter().all(|pod| object::controller(pod).is_none()));
    }
}

#[test]
fn a_suspended_job_has_no_pods() {
    let bed = Bed::new(1);
    bed.create(&JOBS, "demo", "once", job(&json!({"suspend": true}), &json!({})));
    bed.settle();
    assert_eq!(bed.active(), 0);
    bed.update(&JOBS, "once", |job| job["spec"]["suspend"] = json!(false));
    bed.settle();
    assert_eq!((bed.active(), condition(&bed, "Suspended")), (1, None));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_end_is_counted_once_whenever_pods_are_deleted(
        completions in 1_i64..5,
        parallelism in 1_i64..4,
        kills in prop::collection::vec((0_usize..5, 0_usize..4), 0..6),
    ) {
        let mut bed = Bed::new(1);
        let spec = json!({"completions": completions, "parallelism": parallelism, "backoffLimit": 100});
        bed.create(&JOBS, "demo", "once", job(&spec, &json!({"test/succeeds": ""})));
        for (index, rounds) in kills {
            (0..rounds).for_each(|_| { bed.round(with_kubelet); });
            if let Some(name) = bed.names(&PODS).get(index) {
                bed.delete(&PODS, name, &Deletion::default());
            }
        }
        bed.settle();
        bed.pass(3600);
        bed.settle();
        prop_assert_eq!(condition(&bed, "Complete"), Some("CompletionsReached".to_owned()));
        prop_assert_eq!(&status(&bed)["succeeded"], &json!(completions));
        prop_assert_eq!(&status(&bed)["uncountedTerminatedPods"], &json!({}));
    }
}
