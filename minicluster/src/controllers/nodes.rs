//! Nodes that are not well: taints, pods that no longer serve, pods that leave, pods of nodes that are gone.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::conditions::{self, Condition};
use super::pods;
use super::scheduler::tolerations;
use super::wanted::Wanted;
use super::world::World;
use crate::events::{Note, Severity};
use crate::object::{self, items, list, number, says, text};
use crate::resource::{NODES, PODS};
use crate::strategy::Deletion;
use crate::time::Time;

/// What is wanted for nodes and for the pods on them.
pub fn wanted(world: &World, now: Time, wanted: &mut Wanted) {
    for node in world.list(&NODES) {
        taint(node, now, wanted);
    }
    for pod in world.list(&PODS).filter(|pod| !text(pod, "/spec/nodeName").is_empty()) {
        match world.get(&NODES, "", text(pod, "/spec/nodeName")) {
            // Nobody is left there who could end it.
            None => wanted.delete_even_if_going(pod, Deletion { grace: Some(0), ..Deletion::default() }),
            Some(node) => {
                mark(pod, node, now, wanted);
                evict(pod, node, now, wanted);
            }
        }
    }
}

/// Taints that the node's conditions stand for.
fn taint(node: &Arc<Value>, now: Time, wanted: &mut Wanted) {
    let ready = conditions::find(node, "Ready").map_or("False", |ready| text(ready, "/status"));
    let all = [("not-ready", ready == "False"), ("unreachable", ready == "Unknown")]
        .into_iter()
        .flat_map(|(key, holds)| [(key, "NoSchedule", holds), (key, "NoExecute", holds)]);
    let all = all.chain([("unschedulable", "NoSchedule", says(node, "/spec/unschedulable"))]);
    let mut taints = list(node, "/spec/taints").to_vec();
    for (key, effect, holds) in all {
        let key = format!("node.kubernetes.io/{key}");
        let is = |taint: &Value| text(taint, "/key") == key && text(taint, "/effect") == effect;
        let has = taints.iter().any(is);
        if has && !holds {
            taints.retain(|taint| !is(taint));
        } else if holds && !has {
            taints.push(json!({"key": key, "effect": effect, "timeAdded": now.rfc3339()}));
        }
    }
    wanted.change(node, |node| {
        if taints.is_empty() {
            object::entries(node, "/spec").remove("taints");
        } else {
            *items(node, "/spec/taints") = taints;
        }
    });
}

/// A pod on a node that is not well does not serve.
fn mark(pod: &Arc<Value>, node: &Value, now: Time, wanted: &mut Wanted) {
    if conditions::holds(node, "Ready") || !pods::is_ready(pod) {
        return;
    }
    wanted.change(pod, |pod| {
        let condition = Condition { kind: "Ready", holds: false, reason: "NodeNotReady", message: "" };
        conditions::set(pod, condition, None, now);
    });
    wanted.note(Note::new(pod, "node-controller", Severity::Warning, "NodeNotReady", "Node is not ready"));
}

/// A pod leaves when it has not tolerated a taint for as long as it may.
fn evict(pod: &Arc<Value>, node: &Value, now: Time, wanted: &mut Wanted) {
    if object::is_going(pod) || pods::is_over(pod) {
        return;
    }
    let leaves_at = |taint: &Value| {
        let since = Time::parse(text(taint, "/timeAdded")).unwrap_or(now);
        let mut tolerated = tolerations(pod, taint).map(|toleration| number(toleration, "/tolerationSeconds"));
        let Some(first) = tolerated.next() else { return Some(now) };
        // One without a limit tolerates for ever; of several limits the shortest counts.
        let limits: Option<Vec<i64>> = std::iter::once(first).chain(tolerated).collect();
        let seconds = limits?.into_iter().min()?;
        Some(since.after(Duration::from_secs(u64::try_from(seconds).unwrap_or(0))))
    };
    let no_execute = list(node, "/spec/taints").iter().filter(|taint| text(taint, "/effect") == "NoExecute");
    let Some(at) = no_execute.filter_map(leaves_at).min() else { return };
    if at > now {
        wanted.again_at(at);
        return;
    }
    let message = format!("Marking for deletion Pod {}/{}", object::namespace(pod), object::name(pod));
    wanted.note(Note::new(pod, "taint-eviction-controller", Severity::Normal, "TaintManagerEviction", message));
    wanted.delete(pod, Deletion::default());
}

#[cfg(test)]
mod tests;
