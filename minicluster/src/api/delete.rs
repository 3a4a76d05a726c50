//! Objects are deleted, one or many.

use std::sync::Arc;

use serde_json::{Value, json};

use super::answer::{self, Answer};
use super::invalid::FieldError;
use super::options::ListOptions;
use super::respond::Call;
use super::status::{self, Status};
use super::{read, write};
use crate::object::{self, number, text};
use crate::resource::{JOBS, PODS, Resource, SERVICES};
use crate::store::{Fate, Key, StoreError};
use crate::strategy::{self, Deletion, Propagation, Refusal};

/// How often a deletion is tried that others are in the way of.
const TRIES: usize = 8;

/// `DELETE` of one object.
pub fn one(call: &Call<'_>, body: &[u8]) -> Result<Answer, Status> {
    let how = options(call, body)?;
    let name = &call.info.attributes.name;
    let (object, fate) = delete(call, &call.key(name), &how)?;
    let object_itself = fate == Fate::Stays || returns_object(call.resource);
    let mut answer = if call.resource == &PODS && fate == Fate::Goes {
        // It had no time left.
        let mut last = Value::clone(&object);
        last["metadata"]["deletionGracePeriodSeconds"] = json!(0);
        call.show(200, &last)
    } else if object_itself {
        call.show(200, &object)
    } else {
        answer::json(200, &status::success(call.resource, name, Some(object::uid(&object))))
    };
    if call.resource == &JOBS && how.propagation.is_none() {
        let text = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove \
                    them or set propagationPolicy=Orphan to suppress this warning";
        answer::warn(&mut answer, text);
    }
    Ok(answer)
}

/// `DELETE` of all that are selected; answers with them as they were.
pub fn collection(call: &Call<'_>, body: &[u8]) -> Result<Answer, Status> {
    let how = options(call, body)?;
    let wanted = ListOptions::read(&call.info.query, call.resource, false)?;
    let (revision, objects) = call.shared.store.list(call.resource, read::namespace(call));
    let chosen: Vec<Arc<Value>> = objects.into_iter().filter(|object| wanted.matches(object)).collect();
    for object in &chosen {
        let key = Key::new(call.resource, object::namespace(object), object::name(object));
        match delete(call, &key, &how) {
            Err(status) if status.code != 404 => return Err(status),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(read::show(call, json!({"resourceVersion": revision.to_string()}), &chosen))
}

fn delete(call: &Call<'_>, key: &Key, how: &Deletion) -> Result<(Arc<Value>, Fate), Status> {
    let (resource, name) = (call.resource, key.name.as_str());
    for _ in 0..TRIES {
        let object = call.shared.store.get(key).ok_or_else(|| Status::not_found(resource, name))?;
        precondition(resource, name, how, &object)?;
        let scratch = write::dry_run(call)?.then(|| write::scratch(&call.shared.store, key));
        let store = scratch.as_ref().unwrap_or(&call.shared.store);
        // What was checked is what is deleted.
        let exactly = Deletion { uid: None, version: Some(object::version(&object).to_owned()), ..how.clone() };
        let exactly = if scratch.is_some() { Deletion { version: None, ..exactly } } else { exactly };
        match strategy::delete(store, key, &exactly, store.now()) {
            Err(Refusal::Store(StoreError::Conflict)) => {}
            done => return done.map_err(|refusal| write::refused(resource, name, refusal)),
        }
    }
    Err(Status::conflict(resource, name, "the object is changed all the time"))
}

fn precondition(resource: &Resource, name: &str, how: &Deletion, object: &Value) -> Result<(), Status> {
    // The kind stands where the resource stands elsewhere.
    let conflict = |why: String| Err(Status::conflict_of_kind(resource, name, &why));
    if let Some(uid) = how.uid.as_deref().filter(|uid| *uid != object::uid(object)) {
        let real = object::uid(object);
        return conflict(format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({real}). The object might have been \
             deleted and then recreated"
        ));
    }
    if let Some(version) = how.version.as_deref().filter(|version| *version != object::version(object)) {
        let real = object::version(object);
        return conflict(format!(
            "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({real}). \
             The object might have been modified"
        ));
    }
    Ok(())
}

/// Kinds whose deletion is answered with the object even where it is gone.
fn returns_object(resource: &Resource) -> bool {
    resource == &PODS || resource == &SERVICES
}

/// The options of a deletion: of the body where there is one, else of the parameters.
fn options(call: &Call<'_>, body: &[u8]) -> Result<Deletion, Status> {
    let query = &call.info.query;
    let given: Value = if body.is_empty() {
        let grace = query.get("gracePeriodSeconds").map(|text| {
            let bad = |_| Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"));
            text.parse::<i64>().map_err(bad)
        });
        let orphan = query.get("orphanDependents").map(|_| query.flag("orphanDependents"));
        json!({
            "gracePeriodSeconds": grace.transpose()?, "propagationPolicy": query.get("propagationPolicy"),
            "orphanDependents": orphan,
        })
    } else {
        let bad = |error| Status::bad_request(format!("couldn't get version/kind; json parse error: {error}"));
        serde_json::from_slice(body).map_err(bad)?
    };
    let policy = given.get("propagationPolicy").and_then(Value::as_str);
    let orphan = given.get("orphanDependents").and_then(Value::as_bool);
    let propagation = match (policy, orphan) {
        (Some(policy), _) => Some(Propagation::parse(policy).ok_or_else(|| unknown_policy(policy))?),
        (None, Some(true)) => Some(Propagation::Orphan),
        (None, Some(false)) => Some(Propagation::Background),
        (None, None) => None,
    };
    let named = |path: &str| Some(text(&given, path)).filter(|text| !text.is_empty()).map(str::to_owned);
    Ok(Deletion {
        grace: number(&given, "/gracePeriodSeconds"),
        propagation,
        uid: named("/preconditions/uid"),
        version: named("/preconditions/resourceVersion"),
    })
}

fn unknown_policy(policy: &str) -> Status {
    let error =
        FieldError::not_supported("propagationPolicy", json!(policy), &["Foreground", "Background", "Orphan", "nil"]);
    Status::invalid("meta.k8s.io", "DeleteOptions", "", &[error])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{EVENTS, NODES};

    #[test]
    fn few_kinds_show_what_is_gone() {
        assert!(returns_object(&PODS) && !returns_object(&EVENTS) && !returns_object(&NODES));
    }
}
