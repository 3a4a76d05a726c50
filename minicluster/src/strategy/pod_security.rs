//! Pod security: what pods a namespace allows, by its label `pod-security.kubernetes.io/enforce`. The common part of the
//! levels `baseline` and `restricted`, said as the real cluster says it.

use serde_json::Value;

use super::Refusal;
use crate::object::{self, list, says, text};
use crate::resource::NAMESPACES;
use crate::store::{Key, Objects};

/// Whether the pod's namespace allows it.
pub fn admit(key: &Key, pod: &Value, objects: &Objects) -> Result<(), Refusal> {
    let namespace = objects.get(&Key::new(&NAMESPACES, "", &*key.namespace));
    let level = namespace.and_then(|namespace| object::label(namespace, "pod-security.kubernetes.io/enforce"));
    let violations = match level {
        Some("baseline") => baseline(pod),
        Some("restricted") => baseline(pod).into_iter().chain(restricted(pod)).collect(),
        Some(_) | None => return Ok(()),
    };
    if violations.is_empty() {
        return Ok(());
    }
    let (name, level, violations) = (&key.name, level.unwrap_or_default(), violations.join(", "));
    Err(Refusal::Forbidden(format!(
        "pods \"{name}\" is forbidden: violates PodSecurity \"{level}:latest\": {violations}"
    )))
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    let kinds = ["/spec/initContainers", "/spec/containers", "/spec/ephemeralContainers"];
    kinds.into_iter().flat_map(|kind| list(pod, kind))
}

/// Names of the containers for which something does not hold, quoted; `None` if it holds for all.
fn offenders(pod: &Value, holds: impl Fn(&Value) -> bool) -> Option<String> {
    let names: Vec<String> = containers(pod)
        .filter(|container| !holds(container))
        .map(|container| format!("{}", container["name"]))
        .collect();
    match names.as_slice() {
        [] => None,
        [one] => Some(format!("container {one}")),
        all => Some(format!("containers {}", all.join(", "))),
    }
}

fn baseline(pod: &Value) -> Vec<String> {
    let mut violations = Vec::new();
    let host: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| says(&pod["spec"], &format!("/{field}")))
        .map(|field| format!("{field}=true"))
        .collect();
    if !host.is_empty() {
        violations.push(format!("host namespaces ({})", host.join(", ")));
    }
    if let Some(who) = offenders(pod, |container| list(container, "/securityContext/capabilities/add").is_empty()) {
        violations.push(format!("non-default capabilities ({who} must not include added capabilities)"));
    }
    if let Some(who) = offenders(pod, |container| !says(container, "/securityContext/privileged")) {
        violations.push(format!("privileged ({who} must not set securityContext.privileged=true)"));
    }
    violations
}

fn restricted(pod: &Value) -> Vec<String> {
    let mut violations = Vec::new();
    let stays =
        |container: &Value| container.pointer("/securityContext/allowPrivilegeEscalation") == Some(&Value::Bool(false));
    if let Some(who) = offenders(pod, stays) {
        violations.push(format!(
            "allowPrivilegeEscalation != false ({who} must set securityContext.allowPrivilegeEscalation=false)"
        ));
    }
    let drops =
        |container: &Value| list(container, "/securityContext/capabilities/drop").iter().any(|name| name == "ALL");
    if let Some(who) = offenders(pod, drops) {
        violations
            .push(format!("unrestricted capabilities ({who} must set securityContext.capabilities.drop=[\"ALL\"])"));
    }
    let of_pod = says(pod, "/spec/securityContext/runAsNonRoot");
    let not_root = |container: &Value| match container.pointer("/securityContext/runAsNonRoot") {
        Some(own) => own == &Value::Bool(true),
        None => of_pod,
    };
    if let Some(who) = offenders(pod, not_root) {
        violations.push(format!("runAsNonRoot != true (pod or {who} must set securityContext.runAsNonRoot=true)"));
    }
    let allowed = |profile: &str| ["RuntimeDefault", "Localhost"].contains(&profile);
    let of_pod = allowed(text(pod, "/spec/securityContext/seccompProfile/type"));
    let confined = |container: &Value| match text(container, "/securityContext/seccompProfile/type") {
        "" => of_pod,
        own => allowed(own),
    };
    if let Some(who) = offenders(pod, confined) {
        violations.push(format!(
            "seccompProfile (pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \
             \"Localhost\")"
        ));
    }
    violations
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::resource::PODS;

    fn refusal(level: &str, spec: &Value) -> Option<String> {
        let namespace = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}});
        let objects = Objects::from([(Key::new(&NAMESPACES, "", "demo"), Arc::new(namespace))]);
        admit(&Key::new(&PODS, "demo", "a"), &json!({"spec": spec}), &objects).err().map(|why| why.to_string())
    }

    #[test]
    fn a_restricted_namespace_says_all_that_is_wrong_with_a_pod() {
        let plain = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        let why = refusal("restricted", &plain).unwrap();
        assert!(why.starts_with("pods \"a\" is forbidden: violates PodSecurity \"restricted:latest\": "), "{why}");
        for part in ["containers \"a\", \"b\"", "allowPrivilegeEscalation", "drop=[\"ALL\"]", "runAsNonRoot", "seccomp"]
        {
            assert!(why.contains(part), "{part} in {why}");
        }
        assert_eq!(refusal("baseline", &plain), None);
        assert_eq!(refusal("privileged", &plain), None);
        let own = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
        let pod = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
        let good = json!({"securityContext": pod, "containers": [{"name": "a", "securityContext": own}]});
        assert_eq!(refusal("restricted", &good), None);
        let mut agent = good;
        agent["ephemeralContainers"] = json!([{"name": "agent"}]);
        assert!(refusal("restricted", &agent).unwrap().contains("container \"agent\""));
    }

    #[test]
    fn a_baseline_namespace_refuses_the_host() {
        let host = json!({"hostNetwork": true, "containers": [{"name": "a", "securityContext": {"privileged": true}}]});
        let why = refusal("baseline", &host).unwrap();
        assert!(why.contains("hostNetwork=true") && why.contains("privileged"), "{why}");
    }
}
