use serde_json::json;

use crate::controllers::testing::{Bed, workload};
use crate::object;
use crate::resource::{DEPLOYMENTS, PODS, REPLICA_SETS, SERVICES};
use crate::strategy::{Deletion, Propagation};

fn deletion(propagation: Propagation) -> Deletion {
    Deletion { propagation: Some(propagation), ..Deletion::default() }
}

#[test]
fn what_a_deployment_owns_goes_with_it_all_the_way_down() {
    for propagation in [Propagation::Background, Propagation::Foreground] {
        let bed = Bed::new(1);
        bed.create(&DEPLOYMENTS, "demo", "web", workload("web", 2));
        bed.settle();
        bed.delete(&DEPLOYMENTS, "web", &deletion(propagation));
        bed.settle_with(crate::controllers::testing::with_kubelet, |bed| {
            let gone = bed.get(&DEPLOYMENTS, "web").is_none();
            let left = bed.list(&PODS).len() + bed.list(&REPLICA_SETS).len();
            assert!(propagation == Propagation::Background || !gone || left == 0, "{left} left behind");
        });
        assert_eq!(bed.list(&DEPLOYMENTS).len() + bed.list(&REPLICA_SETS).len() + bed.list(&PODS).len(), 0);
    }
}

#[test]
fn orphans_stay_and_are_taken_in_by_whoever_selects_them() {
    let bed = Bed::new(1);
    bed.create(&REPLICA_SETS, "demo", "web", workload("web", 2));
    bed.settle();
    let before = bed.names(&PODS);
    bed.delete(&REPLICA_SETS, "web", &deletion(Propagation::Orphan));
    bed.settle();
    assert_eq!(bed.names(&PODS), before);
    let heir = bed.create(&REPLICA_SETS, "demo", "heir", workload("web", 2));
    bed.settle();
    assert_eq!(bed.names(&PODS), before);
    assert!(bed.list(&PODS).iter().all(|pod| object::is_controlled_by(pod, object::uid(&heir))));
}

#[test]
fn of_several_owners_the_last_counts_and_a_namesake_of_an_owner_is_none() {
    let bed = Bed::new(1);
    let first = bed.create(&SERVICES, "demo", "first", json!({"spec": {}}));
    let second = bed.create(&SERVICES, "demo", "second", json!({"spec": {}}));
    let owners: Vec<_> = [&first, &second].map(|owner| object::controller_reference(owner)).into();
    bed.create(&PODS, "demo", "a", json!({"metadata": {"ownerReferences": owners}, "spec": {}}));
    bed.settle();
    bed.delete(&SERVICES, "first", &Deletion::default());
    bed.settle();
    let pod = bed.get(&PODS, "a").unwrap();
    assert_eq!(object::list(&pod, "/metadata/ownerReferences").len(), 1);
    bed.delete(&SERVICES, "second", &Deletion::default());
    bed.create(&SERVICES, "demo", "second", json!({"spec": {}}));
    bed.settle();
    assert_eq!(bed.get(&PODS, "a"), None);
}
