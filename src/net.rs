//! Bytes, packets, addresses and the operating system. Knows nothing of actors.

pub mod agent;
pub mod cidr;
pub mod kube_client;
pub mod portforward;
pub mod route_plan;
pub mod views;
