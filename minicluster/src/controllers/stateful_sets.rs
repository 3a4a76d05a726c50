//! StatefulSets: pods with numbers, whose names stay.
//!
//! Old templates are not kept (there are no ControllerRevisions): what is made is made of today's template, also below a
//! `partition`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::pods::{self, count, counts};
use super::wanted::Wanted;
use super::world::World;
use crate::events::{Note, Severity};
use crate::names;
use crate::object::{self, entries, text};
use crate::resource::{PODS, STATEFUL_SETS};
use crate::strategy::{self, Deletion};
use crate::time::Time;

const COMPONENT: &str = "statefulset-controller";
const REVISION: &str = "controller-revision-hash";

/// What StatefulSets want.
pub fn wanted(world: &World, now: Time, wanted: &mut Wanted) {
    for set in world.list(&STATEFUL_SETS) {
        let view = View::of(world, set, wanted);
        let refused = if object::is_going(set) { None } else { manage(world, &view, wanted) };
        status(&view, now, wanted);
        if let Some(message) = refused {
            let note = Note::new(set, COMPONENT, Severity::Warning, "FailedCreate", message);
            // Told once: nothing else changes that would end it.
            let key = note.key();
            if world.get(key.resource, &key.namespace, &key.name).is_none() {
                wanted.note(note);
            }
        }
    }
}

/// A StatefulSet and its pods by their numbers.
struct View<'a> {
    set: &'a Arc<Value>,
    revision: String,
    first: i64,
    replicas: i64,
    pods: BTreeMap<i64, &'a Arc<Value>>,
}

impl<'a> View<'a> {
    fn of(world: &'a World, set: &'a Arc<Value>, wanted: &mut Wanted) -> View<'a> {
        let prefix = format!("{}-", object::name(set));
        let number = |pod: &Value| object::name(pod).strip_prefix(&prefix)?.parse::<i64>().ok();
        let pods = pods::claim(world, set, wanted);
        View {
            set,
            revision: format!("{prefix}{}", names::template_hash(&set["spec"]["template"], 0)),
            first: count(set, "/spec/ordinals/start"),
            replicas: count(set, "/spec/replicas"),
            pods: pods.into_iter().filter_map(|pod| Some((number(pod)?, pod))).collect(),
        }
    }

    fn wanted_numbers(&self) -> std::ops::Range<i64> {
        self.first..self.first.saturating_add(self.replicas)
    }

    fn is_current(&self, pod: &Value) -> bool {
        object::label(pod, REVISION) == Some(&self.revision)
    }
}

fn is_healthy(pod: &Value) -> bool {
    pods::is_ready(pod) && text(pod, "/status/phase") == "Running" && !object::is_going(pod)
}

/// The next step. Returns why a pod cannot be made.
fn manage(world: &World, view: &View<'_>, wanted: &mut Wanted) -> Option<String> {
    let in_order = text(view.set, "/spec/podManagementPolicy") != "Parallel";
    for number in view.wanted_numbers() {
        match view.pods.get(&number) {
            None => {
                if let Some(why) = create(world, view, number, wanted) {
                    return Some(why);
                }
                if in_order {
                    return None;
                }
            }
            Some(pod) if pods::is_over(pod) => {
                delete(view, pod, wanted);
                if in_order {
                    return None;
                }
            }
            Some(pod) if in_order && !is_healthy(pod) => return None,
            Some(_) => (),
        }
    }
    let condemned = view.pods.iter().rev().filter(|(number, _)| !view.wanted_numbers().contains(number));
    for (_, pod) in condemned {
        delete(view, pod, wanted);
        if in_order {
            return None;
        }
    }
    if text(view.set, "/spec/updateStrategy/type") == "RollingUpdate" {
        update(view, wanted);
    }
    None
}

/// Replaces pods of earlier templates, from the highest number down, each when those before it are well.
fn update(view: &View<'_>, wanted: &mut Wanted) {
    let partition = count(view.set, "/spec/updateStrategy/rollingUpdate/partition");
    for number in view.wanted_numbers().rev().filter(|number| *number >= partition) {
        let Some(pod) = view.pods.get(&number) else { return };
        if !view.is_current(pod) {
            delete(view, pod, wanted);
            return;
        }
        if !is_healthy(pod) {
            return;
        }
    }
}

fn create(world: &World, view: &View<'_>, number: i64, wanted: &mut Wanted) -> Option<String> {
    let set = view.set;
    let name = format!("{}-{number}", object::name(set));
    let (key, mut pod) = pods::of_template(set, &name);
    let labels = entries(&mut pod, "/metadata/labels");
    labels.insert("statefulset.kubernetes.io/pod-name".to_owned(), json!(name));
    labels.insert("apps.kubernetes.io/pod-index".to_owned(), json!(number.to_string()));
    labels.insert(REVISION.to_owned(), json!(view.revision));
    pod["metadata"]["generateName"] = json!(format!("{}-", object::name(set)));
    pod["spec"]["hostname"] = json!(name);
    if let Some(service) =
        set["spec"].get("serviceName").filter(|name| name.as_str().is_some_and(|name| !name.is_empty()))
    {
        pod["spec"]["subdomain"] = service.clone();
    }
    let said = |why: &str| format!("create Pod {name} in StatefulSet {} failed error: {why}", object::name(set));
    if world.get(&PODS, &key.namespace, &name).is_some() {
        return Some(said(&format!("pods \"{name}\" already exists")));
    }
    if let Err(why) = strategy::admit(&key, &pod, world.objects()) {
        return Some(said(&why.to_string()));
    }
    let message = format!("create Pod {name} in StatefulSet {} successful", object::name(set));
    wanted.note(Note::new(set, COMPONENT, Severity::Normal, "SuccessfulCreate", message));
    wanted.create(key, pod);
    None
}

fn delete(view: &View<'_>, pod: &Value, wanted: &mut Wanted) {
    if !object::is_going(pod) {
        let (name, set) = (object::name(pod), object::name(view.set));
        let message = format!("delete Pod {name} in StatefulSet {set} successful");
        wanted.note(Note::new(view.set, COMPONENT, Severity::Normal, "SuccessfulDelete", message));
        wanted.delete(pod, Deletion::default());
    }
}

fn status(view: &View<'_>, now: Time, wanted: &mut Wanted) {
    let set = view.set;
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let all = || view.pods.values();
    let min_ready = count(set, "/spec/minReadySeconds");
    let ready = all().filter(|pod| is_healthy(pod)).count();
    let available = all().filter(|pod| is_healthy(pod) && pods::is_available(pod, min_ready, now, wanted)).count();
    let going = all().filter(|pod| object::is_going(pod)).count();
    let updated = all().filter(|pod| view.is_current(pod) && !object::is_going(pod)).count();
    let before = Some(text(set, "/status/currentRevision")).filter(|revision| !revision.is_empty());
    let before = before.unwrap_or(&view.revision);
    let over = number(updated) == view.replicas && ready == updated && all().count() == updated;
    let current_revision = if over { &*view.revision } else { before };
    let of_current = |pod: &&&Arc<Value>| object::label(pod, REVISION) == Some(current_revision);
    let current = all().filter(|pod| !object::is_going(pod)).filter(of_current).count();
    let mut status = counts(
        &[
            ("observedGeneration", count(set, "/metadata/generation")),
            ("replicas", number(all().count().saturating_sub(going))),
            ("readyReplicas", number(ready)),
            ("availableReplicas", number(available)),
            ("currentReplicas", number(current)),
            ("updatedReplicas", number(updated)),
            ("collisionCount", 0),
        ],
        &["replicas", "availableReplicas", "collisionCount"],
    );
    status.insert("currentRevision".to_owned(), json!(current_revision));
    status.insert("updateRevision".to_owned(), json!(view.revision));
    wanted.change(set, |set| set["status"] = json!(status));
}

#[cfg(test)]
mod tests;
