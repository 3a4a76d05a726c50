//! The API server, the way to it, and the kubeconfig.

use serde_json::json;

use crate::case::{Daemon, Group, case};
use crate::far::{base64, pem};

pub fn group() -> Group {
    let cases = vec![
        case("nobody listens at its address", &["connect", "-n", "demo", "--server", "https://192.0.2.1:1"], "ClusterUnreachable")
            .says(&["192.0.2.1:1", "refused"]),
        case("no way to its network", &["connect", "-n", "demo", "--server", "https://198.51.100.1:6443"], "ClusterUnreachable")
            .given(|world| {
                world.shell("ip route show default >/run/errors/default; ip route del default");
                world.undo(|world| drop(world.shell("ip route add $(cat /run/errors/default)")));
            }),
        case("its certificate is signed by another authority", &["connect", "-n", "demo"], "ClusterUnreachable")
            .given(|world| {
                let other = rcgen::generate_simple_self_signed(["other".to_owned()]).unwrap();
                let data = base64(pem("CERTIFICATE", other.cert.der()));
                world.kubeconfig("admin", |config| {
                    config["clusters"][0]["cluster"]["certificate-authority-data"] = json!(data);
                });
            }),
        case("a token that it does not know", &["connect", "-n", "demo", "--token", "nonsense"], "Unauthorized"),
    ];
    Group { title: "The API server", daemon: Daemon::Serves, cases }
}

