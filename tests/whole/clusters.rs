//! Two clusters at a time, whose ranges are equal to the last address. Each has a sandbox of its own, and both have a
//! workstation: the test itself carries bytes from the first one to the API server of the second.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread::Scope;
use std::time::Duration;

use hickory_proto::op::ResponseCode::NXDomain;
use hickory_proto::rr::RecordType::A;
use podway::status::SessionStatus;
use podway_minicluster::net::API;
use serde_json::{Value, json};

use crate::client::Over;
use crate::world::{Daemon, World, seconds, until};

/// Where its API server listens.
const API_PORT: u16 = 6443;
const ZONE: &str = "demo.svc.cluster.local";

/// A port on one workstation that leads to the API server of another cluster. Ends when it is dropped.
struct Bridge {
    listener: TcpListener,
    kubeconfig: PathBuf,
}

impl Bridge {
    fn start<'a>(scope: &'a Scope<'a, '_>, near: &World, far: &'a World) -> Bridge {
        let (listener, port) = near.ws.listen().unwrap();
        let mut config: Value = serde_json::from_str(&far.ws.read(far.kubeconfig())).unwrap();
        let cluster = &mut config["clusters"][0]["cluster"];
        cluster["server"] = json!(format!("https://127.0.0.1:{port}"));
        cluster["tls-server-name"] = json!(API.v4.to_string());
        let kubeconfig = near.directory().join("second.kubeconfig");
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        let accepting = listener.try_clone().unwrap();
        scope.spawn(move || {
            while let Ok((near, _)) = accepting.accept() {
                let Ok(far) = far.ws.connect(SocketAddr::from((API.v4, API_PORT))) else { continue };
                // A watch may be silent for longer than tests usually wait.
                far.set_read_timeout(None).unwrap();
                let (near_too, far_too) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                scope.spawn(move || carry(near, far));
                scope.spawn(move || carry(far_too, near_too));
            }
        });
        Bridge { listener, kubeconfig }
    }

    fn flags<'a>(&'a self, name: &'a str) -> [&'a str; 4] {
        ["--kubeconfig", self.kubeconfig.to_str().unwrap(), "--name", name]
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // Wakes whoever accepts.
        rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both).unwrap();
    }
}

/// Both directions end with either.
fn carry(mut from: TcpStream, mut to: TcpStream) {
    io::copy(&mut from, &mut to).ok();
    for side in [from, to] {
        side.shutdown(Shutdown::Both).ok();
    }
}

/// A service of one cluster's `web` by another name.
fn add_service(world: &World, name: &str) {
    let spec = json!({
        "ipFamilyPolicy": "PreferDualStack", "selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80}, {"name": "echo", "port": 9001}]
    });
    let metadata = json!({"namespace": "demo", "name": name});
    world.cluster.apply(json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})).unwrap();
}

/// Fails unless `web` of this cluster answers by that name, seen from the workstation of `at`.
fn is_web_of(cluster: &World, at: &World, name: &str) {
    let answer = at.ws.who(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(cluster.names("demo", "web").contains(&answer.pod), "{name} is {answer:?}");
}

/// One host, two clusters, and the daemon with a connection to each.
fn with_two(flags: &[&str], act: impl FnOnce(&World, &World, &Daemon<'_>, &Bridge)) {
    let Some(first) = World::start() else { return };
    let Some(second) = first.beside() else { return };
    add_service(&first, "only-first");
    add_service(&second, "only-second");
    let (namespace, away) = (json!({"name": "annex"}), json!({"namespace": "annex", "name": "away"}));
    second.cluster.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": namespace})).unwrap();
    let spec = json!({"type": "ExternalName", "externalName": format!("web.{ZONE}")});
    second.cluster.apply(json!({"apiVersion": "v1", "kind": "Service", "metadata": away, "spec": spec})).unwrap();
    let wanted = |world: &World, name: &str| {
        until("its addresses", seconds(10), || {
            let service = world.cluster.get("services", "demo", name).unwrap();
            service["spec"]["clusterIPs"].as_array().filter(|all| all.len() == 2).map(|_| ())
        });
    };
    wanted(&first, "only-first");
    wanted(&second, "only-second");
    std::thread::scope(|scope| {
        let bridge = Bridge::start(scope, &first, &second);
        first.with_daemon(|podway| {
            podway.connect(&[flags, &["--name", "first"]].concat());
            podway.connect(&bridge.flags("second"));
            act(&first, &second, podway, &bridge);
        });
    });
}

fn ranges(status: &SessionStatus) -> Vec<(&str, &str, &str)> {
    status.ranges.iter().map(|range| (&*range.cidr, &*range.treatment, &*range.note)).collect()
}

#[test]
fn equal_ranges_are_reached_side_by_side_and_one_end_leaves_the_other() {
    with_two(&[], |first, second, podway, bridge| {
        let (one, two) = (podway.status_of(&["first"]), podway.status_of(&["second"]));
        assert_eq!((one.device.name.as_str(), two.device.name.as_str()), ("podway0", "podway1"));
        assert!(one.vips.ranges.iter().all(|range| !two.vips.ranges.contains(range)), "{one:?}, {two:?}");
        assert_ne!(one.dns.server, two.dns.server);
        assert!(one.ranges.iter().all(|range| range.treatment != "translated"), "{:?}", ranges(&one));
        let clash = ranges(&two).into_iter().find(|(cidr, ..)| *cidr == "10.43.0.0/16").unwrap();
        assert!(clash.1 == "translated" && clash.2.contains("podway0"), "{clash:?}");
        for status in [&one, &two] {
            assert!(status.holds("Ready") && status.holds("DNSReady"), "{:?}", status.conditions);
        }
        assert!(two.dns.message.contains("another connection edits resolv.conf"), "{:?}", two.dns);

        // By the names of either; a name of both means the first's. Once and again: nothing of it is by chance.
        for _ in 0..3 {
            for name in ["only-first", "web", "web.demo", &format!("web.{ZONE}")] {
                is_web_of(first, first, name);
            }
            for name in ["only-second", "only-second.demo", &format!("only-second.{ZONE}"), "away.annex"] {
                is_web_of(second, first, name);
            }
        }
        let told = first.ws.query(podway_dns(&two), Over::Udp, A, &format!("web.{ZONE}")).unwrap();
        assert_eq!(told.addresses.len(), 1, "{told:?}");
        is_web_of(second, first, &told.addresses[0].to_string());
        let neither = first.ws.query(podway_dns(&one), Over::Udp, A, &format!("neither.{ZONE}")).unwrap();
        assert!(neither.code == NXDomain && neither.took < seconds(1), "{neither:?}");
        for over in [Over::Udp, Over::Tcp] {
            let told = first.ws.query(podway_dns(&one), over, A, &format!("only-second.{ZONE}")).unwrap();
            assert_eq!(told.addresses.len(), 1, "{over:?}: {told:?}");
        }

        refusals(podway, bridge);

        // What runs through the second goes on when the first ends; then all names are the second's.
        let mut stream = first.ws.reach("only-second", 9001).unwrap();
        echoes(&mut stream);
        podway.expect(0, &["disconnect", "first"]);
        echoes(&mut stream);
        is_web_of(second, first, &told.addresses[0].to_string());
        let edits = || (podway.status().dns.backend == "/etc/resolv.conf").then_some(());
        let (_, took) = until("the second edits resolv.conf", seconds(4), edits);
        println!("by the second after {took:?}");
        is_web_of(second, first, "web");
        assert!(first.ws.lookup("only-first").is_err());
        echoes(&mut stream);
        podway.disconnect(&["second"]);
    });
}

#[test]
fn without_a_clash_each_has_its_routes_and_the_younger_may_end_first() {
    with_two(&["--vnat", "all"], |first, second, podway, _| {
        let (one, two) = (podway.status_of(&["first"]), podway.status_of(&["second"]));
        assert!(one.device.routes.iter().all(|route| !two.device.routes.contains(route)), "{one:?}, {two:?}");
        assert!(two.device.routes.iter().any(|route| route.starts_with("10.43.")), "{:?}", two.device.routes);
        assert!(two.ranges.iter().all(|range| range.treatment != "translated"), "{:?}", ranges(&two));
        is_web_of(first, first, "only-first");
        is_web_of(second, first, "only-second");
        is_web_of(second, first, &second.service("demo", "web")[0].to_string());
        let mut stream = first.ws.reach("only-first", 9001).unwrap();
        echoes(&mut stream);
        podway.expect(0, &["disconnect", "second"]);
        echoes(&mut stream);
        is_web_of(first, first, "web");
        assert!(first.ws.lookup("only-second").is_err());
        podway.disconnect(&["first"]);
    });
}

fn podway_dns(status: &SessionStatus) -> std::net::IpAddr {
    status.dns.server.parse().unwrap()
}

fn echoes(stream: &mut TcpStream) {
    use std::io::{Read as _, Write as _};
    stream.write_all(b"podway").unwrap();
    let mut back = [0; 6];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"podway");
}

/// What is asked for again: the same is there already, what differs is refused with the difference.
fn refusals(podway: &Daemon<'_>, bridge: &Bridge) {
    let again = std::time::Instant::now();
    podway.connect(&["--name", "first"]);
    podway.connect(&bridge.flags("second"));
    assert!(again.elapsed() < Duration::from_secs(10));
    let other = podway.connect_to(1, &["--name", "first", "--proxy-via", "service=web"]).err;
    assert!(other.contains("connection first: exists and differs in --proxy-via"), "{other}");
    assert!(other.contains("hint: podway disconnect first first\n"), "{other}");
    let elsewhere = podway.connect_to(1, &bridge.flags("first")).err;
    assert!(elsewhere.contains("connection first: exists and differs in the API server"), "{elsewhere}");
    assert!(elsewhere.contains("or choose another --name"), "{elsewhere}");
    for (third, taken) in [(vec!["--name", "third"], "first"), (bridge.flags("third").to_vec(), "second")] {
        let said = podway.connect_to(1, &third).err;
        assert!(said.contains(&format!("connection {taken:?} already reaches this cluster")), "{said}");
    }
    let ambiguous = podway.expect(1, &["disconnect"]).err;
    assert!(ambiguous.contains("first, second"), "{ambiguous}");
}
