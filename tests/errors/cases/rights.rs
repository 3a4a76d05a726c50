//! Rights that are missing: each rule of `podway rbac` is left out once.

use serde_json::{Value, json};

use crate::case::{Case, Group, Stage, connect};
use crate::world::World;

/// A user without any right, until a case gives them some.
const USER: &str = "none";
const VIA: [&str; 2] = ["--proxy-via", "service=web"];

/// A rule's resources as the Role has them, and what is said without it. Without a reason it works all the same.
struct Left {
    resources: &'static str,
    flags: &'static [&'static str],
    reason: &'static str,
    says: &'static [&'static str],
}

pub fn groups() -> Vec<Group> {
    let mut cases = vec![
        connect("none at all", &VIA, "Forbidden").given(|world| rights(world, &[], None)).says(&["demo", "podway rbac -n demo"]),
        connect("only in another namespace", &["-n", "other"], "Forbidden")
            .given(|world| rights(world, &["demo"], None))
            .says(&["other", "podway rbac -n other"]),
        connect("a rule's workload is in another namespace", &["--proxy-via", "service=other/deployment/api"], "Forbidden")
            .given(|world| rights(world, &["demo"], None))
            .says(&["other", "podway rbac -n other"]),
    ];
    cases[1].command = vec!["connect", "-n", "other"];
    let left = [
        Left { resources: "pods, services", flags: &VIA, reason: "Forbidden", says: &["pods"] },
        Left { resources: "pods/ephemeralcontainers", flags: &VIA, reason: "Forbidden", says: &["pods/ephemeralcontainers"] },
        Left { resources: "pods/portforward", flags: &VIA, reason: "Forbidden", says: &["pods/portforward"] },
        Left { resources: "endpointslices", flags: &VIA, reason: "", says: &[] },
        Left { resources: "deployments, replicasets, statefulsets, daemonsets", flags: &VIA, reason: "", says: &[] },
    ];
    // First what places agents: those that are there are used by the others.
    cases.push(neither());
    cases.extend(left.iter().map(|left| {
        let name = format!("without the rule for {}", left.resources);
        let case = match left.reason {
            "" => connect(name, left.flags, "").notice(),
            reason => connect(name, left.flags, reason),
        };
        let resources: Vec<&str> = left.resources.split(", ").collect();
        let resources = json!(resources);
        case.given(move |world| rights(world, &["demo"], Some(&resources))).says(left.says)
    }));
    vec![Group { title: "Rights", stage: Stage::Daemon, cases }]
}

/// Of jobs and pods one is enough.
fn neither() -> Case {
    connect("without the rules that make podway's own pod", &[], "Forbidden")
        .given(|world| {
            rights_but(world, &["demo"], |rule| {
                let verbs = rule["verbs"].as_array().unwrap();
                verbs.contains(&json!("create")) && [json!(["jobs"]), json!(["pods"])].contains(&rule["resources"])
            });
        })
        .says(&["create jobs or pods", "podway rbac -n demo"])
}

/// Gives the user what `podway rbac` prints for these namespaces, but for the rule of these resources.
fn rights(world: &World, namespaces: &[&str], without: Option<&Value>) {
    rights_but(world, namespaces, |rule| Some(&rule["resources"]) == without);
}

fn rights_but(world: &World, namespaces: &[&str], without: impl Fn(&Value) -> bool) {
    for namespace in namespaces {
        let printed = world.podway(&["rbac", "-n", namespace, "--user", USER]).out;
        for document in printed.split("\n---\n") {
            let mut object: Value = serde_saphyr::from_str(document).unwrap();
            if let Some(rules) = object["rules"].as_array_mut() {
                rules.retain(|rule| !without(rule));
            }
            let kind = if object["kind"] == "Role" { "roles" } else { "rolebindings" };
            super::workload::apply(world, kind, object);
        }
    }
    let path = world.cluster.kubeconfig(USER).unwrap();
    world.variable("KUBECONFIG", &path);
}
