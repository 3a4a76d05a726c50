//! The scheduler: a node for each pod. Nodes that are ready, whose taints the pod tolerates and whose labels it wants;
//! among them the one with the fewest pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::conditions::{self, Condition};
use super::pods;
use super::wanted::Wanted;
use super::world::World;
use crate::events::{Note, Severity};
use crate::object::{self, list, says, text};
use crate::resource::{NODES, PODS};
use crate::selector;
use crate::time::Time;

const COMPONENT: &str = "default-scheduler";

/// What the scheduler wants.
pub fn wanted(world: &World, now: Time, wanted: &mut Wanted) {
    let mut load: BTreeMap<&str, (usize, BTreeMap<&str, usize>)> = BTreeMap::new();
    for pod in world.list(&PODS).filter(|pod| !pods::is_over(pod)) {
        let node = load.entry(text(pod, "/spec/nodeName")).or_default();
        node.0 += 1;
        *node.1.entry(owner(pod)).or_default() += 1;
    }
    let waiting = world.list(&PODS).filter(|pod| text(pod, "/spec/nodeName").is_empty() && pods::is_active(pod));
    for pod in waiting {
        let verdicts: Vec<_> = world.list(&NODES).map(|node| (node, verdict(pod, node))).collect();
        let fitting = verdicts.iter().filter(|(_, verdict)| verdict.is_none()).map(|(node, _)| object::name(node));
        let best = fitting.min_by_key(|name| {
            let node = load.get(name);
            // Those of the same owner spread first.
            (node.and_then(|node| node.1.get(owner(pod))).copied(), node.map_or(0, |node| node.0))
        });
        let Some(best) = best else {
            give_up(pod, &verdicts, now, wanted);
            continue;
        };
        let node = load.entry(best).or_default();
        node.0 += 1;
        *node.1.entry(owner(pod)).or_default() += 1;
        bind(pod, best, now, wanted);
    }
}

fn owner(pod: &Value) -> &str {
    object::controller(pod).map_or_else(|| object::uid(pod), |owner| text(owner, "/uid"))
}

fn bind(pod: &Arc<Value>, node: &str, now: Time, wanted: &mut Wanted) {
    wanted.change(pod, |pod| {
        pod["spec"]["nodeName"] = json!(node);
        let scheduled = Condition { kind: "PodScheduled", holds: true, reason: "", message: "" };
        conditions::set(pod, scheduled, None, now);
    });
    let message = format!("Successfully assigned {}/{} to {node}", object::namespace(pod), object::name(pod));
    wanted.note(Note::new(pod, COMPONENT, Severity::Normal, "Scheduled", message));
}

fn give_up(pod: &Arc<Value>, verdicts: &[(&Arc<Value>, Option<String>)], now: Time, wanted: &mut Wanted) {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in verdicts.iter().filter_map(|(_, verdict)| verdict.as_deref()) {
        *reasons.entry(reason).or_default() += 1;
    }
    let reasons: Vec<_> = reasons.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    let message = if verdicts.is_empty() {
        "no nodes available to schedule pods".to_owned()
    } else {
        format!("0/{} nodes are available: {}.", verdicts.len(), reasons.join(", "))
    };
    let changed = wanted.change(pod, |pod| {
        let unscheduled = Condition { kind: "PodScheduled", holds: false, reason: "Unschedulable", message: &message };
        conditions::set(pod, unscheduled, None, now);
    });
    if changed {
        wanted.note(Note::new(pod, COMPONENT, Severity::Warning, "FailedScheduling", message));
    }
}

/// Why the pod does not fit the node, if so.
fn verdict(pod: &Value, node: &Value) -> Option<String> {
    if let Some(taint) = untolerated(pod, node, &["NoSchedule", "NoExecute"]) {
        return Some(format!("node(s) had untolerated taint {{{}: {}}}", text(&taint, "/key"), text(&taint, "/value")));
    }
    (!selects(pod, node)).then(|| "node(s) didn't match Pod's node affinity/selector".to_owned())
}

/// Whether the pod, or a template of pods, may come to the node.
pub fn may_come(pod: &Value, node: &Value) -> bool {
    verdict(pod, node).is_none()
}

/// Whether a pod may stay on the node that it is on.
pub fn may_stay(pod: &Value, node: &Value) -> bool {
    untolerated(pod, node, &["NoExecute"]).is_none() && selects(pod, node)
}

/// Taints of a node, those that are on their way included: a node that is not ready takes no pods from the beginning.
fn taints(node: &Value) -> Vec<Value> {
    let mut taints = list(node, "/spec/taints").to_vec();
    let implied = |key: &str| json!({"key": format!("node.kubernetes.io/{key}"), "effect": "NoSchedule"});
    if !conditions::holds(node, "Ready") {
        taints.push(implied("not-ready"));
    }
    if says(node, "/spec/unschedulable") {
        taints.push(implied("unschedulable"));
    }
    taints
}

/// A taint with one of the effects that the pod does not tolerate.
fn untolerated(pod: &Value, node: &Value, effects: &[&str]) -> Option<Value> {
    let of_effect = |taint: &Value| effects.contains(&text(taint, "/effect"));
    taints(node).into_iter().find(|taint| of_effect(taint) && tolerations(pod, taint).next().is_none())
}

/// The pod's tolerations of a taint.
pub fn tolerations<'a>(pod: &'a Value, taint: &Value) -> impl Iterator<Item = &'a Value> {
    let (key, value, effect) = (text(taint, "/key"), text(taint, "/value"), text(taint, "/effect"));
    list(pod, "/spec/tolerations").iter().filter(move |toleration| {
        let fits = |path: &str, wanted: &str| ["", wanted].contains(&text(toleration, path));
        let exists = text(toleration, "/operator") == "Exists";
        fits("/effect", effect)
            && if exists {
                fits("/key", key)
            } else {
                text(toleration, "/key") == key && text(toleration, "/value") == value
            }
    })
}

/// Whether the pod's node selector and required affinity match the node.
fn selects(pod: &Value, node: &Value) -> bool {
    let labels = object::labels(node);
    let fields = BTreeMap::from([("metadata.name", object::name(node))]);
    let required = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let terms = list(pod, required);
    let matches = |term: &Value| {
        let (expressions, by_field) = (list(term, "/matchExpressions"), list(term, "/matchFields"));
        expressions.iter().all(|expression| selector::expression_matches(expression, &labels))
            && by_field.iter().all(|expression| selector::expression_matches(expression, &fields))
            && !(expressions.is_empty() && by_field.is_empty())
    };
    selector::matches_map(pod.pointer("/spec/nodeSelector"), &labels) && (terms.is_empty() || terms.iter().any(matches))
}

#[cfg(test)]
mod tests;
