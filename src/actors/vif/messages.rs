//! What Vif takes, and what it tells.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::actors::shell::{Reply, told};
use crate::ids::Generation;

/// Session → Vif. Make the device; sent once. The answer to it is a [`VifChanged`].
#[derive(Clone, Debug)]
pub struct Open {
    /// Device name (`podway0`).
    pub device: String,
    /// MTU.
    pub mtu: u32,
}

/// Session → Vif. No new flows, all flows ended; the device stays.
#[derive(Debug)]
pub struct StopDataPlane {
    /// Answered when no flow is left.
    pub reply: Reply<()>,
}

/// Session → Vif. Remove the device; ordered and bounded in time.
#[derive(Debug)]
pub struct Close {
    /// Answered when it is gone.
    pub reply: Reply<()>,
}

/// Vif → Session, Dns. Fact: state of the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VifChanged {
    /// Version.
    pub generation: Generation,
    /// State.
    pub state: VifState,
}

/// State of the device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VifState {
    /// Not there yet.
    Down,
    /// There, with the addresses and routes of some plan or none yet.
    Up {
        /// Interface index.
        ifindex: u32,
        /// Interface name.
        name: Arc<str>,
        /// Generation of the newest plan that is applied; what of its IPv6 the host refused is in `failed`.
        applied: Generation,
        /// Destinations on the device now, as text.
        routes: Vec<String>,
        /// What could not be applied: destination to cause.
        failed: BTreeMap<String, String>,
    },
    /// Gone, or never to come; says why. The session cannot go on.
    Failed {
        /// Why, with what to do.
        why: String,
    },
}

/// Data plane → Session, at most once a second. Counters since the device came up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FlowStats {
    /// TCP flows open now.
    pub tcp_open: u64,
    /// TCP flows ever opened.
    pub tcp_total: u64,
    /// UDP associations open now.
    pub udp_open: u64,
    /// UDP associations ever opened.
    pub udp_total: u64,
    /// DNS queries taken out of the packet path.
    pub dns_queries: u64,
    /// Bytes from the workstation to the cluster, payload only.
    pub bytes_sent: u64,
    /// Bytes from the cluster to the workstation, payload only.
    pub bytes_received: u64,
    /// Flows refused, by the far side or by us.
    pub refused: u64,
    /// Of those, the ones that were too many.
    pub over_limit: u64,
    /// Packets dropped, by the reason.
    pub dropped: Dropped,
    /// Bytes from the cluster that programs here have not read yet.
    #[serde(default)]
    pub held: u64,
    /// Flows ended because an agent sent more than it was granted.
    #[serde(default)]
    pub broken: u64,
}

/// Packets that did not go on, by the reason. Each is counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Dropped {
    /// A source that is not the device's.
    pub source: u64,
    /// Another host sent them through this one, or a program chose their hop limit.
    pub forwarded: u64,
    /// Not what their headers say.
    pub malformed: u64,
    /// Parts of packets whose others did not come, or do not fit.
    pub fragment: u64,
    /// Neither TCP, UDP nor echo requests.
    pub protocol: u64,
    /// To a multicast or broadcast address.
    pub multicast: u64,
    /// Resets of connections that are not there.
    pub stray: u64,
    /// Too many waited for their flow.
    pub flow_full: u64,
    /// Queries, where too many waited for an answer.
    pub dns_full: u64,
    /// Echo requests, where too many waited for an answer.
    pub echo_full: u64,
    /// Datagrams, where there was no room on the way to the agent.
    pub udp_full: u64,
    /// Datagrams from the cluster that are longer than a packet can be.
    pub too_long: u64,
    /// To the workstation, where the device's queue was full.
    pub device_full: u64,
    /// To the workstation, where the device did not take them.
    pub device_refused: u64,
}

told!(Open, StopDataPlane, Close, VifChanged, FlowStats);
