//! A miniature Kubernetes cluster on one machine: a subset of the API, controllers, a kubelet whose pods are network
//! namespaces, and a cluster DNS. What podway's demo and tests connect to.
//!
//! - [`resource`]: the kinds it knows. [`store`]: the objects, their versions and history.
//!
//! Nothing of it outlives the process that started it.

pub mod api;
pub mod faults;
pub mod resource;
pub mod store;
