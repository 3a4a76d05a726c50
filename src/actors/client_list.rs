//! x

pub mod messages;
