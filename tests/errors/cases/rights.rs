//! Rights that are missing: each rule of `podway rbac` is left out once.

use serde_json::{Value, json};

use super::workload::apply;
use crate::case::{Case, Group, Stage, connect};
use crate::world::World;

/// A user without any right, until a case gives them some.
const USER: &str = "none";
const VIA: [&str; 2] = ["--proxy-via", "service=web"];

pub fn groups() -> Vec<Group> {
    let nothing = |_: &Value| true;
    let elsewhere = vec!["connect", "-n", "other"];
    let cases = vec![
        connect("none at all", &VIA, "Forbidden").given(move |world| rights(world, nothing)).says(&[
            "watch pods",
            "pods/portforward",
            "pods/ephemeralcontainers",
            "create jobs or pods",
            "podway rbac -n demo",
        ]),
        Case { command: elsewhere, ..connect("only in another namespace", &[], "Forbidden") }
            .given(|world| rights(world, |_| false))
            .says(&["other", "podway rbac -n other"]),
        connect(
            "a rule's workload is in another namespace",
            &["--proxy-via", "service=other/deployment/api"],
            "Forbidden",
        )
        .given(|world| rights(world, |_| false))
        .says(&["other", "podway rbac -n other"]),
        without("pods and services", &VIA, |rule| is(rule, "list", &["pods", "services"]))
            .says(&["watch pods and services", "podway rbac"]),
        // Before any agent is placed: those that are there are used by the others.
        without("ephemeral containers", &VIA, |rule| is(rule, "patch", &["pods/ephemeralcontainers"]))
            .says(&["pods/ephemeralcontainers", "podway rbac"]),
        without("making Jobs and making pods", &[], |rule| {
            is(rule, "create", &["jobs"]) || is(rule, "create", &["pods"])
        })
        .says(&["create jobs or pods", "podway rbac"]),
        without("port-forwards", &VIA, |rule| is(rule, "create", &["pods/portforward"]))
            .says(&["pods/portforward", "podway rbac"]),
        without("EndpointSlices", &VIA, |rule| is(rule, "list", &["endpointslices"]))
            .notice()
            .says(&["missing right: list and watch endpointslices", "podway rbac"]),
        works("workloads", &VIA, |rule| {
            is(rule, "list", &["deployments", "replicasets", "statefulsets", "daemonsets"])
        }),
        works("looking at Jobs", &VIA, |rule| is(rule, "list", &["jobs"])),
        works("making Jobs", &[], |rule| is(rule, "create", &["jobs"])),
        works("making pods", &[], |rule| is(rule, "create", &["pods"])),
    ];
    vec![Group { title: "Rights", stage: Stage::Daemon, cases }]
}

fn without(what: &str, flags: &[&'static str], rule: fn(&Value) -> bool) -> Case {
    connect(format!("all but the rule for {what}"), flags, "Forbidden").given(move |world| rights(world, rule))
}

/// Without that rule nothing is missing: there is another way.
fn works(what: &str, flags: &[&'static str], rule: fn(&Value) -> bool) -> Case {
    without(what, flags, rule).notice().says(&["through"])
}

/// Whether a rule is the one that lets do that to these resources.
fn is(rule: &Value, verb: &str, resources: &[&str]) -> bool {
    rule["resources"] == json!(resources) && rule["verbs"].as_array().unwrap().contains(&json!(verb))
}

/// Gives the user what `podway rbac` prints for `demo`, but for these rules, and takes podway's own pod away.
fn rights(world: &World, without: impl Fn(&Value) -> bool) {
    let printed = world.podway(&["rbac", "-n", "demo", "--user", USER]).out;
    for document in printed.split("\n---\n") {
        let mut object: Value = serde_saphyr::from_str(document).unwrap();
        if let Some(rules) = object["rules"].as_array_mut() {
            rules.retain(|rule| !without(rule));
        }
        let kind = if object["kind"] == "Role" { "roles" } else { "rolebindings" };
        apply(world, kind, object);
    }
    world.remove("jobs", "podway-agent-");
    world.remove("pods", "podway-agent-");
    let path = world.cluster.kubeconfig(USER).unwrap();
    world.variable("KUBECONFIG", &path);
}
