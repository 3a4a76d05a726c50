//! Names that may be meant: of connections from the daemon, of contexts and namespaces from the kubeconfig, of workloads
//! from the cluster. What is not to be had in time is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

use clap_complete::engine::CompletionCandidate;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::actors::control::protocol::{Op, Sessions};
use crate::config;
use crate::control_client::ControlClient;
use crate::kubeconfig::{self, ConnectionFlags, Known, Resolved, Surroundings};
use crate::net::kube_client;
use crate::status::{Condition, SessionStatus, WorkloadLine};

/// The time for the daemon, and again for the cluster; both are asked at once.
const ASKING: Duration = Duration::from_millis(600);
/// The most names of one kind.
const MOST: u32 = 200;

/// Connections.
pub fn connections() -> Vec<CompletionCandidate> {
    wait_for(sessions()).into_iter().map(|status| CompletionCandidate::new(status.name)).collect()
}

/// Contexts of the kubeconfig.
pub fn contexts() -> Vec<CompletionCandidate> {
    offered(known().contexts)
}

/// Clusters of the kubeconfig.
pub fn clusters() -> Vec<CompletionCandidate> {
    offered(known().clusters)
}

/// Users of the kubeconfig.
pub fn users() -> Vec<CompletionCandidate> {
    offered(known().users)
}

/// Namespaces: those that the kubeconfig names, and those of the cluster that the line leads to.
pub fn namespaces() -> Vec<CompletionCandidate> {
    let of_cluster = wait_for(async {
        let (client, _) = cluster().await?;
        Some(names(Api::<Namespace>::all(client)).await)
    });
    let mut all: BTreeSet<String> = known().namespaces.into_iter().collect();
    all.extend(of_cluster.unwrap_or_default());
    offered(all)
}

/// `RANGE=WORKLOAD`.
pub fn via_rules(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else { return Vec::new() };
    match current.split_once('=') {
        None => fitting(current, ["service=", "pods=", "also=", "all="].map(str::to_owned)),
        Some((range, workload)) => {
            let (of_cluster, sessions) = wait_for(async { tokio::join!(workloads_of_cluster(), sessions()) });
            let of_sessions = sessions.iter().flat_map(|status| status.workloads.iter().map(parts)).flatten();
            let found: BTreeSet<Found> = of_cluster.into_iter().chain(of_sessions).collect();
            fitting(current, spellings(&found, workload).into_iter().map(|name| format!("{range}={name}")))
        }
    }
}

/// What `podway wait --for` takes.
pub fn goals(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else { return Vec::new() };
    let conditions = Condition::TYPES.iter().map(|condition| format!("condition={condition}"));
    let all = conditions.chain(["dns".to_owned()]);
    if !current.starts_with("workload/") {
        return fitting(current, all.chain(["workload/".to_owned()]));
    }
    let sessions = wait_for(sessions());
    let lines = sessions.iter().flat_map(|status| status.workloads.iter());
    let via = lines.filter(|line| line.workload != WorkloadLine::GENERAL);
    fitting(current, via.map(|line| format!("workload/{}", line.workload)))
}

/// Namespace, kind and name of a workload.
type Found = [String; 3];

fn parts(line: &WorkloadLine) -> Option<Found> {
    let mut parts = line.workload.splitn(3, '/').map(str::to_owned);
    Some([parts.next()?, parts.next()?, parts.next()?])
}

/// By name alone where one is enough; with kind, and with namespace, once a `/` is typed.
fn spellings(found: &BTreeSet<Found>, typed: &str) -> Vec<String> {
    if typed.contains('/') {
        let short = found.iter().map(|[_, kind, name]| format!("{kind}/{name}"));
        return short.chain(found.iter().map(|whole| whole.join("/"))).collect();
    }
    let mut by_name: BTreeMap<&str, Vec<&Found>> = BTreeMap::new();
    for whole in found {
        by_name.entry(&whole[2]).or_default().push(whole);
    }
    let spelled = by_name.into_iter().flat_map(|(name, same)| match same.as_slice() {
        [_] => vec![name.to_owned()],
        several => several.iter().map(|[_, kind, name]| format!("{kind}/{name}")).collect(),
    });
    spelled.collect()
}

fn offered(names: impl IntoIterator<Item = String>) -> Vec<CompletionCandidate> {
    names.into_iter().map(CompletionCandidate::new).collect()
}

fn fitting(current: &str, all: impl IntoIterator<Item = String>) -> Vec<CompletionCandidate> {
    offered(all.into_iter().filter(|name| name.starts_with(current)))
}

/// Waits in a runtime of its own; its default value where there is none.
fn wait_for<T: Default>(work: impl Future<Output = T>) -> T {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let found = runtime.block_on(work);
            // Not even for a name that is still being looked up.
            runtime.shutdown_background();
            found
        }
        Err(_) => T::default(),
    }
}

/// The connections of this user, as the daemon says that the line leads to.
async fn sessions() -> Vec<SessionStatus> {
    let asking = async {
        let files = config::command_files(&config::variable).ok()?;
        let socket = line_value(&["--socket"]).map(PathBuf::from);
        let (settings, _) = config::of_command(&files, &config::variable, socket).ok()?;
        let mut client = ControlClient::open(&settings.socket).await.ok()?;
        let Sessions { sessions } = client.ask(Op::Status { name: None }).await.ok()?;
        Some(sessions)
    };
    timeout(ASKING, asking).await.ok().flatten().unwrap_or_default()
}

/// The cluster that the line leads to, and the namespace; none where that takes a plugin.
async fn cluster() -> Option<(Client, String)> {
    let around = Surroundings { plugins: kubeconfig::Plugins::Never, ..Surroundings::of_process(false) };
    let Resolved { access, namespace, .. } = kubeconfig::resolve(&line_flags(), &around).await.ok()?;
    Some((kube_client::client(&access).await.ok()?, namespace))
}

async fn workloads_of_cluster() -> Vec<Found> {
    let Some((client, namespace)) = cluster().await else { return Vec::new() };
    let (deployments, stateful_sets, daemon_sets) = tokio::join!(
        names(within::<Deployment>(&client, &namespace)),
        names(within::<StatefulSet>(&client, &namespace)),
        names(within::<DaemonSet>(&client, &namespace)),
    );
    let kinds = [("deployment", deployments), ("statefulset", stateful_sets), ("daemonset", daemon_sets)];
    let found = kinds.into_iter().flat_map(|(kind, names)| {
        let namespace = &namespace;
        names.into_iter().map(move |name| [namespace.clone(), kind.to_owned(), name])
    });
    found.collect()
}

fn within<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(client: &Client, namespace: &str) -> Api<K> {
    Api::namespaced(client.clone(), namespace)
}

/// The names of objects of one kind, as far as they are told in time.
async fn names<K: Clone + Debug + DeserializeOwned>(api: Api<K>) -> Vec<String> {
    let params = ListParams::default().limit(MOST);
    match timeout(ASKING, api.list_metadata(&params)).await {
        Ok(Ok(list)) => list.items.into_iter().filter_map(|object| object.metadata.name).collect(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

fn known() -> Known {
    kubeconfig::known(line_flags().kubeconfig.as_deref(), &Surroundings::of_process(false))
}

/// The flags of the line that say which cluster is meant.
fn line_flags() -> ConnectionFlags {
    ConnectionFlags {
        kubeconfig: line_value(&["--kubeconfig"]).map(PathBuf::from),
        context: line_value(&["--context"]),
        cluster: line_value(&["--cluster"]),
        user: line_value(&["--user"]),
        namespace: line_value(&["--namespace", "-n"]),
        ..ConnectionFlags::default()
    }
}

/// The value of a flag in the line that is completed, which stands behind `--`.
fn line_value(names: &[&str]) -> Option<String> {
    let words = std::env::args_os().skip_while(|word| word != "--").filter_map(|word| word.into_string().ok());
    value_in(words, names)
}

fn value_in(words: impl Iterator<Item = String>, names: &[&str]) -> Option<String> {
    // bash has `=` as a word of its own.
    let mut words = words.filter(|word| word != "=");
    while let Some(word) = words.next() {
        if names.contains(&word.as_str()) {
            return words.next();
        }
        if let Some((name, value)) = word.split_once('=')
            && names.contains(&name)
        {
            return Some(value.to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_the_line_are_found_in_each_of_their_forms() {
        let value = |line: &str| value_in(line.split(' ').map(str::to_owned), &["--namespace", "-n"]);
        for line in ["-- podway connect -n shop", "-- podway connect --namespace=shop", "podway --namespace = shop --x"]
        {
            assert_eq!(value(line).as_deref(), Some("shop"), "{line}");
        }
        assert_eq!(value("podway connect --name shop"), None);
    }

    #[test]
    fn a_workload_is_offered_by_its_shortest_name() {
        let found = [["a", "deployment", "web"], ["a", "statefulset", "db"], ["a", "daemonset", "web"]];
        let found: BTreeSet<Found> = found.into_iter().map(|parts| parts.map(str::to_owned)).collect();
        assert_eq!(spellings(&found, ""), ["db", "daemonset/web", "deployment/web"]);
        assert!(spellings(&found, "a/").contains(&"a/statefulset/db".to_owned()));
    }
}
