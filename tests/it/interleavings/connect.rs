//! The connect scenario.
