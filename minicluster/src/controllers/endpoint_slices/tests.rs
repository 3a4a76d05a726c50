use std::sync::Arc;

use serde_json::{Value, json};

use crate::controllers::conditions::{self, Condition};
use crate::controllers::testing::{Bed, workload};
use crate::object::{self, list, text};
use crate::resource::{DEPLOYMENTS, ENDPOINT_SLICES, PODS, SERVICES};
use crate::strategy::Deletion;

fn service(spec: &Value) -> Value {
    let mut service = json!({"spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80}]}});
    for (name, value) in spec.as_object().unwrap() {
        service["spec"][name] = value.clone();
    }
    service
}

fn slice(bed: &Bed, family: &str) -> Arc<Value> {
    let mut slices = bed.list(&ENDPOINT_SLICES).into_iter().filter(|slice| slice["addressType"] == family);
    let slice = slices.next().unwrap();
    assert!(slices.next().is_none(), "more than one of {family}");
    slice
}

#[test]
fn a_service_has_a_slice_of_each_of_its_families() {
    let bed = Bed::new(1);
    bed.create(&DEPLOYMENTS, "demo", "web", workload("web", 2));
    let spec = json!({"ipFamilyPolicy": "PreferDualStack"});
    let service = bed.create(&SERVICES, "demo", "web", service(&spec));
    bed.settle();
    assert_eq!(bed.list(&ENDPOINT_SLICES).len(), 2);
    let pods = bed.list(&PODS);
    for (family, index) in [("IPv4", 0), ("IPv6", 1)] {
        let slice = slice(&bed, family);
        assert!(object::is_controlled_by(&slice, object::uid(&service)));
        assert!(object::name(&slice).starts_with("web-"));
        assert_eq!(object::label(&slice, "kubernetes.io/service-name"), Some("web"));
        assert_eq!(slice["ports"], json!([{"name": "http", "port": 80, "protocol": "TCP"}]));
        for (endpoint, pod) in list(&slice, "/endpoints").iter().zip(&pods) {
            assert_eq!(endpoint["addresses"][0], pod["status"]["podIPs"][index]["ip"]);
            assert_eq!(endpoint["conditions"], json!({"ready": true, "serving": true, "terminating": false}));
            assert_eq!(endpoint["nodeName"], "node1");
            assert_eq!(endpoint["targetRef"]["uid"], pod["metadata"]["uid"]);
        }
        assert_eq!(list(&slice, "/endpoints").len(), 2);
    }
}

#[test]
fn a_pod_that_goes_or_does_not_serve_is_still_listed_as_such() {
    let bed = Bed::new(1);
    bed.create(&DEPLOYMENTS, "demo", "web", workload("web", 1));
    bed.create(&SERVICES, "demo", "web", service(&json!({})));
    bed.create(&SERVICES, "demo", "early", service(&json!({"publishNotReadyAddresses": true})));
    bed.settle();
    let name = bed.names(&PODS).remove(0);
    bed.delete(&PODS, &name, &Deletion::default());
    bed.settle_with(super::super::all, |_| ());
    let endpoint = |service: &str| {
        let slices = bed.list(&ENDPOINT_SLICES);
        let slice = slices.iter().find(|slice| object::label(slice, super::SERVICE) == Some(service)).unwrap();
        let all = list(slice, "/endpoints").to_vec();
        all.into_iter().find(|endpoint| endpoint["targetRef"]["name"] == *name).unwrap()["conditions"].clone()
    };
    assert_eq!(endpoint("web"), json!({"ready": false, "serving": true, "terminating": true}));
    bed.update(&PODS, &name, |pod| {
        let unready = Condition { kind: "Ready", holds: false, reason: "", message: "" };
        conditions::set(pod, unready, None, bed.now);
    });
    bed.settle_with(super::super::all, |_| ());
    assert_eq!(endpoint("web"), json!({"ready": false, "serving": false, "terminating": true}));
    assert_eq!(endpoint("early")["ready"], true);
}

#[test]
fn without_pods_the_slice_is_empty_and_takes_them_in_later() {
    let bed = Bed::new(1);
    bed.create(&SERVICES, "demo", "web", service(&json!({})));
    bed.settle();
    let before = slice(&bed, "IPv4");
    assert_eq!((&before["endpoints"], &before["ports"]), (&Value::Null, &Value::Null));
    bed.create(&DEPLOYMENTS, "demo", "web", workload("web", 3));
    bed.settle();
    let after = slice(&bed, "IPv4");
    assert_eq!(object::name(&before), object::name(&after));
    assert_eq!(list(&after, "/endpoints").len(), 3);
}

#[test]
fn named_ports_are_what_each_pod_says() {
    let bed = Bed::new(1);
    for (name, port) in [("one", 8080), ("two", 8080), ("three", 9090)] {
        let ports = json!([{"name": "http", "containerPort": port}]);
        let containers = json!([{"name": "main", "ports": ports}]);
        bed.create(
            &PODS,
            "demo",
            name,
            json!({
                "metadata": {"labels": {"app": "web"}}, "spec": {"containers": containers},
            }),
        );
    }
    let ports =
        json!([{"name": "http", "port": 80, "targetPort": "http"}, {"name": "x", "port": 1, "targetPort": "none"}]);
    bed.create(&SERVICES, "demo", "web", service(&json!({"ports": ports})));
    bed.settle();
    let mut found: Vec<_> = bed
        .list(&ENDPOINT_SLICES)
        .iter()
        .map(|slice| {
            (slice["ports"][0]["port"].as_i64().unwrap(), list(slice, "/ports").len(), list(slice, "/endpoints").len())
        })
        .collect();
    found.sort_unstable();
    assert_eq!(found, [(8080, 1, 2), (9090, 1, 1)]);
    bed.update(&PODS, "three", |pod| pod["metadata"]["labels"] = json!({}));
    bed.settle();
    assert_eq!(bed.list(&ENDPOINT_SLICES).len(), 1);
}

#[test]
fn headless_services_say_so_and_stateful_pods_have_their_hostnames() {
    let bed = Bed::new(1);
    let mut set = workload("web", 1);
    set["spec"]["serviceName"] = json!("web");
    bed.create(&crate::resource::STATEFUL_SETS, "demo", "web", set);
    bed.create(&SERVICES, "demo", "web", service(&json!({"clusterIP": "None"})));
    bed.settle();
    let slice = slice(&bed, "IPv4");
    assert_eq!(object::label(&slice, super::HEADLESS), Some(""));
    assert_eq!(text(&slice, "/endpoints/0/hostname"), "web-0");
}

#[test]
fn services_without_a_selector_and_aliases_have_no_slices_of_ours() {
    let bed = Bed::new(1);
    bed.create(&SERVICES, "demo", "own", json!({"spec": {"ports": [{"port": 80}]}}));
    bed.create(&SERVICES, "demo", "alias", json!({"spec": {"type": "ExternalName", "externalName": "a.example"}}));
    let own = json!({"metadata": {"labels": {"kubernetes.io/service-name": "own"}}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["192.0.2.7"]}], "ports": []});
    bed.create(&ENDPOINT_SLICES, "demo", "own-hand", own);
    bed.settle();
    assert_eq!(bed.names(&ENDPOINT_SLICES), ["own-hand"]);
}

#[test]
fn many_endpoints_are_spread_over_slices_of_a_hundred() {
    let bed = Bed::new(1);
    bed.create(&DEPLOYMENTS, "demo", "web", workload("web", 120));
    bed.create(&SERVICES, "demo", "web", service(&json!({})));
    bed.settle();
    let sizes: Vec<_> = bed.list(&ENDPOINT_SLICES).iter().map(|slice| list(slice, "/endpoints").len()).collect();
    assert_eq!((sizes.len(), sizes.iter().sum::<usize>()), (2, 120));
    bed.delete(&SERVICES, "web", &Deletion::default());
    bed.settle();
    assert!(bed.list(&ENDPOINT_SLICES).is_empty());
}
