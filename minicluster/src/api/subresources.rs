//! Parts of objects with paths of their own: status, scale, ephemeral containers, logs.

use http::Request;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::answer::{self, Answer};
use super::invalid::FieldError;
use super::patch::PatchKind;
use super::respond::{self, Call};
use super::status::Status;
use super::write::{self, Check};
use super::{patch, validate};
use crate::object::{self, entries, list, number, text, texts};
use crate::resource::{DEPLOYMENTS, NAMESPACES, PODS, REPLICA_SETS, Resource, STATEFUL_SETS};
use crate::strategy::{Part, has_status};

/// Answers a request for one, but for port-forwards.
pub async fn answer(call: Call<'_>, request: Request<Incoming>) -> Result<Answer, Status> {
    match Sub::of(call.resource, &call.info.attributes.subresource) {
        None => Err(Status::no_such_path()),
        Some(Sub::Log) if call.info.attributes.verb == "get" => log(&call).await,
        Some(Sub::Log) => Err(Status::method_not_allowed()),
        Some(Sub::Scale) => scale(&call, request).await,
        Some(Sub::Finalize) if call.info.attributes.verb != "update" => Err(Status::method_not_allowed()),
        Some(sub) => part(&call, sub, request).await,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sub {
    Status,
    Scale,
    EphemeralContainers,
    Finalize,
    Log,
}

impl Sub {
    fn of(resource: &'static Resource, name: &str) -> Option<Sub> {
        match name {
            "status" if has_status(resource) => Some(Sub::Status),
            "scale" if scales(resource) => Some(Sub::Scale),
            "ephemeralcontainers" if resource == &PODS => Some(Sub::EphemeralContainers),
            "log" if resource == &PODS => Some(Sub::Log),
            "finalize" if resource == &NAMESPACES => Some(Sub::Finalize),
            _ => None,
        }
    }
}

/// Kinds with a scale.
pub fn scales(resource: &Resource) -> bool {
    [&DEPLOYMENTS, &REPLICA_SETS, &STATEFUL_SETS].contains(&resource)
}

/// Subresources of a kind and what can be done with them, for discovery: name, group, version, kind, verbs.
pub fn of(
    resource: &'static Resource,
) -> Vec<(&'static str, &'static str, &'static str, &'static str, &'static [&'static str])> {
    let mut all: Vec<(&str, &str, &str, &str, &[&str])> = Vec::new();
    let changes: &[&str] = &["get", "patch", "update"];
    if resource == &PODS {
        all.push(("ephemeralcontainers", "", "", "Pod", changes));
        all.push(("log", "", "", "Pod", &["get"]));
        all.push(("portforward", "", "", "PodPortForwardOptions", &["create", "get"]));
    }
    if resource == &NAMESPACES {
        all.push(("finalize", "", "", "Namespace", &["update"]));
    }
    if scales(resource) {
        all.push(("scale", "autoscaling", "v1", "Scale", changes));
    }
    if has_status(resource) {
        all.push(("status", "", "", resource.kind, changes));
    }
    all
}

/// A part of the object, which is written as the object and of which only that part is taken.
async fn part(call: &Call<'_>, sub: Sub, request: Request<Incoming>) -> Result<Answer, Status> {
    let (written, check): (Part, Check) = match sub {
        Sub::Status => (Part::Status, |_, _, _| Vec::new()),
        Sub::EphemeralContainers => (Part::Main, |_, before, after| validate::ephemeral_containers(before, after)),
        Sub::Finalize => (Part::Main, |_, _, _| Vec::new()),
        Sub::Scale | Sub::Log => return Err(Status::method_not_allowed()),
    };
    let take = move |before: &Value, new: Value| -> Value {
        let (map, field) = match sub {
            Sub::EphemeralContainers => ("/spec", "ephemeralContainers"),
            Sub::Finalize => ("/spec", "finalizers"),
            Sub::Status | Sub::Scale | Sub::Log => return new,
        };
        let mut after = before.clone();
        let value = new.pointer(&format!("{map}/{field}")).cloned();
        let value = value.unwrap_or_else(|| json!([]));
        entries(&mut after, map).insert(field.to_owned(), value);
        after
    };
    match call.info.attributes.verb.as_str() {
        "get" => {
            let name = &call.info.attributes.name;
            let object = call.shared.store.get(&call.key(name));
            let object = object.ok_or_else(|| Status::not_found(call.resource, name))?;
            Ok(answer::json(200, &*object))
        }
        "update" => {
            respond::check_type(&request)?;
            let new = write::parse(call.resource, &respond::body(request).await?)?;
            let take = |before: &Value, new: &Value| Ok(take(before, new.clone()));
            Ok(answer::json(200, &*write::change(call, written, new, take, check)?))
        }
        "patch" => {
            let kind = patch_kind(&request)?;
            let body = respond::body(request).await?;
            Ok(answer::json(200, &*write::change_by_patch(call, written, kind, &body, take, check)?))
        }
        _ => Err(Status::method_not_allowed()),
    }
}

fn patch_kind(request: &Request<Incoming>) -> Result<PatchKind, Status> {
    let kind = PatchKind::of(&respond::media_type(request));
    kind.ok_or_else(Status::no_such_patch)
}

/// The number of replicas, as an object of its own.
async fn scale(call: &Call<'_>, request: Request<Incoming>) -> Result<Answer, Status> {
    let (resource, name) = (call.resource, call.info.attributes.name.as_str());
    let find = || call.shared.store.get(&call.key(name)).ok_or_else(|| Status::not_found(resource, name));
    let verb = call.info.attributes.verb.as_str();
    if verb == "get" {
        return Ok(answer::json(200, &scale_of(&*find()?)));
    }
    let new = match verb {
        "update" => {
            respond::check_type(&request)?;
            let body = respond::body(request).await?;
            serde_json::from_slice(&body).map_err(|error| Status::bad_request(error.to_string()))?
        }
        "patch" => {
            let kind = patch_kind(&request)?;
            patch::apply(kind, resource, &scale_of(&*find()?), &respond::body(request).await?)?
        }
        _ => return Err(Status::method_not_allowed()),
    };
    let replicas = number(&new, "/spec/replicas").unwrap_or(0);
    if replicas < 0 {
        let text = "must be greater than or equal to 0";
        let error = FieldError::invalid("spec.replicas", json!(replicas), text);
        return Err(Status::invalid("autoscaling", "Scale", name, &[error]));
    }
    let change = json!({"spec": {"replicas": replicas}}).to_string();
    let version = object::version(&new);
    let current = find()?;
    if !version.is_empty() && version != object::version(&current) {
        return Err(Status::conflict(resource, name, write::MODIFIED));
    }
    let all = |_: &Value, new: Value| new;
    let object = write::change_by_patch(call, Part::Main, PatchKind::Merge, change.as_bytes(), all, validate::update)?;
    Ok(answer::json(200, &scale_of(&object)))
}

fn scale_of(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let mut shown = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = metadata.get(field) {
            shown[field] = value.clone();
        }
    }
    let selector = texts(object.pointer("/spec/selector/matchLabels"));
    let selector: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut spec = json!({});
    if let Some(replicas) = number(object, "/spec/replicas").filter(|replicas| *replicas != 0) {
        spec["replicas"] = json!(replicas);
    }
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": shown, "spec": spec,
        "status": {"replicas": number(object, "/status/replicas").unwrap_or(0), "selector": selector.join(",")},
    })
}

/// What a container wrote.
async fn log(call: &Call<'_>) -> Result<Answer, Status> {
    let name = call.info.attributes.name.as_str();
    let pod = call.shared.store.get(&call.key(name)).ok_or_else(|| Status::not_found(call.resource, name))?;
    let kinds = ["/spec/containers", "/spec/initContainers", "/spec/ephemeralContainers"];
    let all: Vec<&str> = kinds.into_iter().flat_map(|kind| list(&pod, kind)).map(|one| text(one, "/name")).collect();
    let container = match call.info.query.get("container").filter(|name| !name.is_empty()) {
        Some(container) if all.contains(&container) => container,
        Some(other) => return Err(Status::bad_request(format!("container {other} is not valid for pod {name}"))),
        None => match list(&pod, "/spec/containers") {
            [only] => text(only, "/name"),
            several => {
                let names: Vec<&str> = several.iter().map(|one| text(one, "/name")).collect();
                let names = names.join(" ");
                let text = format!("a container name must be specified for pod {name}, choose one of: [{names}]");
                return Err(Status::bad_request(text));
            }
        },
    };
    if text(&pod, "/spec/nodeName").is_empty() {
        return Ok(answer::text(200, ""));
    }
    let written = call.shared.kubelet.logs(object::uid(&pod), container).await;
    let written = written.map_err(|error| Status::internal(&error.to_string()))?;
    let written = String::from_utf8_lossy(&written);
    let lines = call.info.query.get("tailLines").and_then(|lines| lines.parse::<usize>().ok());
    let all: Vec<&str> = written.split_inclusive('\n').collect();
    let from = lines.map_or(0, |lines| all.len().saturating_sub(lines));
    Ok(answer::text(200, &all.get(from..).unwrap_or_default().concat()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{JOBS, NODES, SERVICES};

    #[test]
    fn each_kind_has_its_parts() {
        assert_eq!(Sub::of(&PODS, "ephemeralcontainers"), Some(Sub::EphemeralContainers));
        assert_eq!(Sub::of(&SERVICES, "scale"), None);
        assert_eq!(Sub::of(&DEPLOYMENTS, "scale"), Some(Sub::Scale));
        assert_eq!(Sub::of(&JOBS, "status"), Some(Sub::Status));
        assert_eq!(Sub::of(&NODES, "proxy"), None);
    }
}
