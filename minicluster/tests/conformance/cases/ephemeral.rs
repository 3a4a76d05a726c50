//! Ephemeral containers.

use serde_json::{Value, json};

use crate::world::World;

async fn pod(world: &World) -> String {
    let spec = json!({"containers": [{"name": "web", "image": "x"}], "nodeSelector": {"nowhere": "x"}});
    world.make("pods", &json!({"metadata": {"name": "p"}, "spec": spec})).await;
    format!("{}/p/ephemeralcontainers", world.path("pods"))
}

fn adding(container: Value) -> Value {
    json!({"spec": {"ephemeralContainers": [container]}})
}

pub async fn containers_are_added_and_stay(world: &mut World) {
    let path = pod(world).await;
    let show = ["kind", "spec.ephemeralContainers", "spec.containers.*.name", "metadata.generation"];
    let reply = world.client.get(&path).await;
    world.log.fields("none", &reply, &show);
    let agent = json!({"name": "a", "image": "y", "args": ["run"], "env": [{"name": "K", "value": "V"}]});
    let reply = world.client.patch("strategic-merge", &path, &adding(agent)).await;
    world.log.fields("one", &reply, &show);
    let other = json!({"name": "b", "image": "y:1", "targetContainerName": "web"});
    let reply = world.client.patch("strategic-merge", &path, &adding(other)).await;
    let names = ["spec.ephemeralContainers.*.name", "spec.ephemeralContainers.*.imagePullPolicy"];
    world.log.fields("two", &reply, &names);
    let mut pod = reply.json();
    pod["spec"]["ephemeralContainers"].as_array_mut().expect("containers").push(json!({"name": "c", "image": "y:1"}));
    let reply = world.client.json("PUT", &path, &pod).await;
    world.log.fields("three, by replacement", &reply, &names);
    let whole = path.trim_end_matches("/ephemeralcontainers").to_owned();
    let reply = world.client.patch("strategic-merge", &whole, &adding(json!({"name": "d", "image": "y"}))).await;
    world.log.reply("by the way of the pod", &reply);
}

pub async fn what_cannot_be_is_refused(world: &mut World) {
    let path = pod(world).await;
    let good = json!({"name": "a", "image": "y"});
    let reply = world.client.patch("strategic-merge", &path, &adding(good)).await;
    assert_eq!(reply.code, 200);
    for (what, container) in [
        ("a name that is taken", json!({"name": "web", "image": "y"})),
        ("no image", json!({"name": "b"})),
        ("no such target", json!({"name": "b", "image": "y", "targetContainerName": "nope"})),
        ("ports", json!({"name": "b", "image": "y", "ports": [{"containerPort": 1}]})),
        ("another image", json!({"name": "a", "image": "z"})),
    ] {
        let reply = world.client.patch("strategic-merge", &path, &adding(container)).await;
        world.log.reply(what, &reply);
    }
    let reply = world.client.patch("merge", &path, &json!({"spec": {"ephemeralContainers": []}})).await;
    world.log.reply("none any more", &reply);
    let reply = world.client.patch("strategic-merge", &path, &adding(json!({"image": "y"}))).await;
    world.log.reply("no name", &reply);
    let other = path.replace("/p/", "/nope/");
    let reply = world.client.patch("strategic-merge", &other, &adding(json!({"name": "b", "image": "y"}))).await;
    world.log.reply("no such pod", &reply);
    let ephemeral = json!([{"name": "a", "image": "y"}]);
    let spec = json!({"containers": [{"name": "web", "image": "x"}], "ephemeralContainers": ephemeral});
    let reply = world.client.json("POST", &world.path("pods"), &json!({"metadata": {"name": "q"}, "spec": spec})).await;
    world.log.reply("a new pod with one", &reply);
}
