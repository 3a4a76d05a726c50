//! What fails, group by group. Each case is a name, a setup, a command, and what has to be said.

mod agent;
mod api;
mod connection;
mod host;
mod kubeconfig;
mod rights;
mod usage;
mod workload;

use crate::case::Group;

/// All groups, in the order of the document.
pub fn all() -> Vec<Group> {
    let groups = [
        usage::groups(),
        kubeconfig::groups(),
        api::groups(),
        rights::groups(),
        workload::groups(),
        agent::groups(),
        connection::groups(),
        host::groups(),
    ];
    groups.into_iter().flatten().collect()
}
