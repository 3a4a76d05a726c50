//! Bytes, packets, addresses and the operating system. Knows nothing of actors.

pub mod agent;
pub mod cidr;
<<<<<<< HEAD
pub mod dns_message;
pub mod os_journal;
pub mod resolver;
=======
pub mod kube_client;
pub mod portforward;
>>>>>>> kube
pub mod route_plan;
pub mod views;
