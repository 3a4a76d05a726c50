//! podway's own protocol behind [`super::AgentLink`], over the `podway-tunnel` crate.
