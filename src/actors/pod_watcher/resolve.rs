//! Which workload a user's text names: one request for each possible kind, all at once, the watched pods where the API
//! server refuses, lists for near names only when nothing was found.
//!
//! A look-up that fails or takes too long says nothing of the workload: it is made again, with longer and longer pauses,
//! until the answer comes or nobody waits for it any more. How long to wait is Session's to decide. One that is refused is
//! made again as [`refusal`] says.
#![expect(clippy::disallowed_methods, reason = "part of the shell: measures how long a look-up took")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use kube::core::Request;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::decode::{Names, Object};
use crate::backoff;
use crate::cluster::{PodSnapshot, Resolution, Resolutions};
use crate::error::chain;
use crate::near;
use crate::net::kube_client;
use crate::net::obstacle::Obstacle;
use crate::refusal::{self, Readiness};
use crate::workload::{Workload, WorkloadKind, WorkloadRef};

/// A look-up that has not ended by then is made anew: connection, TLS and an answer at round trips of a second fit.
const FIND_LIMIT: Duration = Duration::from_secs(10);
/// How long the first list of pods is waited for where the API server refuses the look-up itself.
const WATCHED_LIMIT: Duration = Duration::from_secs(8);
/// The first pause after a look-up that failed; doubles.
const RETRY_FIRST: Duration = Duration::from_millis(250);
/// The longest pause.
const RETRY_MAX: Duration = Duration::from_secs(3);
/// Least time for near names, a help and not an answer; on a slow way, twice what the look-up took.
const NEAR_LIMIT: Duration = Duration::from_millis(600);
/// Objects that are looked through for near names.
const NEAR_PAGE: u32 = 500;

/// The pods in sight, once there are any.
pub type PodsInSight = watch::Receiver<Option<Arc<PodSnapshot>>>;

/// Resolves each reference, in parallel. One that names no workload ends it at once: the rest is then left out.
///
/// Goes on for as long as the API server does not answer. Cancel safe.
pub async fn resolve(
    client: watch::Receiver<kube::Client>,
    default_namespace: Arc<str>,
    references: BTreeSet<WorkloadRef>,
    pods: PodsInSight,
    jitter: fn() -> u8,
) -> Resolutions {
    let each = references.into_iter().map(|reference| {
        let namespace = reference.namespace.as_deref().map_or_else(|| Arc::clone(&default_namespace), Into::into);
        let asker = Asker { client: client.borrow().clone(), namespace, pods: pods.clone() };
        let client = client.clone();
        async move {
            let resolution = asker.ask(&reference, client, jitter).await;
            (reference, resolution)
        }
    });
    let mut each: FuturesUnordered<_> = each.collect();
    let mut resolutions = Resolutions::new();
    while let Some((reference, resolution)) = each.next().await {
        let found = matches!(resolution, Resolution::Found { .. });
        resolutions.insert(reference, resolution);
        if !found {
            break;
        }
    }
    resolutions
}

/// The pause after the `tries`-th look-up that failed.
fn pause(tries: u32, jitter: u8) -> Duration {
    backoff::spread(backoff::doubling(RETRY_FIRST, tries.saturating_sub(1), RETRY_MAX), jitter)
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
    /// Asks until there is an answer, each time with the newest credentials.
    async fn ask(
        mut self,
        reference: &WorkloadRef,
        client: watch::Receiver<kube::Client>,
        jitter: fn() -> u8,
    ) -> Resolution {
        // Since when it is refused, and what the API server has said of itself since.
        let mut refused: Option<(Instant, Readiness)> = None;
        for tries in 1.. {
            let begun = Instant::now();
            let why = match timeout(FIND_LIMIT, self.find(reference)).await {
                Ok(Some(Resolution::Forbidden { missing })) => {
                    let since = match refused {
                        Some((since, server)) if since.elapsed() >= server.patience() => {
                            return Resolution::Forbidden { missing };
                        }
                        Some((since, _)) => since,
                        None => Instant::now(),
                    };
                    let server = kube_client::readiness(&self.client).await;
                    refused = Some((since, server));
                    if server != Readiness::Ready {
                        sleep(backoff::spread(refusal::AGAIN, jitter())).await;
                    }
                    self.client = client.borrow().clone();
                    continue;
                }
                Ok(Some(Resolution::Failed { why })) => why,
                Ok(Some(found)) => return found,
                Ok(None) => return self.missing(reference, NEAR_LIMIT.max(begun.elapsed() * 2)).await,
                Err(_) => "no answer in time".to_owned(),
            };
            refused = None;
            tracing::debug!(%reference, why, "a workload could not be looked up yet");
            sleep(pause(tries, jitter())).await;
            self.client = client.borrow().clone();
        }
        failed("it was tried too often")
    }

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
            Err(error) => Answer::Failed(Obstacle::of(&error).words()),
        }
    }

    /// Workloads of that name that own a pod in sight; waits for the first list of pods.
    async fn watched(&self, kinds: &[WorkloadKind], name: &str) -> BTreeSet<Workload> {
        let mut pods = self.pods.clone();
        let Ok(Ok(seen)) = timeout(WATCHED_LIMIT, pods.wait_for(Option::is_some)).await else { return BTreeSet::new() };
        let of_name = |workload: &Workload| {
            workload.namespace == self.namespace && &*workload.name == name && kinds.contains(&workload.kind)
        };
        let pods = seen.iter().flat_map(|snapshot| snapshot.pods.values());
        pods.map(|pod| pod.workload.clone()).filter(of_name).collect()
    }

    async fn missing(&self, reference: &WorkloadRef, limit: Duration) -> Resolution {
        // Whoever errs in the name may err in the kind. Pods are many, and most are named by nobody.
        let kinds = WorkloadKind::ALL.into_iter();
        let kinds = kinds.filter(|kind| *kind != WorkloadKind::Pod || reference.kind == Some(WorkloadKind::Pod));
        let lists = timeout(limit, join_all(kinds.map(|kind| self.names_of(kind))));
        let elsewhere = timeout(NEAR_LIMIT, self.elsewhere(reference));
        let namespace_missing = timeout(limit, self.namespace_missing());
        let (lists, elsewhere, namespace_missing) = tokio::join!(lists, elsewhere, namespace_missing);
        // Written as the user would have to.
        let shown = |workload: Workload| match &reference.namespace {
            Some(_) => workload.to_string(),
            None => format!("{}/{}", workload.kind, workload.name),
        };
        let candidates = lists.into_iter().flatten().flatten().map(|workload| {
            let name = workload.name.to_string();
            (shown(workload), name)
        });
        let mut near: Vec<String> = elsewhere.ok().flatten().map(|workload| workload.to_string()).into_iter().collect();
        near.extend(near::near(&reference.name, candidates));
        near.truncate(near::MOST);
        Resolution::NotFound { near, namespace_missing: namespace_missing.unwrap_or_default() }
    }

    /// A workload of exactly that name in another namespace, where the pods in sight show one.
    async fn elsewhere(&self, reference: &WorkloadRef) -> Option<Workload> {
        let mut pods = self.pods.clone();
        let seen = pods.wait_for(Option::is_some).await.ok()?;
        let of_name = |workload: &&Workload| {
            workload.namespace != self.namespace
                && *workload.name == *reference.name
                && reference.kind.is_none_or(|kind| workload.kind == kind)
        };
        seen.iter().flat_map(|snapshot| snapshot.pods.values()).map(|pod| &pod.workload).filter(of_name).min().cloned()
    }

    async fn namespace_missing(&self) -> bool {
        let request = Request::new("/api/v1/namespaces").get(&self.namespace, &kube::api::GetParams::default());
        let Ok(request) = request else { return false };
        let answer = self.client.request::<Object>(request).await;
        matches!(answer, Err(kube::Error::Api(status)) if status.code == 404)
    }

    async fn names_of(&self, kind: WorkloadKind) -> Vec<Workload> {
        #[derive(Deserialize)]
        struct List {
            items: Option<Vec<Object>>,
        }
        let params = kube::api::ListParams::default().limit(NEAR_PAGE);
        let Ok(request) = Request::new(collection(kind, &self.namespace)).list(&params) else { return Vec::new() };
        let Ok(list) = self.client.request::<List>(request).await else { return Vec::new() };
        let mut names = Names::default();
        list.items.into_iter().flatten().map(|object| object.identity(kind, &mut names)).collect()
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
mod tests;
