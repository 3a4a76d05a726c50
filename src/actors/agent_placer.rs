//! Placeholder.

pub mod messages;
