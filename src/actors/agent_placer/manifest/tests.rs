//! What is asked, word for word, and whether Pod Security "restricted" admits it.

use super::*;

fn agent() -> Agent {
    Agent {
        image: "registry.example/podway-agent:1".into(),
        key: "a2V5".into(),
        fingerprint: "1a2b3c4d".into(),
        mark: "00ff".into(),
    }
}

#[test]
fn the_ephemeral_container() {
    insta::assert_json_snapshot!(ephemeral_patch(&agent(), "podway-agent-1a2b3c4d-1", 20_000));
}

#[test]
fn the_job() {
    insta::assert_json_snapshot!(own_job(&agent(), 20_000));
}

#[test]
fn the_bare_pod() {
    insta::assert_json_snapshot!(own_pod(&agent(), 20_000));
}

#[test]
fn the_label_of_a_key_is_a_label_whatever_the_key() {
    let other = Agent { key: "o+/=".into(), fingerprint: "99999999".into(), ..agent() };
    assert_ne!(of_key(&agent()), of_key(&other));
    assert_eq!(of_key(&agent()), of_key(&Agent { image: "other".into(), fingerprint: "99999999".into(), ..agent() }));
    let value = of_key(&other).strip_prefix("podway.dev/key=").expect("the label").to_owned();
    assert!(value.len() <= 63 && value.chars().all(|c| c.is_ascii_alphanumeric()), "{value}");
}

#[test]
fn what_this_run_made_is_told_from_what_another_did() {
    for object in [own_job(&agent(), 20_000), own_pod(&agent(), 20_000)] {
        let metadata: ObjectMeta = serde_json::from_value(object["metadata"].clone()).expect("metadata");
        assert!(is_marked(&metadata, &agent()));
        assert!(!is_marked(&metadata, &Agent { mark: "ff00".into(), ..agent() }));
        assert!(!is_marked(&ObjectMeta::default(), &agent()));
    }
}

#[test]
fn everything_is_restricted() {
    let patch = ephemeral_patch(&agent(), "podway-agent-1a2b3c4d-1", 20_000);
    let container = &patch["spec"]["ephemeralContainers"][0];
    restricted(&Value::Null, container);
    for field in ["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resources"] {
        assert!(container.get(field).is_none(), "ephemeral containers may not have {field}");
    }
    for spec in [&own_pod(&agent(), 1)["spec"], &own_job(&agent(), 1)["spec"]["template"]["spec"]] {
        for field in ["hostNetwork", "hostPID", "hostIPC", "hostUsers", "volumes", "initContainers"] {
            assert!(spec.get(field).is_none(), "{field}");
        }
        for container in spec["containers"].as_array().expect("containers") {
            restricted(&spec["securityContext"], container);
        }
    }
}

/// The checks of Pod Security Standards, "baseline" and "restricted", for one container.
fn restricted(pod: &Value, container: &Value) {
    let own = &container["securityContext"];
    let either = |field: &str| own.get(field).or_else(|| pod.get(field)).cloned().unwrap_or_default();
    assert_eq!(own["allowPrivilegeEscalation"], false);
    assert_eq!(own["capabilities"]["drop"], json!(["ALL"]));
    assert!(own["capabilities"].get("add").is_none());
    assert_ne!(own["privileged"], true);
    assert!(own.get("procMount").is_none());
    assert_eq!(either("runAsNonRoot"), true);
    assert_ne!(either("runAsUser"), 0);
    assert!(["RuntimeDefault", "Localhost"].map(Value::from).contains(&either("seccompProfile")["type"]));
    for absent in ["seLinuxOptions", "appArmorProfile", "windowsOptions"] {
        assert_eq!(either(absent), Value::Null, "{absent}");
    }
    for port in container["ports"].as_array().into_iter().flatten() {
        assert!(port.get("hostPort").is_none());
    }
}
