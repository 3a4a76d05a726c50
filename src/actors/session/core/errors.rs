//! The words for what cannot work. Each says what to do.

use std::collections::{BTreeMap, BTreeSet};

use podway_tunnel::MAX_SPECIAL;

use crate::actors::agent_placer::core::FULL;
use crate::actors::session::messages::Child;
use crate::cluster::{NamespaceRights, Resolution};
use crate::error::{Reason, UserError};
use crate::net::cidr::Cidr;
use crate::net::views::Target;
use crate::spec::{AgentMode, ConnectSpec, RangeSelector, ViaRule};
use crate::workload::{Workload, WorkloadRef};

/// The device cannot be made, or is gone.
pub fn device(why: &str) -> UserError {
    let hint = if why.contains("exists already") {
        "somebody made it this moment: connect again, which takes a name that is free"
    } else if why.contains("is missing") {
        "load the driver: sudo modprobe tun; in a container, start that with --device /dev/net/tun"
    } else if why.contains("may not be opened") {
        "start podwayd as root: sudo systemctl restart podwayd; in a container, allow it that device"
    } else if why.contains("CAP_NET_ADMIN") {
        "start podwayd with systemd or with sudo; in a container, start that with --cap-add NET_ADMIN"
    } else if why.contains("os error 24") {
        "raise its limit of open files: LimitNOFILE= by systemctl edit podwayd, or ulimit -n before sudo podwayd"
    } else {
        "see the log of podwayd: journalctl -u podwayd"
    };
    UserError::new(Reason::DeviceFailed, format!("network device: {why}"), hint)
}

/// Without these rights there is no connection as `spec` asks for it: all that is missing of them in the connected
/// namespace is named.
pub fn forbidden(had: NamespaceRights, spec: &ConnectSpec) -> UserError {
    let namespace = &spec.namespace;
    let here = |rule: &ViaRule<WorkloadRef>| rule.workload.namespace.as_ref().is_none_or(|name| name == namespace);
    let placed = spec.agent != AgentMode::Pod && spec.proxy_via.iter().any(here);
    let own = spec.agent != AgentMode::Ephemeral && !spec.proxy_via.iter().any(|rule| rule.range == RangeSelector::All);
    let all = [
        (had.watch_pods, "get, list and watch pods and services"),
        (had.port_forward, "get and create pods/portforward"),
        (had.ephemeral_containers || !placed, "get and patch pods/ephemeralcontainers"),
        (had.create_jobs || had.create_pods || !own, "create jobs or pods"),
    ];
    let missing: Vec<&str> = all.iter().filter_map(|(had, what)| (!had).then_some(*what)).collect();
    let word = if missing.len() == 1 { "right" } else { "rights" };
    let message = format!("namespace {namespace}: missing {word}: {}", missing.join("; "));
    UserError::new(Reason::Forbidden, message, rights(namespace))
}

/// What to do about a missing right.
fn rights(namespace: &str) -> String {
    format!("an administrator grants it with: podway rbac -n {namespace} --user NAME | kubectl apply -f -")
}

/// The credentials are not taken.
pub fn unauthorized(why: &str) -> UserError {
    UserError::new(Reason::Unauthorized, format!("API server: {why}"), "log in again, then connect again")
}

/// Names cannot be attached as asked. What to do is said behind the last semicolon, where it is said.
pub fn dns(why: &str) -> UserError {
    let hint = "connect with --dns auto: it takes what works on this host";
    UserError::of_sentence(Reason::DnsFailed, &format!("DNS: {why}"), hint)
}

/// A via workload cannot get a link.
pub fn target(target: &Target, connected: &str, why: &str) -> UserError {
    let what = match target {
        Target::Workload(workload) => workload.to_string(),
        Target::General if why.contains("--agent ephemeral") => {
            let message = format!("connect: {why}, and no --proxy-via names a workload whose pods could carry traffic");
            let hint = "add --proxy-via RANGE=WORKLOAD, or use --agent auto";
            return UserError::new(Reason::AgentNotPlaced, message, hint);
        }
        Target::General => "podway's own pod".to_owned(),
    };
    let namespace = match target {
        Target::Workload(workload) => &workload.namespace,
        Target::General => connected,
    };
    if let Some(full) = why.strip_suffix(FULL) {
        let pod = full.rsplit_once("pod ").and_then(|(_, rest)| rest.split(' ').next()).unwrap_or("NAME");
        let hint = format!("kubectl -n {namespace} delete pod {pod}: the one that comes in its place has room");
        return UserError::new(Reason::AgentNotPlaced, format!("{what}: {full}, and takes no more"), hint);
    }
    let (reason, hint) = advice(why, namespace);
    UserError::new(reason, format!("{what}: {why}"), hint)
}

/// What to do where no agent comes, by the words of whoever refuses: the kubelet, the API server, the agent.
pub fn advice(why: &str, namespace: &str) -> (Reason, String) {
    // A registry may say "forbidden" too.
    if why.contains("does not start") {
        let hint = match why.contains("architecture") {
            true => {
                "kubectl get nodes -L kubernetes.io/arch tells it: build the agent for that, and name its image with \
                 --agent-image"
            }
            false => "name an image that the nodes can pull with --agent-image",
        };
        return (Reason::AgentNotPlaced, hint.to_owned());
    }
    // As RBAC says it: … is forbidden: User "ann" cannot patch resource …
    if why.contains("missing right") || (why.contains("is forbidden: User ") && why.contains(" cannot ")) {
        return (Reason::Forbidden, rights(namespace));
    }
    let hint = if why.contains("violates PodSecurity") {
        format!(
            "an administrator relaxes pod-security.kubernetes.io/enforce of namespace {namespace}; or connect without a rule \
             for it, through podway's own pod, which keeps to it"
        )
    } else if why.contains("exceeded quota") {
        format!("make room, or let an administrator raise it: kubectl -n {namespace} describe quota")
    } else if why.contains("failed quota") {
        format!("the quota wants limits of each container: a LimitRange in namespace {namespace} gives defaults")
    } else if why.contains("admission webhook") {
        "ask whoever runs that policy to let podway's agent pass, or try the other kind: --agent ephemeral, --agent pod"
            .to_owned()
    } else if why.contains("failed calling webhook") {
        "an administrator mends or removes it: kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations"
            .to_owned()
    } else if why.contains("of another version") {
        "name the agent's image of this podway's version with --agent-image".to_owned()
    } else {
        format!("kubectl -n {namespace} describe pod NAME tells more, and so does podway status")
    };
    (Reason::AgentNotPlaced, hint)
}

/// A reference of a rule names no workload; `None` when it does.
pub fn resolution(reference: &WorkloadRef, connected: &str, resolution: &Resolution) -> Option<UserError> {
    let namespace = reference.namespace.as_deref().unwrap_or(connected);
    Some(match resolution {
        Resolution::Found { .. } => return None,
        Resolution::NotFound { namespace_missing: true, .. } => UserError::new(
            Reason::NamespaceNotFound,
            format!("workload {reference}: namespace {namespace} does not exist"),
            "kubectl get namespaces lists those that do",
        ),
        Resolution::NotFound { near, namespace_missing: false } => {
            let hint = if near.is_empty() {
                let listed = "get deployments,statefulsets,daemonsets,pods lists what there is";
                let other = "; one of another namespace is NAMESPACE/KIND/NAME, such as other/deployment/api";
                format!("kubectl -n {namespace} {listed}{}", if reference.namespace.is_none() { other } else { "" })
            } else {
                format!("did you mean {}?", near.join(" or "))
            };
            let message = format!("workload {reference}: not found in namespace {namespace}");
            UserError::new(Reason::WorkloadNotFound, message, hint)
        }
        Resolution::Ambiguous { candidates } => {
            let names: Vec<String> = candidates.iter().map(|w| format!("{}/{}", w.kind, w.name)).collect();
            UserError::new(
                Reason::WorkloadAmbiguous,
                format!("workload {reference}: several kinds have that name in namespace {namespace}"),
                format!("say which: {}", names.join(", ")),
            )
        }
        Resolution::Forbidden { missing } => UserError::new(
            Reason::Forbidden,
            format!("workload {reference}: missing right: {missing}"),
            rights(namespace),
        ),
        Resolution::Failed { why } => UserError::new(
            Reason::ClusterUnreachable,
            format!("workload {reference}: cannot be looked up: {why}"),
            "see that kubectl get pods works with the same flags, then connect again",
        ),
    })
}

/// A workload's agent is asked to serve more ranges of its pod's loopback than it does; `None` when each can.
pub fn loopback(ranges: &[(Cidr, Workload)]) -> Option<UserError> {
    let mut of_workload: BTreeMap<&Workload, BTreeSet<&Cidr>> = BTreeMap::new();
    for (cidr, workload) in ranges {
        of_workload.entry(workload).or_default().insert(cidr);
    }
    let (workload, ranges) = of_workload.into_iter().find(|(_, ranges)| ranges.len() > MAX_SPECIAL)?;
    Some(UserError::new(
        Reason::LimitReached,
        format!("{workload}: {} loopback ranges in --proxy-via: an agent serves at most {MAX_SPECIAL}", ranges.len()),
        "name wider ranges, such as 127.0.0.0/24",
    ))
}

/// A child of the session ended too often.
pub fn child_ended(child: Child, what: &str) -> UserError {
    UserError::new(
        Reason::Internal,
        format!("{child:?} {what}"),
        "this is a bug in podway: please report it with the log",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::tun::TunError;

    #[test]
    fn an_agent_of_another_version_asks_for_the_right_image() {
        let why = "the agent that was placed is of another version: the agent speaks protocol 2, this podway 1";
        let error = target(&Target::General, "demo", why);
        assert_eq!(error.reason, Reason::AgentNotPlaced);
        assert!(error.hint.contains("--agent-image"), "{}", error.hint);
    }

    #[test]
    fn a_name_that_is_like_none_tells_how_one_of_another_namespace_is_written() {
        let hint = |reference: &str, near: &[&str]| {
            let near = near.iter().map(|name| (*name).to_owned()).collect();
            let missing = Resolution::NotFound { near, namespace_missing: false };
            resolution(&reference.parse().expect("a reference"), "demo", &missing).expect("an error").hint
        };
        assert!(hint("api", &[]).contains("of another namespace is NAMESPACE/KIND/NAME"), "{}", hint("api", &[]));
        assert!(!hint("other/deployment/api", &[]).contains("NAMESPACE"), "{}", hint("other/deployment/api", &[]));
        let both = hint("api", &["other/deployment/api", "deployment/app"]);
        assert_eq!(both, "did you mean other/deployment/api or deployment/app?");
    }

    #[test]
    fn without_a_pod_of_its_own_a_rule_is_asked_for() {
        let error = target(&Target::General, "demo", "--agent ephemeral makes no pod of its own");
        let said = "connect: --agent ephemeral makes no pod of its own, and no --proxy-via names a workload";
        assert!(error.message.starts_with(said), "{}", error.message);
        assert_eq!(error.hint, "add --proxy-via RANGE=WORKLOAD, or use --agent auto");
        let error = target(&Target::General, "demo", "no answer");
        assert_eq!(error.message, "podway's own pod: no answer");
    }

    #[test]
    fn a_name_that_is_taken_is_no_missing_capability() {
        let taken = TunError::Exists { name: "podway0".into() };
        let error = device(&taken.to_string());
        assert_eq!(error.message, "network device: a link named podway0 exists already");
        assert!(error.hint.contains("connect again"), "{}", error.hint);
        let hints =
            [TunError::NotPermitted, TunError::Closed, TunError::NoDriver].map(|error| device(&error.to_string()).hint);
        assert!(
            hints[0].contains("NET_ADMIN") && hints[1].contains("as root") && hints[2].contains("modprobe"),
            "{hints:?}"
        );
    }

    #[test]
    fn a_registry_that_forbids_is_no_missing_right() {
        let refused = "pod web-1: image r.example/web:1 does not start: ErrImagePull: access is forbidden";
        let error = target(&Target::General, "demo", refused);
        assert_eq!(error.reason, Reason::AgentNotPlaced);
        assert!(error.hint.contains("--agent-image"), "{}", error.hint);
        let rbac = "pods is forbidden: User \"ann\" cannot create resource \"pods\" in API group \"\" in the namespace \"demo\"";
        assert_eq!(target(&Target::General, "demo", rbac).reason, Reason::Forbidden);
    }

    #[test]
    fn a_pod_that_has_no_room_is_named_in_the_command_that_helps() {
        let why = format!("pod web-1: no; pod web-1 holds 4 agents that do not run{FULL}");
        let error = target(&Target::General, "demo", &why);
        assert!(
            error.message.ends_with("pod web-1 holds 4 agents that do not run, and takes no more"),
            "{}",
            error.message
        );
        assert!(error.hint.starts_with("kubectl -n demo delete pod web-1:"), "{}", error.hint);
    }

    #[test]
    fn a_policy_that_forbids_is_no_missing_right() {
        for (why, hint) in [
            (
                "pods \"a\" is forbidden: violates PodSecurity \"restricted:latest\": privileged",
                "pod-security.kubernetes.io/enforce",
            ),
            ("pods \"a\" is forbidden: exceeded quota: small, requested: pods=1", "describe quota"),
            ("pods \"a\" is forbidden: failed quota: q: must specify limits.cpu for: podway-agent", "LimitRange"),
            ("admission webhook \"a.b\" denied the request: no", "that policy"),
            ("failed calling webhook \"a.b\": context deadline exceeded", "validatingwebhookconfigurations"),
        ] {
            let error = target(&Target::General, "demo", why);
            assert_eq!(error.reason, Reason::AgentNotPlaced, "{why}");
            assert!(error.hint.contains(hint), "{}", error.hint);
        }
    }

    #[test]
    fn all_rights_that_are_missing_are_named() {
        let spec = |agent: &str, rules: &[&str]| {
            let spec = serde_json::json!({"name": "a", "namespace": "demo", "agent": agent, "proxy_via": rules, "timeout_ms": 1000});
            serde_json::from_value::<ConnectSpec>(spec).unwrap()
        };
        let none = forbidden(NamespaceRights::default(), &spec("auto", &["service=web"]));
        for right in ["watch pods", "pods/portforward", "pods/ephemeralcontainers", "create jobs or pods"] {
            assert!(none.message.contains(right), "{}", none.message);
        }
        let all = NamespaceRights {
            watch_pods: false,
            port_forward: true,
            ephemeral_containers: true,
            create_pods: true,
            delete_pods: true,
            create_jobs: false,
        };
        let one = forbidden(all, &spec("auto", &["service=web"]));
        assert_eq!(one.message, "namespace demo: missing right: get, list and watch pods and services");
        // What the connection does not take is not asked for.
        for (agent, rules, left_out) in [
            ("pod", vec!["service=web"], "ephemeralcontainers"),
            ("auto", vec![], "ephemeralcontainers"),
            ("auto", vec!["service=other/deployment/web"], "ephemeralcontainers"),
            ("ephemeral", vec!["service=web"], "create jobs"),
            ("auto", vec!["all=web"], "create jobs"),
        ] {
            let told = forbidden(NamespaceRights::default(), &spec(agent, &rules));
            assert!(!told.message.contains(left_out), "{agent} {rules:?}: {}", told.message);
        }
    }
}
