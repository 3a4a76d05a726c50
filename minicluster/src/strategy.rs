//! What happens to objects on their way into the store, whoever writes them: defaults, generations, addresses of
//! services, finalizers, graceful deletion. The rules of the real API server's "strategies".
//!
//! Everybody writes through [`create`], [`update`] and [`delete`]; the store alone knows none of these rules.

mod defaults;
mod deletion;
mod namespaces;
mod pod_security;
mod service_addresses;

use std::sync::Arc;

use serde_json::{Value, json};

pub use deletion::{Deletion, Propagation, delete};

use crate::object::{entries, text};
use crate::resource::{
    DAEMON_SETS, DEPLOYMENTS, ENDPOINT_SLICES, JOBS, NAMESPACES, PODS, REPLICA_SETS, Resource, SERVICES, STATEFUL_SETS,
};
use crate::store::{Fate, Key, Objects, Store, StoreError};

/// Why the cluster refuses to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The store does not.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The object may not be as it is (422 of the API): the field and what is wrong with it.
    #[error("{0}")]
    Invalid(String),
    /// It may not be now or here (403 of the API).
    #[error("{0}")]
    Forbidden(String),
    /// The namespace does not exist (404 of the API).
    #[error("namespaces \"{0}\" not found")]
    NoNamespace(String),
}

/// What a writer may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All but the status.
    Main,
    /// The status, annotations, conditions of deletion.
    Status,
    /// Everything: the cluster's own parts.
    All,
}

/// Adds an object, as a client's POST does. Kinds with a status begin with an empty one.
pub fn create(store: &Store, key: &Key, mut object: Value) -> Result<Arc<Value>, Refusal> {
    let metadata = entries(&mut object, "/metadata");
    for field in ["uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        metadata.remove(field);
    }
    metadata.remove("generation");
    if has_generation(key.resource) {
        metadata.insert("generation".to_owned(), json!(1));
    }
    begin_status(key, &mut object);
    defaults::set(key.resource, &mut object);
    store.create_with(key, |objects, uid| {
        admit(key, &object, objects)?;
        if key.resource == &JOBS {
            defaults::job_selector(&key.name, uid, &mut object);
        }
        if key.resource == &SERVICES {
            service_addresses::allocate(&mut object, key, None, objects)?;
        }
        Ok(object)
    })
}

/// Whether a new object may come: its namespace is there and stays, and pods are as it allows.
pub fn admit(key: &Key, object: &Value, objects: &Objects) -> Result<(), Refusal> {
    namespaces::admit(key, objects)?;
    if key.resource == &PODS { pod_security::admit(key, object, objects) } else { Ok(()) }
}

/// Changes an object in one step; with `version`, only that one. It is removed if it was to go and this took the last
/// reason to stay.
pub fn update(
    store: &Store,
    key: &Key,
    version: Option<&str>,
    part: Part,
    change: impl FnOnce(&mut Value),
) -> Result<(Arc<Value>, Fate), Refusal> {
    store.update_with(key, version, |object, objects| {
        let before = object.clone();
        change(object);
        keep(key, part, &before, object);
        defaults::set(key.resource, object);
        if key.resource == &PODS && before["spec"] != object["spec"] && part == Part::Main {
            pod_security::admit(key, object, objects)?;
        }
        if key.resource == &SERVICES && before["spec"] != object["spec"] {
            service_addresses::allocate(object, key, Some(&before), objects)?;
        }
        if key.resource == &DAEMON_SETS && before["spec"]["template"] != object["spec"]["template"] {
            defaults::next_template(object);
        }
        bump_generation(key.resource, part, &before, object);
        Ok(if deletion::may_go(object) { Fate::Goes } else { Fate::Stays })
    })
}

/// Kinds that count changes of what is wanted.
fn has_generation(resource: &Resource) -> bool {
    [&DEPLOYMENTS, &REPLICA_SETS, &STATEFUL_SETS, &DAEMON_SETS, &JOBS, &PODS, &ENDPOINT_SLICES]
        .into_iter()
        .any(|counted| counted == resource)
}

/// Raises `metadata.generation` if what is wanted differs: the spec; for Deployments also annotations, unless they came
/// with the status; for EndpointSlices, which have no spec, all but metadata.
pub fn bump_generation(resource: &Resource, part: Part, before: &Value, after: &mut Value) {
    if !has_generation(resource) {
        return;
    }
    let differs = |path: &str| before.pointer(path) != after.pointer(path);
    let wanted = if resource == &ENDPOINT_SLICES {
        ["/endpoints", "/ports"].into_iter().any(differs)
    } else {
        // That a pod is given a node is no change of what is wanted.
        (differs("/spec") && !(resource == &PODS && part == Part::All))
            || (resource == &DEPLOYMENTS && part == Part::Main && differs("/metadata/annotations"))
            || (before["metadata"]["deletionTimestamp"].is_null() && differs("/metadata/deletionTimestamp"))
    };
    let generation = before["metadata"]["generation"].as_i64().unwrap_or(1);
    entries(after, "/metadata").insert("generation".to_owned(), json!(generation + i64::from(wanted)));
}

/// Puts back what this writer may not change, and what nobody may.
fn keep(key: &Key, part: Part, before: &Value, after: &mut Value) {
    let kept = ["name", "namespace", "uid", "creationTimestamp", "generation", "resourceVersion"];
    let by_deletion = ["deletionTimestamp", "deletionGracePeriodSeconds"];
    let metadata = entries(after, "/metadata");
    for field in kept.into_iter().chain(by_deletion.into_iter().filter(|_| part != Part::All)) {
        put_back(metadata, field, &before["metadata"]);
    }
    if part == Part::Status {
        for field in ["labels", "finalizers", "ownerReferences"] {
            put_back(metadata, field, &before["metadata"]);
        }
    }
    let all = entries(after, "");
    put_back(all, "apiVersion", before);
    put_back(all, "kind", before);
    match part {
        Part::Main if has_status(key.resource) => put_back(all, "status", before),
        Part::Status => put_back(all, "spec", before),
        Part::Main | Part::All => (),
    }
}

fn put_back(entries: &mut serde_json::Map<String, Value>, field: &str, before: &Value) {
    match before.get(field) {
        Some(value) => entries.insert(field.to_owned(), value.clone()),
        None => entries.remove(field),
    };
}

/// Kinds whose status clients write apart from the rest.
pub fn has_status(resource: &Resource) -> bool {
    ["namespaces", "nodes", "pods", "services", "deployments", "replicasets", "statefulsets", "daemonsets", "jobs"]
        .contains(&resource.plural)
        || resource.plural == "servicecidrs"
}

/// The status that an object begins with.
fn begin_status(key: &Key, object: &mut Value) {
    let resource = key.resource;
    if resource == &NAMESPACES {
        namespaces::begin(&key.name, object);
    } else if resource == &PODS {
        object["status"] = json!({"phase": "Pending", "qosClass": qos_class(object)});
    } else if resource == &SERVICES {
        object["status"] = json!({"loadBalancer": {}});
    } else if has_status(resource) && resource.plural != "nodes" && resource.plural != "servicecidrs" {
        object["status"] = json!({});
    }
}

/// What the pod's containers ask for decides which pods are evicted first.
fn qos_class(pod: &Value) -> &'static str {
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let of = |container: &Value, kind: &str| container["resources"].get(kind).filter(|map| map["cpu"] != "0").cloned();
    let asks = |container: &Value| ["requests", "limits"].into_iter().any(|kind| of(container, kind).is_some());
    let guaranteed = |container: &Value| {
        let limits = &container["resources"]["limits"];
        let requests = container["resources"].get("requests").unwrap_or(limits);
        !text(limits, "/cpu").is_empty() && !text(limits, "/memory").is_empty() && requests == limits
    };
    if !containers.iter().any(asks) {
        "BestEffort"
    } else if containers.iter().all(guaranteed) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

#[cfg(test)]
mod tests;
