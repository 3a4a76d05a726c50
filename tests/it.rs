//! The tests that need neither root nor a cluster, in one binary: one link, one set of helpers.

#[path = "it/unit_file.rs"]
mod unit_file;
