//! podway connects a Linux workstation to a Kubernetes cluster.
//!
//! - [`actors`]: who decides. Each actor is a pure core in a thin shell; they speak by messages only.
//! - [`net`]: bytes, packets, addresses, the operating system.
//! - [`cluster`], [`workload`], [`spec`], [`ids`]: the words they share.

pub mod actors;
pub mod backoff;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod control_client;
pub mod core_files;
pub mod daemon;
pub mod demo;
pub mod digest;
pub mod error;
pub mod identity;
pub mod ids;
pub mod keeper;
pub mod kubeconfig;
pub mod logs;
pub mod near;
pub mod net;
pub mod places;
pub mod plan;
pub mod programs;
pub mod refusal;
pub mod span;
pub mod spec;
pub mod status;
pub mod timestamp;
pub mod workload;
