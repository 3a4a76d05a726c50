//! A kubelet without pods, for tests of what stands on objects alone: what is scheduled is ready at once under a made-up
//! address, what is to go is gone.

use serde_json::{Value, json};

use super::conditions::{self, Condition};
use super::wanted::Wanted;
use super::world::World;
use crate::names;
use crate::object::{self, list, text};
use crate::resource::PODS;
use crate::strategy::Deletion;
use crate::time::Time;

/// What it wants. Pods whose annotation `test/fails` is set fail; with `test/succeeds` they succeed; with `test/starts`
/// they run and never become ready.
pub fn wanted(world: &World, now: Time, wanted: &mut Wanted) {
    for pod in world.list(&PODS).filter(|pod| !text(pod, "/spec/nodeName").is_empty()) {
        if object::is_going(pod) {
            if object::number(pod, "/metadata/deletionGracePeriodSeconds") != Some(0) {
                wanted.delete_even_if_going(pod, Deletion { grace: Some(0), ..Deletion::default() });
            }
            continue;
        }
        if !text(pod, "/status/podIP").is_empty() {
            continue;
        }
        let has = |annotation: &str| object::annotation(pod, annotation).is_some();
        let phase = match (has("test/fails"), has("test/succeeds")) {
            (true, _) => "Failed",
            (false, true) => "Succeeded",
            (false, false) => "Running",
        };
        let ready = phase == "Running" && !has("test/starts");
        wanted.change(pod, |pod| start(pod, phase, ready, now));
    }
}

fn start(pod: &mut Value, phase: &str, ready: bool, now: Time) {
    let number = names::hash(&[object::uid(pod)]);
    let (high, low) = (number >> 8 & 0xff, number & 0xff);
    let four = format!("10.42.{high}.{low}");
    let six = format!("fd42::{high:x}:{low:x}");
    for kind in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"] {
        let holds = ready || !kind.contains("Ready");
        conditions::set(pod, Condition { kind, holds, reason: "", message: "" }, None, now);
    }
    let state = |name: &str| {
        let state = match phase {
            "Running" => json!({"running": {"startedAt": now.rfc3339()}}),
            _ => json!({"terminated": {"exitCode": i32::from(phase == "Failed"), "finishedAt": now.rfc3339()}}),
        };
        json!({"name": name, "ready": ready, "restartCount": 0, "state": state})
    };
    let containers: Vec<Value> =
        list(pod, "/spec/containers").iter().map(|container| state(text(container, "/name"))).collect();
    let status = object::entries(pod, "/status");
    status.insert("phase".to_owned(), json!(phase));
    status.insert("podIP".to_owned(), json!(four));
    status.insert("podIPs".to_owned(), json!([{"ip": four}, {"ip": six}]));
    status.insert("hostIP".to_owned(), json!("10.41.0.1"));
    status.insert("startTime".to_owned(), json!(now.rfc3339()));
    status.insert("containerStatuses".to_owned(), json!(containers));
}
