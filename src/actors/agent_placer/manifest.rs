//! What is asked of the API server: an ephemeral container, a Job, a pod. Pure builders of JSON.
//!
//! Everything here satisfies Pod Security "restricted" (Kubernetes, Pod Security Standards).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use crate::digest::short_name;

/// Label of our own Job and pod: fingerprint of key, image and protocol.
const FINGERPRINT_LABEL: &str = "podway.dev/agent";
/// Label of our own Job and pod: whose they are.
const KEY_LABEL: &str = "podway.dev/key";

/// Annotation of our own Job and pod: which run made it.
const MARK: &str = "podway.dev/made-by";

/// How long our own pod stays after its last client.
const OWN_POD_IDLE_EXIT: &str = "10m";
/// How long an ephemeral container stays after its last client.
const EPHEMERAL_IDLE_EXIT: &str = "8h";

/// What all placements share.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Image reference.
    pub image: String,
    /// Our public key, base64.
    pub key: String,
    /// Fingerprint of key, image and protocol.
    pub fingerprint: String,
    /// Tells what this run of the connection made from what others did; not a secret.
    pub mark: String,
}

/// The strategic-merge patch of `pods/ephemeralcontainers` that adds one agent.
pub fn ephemeral_patch(agent: &Agent, name: &str, port: u16) -> Value {
    json!({ "spec": { "ephemeralContainers": [container(agent, name, port, EPHEMERAL_IDLE_EXIT)] } })
}

/// Whether a container's name is one that agents of this fingerprint get: `podway-agent-<fingerprint>-<n>`.
pub fn is_named_after(container: &str, fingerprint: &str) -> bool {
    let number = container.strip_prefix("podway-agent-").and_then(|rest| rest.strip_prefix(fingerprint));
    number.is_some_and(|number| number.starts_with('-'))
}

/// Name of our own Job or pod.
pub fn own_name(fingerprint: &str) -> String {
    format!("podway-agent-{fingerprint}")
}

/// A batch/v1 Job whose pod is our own; gone with its pod (`ttlSecondsAfterFinished: 0`).
pub fn own_job(agent: &Agent, port: u16) -> Value {
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": own_metadata(agent),
        "spec": {
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": 0,
            "template": { "metadata": { "labels": labels(agent) }, "spec": pod_spec(agent, port) },
        },
    })
}

/// A bare pod of our own, where Jobs may not be made.
pub fn own_pod(agent: &Agent, port: u16) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": own_metadata(agent),
        "spec": pod_spec(agent, port),
    })
}

/// The selector of everything that was made for this image and protocol.
pub fn of_fingerprint(agent: &Agent) -> String {
    format!("{FINGERPRINT_LABEL}={}", agent.fingerprint)
}

/// The selector of everything that was made for this key, whatever the image.
pub fn of_key(agent: &Agent) -> String {
    of_public_key(&agent.key)
}

/// The same, by the key in base64.
pub fn of_public_key(key: &str) -> String {
    format!("{KEY_LABEL}={}", short_name(key))
}

/// Whether an object was made by this run.
pub fn is_marked(object: &ObjectMeta, agent: &Agent) -> bool {
    let annotations = object.annotations.as_ref();
    annotations.and_then(|all| all.get(MARK)).is_some_and(|mark| *mark == agent.mark)
}

fn own_metadata(agent: &Agent) -> Value {
    json!({
        "name": own_name(&agent.fingerprint),
        "labels": labels(agent),
        "annotations": { MARK: agent.mark },
    })
}

fn labels(agent: &Agent) -> Value {
    json!({
        "app.kubernetes.io/name": "podway-agent",
        FINGERPRINT_LABEL: agent.fingerprint,
        KEY_LABEL: key_label(agent),
    })
}

/// The key as a label may hold it (base64 may not): 16 hex digits of its hash.
fn key_label(agent: &Agent) -> String {
    short_name(&agent.key)
}

fn pod_spec(agent: &Agent, port: u16) -> Value {
    json!({
        "restartPolicy": "Never",
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 5,
        "containers": [container(agent, "podway-agent", port, OWN_POD_IDLE_EXIT)],
    })
}

fn container(agent: &Agent, name: &str, port: u16, idle_exit: &str) -> Value {
    json!({
        "name": name,
        "image": agent.image,
        "imagePullPolicy": "IfNotPresent",
        "args": [
            "serve",
            "--listen", format!("127.0.0.1:{port}"),
            "--authorized-key", agent.key,
            "--idle-exit", idle_exit,
        ],
        "env": [{ "name": "PODWAY_POD_UID", "valueFrom": { "fieldRef": { "fieldPath": "metadata.uid" } } }],
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
    })
}

#[cfg(test)]
mod tests;
