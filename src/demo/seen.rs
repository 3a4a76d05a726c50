//! What the answers prove. Pure.

use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;
use serde_json::Value;

use super::error::DemoError;

/// What a sample server answers: who it is, and the connection's ends as it saw them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Answer {
    /// Its pod.
    pub pod: String,
    /// Namespace of that.
    pub namespace: String,
    /// Its own end: the service's address, which is not translated on the way to the pod, or its pod's.
    pub local: SocketAddr,
    /// The other end: who asked.
    pub remote: SocketAddr,
}

/// What a client printed: an answer, and on the line after it which address the client asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// What came back.
    pub answer: Answer,
    /// What the name stood for.
    pub asked: IpAddr,
}

impl Exchange {
    /// Reads a client's output.
    ///
    /// # Errors
    ///
    /// What was not an answer.
    pub fn read(output: &str) -> Result<Exchange, DemoError> {
        let odd =
            || DemoError::NotShown { step: "request", seen: format!("not the answer of a sample: {output:.200}") };
        let (answer, asked) = output.trim_end().rsplit_once('\n').ok_or_else(odd)?;
        let answer = serde_json::from_str(answer).map_err(|_| odd())?;
        Ok(Exchange { answer, asked: asked.trim().parse().map_err(|_| odd())? })
    }
}

/// The pods of a cluster and what they belong to.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    /// Pods.
    pub pods: Vec<Value>,
    /// ReplicaSets, which stand between pods and their Deployment.
    pub replica_sets: Vec<Value>,
}

/// A pod that an address belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// The address.
    pub address: IpAddr,
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Kind and name of its workload, as `deployment/web`; empty when it has none.
    pub workload: String,
}

impl Pods {
    /// Pods and ReplicaSets, as the API lists their items.
    pub fn new(pods: Value, replica_sets: Value) -> Pods {
        let items = |list: Value| match list {
            Value::Array(items) => items,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => Vec::new(),
        };
        Pods { pods: items(pods), replica_sets: items(replica_sets) }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.pods.len()
    }

    /// Whose address it is. Pods in their node's network have none of their own.
    pub fn find(&self, address: IpAddr) -> Option<Pod> {
        let has = |pod: &&Value| {
            let all = pod["status"]["podIPs"].as_array().into_iter().flatten().map(|ip| &ip["ip"]);
            let mut all = all.chain([&pod["status"]["podIP"]]).filter_map(|ip| ip.as_str()?.parse::<IpAddr>().ok());
            pod["spec"]["hostNetwork"] != true && all.any(|own| own == address)
        };
        Some(self.pod(self.pods.iter().find(has)?, address))
    }

    /// The pod of that name.
    pub fn named(&self, namespace: &str, name: &str) -> Option<Pod> {
        let same = |pod: &&Value| text(pod, "/metadata/name") == name && text(pod, "/metadata/namespace") == namespace;
        let pod = self.pods.iter().find(same)?;
        Some(self.pod(pod, text(pod, "/status/podIP").parse().ok()?))
    }

    fn pod(&self, pod: &Value, address: IpAddr) -> Pod {
        let (namespace, name) = (text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
        Pod { address, workload: self.workload(pod), name, namespace }
    }

    fn workload(&self, pod: &Value) -> String {
        let Some((kind, name)) = owner(pod) else { return String::new() };
        let namespace = text(pod, "/metadata/namespace");
        let same = |set: &&Value| text(set, "/metadata/name") == name && text(set, "/metadata/namespace") == namespace;
        let above = (kind == "ReplicaSet").then(|| self.replica_sets.iter().find(same).and_then(owner)).flatten();
        let (kind, name) = above.unwrap_or((kind, name));
        format!("{}/{name}", kind.to_lowercase())
    }
}

fn text(object: &Value, path: &str) -> String {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Kind and name of what made an object.
fn owner(object: &Value) -> Option<(String, String)> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    Some((text(owner, "/kind"), text(owner, "/name")))
}

/// What the demo shows: traffic under the rule comes from a pod of its workload, other traffic does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The address that the service's name has on the workstation.
    pub virtual_address: IpAddr,
    /// Who answered.
    pub answered: Pod,
    /// Whom it saw, under the rule.
    pub via: Pod,
    /// Whom it saw when it was asked by its own address, which the rule does not cover.
    pub without: Pod,
}

/// Namespace and workload of the demo's rule.
pub const VIA: (&str, &str) = ("demo", "deployment/web");

impl Proof {
    /// Looks at what came back under the rule and outside of it.
    ///
    /// # Errors
    ///
    /// What is not as podway promises.
    pub fn of(under: &Exchange, outside: &Exchange, pods: &Pods) -> Result<Proof, DemoError> {
        let not_shown = |seen: String| DemoError::NotShown { step: "request", seen };
        let find = |what: &str, address: IpAddr| {
            pods.find(address).ok_or_else(|| not_shown(format!("{what} has {address}, which is no pod's address")))
        };
        let answered = pods
            .named(&under.answer.namespace, &under.answer.pod)
            .ok_or_else(|| not_shown(format!("{} answered, which is no pod", under.answer.pod)))?;
        if outside.answer.pod != under.answer.pod || outside.answer.local.ip() != answered.address {
            return Err(not_shown(format!("{} answered instead of {}", outside.answer.pod, under.answer.pod)));
        }
        let via = find("who asked", under.answer.remote.ip())?;
        if (via.namespace.as_str(), via.workload.as_str()) != VIA {
            return Err(not_shown(format!("it was asked by pod {}/{}, not by one of web", via.namespace, via.name)));
        }
        let without = find("who asked outside the rule", outside.answer.remote.ip())?;
        if (without.namespace.as_str(), without.workload.as_str()) == VIA {
            return Err(not_shown(format!(
                "outside the rule it was asked by {} too: that proves nothing",
                without.name
            )));
        }
        if pods.find(under.asked).is_some() || under.asked == under.answer.local.ip() {
            return Err(not_shown(format!("{} is no virtual address", under.asked)));
        }
        Ok(Proof { virtual_address: under.asked, answered, via, without })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pods() -> Pods {
        let pod = |namespace: &str, name: &str, ip: &str, kind: &str, owner: &str| {
            json!({
                "metadata": {"name": name, "namespace": namespace, "ownerReferences": [
                    {"kind": kind, "name": owner, "controller": true},
                ]},
                "status": {"podIP": ip, "podIPs": [{"ip": ip}, {"ip": ip.replace("10.42.0.", "fd42::")}]},
            })
        };
        let mut host = pod("demo", "host", "10.41.0.1", "Nothing", "");
        host["spec"] = json!({"hostNetwork": true});
        let set = |namespace: &str, name: &str, deployment: &str| {
            let owner = json!([{"kind": "Deployment", "name": deployment, "controller": true}]);
            json!({"metadata": {"name": name, "namespace": namespace, "ownerReferences": owner}})
        };
        let pods = json!([
            pod("demo", "web-1", "10.42.0.4", "ReplicaSet", "web-abc"),
            pod("demo", "podway-agent-1-x", "10.42.0.9", "Job", "podway-agent-1"),
            pod("other", "api-1", "10.42.0.7", "ReplicaSet", "api-abc"),
            host,
        ]);
        // A set of the same name elsewhere is another one.
        Pods::new(
            pods,
            json!([set("other", "web-abc", "x"), set("demo", "web-abc", "web"), set("other", "api-abc", "api")]),
        )
    }

    fn exchange(local: &str, remote: &str, asked: &str) -> Exchange {
        let answer = json!({
            "pod": "api-1", "node": "node1", "namespace": "other", "local": format!("{local}:80"),
            "remote": format!("{remote}:40000"), "path": "/",
        });
        Exchange::read(&format!("{answer}\n{asked}\n")).expect("an answer")
    }

    fn under(remote: &str) -> Exchange {
        exchange("10.43.0.19", remote, "246.246.1.0")
    }

    fn outside(remote: &str) -> Exchange {
        exchange("10.42.0.7", remote, "10.42.0.7")
    }

    fn seen(via: &str, without: &str) -> Result<Proof, String> {
        Proof::of(&under(via), &outside(without), &pods()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_request_under_the_rule_that_comes_from_a_pod_of_its_workload_is_a_proof() {
        let proof = seen("10.42.0.4", "10.42.0.9").expect("a proof");
        assert_eq!((proof.via.name.as_str(), proof.via.workload.as_str()), ("web-1", "deployment/web"));
        assert_eq!((proof.answered.name.as_str(), proof.answered.workload.as_str()), ("api-1", "deployment/api"));
        assert_eq!(proof.without.workload, "job/podway-agent-1");
    }

    #[test]
    fn anything_else_is_none() {
        for (via, without, why) in [
            ("10.42.0.9", "10.42.0.9", "not by one of web"),
            ("10.42.0.4", "10.42.0.4", "proves nothing"),
            ("192.0.2.2", "10.42.0.9", "no pod's address"),
            ("10.41.0.1", "10.42.0.9", "no pod's address"),
        ] {
            let error = seen(via, without).expect_err("no proof");
            assert!(error.contains(why), "{error}");
        }
        let mut direct = under("10.42.0.4");
        direct.asked = direct.answer.local.ip();
        assert!(Proof::of(&direct, &outside("10.42.0.9"), &pods()).is_err());
        let mut other = under("10.42.0.4");
        other.answer.pod = "web-1".to_owned();
        assert!(Proof::of(&other, &outside("10.42.0.9"), &pods()).is_err());
        other.answer.pod = "none".to_owned();
        assert!(Proof::of(&other, &outside("10.42.0.9"), &pods()).is_err());
    }

    #[test]
    fn what_is_no_answer_is_told() {
        for output in ["", "{}\n10.0.0.1", "<html>\n\n", "{\"pod\":"] {
            assert!(Exchange::read(output).is_err(), "{output}");
        }
    }

    #[test]
    fn addresses_of_both_families_find_their_pod() {
        assert_eq!(pods().find("fd42::4".parse().expect("IPv6")).expect("a pod").name, "web-1");
    }
}
