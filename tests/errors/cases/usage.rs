//! What is typed wrongly.

use crate::case::{Group, Stage, usage};

pub fn groups() -> Vec<Group> {
    let cases = vec![
        usage("a CIDR that is none", &["connect", "--proxy-via", "10.1.2.3/99=web"]).says(&["10.1.2.3/99"]),
        usage("a rule without a workload", &["connect", "--proxy-via", "10.42.0.0/16"]).says(&["RANGE=WORKLOAD"]),
        usage("a rule for every address", &["connect", "--proxy-via", "0.0.0.0/0=web"]).says(&["0.0.0.0/0"]),
        usage("a kind that carries no traffic", &["connect", "--proxy-via", "service=configmap/web"])
            .says(&["configmap", "deployment"]),
        usage("`all` beside another symbol", &["connect", "--proxy-via", "all=web,service=web"]).says(&["all covers"]),
        usage("`also` that stands for nothing", &["connect", "--proxy-via", "also=web"]).says(&["--also-proxy"]),
        usage("a range that is none", &["connect", "--also-proxy", "ten"]).says(&["--also-proxy", "ten"]),
        usage("a flag's value that there is not", &["connect", "--agent", "x"]).says(&["ephemeral"]),
        usage("a form of output that there is not", &["connect", "--output", "xml"]).says(&["xml", "json"]),
        usage("a time that is none", &["connect", "--timeout", "soon"]).says(&["soon", "30s"]),
        usage("an image that is none", &["connect", "--agent-image", "no image!"]).says(&["no image!"]),
        usage("a condition that there is not", &["wait", "--for", "condition=Nope"]).says(&["AgentReady"]),
        usage("a flag that there is not", &["connect", "--proxy-vai", "service=web"])
            .says(&["did you mean --proxy-via"]),
        usage("a flag without its value", &["connect", "--context"]).says(&["--context"]),
        usage("two flags that exclude each other", &["disconnect", "one", "--all"]).says(&["--all"]),
        usage("a word too many", &["connect", "demo"]),
        usage("a command that there is not", &["conect"]).says(&["did you mean podway connect"]),
    ];
    vec![Group { title: "The command line", stage: Stage::Daemon, cases }]
}
