//! x

pub mod core;
pub mod messages;
