//! podway's traffic agent: dials for the workstation from inside a pod's network.
//!
//! - [`args`]: the command line.
//! - [`server`]: carriers and who may use them.
//! - [`places`]: flows that may go on over another carrier.
//! - [`dial`], [`tcp`], [`udp`], [`dns`]: what it does for them.
//! - [`policy`]: what it never dials.
//! - [`program`]: the process around it.

pub mod args;
pub mod dial;
pub mod dns;
pub mod icmp;
pub mod places;
pub mod policy;
pub mod program;
pub mod server;
pub mod tcp;
pub mod udp;
