use serde_json::json;

use crate::controllers::testing::{Bed, workload};
use crate::object::text;
use crate::resource::{DEPLOYMENTS, JOBS, NAMESPACES, PODS, SERVICES};
use crate::strategy::Deletion;

#[test]
fn a_namespace_goes_when_all_in_it_is_gone() {
    let bed = Bed::new(1);
    bed.create(&DEPLOYMENTS, "demo", "web", workload("web", 2));
    bed.create(&SERVICES, "demo", "web", json!({"spec": {"selector": {"app": "web"}}}));
    let template = json!({"spec": {"containers": [{"name": "main"}]}});
    bed.create(&JOBS, "demo", "once", json!({"spec": {"template": template}}));
    bed.settle();
    assert_eq!(bed.list(&PODS).len(), 3);
    bed.delete(&NAMESPACES, "demo", &Deletion::default());
    bed.settle_with(super::super::all, |_| ());
    let demo = bed.get(&NAMESPACES, "demo").unwrap();
    assert_eq!(text(&demo, "/status/phase"), "Terminating", "no kubelet has ended the pods yet");
    assert_eq!(text(&demo, "/status/conditions/0/reason"), "SomeResourcesRemain");
    bed.settle();
    assert_eq!(bed.get(&NAMESPACES, "demo"), None);
    let (_, objects) = bed.store.objects();
    assert!(!objects.keys().any(|key| key.namespace == "demo"), "{:?}", objects.keys());
}
