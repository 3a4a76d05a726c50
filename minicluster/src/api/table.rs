//! Objects as rows and columns, for people. Pure.
//!
//! Kubernetes 1.34, `pkg/printers/internalversion`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::read;
use super::request::Query;
use crate::object::{self, labels, list, number, says, text, texts};
use crate::resource::{
    CLUSTER_ROLE_BINDINGS, DAEMON_SETS, DEPLOYMENTS, ENDPOINT_SLICES, EVENTS, JOBS, NAMESPACES, NODES, PODS,
    REPLICA_SETS, ROLE_BINDINGS, Resource, SERVICE_CIDRS, SERVICES, STATEFUL_SETS,
};
use crate::time::Time;

/// A column: its name, its type, its priority: 0 is always shown.
type Column = (&'static str, &'static str, u8);

/// Whether there are columns for a kind. All have at least a name and an age.
pub fn has(_: &Resource) -> bool {
    true
}

/// A table of one object.
pub fn one(resource: &'static Resource, object: &Value, query: &Query, now: Time) -> Value {
    let metadata = json!({"resourceVersion": object::version(object)});
    of(resource, metadata, std::iter::once(object), query, now)
}

/// A table of a list.
pub fn many(resource: &'static Resource, metadata: Value, items: &[Arc<Value>], query: &Query, now: Time) -> Value {
    of(resource, metadata, items.iter().map(|item| &**item), query, now)
}

fn of<'a>(
    resource: &'static Resource,
    metadata: Value,
    items: impl Iterator<Item = &'a Value>,
    query: &Query,
    now: Time,
) -> Value {
    let shown = |object: &Value| match query.get("includeObject") {
        Some("None") => Value::Null,
        Some("Object") => object.clone(),
        Some(_) | None => read::partial(object),
    };
    let rows: Vec<Value> =
        items.map(|object| json!({"cells": cells(resource, object, now), "object": shown(object)})).collect();
    let columns: Vec<Value> = columns(resource)
        .iter()
        .map(|(name, kind, priority)| {
            let format = if *name == "Name" { "name" } else { "" };
            json!({"name": name, "type": kind, "format": format, "description": "", "priority": priority})
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": columns, "rows": rows,
    })
}

const NAME: Column = ("Name", "string", 0);
const AGE: Column = ("Age", "string", 0);

fn columns(resource: &'static Resource) -> Vec<Column> {
    let rest: &[Column] = if resource == &PODS {
        &[
            ("Ready", "string", 0),
            ("Status", "string", 0),
            ("Restarts", "string", 0),
            AGE,
            ("IP", "string", 1),
            ("Node", "string", 1),
            ("Nominated Node", "string", 1),
            ("Readiness Gates", "string", 1),
        ]
    } else if resource == &DEPLOYMENTS {
        &[
            ("Ready", "string", 0),
            ("Up-to-date", "string", 0),
            ("Available", "string", 0),
            AGE,
            ("Containers", "string", 1),
            ("Images", "string", 1),
            ("Selector", "string", 1),
        ]
    } else if resource == &REPLICA_SETS {
        &[
            ("Desired", "integer", 0),
            ("Current", "integer", 0),
            ("Ready", "integer", 0),
            AGE,
            ("Containers", "string", 1),
            ("Images", "string", 1),
            ("Selector", "string", 1),
        ]
    } else if resource == &STATEFUL_SETS {
        &[("Ready", "string", 0), AGE, ("Containers", "string", 1), ("Images", "string", 1)]
    } else if resource == &DAEMON_SETS {
        &[
            ("Desired", "integer", 0),
            ("Current", "integer", 0),
            ("Ready", "integer", 0),
            ("Up-to-date", "integer", 0),
            ("Available", "integer", 0),
            ("Node Selector", "string", 0),
            AGE,
            ("Containers", "string", 1),
            ("Images", "string", 1),
            ("Selector", "string", 1),
        ]
    } else if resource == &JOBS {
        &[
            ("Status", "string", 0),
            ("Completions", "string", 0),
            ("Duration", "string", 0),
            AGE,
            ("Containers", "string", 1),
            ("Images", "string", 1),
            ("Selector", "string", 1),
        ]
    } else if resource == &SERVICES {
        &[
            ("Type", "string", 0),
            ("Cluster-IP", "string", 0),
            ("External-IP", "string", 0),
            ("Port(s)", "string", 0),
            AGE,
            ("Selector", "string", 1),
        ]
    } else if resource == &NAMESPACES {
        &[("Status", "string", 0), AGE]
    } else if resource == &NODES {
        &[
            ("Status", "string", 0),
            ("Roles", "string", 0),
            AGE,
            ("Version", "string", 0),
            ("Internal-IP", "string", 1),
            ("External-IP", "string", 1),
            ("OS-Image", "string", 1),
            ("Kernel-Version", "string", 1),
            ("Container-Runtime", "string", 1),
        ]
    } else if resource == &ENDPOINT_SLICES {
        &[("AddressType", "string", 0), ("Ports", "string", 0), ("Endpoints", "string", 0), AGE]
    } else if resource == &ROLE_BINDINGS || resource == &CLUSTER_ROLE_BINDINGS {
        &[("Role", "string", 0), AGE, ("Users", "string", 1), ("Groups", "string", 1), ("ServiceAccounts", "string", 1)]
    } else if resource == &SERVICE_CIDRS {
        &[("CIDRs", "string", 0), AGE]
    } else if resource == &EVENTS {
        return vec![
            ("Last Seen", "string", 0),
            ("Type", "string", 0),
            ("Reason", "string", 0),
            ("Object", "string", 0),
            ("Subobject", "string", 1),
            ("Source", "string", 1),
            ("Message", "string", 0),
            ("First Seen", "string", 1),
            ("Count", "string", 1),
            ("Name", "string", 1),
        ];
    } else {
        return vec![NAME, ("Created At", "date", 0)];
    };
    std::iter::once(NAME).chain(rest.iter().copied()).collect()
}

fn cells(resource: &'static Resource, object: &Value, now: Time) -> Vec<Value> {
    let name = json!(object::name(object));
    let age = json!(age(text(object, "/metadata/creationTimestamp"), now));
    let count = |path: &str| json!(number(object, path).unwrap_or(0));
    let (containers, images) = containers(object);
    let selector = json!(pairs(object, "/spec/selector/matchLabels"));
    if resource == &PODS {
        pod(object, name, age, now)
    } else if resource == &DEPLOYMENTS {
        let ready = ratio(object, "/status/readyReplicas", "/spec/replicas");
        let (updated, available) = (count("/status/updatedReplicas"), count("/status/availableReplicas"));
        vec![name, ready, updated, available, age, containers, images, selector]
    } else if resource == &REPLICA_SETS {
        let (current, ready) = (count("/status/replicas"), count("/status/readyReplicas"));
        vec![name, count("/spec/replicas"), current, ready, age, containers, images, selector]
    } else if resource == &STATEFUL_SETS {
        vec![name, ratio(object, "/status/readyReplicas", "/spec/replicas"), age, containers, images]
    } else if resource == &DAEMON_SETS {
        let of = [
            "desiredNumberScheduled",
            "currentNumberScheduled",
            "numberReady",
            "updatedNumberScheduled",
            "numberAvailable",
        ];
        let mut cells = vec![name];
        cells.extend(of.map(|field| count(&format!("/status/{field}"))));
        cells.push(json!(pairs(object, "/spec/template/spec/nodeSelector")));
        cells.extend([age, containers, images, selector]);
        cells
    } else if resource == &JOBS {
        let state = job_state(object);
        let wanted = number(object, "/spec/completions").unwrap_or(1);
        let done = json!(format!("{}/{wanted}", number(object, "/status/succeeded").unwrap_or(0)));
        vec![name, json!(state), done, json!(duration_of(object, now)), age, containers, images, selector]
    } else if resource == &SERVICES {
        let address = or_none(text(object, "/spec/clusterIP"));
        let outside = or_none(text(object, "/spec/externalName"));
        let kind = json!(text(object, "/spec/type"));
        vec![name, kind, address, outside, json!(ports(object)), age, json!(pairs(object, "/spec/selector"))]
    } else if resource == &NAMESPACES {
        vec![name, json!(text(object, "/status/phase")), age]
    } else if resource == &NODES {
        node(object, name, age)
    } else if resource == &ENDPOINT_SLICES {
        slice(object, name, age)
    } else if resource == &ROLE_BINDINGS || resource == &CLUSTER_ROLE_BINDINGS {
        binding(object, name, age)
    } else if resource == &SERVICE_CIDRS {
        let ranges: Vec<&str> = list(object, "/spec/cidrs").iter().filter_map(Value::as_str).collect();
        vec![name, json!(ranges.join(",")), age]
    } else if resource == &EVENTS {
        event(object, name, now)
    } else {
        vec![name, object["metadata"]["creationTimestamp"].clone()]
    }
}

fn pod(pod: &Value, name: Value, age: Value, now: Time) -> Vec<Value> {
    let states = list(pod, "/status/containerStatuses");
    let ready = states.iter().filter(|state| says(state, "/ready")).count();
    let restarts: i64 = states.iter().filter_map(|state| number(state, "/restartCount")).sum();
    let ended = states.iter().map(|state| text(state, "/lastState/terminated/finishedAt")).max().unwrap_or_default();
    let restarts = match (restarts, ended) {
        (0, _) | (_, "") => restarts.to_string(),
        (_, ended) => format!("{restarts} ({} ago)", self::age(ended, now)),
    };
    let waits = states.iter().map(|state| text(state, "/state/waiting/reason")).find(|reason| !reason.is_empty());
    let over = states.iter().map(|state| text(state, "/state/terminated/reason")).find(|reason| !reason.is_empty());
    let state = match (text(pod, "/status/reason"), object::is_going(pod)) {
        (_, true) => "Terminating",
        ("", false) => waits.or(over).unwrap_or_else(|| text(pod, "/status/phase")),
        (reason, false) => reason,
    };
    vec![
        name,
        json!(format!("{ready}/{}", list(pod, "/spec/containers").len())),
        json!(state),
        json!(restarts),
        age,
        or_none(text(pod, "/status/podIP")),
        or_none(text(pod, "/spec/nodeName")),
        or_none(text(pod, "/status/nominatedNodeName")),
        json!("<none>"),
    ]
}

fn node(node: &Value, name: Value, age: Value) -> Vec<Value> {
    let ready = list(node, "/status/conditions").iter().find(|one| text(one, "/type") == "Ready");
    let ready = ready.is_some_and(|ready| text(ready, "/status") == "True");
    let mut state = if ready { "Ready".to_owned() } else { "NotReady".to_owned() };
    if says(node, "/spec/unschedulable") {
        state.push_str(",SchedulingDisabled");
    }
    let prefix = "node-role.kubernetes.io/";
    let roles: Vec<&str> = labels(node).keys().filter_map(|key| key.strip_prefix(prefix)).collect();
    let address = |kind: &str| {
        let found = list(node, "/status/addresses").iter().find(|one| text(one, "/type") == kind);
        or_none(found.map_or("", |one| text(one, "/address")))
    };
    let info = |field: &str| match text(node, &format!("/status/nodeInfo/{field}")) {
        "" => json!("<unknown>"),
        value => json!(value),
    };
    vec![
        name,
        json!(state),
        or_none(&roles.join(",")),
        age,
        json!(text(node, "/status/nodeInfo/kubeletVersion")),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn slice(slice: &Value, name: Value, age: Value) -> Vec<Value> {
    let ports: Vec<String> =
        list(slice, "/ports").iter().filter_map(|port| number(port, "/port")).map(|port| port.to_string()).collect();
    let addresses: Vec<&str> = list(slice, "/endpoints")
        .iter()
        .flat_map(|endpoint| list(endpoint, "/addresses"))
        .filter_map(Value::as_str)
        .collect();
    let some = |all: Vec<String>| match all.len() {
        0 => "<unset>".to_owned(),
        1..=3 => all.join(","),
        many => format!("{} + {} more...", all[..3].join(","), many - 3),
    };
    let addresses = addresses.into_iter().map(str::to_owned).collect();
    vec![name, json!(text(slice, "/addressType")), json!(some(ports)), json!(some(addresses)), age]
}

fn binding(binding: &Value, name: Value, age: Value) -> Vec<Value> {
    let role = format!("{}/{}", text(binding, "/roleRef/kind"), text(binding, "/roleRef/name"));
    let of = |kind: &str| {
        let subjects = list(binding, "/subjects").iter().filter(|subject| text(subject, "/kind") == kind);
        let names = subjects.map(|subject| match text(subject, "/namespace") {
            "" => text(subject, "/name").to_owned(),
            namespace => format!("{namespace}/{}", text(subject, "/name")),
        });
        json!(names.collect::<Vec<_>>().join(", "))
    };
    vec![name, json!(role), age, of("User"), of("Group"), of("ServiceAccount")]
}

fn event(event: &Value, name: Value, now: Time) -> Vec<Value> {
    let first =
        ["/firstTimestamp", "/eventTime"].into_iter().map(|path| text(event, path)).find(|time| !time.is_empty());
    let first = age(first.unwrap_or_default(), now);
    let last = match text(event, "/lastTimestamp") {
        "" => first.clone(),
        last => age(last, now),
    };
    let about = &event["involvedObject"];
    let kind = text(about, "/kind").to_lowercase();
    let source = match text(event, "/source/component") {
        "" => text(event, "/reportingComponent"),
        component => component,
    };
    vec![
        json!(last),
        json!(text(event, "/type")),
        json!(text(event, "/reason")),
        json!(format!("{kind}/{}", text(about, "/name"))),
        json!(text(about, "/fieldPath")),
        json!(source),
        json!(text(event, "/message").trim()),
        json!(first),
        json!(number(event, "/count").unwrap_or(1).to_string()),
        name,
    ]
}

fn job_state(job: &Value) -> &'static str {
    let is = |kind: &str| {
        list(job, "/status/conditions").iter().any(|one| text(one, "/type") == kind && text(one, "/status") == "True")
    };
    if is("Complete") {
        "Complete"
    } else if is("Failed") {
        "Failed"
    } else if object::is_going(job) {
        "Terminating"
    } else if is("Suspended") {
        "Suspended"
    } else {
        "Running"
    }
}

fn duration_of(job: &Value, now: Time) -> String {
    let Some(began) = Time::parse(text(job, "/status/startTime")) else { return String::new() };
    let ended = Time::parse(text(job, "/status/completionTime")).unwrap_or(now);
    human(began.until(ended).as_secs())
}

fn ratio(object: &Value, part: &str, whole: &str) -> Value {
    json!(format!("{}/{}", number(object, part).unwrap_or(0), number(object, whole).unwrap_or(0)))
}

fn containers(object: &Value) -> (Value, Value) {
    let all = list(object, "/spec/template/spec/containers");
    let of = |path: &str| all.iter().map(|one| text(one, path)).collect::<Vec<_>>().join(",");
    (json!(of("/name")), json!(of("/image")))
}

fn pairs(object: &Value, path: &str) -> String {
    let pairs: Vec<String> = texts(object.pointer(path)).iter().map(|(key, value)| format!("{key}={value}")).collect();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

fn ports(service: &Value) -> String {
    let one = |port: &Value| {
        let (own, node) = (number(port, "/port").unwrap_or(0), number(port, "/nodePort"));
        let protocol = text(port, "/protocol");
        node.map_or_else(|| format!("{own}/{protocol}"), |node| format!("{own}:{node}/{protocol}"))
    };
    let ports: Vec<String> = list(service, "/spec/ports").iter().map(one).collect();
    if ports.is_empty() { "<none>".to_owned() } else { ports.join(",") }
}

fn or_none(value: &str) -> Value {
    json!(if value.is_empty() { "<none>" } else { value })
}

fn age(since: &str, now: Time) -> String {
    Time::parse(since).map_or_else(|| "<unknown>".to_owned(), |since| human(since.until(now).as_secs()))
}

/// `k8s.io/apimachinery/pkg/util/duration.HumanDuration`.
fn human(seconds: u64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let two = |big: u64, unit: char, small: u64, small_unit: char| match small {
        0 => format!("{big}{unit}"),
        small => format!("{big}{unit}{small}{small_unit}"),
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(hours / 24, 'd', hours % 24, 'h'),
        691_200..63_072_000 => format!("{}d", hours / 24),
        63_072_000..252_288_000 => two(hours / 8760, 'y', hours / 24 % 365, 'd'),
        _ => format!("{}y", hours / 8760),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource;

    #[test]
    fn rows_fit_their_columns() {
        for resource in resource::ALL {
            let object = json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}});
            let table = one(resource, &object, &Query::default(), Time::parse("2026-01-01T00:05:30Z").unwrap());
            let (columns, cells) = (&table["columnDefinitions"], &table["rows"][0]["cells"]);
            assert_eq!(columns.as_array().unwrap().len(), cells.as_array().unwrap().len(), "{}", resource.plural);
            assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
        }
    }

    #[test]
    fn a_pod_is_summed_up() {
        let states = json!([{"ready": true, "restartCount": 2}, {"ready": false, "restartCount": 0}]);
        let pod = json!({
            "metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [{}, {}], "nodeName": "n1"}, "status": {"phase": "Running", "containerStatuses": states},
        });
        let cells = cells(&PODS, &pod, Time::parse("2026-01-01T00:05:30Z").unwrap());
        assert_eq!(cells[..5], [json!("web"), json!("1/2"), json!("Running"), json!("2"), json!("5m30s")]);
    }

    #[test]
    fn spans_of_time_are_told_in_two_units_at_most() {
        for (seconds, text) in
            [(0, "0s"), (119, "119s"), (120, "2m"), (330, "5m30s"), (3600, "60m"), (11_000, "3h3m"), (86_400, "24h")]
        {
            assert_eq!(human(seconds), text);
        }
    }
}
