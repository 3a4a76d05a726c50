//! Objects are changed.

use serde_json::{Value, json};

use crate::world::World;

fn deployment() -> Value {
    let env = json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]);
    let template = json!({
        "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "x", "env": env}]},
    });
    let spec = json!({"replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "template": template});
    json!({"metadata": {"name": "web", "labels": {"app": "web"}}, "spec": spec})
}

fn service() -> Value {
    let ports = json!([{"port": 80, "name": "http"}]);
    json!({"metadata": {"name": "web"}, "spec": {"clusterIP": "None", "selector": {"app": "x"}, "ports": ports}})
}

pub async fn a_replacement_needs_the_newest_version(world: &mut World) {
    let path = format!("{}/web", world.path("services"));
    let made = world.make("services", &service()).await;
    let mut new = made.clone();
    new["metadata"]["labels"] = json!({"n": "1"});
    let reply = world.client.json("PUT", &path, &new).await;
    world.log.fields("of this version", &reply, &["metadata.labels"]);
    new["metadata"]["labels"] = json!({"n": "2"});
    let reply = world.client.json("PUT", &path, &new).await;
    world.log.reply("of the version before", &reply);
    new["metadata"]["resourceVersion"] = Value::Null;
    let reply = world.client.json("PUT", &path, &new).await;
    world.log.fields("of any version", &reply, &["metadata.labels"]);
    world.log.stands_for(made["metadata"]["uid"].as_str().expect("a UID"), "THE-UID");
    new["metadata"]["uid"] = json!("00000000-0000-0000-0000-000000000000");
    let reply = world.client.json("PUT", &path, &new).await;
    world.log.reply("of another object", &reply);
    new["metadata"]["uid"] = Value::Null;
    new["metadata"]["name"] = json!("other");
    let reply = world.client.json("PUT", &path, &new).await;
    world.log.reply("of another name", &reply);
    new["metadata"]["name"] = json!("nope");
    let reply = world.client.json("PUT", &path.replace("/web", "/nope"), &new).await;
    world.log.reply("of nothing", &reply);
}

pub async fn patches_of_each_kind_apply(world: &mut World) {
    world.make("apps/deployments", &deployment()).await;
    let path = format!("{}/web", world.path("apps/deployments"));
    let show = [
        "metadata.labels",
        "metadata.generation",
        "spec.template.spec.containers.*.env",
        "spec.template.spec.containers.*.name",
    ];
    let reply = world.client.patch("merge", &path, &json!({"metadata": {"labels": {"x": "1", "app": null}}})).await;
    world.log.fields("merge", &reply, &show);
    let containers = |all: Value| json!({"spec": {"template": {"spec": {"containers": all}}}});
    let env = json!([{"name": "C", "value": "3"}, {"name": "A", "value": "9"}]);
    let reply = world.client.patch("strategic-merge", &path, &containers(json!([{"name": "web", "env": env}]))).await;
    world.log.fields("strategic merge", &reply, &show);
    let env = json!([{"name": "B", "$patch": "delete"}]);
    let reply = world.client.patch("strategic-merge", &path, &containers(json!([{"name": "web", "env": env}]))).await;
    world.log.fields("strategic merge that deletes", &reply, &show);
    let more = containers(json!([{"name": "more", "image": "y"}]));
    let reply = world.client.patch("strategic-merge", &path, &more).await;
    world.log.fields("strategic merge that adds", &reply, &show);
    let other = containers(json!([{"name": "web", "image": "z"}]));
    let reply = world.client.patch("merge", &path, &other).await;
    world.log.fields("merge that replaces a list", &reply, &show);
    let operations = json!([
        {"op": "test", "path": "/metadata/labels/x", "value": "1"},
        {"op": "add", "path": "/metadata/labels/y", "value": "2"},
        {"op": "remove", "path": "/metadata/labels/x"},
    ]);
    let reply = world.client.patch("json", &path, &operations).await;
    world.log.fields("operations", &reply, &show);
}

pub async fn patches_that_do_not_fit_are_refused(world: &mut World) {
    let made = world.make("services", &service()).await;
    let path = format!("{}/web", world.path("services"));
    let reply = world.client.patch("json", &path, &json!([{"op": "remove", "path": "/metadata/nope"}])).await;
    world.log.reply("an operation on nothing", &reply);
    let test = json!([{"op": "test", "path": "/metadata/name", "value": "x"}]);
    let reply = world.client.patch("json", &path, &test).await;
    world.log.reply("a test that fails", &reply);
    let reply = world.client.patch("strange", &path, &json!({})).await;
    world.log.reply("a strange kind", &reply);
    let reply = world.client.json("PATCH", &path, &json!({})).await;
    world.log.reply("no kind", &reply);
    let reply = world.client.patch("merge", &path.replace("/web", "/nope"), &json!({})).await;
    world.log.reply("of nothing", &reply);
    let reply = world.client.patch("merge", &path, &json!({"metadata": {"name": "other"}})).await;
    world.log.reply("of another name", &reply);
    let old = json!({"metadata": {"resourceVersion": "1", "labels": {"a": "b"}}});
    let reply = world.client.patch("merge", &path, &old).await;
    world.log.reply("of an old version", &reply);
    let now = json!({"metadata": {"resourceVersion": made["metadata"]["resourceVersion"], "labels": {"a": "b"}}});
    let reply = world.client.patch("merge", &path, &now).await;
    world.log.fields("of this version", &reply, &["metadata.labels"]);
    let reply = world.client.patch("merge", &path, &json!({"metadata": {"labels": {"a": "-"}}})).await;
    world.log.reply("that makes it wrong", &reply);
}

pub async fn what_is_fixed_stays(world: &mut World) {
    world.make("apps/deployments", &deployment()).await;
    let path = format!("{}/web", world.path("apps/deployments"));
    let labels = json!({"metadata": {"labels": {"app": "x"}}});
    let change = json!({"spec": {"selector": {"matchLabels": {"app": "x"}}, "template": labels}});
    let reply = world.client.patch("merge", &path, &change).await;
    world.log.reply("the selector", &reply);
    let reply = world.client.patch("merge", &path, &json!({"metadata": {"generation": 9}})).await;
    world.log.fields("the generation", &reply, &["metadata.generation"]);
    let spec = json!({"containers": [{"name": "a", "image": "x"}], "nodeSelector": {"nowhere": "x"}});
    world.make("pods", &json!({"metadata": {"name": "p"}, "spec": spec})).await;
    let path = format!("{}/p", world.path("pods"));
    let change = json!({"spec": {"containers": [{"name": "a", "image": "y"}]}});
    let reply = world.client.patch("strategic-merge", &path, &change).await;
    world.log.fields("a pod's image", &reply, &["spec.containers.*.image"]);
    let change = json!({"spec": {"containers": [{"name": "b", "image": "y"}]}});
    let reply = world.client.patch("strategic-merge", &path, &change).await;
    world.log.reply("a pod's containers", &reply);
    let reply = world.client.patch("merge", &path, &json!({"spec": {"hostname": "h"}})).await;
    world.log.reply("a pod's name of the host", &reply);
}

pub async fn status_is_written_apart(world: &mut World) {
    world.make("apps/deployments", &deployment()).await;
    let path = format!("{}/web", world.path("apps/deployments"));
    let metadata = json!({"annotations": {"a": "1"}, "labels": {"l": "1"}});
    let change = json!({"status": {"replicas": 0}, "metadata": metadata, "spec": {"replicas": 3}});
    let show = ["spec.replicas", "metadata.labels.l", "metadata.annotations.a"];
    let reply = world.client.patch("merge", &format!("{path}/status"), &change).await;
    world.log.fields("by the way of the status", &reply, &show);
    let reply = world.client.patch("merge", &path, &json!({"status": {"replicas": 9}})).await;
    world.log.say(&format!("{}: {}", reply.code, reply.json()["status"]["replicas"] == 9));
    let reply = world.client.get(&format!("{path}/status")).await;
    world.log.fields("looked at", &reply, &["kind", "metadata.name"]);
}

pub async fn a_workload_is_scaled(world: &mut World) {
    world.make("apps/deployments", &deployment()).await;
    let path = format!("{}/web/scale", world.path("apps/deployments"));
    let reply = world.client.get(&path).await;
    world.log.fields("the scale", &reply, &["kind", "apiVersion", "metadata.name", "spec", "status.selector"]);
    let reply = world.client.patch("merge", &path, &json!({"spec": {"replicas": 2}})).await;
    world.log.fields("patched", &reply, &["kind", "spec", "status.selector"]);
    let mut scale = reply.json();
    scale["spec"]["replicas"] = json!(0);
    scale["metadata"]["resourceVersion"] = Value::Null;
    let reply = world.client.json("PUT", &path, &scale).await;
    world.log.fields("put", &reply, &["kind", "spec"]);
    scale["metadata"]["resourceVersion"] = json!("1");
    let reply = world.client.json("PUT", &path, &scale).await;
    world.log.reply("put of an old version", &reply);
    let reply = world.client.patch("merge", &path, &json!({"spec": {"replicas": -1}})).await;
    world.log.reply("less than nothing", &reply);
    let reply = world.client.get(&path.replace("/web/", "/nope/")).await;
    world.log.reply("of nothing", &reply);
}

pub async fn a_workload_is_restarted(world: &mut World) {
    let made = world.make("apps/deployments", &deployment()).await;
    let path = format!("{}/web", world.path("apps/deployments"));
    world.log.pick(&made, &["metadata.generation", "spec.strategy", "spec.progressDeadlineSeconds"]);
    let annotation = json!({"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"});
    let change = json!({"spec": {"template": {"metadata": {"annotations": annotation}}}});
    let reply = world.client.patch("strategic-merge", &path, &change).await;
    world.log.fields("restarted", &reply, &["metadata.generation", "spec.template.metadata"]);
}
