//! The status of a Deployment.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{COMPONENT, Created, REVISION, View, rollout};
use crate::controllers::conditions::{self, Condition};
use crate::controllers::pods::{count, counts};
use crate::controllers::wanted::Wanted;
use crate::events::{Note, Severity};
use crate::object::{self, entries, says, text};
use crate::time::Time;

/// Whether all pods are of the newest template and available, and nothing else is there.
pub fn is_complete(view: &View<'_>) -> bool {
    let Some(new) = view.new else { return false };
    let replicas = count(view.deployment, "/spec/replicas");
    let all = sum(view, "/status/replicas");
    [count(new, "/status/replicas"), all, sum(view, "/status/availableReplicas")].iter().all(|count| *count == replicas)
        && count(new, "/spec/replicas") == replicas
}

fn sum(view: &View<'_>, path: &str) -> i64 {
    view.old.iter().chain(&view.new).map(|set| count(set, path)).sum()
}

/// Writes it.
pub fn update(view: &View<'_>, created: &Created, revision: i64, now: Time, wanted: &mut Wanted) {
    let deployment = view.deployment;
    let collisions = count(deployment, "/status/collisionCount") + i64::from(matches!(created, Created::Collided));
    let available = sum(view, "/status/availableReplicas");
    let counts = counts(
        &[
            ("observedGeneration", count(deployment, "/metadata/generation")),
            ("replicas", sum(view, "/status/replicas")),
            ("updatedReplicas", view.new.map_or(0, |set| count(set, "/status/replicas"))),
            ("readyReplicas", sum(view, "/status/readyReplicas")),
            ("availableReplicas", available),
            ("unavailableReplicas", (sum(view, "/spec/replicas") - available).max(0)),
            ("collisionCount", collisions),
        ],
        &[],
    );
    let mut timed_out = false;
    wanted_progress_deadline(deployment, now, wanted);
    let changed = wanted.change(deployment, |after| {
        let before = after["status"].clone();
        after["status"] = json!(counts);
        if let Some(conditions) = before.get("conditions") {
            after["status"]["conditions"] = conditions.clone();
        }
        if view.new.is_some() || matches!(created, Created::Named(_)) {
            let annotations = entries(after, "/metadata/annotations");
            annotations.insert(REVISION.to_owned(), json!(revision.to_string()));
        }
        let minimum = count(deployment, "/spec/replicas") - rollout::max_unavailable(deployment);
        set(after, availability(available >= minimum), now);
        timed_out = progress(view, created, &before, after, now);
        failures(view, created, after, now);
    });
    if changed && timed_out && !is(deployment, "ProgressDeadlineExceeded") {
        let name = text(view.new.map_or(&Value::Null, |set| set), "/metadata/name").to_owned();
        let message = format!("ReplicaSet \"{name}\" has timed out progressing.");
        wanted.note(Note::new(deployment, COMPONENT, Severity::Warning, "ProgressDeadlineExceeded", message));
    }
}

fn is(deployment: &Value, reason: &str) -> bool {
    conditions::find(deployment, "Progressing").is_some_and(|progressing| text(progressing, "/reason") == reason)
}

fn set(deployment: &mut Value, condition: Condition<'_>, now: Time) {
    conditions::set(deployment, condition, Some("lastUpdateTime"), now);
}

fn availability(holds: bool) -> Condition<'static> {
    if holds {
        let message = "Deployment has minimum availability.";
        Condition { kind: "Available", holds, reason: "MinimumReplicasAvailable", message }
    } else {
        let message = "Deployment does not have minimum availability.";
        Condition { kind: "Available", holds, reason: "MinimumReplicasUnavailable", message }
    }
}

/// Sets the condition `Progressing`; returns whether the rollout takes too long.
fn progress(view: &View<'_>, created: &Created, before: &Value, after: &mut Value, now: Time) -> bool {
    let condition = |holds, reason, message: String| (holds, reason, message);
    let name = view.new.map(|set| object::name(set));
    let (holds, reason, message) = match (created, name) {
        (Created::Named(name), _) => {
            condition(true, "NewReplicaSetCreated", format!("Created new replica set \"{name}\""))
        }
        (Created::Refused(why), _) => condition(false, "ReplicaSetCreateError", why.clone()),
        (Created::Nothing | Created::Collided, None) => return false,
        (Created::Nothing | Created::Collided, Some(name)) => {
            if is_complete(view) {
                let message = format!("ReplicaSet \"{name}\" has successfully progressed.");
                condition(true, "NewReplicaSetAvailable", message)
            } else if has_progressed(before, &after["status"]) || conditions::find(after, "Progressing").is_none() {
                condition(true, "ReplicaSetUpdated", format!("ReplicaSet \"{name}\" is progressing."))
            } else if says(view.deployment, "/spec/paused") {
                return false;
            } else if deadline(view.deployment).is_some_and(|deadline| deadline <= now) {
                let message = format!("ReplicaSet \"{name}\" has timed out progressing.");
                condition(false, "ProgressDeadlineExceeded", message)
            } else {
                return false;
            }
        }
    };
    set(after, Condition { kind: "Progressing", holds, reason, message: &message }, now);
    // Progress begins the time anew though nothing else about the condition changes.
    if reason == "ReplicaSetUpdated" {
        let list = object::items(after, "/status/conditions");
        for condition in list.iter_mut().filter(|condition| text(condition, "/type") == "Progressing") {
            condition["lastUpdateTime"] = json!(now.rfc3339());
        }
    }
    reason == "ProgressDeadlineExceeded"
}

fn has_progressed(before: &Value, after: &Value) -> bool {
    let grew = |field: &str| count(after, field) > count(before, field);
    let old = |status: &Value| count(status, "/replicas") - count(status, "/updatedReplicas");
    grew("/updatedReplicas") || grew("/readyReplicas") || grew("/availableReplicas") || old(after) < old(before)
}

/// When a rollout that goes on has taken too long.
fn deadline(deployment: &Value) -> Option<Time> {
    let seconds = u64::try_from(object::number(deployment, "/spec/progressDeadlineSeconds")?).ok()?;
    let progressing = conditions::find(deployment, "Progressing")?;
    if ["NewReplicaSetAvailable", "ProgressDeadlineExceeded"].contains(&text(progressing, "/reason")) {
        return None;
    }
    Some(Time::parse(text(progressing, "/lastUpdateTime"))?.after(Duration::from_secs(seconds)))
}

fn wanted_progress_deadline(deployment: &Value, now: Time, wanted: &mut Wanted) {
    if let Some(deadline) = deadline(deployment).filter(|deadline| *deadline > now) {
        wanted.again_at(deadline);
    }
}

/// What keeps pods from being made, as the ReplicaSet says.
fn failures(view: &View<'_>, created: &Created, after: &mut Value, now: Time) {
    let of_sets = view.new.into_iter().chain(view.old.iter().copied());
    let failure = of_sets.filter_map(|set: &Arc<Value>| conditions::find(set, "ReplicaFailure")).next();
    let message = match (created, failure) {
        (Created::Refused(why), _) => Some(why.as_str()),
        (_, Some(failure)) => Some(text(failure, "/message")),
        (_, None) => None,
    };
    match message {
        Some(message) => {
            set(after, Condition { kind: "ReplicaFailure", holds: true, reason: "FailedCreate", message }, now);
        }
        None => conditions::remove(after, "ReplicaFailure"),
    }
}
