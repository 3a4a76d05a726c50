//! Which workload a user's text names: one request for each possible kind, all at once, the watched pods where the API
//! server refuses, lists for near names only when nothing was found.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use kube::core::Request;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::timeout;

use super::decode::{Names, Object};
use super::near::near;
use crate::cluster::{PodSnapshot, Resolution, Resolutions};
use crate::error::chain;
use crate::workload::{Workload, WorkloadKind, WorkloadRef};

/// Limit for finding one workload; with [`NEAR_LIMIT`] it stays below the 2 s that a user waits.
const FIND_LIMIT: Duration = Duration::from_millis(1200);
/// Limit for near names: a help, not an answer.
const NEAR_LIMIT: Duration = Duration::from_millis(600);
/// Objects that are looked through for near names.
const NEAR_PAGE: u32 = 500;

/// The pods in sight, once there are any.
pub type PodsInSight = watch::Receiver<Option<Arc<PodSnapshot>>>;

/// Resolves each reference, in parallel, in less than 2 s.
///
/// Cancel safe.
pub async fn resolve(
    client: kube::Client,
    default_namespace: Arc<str>,
    references: BTreeSet<WorkloadRef>,
    pods: PodsInSight,
) -> Resolutions {
    let each = references.into_iter().map(|reference| {
        let asker = Asker {
            client: client.clone(),
            namespace: reference.namespace.as_deref().map_or_else(|| Arc::clone(&default_namespace), Into::into),
            pods: pods.clone(),
        };
        async move {
            let resolution = match timeout(FIND_LIMIT, asker.find(&reference)).await {
                Ok(Some(found)) => found,
                Ok(None) => asker.missing(&reference).await,
                Err(_) => failed("the API server did not answer in time"),
            };
            (reference, resolution)
        }
    });
    join_all(each).await.into_iter().collect()
}

/// The answer for references that could not even be asked for.
pub fn failed(why: &str) -> Resolution {
    Resolution::Failed { why: why.to_owned() }
}

struct Asker {
    client: kube::Client,
    namespace: Arc<str>,
    pods: PodsInSight,
}

/// What one GET said.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Found(Workload, Option<u32>),
    Missing,
    Forbidden(WorkloadKind),
    Failed(String),
}

impl Asker {
    /// `None` when there is no such workload.
    async fn find(&self, reference: &WorkloadRef) -> Option<Resolution> {
        let kinds = match &reference.kind {
            Some(kind) => std::slice::from_ref(kind),
            None => &WorkloadKind::ALL,
        };
        let mut answers = join_all(kinds.iter().map(|kind| self.get(*kind, &reference.name))).await;
        let found = answers.iter().any(|answer| matches!(answer, Answer::Found(..)));
        if !found && answers.iter().any(|answer| matches!(answer, Answer::Forbidden(_))) {
            let watched = self.watched(kinds, &reference.name).await;
            answers.extend(watched.into_iter().map(|workload| Answer::Found(workload, None)));
        }
        decide(&self.namespace, answers)
    }

    async fn get(&self, kind: WorkloadKind, name: &str) -> Answer {
        let request = match Request::new(collection(kind, &self.namespace)).get(name, &kube::api::GetParams::default())
        {
            Ok(request) => request,
            Err(error) => return Answer::Failed(chain(&error)),
        };
        match self.client.request::<Object>(request).await {
            Ok(object) => Answer::Found(object.identity(kind, &mut Names::default()), object.replicas()),
            Err(kube::Error::Api(status)) => match status.code {
                404 => Answer::Missing,
                403 => Answer::Forbidden(kind),
                _ => Answer::Failed(status.message.clone()),
            },
            Err(error) => Answer::Failed(chain(&error)),
        }
    }

    /// Workloads of that name that own a pod in sight; waits for the first list of pods.
    async fn watched(&self, kinds: &[WorkloadKind], name: &str) -> BTreeSet<Workload> {
        let mut pods = self.pods.clone();
        let Ok(seen) = pods.wait_for(Option::is_some).await else { return BTreeSet::new() };
        let of_name = |workload: &Workload| {
            workload.namespace == self.namespace && &*workload.name == name && kinds.contains(&workload.kind)
        };
        let pods = seen.iter().flat_map(|snapshot| snapshot.pods.values());
        pods.map(|pod| pod.workload.clone()).filter(of_name).collect()
    }

    async fn missing(&self, reference: &WorkloadRef) -> Resolution {
        let kinds = match &reference.kind {
            Some(kind) => std::slice::from_ref(kind),
            None => &WorkloadKind::ALL[..5],
        };
        let lists = join_all(kinds.iter().map(|kind| self.names_of(*kind)));
        let both = timeout(NEAR_LIMIT, async { tokio::join!(lists, self.namespace_missing()) });
        let (lists, namespace_missing) = both.await.unwrap_or_default();
        let candidates = lists.into_iter().flatten();
        Resolution::NotFound { near: near(&reference.name, candidates), namespace_missing }
    }

    async fn namespace_missing(&self) -> bool {
        let request = Request::new("/api/v1/namespaces").get(&self.namespace, &kube::api::GetParams::default());
        let Ok(request) = request else { return false };
        let answer = self.client.request::<Object>(request).await;
        matches!(answer, Err(kube::Error::Api(status)) if status.code == 404)
    }

    async fn names_of(&self, kind: WorkloadKind) -> Vec<(String, String)> {
        #[derive(Deserialize)]
        struct List {
            items: Option<Vec<Object>>,
        }
        let params = kube::api::ListParams::default().limit(NEAR_PAGE);
        let Ok(request) = Request::new(collection(kind, &self.namespace)).list(&params) else { return Vec::new() };
        let Ok(list) = self.client.request::<List>(request).await else { return Vec::new() };
        let mut names = Names::default();
        let found = list.items.into_iter().flatten().map(|object| object.identity(kind, &mut names));
        found.map(|workload| (format!("{}/{}", workload.kind, workload.name), workload.name.to_string())).collect()
    }
}

fn collection(kind: WorkloadKind, namespace: &str) -> String {
    let group = match kind {
        WorkloadKind::Pod => "/api/v1",
        WorkloadKind::Job => "/apis/batch/v1",
        WorkloadKind::Deployment | WorkloadKind::ReplicaSet | WorkloadKind::StatefulSet | WorkloadKind::DaemonSet => {
            "/apis/apps/v1"
        }
    };
    format!("{group}/namespaces/{namespace}/{kind}s")
}

/// From the answers for all kinds to the one for the user; `None` when nothing has that name.
fn decide(namespace: &str, answers: Vec<Answer>) -> Option<Resolution> {
    let mut found: BTreeMap<Workload, Option<u32>> = BTreeMap::new();
    let (mut forbidden, mut failure) = (None, None);
    for answer in answers {
        match answer {
            Answer::Found(workload, replicas) => {
                let known = found.entry(workload).or_insert(replicas);
                *known = known.or(replicas);
            }
            Answer::Missing => {}
            Answer::Forbidden(kind) => forbidden = forbidden.or(Some(kind)),
            Answer::Failed(why) => failure = failure.or(Some(why)),
        }
    }
    if found.len() > 1 {
        return Some(Resolution::Ambiguous { candidates: found.into_keys().collect() });
    }
    if let Some((workload, replicas)) = found.pop_first() {
        return Some(Resolution::Found { workload, replicas });
    }
    if let Some(why) = failure {
        return Some(Resolution::Failed { why });
    }
    forbidden.map(|kind| Resolution::Forbidden { missing: format!("get {kind}s in {namespace}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(kind: WorkloadKind) -> Answer {
        Answer::Found(Workload::new("demo", kind, "web"), Some(0))
    }

    #[test]
    fn what_was_found_outweighs_what_was_refused() {
        let answers = vec![Answer::Forbidden(WorkloadKind::Job), found(WorkloadKind::Deployment), Answer::Missing];
        let workload = Workload::new("demo", WorkloadKind::Deployment, "web");
        assert_eq!(decide("demo", answers), Some(Resolution::Found { workload, replicas: Some(0) }));
    }

    #[test]
    fn two_kinds_of_one_name_are_ambiguous() {
        let answers = vec![found(WorkloadKind::StatefulSet), found(WorkloadKind::Deployment)];
        assert!(matches!(decide("demo", answers), Some(Resolution::Ambiguous { candidates }) if candidates.len() == 2));
    }

    #[test]
    fn a_refusal_and_a_failure_are_not_an_absence() {
        let refused = decide("demo", vec![Answer::Missing, Answer::Forbidden(WorkloadKind::Job)]);
        assert_eq!(refused, Some(Resolution::Forbidden { missing: "get jobs in demo".into() }));
        let broken = decide("demo", vec![Answer::Missing, Answer::Failed("reset".into())]);
        assert_eq!(broken, Some(failed("reset")));
        assert_eq!(decide("demo", vec![Answer::Missing]), None);
    }
}
