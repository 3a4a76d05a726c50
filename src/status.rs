//! What `podway status` shows: one document per connection, published by Session, sent as JSON, printed by the command.
//!
//! Additive only: scripts read it.

use serde::{Deserialize, Serialize};

use crate::actors::vif::messages::FlowStats;
use crate::timestamp;

/// The state of one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// Name of the connection.
    pub name: String,
    /// Name of the kubeconfig context.
    pub context: String,
    /// URL of the API server.
    pub server: String,
    /// Connected namespace.
    pub namespace: String,
    /// Whose it is.
    pub owner_uid: u32,
    /// Where it stands as a whole.
    pub phase: Phase,
    /// How the `connect` that asked for it ended, once it has.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub outcome: Option<ConnectOutcome>,
    /// How one of now would end, were its time over; within the daemon only.
    #[serde(skip)]
    pub standing: Option<ConnectOutcome>,
    /// When it was started, in seconds since 1970; RFC 3339 in JSON.
    #[serde(with = "timestamp::text")]
    pub since: i64,
    /// Conditions as Kubernetes writes them: `Ready`, `RoutesReady`, `DNSReady`, `AgentReady`, `WatchReady`,
    /// and one `WorkloadReady` per via workload, which is its `subject`.
    pub conditions: Vec<Condition>,
    /// Steps of connect, in the order in which they were done.
    pub steps: Vec<Step>,
    /// Ranges and what happens to them.
    pub ranges: Vec<RangeLine>,
    /// Virtual address ranges and their use.
    pub vips: Vips,
    /// Via workloads and the default egress.
    pub workloads: Vec<WorkloadLine>,
    /// Names.
    pub dns: DnsLine,
    /// The device.
    pub device: DeviceLine,
    /// Counters of the data plane.
    pub flows: FlowStats,
    /// Warnings a user should read, each with what to do.
    pub warnings: Vec<String>,
    /// When the credentials end, in seconds since 1970, where known; RFC 3339 in JSON.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "timestamp::optional_text")]
    pub credentials_expire_at: Option<i64>,
    /// Who renews the credentials, where they end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub credentials: Option<CredentialsLine>,
    /// The API server, while it has not answered.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub api_server: Option<ApiServerLine>,
    /// What a person may type next, where something is worth saying.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub suggestion: Option<String>,
}

impl SessionStatus {
    /// Whether a condition is True, and for each subject it has; its type in any case of letters.
    pub fn holds(&self, condition: &str) -> bool {
        let mut of_type = self.conditions.iter().filter(|c| c.r#type.eq_ignore_ascii_case(condition)).peekable();
        of_type.peek().is_some() && of_type.all(|c| c.status == "True")
    }

    /// What a person should read, each once: the warnings, and what device and names say that no warning says.
    pub fn notices(&self) -> Vec<&str> {
        let mut notices: Vec<&str> = self.warnings.iter().map(String::as_str).collect();
        // What names that work have to say is in the steps of connect; it is nothing to do something about.
        let names = Some(&self.dns.message).filter(|_| !self.dns.ready);
        for line in self.device.failed.iter().chain(names) {
            if !line.is_empty() && !notices.iter().any(|notice| notice.contains(line.as_str())) {
                notices.push(line);
            }
        }
        notices
    }
}

/// An API server that has not answered since the connection began, or was made anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiServerLine {
    /// Why, as far as that is known.
    pub message: String,
    /// Since when its answer is waited for, in seconds since 1970; RFC 3339 in JSON.
    #[serde(with = "timestamp::text")]
    pub waiting_since: i64,
    /// When it is asked again; absent while it is being asked.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "timestamp::optional_text")]
    pub next_try: Option<i64>,
}

impl ApiServerLine {
    /// The same, since when it was so in `previous`: while a host sleeps no clock but that on the wall goes on. The next try
    /// stays where it differs by no more than rounding.
    pub fn steadied(self, previous: &ApiServerLine) -> ApiServerLine {
        let steady = |fresh: i64, before: i64| if fresh.abs_diff(before) <= 1 { before } else { fresh };
        ApiServerLine {
            waiting_since: previous.waiting_since,
            next_try: self.next_try.map(|next| steady(next, previous.next_try.unwrap_or(next))),
            ..self
        }
    }
}

/// Who renews the credentials of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialsLine {
    /// Who, and how it goes.
    pub renewal: RenewalLine,
    /// Why it does not go; empty where it does.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub message: String,
}

/// How the credentials of a connection are renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RenewalLine {
    /// By the user, who connects again.
    ByHand,
    /// By the helper that `connect` left behind.
    Automatic,
    /// The helper failed and is asked again; those that are there may still work.
    Failing,
    /// The API server refuses them, and nobody has others.
    NeedsLogin,
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Phase {
    /// Being made.
    #[default]
    Connecting,
    /// Up; `Ready` tells whether all of it works.
    Connected,
    /// Being torn down.
    Disconnecting,
    /// Over.
    Disconnected,
}

/// How a `connect` ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum ConnectOutcome {
    /// Everything asked for works (exit 0).
    Ready,
    /// Connected, some workload is pending and will attach by itself (exit 4).
    Degraded {
        /// What is pending, and why.
        pending: Vec<String>,
    },
    /// The time was over; the connection stays (exit 124).
    TimedOut {
        /// What was still missing.
        missing: Vec<String>,
    },
    /// It cannot work; torn down (exit 1).
    Failed(crate::error::UserError),
}

/// A condition as Kubernetes writes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Ready`, …
    pub r#type: String,
    /// What it is about, where a connection has several of the type: `namespace/kind/name`.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub subject: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// CamelCase reason.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Seconds since 1970; RFC 3339 in JSON.
    #[serde(with = "timestamp::text")]
    pub last_transition_time: i64,
}

impl Condition {
    /// The types that a connection has.
    pub const TYPES: [&str; 6] = ["Ready", "WatchReady", "RoutesReady", "DNSReady", "AgentReady", "WorkloadReady"];
}

/// One step of connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Milliseconds after the start.
    pub at_ms: u64,
    /// What was found or done.
    pub text: String,
    /// How it went.
    pub mark: Mark,
}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// Done.
    Ok,
    /// Done with something to read.
    Warn,
    /// Not done.
    Fail,
}

/// One range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeLine {
    /// The range.
    pub cidr: String,
    /// What it came from.
    pub source: String,
    /// `routed`, `via demo/deployment/web`, `translated`, `excluded`.
    pub treatment: String,
    /// Why, where that needs saying.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub note: String,
}

impl RangeLine {
    /// Its treatment for people: an address that is translated is reached by its names.
    pub fn treated(&self) -> String {
        match self.treatment == "translated" || self.treatment.starts_with("via ") {
            true => format!("{}, by name", self.treatment),
            false => self.treatment.clone(),
        }
    }

    /// Whether it is one address of the cluster, which stands in where the ranges themselves are not known.
    pub fn is_cluster_address(&self) -> bool {
        matches!(self.source.as_str(), "service" | "pods")
            && (self.cidr.ends_with("/32") || self.cidr.ends_with("/128"))
    }
}

/// Virtual addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vips {
    /// Ranges.
    pub ranges: Vec<String>,
    /// In use.
    pub in_use: usize,
    /// At most.
    pub capacity: u64,
    /// Fixed ones: VIP, real address, workload, name.
    pub fixed: Vec<(String, String, String, String)>,
}

/// One workload that carries traffic, or the default egress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadLine {
    /// `namespace/kind/name`, or `general`.
    pub workload: String,
    /// `Ready`, `Connecting`, `Pending`, `Unreachable`, `Hopeless`.
    pub state: String,
    /// Why, where that needs saying.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub message: String,
    /// Its links.
    pub links: Vec<LinkLine>,
}

impl WorkloadLine {
    /// The default egress, as a `workload`.
    pub const GENERAL: &str = "general";

    /// Its name for people; `alone` where no other carries traffic.
    pub fn title(&self, alone: bool) -> &str {
        match (self.workload == WorkloadLine::GENERAL, alone) {
            (false, _) => &self.workload,
            (true, false) => "everything else",
            (true, true) => "everything",
        }
    }
}

/// One link to one agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkLine {
    /// `namespace/name` of the pod.
    pub pod: String,
    /// `ephemeral container` or `own pod`.
    pub placement: String,
    /// Version of the agent, once it was reached.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub version: String,
    /// `ready`, `dialing`, `draining`, `no agent`, `failed`.
    pub health: String,
    /// Why, where that needs saying.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub message: String,
}

/// Names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsLine {
    /// Back end.
    pub backend: String,
    /// Server address.
    pub server: String,
    /// Domains on the link.
    pub domains: Vec<String>,
    /// The namespaces whose names are known, where that is not all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub only: Option<Vec<String>>,
    /// Whether it is applied and verified.
    pub ready: bool,
    /// Why not, or a warning.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub message: String,
}

/// The device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceLine {
    /// Name.
    pub name: String,
    /// Routes on it.
    pub routes: Vec<String>,
    /// What could not be applied, with the cause.
    pub failed: Vec<String>,
}
