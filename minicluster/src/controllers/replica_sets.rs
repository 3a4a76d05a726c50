//! ReplicaSets: as many pods as wanted.

use std::sync::Arc;

use serde_json::{Value, json};

use super::conditions::{self, Condition};
use super::pods::{self, count, counts};
use super::wanted::Wanted;
use super::world::World;
use crate::events::{Note, Severity};
use crate::object;
use crate::resource::REPLICA_SETS;
use crate::selector;
use crate::strategy::Deletion;
use crate::time::Time;

/// Pods that are made at once; the rest follows when these exist.
const BURST: usize = 500;

/// What ReplicaSets want.
pub fn wanted(world: &World, now: Time, wanted: &mut Wanted) {
    for set in world.list(&REPLICA_SETS) {
        one(world, set, now, wanted);
    }
}

fn one(world: &World, set: &Arc<Value>, now: Time, wanted: &mut Wanted) {
    let mut active = pods::claim(world, set, wanted);
    active.retain(|pod| pods::is_active(pod));
    let refused = if object::is_going(set) { None } else { manage(world, set, &mut active.clone(), wanted) };
    let min_ready = count(set, "/spec/minReadySeconds");
    let template_labels = set.pointer("/spec/template/metadata/labels");
    let labelled = active.iter().filter(|pod| selector::matches_map(template_labels, &object::labels(pod))).count();
    let ready = active.iter().filter(|pod| pods::is_ready(pod)).count();
    let available = active.iter().filter(|pod| pods::is_available(pod, min_ready, now, wanted)).count();
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let counts = counts(
        &[
            ("replicas", number(active.len())),
            ("fullyLabeledReplicas", number(labelled)),
            ("readyReplicas", number(ready)),
            ("availableReplicas", number(available)),
            ("observedGeneration", count(set, "/metadata/generation")),
        ],
        &["replicas"],
    );
    let changed = wanted.change(set, |set| {
        let conditions = set.pointer("/status/conditions").cloned();
        set["status"] = json!(counts);
        if let Some(conditions) = conditions {
            set["status"]["conditions"] = conditions;
        }
        match &refused {
            Some(message) => {
                let failure = Condition { kind: "ReplicaFailure", holds: true, reason: "FailedCreate", message };
                conditions::set(set, failure, None, now);
            }
            None => conditions::remove(set, "ReplicaFailure"),
        }
        if object::list(set, "/status/conditions").is_empty() {
            object::entries(set, "/status").remove("conditions");
        }
    });
    if let Some(message) = refused.filter(|_| changed) {
        let message = format!("Error creating: {message}");
        wanted.note(Note::new(set, "replicaset-controller", Severity::Warning, "FailedCreate", message));
    }
}

/// Makes and deletes pods. Returns why none may be made.
fn manage(world: &World, set: &Arc<Value>, active: &mut [&Arc<Value>], wanted: &mut Wanted) -> Option<String> {
    let replicas = usize::try_from(count(set, "/spec/replicas")).unwrap_or(0);
    let note = |reason, message| Note::new(set, "replicaset-controller", Severity::Normal, reason, message);
    for index in 0..replicas.saturating_sub(active.len()).min(BURST) {
        let (key, pod) = pods::of_template_with_suffix(world, set, index);
        if let Some(why) = pods::refusal(world, set, &pod) {
            return Some(why);
        }
        wanted.note(note("SuccessfulCreate", format!("Created pod: {}", key.name)));
        wanted.create(key, pod);
    }
    let surplus = active.len().saturating_sub(replicas);
    if surplus > 0 {
        pods::by_worth(active);
    }
    for pod in active.iter().take(surplus) {
        wanted.note(note("SuccessfulDelete", format!("Deleted pod: {}", object::name(pod))));
        wanted.delete(pod, Deletion::default());
    }
    None
}
