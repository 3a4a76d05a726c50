//! Objects are made and changed.

use std::sync::Arc;

use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::{Value, json};

use super::answer::Answer;
use super::patch::{self, PatchKind};
use super::respond::Call;
use super::status::Status;
use super::validate;
use crate::object::{self, entries, text};
use crate::resource::{
    CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, EVENTS, NAMESPACES, ROLE_BINDINGS, ROLES, Resource, SERVICE_CIDRS, SERVICES,
};
use crate::store::{Fate, Key, Store, StoreError};
use crate::strategy::{self, Part, Refusal};

/// How often a change is tried that others are in the way of.
const TRIES: usize = 8;
/// What generated names end with.
const SUFFIX: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// `POST`.
pub fn create(call: &Call<'_>, body: &[u8]) -> Result<Answer, Status> {
    let object = parse(call.resource, body)?;
    let created = add(call, object)?;
    Ok(call.show(201, &created))
}

fn add(call: &Call<'_>, mut object: Value) -> Result<Arc<Value>, Status> {
    let resource = call.resource;
    place(call, &mut object)?;
    let generated = object::name(&object).is_empty() && !text(&object, "/metadata/generateName").is_empty();
    for tries in 1.. {
        if generated {
            let name = format!("{}{}", text(&object, "/metadata/generateName"), suffix());
            entries(&mut object, "/metadata").insert("name".to_owned(), json!(name));
        }
        let name = object::name(&object).to_owned();
        let errors = validate::create(resource, &object);
        if !errors.is_empty() {
            return Err(Status::invalid(resource.group, resource.kind, &name, &errors));
        }
        let (key, object) = (call.key(&name), object.clone());
        let created = match dry_run(call)? {
            false => strategy::create(&call.shared.store, &key, object),
            true => strategy::create(&scratch(&call.shared.store, &key), &key, object),
        };
        match created {
            Err(Refusal::Store(StoreError::AlreadyExists)) if generated && tries < TRIES => {}
            created => return created.map_err(|refusal| refused(resource, &name, refusal)),
        }
    }
    Err(Status::internal("no free name was found"))
}

/// `PUT`.
pub fn replace(call: &Call<'_>, body: &[u8]) -> Result<Answer, Status> {
    let object = parse(call.resource, body)?;
    let name = &call.info.attributes.name;
    if made_by_replacement(call.resource) && call.shared.store.get(&call.key(name)).is_none() {
        if object::name(&object) != name {
            return Err(wrong_name(object::name(&object), name));
        }
        return Ok(call.show(201, &*add(call, object)?));
    }
    let object = change(call, Part::Main, object, |_, new| Ok(new.clone()), validate::update)?;
    Ok(call.show(200, &object))
}

/// Kinds of which a `PUT` makes what is not there.
fn made_by_replacement(resource: &'static Resource) -> bool {
    [&SERVICES, &EVENTS, &ROLES, &ROLE_BINDINGS, &CLUSTER_ROLES, &CLUSTER_ROLE_BINDINGS].contains(&resource)
}

/// `PATCH`.
pub fn patch(call: &Call<'_>, media_type: &str, body: &[u8]) -> Result<Answer, Status> {
    let kind = PatchKind::of(media_type).ok_or_else(Status::no_such_patch)?;
    let name = &call.info.attributes.name;
    if kind == PatchKind::Apply && call.shared.store.get(&call.key(name)).is_none() {
        let created = add(call, parse(call.resource, body)?)?;
        return Ok(call.show(201, &created));
    }
    let object = change_by_patch(call, Part::Main, kind, body, |_, new| new, validate::update)?;
    Ok(call.show(200, &object))
}

/// Which faults a change has.
pub type Check = fn(&'static Resource, &Value, &Value) -> Vec<super::invalid::FieldError>;

/// Replaces an object, or the part of it that `take` takes of the new one.
pub fn change(
    call: &Call<'_>,
    part: Part,
    mut new: Value,
    take: impl Fn(&Value, &Value) -> Result<Value, Status>,
    check: Check,
) -> Result<Arc<Value>, Status> {
    let (resource, name) = (call.resource, call.info.attributes.name.as_str());
    place(call, &mut new)?;
    if object::name(&new) != name {
        return Err(wrong_name(object::name(&new), name));
    }
    let (uid, version) = (object::uid(&new), object::version(&new).to_owned());
    for _ in 0..TRIES {
        let before = call.shared.store.get(&call.key(name)).ok_or_else(|| Status::not_found(resource, name))?;
        if !uid.is_empty() && uid != object::uid(&before) {
            return Err(Status::conflict(resource, name, &wrong_uid(resource, uid, &before)));
        }
        if !version.is_empty() && version != object::version(&before) {
            return Err(Status::conflict(resource, name, MODIFIED));
        }
        if let Some(done) = store(call, part, &before, take(&before, &new)?, check)? {
            return Ok(done);
        }
    }
    Err(Status::conflict(resource, name, MODIFIED))
}

/// Patches an object, or the part of it that `take` takes of the patched one.
pub fn change_by_patch(
    call: &Call<'_>,
    part: Part,
    kind: PatchKind,
    body: &[u8],
    take: impl Fn(&Value, Value) -> Value,
    check: Check,
) -> Result<Arc<Value>, Status> {
    let (resource, name) = (call.resource, call.info.attributes.name.as_str());
    for _ in 0..TRIES {
        let before = call.shared.store.get(&call.key(name)).ok_or_else(|| Status::not_found(resource, name))?;
        let mut new = patch::apply(kind, resource, &before, body)?;
        prune(&mut new);
        if object::name(&new) != name {
            return Err(wrong_name(object::name(&new), name));
        }
        if object::version(&new) != object::version(&before) {
            return Err(Status::conflict(resource, name, MODIFIED));
        }
        if object::uid(&new) != object::uid(&before) {
            return Err(Status::conflict(resource, name, &wrong_uid(resource, object::uid(&new), &before)));
        }
        if let Some(done) = store(call, part, &before, take(&before, new), check)? {
            return Ok(done);
        }
    }
    Err(Status::conflict(resource, name, MODIFIED))
}

/// Stores a change of exactly this state; `None` when somebody else was faster.
fn store(call: &Call<'_>, part: Part, before: &Value, new: Value, check: Check) -> Result<Option<Arc<Value>>, Status> {
    let (resource, name) = (call.resource, call.info.attributes.name.as_str());
    let key = call.key(name);
    if part == Part::Main {
        let errors = check(resource, before, &new);
        if !errors.is_empty() {
            return Err(Status::invalid(resource.group, resource.kind, name, &errors));
        }
    }
    let dry = dry_run(call)?;
    let scratch = dry.then(|| scratch(&call.shared.store, &key));
    let store = scratch.as_ref().unwrap_or(&call.shared.store);
    // A scratch store counts its own versions.
    let version = (!dry).then(|| object::version(before));
    match strategy::update(store, &key, version, part, |object| *object = new) {
        Ok((object, Fate::Stays | Fate::Goes)) => Ok(Some(object)),
        Err(Refusal::Store(StoreError::Conflict)) => Ok(None),
        Err(refusal) => Err(refused(resource, name, refusal)),
    }
}

/// Why a change is refused that rests on an old version.
pub const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// In the words of the storage, which knows objects by their keys.
fn wrong_uid(resource: &Resource, uid: &str, before: &Value) -> String {
    let prefix = match resource.plural {
        "services" => "services/specs",
        "nodes" => "minions",
        plural => plural,
    };
    let place = [prefix, object::namespace(before), object::name(before)];
    let key: Vec<&str> = place.into_iter().filter(|part| !part.is_empty()).collect();
    format!(
        "StorageError: invalid object, Code: 4, Key: /registry/{}, ResourceVersion: 0, AdditionalErrorMsg: Precondition \
         failed: UID in precondition: {uid}, UID in object meta: {}",
        key.join("/"),
        object::uid(before)
    )
}

fn wrong_name(name: &str, url: &str) -> Status {
    Status::bad_request(format!("the name of the object ({name}) does not match the name on the URL ({url})"))
}

/// Whether nothing is to be stored.
///
/// # Errors
/// 422 for a value that is not known.
pub fn dry_run(call: &Call<'_>) -> Result<bool, Status> {
    match call.info.query.get("dryRun") {
        None => Ok(false),
        Some("All") => Ok(true),
        Some(other) => {
            let error = super::invalid::FieldError::not_supported("dryRun", json!([other]), &["All"]);
            Err(Status::invalid("meta.k8s.io", "CreateOptions", "", &[error]))
        }
    }
}

/// A store in which a change can be tried.
pub fn scratch(store: &Store, key: &Key) -> Store {
    let scratch = Store::new(crate::clock::rfc3339);
    let (_, objects) = store.objects();
    for (other, object) in objects {
        let needed = other == *key || [&NAMESPACES, &SERVICE_CIDRS, &SERVICES].contains(&other.resource);
        if needed {
            // The store is new, and names are told apart.
            drop(scratch.create(&other, Value::clone(&object)));
        }
    }
    scratch
}

/// The object of a body.
///
/// # Errors
/// 400 where it is none of that kind.
pub fn parse(resource: &Resource, body: &[u8]) -> Result<Value, Status> {
    let kind = resource.kind;
    let unreadable = |why: String| {
        Status::bad_request(format!("the object provided is unrecognized (must be of type {kind}): {why}"))
    };
    let mut object: Value = serde_json::from_slice(body)
        .map_err(|error| unreadable(format!("couldn't get version/kind; json parse error: {error}")))?;
    if !object.is_object() {
        return Err(unreadable("couldn't get version/kind; json parse error: json: cannot unmarshal".to_owned()));
    }
    let (mut version, wanted) = (text(&object, "/apiVersion").to_owned(), resource.api_version());
    let mut other = text(&object, "/kind");
    if version.is_empty() {
        version.clone_from(&wanted);
    }
    if other.is_empty() {
        other = kind;
    }
    if (&version, other) != (&wanted, kind) {
        let known = object::kind(&version, other).is_some();
        let short = version.rsplit('/').next().unwrap_or_default();
        let text = if known && other == kind {
            format!("the API version in the data ({version}) does not match the expected API version ({wanted})")
        } else if known {
            format!(
                "{other} in version {short:?} cannot be handled as a {kind}: converting ({short}.{other}) to ({kind})"
            )
        } else {
            format!(
                "{other} in version {short:?} cannot be handled as a {kind}: no kind {other:?} is registered for version \
                 {version:?} in scheme \"pkg/runtime/scheme.go:110\""
            )
        };
        return Err(Status::bad_request(text));
    }
    prune(&mut object);
    Ok(object)
}

/// Takes out what typed objects do not have: fields without a value, and maps of metadata without entries.
fn prune(value: &mut Value) {
    prune_nulls(value);
    let metadata = value.get_mut("metadata").and_then(Value::as_object_mut);
    if let Some(metadata) = metadata {
        metadata.remove("managedFields");
        metadata.retain(|_, value| *value != json!({}) && *value != json!([]) && *value != "");
    }
}

fn prune_nulls(value: &mut Value) {
    if let Some(map) = value.as_object_mut() {
        map.retain(|_, value| !value.is_null());
        map.values_mut().for_each(prune_nulls);
    } else if let Some(list) = value.as_array_mut() {
        list.iter_mut().for_each(prune_nulls);
    }
}

/// Puts an object into the namespace of the request.
fn place(call: &Call<'_>, object: &mut Value) -> Result<(), Status> {
    let namespace = if call.resource.namespaced { call.info.attributes.namespace.as_str() } else { "" };
    let own = object::namespace(object);
    if !own.is_empty() && own != namespace {
        let text = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Status::bad_request(text));
    }
    let metadata = entries(object, "/metadata");
    if namespace.is_empty() {
        metadata.remove("namespace");
    } else {
        metadata.insert("namespace".to_owned(), json!(namespace));
    }
    Ok(())
}

fn suffix() -> String {
    let mut bytes = [0; 5];
    // Without random numbers TLS would not work either.
    let _ = SystemRandom::new().fill(&mut bytes);
    bytes
        .iter()
        .filter_map(|byte| SUFFIX.get(usize::from(*byte) % SUFFIX.len()))
        .map(|byte| char::from(*byte))
        .collect()
}

/// A refusal of the cluster's rules as one of the API.
pub fn refused(resource: &Resource, name: &str, refusal: Refusal) -> Status {
    match refusal {
        Refusal::Store(StoreError::AlreadyExists) => Status::already_exists(resource, name),
        Refusal::Store(StoreError::NotFound) => Status::not_found(resource, name),
        Refusal::Store(StoreError::Conflict) => Status::conflict(resource, name, MODIFIED),
        Refusal::NoNamespace(namespace) => Status::not_found(&NAMESPACES, &namespace),
        Refusal::Invalid(message) => {
            let plain = Status::invalid(resource.group, resource.kind, name, &[]);
            Status { message, ..plain }
        }
        Refusal::Forbidden(message) => {
            let plain = Status::forbidden(resource.group, resource.plural, name, "");
            let mut details = plain.details.unwrap_or_default();
            let namespace = message.split(" namespace ").nth(1).and_then(|rest| rest.split(' ').next());
            if let Some(namespace) = namespace {
                let text = format!("namespace {namespace} is being terminated");
                details["causes"] =
                    json!([{"reason": "NamespaceTerminating", "message": text, "field": "metadata.namespace"}]);
            }
            Status { message, details: Some(details), ..plain }
        }
    }
}
