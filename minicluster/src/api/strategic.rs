//! Strategic merge patches: JSON merge patches that know which lists are maps in disguise. Pure.
//!
//! Kubernetes 1.34, `k8s.io/apimachinery/pkg/util/strategicpatch`; which lists those are, from the types' tags.

use serde_json::{Map, Value};

use crate::resource::{Resource, SERVICES};

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

/// How a list is merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Merge {
    /// Not at all: the patch's list replaces it.
    Atomic,
    /// As a set of texts.
    Set,
    /// Item by item, told apart by that field.
    By(&'static str),
}

/// Where in an object a map is: which kind of object, and in which field.
#[derive(Clone, Copy)]
struct Place<'a> {
    resource: &'a Resource,
    field: &'a str,
}

impl<'a> Place<'a> {
    fn inside(self, field: &'a str) -> Place<'a> {
        Place { field, ..self }
    }

    fn merge(self, list: &str) -> Merge {
        match list {
            "containers"
            | "initContainers"
            | "ephemeralContainers"
            | "env"
            | "volumes"
            | "imagePullSecrets"
            | "resourceClaims"
            | "resourceClaimStatuses"
            | "schedulingGates"
            | "secrets" => Merge::By("name"),
            "ports" if self.field.ends_with("ontainers") => Merge::By("containerPort"),
            "ports" if self.resource == &SERVICES && self.field == "spec" => Merge::By("port"),
            "conditions" | "addresses" if self.field == "status" => Merge::By("type"),
            "volumeMounts" => Merge::By("mountPath"),
            "volumeDevices" => Merge::By("devicePath"),
            "hostAliases" | "podIPs" | "hostIPs" => Merge::By("ip"),
            "topologySpreadConstraints" => Merge::By("topologyKey"),
            "ownerReferences" => Merge::By("uid"),
            "finalizers" | "podCIDRs" => Merge::Set,
            _ => Merge::Atomic,
        }
    }
}

/// Applies a patch.
///
/// # Errors
/// What a real API server says of it.
pub fn apply(resource: &Resource, object: &mut Value, patch: Value) -> Result<(), String> {
    let Value::Object(patch) = patch else { return Err("the patch is not an object".to_owned()) };
    let Value::Object(map) = object else { return Err("the object is not an object".to_owned()) };
    merge_map(Place { resource, field: "" }, map, patch)
}

fn merge_map(place: Place<'_>, map: &mut Map<String, Value>, mut patch: Map<String, Value>) -> Result<(), String> {
    match patch.remove(DIRECTIVE) {
        None => {}
        Some(directive) if directive == "replace" => {
            *map = patch;
            return Ok(());
        }
        Some(directive) if directive == "delete" => {
            map.clear();
            return Ok(());
        }
        Some(directive) => return Err(format!("Unknown patch type {directive} in map")),
    }
    if let Some(Value::Array(keys)) = patch.remove(RETAIN) {
        map.retain(|key, _| keys.iter().any(|kept| kept == key));
    }
    let orders: Vec<String> = patch.keys().filter(|key| key.starts_with(ORDER)).cloned().collect();
    for key in orders {
        let field = key.trim_start_matches(ORDER).to_owned();
        let Some(Value::Array(order)) = patch.remove(&key) else { continue };
        let change = patch.remove(&field);
        merge_ordered(place, map, &field, change, order)?;
    }
    for (key, change) in patch {
        if let Some(field) = key.strip_prefix(DELETE_FROM) {
            if let (Some(Value::Array(list)), Value::Array(gone)) = (map.get_mut(field), change) {
                list.retain(|item| !gone.contains(item));
            }
        } else {
            merge_field(place, map, key, change)?;
        }
    }
    Ok(())
}

fn merge_field(place: Place<'_>, map: &mut Map<String, Value>, key: String, change: Value) -> Result<(), String> {
    if change.is_null() {
        map.remove(&key);
        return Ok(());
    }
    match (map.get_mut(&key), change) {
        (Some(Value::Object(inner)), Value::Object(change)) => merge_map(place.inside(&key), inner, change),
        (Some(Value::Array(list)), Value::Array(change)) => {
            let before = std::mem::take(list);
            *list = merge_list(place, &key, before, change)?;
            Ok(())
        }
        (_, mut change) => {
            if clean(&mut change) {
                map.insert(key, change);
            } else {
                map.remove(&key);
            }
            Ok(())
        }
    }
}

/// Merges a list whose order the patch tells.
fn merge_ordered(
    place: Place<'_>,
    map: &mut Map<String, Value>,
    field: &str,
    change: Option<Value>,
    order: Vec<Value>,
) -> Result<(), String> {
    let before = match map.get(field) {
        Some(Value::Array(list)) => Some(list.clone()),
        Some(_) | None => None,
    };
    let merged = match (before.clone(), change) {
        (None, None) => return Ok(()),
        (Some(list), Some(Value::Array(change))) => merge_list(place, field, list, change)?,
        (None, Some(mut change)) => {
            clean(&mut change);
            let Value::Array(list) = change else { return Ok(()) };
            list
        }
        (Some(list), _) => list,
    };
    let sorted = sort(place.merge(field), merged, &order, before.as_deref().unwrap_or_default());
    map.insert(field.to_owned(), Value::Array(sorted));
    Ok(())
}

fn merge_list(place: Place<'_>, field: &str, before: Vec<Value>, change: Vec<Value>) -> Result<Vec<Value>, String> {
    match place.merge(field) {
        Merge::Atomic => Ok(change),
        Merge::Set => {
            let mut merged = before.clone();
            merged.extend(change.iter().filter(|item| !before.contains(item)).cloned());
            Ok(sort(Merge::Set, merged, &change, &before))
        }
        Merge::By(key) => merge_by(place, field, key, before, change),
    }
}

fn merge_by(
    place: Place<'_>,
    field: &str,
    key: &'static str,
    mut before: Vec<Value>,
    change: Vec<Value>,
) -> Result<Vec<Value>, String> {
    let no_key = |item: &Value| format!("map: {} does not contain declared merge key: {key}", as_go(item));
    let (mut plain, mut replace) = (Vec::new(), false);
    for item in change {
        match item.get(DIRECTIVE).and_then(Value::as_str) {
            None => plain.push(item),
            Some("replace") => replace = true,
            Some("delete") => {
                let gone = item.get(key).ok_or_else(|| no_key(&item))?;
                before.retain(|one| one.get(key) != Some(gone));
            }
            Some(other) => return Err(format!("Unknown patch type {other:?} in list")),
        }
    }
    if replace {
        return Ok(plain);
    }
    let order = plain.clone();
    let mut merged = before.clone();
    for mut item in plain {
        let id = item.get(key).cloned().ok_or_else(|| no_key(&item))?;
        match (merged.iter_mut().find(|one| one.get(key) == Some(&id)), item) {
            (Some(Value::Object(one)), Value::Object(change)) => merge_map(place.inside(field), one, change)?,
            (_, new) => {
                item = new;
                clean(&mut item);
                merged.push(item);
            }
        }
    }
    Ok(sort(Merge::By(key), merged, &order, &before))
}

/// Puts what the patch names into its order, and the rest between by the order it had; what is new comes first.
fn sort(how: Merge, merged: Vec<Value>, order: &[Value], before: &[Value]) -> Vec<Value> {
    let at = |list: &[Value], item: &Value| {
        list.iter().position(|one| match how {
            Merge::By(key) => one.get(key).is_some() && one.get(key) == item.get(key),
            Merge::Set | Merge::Atomic => one == item,
        })
    };
    let (mut named, rest): (Vec<Value>, Vec<Value>) = merged.into_iter().partition(|item| at(order, item).is_some());
    named.sort_by_key(|item| at(order, item));
    let (mut named, mut rest) = (named.into_iter().peekable(), rest.into_iter().peekable());
    let mut all = Vec::new();
    while let (Some(new), Some(old)) = (named.peek(), rest.peek()) {
        let earlier = at(before, old).zip(at(before, new)).is_some_and(|(old, new)| old < new);
        all.extend(if earlier { rest.next() } else { named.next() });
    }
    all.extend(named);
    all.extend(rest);
    all
}

/// A value as Go prints it.
fn as_go(value: &Value) -> String {
    let joined = |parts: Vec<String>| parts.join(" ");
    match value {
        Value::Object(map) => {
            format!("map[{}]", joined(map.iter().map(|(key, value)| format!("{key}:{}", as_go(value))).collect()))
        }
        Value::Array(list) => format!("[{}]", joined(list.iter().map(as_go).collect())),
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// Takes directives and nulls out of what is new; `false` when nothing is left of it.
fn clean(value: &mut Value) -> bool {
    match value {
        Value::Object(map) => {
            if let Some(directive) = map.remove(DIRECTIVE)
                && directive == "delete"
            {
                return false;
            }
            map.retain(|key, value| {
                let directive = key == RETAIN || key.starts_with(ORDER) || key.starts_with(DELETE_FROM);
                !directive && !value.is_null() && clean(value)
            });
        }
        Value::Array(list) => list.retain_mut(clean),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::{DEPLOYMENTS, PODS};

    fn patched(resource: &Resource, mut object: Value, patch: Value) -> Value {
        apply(resource, &mut object, patch).expect("it applies");
        object
    }

    #[test]
    fn an_ephemeral_container_is_added_and_the_others_stay() {
        let pod = json!({"spec": {"ephemeralContainers": [{"name": "a", "image": "x"}]}});
        let patch = json!({"spec": {"ephemeralContainers": [{"name": "b", "image": "y"}]}});
        let wanted = json!([{"name": "b", "image": "y"}, {"name": "a", "image": "x"}]);
        assert_eq!(patched(&PODS, pod, patch)["spec"]["ephemeralContainers"], wanted);
    }

    #[test]
    fn variables_are_told_apart_by_name() {
        let containers = json!([{"name": "web", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}]);
        let object = json!({"spec": {"template": {"spec": {"containers": containers}}}});
        let env = json!([{"name": "B", "value": "3"}, {"name": "A", "$patch": "delete"}, {"name": "C", "value": "4"}]);
        let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "web", "env": env}]}}}});
        let got = patched(&DEPLOYMENTS, object, patch);
        let wanted = json!([{"name": "B", "value": "3"}, {"name": "C", "value": "4"}]);
        assert_eq!(got["spec"]["template"]["spec"]["containers"][0]["env"], wanted);
    }

    #[test]
    fn ports_are_told_apart_by_what_they_belong_to() {
        let service = json!({"spec": {"ports": [{"port": 80, "name": "http"}]}});
        let got = patched(&SERVICES, service, json!({"spec": {"ports": [{"port": 80, "targetPort": 8080}]}}));
        assert_eq!(got["spec"]["ports"], json!([{"port": 80, "name": "http", "targetPort": 8080}]));
        let pod = json!({"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 1, "name": "x"}]}]}});
        let patch = json!({"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 2}]}]}});
        let wanted = json!([{"containerPort": 2}, {"containerPort": 1, "name": "x"}]);
        assert_eq!(patched(&PODS, pod, patch)["spec"]["containers"][0]["ports"], wanted);
    }

    #[test]
    fn null_deletes_and_other_lists_are_replaced() {
        let object = json!({"spec": {"a": 1, "args": ["x", "y"]}, "metadata": {"finalizers": ["f"]}});
        let patch = json!({"spec": {"a": null, "args": ["z"], "new": {"b": null}}, "metadata": {"finalizers": ["g"]}});
        let wanted = json!({"spec": {"args": ["z"], "new": {}}, "metadata": {"finalizers": ["g", "f"]}});
        assert_eq!(patched(&PODS, object, patch), wanted);
    }

    #[test]
    fn directives_order_retain_and_delete() {
        let object = json!({"spec": {
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
            "volumes": [{"name": "a"}, {"name": "b"}, {"name": "c"}],
        }});
        let patch = json!({"spec": {
            "strategy": {"$retainKeys": ["type"], "type": "Recreate"},
            "$setElementOrder/volumes": [{"name": "c"}, {"name": "a"}],
            "volumes": [{"name": "b", "$patch": "delete"}],
        }});
        let wanted = json!({"spec": {"strategy": {"type": "Recreate"}, "volumes": [{"name": "c"}, {"name": "a"}]}});
        assert_eq!(patched(&DEPLOYMENTS, object, patch), wanted);
        let object = json!({"metadata": {"finalizers": ["a", "b"]}});
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}});
        assert_eq!(patched(&PODS, object, patch), json!({"metadata": {"finalizers": ["b"]}}));
        let patch = json!({"spec": {"$patch": "replace", "x": 1}});
        assert_eq!(patched(&PODS, json!({"spec": {"y": 2}}), patch), json!({"spec": {"x": 1}}));
    }

    #[test]
    fn an_item_without_its_key_is_refused() {
        let mut pod = json!({"spec": {"containers": [{"name": "a"}]}});
        let error = apply(&PODS, &mut pod, json!({"spec": {"containers": [{"image": "x"}]}})).expect_err("no name");
        assert!(error.contains("does not contain declared merge key: name"), "{error}");
    }
}
