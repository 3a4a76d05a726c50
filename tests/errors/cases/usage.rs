//! What is typed wrongly.

use crate::case::{Daemon, Group, case};

pub fn group() -> Group {
    let cases = vec![
        case("a CIDR that is none", &["connect", "--proxy-via", "10.1.2.3/99=web"], "BadRequest").says(&["10.1.2.3/99"]),
        case("a rule without a workload", &["connect", "--proxy-via", "10.42.0.0/16"], "BadRequest")
            .says(&["=WORKLOAD"]),
        case("a flag's value that there is not", &["connect", "--agent", "x"], "BadRequest").says(&["ephemeral"]),
        case("a flag that there is not", &["connect", "--proxy-vai", "service=web"], "BadRequest").says(&["--proxy-via"]),
    ];
    Group { title: "The command line", daemon: Daemon::Serves, cases }
}
