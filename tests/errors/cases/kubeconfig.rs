//! What the command reads before it asks the daemon.

use serde_json::{Value, json};

use crate::case::{Case, Group, Stage, connect};
use crate::world::{HERE, World};

const PLUGIN: &str = "a login plugin may have to ask a server, and has 30 s";

pub fn groups() -> Vec<Group> {
    let title = "The kubeconfig";
    let cases = vec![
        connect("there is none", &[], "KubeconfigInvalid").given(|world| world.variable("KUBECONFIG", "")),
        connect("the file of `--kubeconfig` is not there", &["--kubeconfig", "/nosuch"], "KubeconfigInvalid")
            .says(&["/nosuch"]),
        connect("the file of `KUBECONFIG` is not there", &[], "KubeconfigInvalid")
            .given(|world| world.variable("KUBECONFIG", "/nosuch/config"))
            .says(&["/nosuch/config"]),
        connect("it may not be read", &[], "KubeconfigInvalid")
            .given(|world| {
                world.kubeconfig("admin", |_| {});
                world.shell(&format!("chmod 600 {HERE}/kubeconfig; chmod 711 {HERE}"));
                world.through(&["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]);
            })
            .says(&["Permission denied"]),
        connect("it is no YAML", &[], "KubeconfigInvalid").given(|world| {
            let path = world.file("kubeconfig", "clusters: [\n  token: secret");
            world.variable("KUBECONFIG", &path);
        }),
        connect("it is a directory", &["--kubeconfig", "/etc"], "KubeconfigInvalid").says(&["/etc"]),
        connect("a context that is not in it", &["--context", "minicluter"], "KubeconfigInvalid")
            .says(&["minicluter", "did you mean minicluster"]),
        connect("no current context", &[], "KubeconfigInvalid")
            .given(|world| world.kubeconfig("admin", |config| config["current-context"] = json!(""))),
        connect("a cluster that is not in it", &["--cluster", "other"], "KubeconfigInvalid").says(&["other"]),
        connect("a user that is not in it", &["--user", "other"], "KubeconfigInvalid").says(&["other"]),
        connect("a cluster without a server", &[], "KubeconfigInvalid")
            .given(|world| world.kubeconfig("admin", |config| config["clusters"][0]["cluster"]["server"] = json!(""))),
        connect("a server that is no URL", &["--server", "https://"], "KubeconfigInvalid"),
        connect(
            "a certificate that is no certificate",
            &["--certificate-authority", "/etc/hostname"],
            "KubeconfigInvalid",
        ),
        connect("a client certificate without its key", &["--client-key", "/nosuch.key"], "KubeconfigInvalid"),
        plugin("a login plugin that is not installed", json!({"command": "nosuch-login"})).says(&["nosuch-login"]),
        plugin(
            "a login plugin that says how it is installed",
            json!({"command": "nosuch-login", "installHint": "apt install nosuch-login"}),
        )
        .says(&["hint: apt install nosuch-login"]),
        plugin("a login plugin that fails", json!({"command": "false"})),
        plugin("a login plugin that says nonsense", json!({"command": "echo", "args": ["hello"]})),
        plugin(
            "a login plugin that has to ask, without a terminal",
            json!({"command": "cat", "interactiveMode": "Always"}),
        ),
    ];
    let hangs = plugin("a login plugin that does not end", json!({"command": "sleep", "args": ["1000"]}))
        .within(33.0, PLUGIN)
        .says(&["30 s"]);
    vec![Group { title, stage: Stage::Nothing, cases: vec![hangs] }, Group { title, stage: Stage::Daemon, cases }]
}

fn plugin(name: &str, exec: Value) -> Case {
    let given = move |world: &World| {
        world.kubeconfig("admin", |config| {
            let mut exec = exec.clone();
            exec["apiVersion"] = json!("client.authentication.k8s.io/v1");
            if exec["interactiveMode"].is_null() {
                exec["interactiveMode"] = json!("IfAvailable");
            }
            config["users"][0]["user"] = json!({"exec": exec});
        });
    };
    connect(name, &[], "Unauthorized").given(given)
}
