//! The kinds of objects that the cluster knows.

/// One kind of object, as the API names it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// Plural, as in paths.
    pub plural: &'static str,
    /// Kind, as in objects.
    pub kind: &'static str,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

const fn namespaced(group: &'static str, plural: &'static str, kind: &'static str) -> Resource {
    Resource { group, version: "v1", plural, kind, namespaced: true }
}

const fn cluster_wide(group: &'static str, plural: &'static str, kind: &'static str) -> Resource {
    Resource { group, version: "v1", plural, kind, namespaced: false }
}

/// Namespaces.
pub static NAMESPACES: Resource = cluster_wide("", "namespaces", "Namespace");
/// Nodes.
pub static NODES: Resource = cluster_wide("", "nodes", "Node");
/// Pods.
pub static PODS: Resource = namespaced("", "pods", "Pod");
/// Services.
pub static SERVICES: Resource = namespaced("", "services", "Service");
/// Events, which people read.
pub static EVENTS: Resource = namespaced("", "events", "Event");
/// EndpointSlices.
pub static ENDPOINT_SLICES: Resource = namespaced("discovery.k8s.io", "endpointslices", "EndpointSlice");
/// Deployments.
pub static DEPLOYMENTS: Resource = namespaced("apps", "deployments", "Deployment");
/// ReplicaSets.
pub static REPLICA_SETS: Resource = namespaced("apps", "replicasets", "ReplicaSet");
/// StatefulSets.
pub static STATEFUL_SETS: Resource = namespaced("apps", "statefulsets", "StatefulSet");
/// DaemonSets.
pub static DAEMON_SETS: Resource = namespaced("apps", "daemonsets", "DaemonSet");
/// Jobs.
pub static JOBS: Resource = namespaced("batch", "jobs", "Job");
/// Ranges of service addresses.
pub static SERVICE_CIDRS: Resource = cluster_wide("networking.k8s.io", "servicecidrs", "ServiceCIDR");
/// Roles.
pub static ROLES: Resource = namespaced("rbac.authorization.k8s.io", "roles", "Role");
/// Bindings of roles.
pub static ROLE_BINDINGS: Resource = namespaced("rbac.authorization.k8s.io", "rolebindings", "RoleBinding");
/// Roles of the whole cluster.
pub static CLUSTER_ROLES: Resource = cluster_wide("rbac.authorization.k8s.io", "clusterroles", "ClusterRole");
/// Bindings for the whole cluster.
pub static CLUSTER_ROLE_BINDINGS: Resource =
    cluster_wide("rbac.authorization.k8s.io", "clusterrolebindings", "ClusterRoleBinding");

/// All of them.
pub static ALL: [&Resource; 16] = [
    &NAMESPACES,
    &NODES,
    &PODS,
    &SERVICES,
    &EVENTS,
    &ENDPOINT_SLICES,
    &DEPLOYMENTS,
    &REPLICA_SETS,
    &STATEFUL_SETS,
    &DAEMON_SETS,
    &JOBS,
    &SERVICE_CIDRS,
    &ROLES,
    &ROLE_BINDINGS,
    &CLUSTER_ROLES,
    &CLUSTER_ROLE_BINDINGS,
];

impl Resource {
    /// The kind with that group and plural.
    pub fn find(group: &str, plural: &str) -> Option<&'static Resource> {
        ALL.into_iter().find(|resource| resource.group == group && resource.plural == plural)
    }

    /// `apiVersion` of its objects.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }
}
