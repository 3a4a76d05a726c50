//! Bytes, packets, addresses and the operating system. Knows nothing of actors.

pub mod agent;
pub mod cidr;
pub mod dns_message;
pub mod kube_client;
pub mod os_journal;
pub mod portforward;
pub mod resolver;
pub mod route_plan;
pub mod views;
pub mod vip;
