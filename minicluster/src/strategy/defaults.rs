//! Fields that the API server fills in where they are missing.

use serde_json::{Value, json};

use crate::object::{entries, items, text};
use crate::resource::{DAEMON_SETS, DEPLOYMENTS, EVENTS, JOBS, PODS, REPLICA_SETS, Resource, SERVICES, STATEFUL_SETS};

/// Fills them in.
pub fn set(resource: &Resource, object: &mut Value) {
    if resource == &PODS {
        pod(entries(object, "").entry("spec").or_insert(Value::Null));
        admission(object);
    } else if resource == &SERVICES {
        service(object);
    } else if resource == &DEPLOYMENTS {
        deployment(object);
    } else if resource == &REPLICA_SETS {
        missing(object, "/spec", &[("replicas", json!(1))]);
        template(object);
    } else if resource == &STATEFUL_SETS {
        stateful_set(object);
    } else if resource == &DAEMON_SETS {
        daemon_set(object);
    } else if resource == &JOBS {
        job(object);
    } else if resource == &EVENTS {
        missing(object, "", &[("type", json!("Normal"))]);
    }
}

/// Fills in fields under a path.
fn missing(object: &mut Value, path: &str, defaults: &[(&str, Value)]) {
    let fields = entries(object, path);
    for (name, value) in defaults {
        let field = fields.entry(*name).or_insert(Value::Null);
        if field.is_null() {
            *field = value.clone();
        }
    }
}

/// A template of pods, whose labels stand for the selector where a workload has none of its own.
fn template(object: &mut Value) {
    let labels = object.pointer("/spec/template/metadata/labels").cloned();
    let spec = entries(object, "/spec");
    if let (None, Some(labels)) = (spec.get("selector"), labels) {
        spec.insert("selector".to_owned(), json!({"matchLabels": labels}));
    }
    pod(entries(object, "/spec/template").entry("spec").or_insert(Value::Null));
}

fn deployment(object: &mut Value) {
    missing(
        object,
        "/spec",
        &[
            ("replicas", json!(1)),
            ("revisionHistoryLimit", json!(10)),
            ("progressDeadlineSeconds", json!(600)),
            ("strategy", json!({"type": "RollingUpdate"})),
        ],
    );
    missing(object, "/spec/strategy", &[("type", json!("RollingUpdate"))]);
    if text(object, "/spec/strategy/type") == "RollingUpdate" {
        let limits = [("maxSurge", json!("25%")), ("maxUnavailable", json!("25%"))];
        missing(object, "/spec/strategy/rollingUpdate", &limits);
    }
    template(object);
}

fn stateful_set(object: &mut Value) {
    missing(
        object,
        "/spec",
        &[
            ("replicas", json!(1)),
            ("revisionHistoryLimit", json!(10)),
            ("podManagementPolicy", json!("OrderedReady")),
            ("updateStrategy", json!({"type": "RollingUpdate"})),
            ("persistentVolumeClaimRetentionPolicy", json!({"whenDeleted": "Retain", "whenScaled": "Retain"})),
        ],
    );
    if text(object, "/spec/updateStrategy/type") == "RollingUpdate" {
        missing(object, "/spec/updateStrategy/rollingUpdate", &[("partition", json!(0))]);
    }
    template(object);
}

/// DaemonSets count their templates, in an annotation since there is no field for it any more.
const TEMPLATE: &str = "deprecated.daemonset.template.generation";

/// Another template.
pub fn next_template(object: &mut Value) {
    let annotations = entries(object, "/metadata/annotations");
    let before = annotations.get(TEMPLATE).and_then(Value::as_str).and_then(|number| number.parse::<u64>().ok());
    annotations.insert(TEMPLATE.to_owned(), json!((before.unwrap_or(0) + 1).to_string()));
}

fn daemon_set(object: &mut Value) {
    if crate::object::annotation(object, TEMPLATE).is_none() {
        next_template(object);
    }

    let defaults = [("revisionHistoryLimit", json!(10)), ("updateStrategy", json!({"type": "RollingUpdate"}))];
    missing(object, "/spec", &defaults);
    if text(object, "/spec/updateStrategy/type") == "RollingUpdate" {
        let limits = [("maxSurge", json!(0)), ("maxUnavailable", json!(1))];
        missing(object, "/spec/updateStrategy/rollingUpdate", &limits);
    }
    template(object);
}

/// A Job's pods are found by the Job's UID, which the store gives.
pub fn job_selector(name: &str, uid: &str, object: &mut Value) {
    if object.pointer("/spec/manualSelector") == Some(&json!(true)) {
        return;
    }
    let labels = entries(object, "/spec/template/metadata/labels");
    for prefix in ["", "batch.kubernetes.io/"] {
        labels.insert(format!("{prefix}controller-uid"), json!(uid));
        labels.insert(format!("{prefix}job-name"), json!(name));
    }
    let selector = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
    entries(object, "/spec").insert("selector".to_owned(), selector);
}

fn job(object: &mut Value) {
    let spec = entries(object, "/spec");
    if spec.get("completions").is_none_or(Value::is_null) && spec.get("parallelism").is_none_or(Value::is_null) {
        spec.insert("completions".to_owned(), json!(1));
    }
    missing(
        object,
        "/spec",
        &[
            ("parallelism", json!(1)),
            ("backoffLimit", json!(6)),
            ("completionMode", json!("NonIndexed")),
            ("suspend", json!(false)),
            ("manualSelector", json!(false)),
            ("podReplacementPolicy", json!("TerminatingOrFailed")),
        ],
    );
    pod(entries(object, "/spec/template").entry("spec").or_insert(Value::Null));
}

fn service(object: &mut Value) {
    missing(object, "/spec", &[("type", json!("ClusterIP")), ("sessionAffinity", json!("None"))]);
    if text(object, "/spec/type") != "ExternalName" {
        missing(object, "/spec", &[("internalTrafficPolicy", json!("Cluster"))]);
    }
    let Some(ports) = object.pointer_mut("/spec/ports").and_then(Value::as_array_mut) else { return };
    for port in ports {
        let same = port.get("port").cloned().unwrap_or(Value::Null);
        missing(port, "", &[("protocol", json!("TCP")), ("targetPort", same)]);
    }
}

/// What a pod's spec gets.
fn pod(spec: &mut Value) {
    missing(
        spec,
        "",
        &[
            ("restartPolicy", json!("Always")),
            ("terminationGracePeriodSeconds", json!(30)),
            ("dnsPolicy", json!("ClusterFirst")),
            ("schedulerName", json!("default-scheduler")),
            ("securityContext", json!({})),
        ],
    );
    let of_host = spec.get("hostNetwork").is_some_and(|own| own == true);
    for kind in ["containers", "initContainers", "ephemeralContainers"] {
        let ports = spec.get_mut(kind).and_then(Value::as_array_mut).into_iter().flatten();
        let ports = ports.filter_map(|container| container.get_mut("ports")?.as_array_mut()).flatten();
        for port in ports.filter(|_| of_host) {
            let own = port.get("containerPort").cloned().unwrap_or(Value::Null);
            missing(port, "", &[("hostPort", own)]);
        }
        for container in spec.get_mut(kind).and_then(Value::as_array_mut).into_iter().flatten() {
            self::container(container, kind);
        }
    }
}

fn container(container: &mut Value, kind: &str) {
    let image = text(container, "/image");
    let newest = image.ends_with(":latest") || !image.rsplit('/').next().unwrap_or(image).contains([':', '@']);
    let pull = if newest { "Always" } else { "IfNotPresent" };
    missing(
        container,
        "",
        &[
            ("imagePullPolicy", json!(pull)),
            ("resources", json!({})),
            ("terminationMessagePath", json!("/dev/termination-log")),
            ("terminationMessagePolicy", json!("File")),
        ],
    );
    if kind == "ephemeralContainers" {
        return;
    }
    for variable in container.get_mut("env").and_then(Value::as_array_mut).into_iter().flatten() {
        if variable.pointer("/valueFrom/fieldRef").is_some() {
            missing(variable, "/valueFrom/fieldRef", &[("apiVersion", json!("v1"))]);
        }
    }
    for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        missing(port, "", &[("protocol", json!("TCP"))]);
    }
    for probe in ["readinessProbe", "livenessProbe", "startupProbe"] {
        let Some(probe) = container.get_mut(probe).filter(|probe| probe.is_object()) else { continue };
        let counts = [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)];
        missing(probe, "", &counts.map(|(name, count)| (name, json!(count))));
        if probe.get("httpGet").is_some() {
            missing(probe, "/httpGet", &[("path", json!("/")), ("scheme", json!("HTTP"))]);
        }
    }
}

/// What admission adds to a pod, though not to templates.
fn admission(pod: &mut Value) {
    let defaults = [
        ("serviceAccountName", json!("default")),
        ("serviceAccount", json!("default")),
        ("priority", json!(0)),
        ("preemptionPolicy", json!("PreemptLowerPriority")),
        ("enableServiceLinks", json!(true)),
    ];
    missing(pod, "/spec", &defaults);
    let tolerations = items(pod, "/spec/tolerations");
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let covers = |toleration: &Value| {
            let covers = |field: &str, value: &str| ["", value].contains(&text(toleration, field));
            covers("/key", key) && covers("/effect", "NoExecute")
        };
        if !tolerations.iter().any(covers) {
            let toleration = json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
            tolerations.push(toleration);
        }
    }
}
