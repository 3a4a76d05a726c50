//! Workloads that are not there, or carry nothing.

use crate::case::{Daemon, Group, case};

pub fn group() -> Group {
    let cases = vec![
        case("a name that is not there", &["connect", "-n", "demo", "--proxy-via", "service=wbe"], "WorkloadNotFound")
            .says(&["wbe", "demo", "did you mean deployment/web"]),
        case("a namespace that is not there", &["connect", "-n", "nosuch"], "NamespaceNotFound").says(&["nosuch"]),
    ];
    Group { title: "Workloads", daemon: Daemon::Serves, cases }
}
