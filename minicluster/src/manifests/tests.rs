use super::*;
use crate::controllers::pods::is_ready;
use crate::controllers::testing::with_kubelet;
use crate::controllers::wanted::apply;
use crate::controllers::world::World;
use crate::object::{self, list, text};
use crate::rbac::profiles;
use crate::store::Store;
use crate::strategy;
use crate::time::Time;

const NOW: Time = Time::from_millis(1_800_000_000_000);

fn begun() -> Store {
    let store = Store::new(|| NOW.rfc3339());
    let rights = profiles::system().into_iter().chain(profiles::podway("demo"));
    let all = system().into_iter().chain([node(1, &NOW.rfc3339())]).chain(samples()).chain(rights);
    for (key, object) in all {
        strategy::create(&store, &key, object).unwrap();
    }
    store
}

#[test]
fn the_samples_become_ready_and_then_nothing_is_wanted() {
    let store = begun();
    let rounds = (0..100).take_while(|_| {
        let wanted = with_kubelet(&World::read(&store), NOW);
        let any = !wanted.writes.is_empty();
        assert!(apply(&store, wanted.writes, NOW).is_empty());
        any
    });
    assert!(rounds.count() < 20);
    let pods = store.list(&POD_KIND, None).1;
    let mut names: Vec<_> = pods.iter().map(|pod| object::label(pod, "app").unwrap().to_owned()).collect();
    names.sort();
    assert_eq!(names, ["api", "db", "edge", "host", "lone", "store", "store", "web", "web"]);
    assert!(pods.iter().all(|pod| is_ready(pod)));
    let slices = store.list(&ENDPOINT_SLICES, Some("demo")).1;
    assert_eq!(slices.len(), 10, "one of each family for five services");
    for slice in slices.iter().filter(|slice| object::label(slice, "kubernetes.io/service-name") != Some("idle")) {
        let ports = list(slice, "/ports");
        let http = ports.iter().find(|port| port["name"] == "http").unwrap();
        assert_eq!((ports.len(), &http["port"]), (6, &json!(80)), "a service's port is its pods' own");
    }
    let (_, services) = store.list(&SERVICES, None);
    for service in services.iter().filter(|service| text(service, "/spec/clusterIP") != "None") {
        for port in list(service, "/spec/ports").iter().filter(|port| port["port"] != 443) {
            let target = &port["targetPort"];
            assert!(target == &port["port"] || target == &port["name"], "{port}");
        }
    }
    let address = |name: &str| {
        text(services.iter().find(|service| object::name(service) == name).unwrap(), "/spec/clusterIP").to_owned()
    };
    assert_eq!((address("kubernetes").as_str(), address("kube-dns").as_str()), ("10.43.0.1", "10.43.0.10"));
}

#[test]
fn nodes_have_ranges_and_addresses_of_their_own() {
    let (key, second) = node(2, "2026-01-01T00:00:00Z");
    assert_eq!(key.name, "node2");
    assert_eq!(second["spec"]["podCIDRs"], json!(["10.42.1.0/24", "fd42::100/120"]));
    assert_eq!(second["status"]["addresses"][0]["address"], "10.41.0.2");
}
