//! A user who logs in by a plugin, and what the cluster thinks of that user.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::world::World;

/// How long a credential of the plugin lasts, in seconds.
pub const LASTS: u64 = 6;

/// A kubeconfig whose user logs in by a plugin, which does what the files beside it say.
pub struct Login {
    pub directory: PathBuf,
    pub kubeconfig: String,
}

impl Login {
    /// The plugin gives the certificate of that user of the cluster.
    pub fn of(world: &World, user: &str) -> Login {
        let directory = world.directory().join("login");
        fs::create_dir(&directory).unwrap();
        let mut login = Login { directory, kubeconfig: String::new() };
        login.gives(world, user);
        let place = login.directory.display();
        let script = format!(
            r#"#!/bin/sh
echo run >>{place}/runs
if test -e {place}/hang; then echo $$ >{place}/hangs; exec sleep 600; fi
if test -e {place}/fail; then cat {place}/fail >&2; exit 3; fi
test -e {place}/endless || ends=",\"expirationTimestamp\":\"$(date -u -d '+{LASTS} seconds' +%Y-%m-%dT%H:%M:%SZ)\""
printf '{{"status":{{%s%s}}}}' "$(cat {place}/credential)" "$ends"
"#
        );
        login.put("plugin", &script);
        fs::set_permissions(login.directory.join("plugin"), fs::Permissions::from_mode(0o755)).unwrap();
        let exec = json!({"exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "command": format!("{place}/plugin"), "interactiveMode": "Never",
        }});
        let mut config = config_of(world, "admin");
        config["users"][0]["user"] = exec;
        login.put("config", &config.to_string());
        login.kubeconfig = login.directory.join("config").display().to_string();
        login
    }

    /// From now on that of this one; a line of its key.
    pub fn gives(&self, world: &World, user: &str) -> String {
        let user = &config_of(world, user)["users"][0]["user"];
        let [certificate, key] = ["client-certificate-data", "client-key-data"]
            .map(|field| String::from_utf8(STANDARD.decode(user[field].as_str().unwrap()).unwrap()).unwrap());
        let credential = json!({"clientCertificateData": certificate, "clientKeyData": key}).to_string();
        // Never seen half written. Its braces are the plugin's.
        self.put("credential.new", &credential[1..credential.len() - 1]);
        fs::rename(self.directory.join("credential.new"), self.directory.join("credential")).unwrap();
        key.lines().nth(1).unwrap().to_owned()
    }

    pub fn put(&self, name: &str, text: &str) {
        fs::write(self.directory.join(name), text).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.directory.join(name)).unwrap_or_default()
    }

    pub fn runs(&self) -> usize {
        self.read("runs").lines().count()
    }
}

pub fn config_of(world: &World, user: &str) -> Value {
    let path = world.cluster.kubeconfig(user).unwrap();
    serde_json::from_str(&world.ws.read(&path)).unwrap()
}

/// The API server takes that user no more, and closes what is open.
pub fn refuse(world: &World, user: &str) {
    refuse_anew(world, user);
    world.cluster.fault(json!({"do": "cut"})).unwrap();
}

/// The API server takes that user no more; what is open goes on.
pub fn refuse_anew(world: &World, user: &str) {
    let rule = json!({"fault": "refuse", "code": 401, "message": "Unauthorized", "on": {"user": user}});
    world.cluster.fault(json!({"do": "set", "rule": rule})).unwrap();
}

/// Gives a user of the cluster all rights.
pub fn may_all(world: &World, user: &str) {
    world
        .cluster
        .apply(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "all"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}],
        }))
        .unwrap();
}
