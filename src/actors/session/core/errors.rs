//! The words for what cannot work. Each says what to do.

use std::collections::{BTreeMap, BTreeSet};

use podway_tunnel::MAX_SPECIAL;

use crate::actors::session::messages::Child;
use crate::cluster::Resolution;
use crate::error::{Reason, UserError};
use crate::net::cidr::Cidr;
use crate::net::views::Target;
use crate::workload::{Workload, WorkloadRef};

/// The device cannot be made, or is gone.
pub fn device(why: &str) -> UserError {
    let hint = match why.contains("exists already") {
        true => "somebody made it this moment: connect again, which takes a name that is free",
        false => "podwayd needs CAP_NET_ADMIN and /dev/net/tun: start it with systemd or with sudo",
    };
    UserError::new(Reason::DeviceFailed, format!("network device: {why}"), hint)
}

/// A right is missing.
pub fn forbidden(what: &str, namespace: &str) -> UserError {
    UserError::new(Reason::Forbidden, format!("namespace {namespace}: missing right: {what}"), rights(namespace))
}

/// What to do about a missing right.
fn rights(namespace: &str) -> String {
    format!("an administrator grants it with: podway rbac -n {namespace} --user NAME | kubectl apply -f -")
}

/// The credentials are not taken.
pub fn unauthorized(why: &str) -> UserError {
    UserError::new(Reason::Unauthorized, format!("API server: {why}"), "log in again, then connect again")
}

/// Names cannot be attached as asked.
pub fn dns(why: &str) -> UserError {
    UserError::new(Reason::DnsFailed, format!("DNS: {why}"), "--dns auto takes what works on this host")
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
    // A registry may say "forbidden" too.
    let of_the_image = why.contains("does not start");
    if !of_the_image && (why.contains("missing right") || why.contains("forbidden")) {
        let namespace = match target {
            Target::Workload(workload) => &workload.namespace,
            Target::General => connected,
        };
        return UserError::new(Reason::Forbidden, format!("{what}: {why}"), rights(namespace));
    }
    let hint = if of_the_image || why.contains("image") {
        "name an image that the nodes can pull with --agent-image"
    } else if why.contains("of another version") {
        "name the agent's image of this podway's version with --agent-image"
    } else {
        "see podway status, and kubectl describe of the pod"
    };
    UserError::new(Reason::AgentNotPlaced, format!("{what}: {why}"), hint)
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
            "check that kubectl get pods works with the same flags",
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
        assert!(device(&TunError::NotPermitted.to_string()).hint.contains("CAP_NET_ADMIN"));
    }

    #[test]
    fn a_registry_that_forbids_is_no_missing_right() {
        let refused = "pod web-1: image r.example/web:1 does not start: ErrImagePull: access is forbidden";
        let error = target(&Target::General, "demo", refused);
        assert_eq!(error.reason, Reason::AgentNotPlaced);
        assert!(error.hint.contains("--agent-image"), "{}", error.hint);
        assert_eq!(target(&Target::General, "demo", "pods is forbidden").reason, Reason::Forbidden);
    }
}
