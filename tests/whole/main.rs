//! podwayd as a whole, on a miniature cluster: the checks of the run on a real one (`tests/cluster/checks`), and those of
//! IPv6. Each test has a cluster and a workstation of its own, so that any number run at a time; those that hold podway to a
//! short time run alone.
//!
//! - [`workstation`]: sockets, names and files there. [`client`]: what programs do with them.
//! - [`world`]: the cluster, the daemon and its command. [`traces`]: what podway could leave behind.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::allow_attributes, reason = "a test says what it expects")]
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a test waits with a limit, says how long it took, and names what it expects"
)]

#[path = "../support/allowed.rs"]
mod allowed;
#[path = "../../tunnel/tests/support/nonsense.rs"]
mod nonsense;
#[expect(dead_code, reason = "what was seen of the schema is asked elsewhere")]
#[path = "../support/schema.rs"]
mod schema;

mod client;
mod login;
mod traces;
mod workstation;
mod world;

mod changes;
mod clusters;
mod connect;
mod credentials;
mod datagrams;
mod faults;
mod hostile;
mod ipv6;
mod lifecycle;
mod names;
mod overlap;
mod ping;
mod plan;
mod proxy_via;
mod rights;
mod standstill;
mod traffic;
mod transfers;
