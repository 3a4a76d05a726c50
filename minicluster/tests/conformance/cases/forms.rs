//! Answers in other forms: metadata alone, tables.

use serde_json::{Value, json};

use crate::client::Reply;
use crate::world::World;

const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

async fn service(world: &World) {
    let ports = json!([{"port": 80, "name": "http"}, {"port": 81, "protocol": "UDP", "name": "u"}]);
    let spec = json!({"clusterIP": "None", "selector": {"app": "web"}, "ports": ports});
    world.make("services", &json!({"metadata": {"name": "web", "labels": {"app": "web"}}, "spec": spec})).await;
}

async fn get(world: &World, path: &str, accept: &str) -> Reply {
    world.client.send("GET", path, &[("accept", accept)], Vec::new()).await
}

pub async fn metadata_alone(world: &mut World) {
    service(world).await;
    let path = world.path("services");
    let reply = get(world, &format!("{path}/web"), METADATA).await;
    world.log.reply("one", &reply);
    let reply = get(world, &path, METADATA_LIST).await;
    world.log.reply("a list", &reply);
}

pub async fn tables(world: &mut World) {
    service(world).await;
    let pod = json!({"containers": [{"name": "a", "image": "x"}], "nodeSelector": {"nowhere": "x"}});
    world.make("pods", &json!({"metadata": {"name": "p"}, "spec": pod})).await;
    let template = json!({"metadata": {"labels": {"app": "x"}}, "spec": pod});
    let spec = json!({"replicas": 0, "selector": {"matchLabels": {"app": "x"}}, "template": template});
    for kind in ["apps/deployments", "apps/replicasets", "apps/statefulsets"] {
        world.make(kind, &json!({"metadata": {"name": "x"}, "spec": spec})).await;
    }
    let mut pod = pod;
    pod["restartPolicy"] = json!("Never");
    let job = json!({"template": {"spec": pod}, "suspend": true});
    world.make("batch/jobs", &json!({"metadata": {"name": "x"}, "spec": job})).await;
    let role = json!({"metadata": {"name": "r"}, "rules": []});
    world.make("rbac.authorization.k8s.io/roles", &role).await;
    for kind in ["services", "pods", "apps/deployments", "apps/statefulsets", "rbac.authorization.k8s.io/roles"] {
        let reply = get(world, &world.path(kind), TABLE).await;
        show(world, kind, &reply.json());
    }
    let reply = get(world, "/api/v1/namespaces?fieldSelector=metadata.name%3Ddefault", TABLE).await;
    show(world, "namespaces", &reply.json());
    let web = format!("{}/web", world.path("services"));
    let reply = get(world, &format!("{web}?includeObject=None"), TABLE).await;
    world.log.pick(&reply.json(), &["kind", "apiVersion", "rows.*.object"]);
    let reply = get(world, &format!("{web}?includeObject=Object"), TABLE).await;
    world.log.pick(&reply.json(), &["rows.*.object.kind"]);
    for kind in ["events", "batch/jobs", "apps/replicasets", "apps/daemonsets", "discovery.k8s.io/endpointslices"] {
        let table = get(world, &world.path(kind), TABLE).await.json();
        world.log.say(&format!("{kind}: {}", columns(&table)));
    }
    for path in [
        "/api/v1/nodes",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        "/apis/rbac.authorization.k8s.io/v1/rolebindings",
        "/apis/networking.k8s.io/v1/servicecidrs",
    ] {
        let table = get(world, path, TABLE).await.json();
        world.log.say(&format!("{path}: {}", columns(&table)));
    }
}

fn columns(table: &Value) -> String {
    let columns = table["columnDefinitions"].as_array().cloned().unwrap_or_default();
    let of = |column: &Value| {
        let text = |field: &str| column[field].as_str().unwrap_or_default().to_owned();
        format!("{}/{}/{}/{}", text("name"), text("type"), text("format"), column["priority"])
    };
    columns.iter().map(of).collect::<Vec<_>>().join(", ")
}

/// Columns and cells, without the age, which a new object hardly has.
fn show(world: &mut World, kind: &str, table: &Value) {
    world.log.say(&format!("{kind}: {}", columns(table)));
    let names: Vec<Value> =
        table["columnDefinitions"].as_array().into_iter().flatten().map(|column| column["name"].clone()).collect();
    for row in table["rows"].as_array().into_iter().flatten() {
        let cells: Vec<String> = row["cells"]
            .as_array()
            .into_iter()
            .flatten()
            .zip(&names)
            .filter(|(_, name)| !["Age", "Created At"].contains(&name.as_str().unwrap_or_default()))
            .map(|(cell, _)| cell.to_string())
            .collect();
        world.log.say(&format!("  {} of {}", cells.join(" "), row["object"]["kind"]));
    }
}

pub async fn unknown_forms_are_refused(world: &mut World) {
    let path = world.path("services");
    let reply = get(world, &path, "text/html").await;
    world.log.reply("HTML", &reply);
    for accept in ["*/*", "application/*", "text/html, */*", ""] {
        let reply = get(world, &path, accept).await;
        world.log.fields(&format!("{accept:?}"), &reply, &["kind"]);
    }
    let reply = get(world, &path, "application/json;as=Nope;g=meta.k8s.io;v=v1").await;
    world.log.reply("a form that nobody knows", &reply);
}
