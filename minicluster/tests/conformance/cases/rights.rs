//! Rights, and what those read who do not have them.

use serde_json::{Value, json};

use crate::client::Client;
use crate::world::World;

const RBAC: &str = "rbac.authorization.k8s.io";

fn jane(world: &World) -> Client {
    world.client.with("impersonate-user", "jane").with("impersonate-group", "podway-conformance")
}

async fn grant(world: &World, name: &str, rules: Value) {
    if !rules.is_null() {
        let role = json!({"metadata": {"name": name}, "rules": rules});
        world.make(&format!("{RBAC}/roles"), &role).await;
    }
    let binding = json!({
        "metadata": {"name": name}, "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": name},
        "subjects": [{"kind": "User", "apiGroup": RBAC, "name": "jane"}],
    });
    world.make(&format!("{RBAC}/rolebindings"), &binding).await;
}

/// Rights are taken from a copy that follows the objects.
async fn eventually_allowed(world: &World, path: &str) {
    let jane = jane(world);
    crate::world::eventually("right", async || jane.get(path).await.code == 200).await;
}

pub async fn strangers_are_refused(world: &mut World) {
    let pods = world.path("pods");
    let reply = world.anonymous.get(&pods).await;
    world.log.reply("nobody", &reply);
    let stranger = world.anonymous.with("authorization", "Bearer nonsense");
    let reply = stranger.get(&pods).await;
    world.log.reply("somebody unknown", &reply);
    let reply = stranger.get("/version").await;
    world.log.reply("somebody unknown asks for the version", &reply);
    for path in ["/version", "/readyz", "/apis"] {
        let reply = world.anonymous.get(path).await;
        world.log.say(&format!("nobody asks for {path}: {}", reply.code));
    }
}

pub async fn refusals_name_user_and_right(world: &mut World) {
    let looks = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]);
    grant(world, "looks", looks).await;
    let (pods, services) = (world.path("pods"), world.path("services"));
    let deployments = world.path("apps/deployments");
    eventually_allowed(world, &pods).await;
    let jane = jane(world);
    for (method, path) in [
        ("GET", services.clone()),
        ("GET", format!("{services}/web")),
        ("GET", format!("{pods}?watch=1")),
        ("GET", "/api/v1/pods".to_owned()),
        ("GET", "/api/v1/nodes".to_owned()),
        ("GET", deployments.clone()),
        ("GET", format!("{pods}/web/portforward?ports=80")),
        ("GET", format!("{pods}?watch=1&fieldSelector=metadata.name%3Dweb")),
        ("GET", "/metrics".to_owned()),
        ("POST", pods.clone()),
        ("PATCH", format!("{pods}/web/ephemeralcontainers")),
        ("PUT", format!("{deployments}/web/scale")),
        ("DELETE", pods.clone()),
        ("DELETE", format!("{pods}/web")),
        ("POST", "/api/v1/namespaces".to_owned()),
    ] {
        let reply = jane.json(method, &path, &json!({})).await;
        world.log.reply(&format!("{method} {path}"), &reply);
    }
}

pub async fn rights_can_be_asked_for(world: &mut World) {
    let resources = json!(["pods", "pods/log"]);
    let looks =
        json!([{"apiGroups": [""], "resources": resources, "verbs": ["get", "list"], "resourceNames": ["web"]}]);
    grant(world, "looks", looks).await;
    let selected = format!("{}?fieldSelector=metadata.name%3Dweb", world.path("pods"));
    eventually_allowed(world, &selected).await;
    let jane = jane(world);
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let review =
        |spec: Value| json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec});
    let namespace = world.namespace.clone();
    let of = |verb: &str, resource: &str, sub: &str, name: &str| {
        json!({"resourceAttributes": {
            "namespace": namespace, "verb": verb, "group": "", "resource": resource, "subresource": sub, "name": name,
        }})
    };
    for spec in [
        of("get", "pods", "", "web"),
        of("get", "pods", "log", "web"),
        of("get", "pods", "", "db"),
        of("list", "pods", "", ""),
        of("get", "services", "", "web"),
        json!({"nonResourceAttributes": {"path": "/version", "verb": "get"}}),
        json!({"nonResourceAttributes": {"path": "/metrics", "verb": "get"}}),
    ] {
        let reply = jane.json("POST", path, &review(spec)).await;
        world.log.fields("may I", &reply, &["kind", "apiVersion", "spec", "status.allowed"]);
        let reason = reply.json()["status"]["reason"].as_str().unwrap_or_default().to_owned();
        if reason.contains("looks") {
            world.log.say(&format!("  {reason}"));
        }
    }
    let both = json!({
        "resourceAttributes": {"verb": "get"}, "nonResourceAttributes": {"path": "/", "verb": "get"},
    });
    for spec in [json!({}), both] {
        let reply = jane.json("POST", path, &review(spec)).await;
        world.log.reply("nonsense", &reply);
    }
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": world.namespace},
    });
    let reply = jane.json("POST", path, &review).await;
    world.log.fields("what may I", &reply, &["kind", "spec", "status.incomplete"]);
    let rules = reply.json()["status"]["resourceRules"].as_array().cloned().unwrap_or_default();
    for rule in rules.iter().filter(|rule| !rule["resourceNames"].is_null()) {
        world.log.value(rule);
    }
    let reply = jane.json("POST", path, &json!({"spec": {}})).await;
    world.log.reply("in no namespace", &reply);
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let reply = jane.json("POST", path, &review).await;
    world.log.fields("who am I", &reply, &["kind", "status.userInfo.username", "status.userInfo.groups"]);
    let reply = world.client.get(path).await;
    world.log.reply("no question", &reply);
}

pub async fn a_missing_role_is_named(world: &mut World) {
    grant(world, "missing", Value::Null).await;
    let (jane, pods) = (jane(world), world.path("pods"));
    let named = async || String::from_utf8_lossy(&jane.get(&pods).await.body).contains("RBAC");
    crate::world::eventually("reason", named).await;
    let reply = jane.get(&pods).await;
    world.log.reply("the role is missing", &reply);
}

pub async fn being_somebody_else_is_a_right(world: &mut World) {
    // Rights to be others would be cluster-wide, so nobody gets them here.
    let reply = jane(world).get("/version").await;
    world.log.say(&format!("an administrator is somebody else: {}", reply.code));
    let reply = world.anonymous.with("impersonate-user", "jane").get("/version").await;
    world.log.reply("nobody wants to be jane", &reply);
    let bot = format!("system:serviceaccount:{}:bot", world.namespace);
    let reply = world.anonymous.with("impersonate-user", &bot).get("/version").await;
    world.log.reply("nobody wants to be a bot", &reply);
}
