//! One object, and lists.

use std::sync::Arc;

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::{Value, json};

use super::answer::{self, Answer};
use super::negotiation::Form;
use super::options::{ListOptions, Version};
use super::paging::{self, Ordered, Token};
use super::respond::Call;
use super::status::Status;
use super::table;
use crate::object;
use crate::store::Event;

/// One object.
pub fn get(call: &Call<'_>) -> Result<Answer, Status> {
    let name = &call.info.attributes.name;
    let object = call.shared.store.get(&call.key(name));
    let object = object.ok_or_else(|| Status::not_found(call.resource, name))?;
    Ok(call.show(200, &object))
}

/// A list, or a page of one.
pub fn list(call: &Call<'_>) -> Result<Answer, Status> {
    let options = ListOptions::read(&call.info.query, call.resource, false)?;
    let (token, wanted) = match &options.more {
        Some(more) => {
            let token = Token::decode(more)?;
            let revision = token.revision;
            (Some(token), revision)
        }
        None => (None, None),
    };
    let (now, objects) = call.shared.store.list(call.resource, namespace(call));
    let revision = match (wanted, options.version) {
        (Some(revision), _) => revision,
        (None, Version::Exactly(revision)) => revision,
        (None, Version::From(revision)) if revision > now => return Err(Status::too_large_version(revision, now)),
        (None, Version::Newest | Version::Any | Version::From(_)) => now,
    };
    if revision > now {
        return Err(Status::too_large_version(revision, now));
    }
    let mut all: Ordered = objects.into_iter().map(|object| (order(call, &object), object)).collect();
    if revision < now {
        match call.shared.store.since(call.resource, revision) {
            Ok(mut events) => {
                events.retain(|event| event.revision <= now);
                paging::rewind(&mut all, &events, |event| event_order(call, event));
            }
            Err(_) => {
                let Some(token) = token else {
                    return Err(Status::expired("The resourceVersion for the provided list is too old."));
                };
                let (status, more) = paging::expired(&token.start);
                let mut body = status.body();
                body["metadata"]["continue"] = json!(more);
                return Ok(answer::json(status.code, &body));
            }
        }
    }
    let start = token.map_or_else(String::new, |token| token.start);
    let page = paging::page(&all, &start, options.limit, |object| options.matches(object));
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    if let Some(next) = page.next {
        metadata["continue"] = json!(Token { revision: Some(revision), start: next }.encode());
        if options.takes_all() {
            metadata["remainingItemCount"] = json!(page.remaining);
        }
    }
    Ok(show(call, metadata, &page.items))
}

/// The namespace that a list is of; none: of all.
pub fn namespace<'a>(call: &'a Call<'_>) -> Option<&'a str> {
    let namespace = call.info.attributes.namespace.as_str();
    (call.resource.namespaced && !namespace.is_empty()).then_some(namespace)
}

/// What a list is ordered by.
fn order(call: &Call<'_>, object: &Value) -> String {
    if call.resource.namespaced && namespace(call).is_none() {
        format!("{}/{}", object::namespace(object), object::name(object))
    } else {
        object::name(object).to_owned()
    }
}

fn event_order(call: &Call<'_>, event: &Event) -> Option<String> {
    namespace(call).is_none_or(|namespace| namespace == event.key.namespace).then(|| order(call, &event.object))
}

/// A list in the form that was asked for.
pub fn show(call: &Call<'_>, metadata: Value, items: &[Arc<Value>]) -> Answer {
    let resource = call.resource;
    match call.form {
        Form::Object => {
            let items: Vec<Bare<'_>> = items.iter().map(|item| Bare(item)).collect();
            answer::json(
                200,
                &List { kind: format!("{}List", resource.kind), api_version: resource.api_version(), metadata, items },
            )
        }
        Form::Metadata => {
            let items: Vec<Value> = items.iter().map(|item| partial(item)).collect();
            let (kind, api_version) = ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned());
            answer::json(200, &List { kind, api_version, metadata, items })
        }
        Form::Table => {
            let now = call.shared.store.now();
            answer::json(200, &table::many(resource, metadata, items, &call.info.query, now))
        }
    }
}

/// An object's metadata alone.
pub fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct List<T> {
    kind: String,
    api_version: String,
    metadata: Value,
    items: Vec<T>,
}

/// An object inside a list, which says what its items are.
struct Bare<'a>(&'a Value);

impl Serialize for Bare<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(fields) = self.0.as_object() else { return self.0.serialize(serializer) };
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in fields {
            if key != "kind" && key != "apiVersion" {
                map.serialize_entry(key, value)?;
            }
        }
        map.end()
    }
}
