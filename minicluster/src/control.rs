//! What is said to a running cluster and what it says, one JSON object a line: the first line comes from the cluster and
//! is [`Started`], then [`Asked`] lines go in and [`Answered`] lines come out, each with the number of its question.
//! Questions are answered when they are settled, not in their order. The end of the input ends the cluster.

pub mod lines;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How a cluster is made. What is left out is as by default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How many nodes it begins with.
    pub nodes: u8,
    /// Whether it has the sample workloads.
    pub samples: bool,
    /// The command line of the agent, which is put before the arguments of its containers. Without one, agents do not
    /// start.
    pub agent: Vec<String>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { nodes: 1, samples: true, agent: Vec::new() }
    }
}

/// The first line: the cluster runs; its samples may not be ready yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Path of the administrator's kubeconfig on the workstation.
    pub kubeconfig: String,
    /// URL of the API server, as the workstation reaches it.
    pub server: String,
    /// A command line that runs what is appended to it on the workstation.
    pub workstation: Vec<String>,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// Its number, which its answer repeats.
    pub id: u64,
    /// What.
    #[serde(flatten)]
    pub request: Request,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// The number of the question.
    pub id: u64,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done; what was asked for, `null` if nothing.
    Ok(Value),
    /// It was not; why.
    Error(String),
}

/// A workload or other object: its kind as in paths (`deployments`), its namespace (empty for what has none), its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// Plural of the kind.
    pub kind: String,
    /// Namespace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Name {
    /// A name.
    pub fn new(kind: &str, namespace: &str, name: &str) -> Name {
        Name { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// What the cluster is asked to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    /// The object, `null` if there is none.
    Get {
        /// Which.
        name: Name,
    },
    /// All objects of a kind.
    List {
        /// Plural of the kind.
        kind: String,
        /// Of one namespace, or of all.
        #[serde(default)]
        namespace: Option<String>,
    },
    /// Adds the object, or changes what differs of the one that is there.
    Apply {
        /// The object.
        object: Value,
    },
    /// Deletes an object, in the background.
    Delete {
        /// Which.
        name: Name,
        /// Seconds that a pod gets.
        #[serde(default)]
        grace: Option<i64>,
    },
    /// Sets the number of replicas.
    Scale {
        /// Of which workload.
        name: Name,
        /// How many.
        replicas: u32,
    },
    /// Begins a rollout of the same pods anew, as `kubectl rollout restart`.
    Restart {
        /// Of which workload.
        name: Name,
    },
    /// Answers when the condition holds.
    Wait {
        /// What.
        condition: Condition,
        /// Fails after that.
        seconds: f64,
    },
    /// Sends a signal to processes of a pod.
    Signal {
        /// Namespace of the pod.
        namespace: String,
        /// Its name.
        pod: String,
        /// To which processes.
        target: Target,
        /// Which signal.
        signal: Signal,
    },
    /// A GET by HTTP to a pod's port from inside it; answers with `code` and `body`. By the sample servers' `/fetch?url=`
    /// and `/lookup?name=` it tells what a pod sees of the others.
    Fetch {
        /// Namespace of the pod.
        namespace: String,
        /// Its name.
        pod: String,
        /// Its port.
        port: u16,
        /// The path.
        path: String,
    },
    /// Adds a node; answers with its name.
    AddNode,
    /// Takes a node and all on it away at once.
    RemoveNode {
        /// Its name.
        name: String,
    },
    /// A user of the cluster; answers with the path of a kubeconfig.
    Kubeconfig {
        /// Name of the user, which is that of a profile of rights.
        user: String,
    },
    /// A fault between clients and the API server.
    Fault {
        /// As the API server's faults are written.
        fault: Value,
    },
    /// Forgets all history: watches that are behind end with 410 Gone.
    Compact,
}

/// What can be waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Condition {
    /// The pod is ready, or the workload's latest rollout is over: all replicas are of the newest kind and available.
    Ready {
        /// Which.
        name: Name,
    },
    /// There is no such object.
    Gone {
        /// Which.
        name: Name,
    },
    /// All sample workloads are ready.
    SamplesReady,
}

/// Processes of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Its containers.
    Containers,
    /// Its agents: ephemeral containers, or containers that run the agent.
    Agent,
}

/// Signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// SIGKILL.
    Kill,
    /// SIGTERM.
    Terminate,
    /// SIGSTOP.
    Stop,
    /// SIGCONT.
    Continue,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_are_short_and_read_back() {
        let asked =
            Asked { id: 3, request: Request::Scale { name: Name::new("deployments", "demo", "web"), replicas: 0 } };
        let line = json!({
            "id": 3, "do": "scale", "name": {"kind": "deployments", "namespace": "demo", "name": "web"}, "replicas": 0
        });
        assert_eq!(serde_json::to_value(&asked).unwrap(), line);
        assert_eq!(serde_json::from_value::<Asked>(line).unwrap(), asked);
        let answered = Answered { id: 3, outcome: Outcome::Error("not found".to_owned()) };
        assert_eq!(serde_json::to_value(&answered).unwrap(), json!({"id": 3, "error": "not found"}));
        let line = r#"{"id":4,"do":"wait","condition":{"is":"samples_ready"},"seconds":5}"#;
        let asked = Asked { id: 4, request: Request::Wait { condition: Condition::SamplesReady, seconds: 5.0 } };
        assert_eq!(serde_json::from_str::<Asked>(line).unwrap(), asked);
    }
}
