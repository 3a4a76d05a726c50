//! Reading objects. What is missing or of another type reads as empty.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::resource::{self, Resource};
use crate::store::Key;

/// What is at a path like `/metadata/name`. Unlike `Value::pointer` it knows no escapes, for which that copies each part.
pub fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('/').skip(1).try_fold(object, |value, part| match value {
        Value::Object(entries) => entries.get(part),
        Value::Array(items) => items.get(part.parse::<usize>().ok()?),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    })
}

/// Text at a path.
pub fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or_default()
}

/// A number at a path.
pub fn number(object: &Value, path: &str) -> Option<i64> {
    at(object, path).and_then(Value::as_i64)
}

/// Whether it says `true` at a path.
pub fn says(object: &Value, path: &str) -> bool {
    at(object, path).and_then(Value::as_bool).unwrap_or_default()
}

/// The list at a path.
pub fn list<'a>(object: &'a Value, path: &str) -> &'a [Value] {
    at(object, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Its name.
pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// Its namespace, empty for what lives in none.
pub fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

/// Its UID.
pub fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

/// Its version.
pub fn version(object: &Value) -> &str {
    text(object, "/metadata/resourceVersion")
}

/// A label's value.
pub fn label<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    at(object, "/metadata/labels")?.get(name)?.as_str()
}

/// An annotation's value.
pub fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    at(object, "/metadata/annotations")?.get(name)?.as_str()
}

/// Labels that it has, of texts only.
pub fn labels(object: &Value) -> BTreeMap<&str, &str> {
    texts(at(object, "/metadata/labels"))
}

/// A map of texts.
pub fn texts(map: Option<&Value>) -> BTreeMap<&str, &str> {
    let entries = map.and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?))).collect()
}

/// Whether it is to go.
pub fn is_going(object: &Value) -> bool {
    at(object, "/metadata/deletionTimestamp").is_some_and(Value::is_string)
}

/// Whether a finalizer holds it.
pub fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    list(object, "/metadata/finalizers").iter().any(|held| held == finalizer)
}

/// The owner reference that controls it.
pub fn controller(object: &Value) -> Option<&Value> {
    list(object, "/metadata/ownerReferences").iter().find(|owner| says(owner, "/controller"))
}

/// Whether the object with that UID controls it.
pub fn is_controlled_by(object: &Value, owner: &str) -> bool {
    controller(object).is_some_and(|reference| text(reference, "/uid") == owner)
}

/// A reference to an object, as what it controls carries it.
pub fn controller_reference(owner: &Value) -> Value {
    json!({
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": name(owner), "uid": uid(owner),
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// A reference to an object, as events carry it.
pub fn reference(object: &Value) -> Value {
    let mut reference = json!({
        "apiVersion": object["apiVersion"], "kind": object["kind"], "name": name(object), "uid": uid(object),
        "resourceVersion": version(object),
    });
    if !namespace(object).is_empty() {
        reference["namespace"] = json!(namespace(object));
    }
    reference
}

/// Which kind it is of.
pub fn resource(object: &Value) -> Option<&'static Resource> {
    kind(text(object, "/apiVersion"), text(object, "/kind"))
}

/// The kind with those names.
pub fn kind(api_version: &str, kind: &str) -> Option<&'static Resource> {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    resource::ALL.into_iter().find(|resource| resource.group == group && resource.kind == kind)
}

/// Its name in the store.
pub fn key(object: &Value) -> Option<Key> {
    Some(Key::new(resource(object)?, namespace(object), name(object)))
}

/// The entries at a path; makes the path where it is missing or something else.
pub fn entries<'a>(object: &'a mut Value, path: &str) -> &'a mut Map<String, Value> {
    let mut at = object;
    for part in path.split('/').skip(1) {
        at = force(at).entry(part).or_insert(Value::Null);
    }
    force(at)
}

/// The items at a path; makes the path where it is missing or something else.
pub fn items<'a>(object: &'a mut Value, path: &str) -> &'a mut Vec<Value> {
    let (parent, last) = path.rsplit_once('/').unwrap_or(("", path));
    let value = entries(object, parent).entry(last).or_insert(Value::Null);
    if !value.is_array() {
        *value = Value::Array(Vec::new());
    }
    let Value::Array(items) = value else { unreachable!("it was made a list above") };
    items
}

fn force(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let Value::Object(map) = value else { unreachable!("it was made an object above") };
    map
}

/// The items at a path, with their places.
pub fn items_of<'a>(object: &'a Value, path: &str) -> impl Iterator<Item = (usize, &'a Value)> {
    list(object, path).iter().enumerate()
}
