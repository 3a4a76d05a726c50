//! What the API says of itself, and what it does not have.

use podway_minicluster::resource;
use serde_json::{Value, json};

use crate::world::World;

pub async fn health_and_versions_are_told(world: &mut World) {
    for path in ["/readyz", "/livez", "/healthz", "/readyz/ping"] {
        let reply = world.client.get(path).await;
        world.log.reply(path, &reply);
    }
    let version = world.client.get("/version").await;
    world.log.fields("/version", &version, &["major"]);
    let keys: Vec<String> = version.json().as_object().expect("an object").keys().cloned().collect();
    world.log.say(&format!("  fields: {}", keys.join(" ")));
    let api = world.client.get("/api").await;
    world.log.fields("/api", &api, &["kind", "versions"]);
    let apis = world.client.get("/apis").await;
    let mut groups: Vec<Value> = apis.json()["groups"].as_array().expect("groups").clone();
    groups.retain(|group| ["apps", "batch", "discovery.k8s.io"].iter().any(|name| group["name"] == *name));
    groups.sort_by_key(|group| group["name"].to_string());
    world.log.say("/apis");
    world.log.value(&json!(groups));
    let group = world.client.get("/apis/apps").await;
    world.log.reply("/apis/apps", &group);
}

/// Of what minicluster knows. A real cluster has more kinds, and more parts of each.
pub async fn kinds_are_told(world: &mut World) {
    let mut groups: Vec<&str> = resource::ALL.into_iter().map(|resource| resource.group).collect();
    groups.extend(["authorization.k8s.io", "authentication.k8s.io"]);
    groups.sort_unstable();
    groups.dedup();
    for group in groups {
        let path = if group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{group}/v1") };
        let list = world.client.get(&path).await.json();
        world.log.say(&format!("{path} {}", list["groupVersion"]));
        let mut known: Vec<Value> = list["resources"].as_array().expect("resources").clone();
        known.retain(|kind| {
            let name = kind["name"].as_str().unwrap_or_default();
            let (plural, part) = name.split_once('/').unwrap_or((name, ""));
            let parts = ["", "status", "scale", "ephemeralcontainers", "log", "portforward", "finalize"];
            let review = name.starts_with("selfsubject");
            review || (resource::Resource::find(group, plural).is_some() && parts.contains(&part))
        });
        for kind in &mut known {
            if let Some(kind) = kind.as_object_mut() {
                kind.remove("storageVersionHash");
            }
        }
        known.sort_by_key(|kind| kind["name"].to_string());
        for kind in known {
            world.log.say(&format!("  {kind}"));
        }
    }
}

pub async fn what_is_not_there_is_refused(world: &mut World) {
    let namespace = world.namespace.clone();
    for path in [
        "/nope".to_owned(),
        "/api/v2".to_owned(),
        "/api/v1/nopes".to_owned(),
        format!("/api/v1/namespaces/{namespace}/nopes"),
        "/apis/nope.example/v1".to_owned(),
        "/apis/nope.example/v1/nopes".to_owned(),
        "/apis/apps/v2/deployments".to_owned(),
        format!("/api/v1/namespaces/{namespace}/pods/nope"),
        format!("/apis/apps/v1/namespaces/{namespace}/deployments/nope"),
        "/api/v1/namespaces/nope".to_owned(),
        "/api/v1/pods/nope".to_owned(),
        format!("/api/v1/namespaces/{namespace}/nodes"),
        format!("/api/v1/namespaces/{namespace}/pods/nope/nope"),
        format!("/api/v1/namespaces/{namespace}/pods/nope/status"),
        format!("/api/v1/namespaces/{namespace}/services/nope/scale"),
    ] {
        let reply = world.client.get(&path).await;
        world.log.reply(&format!("GET {path}"), &reply);
    }
    for (method, path) in [
        ("POST", "/api/v1/pods".to_owned()),
        ("PUT", format!("/api/v1/namespaces/{namespace}/pods")),
        ("POST", format!("/api/v1/namespaces/{namespace}/pods/nope")),
        ("DELETE", "/api/v1/pods".to_owned()),
        ("POST", format!("/api/v1/namespaces/{namespace}/pods/nope/status")),
        ("POST", "/version".to_owned()),
    ] {
        let reply = world.client.json(method, &path, &json!({})).await;
        world.log.reply(&format!("{method} {path}"), &reply);
    }
}
