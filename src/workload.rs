//! Workloads and pods: what users name, and what identifies it.
//!
//! Identity is (namespace, kind, name) for a workload and the UID for a pod; a bare name identifies nothing.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The kinds whose pods podway can send traffic through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkloadKind {
    /// apps/v1 Deployment.
    Deployment,
    /// apps/v1 ReplicaSet that no Deployment owns.
    ReplicaSet,
    /// apps/v1 StatefulSet.
    StatefulSet,
    /// apps/v1 DaemonSet.
    DaemonSet,
    /// batch/v1 Job.
    Job,
    /// A pod without a controller that podway knows.
    Pod,
}

impl WorkloadKind {
    /// Every kind, in the order in which names are looked up and listed.
    pub const ALL: [WorkloadKind; 6] = [
        WorkloadKind::Deployment,
        WorkloadKind::StatefulSet,
        WorkloadKind::DaemonSet,
        WorkloadKind::ReplicaSet,
        WorkloadKind::Job,
        WorkloadKind::Pod,
    ];

    /// The lower-case singular name, as kubectl spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            WorkloadKind::Deployment => "deployment",
            WorkloadKind::ReplicaSet => "replicaset",
            WorkloadKind::StatefulSet => "statefulset",
            WorkloadKind::DaemonSet => "daemonset",
            WorkloadKind::Job => "job",
            WorkloadKind::Pod => "pod",
        }
    }

    /// Reads a kind in any of kubectl's spellings (`deploy`, `deployments`, `deployment`).
    pub fn parse(text: &str) -> Option<WorkloadKind> {
        Some(match text.to_ascii_lowercase().as_str() {
            "deployment" | "deployments" | "deploy" => WorkloadKind::Deployment,
            "replicaset" | "replicasets" | "rs" => WorkloadKind::ReplicaSet,
            "statefulset" | "statefulsets" | "sts" => WorkloadKind::StatefulSet,
            "daemonset" | "daemonsets" | "ds" => WorkloadKind::DaemonSet,
            "job" | "jobs" => WorkloadKind::Job,
            "pod" | "pods" | "po" => WorkloadKind::Pod,
            _ => return None,
        })
    }
}

impl fmt::Display for WorkloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The full identity of a workload. Displayed as `namespace/kind/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Workload {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Kind.
    pub kind: WorkloadKind,
    /// Name.
    pub name: Arc<str>,
}

impl Workload {
    /// A workload by its three parts.
    pub fn new(namespace: &str, kind: WorkloadKind, name: &str) -> Workload {
        Workload { namespace: namespace.into(), kind, name: name.into() }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.kind, self.name)
    }
}

/// What a user wrote for a workload: `name`, `kind/name` or `namespace/kind/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadRef {
    /// Namespace, when given; else the connected one.
    pub namespace: Option<String>,
    /// Kind, when given; else every kind is looked through.
    pub kind: Option<WorkloadKind>,
    /// Name, a DNS-1123 subdomain.
    pub name: String,
}

/// Why a workload's text was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkloadRefError {
    /// The name or namespace is no DNS-1123 name.
    #[error("{0:?} is not a valid Kubernetes name")]
    Name(String),
    /// The kind is none that podway knows.
    #[error(
        "{0:?} is not a kind of workload (deployment, statefulset, daemonset, replicaset, job or pod); one of another namespace is NAMESPACE/KIND/NAME"
    )]
    Kind(String),
    /// More than three parts.
    #[error("{0:?} is not a name, kind/name or namespace/kind/name")]
    Shape(String),
}

impl FromStr for WorkloadRef {
    type Err = WorkloadRefError;

    fn from_str(text: &str) -> Result<WorkloadRef, WorkloadRefError> {
        let name = |n: &str| {
            if is_dns1123(n) { Ok(n.to_owned()) } else { Err(WorkloadRefError::Name(n.to_owned())) }
        };
        let kind = |k: &str| WorkloadKind::parse(k).ok_or_else(|| WorkloadRefError::Kind(k.to_owned()));
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            [n] => Ok(WorkloadRef { namespace: None, kind: None, name: name(n)? }),
            [k, n] => Ok(WorkloadRef { namespace: None, kind: Some(kind(k)?), name: name(n)? }),
            [ns, k, n] => Ok(WorkloadRef { namespace: Some(name(ns)?), kind: Some(kind(k)?), name: name(n)? }),
            _ => Err(WorkloadRefError::Shape(text.to_owned())),
        }
    }
}

impl fmt::Display for WorkloadRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        if let Some(kind) = self.kind {
            write!(f, "{kind}/")?;
        }
        f.write_str(&self.name)
    }
}

impl Serialize for WorkloadRef {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WorkloadRef {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Whether `name` is a DNS-1123 subdomain (RFC 1123 as Kubernetes reads it): at most 253 of `[a-z0-9.-]`.
pub fn is_dns1123(name: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            let bytes = label.as_bytes();
            let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
            alnum(first) && alnum(last) && bytes.iter().all(|&b| alnum(b) || b == b'-')
        })
}

/// A pod's UID: the identity that a re-created pod of the same name does not share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodUid(pub Arc<str>);

impl From<&str> for PodUid {
    fn from(uid: &str) -> PodUid {
        PodUid(uid.into())
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_reads_in_its_three_forms() {
        let full: WorkloadRef = "other/deploy/api".parse().expect("valid");
        assert_eq!(full.to_string(), "other/deployment/api");
        assert_eq!("web".parse::<WorkloadRef>().expect("valid").kind, None);
        assert_eq!("sts/store".parse::<WorkloadRef>().expect("valid").kind, Some(WorkloadKind::StatefulSet));
    }

    #[test]
    fn bad_references_say_what_is_wrong() {
        for bad in ["", "Web", "a/b", "x/y/z/w", "deploy/", "-a", "a_b"] {
            assert!(bad.parse::<WorkloadRef>().is_err(), "{bad:?} was taken");
        }
    }
}
