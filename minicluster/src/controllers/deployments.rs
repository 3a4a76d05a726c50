//! Deployments: a ReplicaSet for each template, and the way from one to the next.

mod rollout;
mod status;

use std::sync::Arc;

use serde_json::{Value, json};

use super::pods::count;
use super::wanted::Wanted;
use super::world::World;
use crate::events::{Note, Severity};
use crate::names;
use crate::object::{self, entries};
use crate::resource::{DEPLOYMENTS, REPLICA_SETS};
use crate::store::Key;
use crate::strategy::{self, Deletion};
use crate::time::Time;

const COMPONENT: &str = "deployment-controller";
const REVISION: &str = "deployment.kubernetes.io/revision";
const HASH: &str = "pod-template-hash";

/// What Deployments want.
pub fn wanted(world: &World, now: Time, wanted: &mut Wanted) {
    for deployment in world.list(&DEPLOYMENTS).filter(|deployment| !object::is_going(deployment)) {
        one(world, deployment, now, wanted);
    }
}

/// A Deployment and its ReplicaSets.
struct View<'a> {
    deployment: &'a Arc<Value>,
    /// The one of today's template.
    new: Option<&'a Arc<Value>>,
    /// The others, oldest first.
    old: Vec<&'a Arc<Value>>,
}

fn one(world: &World, deployment: &Arc<Value>, now: Time, wanted: &mut Wanted) {
    let mut sets: Vec<&Arc<Value>> =
        world.controlled(&REPLICA_SETS, deployment).filter(|set| !object::is_going(set)).collect();
    sets.sort_by_key(|set| (revision(set), object::name(set)));
    let template = &deployment["spec"]["template"];
    let new = sets.iter().position(|set| are_same(&set["spec"]["template"], template));
    let new = new.map(|index| sets.remove(index));
    let view = View { deployment, new, old: sets };
    let scale = rollout::scale(world, &view, now, wanted);
    let latest = view.old.iter().map(|set| revision(set)).max().unwrap_or(0);
    let own = view.new.map_or(0, |set| revision(set));
    let own = if own > latest { own } else { latest + 1 };
    let mut created = Created::Nothing;
    match (view.new, scale.new) {
        (Some(set), replicas) => resize(&view, set, replicas, Some(own), wanted),
        (None, Some(replicas)) => created = create(world, &view, template, replicas, own, wanted),
        (None, None) => (),
    }
    for (set, replicas) in scale.old {
        resize(&view, set, Some(replicas), None, wanted);
    }
    status::update(&view, &created, own, now, wanted);
    forget_old(&view, wanted);
}

/// What became of a ReplicaSet that was missing.
enum Created {
    Nothing,
    Named(String),
    /// Its name is taken.
    Collided,
    Refused(String),
}

fn create(
    world: &World,
    view: &View<'_>,
    template: &Value,
    replicas: i64,
    revision: i64,
    wanted: &mut Wanted,
) -> Created {
    let deployment = view.deployment;
    let hash = names::template_hash(template, count(deployment, "/status/collisionCount"));
    let name = format!("{}-{hash}", object::name(deployment));
    if world.get(&REPLICA_SETS, object::namespace(deployment), &name).is_some() {
        return Created::Collided;
    }
    let mut template = template.clone();
    entries(&mut template, "/metadata/labels").insert(HASH.to_owned(), json!(hash));
    let mut selector = deployment["spec"]["selector"].clone();
    entries(&mut selector, "/matchLabels").insert(HASH.to_owned(), json!(hash));
    let mut set = json!({
        "metadata": {
            "labels": template["metadata"]["labels"],
            "ownerReferences": [object::controller_reference(deployment)],
        },
        "spec": {"replicas": replicas, "selector": selector, "template": template},
    });
    if let Some(seconds) = deployment["spec"].get("minReadySeconds") {
        set["spec"]["minReadySeconds"] = seconds.clone();
    }
    annotate(view, &mut set, Some(revision));
    let key = Key::new(&REPLICA_SETS, object::namespace(deployment), &*name);
    if let Err(why) = strategy::admit(&key, &set, world.objects()) {
        return Created::Refused(why.to_string());
    }
    wanted.create(key, set);
    if replicas > 0 {
        wanted.note(scaled(deployment, &name, 0, replicas));
    }
    Created::Named(name)
}

/// Sets a ReplicaSet's replicas and the annotations that tell about the Deployment.
fn resize(view: &View<'_>, set: &Arc<Value>, replicas: Option<i64>, revision: Option<i64>, wanted: &mut Wanted) {
    let before = count(set, "/spec/replicas");
    let after = replicas.unwrap_or(before);
    wanted.change(set, |set| {
        set["spec"]["replicas"] = json!(after);
        if revision.is_some() {
            match view.deployment["spec"].get("minReadySeconds") {
                Some(seconds) => set["spec"]["minReadySeconds"] = seconds.clone(),
                None => drop(entries(set, "/spec").remove("minReadySeconds")),
            }
        }
        annotate(view, set, revision);
    });
    if before != after {
        wanted.note(scaled(view.deployment, object::name(set), before, after));
    }
}

fn annotate(view: &View<'_>, set: &mut Value, revision: Option<i64>) {
    let deployment = view.deployment;
    let replicas = count(deployment, "/spec/replicas");
    let copied = object::texts(deployment.pointer("/metadata/annotations"));
    let annotations = entries(set, "/metadata/annotations");
    if let Some(revision) = revision {
        let skipped = ["kubectl.kubernetes.io/last-applied-configuration", REVISION];
        for (name, value) in copied.into_iter().filter(|(name, _)| !skipped.contains(name)) {
            annotations.insert(name.to_owned(), json!(value));
        }
        let before = annotations.insert(REVISION.to_owned(), json!(revision.to_string()));
        let before = before.as_ref().and_then(Value::as_str).map(str::to_owned);
        if let Some(before) = before.filter(|before| *before != revision.to_string()) {
            let history = "deployment.kubernetes.io/revision-history";
            let earlier = annotations.get(history).and_then(Value::as_str).map(|earlier| format!("{earlier},"));
            annotations.insert(history.to_owned(), json!(format!("{}{before}", earlier.unwrap_or_default())));
        }
    }
    let most = replicas + rollout::max_surge(deployment);
    annotations.insert("deployment.kubernetes.io/desired-replicas".to_owned(), json!(replicas.to_string()));
    annotations.insert("deployment.kubernetes.io/max-replicas".to_owned(), json!(most.to_string()));
}

fn scaled(deployment: &Value, set: &str, before: i64, after: i64) -> Note {
    let way = if after > before { "up" } else { "down" };
    let message = format!("Scaled {way} replica set {set} from {before} to {after}");
    Note::new(deployment, COMPONENT, Severity::Normal, "ScalingReplicaSet", message)
}

/// Deletes ReplicaSets beyond the history that is kept, the oldest first, once the rollout is over.
fn forget_old(view: &View<'_>, wanted: &mut Wanted) {
    if !status::is_complete(view) {
        return;
    }
    let kept = usize::try_from(count(view.deployment, "/spec/revisionHistoryLimit")).unwrap_or(0);
    let unused = |set: &&&Arc<Value>| count(set, "/spec/replicas") == 0 && count(set, "/status/replicas") == 0;
    for set in view.old.iter().take(view.old.len().saturating_sub(kept)).filter(unused) {
        wanted.delete(set, Deletion::default());
    }
}

fn revision(set: &Value) -> i64 {
    object::annotation(set, REVISION).and_then(|revision| revision.parse().ok()).unwrap_or(0)
}

/// Whether two templates are the same but for the label that a ReplicaSet adds to its own.
fn are_same(one: &Value, other: &Value) -> bool {
    let metadata = |template: &Value| -> Vec<(String, Value)> {
        let all = template["metadata"].as_object().into_iter().flatten();
        all.filter(|(name, _)| *name != "labels").map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    let labels = |template: &Value| -> Vec<(String, String)> {
        let all = object::labels(template).into_iter().filter(|(name, _)| *name != HASH);
        all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    one["spec"] == other["spec"] && labels(one) == labels(other) && metadata(one) == metadata(other)
}

#[cfg(test)]
mod tests;
