//! What the API has: groups, kinds, versions, health; and as much of its description as kubectl asks for.

use std::collections::BTreeMap;

use http::HeaderMap;
use serde_json::{Value, json};

use super::answer::{self, Answer};
use super::request::RequestInfo;
use super::reviews;
use super::status::Status;
use super::subresources;
use crate::resource::{self, Resource};

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// Answers a request for a path that is no resource's.
pub fn answer(info: &RequestInfo, headers: &HeaderMap) -> Result<Answer, Status> {
    let parts: Vec<&str> = info.path.trim_matches('/').split('/').collect();
    let found = match parts.as_slice() {
        ["readyz" | "livez" | "healthz"] | ["readyz" | "livez" | "healthz", "ping"] => {
            return Ok(health(info));
        }
        ["version"] => version(),
        ["api"] => core_versions(headers),
        ["apis"] => json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups()}),
        ["api", "v1"] => kinds("", "v1"),
        ["apis", name] => match groups().into_iter().find(|group| group["name"] == *name) {
            Some(mut group) => {
                group["kind"] = json!("APIGroup");
                group["apiVersion"] = json!("v1");
                group
            }
            None => return Ok(answer::nowhere()),
        },
        ["apis", group, "v1"] if names().contains(group) => kinds(group, "v1"),
        ["openapi", "v3"] => descriptions(),
        ["openapi", "v3", "api", "v1"] => description(""),
        ["openapi", "v3", "apis", group, "v1"] if names().contains(group) => description(group),
        [""] => {
            json!({"paths": ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v3", "/readyz", "/version"]})
        }
        ["api", ..] => return Err(Status::no_such_path()),
        ["apis", group, _] if names().contains(group) => return Err(Status::no_such_path()),
        _ => return Ok(answer::nowhere()),
    };
    if info.attributes.verb != "get" {
        return Err(Status::method_not_allowed());
    }
    Ok(answer::json(200, &found))
}

fn health(info: &RequestInfo) -> Answer {
    let name = info.path.trim_matches('/');
    let name = name.split('/').next().unwrap_or_default();
    if info.query.get("verbose").is_some() {
        return answer::text(200, &format!("[+]ping ok\n{name} check passed\n"));
    }
    answer::text(200, "ok")
}

fn version() -> Value {
    json!({
        "major": "1", "minor": "34", "gitVersion": "v1.34.1", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc", "platform": "linux/amd64",
        "emulationMajor": "1", "emulationMinor": "34", "minCompatibilityMajor": "1", "minCompatibilityMinor": "33",
    })
}

fn core_versions(headers: &HeaderMap) -> Value {
    let host = headers.get(http::header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let addresses = json!([{"clientCIDR": "0.0.0.0/0", "serverAddress": host}]);
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses})
}

/// Names of all groups but the core's.
fn names() -> Vec<&'static str> {
    let kinds = resource::ALL.into_iter().map(|resource| resource.group).filter(|group| !group.is_empty());
    let mut names: Vec<&str> = kinds.chain(reviews::KINDS.into_iter().map(|(group, _, _)| group)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Whether there is such a group.
pub fn has_group(name: &str) -> bool {
    name.is_empty() || names().contains(&name)
}

fn groups() -> Vec<Value> {
    let of = |name: &str| {
        let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
        json!({"name": name, "versions": [version], "preferredVersion": version})
    };
    names().into_iter().map(of).collect()
}

/// The kinds of a group, with their parts.
fn kinds(group: &str, version: &str) -> Value {
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let mut found = BTreeMap::new();
    for resource in resource::ALL.into_iter().filter(|resource| resource.group == group) {
        let mut kind = json!({
            "name": resource.plural, "singularName": resource.kind.to_lowercase(), "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": verbs(resource),
        });
        let (short, all) = names_of(resource);
        if !short.is_empty() {
            kind["shortNames"] = json!(short);
        }
        if all {
            kind["categories"] = json!(["all"]);
        }
        found.insert(resource.plural.to_owned(), kind);
        for (name, group, version, kind, verbs) in subresources::of(resource) {
            let name = format!("{}/{name}", resource.plural);
            let mut part = json!({
                "name": name, "singularName": "", "namespaced": resource.namespaced, "kind": kind, "verbs": verbs,
            });
            if !group.is_empty() {
                part["group"] = json!(group);
                part["version"] = json!(version);
            }
            found.insert(name, part);
        }
    }
    for (_, plural, kind) in reviews::KINDS.into_iter().filter(|(of, _, _)| *of == group) {
        let singular = kind.to_lowercase();
        let review = json!({
            "name": plural, "singularName": singular, "namespaced": false, "kind": kind, "verbs": ["create"],
        });
        found.insert(plural.to_owned(), review);
    }
    let resources: Vec<Value> = found.into_values().collect();
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources,
    })
}

fn verbs(resource: &Resource) -> Vec<&'static str> {
    // Namespaces are deleted one at a time.
    VERBS.into_iter().filter(|verb| resource.plural != "namespaces" || *verb != "deletecollection").collect()
}

/// Short names, and whether `kubectl get all` shows it.
fn names_of(resource: &Resource) -> (&'static [&'static str], bool) {
    match resource.plural {
        "namespaces" => (&["ns"], false),
        "nodes" => (&["no"], false),
        "pods" => (&["po"], true),
        "services" => (&["svc"], true),
        "events" => (&["ev"], false),
        "deployments" => (&["deploy"], true),
        "replicasets" => (&["rs"], true),
        "statefulsets" => (&["sts"], true),
        "daemonsets" => (&["ds"], true),
        "jobs" => (&[], true),
        _ => (&[], false),
    }
}

/// Where the groups are described.
fn descriptions() -> Value {
    let mut paths = json!({"api/v1": {"serverRelativeURL": "/openapi/v3/api/v1?hash=0"}});
    for name in names() {
        let url = format!("/openapi/v3/apis/{name}/v1?hash=0");
        paths[format!("apis/{name}/v1")] = json!({"serverRelativeURL": url});
    }
    json!({"paths": paths})
}

/// Just enough of a description for kubectl to see that the server itself checks fields.
fn description(group: &str) -> Value {
    let root = if group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{group}/v1") };
    let mut paths = json!({});
    for resource in resource::ALL.into_iter().filter(|resource| resource.group == group) {
        let middle = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
        let parameter = json!({"name": "fieldValidation", "in": "query", "schema": {"type": "string"}});
        let kind = json!({"group": group, "version": "v1", "kind": resource.kind});
        let patch = json!({
            "parameters": [parameter], "responses": {}, "x-kubernetes-group-version-kind": kind,
            "x-kubernetes-action": "patch",
        });
        paths[format!("{root}{middle}/{}/{{name}}", resource.plural)] = json!({"patch": patch});
    }
    let info = json!({"title": "Kubernetes", "version": "v1.34.1"});
    json!({"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": {}}})
}
