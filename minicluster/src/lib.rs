//! A miniature Kubernetes cluster on one machine: a subset of the API, controllers, a kubelet whose pods are network
//! namespaces, and a cluster DNS. What podway's demo and tests connect to.
//!
//! - [`resource`]: the kinds it knows. [`store`]: the objects, their versions and history.
//! - [`strategy`]: what happens to objects on their way into the store. [`object`]: reading them.
//! - [`controllers`]: what makes them true. [`events`]: what people are told. [`names`], [`selector`].
//! - [`manifests`]: what the cluster begins with.
//! - [`cluster`]: it all put together.
//! - [`handle`]: a cluster for a test.
//! - [`control`]: what a running cluster is told and says.
//! - [`time`]: moments. [`clock`]: the one that the machine has.
//! - [`sandbox`]: the namespaces it all runs in, and the workstation. [`net`]: the network between them.
//! - [`kubelet`]: makes pods and services what they say. [`pod_server`]: what runs in the sample pods. [`dns`]: names.
//!
//! Nothing of it outlives the process that started it.

pub mod api;
pub mod clock;
pub mod cluster;
pub mod control;
pub mod controllers;
pub mod dns;
pub mod events;
pub mod faults;
pub mod handle;
pub mod kubelet;
pub mod manifests;
pub mod names;
pub mod net;
pub mod object;
pub mod pod_server;
pub mod rbac;
pub mod resource;
pub mod sandbox;
pub mod selector;
pub mod store;
pub mod strategy;
pub mod time;
