//! Names: every record type, and everyone else's names untouched. systemd-resolved is left to the run on a real cluster:
//! there is none in namespaces.

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::ResponseCode::{NXDomain, NoError};
use hickory_proto::rr::RecordType::{A, AAAA, PTR, SRV, TXT};
use serde_json::{Value, json};

use crate::client::{Over, reverse};
use crate::world::{World, seconds, until};

const ZONE: &str = "demo.svc.cluster.local";

fn service(world: &World, name: &str, spec: Value) {
    let metadata = json!({"namespace": "demo", "name": name});
    world.cluster.apply(json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})).unwrap();
}

fn sorted(mut all: Vec<IpAddr>) -> Vec<IpAddr> {
    all.sort();
    all
}

#[test]
fn every_record_type_is_answered_and_the_local_networks_names_too() {
    let Some(world) = World::start() else { return };
    let ws = &world.ws;
    service(
        &world,
        "four",
        json!({"selector": {"app": "web"}, "ports": [{"port": 80}], "ipFamilyPolicy": "SingleStack"}),
    );
    service(&world, "podway-alias", json!({"type": "ExternalName", "externalName": format!("web.{ZONE}")}));
    assert!(ws.lookup("node.corp.example").is_ok(), "the local network's names are there before podway");
    world.connected(&["--dns", "file"], |podway| {
        let web = world.service("demo", "web");
        let server = podway.dns();
        let ask = |kind, name: &str| ws.query(server, Over::Udp, kind, name).unwrap();

        // As programs ask, by the host's resolver.
        for name in [&format!("web.{ZONE}"), "web.demo", "web"] {
            assert_eq!(ws.lookup(name).unwrap(), web, "{name}");
        }
        assert_eq!(ws.lookup(&format!("db.{ZONE}")).unwrap(), sorted(world.addresses("demo", "db")));
        let store = ws.lookup(&format!("store-0.store.{ZONE}")).unwrap();
        assert!(!store.is_empty() && store.iter().all(|of| world.addresses("demo", "store").contains(of)), "{store:?}");
        assert!(ws.lookup("node.corp.example").is_ok(), "a name of the local network is lost");
        assert!(ws.lookup("node").is_ok(), "the local network's search domain is lost");

        assert_eq!(ask(A, &format!("web.{ZONE}")).addresses, web[..1]);
        assert_eq!(ask(AAAA, &format!("web.{ZONE}")).addresses, web[1..]);
        for (kind, name) in [(AAAA, "four"), (TXT, "web")] {
            let told = ask(kind, &format!("{name}.{ZONE}"));
            assert!(told.code == NoError && told.records.is_empty(), "{kind} of {name} has to be empty: {told:?}");
        }
        let srv = ask(SRV, &format!("_http._tcp.web.{ZONE}")).records;
        assert!(srv.iter().any(|record| record.ends_with(&format!(" 80 web.{ZONE}."))), "{srv:?}");
        for address in web {
            assert_eq!(ask(PTR, &reverse(address)).records, [format!("web.{ZONE}.")]);
        }
        assert_eq!(ask(A, &format!("no-such-service.{ZONE}")).code, NXDomain);
        assert_eq!(ws.query(server, Over::Tcp, A, &format!("web.{ZONE}")).unwrap().addresses, web[..1]);

        // An alias is followed, and keeps its CNAME.
        let alias = ask(A, &format!("podway-alias.{ZONE}"));
        assert_eq!(alias.records, [format!("web.{ZONE}."), web[0].to_string()]);
        assert_eq!(ws.lookup("podway-alias").unwrap(), web);
    });
}

#[test]
fn a_virtual_address_has_a_name() {
    let Some(world) = World::start() else { return };
    world.connected(&["--proxy-via", "service=web"], |podway| {
        let virtuals = world.ws.lookup(&format!("edge.{ZONE}")).unwrap();
        assert_eq!(virtuals.len(), 2);
        for address in virtuals {
            let told = world.ws.query(podway.dns(), Over::Udp, PTR, &reverse(address)).unwrap();
            assert_eq!(told.records, [format!("edge.{ZONE}.")], "{address}");
        }
    });
}

#[test]
fn a_name_that_does_not_exist_is_denied_at_once() {
    let Some(world) = World::start_alone() else { return };
    world.connected(&[], |podway| {
        let server = podway.dns();
        let mut slowest = Duration::ZERO;
        for number in 0..10 {
            let told = world.ws.query(server, Over::Udp, A, &format!("missing-{number}.{ZONE}")).unwrap();
            assert_eq!(told.code, NXDomain);
            slowest = slowest.max(told.took);
        }
        println!("slowest {slowest:?}");
        assert!(slowest < seconds(1), "{slowest:?}");
    });
}

#[test]
fn off_changes_nothing_on_the_host_and_the_device_still_answers() {
    let Some(world) = World::start() else { return };
    world.connected(&["--dns", "off"], |podway| {
        assert_eq!(world.ws.read("/etc/resolv.conf"), world.before().resolv_conf);
        let told = world.ws.query(podway.dns(), Over::Udp, A, &format!("web.{ZONE}")).unwrap();
        assert_eq!(told.addresses, world.service("demo", "web")[..1]);
        assert!(world.ws.lookup(&format!("web.{ZONE}")).is_err());
    });
}

#[test]
fn names_of_the_site_come_from_the_clusters_own_server() {
    let Some(world) = World::start() else { return };
    world.connected(&["--also-proxy", "198.51.100.0/24"], |podway| {
        let (addresses, _) = until("its answer", seconds(5), || world.ws.lookup("ledger.site.example").ok());
        assert_eq!(addresses, ["198.51.100.10".parse::<IpAddr>().unwrap()]);
        assert_eq!(world.ws.who_at("ledger.site.example", 8080).unwrap().pod, "ledger");
        assert_eq!(world.ws.query(podway.dns(), Over::Udp, A, "no-such.site.example").unwrap().code, NXDomain);
    });
}
