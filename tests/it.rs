//! The tests that need neither root nor a cluster, in one binary: one link, one set of helpers.

#[path = "it/support.rs"]
mod support;

#[path = "it/actix_semantics.rs"]
mod actix_semantics;
#[path = "it/architecture.rs"]
mod architecture;
#[path = "it/interleavings.rs"]
mod interleavings;
#[path = "it/shells.rs"]
mod shells;
#[path = "it/unit_file.rs"]
mod unit_file;
