//! Rights that a cluster begins with, and sets of rights for users of podway.
//!
//! A profile is a group: whoever is in `podway:portforward-only` has the rights of that profile.

use serde_json::{Value, json};

use crate::api::User;
use crate::resource::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES, Resource};
use crate::store::Key;

const API: &str = "rbac.authorization.k8s.io";

/// A set of rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// All rights.
    Admin,
    /// May look at one namespace and forward ports there.
    PortforwardOnly,
    /// The same, and may bring own containers.
    Ephemeral,
    /// Known, without any right.
    None,
}

impl Profile {
    /// All of them.
    pub const ALL: [Profile; 4] = [Profile::Admin, Profile::PortforwardOnly, Profile::Ephemeral, Profile::None];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Admin => "admin",
            Profile::PortforwardOnly => "portforward-only",
            Profile::Ephemeral => "ephemeral",
            Profile::None => "none",
        }
    }

    /// The group whose members have these rights.
    pub fn group(self) -> String {
        format!("podway:{}", self.name())
    }

    /// A user with these rights, who has the profile's name.
    pub fn user(self) -> User {
        User::new(self.name(), [self.group().as_str()])
    }
}

/// What every cluster has: rights of administrators, and of everybody to look at the API itself.
pub fn system() -> Vec<(Key, Value)> {
    let all = json!([
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
        {"nonResourceURLs": ["*"], "verbs": ["*"]},
    ]);
    let basic = json!([{
        "apiGroups": ["authorization.k8s.io"],
        "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
        "verbs": ["create"],
    }, {
        "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"], "verbs": ["create"],
    }]);
    let discovery = json!([{
        "nonResourceURLs": [
            "/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version",
            "/version/",
        ],
        "verbs": ["get"],
    }]);
    let public = json!([{
        "nonResourceURLs": ["/healthz", "/livez", "/readyz", "/version", "/version/"], "verbs": ["get"],
    }]);
    let everybody = ["system:authenticated"];
    let mut objects = Vec::new();
    for (name, rules, groups) in [
        ("cluster-admin", all, vec!["system:masters"]),
        ("system:basic-user", basic, everybody.to_vec()),
        ("system:discovery", discovery, everybody.to_vec()),
        ("system:public-info-viewer", public, vec!["system:authenticated", "system:unauthenticated"]),
    ] {
        objects.push(role(&CLUSTER_ROLES, "", name, rules));
        objects.push(binding(&CLUSTER_ROLE_BINDINGS, "", name, ("ClusterRole", name), &groups));
    }
    objects
}

/// The rights of all profiles; those that are about one namespace, in that one.
pub fn podway(namespace: &str) -> Vec<(Key, Value)> {
    let looks = ["get", "list", "watch"];
    let portforward = json!([
        {"apiGroups": [""], "resources": ["pods", "services"], "verbs": looks},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": looks},
        {
            "apiGroups": ["apps"],
            "resources": ["deployments", "replicasets", "statefulsets", "daemonsets"],
            "verbs": looks,
        },
        {"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["get", "create"]},
    ]);
    let ephemeral = json!([
        {"apiGroups": [""], "resources": ["pods/ephemeralcontainers"], "verbs": ["get", "patch"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["create"]},
    ]);
    let (admins, forwarders, owners) =
        (Profile::Admin.group(), Profile::PortforwardOnly.group(), Profile::Ephemeral.group());
    let forward = ("Role", "podway-portforward");
    let own = ("Role", "podway-ephemeral");
    vec![
        binding(&CLUSTER_ROLE_BINDINGS, "", "podway-admin", ("ClusterRole", "cluster-admin"), &[&admins]),
        role(&ROLES, namespace, forward.1, portforward),
        binding(&ROLE_BINDINGS, namespace, forward.1, forward, &[&forwarders, &owners]),
        role(&ROLES, namespace, own.1, ephemeral),
        binding(&ROLE_BINDINGS, namespace, own.1, own, &[&owners]),
    ]
}

fn role(resource: &'static Resource, namespace: &str, name: &str, rules: Value) -> (Key, Value) {
    (Key::new(resource, namespace, name), json!({"rules": rules}))
}

fn binding(
    resource: &'static Resource,
    namespace: &str,
    name: &str,
    (kind, role): (&str, &str),
    groups: &[&str],
) -> (Key, Value) {
    let subjects: Vec<Value> =
        groups.iter().map(|group| json!({"kind": "Group", "apiGroup": API, "name": group})).collect();
    let object = json!({"roleRef": {"apiGroup": API, "kind": kind, "name": role}, "subjects": subjects});
    (Key::new(resource, namespace, name), object)
}
