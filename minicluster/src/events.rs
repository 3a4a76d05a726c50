//! Events: what happened to an object, for people to read. The same thing again raises the count of the first.

use serde_json::{Value, json};

use crate::names;
use crate::object;
use crate::resource::EVENTS;
use crate::store::{Key, Store};
use crate::strategy;
use crate::time::Time;

/// Events that are kept; the oldest go first.
const KEPT: usize = 1000;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// As it should be.
    Normal,
    /// People should look.
    Warning,
}

/// Something that happened to an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// The object as events refer to it.
    pub about: Value,
    /// Who says so, for example `kubelet`.
    pub component: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// One word, for example `FailedScheduling`.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

impl Note {
    /// Something that happened to an object.
    pub fn new(
        object: &Value,
        component: &'static str,
        severity: Severity,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Note {
        Note { about: object::reference(object), component, severity, reason, message: message.into() }
    }

    /// The name of its event: one for each thing that can happen to an object.
    pub fn key(&self) -> Key {
        let name = object::text(&self.about, "/name");
        let uid = object::text(&self.about, "/uid");
        let hash = names::hash(&[uid, self.component, self.reason, &self.message]);
        let namespace = object::text(&self.about, "/namespace");
        let namespace = if namespace.is_empty() { "default" } else { namespace };
        Key::new(&EVENTS, namespace, format!("{name}.{hash:016x}"))
    }
}

/// Writes it down. What a namespace does not take is lost, as events are.
pub fn record(store: &Store, note: &Note, now: Time) {
    let key = note.key();
    let again = strategy::update(store, &key, None, strategy::Part::All, |event| {
        event["count"] = json!(object::number(event, "/count").unwrap_or(0) + 1);
        event["lastTimestamp"] = json!(now.rfc3339());
    });
    if again.is_ok() {
        return;
    }
    let severity = match note.severity {
        Severity::Normal => "Normal",
        Severity::Warning => "Warning",
    };
    let event = json!({
        "involvedObject": note.about, "reason": note.reason, "message": note.message, "type": severity,
        "source": {"component": note.component}, "reportingComponent": note.component, "reportingInstance": "",
        "firstTimestamp": now.rfc3339(), "lastTimestamp": now.rfc3339(), "eventTime": null, "count": 1,
    });
    if strategy::create(store, &key, event).is_ok() {
        forget_oldest(store);
    }
}

fn forget_oldest(store: &Store) {
    let (_, events) = store.list(&EVENTS, None);
    let surplus = events.len().saturating_sub(KEPT);
    let mut by_age: Vec<(u64, Key)> = events
        .iter()
        .filter(|_| surplus > 0)
        .filter_map(|event| Some((object::version(event).parse().ok()?, object::key(event)?)))
        .collect();
    by_age.sort();
    for (_, key) in by_age.into_iter().take(surplus) {
        // Somebody else may have removed it.
        let _ = store.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::NAMESPACES;

    #[test]
    fn what_happens_again_raises_the_count_and_the_oldest_are_forgotten() {
        let store = Store::new(|| "2026-01-01T00:00:00Z".to_owned());
        store.create(&Key::new(&NAMESPACES, "", "demo"), json!({})).unwrap();
        let pod =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "demo", "uid": "u"}});
        let note = |message: String| Note::new(&pod, "kubelet", Severity::Normal, "Started", message);
        for _ in 0..3 {
            record(&store, &note("Started container".to_owned()), Time::from_millis(0));
        }
        let (_, events) = store.list(&EVENTS, None);
        assert_eq!(events.len(), 1);
        assert_eq!((&events[0]["count"], &events[0]["involvedObject"]["name"]), (&json!(3), &json!("a")));
        for n in 0..KEPT {
            record(&store, &note(n.to_string()), Time::from_millis(0));
        }
        let (_, events) = store.list(&EVENTS, None);
        assert_eq!(events.len(), KEPT);
        assert!(events.iter().all(|event| event["count"] == 1), "the first was the oldest");
    }
}
