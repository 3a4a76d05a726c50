//! A pod's status, as a kubelet writes it. No IO.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::container::{Container, Ended, State};
use crate::controllers::conditions::{self, Condition};
use crate::names;
use crate::net::Pair;
use crate::object::{self, entries, list, text};
use crate::time::Time;

/// What the status is made of.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The node's addresses.
    pub node: Pair,
    /// The pod's, once it has some.
    pub addresses: Option<Pair>,
    /// Containers of all kinds, by name.
    pub containers: &'a BTreeMap<String, Container>,
    /// Why the pod's network could not be made.
    pub network_failure: Option<&'a str>,
}

/// Writes it.
pub fn write(pod: &mut Value, facts: Facts<'_>, now: Time) {
    let phase = phase(pod, facts.containers);
    let of = |path: &str, kind: Kind| -> Vec<Value> {
        list(pod, path).iter().map(|spec| container_status(pod, spec, facts.containers, kind)).collect()
    };
    let regular = of("/spec/containers", Kind::Regular);
    let ephemeral = of("/spec/ephemeralContainers", Kind::Ephemeral);
    let unready: Vec<&str> =
        regular.iter().filter(|status| status["ready"] != true).map(|status| text(status, "/name")).collect();
    let unready = (!unready.is_empty()).then(|| format!("containers with unready status: [{}]", unready.join(" ")));
    let begun = pod["status"]["startTime"].as_str().map_or_else(|| now.rfc3339(), ToOwned::to_owned);

    let status = entries(pod, "/status");
    status.insert("phase".to_owned(), json!(phase));
    status.insert("startTime".to_owned(), json!(begun));
    status.insert("hostIP".to_owned(), json!(facts.node.v4.to_string()));
    status.insert("hostIPs".to_owned(), ips(facts.node));
    if let Some(addresses) = facts.addresses {
        status.insert("podIP".to_owned(), json!(addresses.v4.to_string()));
        status.insert("podIPs".to_owned(), ips(addresses));
    }
    status.insert("containerStatuses".to_owned(), json!(regular));
    if !ephemeral.is_empty() {
        status.insert("ephemeralContainerStatuses".to_owned(), json!(ephemeral));
    }

    let over = matches!(phase, "Succeeded" | "Failed");
    let (ready, reason, message) = match (phase, &unready) {
        ("Succeeded", _) => (false, "PodCompleted", String::new()),
        ("Failed", _) => (false, "PodFailed", String::new()),
        (_, Some(message)) => (false, "ContainersNotReady", message.clone()),
        (_, None) => (true, "", String::new()),
    };
    let network = facts.addresses.is_some() && !over;
    let network_message = facts.network_failure.unwrap_or_default();
    let initialized = if phase == "Succeeded" { "PodCompleted" } else { "" };
    for (kind, holds, reason, message) in [
        ("PodReadyToStartContainers", network, "", network_message),
        ("Initialized", true, initialized, ""),
        ("Ready", ready, reason, message.as_str()),
        ("ContainersReady", ready, reason, message.as_str()),
        ("PodScheduled", true, "", ""),
    ] {
        conditions::set(pod, Condition { kind, holds, reason, message }, None, now);
    }
}

fn ips(pair: Pair) -> Value {
    json!([{"ip": pair.v4.to_string()}, {"ip": pair.v6.to_string()}])
}

/// The phase, by the regular containers.
pub fn phase(pod: &Value, containers: &BTreeMap<String, Container>) -> &'static str {
    let (mut running, mut waiting, mut stopped, mut succeeded) = (0, 0, 0, 0);
    for spec in list(pod, "/spec/containers") {
        let container = containers.get(text(spec, "/name"));
        match container.map(|container| (&container.state, container.last)) {
            Some((State::Running { .. }, _)) => running += 1,
            Some((State::Ended(ended), _)) => {
                stopped += 1;
                succeeded += usize::from(ended.code == 0);
            }
            Some((State::Waiting(..) | State::Starting | State::New, Some(_))) => stopped += 1,
            Some((State::Waiting(..) | State::Starting | State::New, None)) | None => waiting += 1,
        }
    }
    let going = object::is_going(pod);
    match text(pod, "/spec/restartPolicy") {
        _ if waiting > 0 => "Pending",
        _ if running > 0 => "Running",
        "Always" | "" if !going => "Running",
        _ if stopped == succeeded => "Succeeded",
        "Never" => "Failed",
        _ if going => "Failed",
        _ => "Running",
    }
}

/// Which of a pod's lists a container is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Regular,
    Ephemeral,
}

fn container_status(pod: &Value, spec: &Value, containers: &BTreeMap<String, Container>, kind: Kind) -> Value {
    let name = text(spec, "/name");
    let none = Container::default();
    let container = containers.get(name).unwrap_or(&none);
    let id = |attempt: u32| {
        let part = |n: &str| format!("{:016x}", names::hash(&[object::uid(pod), name, &attempt.to_string(), n]));
        format!("containerd://{}", ["a", "b", "c", "d"].map(part).concat())
    };
    let terminated = |ended: Ended, attempt: u32| {
        json!({"terminated": {
            "exitCode": ended.code, "reason": if ended.code == 0 { "Completed" } else { "Error" },
            "startedAt": ended.since.rfc3339(), "finishedAt": ended.at.rfc3339(), "containerID": id(attempt),
        }})
    };
    let image = text(spec, "/image");
    let mut status = json!({
        "name": name, "image": image, "imageID": "", "restartCount": container.restarts(), "lastState": {},
        // An ephemeral container is never asked.
        "ready": kind == Kind::Regular && container.is_ready(),
    });
    let running = matches!(container.state, State::Running { .. });
    if kind == Kind::Regular {
        status["started"] = json!(running);
    }
    status["state"] = match &container.state {
        State::New | State::Starting => json!({"waiting": {"reason": "ContainerCreating"}}),
        State::Waiting(waiting, _) => {
            let mut all = Map::from_iter([("reason".to_owned(), json!(waiting.reason))]);
            let message = match waiting.reason {
                "ImagePullBackOff" => format!("Back-off pulling image \"{image}\": ErrImagePull: {}", waiting.message),
                "CrashLoopBackOff" => {
                    let whose = format!("{}_{}({})", object::name(pod), object::namespace(pod), object::uid(pod));
                    format!("{}={name} pod={whose}", waiting.message)
                }
                _ => waiting.message.clone(),
            };
            all.insert("message".to_owned(), json!(message));
            json!({"waiting": all})
        }
        State::Running { since, .. } => json!({"running": {"startedAt": since.rfc3339()}}),
        State::Ended(ended) => terminated(*ended, container.attempt),
    };
    if let Some(last) = container.last {
        status["lastState"] = terminated(last, container.attempt.saturating_sub(u32::from(container.is_alive())));
    }
    if container.attempt > 0 {
        status["containerID"] = json!(id(container.attempt));
        status["imageID"] = json!(format!("sha256:{:016x}", names::hash(&[image])));
    }
    status
}
