use proptest::prelude::*;
use serde_json::{Value, json};

use crate::controllers::conditions;
use crate::controllers::pods::is_ready;
use crate::controllers::testing::{Bed, with_kubelet, workload};
use crate::object::{self, number, text};
use crate::resource::{DEPLOYMENTS, NAMESPACES, PODS, REPLICA_SETS};

fn restart(bed: &Bed, when: &str) {
    bed.update(&DEPLOYMENTS, "web", |web| {
        web["spec"]["template"]["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/restartedAt": when});
    });
}

fn status(bed: &Bed) -> Value {
    bed.get(&DEPLOYMENTS, "web").unwrap()["status"].clone()
}

#[test]
fn a_deployment_makes_a_replica_set_and_that_pods_named_and_labelled_after_it() {
    let bed = Bed::new(1);
    bed.create(&DEPLOYMENTS, "demo", "web", workload("web", 2));
    bed.settle();
    let web = bed.get(&DEPLOYMENTS, "web").unwrap();
    let set = bed.list(&REPLICA_SETS).remove(0);
    let hash = object::label(&set, "pod-template-hash").unwrap();
    assert_eq!(object::name(&set), format!("web-{hash}"));
    assert_eq!(set["spec"]["selector"]["matchLabels"], json!({"app": "web", "pod-template-hash": hash}));
    assert_eq!(set["metadata"]["ownerReferences"][0]["uid"], web["metadata"]["uid"]);
    assert_eq!(object::annotation(&set, "deployment.kubernetes.io/desired-replicas"), Some("2"));
    assert_eq!(object::annotation(&set, "deployment.kubernetes.io/max-replicas"), Some("3"));
    let pods = bed.list(&PODS);
    assert_eq!(pods.len(), 2);
    for pod in &pods {
        assert_eq!(text(pod, "/metadata/generateName"), format!("web-{hash}-"));
        assert_eq!(pod["metadata"]["labels"], json!({"app": "web", "pod-template-hash": hash}));
        assert_eq!(pod["metadata"]["ownerReferences"][0]["name"], set["metadata"]["name"]);
    }
    assert_eq!(object::annotation(&web, "deployment.kubernetes.io/revision"), Some("1"));
    assert_eq!(number(&web, "/metadata/generation"), Some(1));
    let status = status(&bed);
    for (field, count) in [
        ("observedGeneration", 1),
        ("replicas", 2),
        ("updatedReplicas", 2),
        ("readyReplicas", 2),
        ("availableReplicas", 2),
    ] {
        assert_eq!(status[field], count, "{field}");
    }
    assert!(status.get("unavailableReplicas").is_none());
    assert!(conditions::holds(&web, "Available"));
    assert_eq!(text(conditions::find(&web, "Progressing").unwrap(), "/reason"), "NewReplicaSetAvailable");
    assert_eq!(bed.events("ScalingReplicaSet"), [format!("Scaled up replica set web-{hash} from 0 to 2")]);
}

#[test]
fn a_restart_replaces_the_pods_one_by_one_and_never_has_fewer_than_wanted() {
    let bed = Bed::new(2);
    bed.create(&DEPLOYMENTS, "demo", "web", workload("web", 2));
    bed.settle();
    let before = bed.names(&PODS);
    restart(&bed, "1");
    bed.settle_with(with_kubelet, |bed| {
        let ready = bed.list(&PODS).iter().filter(|pod| is_ready(pod) && !object::is_going(pod)).count();
        assert!(ready >= 2, "{ready} ready");
        assert!(bed.active() <= 3, "{} pods", bed.active());
    });
    let after = bed.names(&PODS);
    assert_eq!(after.len(), 2);
    assert!(before.iter().all(|pod| !after.contains(pod)));
    assert_eq!(status(&bed)["observedGeneration"], 2);
    let revisions: Vec<_> = bed
        .list(&REPLICA_SETS)
        .iter()
        .map(|set| {
            (
                object::annotation(set, "deployment.kubernetes.io/revision").unwrap().to_owned(),
                number(set, "/spec/replicas").unwrap(),
            )
        })
        .collect();
    assert!(revisions.contains(&("1".to_owned(), 0)) && revisions.contains(&("2".to_owned(), 2)), "{revisions:?}");
}

#[test]
fn going_back_to_an_earlier_template_uses_its_replica_set_as_the_newest_revision() {
    let bed = Bed::new(1);
    bed.create(&DEPLOYMENTS, "demo", "web", workload("web", 1));
    bed.settle();
    let first = bed.names(&REPLICA_SETS);
    restart(&bed, "1");
    bed.settle();
    bed.update(&DEPLOYMENTS, "web", |web| {
        object::entries(web, "/spec/template/metadata").remove("annotations");
    });
    bed.settle();
    assert_eq!(bed.list(&REPLICA_SETS).len(), 2);
    let set = bed.get(&REPLICA_SETS, &first[0]).unwrap();
    assert_eq!(number(&set, "/status/readyReplicas"), Some(1));
    assert_eq!(object::annotation(&set, "deployment.kubernetes.io/revision"), Some("3"));
    assert_eq!(object::annotation(&set, "deployment.kubernetes.io/revision-history"), Some("1"));
    assert_eq!(
        object::annotation(&bed.get(&DEPLOYMENTS, "web").unwrap(), "deployment.kubernetes.io/revision"),
        Some("3")
    );
}

#[test]
fn recreate_has_no_pod_of_the_new_kind_beside_one_of_the_old() {
    let bed = Bed::new(1);
    let mut web = workload("web", 3);
    web["spec"]["strategy"] = json!({"type": "Recreate"});
    bed.create(&DEPLOYMENTS, "demo", "web", web);
    bed.settle();
    let old = bed.names(&PODS);
    restart(&bed, "1");
    bed.settle_with(with_kubelet, |bed| {
        let now = bed.names(&PODS);
        assert!(now.iter().all(|pod| old.contains(pod)) || !now.iter().any(|pod| old.contains(pod)), "{now:?}");
    });
    assert_eq!(bed.active(), 3);
}

#[test]
fn a_rollout_whose_pods_never_serve_keeps_the_old_ones_and_says_that_it_takes_too_long() {
    let mut bed = Bed::new(1);
    bed.create(&DEPLOYMENTS, "demo", "web", workload("web", 2));
    bed.settle();
    bed.update(&DEPLOYMENTS, "web", |web| {
        web["spec"]["template"]["metadata"]["annotations"] = json!({"test/starts": ""});
    });
    bed.settle();
    let status_of = |bed: &Bed, field: &str| status(bed)[field].as_i64().unwrap_or(0);
    assert_eq!((status_of(&bed, "availableReplicas"), status_of(&bed, "unavailableReplicas")), (2, 1));
    assert!(bed.again().is_some());
    bed.pass(601);
    bed.settle();
    let web = bed.get(&DEPLOYMENTS, "web").unwrap();
    assert_eq!(text(conditions::find(&web, "Progressing").unwrap(), "/reason"), "ProgressDeadlineExceeded");
    assert_eq!(bed.events("ProgressDeadlineExceeded").len(), 1);
    assert!(conditions::holds(&web, "Available"));
    assert_eq!(bed.again(), None);
}

#[test]
fn pods_count_as_available_after_min_ready_seconds() {
    let mut bed = Bed::new(1);
    let mut web = workload("web", 1);
    web["spec"]["minReadySeconds"] = json!(10);
    bed.create(&DEPLOYMENTS, "demo", "web", web);
    bed.settle();
    assert_eq!((status(&bed)["readyReplicas"].clone(), status(&bed).get("availableReplicas")), (json!(1), None));
    assert!(bed.again().is_some());
    bed.pass(10);
    bed.settle();
    assert_eq!(status(&bed)["availableReplicas"], 1);
}

#[test]
fn what_a_namespace_does_not_allow_is_told_where_people_look() {
    let bed = Bed::new(1);
    bed.update(&NAMESPACES, "demo", |demo| {
        demo["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = json!("restricted");
    });
    bed.create(&DEPLOYMENTS, "demo", "web", workload("web", 2));
    bed.settle();
    let web = bed.get(&DEPLOYMENTS, "web").unwrap();
    let failure = conditions::find(&web, "ReplicaFailure").unwrap();
    assert!(text(failure, "/message").contains("violates PodSecurity"), "{failure}");
    assert_eq!(bed.events("FailedCreate").len(), 1);
    bed.update(&NAMESPACES, "demo", |demo| {
        object::entries(demo, "/metadata/labels").remove("pod-security.kubernetes.io/enforce");
    });
    bed.settle();
    let web = bed.get(&DEPLOYMENTS, "web").unwrap();
    assert!(conditions::find(&web, "ReplicaFailure").is_none());
    assert_eq!(web["status"]["readyReplicas"], 2);
}

#[test]
fn old_replica_sets_beyond_the_history_go() {
    let bed = Bed::new(1);
    let mut web = workload("web", 1);
    web["spec"]["revisionHistoryLimit"] = json!(1);
    bed.create(&DEPLOYMENTS, "demo", "web", web);
    for when in ["1", "2", "3"] {
        bed.settle();
        restart(&bed, when);
    }
    bed.settle();
    assert_eq!(bed.list(&REPLICA_SETS).len(), 2);
}

#[test]
fn a_replica_set_of_the_same_name_makes_the_hash_another() {
    let bed = Bed::new(1);
    bed.create(&DEPLOYMENTS, "demo", "web", workload("web", 1));
    bed.settle();
    let name = bed.names(&REPLICA_SETS).remove(0);
    bed.delete(&DEPLOYMENTS, "web", &crate::strategy::Deletion::default());
    bed.settle();
    bed.create(&REPLICA_SETS, "demo", &name, workload("stranger", 0));
    bed.create(&DEPLOYMENTS, "demo", "web", workload("web", 1));
    bed.settle();
    assert_eq!(bed.list(&REPLICA_SETS).len(), 2);
    assert_eq!(status(&bed)["collisionCount"], 1);
    assert_eq!(status(&bed)["readyReplicas"], 1);
}

#[derive(Clone, Debug)]
enum Step {
    Scale(u32),
    Restart(u32),
    Kill(usize),
    Rounds(usize),
    Strategy(Value),
    Pause(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let limits = prop_oneof![
        Just(json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}})),
        Just(json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "100%", "maxUnavailable": 0}})),
        Just(json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": "50%"}})),
        Just(json!({"type": "Recreate"})),
    ];
    let step = prop_oneof![
        (0_u32..6).prop_map(Step::Scale),
        (0_u32..4).prop_map(Step::Restart),
        (0_usize..6).prop_map(Step::Kill),
        (1_usize..5).prop_map(Step::Rounds),
        limits.prop_map(Step::Strategy),
        any::<bool>().prop_map(Step::Pause),
    ];
    prop::collection::vec(step, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_on_the_way_a_deployment_ends_as_it_was_last_asked(steps in steps()) {
        let bed = Bed::new(2);
        bed.create(&DEPLOYMENTS, "demo", "web", workload("web", 3));
        for step in steps {
            match step {
                Step::Scale(replicas) => bed.update(&DEPLOYMENTS, "web", |web| web["spec"]["replicas"] = json!(replicas)),
                Step::Restart(when) => restart(&bed, &when.to_string()),
                Step::Kill(index) => {
                    if let Some(name) = bed.names(&PODS).get(index) {
                        bed.delete(&PODS, name, &crate::strategy::Deletion::default());
                    }
                }
                Step::Rounds(rounds) => (0..rounds).for_each(|_| { bed.round(with_kubelet); }),
                Step::Strategy(strategy) => bed.update(&DEPLOYMENTS, "web", |web| web["spec"]["strategy"] = strategy),
                Step::Pause(paused) => bed.update(&DEPLOYMENTS, "web", |web| web["spec"]["paused"] = json!(paused)),
            }
        }
        bed.settle();
        bed.update(&DEPLOYMENTS, "web", |web| web["spec"]["paused"] = json!(false));
        bed.settle();
        let web = bed.get(&DEPLOYMENTS, "web").unwrap();
        let replicas = number(&web, "/spec/replicas").unwrap();
        prop_assert_eq!(i64::try_from(bed.active()).unwrap(), replicas);
        prop_assert_eq!(bed.list(&PODS).len(), bed.active());
        prop_assert_eq!(number(&web, "/status/updatedReplicas").unwrap_or(0), replicas);
        prop_assert_eq!(number(&web, "/status/availableReplicas").unwrap_or(0), replicas);
        prop_assert_eq!(&web["status"]["observedGeneration"], &web["metadata"]["generation"]);
        let template = &web["spec"]["template"];
        let wanted = object::annotation(template, "kubectl.kubernetes.io/restartedAt").unwrap_or("");
        for pod in bed.list(&PODS) {
            prop_assert_eq!(object::annotation(&pod, "kubectl.kubernetes.io/restartedAt").unwrap_or(""), wanted);
        }
    }
}
