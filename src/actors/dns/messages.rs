//! What Dns takes, and what it tells.

use crate::actors::shell::{Reply, told};
use crate::ids::Generation;
use crate::net::dns_tap::DnsQuery;
pub use crate::net::dns_tap::DnsTransport as Transport;
use crate::net::resolver::Outlook;
use crate::spec::DnsMode;

/// Session → Dns. How names work in this connection; sent once.
#[derive(Clone, Debug)]
pub struct Configure {
    /// How the host's resolver is attached.
    pub mode: DnsMode,
    /// The connected namespace.
    pub namespace: String,
    /// More suffixes that the cluster answers (`dns.include_suffixes`).
    pub include_suffixes: Vec<String>,
}

/// Data plane → Dns. One raw query that came to a DNS address.
#[derive(Debug)]
pub struct QueryArrived(pub DnsQuery);

/// Session → Dns. Undo everything done to the host's resolver, before the link goes.
#[derive(Debug)]
pub struct Restore {
    /// What could not be undone, empty when all is as it was.
    pub reply: Reply<Vec<String>>,
}

/// Dns → Session. Fact: how names are attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsChanged {
    /// Version.
    pub generation: Generation,
    /// State.
    pub state: DnsState,
}

/// How names are attached to the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct DnsState {
    /// `systemd-resolved`, `/etc/resolv.conf`, `off`, or empty while undecided.
    pub backend: String,
    /// The address at which Dns is asked.
    pub server: String,
    /// Search domains and routing-only domains (`~svc`) on the link.
    pub domains: Vec<String>,
    /// The namespaces whose names are known, where that is not all.
    pub only: Option<Vec<String>>,
    /// Whether what is wanted is applied and verified.
    pub ready: bool,
    /// Why not, or a warning, with what to do.
    pub message: String,
    /// What there is to hope for where it is not ready.
    pub outlook: Outlook,
}

told!(Configure, QueryArrived, Restore, DnsChanged);
