//! What `podway connect --dry-run` shows: what connecting would change, on this host and in the cluster.
//!
//! Additive only: scripts read it.

use serde::{Deserialize, Serialize};

use crate::spec::ConnectSpec;
use crate::status::RangeLine;

/// What connecting would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectPlan {
    /// What would be asked for.
    pub spec: ConnectSpec,
    /// URL of the API server.
    pub server: String,
    /// The device.
    pub device: PlannedDevice,
    /// Ranges and what would happen to them.
    pub ranges: Vec<RangeLine>,
    /// Where virtual addresses would come from.
    pub virtual_ranges: Vec<String>,
    /// Names.
    pub dns: PlannedDns,
    /// Agents that are there, would be placed, or cannot be.
    pub agents: Vec<PlannedAgent>,
    /// Rights that are missing for it, each as `VERB RESOURCE in namespace NAMESPACE`.
    pub missing_rights: Vec<String>,
}

/// The device that would be made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedDevice {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Routes that would lead to it.
    pub routes: Vec<String>,
}

/// How names would be attached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedDns {
    /// `systemd-resolved`, `resolv.conf` or `off`.
    pub backend: String,
    /// Where names would be asked.
    pub servers: Vec<String>,
    /// What is to be said of it: what would be changed, or why it cannot be done.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub message: String,
}

/// One agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedAgent {
    /// `namespace/kind/name`, or `general`.
    pub workload: String,
    /// What would be done.
    pub action: AgentAction,
    /// `namespace/name` of the pod; absent where there is none yet.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub pod: String,
    /// `ephemeral container` or `own pod`; absent where none would be.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub placement: String,
    /// Image of one that would be placed.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub image: String,
    /// Why there would be none.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub message: String,
}

/// What would be done about an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentAction {
    /// It is there, and would be used.
    Use,
    /// It would be placed.
    Place,
    /// It would be placed once a pod runs.
    Wait,
    /// It cannot be placed.
    Refused,
}
