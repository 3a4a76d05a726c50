//! What fails, group by group. Each case is a name, a setup, a command, and what has to be said.

mod api;
mod usage;
mod workload;

use crate::case::Group;

/// All groups, in the order of the document.
pub fn all() -> Vec<Group> {
    vec![usage::group(), workload::group(), api::group()]
}
