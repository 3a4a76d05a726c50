//! Which objects the API takes, as far as clients meet it: names, labels, containers, selectors, what may not change.
//! Pure.
//!
//! Kubernetes 1.34, `pkg/apis/*/validation`. What is not checked here, and would be refused there, is taken.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::invalid::FieldError;
use super::names;
use crate::object::{items_of, list, name, number, text};
use crate::resource::{
    CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, DAEMON_SETS, DEPLOYMENTS, JOBS, NAMESPACES, PODS, REPLICA_SETS,
    ROLE_BINDINGS, ROLES, Resource, SERVICES, STATEFUL_SETS,
};

type Errors = Vec<FieldError>;

/// What is wrong with a new object.
pub fn create(resource: &'static Resource, object: &Value) -> Errors {
    let mut errors = metadata(resource, object);
    errors.extend(content(resource, object));
    if resource == &PODS && !list(object, "/spec/ephemeralContainers").is_empty() {
        errors.push(FieldError::forbidden("spec.ephemeralContainers", "cannot be set on create"));
    }
    errors
}

/// What is wrong with a change.
pub fn update(resource: &'static Resource, before: &Value, after: &Value) -> Errors {
    let mut errors = metadata(resource, after);
    if resource == &PODS {
        let count = |pod: &Value| list(pod, "/spec/containers").len();
        if count(before) != count(after) {
            let text = "pod updates may not add or remove containers";
            errors.push(FieldError::forbidden("spec.containers", text));
        } else if fixed_spec(before) != fixed_spec(after) {
            let text = "pod updates may not change fields other than `spec.containers[*].image`,\
                        `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to \
                        existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
                        previously negative)\n";
            errors.push(FieldError::forbidden("spec", text));
        }
        return errors;
    }
    errors.extend(content(resource, after));
    let fixed: &[&str] = match resource {
        it if it == &DEPLOYMENTS || it == &REPLICA_SETS || it == &DAEMON_SETS => &["selector"],
        it if it == &JOBS => &["completions", "selector", "template"],
        _ => &[],
    };
    for field in fixed {
        let (was, is) = (&before["spec"][*field], &after["spec"][*field]);
        if was != is {
            errors.push(FieldError::invalid(&format!("spec.{field}"), is.clone(), "field is immutable"));
        }
    }
    if resource == &ROLE_BINDINGS || resource == &CLUSTER_ROLE_BINDINGS {
        let (was, is) = (&before["roleRef"], &after["roleRef"]);
        if was != is {
            errors.push(FieldError::invalid("roleRef", is.clone(), "cannot change roleRef"));
        }
    }
    errors
}

/// What is wrong with a change of a pod's ephemeral containers.
pub fn ephemeral_containers(before: &Value, after: &Value) -> Errors {
    let mut errors = pod_spec("spec", &after["spec"]);
    let new = list(after, "/spec/ephemeralContainers");
    for old in list(before, "/spec/ephemeralContainers") {
        let id = text(old, "/name");
        let what = match new.iter().find(|new| text(new, "/name") == id) {
            None => "removed",
            Some(same) if same == old => continue,
            Some(_) => "changed",
        };
        let text = format!("existing ephemeral containers {id:?} may not be {what}\n");
        errors.push(FieldError::forbidden("spec.ephemeralContainers", &text));
    }
    errors
}

fn metadata(resource: &'static Resource, object: &Value) -> Errors {
    let mut errors = Vec::new();
    let name = name(object);
    if name.is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else {
        let check = match resource {
            it if it == &NAMESPACES => names::label,
            it if it == &SERVICES => names::service,
            it if [&ROLES, &ROLE_BINDINGS, &CLUSTER_ROLES, &CLUSTER_ROLE_BINDINGS].contains(&it) => names::path_segment,
            _ => names::subdomain,
        };
        for fault in check(name) {
            errors.push(FieldError::invalid("metadata.name", json!(name), &fault));
        }
    }
    errors.extend(labels("metadata.labels", &object["metadata"]["labels"]));
    for (key, _) in object["metadata"]["annotations"].as_object().into_iter().flatten() {
        for fault in names::key(&key.to_lowercase()) {
            errors.push(FieldError::invalid("metadata.annotations", json!(key), &fault));
        }
    }
    errors
}

fn labels(field: &str, labels: &Value) -> Errors {
    let mut errors = Vec::new();
    for (key, value) in labels.as_object().into_iter().flatten() {
        for fault in names::key(key) {
            errors.push(FieldError::invalid(field, json!(key), &fault));
        }
        for fault in names::label_value(value.as_str().unwrap_or_default()) {
            errors.push(FieldError::invalid(field, value.clone(), &fault));
        }
    }
    errors
}

fn content(resource: &'static Resource, object: &Value) -> Errors {
    match resource {
        it if it == &PODS => pod_spec("spec", &object["spec"]),
        it if it == &SERVICES => service(object),
        it if it == &JOBS => job(object),
        it if [&DEPLOYMENTS, &REPLICA_SETS, &STATEFUL_SETS, &DAEMON_SETS].contains(&it) => workload(object),
        _ => Vec::new(),
    }
}

fn workload(object: &Value) -> Errors {
    let mut errors = Vec::new();
    let spec = &object["spec"];
    if let Some(replicas) = number(spec, "/replicas").filter(|replicas| *replicas < 0) {
        let text = "must be greater than or equal to 0";
        errors.push(FieldError::invalid("spec.replicas", json!(replicas), text));
    }
    if spec["selector"].is_null() {
        errors.push(FieldError::required("spec.selector", ""));
    }
    let labels = &spec["template"]["metadata"]["labels"];
    let wanted = spec["selector"]["matchLabels"].as_object();
    if spec["selector"].is_null() || wanted.into_iter().flatten().any(|(key, value)| labels[key] != *value) {
        let labels = if labels.is_null() { json!({}) } else { labels.clone() };
        let text = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid("spec.template.metadata.labels", labels, text));
    }
    let field = "spec.template.spec";
    errors.extend(pod_spec(field, &spec["template"]["spec"]));
    let policy = text(spec, "/template/spec/restartPolicy");
    if policy != "Always" && POLICIES.contains(&policy) {
        errors.push(FieldError::not_supported(&format!("{field}.restartPolicy"), json!(policy), &["Always"]));
    }
    errors
}

fn job(object: &Value) -> Errors {
    let field = "spec.template.spec";
    let mut errors = pod_spec(field, &object["spec"]["template"]["spec"]);
    if matches!(text(object, "/spec/template/spec/restartPolicy"), "" | "Always") {
        let text = "valid values: \"OnFailure\", \"Never\"";
        errors.push(FieldError::required(&format!("{field}.restartPolicy"), text));
    }
    errors
}

const POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];

fn service(object: &Value) -> Errors {
    let mut errors = Vec::new();
    let (spec, kind) = (&object["spec"], text(object, "/spec/type"));
    let headless = text(spec, "/clusterIP") == "None";
    if list(spec, "/ports").is_empty() && kind != "ExternalName" && !headless {
        errors.push(FieldError::required("spec.ports", ""));
    }
    let known = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    if !kind.is_empty() && !known.contains(&kind) {
        errors.push(FieldError::not_supported("spec.type", json!(kind), &known));
    }
    for (at, port) in items_of(spec, "/ports") {
        let number = number(port, "/port").unwrap_or(0);
        if !(1..=65535).contains(&number) {
            let text = "must be between 1 and 65535, inclusive";
            errors.push(FieldError::invalid(&format!("spec.ports[{at}].port"), json!(number), text));
        }
    }
    errors
}

fn pod_spec(field: &str, spec: &Value) -> Errors {
    let mut errors = Vec::new();
    if list(spec, "/containers").is_empty() {
        errors.push(FieldError::required(&format!("{field}.containers"), ""));
    }
    let mut seen = BTreeSet::new();
    for kind in ["containers", "initContainers", "ephemeralContainers"] {
        for (at, container) in items_of(spec, &format!("/{kind}")) {
            let field = format!("{field}.{kind}[{at}]");
            let name = text(container, "/name");
            errors.extend(self::container(&field, container));
            if !name.is_empty() && !seen.insert(name) {
                errors.push(FieldError::duplicate(&format!("{field}.name"), json!(name)));
            }
            if kind == "ephemeralContainers" {
                errors.extend(ephemeral(&field, container, spec));
            }
        }
    }
    let policy = text(spec, "/restartPolicy");
    if !policy.is_empty() && !POLICIES.contains(&policy) {
        errors.push(FieldError::not_supported(&format!("{field}.restartPolicy"), json!(policy), &POLICIES));
    }
    errors
}

fn container(field: &str, container: &Value) -> Errors {
    let mut errors = Vec::new();
    let (name, image) = (text(container, "/name"), text(container, "/image"));
    if name.is_empty() {
        errors.push(FieldError::required(&format!("{field}.name"), ""));
    } else {
        let faults = names::label(name);
        errors.extend(faults.iter().map(|fault| FieldError::invalid(&format!("{field}.name"), json!(name), fault)));
    }
    if image.is_empty() {
        errors.push(FieldError::required(&format!("{field}.image"), ""));
    }
    for (at, port) in items_of(container, "/ports") {
        let field = format!("{field}.ports[{at}].containerPort");
        match number(port, "/containerPort") {
            None | Some(0) => errors.push(FieldError::required(&field, "")),
            Some(1..=65535) => {}
            Some(other) => {
                errors.push(FieldError::invalid(&field, json!(other), "must be between 1 and 65535, inclusive"));
            }
        }
    }
    for (at, variable) in items_of(container, "/env") {
        if text(variable, "/name").is_empty() {
            errors.push(FieldError::required(&format!("{field}.env[{at}].name"), ""));
        }
    }
    errors
}

fn ephemeral(field: &str, container: &Value, spec: &Value) -> Errors {
    let mut errors = Vec::new();
    let target = text(container, "/targetContainerName");
    let others = ["/containers", "/initContainers"].into_iter().flat_map(|kind| list(spec, kind));
    if !target.is_empty() && !others.into_iter().any(|other| text(other, "/name") == target) {
        errors.push(FieldError::not_found(&format!("{field}.targetContainerName"), json!(target)));
    }
    for forbidden in
        ["lifecycle", "livenessProbe", "ports", "readinessProbe", "resizePolicy", "resources", "startupProbe"]
    {
        let value = &container[forbidden];
        let empty = value.is_null() || *value == json!({}) || *value == json!([]);
        if !empty {
            let text = "cannot be set for an Ephemeral Container";
            errors.push(FieldError::forbidden(&format!("{field}.{forbidden}"), text));
        }
    }
    errors
}

/// What of a pod's spec may not change.
fn fixed_spec(pod: &Value) -> Value {
    let mut spec = pod["spec"].clone();
    for kind in ["containers", "initContainers"] {
        for container in spec.get_mut(kind).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(container) = container.as_object_mut() {
                container.remove("image");
            }
        }
    }
    if let Some(spec) = spec.as_object_mut() {
        for free in ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds"] {
            spec.remove(free);
        }
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    fn pod(containers: Value) -> Value {
        json!({"metadata": {"name": "a"}, "spec": {"containers": containers}})
    }

    #[test]
    fn a_pod_needs_containers_with_names_and_images() {
        assert!(create(&PODS, &pod(json!([{"name": "a", "image": "x"}]))).is_empty());
        assert_eq!(told(&create(&PODS, &pod(json!([])))), ["spec.containers: Required value"]);
        let twice = pod(json!([{"name": "a", "image": "x"}, {"name": "a"}]));
        let wanted = ["spec.containers[1].image: Required value", "spec.containers[1].name: Duplicate value: \"a\""];
        assert_eq!(told(&create(&PODS, &twice)), wanted);
    }

    #[test]
    fn a_running_pod_changes_in_few_fields_only() {
        let before = pod(json!([{"name": "a", "image": "x"}]));
        let image = pod(json!([{"name": "a", "image": "y"}]));
        assert!(update(&PODS, &before, &image).is_empty());
        let named = pod(json!([{"name": "b", "image": "x"}]));
        assert!(told(&update(&PODS, &before, &named))[0].starts_with("spec: Forbidden: pod updates may not change"));
    }

    #[test]
    fn ephemeral_containers_are_only_added() {
        let with = |ephemeral: Value| {
            let mut pod = pod(json!([{"name": "a", "image": "x"}]));
            pod["spec"]["ephemeralContainers"] = ephemeral;
            pod
        };
        let one = json!([{"name": "e", "image": "x", "targetContainerName": "a"}]);
        assert!(ephemeral_containers(&with(json!([])), &with(one.clone())).is_empty());
        let changed = with(json!([{"name": "e", "image": "y"}]));
        let wanted = "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be changed\n";
        assert_eq!(told(&ephemeral_containers(&with(one), &changed)), [wanted]);
        let bad =
            with(json!([{"name": "a", "image": "x", "targetContainerName": "z", "ports": [{"containerPort": 1}]}]));
        let wanted = [
            "spec.ephemeralContainers[0].name: Duplicate value: \"a\"",
            "spec.ephemeralContainers[0].targetContainerName: Not found: \"z\"",
            "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
        ];
        assert_eq!(told(&ephemeral_containers(&with(json!([])), &bad)), wanted);
        assert_eq!(create(&PODS, &changed).len(), 1, "a new pod has none");
    }

    #[test]
    fn a_workloads_selector_fits_its_pods_and_stays() {
        let of = |selector: &str, label: &str| {
            json!({"metadata": {"name": "web"}, "spec": {
                "selector": {"matchLabels": {"app": selector}},
                "template": {"metadata": {"labels": {"app": label}}, "spec": {"containers": [{"name": "a", "image": "x"}]}},
            }})
        };
        assert!(create(&DEPLOYMENTS, &of("web", "web")).is_empty());
        let wanted = "spec.template.metadata.labels: Invalid value: {\"app\":\"db\"}: `selector` does not match template `labels`";
        assert_eq!(told(&create(&DEPLOYMENTS, &of("web", "db"))), [wanted]);
        let errors = told(&update(&DEPLOYMENTS, &of("web", "web"), &of("db", "db")));
        assert_eq!(errors, ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"db\"}}: field is immutable"]);
    }
}
