//! Objects are deleted.

use serde_json::{Value, json};

use crate::pods::Running;
use crate::world::{World, eventually};

fn service(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": {"clusterIP": "None", "ports": [{"port": 80}]}})
}

/// Pods that no node takes.
fn nowhere() -> Value {
    json!({"containers": [{"name": "a", "image": "x"}], "nodeSelector": {"nowhere": "x"}})
}

pub async fn some_kinds_are_shown_when_gone(world: &mut World) {
    world.make("services", &service("s")).await;
    let path = format!("{}/s", world.path("services"));
    let reply = world.client.delete(&path).await;
    world.log.fields("a service", &reply, &["kind", "metadata.name", "status"]);
    let reply = world.client.delete(&path).await;
    world.log.reply("again", &reply);
    let template = json!({"metadata": {"labels": {"app": "x"}}, "spec": nowhere()});
    let spec = json!({"replicas": 0, "selector": {"matchLabels": {"app": "x"}}, "template": template});
    world.make("apps/deployments", &json!({"metadata": {"name": "d"}, "spec": spec})).await;
    let reply = world.client.delete(&format!("{}/d", world.path("apps/deployments"))).await;
    world.log.reply("a deployment", &reply);
    let mut spec = nowhere();
    spec["restartPolicy"] = json!("Never");
    let job = |name: &str| json!({"metadata": {"name": name}, "spec": {"template": {"spec": spec}, "suspend": true}});
    let jobs = world.path("batch/jobs");
    world.make("batch/jobs", &job("i")).await;
    let reply = world.client.delete(&format!("{jobs}/i?propagationPolicy=Background")).await;
    world.log.reply("a job", &reply);
    world.make("batch/jobs", &job("j")).await;
    let reply = world.client.delete(&format!("{jobs}/j")).await;
    world.log.say(&format!("a job whose pods stay: {} {}", reply.code, reply.header("warning")));
    world.make("pods", &json!({"metadata": {"name": "p"}, "spec": nowhere()})).await;
    let path = format!("{}/p", world.path("pods"));
    let reply = world.client.delete(&path).await;
    let show = ["kind", "metadata.name", "metadata.deletionGracePeriodSeconds"];
    world.log.fields("a pod without a node", &reply, &show);
    let reply = world.client.get(&path).await;
    world.log.reply("it is gone", &reply);
}

pub async fn preconditions_are_kept(world: &mut World) {
    let made = world.make("services", &service("s")).await;
    let path = format!("{}/s", world.path("services"));
    world.log.stands_for(made["metadata"]["uid"].as_str().expect("a UID"), "THE-UID");
    let version = made["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    let other = "00000000-0000-0000-0000-000000000000";
    let reply = world.client.json("DELETE", &path, &json!({"preconditions": {"uid": other}})).await;
    world.log.reply("another UID", &reply);
    let reply = world.client.json("DELETE", &path, &json!({"preconditions": {"resourceVersion": "1"}})).await;
    world.log.reply("another version", &reply);
    let reply = world.client.json("DELETE", &path, &json!({"propagationPolicy": "Nope"})).await;
    world.log.reply("an unknown policy", &reply);
    let preconditions = json!({"uid": made["metadata"]["uid"], "resourceVersion": version});
    let reply = world.client.json("DELETE", &path, &json!({"preconditions": preconditions})).await;
    world.log.fields("this one", &reply, &["kind"]);
}

pub async fn a_finalizer_holds_an_object(world: &mut World) {
    let mut object = service("s");
    object["metadata"]["finalizers"] = json!(["podway.dev/test"]);
    world.make("services", &object).await;
    let path = format!("{}/s", world.path("services"));
    let show = ["metadata.deletionTimestamp", "metadata.deletionGracePeriodSeconds", "metadata.finalizers"];
    let reply = world.client.delete(&path).await;
    world.log.fields("deleted", &reply, &show);
    let reply = world.client.delete(&path).await;
    world.log.fields("again", &reply, &show);
    let reply = world.client.patch("merge", &path, &json!({"metadata": {"finalizers": null}})).await;
    world.log.fields("let go", &reply, &show);
    let reply = world.client.get(&path).await;
    world.log.reply("it is gone", &reply);
}

pub async fn many_are_deleted_at_once(world: &mut World) {
    for name in ["a", "b", "c"] {
        world.make("services", &service(name)).await;
    }
    let path = world.path("services");
    let reply = world.client.delete(&format!("{path}?labelSelector=app%20in%20(a,b)")).await;
    world.log.fields("two", &reply, &["kind", "apiVersion", "items.*.metadata.name"]);
    let reply = world.client.get(&path).await;
    world.log.fields("the rest", &reply, &["items.*.metadata.name"]);
}

pub async fn a_pod_gets_its_time(world: &mut World) {
    world.run_pod("p").await;
    let path = format!("{}/p", world.path("pods"));
    let reply = world.client.delete(&format!("{path}?gracePeriodSeconds=60")).await;
    let show = ["kind", "metadata.deletionTimestamp", "metadata.deletionGracePeriodSeconds", "status.phase"];
    world.log.fields("deleted", &reply, &show);
    let reply = world.client.json("DELETE", &path, &json!({"gracePeriodSeconds": 0})).await;
    world.log.say(&format!("at once: {}", reply.code));
    eventually("end of the pod", async || world.client.get(&path).await.code == 404).await;
}

pub async fn a_namespace_that_goes_takes_nothing_new(world: &mut World) {
    let mut object = service("s");
    object["metadata"]["finalizers"] = json!(["podway.dev/test"]);
    world.make("services", &object).await;
    let path = format!("/api/v1/namespaces/{}", world.namespace);
    let reply = world.client.delete(&path).await;
    world.log.fields("deleted", &reply, &["kind", "metadata.deletionTimestamp", "spec.finalizers", "status.phase"]);
    let services = world.path("services");
    let reply = world.client.json("POST", &services, &service("t")).await;
    world.log.reply("something new", &reply);
    let free = json!({"metadata": {"finalizers": null}});
    world.client.patch("merge", &format!("{services}/s"), &free).await;
    if let Running::Real(_) = &world.pods {
        eventually("end of the namespace", async || world.client.get(&path).await.code == 404).await;
    }
}
