//! The API server, and the way to it.

use serde_json::{Value, json};

use crate::case::{Group, Stage, connect};
use crate::far::{base64, certificate, pem};
use crate::world::World;

const SILENCE: &str = "silence is no answer: a TCP connection is given up after 8 s";
const MUTE: &str = "silence is no answer: TLS and an answer have 9 s";
const ARP: &str = "the kernel asks for 3 s whether such a machine is there";

pub fn groups() -> Vec<Group> {
    let title = "The API server";
    let quick = vec![
        connect("nobody listens at its address", &["--server", "https://192.0.2.1:1"], "ClusterUnreachable")
            .says(&["192.0.2.1:1", "refused"]),
        connect("no route to its network", &["--server", "https://198.51.100.1:6443"], "ClusterUnreachable")
            .given(|world| {
                world.shell("ip route show default >/run/errors/default; ip route del default");
                world.undo(|world| drop(world.shell("ip route add $(cat /run/errors/default)")));
            })
            .says(&["network is unreachable"]),
        connect("its name is not known", &["--server", "https://nosuch.corp.example:6443"], "ClusterUnreachable")
            .says(&["nosuch.corp.example"]),
        connect("its certificate is of an unknown authority", &[], "ClusterUnreachable").given(|world| {
            let other = rcgen::generate_simple_self_signed(["other".to_owned()]).unwrap();
            let data = base64(pem("CERTIFICATE", other.cert.der()));
            cluster(world, json!({"certificate-authority-data": data}));
        }),
        connect("its certificate is for another name", &["--tls-server-name", "nobody.example"], "ClusterUnreachable")
            .says(&["kubernetes"]),
        connect("its certificate has ended", &[], "ClusterUnreachable")
            .given(|world| {
                let authority = certificate("127.0.0.1:7443", 2024);
                world.far(&[
                    "tls",
                    "127.0.0.1:7443",
                    &base64(authority.cert.der()),
                    &base64(authority.signing_key.serialize_der()),
                ]);
                world.undo(World::end_last);
                let data = base64(pem("CERTIFICATE", authority.cert.der()));
                cluster(world, json!({"server": "https://127.0.0.1:7443", "certificate-authority-data": data}));
            })
            .says(&["2024-06-01"]),
        connect("what answers speaks no TLS", &["--server", "https://127.0.0.1:7444"], "ClusterUnreachable").given(
            |world| {
                world.far(&["text", "127.0.0.1:7444", "SSH-2.0-OpenSSH_9.9"]);
                world.undo(World::end_last);
            },
        ),
        connect("it ends connections at once", &[], "ClusterUnreachable")
            .given(|world| world.fault(json!({"fault": "drop_before"}))),
        connect("the proxy refuses", &["--proxy-url", "http://127.0.0.1:7445"], "ClusterUnreachable").given(|world| {
            world.far(&["proxy", "127.0.0.1:7445", "403"]);
            world.undo(World::end_last);
        }),
        connect("the proxy wants a password", &["--proxy-url", "http://127.0.0.1:7446"], "ClusterUnreachable").given(
            |world| {
                world.far(&["proxy", "127.0.0.1:7446", "407"]);
                world.undo(World::end_last);
            },
        ),
        connect("the proxy is not there", &["--proxy-url", "http://192.0.2.1:1"], "ClusterUnreachable")
            .says(&["proxy"]),
        connect("the proxy's URL is none", &["--proxy-url", "gopher://proxy.example"], "KubeconfigInvalid")
            .says(&["proxy"]),
        connect("it takes no more requests", &[], "ClusterUnreachable").given(|world| {
            world.fault(json!({"fault": "refuse", "code": 429, "retry_after": 1}));
        }),
        connect("it fails", &[], "ClusterUnreachable")
            .given(|world| {
                let message = "etcdserver: request timed out";
                world.fault(json!({"fault": "refuse", "code": 500, "message": message}));
            })
            .says(&["500", "etcdserver"]),
    ];
    let login = vec![
        connect("a token that it does not know", &["--token", "nonsense"], "Unauthorized"),
        connect("a token that has ended", &[], "Unauthorized")
            .given(|world| {
                let claims = base64(br#"{"exp":1700000000,"sub":"ann"}"#);
                user(world, json!({"token": format!("e30.{}.sig", claims.trim_end_matches('='))}));
            })
            .says(&["2023-11-14"]),
        connect("a client certificate that it does not know", &[], "Unauthorized")
            .given(|world| client_certificate(world, 2999)),
        connect("a client certificate that has ended", &[], "Unauthorized")
            .given(|world| client_certificate(world, 2024))
            .says(&["2024-06-01"]),
        connect("a user name and a password that it does not take", &[], "Unauthorized")
            .given(|world| user(world, json!({"username": "ann", "password": "secret"}))),
        connect("no credentials", &[], "Unauthorized").given(|world| user(world, json!({}))),
    ];
    let slow = vec![
        connect("no such machine in its network", &["--server", "https://192.0.2.77:6443"], "ClusterUnreachable")
            .within(5.0, ARP),
        connect("its packets vanish", &["--server", "https://192.0.2.99:6443"], "ClusterUnreachable")
            .given(|world| {
                world.shell("ip neigh replace 192.0.2.99 lladdr 02:00:00:00:00:99 dev eth0");
                world.undo(|world| drop(world.shell("ip neigh del 192.0.2.99 dev eth0")));
            })
            .within(10.0, SILENCE),
        connect("it takes connections and says nothing", &[], "ClusterUnreachable")
            .given(|world| world.fault(json!({"fault": "black_hole"})))
            .within(11.0, MUTE),
    ];
    [slow, quick, login].into_iter().map(|cases| Group { title, stage: Stage::Daemon, cases }).collect()
}

/// Changes the kubeconfig's cluster.
fn cluster(world: &World, change: Value) {
    world.kubeconfig("admin", |config| {
        for (name, value) in change.as_object().unwrap() {
            config["clusters"][0]["cluster"][name] = value.clone();
        }
    });
}

/// Replaces the kubeconfig's user.
fn user(world: &World, user: Value) {
    world.kubeconfig("admin", |config| config["users"][0]["user"] = user);
}

fn client_certificate(world: &World, last_year: i32) {
    let own = certificate("ann", last_year);
    user(
        world,
        json!({
            "client-certificate-data": base64(pem("CERTIFICATE", own.cert.der())),
            "client-key-data": base64(pem("PRIVATE KEY", &own.signing_key.serialize_der())),
        }),
    );
}
