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

/// A service with so many addresses, `many-COUNT`.
fn many(world: &World, count: u8) {
    let name = format!("many-{count}");
    service(world, &name, json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80}]}));
    for (slice, first) in (0..count).step_by(100).enumerate() {
        let addresses =
            (first..count.min(first.saturating_add(100))).map(|n| json!({"addresses": [format!("10.43.7.{n}")]}));
        let metadata = json!({
            "namespace": "demo", "name": format!("{name}-{slice}"), "labels": {"kubernetes.io/service-name": name}
        });
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata, "addressType": "IPv4",
            "endpoints": addresses.collect::<Vec<_>>(), "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]
        });
        world.cluster.apply(slice).unwrap();
    }
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

#[test]
fn an_alias_out_of_the_cluster_is_answered_whole() {
    let Some(world) = World::start() else { return };
    for (name, target) in [("vendor", "www.vendor.example"), ("near", "node.corp.example")] {
        service(&world, name, json!({"type": "ExternalName", "externalName": target}));
    }
    let vendor: IpAddr = "198.51.100.10".parse().unwrap();
    assert!(world.ws.lookup("www.vendor.example").is_err(), "the workstation's own servers do not know it");
    let node = world.ws.lookup("node.corp.example").unwrap();
    world.connected(&["--dns", "file"], |podway| {
        for over in [Over::Udp, Over::Tcp] {
            let told = world.ws.query(podway.dns(), over, A, &format!("vendor.{ZONE}")).unwrap();
            assert_eq!(told.records, ["www.vendor.example.".to_owned(), vendor.to_string()]);
        }
        assert!(world.ws.lookup("vendor").unwrap().contains(&vendor));
        // Of a domain of the workstation's own: as that finds it.
        assert_eq!(world.ws.lookup("near").unwrap(), node);
    });
}

#[test]
fn an_answer_is_cut_where_it_is_longer_than_who_asks_takes_and_whole_over_tcp() {
    let Some(world) = World::start() else { return };
    // Each address takes 16 bytes: 512, 1232 and 4096 are between these.
    let sizes = [20_u8, 60, 120, 250];
    sizes.into_iter().for_each(|count| many(&world, count));
    world.connected(&[], |podway| {
        let server = podway.dns();
        for count in sizes {
            let name = format!("many-{count}.{ZONE}");
            let whole = world.ws.query(server, Over::Tcp, A, &name).unwrap();
            assert!(!whole.cut && whole.addresses.len() == usize::from(count), "{count}: {whole:?}");
            for (takes, most) in [
                (None, 512),
                (Some(0), 512),
                (Some(512), 512),
                (Some(1232), 1232),
                (Some(4096), 4096),
                (Some(65_535), 4096),
            ] {
                let told = world.ws.query_with(server, Over::Udp, A, &name, takes).unwrap();
                assert!(told.bytes <= most, "{takes:?}: {} bytes", told.bytes);
                let edns = if takes.is_some() { 11 } else { 0 };
                let fits = whole.bytes + edns <= most;
                assert_eq!(
                    (told.cut, told.addresses.len()),
                    (!fits, if fits { count.into() } else { 0 }),
                    "{count}, {takes:?}"
                );
            }
            // A program gets all of it, as it asks again.
            assert_eq!(world.ws.lookup(&name).unwrap().len(), usize::from(count));
        }
    });
}

#[test]
fn the_clusters_own_name_server_answers_who_asks_it_over_udp_and_tcp() {
    let Some(world) = World::start() else { return };
    many(&world, 60);
    let web = world.service("demo", "web");
    for flags in [&[][..], &["--proxy-via", "service=web"]] {
        world.connected(flags, |_| {
            let servers = world.service("kube-system", "kube-dns");
            // By its name, it has a virtual address where a rule covers it.
            let named = world.ws.lookup("kube-dns.kube-system").unwrap();
            let servers = if flags.is_empty() { servers.to_vec() } else { named };
            assert_eq!(servers.len(), 2);
            for server in servers {
                let ask =
                    |over, kind, name: &str| world.ws.query(server, over, kind, &format!("{name}.{ZONE}")).unwrap();
                for over in [Over::Udp, Over::Tcp] {
                    // Not podway's word: its own server would give virtual addresses.
                    assert_eq!(ask(over, A, "web").addresses, web[..1], "{server} {over:?}");
                    assert_eq!(ask(over, AAAA, "web").addresses, web[1..], "{server} {over:?}");
                    assert_eq!(ask(over, A, "nosuch").code, NXDomain, "{server} {over:?}");
                }
                let cut = ask(Over::Udp, A, "many-60");
                assert!(cut.cut && cut.addresses.is_empty(), "{server}: {cut:?}");
                let whole = ask(Over::Tcp, A, "many-60");
                assert!(!whole.cut && whole.addresses.len() == 60, "{server}: {whole:?}");
                let long = world.ws.query_with(server, Over::Udp, A, &format!("many-60.{ZONE}"), Some(4096)).unwrap();
                assert!(!long.cut && long.addresses.len() == 60 && long.bytes > 900, "{server}: {long:?}");
            }
        });
    }
}

#[test]
fn what_others_write_into_resolv_conf_meanwhile_is_neither_overwritten_nor_lost() {
    const THEIRS: &str = "# by a DHCP client\nnameserver 192.0.2.53\nsearch lan.example\n";
    let Some(world) = World::start() else { return };
    world.with_daemon(|podway| {
        // In the moment before the disconnect: it stays.
        podway.connect(&["--dns", "file"]);
        world.ws.write("/etc/resolv.conf", THEIRS);
        podway.expect(0, &["disconnect"]);
        assert_eq!(world.ws.read("/etc/resolv.conf"), THEIRS);
        assert!(!world.is_as_before());

        // Long before: podway puts its own back, says so, and what they wrote comes back.
        podway.connect(&["--dns", "file"]);
        let newer = THEIRS.replace("lan", "other");
        world.ws.write("/etc/resolv.conf", &newer);
        let (message, took) = until("a word of it", seconds(10), || {
            Some(podway.status().dns.message).filter(|message| message.contains("something else wrote resolv.conf"))
        });
        println!("after {took:?}: {message}");
        assert_eq!(world.ws.lookup("web").unwrap(), world.service("demo", "web"));
        podway.expect(0, &["disconnect"]);
        assert_eq!(world.ws.read("/etc/resolv.conf"), newer);

        // An edit of podway's own file stays while it is there, and beside it afterwards.
        podway.connect(&["--dns", "file"]);
        let edited = world.ws.read("/etc/resolv.conf") + "options timeout:3\n";
        world.ws.write("/etc/resolv.conf", &edited);
        until("a word of it", seconds(10), || podway.status().dns.message.contains("somebody edited").then_some(()));
        assert_eq!(world.ws.read("/etc/resolv.conf"), edited);
        world.ws.who("web").unwrap();
        let done = podway.expect(0, &["disconnect"]);
        assert!(done.out.contains("the edit is now in /etc/resolv.conf.podway-edited"), "{done:?}");
        assert_eq!(world.ws.read("/etc/resolv.conf"), newer);
        assert_eq!(world.ws.read("/etc/resolv.conf.podway-edited"), edited);
        world.ws.write("/etc/resolv.conf", &world.before().resolv_conf);
        world.ws.remove("/etc/resolv.conf.podway-edited");
    });
}
