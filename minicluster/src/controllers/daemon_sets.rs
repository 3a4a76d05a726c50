//! DaemonSets: one pod on each node that fits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::pods::{self, Rounded, count, counts, share};
use super::scheduler::{may_come, may_stay};
use super::wanted::Wanted;
use super::world::World;
use crate::events::{Note, Severity};
use crate::names;
use crate::object::{self, entries, items, text};
use crate::resource::{DAEMON_SETS, NODES};
use crate::strategy::Deletion;
use crate::time::Time;

const COMPONENT: &str = "daemonset-controller";
const REVISION: &str = "controller-revision-hash";

/// What DaemonSets want.
pub fn wanted(world: &World, now: Time, wanted: &mut Wanted) {
    for set in world.list(&DAEMON_SETS) {
        let view = View::of(world, set, wanted);
        if !object::is_going(set) {
            place(world, &view, wanted);
            update(&view, now, wanted);
        }
        status(&view, now, wanted);
    }
}

/// A DaemonSet and its pods by the nodes that they are for.
struct View<'a> {
    set: &'a Arc<Value>,
    revision: String,
    /// Nodes that should have one.
    nodes: BTreeSet<&'a str>,
    /// Nodes that may keep one.
    kept: BTreeSet<&'a str>,
    pods: BTreeMap<&'a str, Vec<&'a Arc<Value>>>,
}

impl<'a> View<'a> {
    fn of(world: &'a World, set: &'a Arc<Value>, wanted: &mut Wanted) -> View<'a> {
        let mut pods: BTreeMap<&str, Vec<&Arc<Value>>> = BTreeMap::new();
        for pod in pods::claim(world, set, wanted) {
            pods.entry(node_of(pod)).or_default().push(pod);
        }
        let template = with_tolerations(json!({"spec": set["spec"]["template"]["spec"]}));
        let names = |fits: fn(&Value, &Value) -> bool| {
            world.list(&NODES).filter(|node| fits(&template, node)).map(|node| object::name(node)).collect()
        };
        let revision = names::template_hash(&set["spec"]["template"], 0);
        View { set, revision, nodes: names(may_come), kept: names(may_stay), pods }
    }

    /// Pods for a node that count.
    fn active(&self, node: &str) -> impl Iterator<Item = &'a Arc<Value>> {
        self.pods.get(node).into_iter().flatten().copied().filter(|pod| pods::is_active(pod))
    }

    fn is_current(&self, pod: &Value) -> bool {
        object::label(pod, REVISION) == Some(&self.revision)
    }
}

/// The node that a pod is on or for.
fn node_of(pod: &Value) -> &str {
    match text(pod, "/spec/nodeName") {
        "" => text(pod, &format!("{AFFINITY}/0/matchFields/0/values/0")),
        node => node,
    }
}

const AFFINITY: &str = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";

/// A daemon stays on nodes that are not well.
fn with_tolerations(mut template: Value) -> Value {
    let of_host = object::says(&template, "/spec/hostNetwork");
    let tolerations = items(&mut template, "/spec/tolerations");
    let pairs = [("not-ready", "NoExecute"), ("unreachable", "NoExecute"), ("disk-pressure", "NoSchedule")];
    let more = [("memory-pressure", "NoSchedule"), ("pid-pressure", "NoSchedule"), ("unschedulable", "NoSchedule")];
    let network = [("network-unavailable", "NoSchedule")];
    for (key, effect) in pairs.into_iter().chain(more).chain(network.into_iter().filter(|_| of_host)) {
        tolerations.push(json!({"key": format!("node.kubernetes.io/{key}"), "operator": "Exists", "effect": effect}));
    }
    template
}

/// Makes what is missing and deletes what is too much.
fn place(world: &World, view: &View<'_>, wanted: &mut Wanted) {
    let mut index = 0;
    for node in &view.nodes {
        let of_node = || view.pods.get(node).into_iter().flatten();
        for pod in of_node().filter(|pod| text(pod, "/status/phase") == "Failed") {
            wanted.delete(pod, Deletion::default());
        }
        let mut active: Vec<_> = view.active(node).collect();
        if active.is_empty() && of_node().all(|pod| pods::is_over(pod)) {
            create(world, view, node, index, wanted);
            index += 1;
        }
        pods::by_worth(&mut active);
        for pod in active.iter().rev().skip(1) {
            delete(view, pod, wanted);
        }
    }
    let elsewhere = view.pods.iter().filter(|(node, _)| !view.kept.contains(*node));
    for pod in elsewhere.flat_map(|(_, pods)| pods) {
        delete(view, pod, wanted);
    }
}

/// Replaces pods of earlier templates: those that do not serve at once, of the others as many as may be away.
fn update(view: &View<'_>, now: Time, wanted: &mut Wanted) {
    if text(view.set, "/spec/updateStrategy/type") != "RollingUpdate" {
        return;
    }
    let desired = i64::try_from(view.nodes.len()).unwrap_or(i64::MAX);
    let most = view.set.pointer("/spec/updateStrategy/rollingUpdate/maxUnavailable");
    let most = share(most, desired, Rounded::Up).max(1);
    let min_ready = count(view.set, "/spec/minReadySeconds");
    let mut old = Vec::new();
    let mut available = 0;
    for node in &view.nodes {
        for pod in view.active(node) {
            let serves = pods::is_available(pod, min_ready, now, wanted);
            available += i64::from(serves);
            match (view.is_current(pod), serves) {
                (true, _) => (),
                (false, true) => old.push(pod),
                (false, false) => delete(view, pod, wanted),
            }
        }
    }
    let may_go = usize::try_from(most - (desired - available)).unwrap_or(0);
    for pod in old.into_iter().take(may_go) {
        delete(view, pod, wanted);
    }
}

fn create(world: &World, view: &View<'_>, node: &str, index: usize, wanted: &mut Wanted) {
    let (key, mut pod) = pods::of_template_with_suffix(world, view.set, index);
    let spec = with_tolerations(json!({"spec": pod["spec"]}));
    pod["spec"] = spec["spec"].clone();
    let this_node = json!([{"key": "metadata.name", "operator": "In", "values": [node]}]);
    let required = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution";
    let terms = items(entries_of(&mut pod, required), "/nodeSelectorTerms");
    if terms.is_empty() {
        terms.push(json!({}));
    }
    for term in terms {
        entries(term, "").insert("matchFields".to_owned(), this_node.clone());
    }
    let generation = object::annotation(view.set, "deprecated.daemonset.template.generation");
    let labels = entries(&mut pod, "/metadata/labels");
    labels.insert(REVISION.to_owned(), json!(view.revision));
    labels.insert("pod-template-generation".to_owned(), json!(generation.unwrap_or("1")));
    if let Some(why) = pods::refusal(world, view.set, &pod) {
        let message = format!("Error creating: {why}");
        let note = Note::new(view.set, COMPONENT, Severity::Warning, "FailedCreate", message);
        let told = note.key();
        if world.get(told.resource, &told.namespace, &told.name).is_none() {
            wanted.note(note);
        }
        return;
    }
    let message = format!("Created pod: {}", key.name);
    wanted.note(Note::new(view.set, COMPONENT, Severity::Normal, "SuccessfulCreate", message));
    wanted.create(key, pod);
}

fn entries_of<'a>(object: &'a mut Value, path: &str) -> &'a mut Value {
    entries(object, path);
    object.pointer_mut(path).unwrap_or_else(|| unreachable!("it was made above"))
}

fn delete(view: &View<'_>, pod: &Value, wanted: &mut Wanted) {
    if !object::is_going(pod) {
        let message = format!("Deleted pod: {}", object::name(pod));
        wanted.note(Note::new(view.set, COMPONENT, Severity::Normal, "SuccessfulDelete", message));
        wanted.delete(pod, Deletion::default());
    }
}

fn status(view: &View<'_>, now: Time, wanted: &mut Wanted) {
    let set = view.set;
    let min_ready = count(set, "/spec/minReadySeconds");
    let (mut scheduled, mut ready, mut available, mut updated) = (0, 0, 0, 0);
    for node in &view.nodes {
        let Some(pod) = view.active(node).max_by_key(|pod| pods::is_ready(pod)) else { continue };
        scheduled += 1;
        ready += i64::from(pods::is_ready(pod));
        available += i64::from(pods::is_available(pod, min_ready, now, wanted));
        updated += i64::from(view.is_current(pod));
    }
    let elsewhere = view.pods.iter().filter(|(node, _)| !view.nodes.contains(*node));
    let elsewhere = elsewhere.filter(|(_, pods)| pods.iter().any(|pod| pods::is_active(pod))).count();
    let desired = i64::try_from(view.nodes.len()).unwrap_or(i64::MAX);
    let counts = counts(
        &[
            ("currentNumberScheduled", scheduled),
            ("numberMisscheduled", i64::try_from(elsewhere).unwrap_or(i64::MAX)),
            ("desiredNumberScheduled", desired),
            ("numberReady", ready),
            ("observedGeneration", count(set, "/metadata/generation")),
            ("updatedNumberScheduled", updated),
            ("numberAvailable", available),
            ("numberUnavailable", desired - available),
        ],
        &["currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"],
    );
    wanted.change(set, |set| set["status"] = json!(counts));
}

#[cfg(test)]
mod tests;
