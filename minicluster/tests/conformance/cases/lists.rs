//! Lists: selected, in pages, of a version.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::world::World;

async fn services(world: &World, names: &[&str]) {
    for name in names {
        let labels = json!({"app": name, "tier": if *name < "c" { "front" } else { "back" }});
        let object = json!({
            "metadata": {"name": name, "labels": labels},
            "spec": {"clusterIP": "None", "selector": {"app": "x"}, "ports": [{"port": 80}]},
        });
        world.make("services", &object).await;
    }
}

fn names(list: &Value) -> String {
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let names: Vec<&str> = items.iter().filter_map(|item| item["metadata"]["name"].as_str()).collect();
    names.join(" ")
}

pub async fn objects_are_selected(world: &mut World) {
    services(world, &["a", "b", "c", "d"]).await;
    let path = world.path("services");
    let reply = world.client.get(&format!("{path}?labelSelector=app%3Da")).await;
    world.log.reply("one", &reply);
    let reply = world.client.get(&format!("{path}?labelSelector=app%3Dz")).await;
    world.log.reply("none", &reply);
    for query in [
        "labelSelector=tier%3Dfront",
        "labelSelector=tier!%3Dfront",
        "labelSelector=tier%20in%20(front,back),app%20notin%20(a)",
        "labelSelector=app",
        "labelSelector=!app",
        "fieldSelector=metadata.name%3Db",
        "fieldSelector=metadata.name!%3Db",
        "fieldSelector=metadata.name%3D%3Db,metadata.namespace!%3Dx",
        "fieldSelector=spec.clusterIP%3DNone&labelSelector=tier%3Dback",
    ] {
        let reply = world.client.get(&format!("{path}?{query}")).await;
        world.log.say(&format!("{query}: {} {}", reply.code, names(&reply.json())));
    }
    let all = format!("/api/v1/services?fieldSelector=metadata.namespace%3D{}", world.namespace);
    let reply = world.client.get(&all).await;
    world.log.say(&format!("of all namespaces: {} {}", reply.code, names(&reply.json())));
    let reply = world.client.get("/api/v1/namespaces/nope/services").await;
    world.log.reply("of no namespace", &reply);
    let spec = json!({"containers": [{"name": "a", "image": "x"}], "nodeSelector": {"nowhere": "x"}});
    world.make("pods", &json!({"metadata": {"name": "p"}, "spec": spec})).await;
    let pods = world.path("pods");
    for query in [
        "fieldSelector=status.phase%3DPending",
        "fieldSelector=status.phase%3DRunning",
        "fieldSelector=spec.nodeName%3D",
        "fieldSelector=spec.nodeName%3Dnode",
        "fieldSelector=spec.restartPolicy%3DAlways,status.podIP%3D",
    ] {
        let reply = world.client.get(&format!("{pods}?{query}")).await;
        world.log.say(&format!("{query}: {} {}", reply.code, names(&reply.json())));
    }
}

pub async fn nonsense_is_refused(world: &mut World) {
    let path = world.path("services");
    for query in [
        "labelSelector=%3Dx",
        "labelSelector=a%3D-",
        "labelSelector=a%20b",
        "labelSelector=a%20in%20b",
        "labelSelector=a%3Db,",
        "labelSelector=a/b/c",
        "fieldSelector=nonsense",
        "fieldSelector=spec.nope%3Dx",
        "limit=x",
        "timeoutSeconds=x",
        "resourceVersion=x",
        "resourceVersionMatch=Exact",
        "resourceVersionMatch=Nope&resourceVersion=1",
        "resourceVersionMatch=Exact&resourceVersion=0",
        "sendInitialEvents=true",
        "continue=e30",
        "watch=1&sendInitialEvents=true",
        "watch=1&resourceVersionMatch=NotOlderThan",
    ] {
        let reply = world.client.get(&format!("{path}?{query}")).await;
        world.log.reply(query, &reply);
    }
    let path = world.path("apps/deployments");
    let reply = world.client.get(&format!("{path}?fieldSelector=spec.nope%3Dx")).await;
    world.log.reply("a field of another kind", &reply);
}

pub async fn pages_show_one_state(world: &mut World) {
    services(world, &["a", "b", "c", "d", "e"]).await;
    let path = world.path("services");
    let first = world.client.get(&format!("{path}?limit=2")).await;
    let show = ["kind", "metadata"];
    world.log.fields("first page", &first, &show);
    world.log.say(&format!("  {}", names(&first.json())));
    // What happens between pages is not seen.
    world.client.delete(&format!("{path}/d")).await;
    services(world, &["c1"]).await;
    let mut more = first.json()["metadata"]["continue"].as_str().expect("more").to_owned();
    let mut versions = vec![first.json()["metadata"]["resourceVersion"].clone()];
    let mut pages = 1;
    while !more.is_empty() {
        let page = world.client.get(&format!("{path}?limit=2&continue={more}")).await;
        pages += 1;
        world.log.fields(&format!("page {pages}"), &page, &show);
        world.log.say(&format!("  {}", names(&page.json())));
        versions.push(page.json()["metadata"]["resourceVersion"].clone());
        more = page.json()["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
    }
    versions.dedup();
    world.log.say(&format!("versions: {}", versions.len()));
    let all = world.client.get(&path).await;
    world.log.say(&format!("now: {}", names(&all.json())));
    let selected = world.client.get(&format!("{path}?limit=1&labelSelector=tier%3Dback")).await;
    world.log.fields("a selected page", &selected, &show);
    let token = first.json()["metadata"]["continue"].as_str().expect("more").to_owned();
    let reply = world.client.get(&format!("{path}?limit=2&continue={token}&resourceVersion=1")).await;
    world.log.reply("a page of a version", &reply);
}

pub async fn versions_are_asked_for(world: &mut World) {
    services(world, &["a"]).await;
    let path = world.path("services");
    let before = world.client.get(&path).await.json()["metadata"]["resourceVersion"].clone();
    let before = before.as_str().expect("a version").to_owned();
    services(world, &["b"]).await;
    for (what, query) in [
        ("exactly the one before", format!("resourceVersion={before}&resourceVersionMatch=Exact")),
        ("the one before or later", format!("resourceVersion={before}&resourceVersionMatch=NotOlderThan")),
        ("the one before, in pages", format!("resourceVersion={before}&limit=5")),
    ] {
        let reply = world.client.get(&format!("{path}?{query}")).await;
        world.log.say(&format!("{what}: {} {}", reply.code, names(&reply.json())));
    }
    let reply = world.client.get(&format!("{path}?resourceVersion=99999999999")).await;
    world.log.reply("one that is still to come", &reply);
}

pub async fn what_is_forgotten_is_gone(world: &mut World) {
    services(world, &["a", "b"]).await;
    world.forget().await;
    let path = world.path("services");
    let reply = world.client.get(&format!("{path}?resourceVersion=1&resourceVersionMatch=Exact")).await;
    world.log.reply("a version of long ago", &reply);
    let token = URL_SAFE_NO_PAD.encode(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"b\u0000"}"#);
    let reply = world.client.get(&format!("{path}?limit=5&continue={token}")).await;
    world.log.reply("a page of long ago", &reply);
    let more = reply.json()["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
    let reply = world.client.get(&format!("{path}?limit=5&continue={more}")).await;
    world.log.say(&format!("the rest, as it is now: {} {}", reply.code, names(&reply.json())));
}
