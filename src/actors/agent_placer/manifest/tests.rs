//! What is asked, word for word, and whether Pod Security "restricted" admits it.

use super::*;

fn agent() -> Agent {
    Agent { image: "registry.example/podway-agent:1".into(), key: "a2V5".into(), fingerprint: "1a2b3c4d".into() }
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
