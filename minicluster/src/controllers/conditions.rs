//! Conditions of a status.

use serde_json::{Value, json};

use crate::object::{items, list, text};
use crate::time::Time;

/// A condition as it should be.
#[derive(Clone, Copy, Debug)]
pub struct Condition<'a> {
    /// Its type, for example `Available`.
    pub kind: &'a str,
    /// Whether it holds.
    pub holds: bool,
    /// One word.
    pub reason: &'a str,
    /// A sentence.
    pub message: &'a str,
}

/// The condition of a type.
pub fn find<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    list(object, "/status/conditions").iter().find(|condition| text(condition, "/type") == kind)
}

/// Whether a condition holds.
pub fn holds(object: &Value, kind: &str) -> bool {
    find(object, kind).is_some_and(|condition| text(condition, "/status") == "True")
}

/// Sets a condition; its time of transition only if it changes sides. `updated` is the name of a time that goes with any
/// change, where the kind has one.
pub fn set(object: &mut Value, condition: Condition<'_>, updated: Option<&str>, now: Time) {
    let status = if condition.holds { "True" } else { "False" };
    let before = find(object, condition.kind).cloned();
    let before = before.as_ref();
    let is = |path: &str, value: &str| before.is_some_and(|before| text(before, path) == value);
    if is("/status", status) && is("/reason", condition.reason) && is("/message", condition.message) {
        return;
    }
    let kept = before.filter(|_| is("/status", status)).map(|before| before["lastTransitionTime"].clone());
    let mut after = json!({
        "type": condition.kind, "status": status,
        "lastTransitionTime": kept.unwrap_or_else(|| json!(now.rfc3339())),
    });
    if let Some(updated) = updated {
        after[updated] = json!(now.rfc3339());
    }
    for (field, value) in [("reason", condition.reason), ("message", condition.message)] {
        if !value.is_empty() {
            after[field] = json!(value);
        }
    }
    let conditions = items(object, "/status/conditions");
    match conditions.iter_mut().find(|known| text(known, "/type") == condition.kind) {
        Some(known) => *known = after,
        None => conditions.push(after),
    }
}

/// Takes a condition away.
pub fn remove(object: &mut Value, kind: &str) {
    if find(object, kind).is_some() {
        items(object, "/status/conditions").retain(|condition| text(condition, "/type") != kind);
    }
}
