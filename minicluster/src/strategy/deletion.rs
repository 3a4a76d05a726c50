//! Deletion: at once, gracefully for pods, held by finalizers.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Part, Refusal, bump_generation};
use crate::object::{self, entries, number, text};
use crate::resource::{JOBS, NAMESPACES, PODS};
use crate::store::{Fate, Key, Store, StoreError};
use crate::time::Time;

/// What becomes of what an object owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// It goes after its owner.
    Background,
    /// It goes first.
    Foreground,
    /// It stays.
    Orphan,
}

impl Propagation {
    /// As the API names it.
    pub fn parse(text: &str) -> Option<Propagation> {
        match text {
            "Background" => Some(Propagation::Background),
            "Foreground" => Some(Propagation::Foreground),
            "Orphan" => Some(Propagation::Orphan),
            _ => None,
        }
    }
}

/// How to delete: the API's `DeleteOptions`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deletion {
    /// Seconds that a pod gets to end; its own period where none is given.
    pub grace: Option<i64>,
    /// What becomes of what it owns; in the background where none is given, except for Jobs, whose pods stay.
    pub propagation: Option<Propagation>,
    /// Only the object with that UID.
    pub uid: Option<String>,
    /// Only that version.
    pub version: Option<String>,
}

impl Deletion {
    /// At once.
    pub fn now(uid: &str) -> Deletion {
        Deletion { grace: Some(0), uid: Some(uid.to_owned()), ..Deletion::default() }
    }
}

/// Deletes an object, or marks it as going. Whoever is done with a going one (the kubelet with a pod, a controller with
/// its finalizer) deletes it again, or takes the finalizer away.
pub fn delete(store: &Store, key: &Key, how: &Deletion, now: Time) -> Result<(Arc<Value>, Fate), Refusal> {
    store.update_with(key, how.version.as_deref(), |object, _| {
        if how.uid.as_ref().is_some_and(|uid| uid != object::uid(object)) {
            return Err(Refusal::Store(StoreError::Conflict));
        }
        let before = object.clone();
        let grace = if key.resource == &PODS { pod_grace(object, how.grace) } else { 0 };
        hold(key, object, how);
        let held = !object::list(object, "/metadata/finalizers").is_empty();
        let held = held || !object::list(object, "/spec/finalizers").is_empty();
        if grace == 0 && !held {
            return Ok(Fate::Goes);
        }
        let metadata = entries(object, "/metadata");
        let shorter = metadata.get("deletionGracePeriodSeconds").and_then(Value::as_i64).is_none_or(|was| grace < was);
        if shorter {
            let wait = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
            metadata.insert("deletionTimestamp".to_owned(), json!(now.after(wait).rfc3339()));
            metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(grace));
        }
        if key.resource == &NAMESPACES {
            entries(object, "/status").insert("phase".to_owned(), json!("Terminating"));
        }
        bump_generation(key.resource, Part::All, &before, object);
        Ok(Fate::Stays)
    })
}

/// Finalizers that make the garbage collector settle what is owned.
fn hold(key: &Key, object: &mut Value, how: &Deletion) {
    let default = if key.resource == &JOBS { Propagation::Orphan } else { Propagation::Background };
    let finalizer = match how.propagation.unwrap_or(default) {
        Propagation::Background => return,
        Propagation::Foreground => "foregroundDeletion",
        Propagation::Orphan => "orphan",
    };
    if object::has_finalizer(object, finalizer) || key.resource == &NAMESPACES {
        return;
    }
    object::items(object, "/metadata/finalizers").push(json!(finalizer));
}

/// Seconds for a pod: none if nothing of it runs.
fn pod_grace(pod: &Value, asked: Option<i64>) -> i64 {
    let over = ["Succeeded", "Failed"].contains(&text(pod, "/status/phase"));
    if text(pod, "/spec/nodeName").is_empty() || over {
        return 0;
    }
    asked.or_else(|| number(pod, "/spec/terminationGracePeriodSeconds")).unwrap_or(30).max(0)
}

/// Whether a going object has no reason left to stay.
pub fn may_go(object: &Value) -> bool {
    object::is_going(object)
        && object::list(object, "/metadata/finalizers").is_empty()
        && object::list(object, "/spec/finalizers").is_empty()
        && number(object, "/metadata/deletionGracePeriodSeconds").unwrap_or(0) == 0
}
