//! Tests that need neither root nor a cluster.

#[path = "it/support.rs"]
mod support;

#[path = "it/architecture.rs"]
mod architecture;
#[path = "it/interleavings.rs"]
mod interleavings;
#[path = "it/shells.rs"]
mod shells;
