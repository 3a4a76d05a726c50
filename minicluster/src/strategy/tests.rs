use serde_json::{Value, json};

use super::*;
use crate::object::{list, number};
use crate::resource::SERVICE_CIDRS;
use crate::time::Time;

const NOW: Time = Time::from_millis(1_700_000_000_000);

fn store() -> Store {
    let store = Store::new(|| "2026-01-01T00:00:00Z".to_owned());
    let ranges = json!({"spec": {"cidrs": ["10.43.0.0/16", "fd43::/112"]}});
    create(&store, &Key::new(&SERVICE_CIDRS, "", "kubernetes"), ranges).unwrap();
    create(&store, &Key::new(&NAMESPACES, "", "demo"), json!({})).unwrap();
    store
}

fn service(store: &Store, name: &str, spec: &Value) -> Result<Arc<Value>, Refusal> {
    create(store, &Key::new(&SERVICES, "demo", name), json!({"spec": spec}))
}

#[test]
fn a_generation_counts_what_is_wanted_and_nothing_else() {
    let store = store();
    let key = Key::new(&DEPLOYMENTS, "demo", "web");
    let generation = || number(&store.get(&key).unwrap(), "/metadata/generation").unwrap();
    create(&store, &key, json!({"metadata": {"generation": 7}, "spec": {}, "status": {"replicas": 3}})).unwrap();
    assert_eq!(generation(), 1);
    assert_eq!(store.get(&key).unwrap()["status"], json!({}), "a status of the client's");
    update(&store, &key, None, Part::Status, |web| web["status"] = json!({"replicas": 2})).unwrap();
    update(&store, &key, None, Part::Status, |web| web["spec"]["replicas"] = json!(9)).unwrap();
    assert_eq!(number(&store.get(&key).unwrap(), "/spec/replicas"), Some(1));
    assert_eq!(generation(), 1);
    update(&store, &key, None, Part::Main, |web| web["status"] = json!({})).unwrap();
    assert_eq!(number(&store.get(&key).unwrap(), "/status/replicas"), Some(2));
    update(&store, &key, None, Part::Main, |web| web["metadata"]["labels"] = json!({"a": "b"})).unwrap();
    update(&store, &key, None, Part::Status, |web| web["metadata"]["annotations"] = json!({"a": "b"})).unwrap();
    assert_eq!(generation(), 1);
    update(&store, &key, None, Part::Main, |web| web["spec"]["replicas"] = json!(2)).unwrap();
    assert_eq!(generation(), 2);
    update(&store, &key, None, Part::Main, |web| web["metadata"]["annotations"] = json!({"a": "c"})).unwrap();
    assert_eq!(generation(), 3);
    update(&store, &key, None, Part::Main, |web| web["spec"]["strategy"] = json!({})).unwrap();
    assert_eq!(generation(), 3, "defaults come back: nothing else is wanted");
}

#[test]
fn to_be_given_a_node_is_no_change_of_what_a_pod_should_be() {
    let store = store();
    let key = Key::new(&PODS, "demo", "a");
    create(&store, &key, json!({"spec": {}})).unwrap();
    update(&store, &key, None, Part::All, |pod| pod["spec"]["nodeName"] = json!("n")).unwrap();
    let (pod, _) = update(&store, &key, None, Part::Main, |pod| pod["spec"]["priority"] = json!(0)).unwrap();
    assert_eq!(number(&pod, "/metadata/generation"), Some(1));
    let more = json!([{"name": "agent"}]);
    let (pod, _) = update(&store, &key, None, Part::Main, |pod| pod["spec"]["ephemeralContainers"] = more).unwrap();
    assert_eq!(number(&pod, "/metadata/generation"), Some(2));
}

#[test]
fn nobody_changes_who_an_object_is() {
    let store = store();
    let key = Key::new(&PODS, "demo", "a");
    let before = create(&store, &key, json!({"spec": {}})).unwrap();
    let (after, _) = update(&store, &key, None, Part::All, |pod| {
        pod["metadata"] = json!({"name": "b", "uid": "x", "labels": {"a": "b"}});
        pod["kind"] = json!("Node");
    })
    .unwrap();
    for path in ["/metadata/name", "/metadata/uid", "/metadata/namespace", "/kind", "/metadata/creationTimestamp"] {
        assert_eq!(before.pointer(path), after.pointer(path), "{path}");
    }
    assert_eq!(after["metadata"]["labels"], json!({"a": "b"}));
}

#[test]
fn a_service_gets_an_address_of_each_family_that_it_asks_for() {
    let store = store();
    let spec = |object: &Value| {
        let spec = &object["spec"];
        (spec["clusterIPs"].clone(), spec["ipFamilies"].clone(), spec["ipFamilyPolicy"].clone())
    };
    let single = service(&store, "single", &json!({"ports": [{"port": 80}]})).unwrap();
    assert_eq!(spec(&single), (json!(["10.43.0.16"]), json!(["IPv4"]), json!("SingleStack")));
    assert_eq!(single["spec"]["clusterIP"], "10.43.0.16");
    assert_eq!(single["spec"]["ports"], json!([{"port": 80, "protocol": "TCP", "targetPort": 80}]));
    let both = service(&store, "both", &json!({"ipFamilyPolicy": "PreferDualStack"})).unwrap();
    assert_eq!(spec(&both), (json!(["10.43.0.17", "fd43::10"]), json!(["IPv4", "IPv6"]), json!("PreferDualStack")));
    let six = service(&store, "six", &json!({"ipFamilies": ["IPv6"]})).unwrap();
    assert_eq!(spec(&six), (json!(["fd43::11"]), json!(["IPv6"]), json!("SingleStack")));
    let headless = service(&store, "headless", &json!({"clusterIP": "None"})).unwrap();
    assert_eq!(spec(&headless), (json!(["None"]), json!(["IPv4"]), json!("SingleStack")));
    let own = service(&store, "own", &json!({"clusterIP": "10.43.0.10"})).unwrap();
    assert_eq!(spec(&own).0, json!(["10.43.0.10"]));
    assert!(matches!(service(&store, "same", &json!({"clusterIP": "10.43.0.10"})), Err(Refusal::Invalid(_))));
    assert!(matches!(service(&store, "far", &json!({"clusterIP": "10.44.0.10"})), Err(Refusal::Invalid(_))));
    let name = service(&store, "name", &json!({"type": "ExternalName", "externalName": "a.example"})).unwrap();
    assert!(name["spec"].get("clusterIP").is_none());
}

#[test]
fn a_service_that_names_its_addresses_has_these() {
    let both = json!(["10.43.0.80", "fd43::80"]);
    let made = service(&store(), "web", &json!({"clusterIP": both[0], "clusterIPs": both})).unwrap();
    assert_eq!(made["spec"]["clusterIPs"], both);
}

#[test]
fn a_service_keeps_its_address_while_it_changes() {
    let store = store();
    let key = Key::new(&SERVICES, "demo", "web");
    let before = service(&store, "web", &json!({"ports": [{"port": 80}]})).unwrap();
    let change = |change: fn(&mut Value)| update(&store, &key, None, Part::Main, change).unwrap().0;
    let after = change(|web| web["spec"] = json!({"ports": [{"port": 81}]}));
    assert_eq!(after["spec"]["clusterIPs"], before["spec"]["clusterIPs"]);
    let after = change(|web| web["spec"]["ipFamilyPolicy"] = json!("PreferDualStack"));
    assert_eq!(after["spec"]["clusterIPs"], json!(["10.43.0.16", "fd43::10"]));
    assert_eq!(after["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
}

#[test]
fn a_pod_that_runs_gets_its_time_to_end_and_others_go_at_once() {
    let store = store();
    let key = Key::new(&PODS, "demo", "a");
    create(&store, &key, json!({"spec": {}})).unwrap();
    assert_eq!(delete(&store, &key, &Deletion::default(), NOW).unwrap().1, Fate::Goes);
    let pod = create(&store, &key, json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 2}})).unwrap();
    let (going, fate) = delete(&store, &key, &Deletion::default(), NOW).unwrap();
    assert_eq!(fate, Fate::Stays);
    assert_eq!(going["metadata"]["deletionTimestamp"], "2023-11-14T22:13:22Z");
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 2);
    let longer = Deletion { grace: Some(60), ..Deletion::default() };
    assert_eq!(delete(&store, &key, &longer, NOW).unwrap().0, going, "only sooner");
    assert_eq!(delete(&store, &key, &Deletion::now("other"), NOW), Err(Refusal::Store(StoreError::Conflict)));
    assert_eq!(delete(&store, &key, &Deletion::now(text(&pod, "/metadata/uid")), NOW).unwrap().1, Fate::Goes);
    assert_eq!(store.get(&key), None);
}

#[test]
fn what_finalizers_hold_goes_with_the_last_of_them() {
    let store = store();
    let key = Key::new(&PODS, "demo", "a");
    create(&store, &key, json!({"metadata": {"finalizers": ["x"]}, "spec": {"nodeName": "n"}})).unwrap();
    delete(&store, &key, &Deletion { grace: Some(5), ..Deletion::default() }, NOW).unwrap();
    let (_, fate) = delete(&store, &key, &Deletion { grace: Some(0), ..Deletion::default() }, NOW).unwrap();
    assert_eq!(fate, Fate::Stays);
    let (_, fate) = update(&store, &key, None, Part::Main, |pod| pod["metadata"]["finalizers"] = json!([])).unwrap();
    assert_eq!(fate, Fate::Goes);
    assert_eq!(store.get(&key), None);
}

#[test]
fn a_going_namespace_takes_nothing_new_and_stays_until_it_is_empty() {
    let store = store();
    let key = Key::new(&NAMESPACES, "", "demo");
    let (going, fate) = delete(&store, &key, &Deletion::default(), NOW).unwrap();
    assert_eq!(fate, Fate::Stays);
    assert_eq!(text(&going, "/status/phase"), "Terminating");
    let refused = create(&store, &Key::new(&PODS, "demo", "a"), json!({})).unwrap_err().to_string();
    assert!(refused.ends_with("because it is being terminated"), "{refused}");
    let missing = create(&store, &Key::new(&PODS, "none", "a"), json!({}));
    assert_eq!(missing, Err(Refusal::NoNamespace("none".to_owned())));
    let (_, fate) = update(&store, &key, None, Part::All, |demo| demo["spec"]["finalizers"] = json!([])).unwrap();
    assert_eq!(fate, Fate::Goes);
}

#[test]
fn a_job_leaves_its_pods_unless_told_otherwise() {
    let store = store();
    let key = Key::new(&JOBS, "demo", "a");
    create(&store, &key, json!({"spec": {}})).unwrap();
    let (going, _) = delete(&store, &key, &Deletion::default(), NOW).unwrap();
    assert_eq!(list(&going, "/metadata/finalizers"), [json!("orphan")]);
    create(&store, &Key::new(&JOBS, "demo", "b"), json!({"spec": {}})).unwrap();
    let background = Deletion { propagation: Some(Propagation::Background), ..Deletion::default() };
    assert_eq!(delete(&store, &Key::new(&JOBS, "demo", "b"), &background, NOW).unwrap().1, Fate::Goes);
}

#[test]
fn a_job_finds_its_pods_by_its_uid() {
    let store = store();
    let job = create(&store, &Key::new(&JOBS, "demo", "a"), json!({"spec": {"selector": {}}})).unwrap();
    let uid = text(&job, "/metadata/uid");
    assert_eq!(job["spec"]["selector"]["matchLabels"], json!({"batch.kubernetes.io/controller-uid": uid}));
    let labels = &job["spec"]["template"]["metadata"]["labels"];
    assert_eq!((&labels["controller-uid"], &labels["job-name"]), (&json!(uid), &json!("a")));
}
