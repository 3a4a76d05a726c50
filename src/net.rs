//! Bytes, packets, addresses and the operating system. Knows nothing of actors.

pub mod agent;
pub mod cidr;
pub mod counters;
pub mod data_plane;
pub mod descriptors;
pub mod dns_message;
pub mod dns_tap;
mod echo;
pub mod far;
pub mod flow;
mod fragments;
#[cfg(test)]
pub mod in_namespace;
pub mod kube_client;
pub mod obstacle;
pub mod os_journal;
pub mod packet;
pub mod portforward;
pub mod resolver;
pub mod route;
pub mod route_plan;
pub mod tun;
pub mod udp;
pub mod views;
pub mod vip;
