//! Objects are made.

use serde_json::{Value, json};

use crate::world::World;

fn service(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"clusterIP": "None", "selector": {"app": "x"}, "ports": [{"port": 80}]}})
}

pub async fn a_service_is_made_once(world: &mut World) {
    let path = world.path("services");
    let reply = world.client.json("POST", &path, &service("web")).await;
    world.log.reply("made", &reply);
    let reply = world.client.json("POST", &path, &service("web")).await;
    world.log.reply("made again", &reply);
    let reply = world.client.get(&format!("{path}/web")).await;
    world.log.reply("looked at", &reply);
    let reply = world.client.get(&format!("{path}/web?unknown=parameter&pretty=true")).await;
    world.log.fields("looked at with parameters that nobody knows", &reply, &["metadata.name"]);
    let addressed = json!({"metadata": {"name": "addressed"}, "spec": {"ports": [{"port": 80, "name": "http"}]}});
    let reply = world.client.json("POST", &path, &addressed).await;
    let fields = ["spec.type", "spec.ports", "spec.ipFamilies", "spec.ipFamilyPolicy", "spec.sessionAffinity"];
    world.log.fields("with an address", &reply, &fields);
    let address = reply.json()["spec"]["clusterIP"].as_str().is_some_and(|address| address.contains('.'));
    world.log.say(&format!("it has an address: {address}"));
}

pub async fn names_are_generated(world: &mut World) {
    let path = world.path("services");
    let mut object = service("x");
    object["metadata"] = json!({"generateName": "gen-"});
    let mut names = Vec::new();
    for _ in 0..2 {
        let reply = world.client.json("POST", &path, &object).await;
        let name = reply.json()["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let suffix = name.strip_prefix("gen-").unwrap_or_default();
        let known = suffix.bytes().all(|byte| b"bcdfghjklmnpqrstvwxz2456789".contains(&byte));
        world.log.say(&format!("{}: {} of known characters: {known}", reply.code, suffix.len()));
        names.push(name);
    }
    world.log.say(&format!("they differ: {}", names[0] != names[1]));
}

pub async fn what_cannot_be_is_refused(world: &mut World) {
    let pods = world.path("pods");
    let deployments = world.path("apps/deployments");
    let pod = |metadata: Value, containers: Value| json!({"metadata": metadata, "spec": {"containers": containers}});
    let good = json!([{"name": "a", "image": "x"}]);
    let named = |name: &str| json!({"name": name});
    let deployment = |selector: Value, policy: &str| {
        json!({"metadata": {"name": "d"}, "spec": {"selector": selector, "template": {
            "metadata": {"labels": {"app": "d"}},
            "spec": {"containers": [{"name": "a", "image": "x"}], "restartPolicy": policy},
        }}})
    };
    let port = json!([{"name": "a", "image": "x", "ports": [{"containerPort": 70000}]}]);
    for (what, path, object) in [
        ("no name", &pods, pod(json!({}), good.clone())),
        ("a bad name", &pods, pod(named("Bad_Name"), good.clone())),
        ("a bad label", &pods, pod(json!({"name": "a", "labels": {"a": "-"}}), good.clone())),
        ("a bad key of a label", &pods, pod(json!({"name": "a", "labels": {"a/b/c": "x"}}), good.clone())),
        ("no containers", &pods, pod(named("a"), json!([]))),
        ("no image", &pods, pod(named("a"), json!([{"name": "a"}]))),
        ("no name of a container", &pods, pod(named("a"), json!([{"image": "x"}]))),
        ("a name twice", &pods, pod(named("a"), json!([{"name": "a", "image": "x"}, {"name": "a", "image": "x"}]))),
        ("a bad name of a container", &pods, pod(named("a"), json!([{"name": "A", "image": "x"}]))),
        ("a bad port", &pods, pod(named("a"), port)),
        ("another namespace", &pods, pod(json!({"name": "a", "namespace": "other"}), good.clone())),
        ("no selector", &deployments, deployment(Value::Null, "Always")),
        ("another selector", &deployments, deployment(json!({"matchLabels": {"app": "x"}}), "Always")),
        ("pods that end", &deployments, deployment(json!({"matchLabels": {"app": "d"}}), "Never")),
    ] {
        let reply = world.client.json("POST", path, &object).await;
        world.log.reply(what, &reply);
    }
    let jobs = world.path("batch/jobs");
    let spec = json!({"containers": [{"name": "a", "image": "x"}], "restartPolicy": "Always"});
    let job = json!({"metadata": {"name": "j"}, "spec": {"template": {"spec": spec}}});
    let reply = world.client.json("POST", &jobs, &job).await;
    world.log.reply("a job that never ends", &reply);
    let services = world.path("services");
    for (what, object) in [
        ("no ports", json!({"metadata": {"name": "s"}, "spec": {}})),
        ("a name with digits first", service("1s")),
        ("an unknown type", json!({"metadata": {"name": "s"}, "spec": {"type": "X", "ports": [{"port": 80}]}})),
    ] {
        let reply = world.client.json("POST", &services, &object).await;
        world.log.reply(what, &reply);
    }
    let reply = world.client.json("POST", "/api/v1/namespaces/nope/services", &service("s")).await;
    world.log.reply("no such namespace", &reply);
}

pub async fn what_cannot_be_read_is_refused(world: &mut World) {
    let path = world.path("services");
    let mut other = service("web");
    other["kind"] = json!("Service");
    other["apiVersion"] = json!("apps/v1");
    let reply = world.client.json("POST", &path, &other).await;
    world.log.fields("another version", &reply, &[]);
    let headers = [("content-type", "text/plain")];
    let reply = world.client.send("POST", &path, &headers, b"{}".to_vec()).await;
    world.log.reply("plain text", &reply);
    let headers = [("content-type", "application/json")];
    let reply = world.client.send("POST", &path, &headers, b"{".to_vec()).await;
    world.log.say(&format!("half of JSON: {} {}", reply.code, reply.json()["reason"]));
    let reply = world.client.send("POST", &path, &headers, vec![b' '; (3 << 20) + 1]).await;
    world.log.reply("too much", &reply);
}

pub async fn nothing_is_made_on_trial(world: &mut World) {
    let path = world.path("services");
    let reply = world.client.json("POST", &format!("{path}?dryRun=All"), &service("web")).await;
    world.log.fields("on trial", &reply, &["metadata.name", "spec.ports"]);
    let reply = world.client.get(&format!("{path}/web")).await;
    world.log.reply("looked at", &reply);
    world.make("services", &service("web")).await;
    let trial = format!("{path}/web?dryRun=All");
    let reply = world.client.patch("merge", &trial, &json!({"metadata": {"labels": {"a": "b"}}})).await;
    world.log.fields("changed on trial", &reply, &["metadata.labels"]);
    let reply = world.client.delete(&trial).await;
    world.log.fields("deleted on trial", &reply, &["kind"]);
    let reply = world.client.get(&format!("{path}/web")).await;
    world.log.fields("looked at", &reply, &["metadata.name", "metadata.labels"]);
    let reply = world.client.json("POST", &format!("{path}?dryRun=Some"), &service("x")).await;
    world.log.reply("half on trial", &reply);
}
