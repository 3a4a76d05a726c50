//! What the user may do in a namespace, by SelfSubjectAccessReviews that are all asked at once, and how far that can be
//! believed.

use std::time::Duration;

use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::json;

use crate::cluster::NamespaceRights;
use crate::net::kube_client;
use crate::refusal::Readiness;

/// Limit for all reviews of a namespace; where one is refused they are made twice.
pub(super) const LIMIT: Duration = Duration::from_secs(10);
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

/// (verb, API group, resource, subresource), in the order that [`gather`] reads.
const QUESTIONS: [(&str, &str, &str, &str); 8] = [
    ("list", "", "pods", ""),
    ("watch", "", "pods", ""),
    ("get", "", "pods", "portforward"),
    ("create", "", "pods", "portforward"),
    ("patch", "", "pods", "ephemeralcontainers"),
    ("create", "", "pods", ""),
    ("delete", "", "pods", ""),
    ("create", "batch", "jobs", ""),
];

/// What reviews of a namespace said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reviewed {
    /// The rights.
    pub rights: NamespaceRights,
    /// What the API server had said of itself before, where it refused any of them. What it grants needs no proof.
    pub server: Readiness,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Granted,
    Missing,
    /// Even the question was refused.
    Unasked,
}

/// Asks; `None` when the API server gave no answer to each question in time.
///
/// Cancel safe.
pub async fn ask(client: &kube::Client, namespace: &str) -> Option<Reviewed> {
    let first = reviews(client, namespace).await?;
    if first.iter().all(|verdict| *verdict == Verdict::Granted) {
        return reviewed(&first, Readiness::Ready);
    }
    match kube_client::readiness(client).await {
        // The refusal may be older than that word.
        Readiness::Ready => reviewed(&reviews(client, namespace).await?, Readiness::Ready),
        server @ (Readiness::Silent | Readiness::NotReady) => reviewed(&first, server),
    }
}

async fn reviews(client: &kube::Client, namespace: &str) -> Option<Vec<Verdict>> {
    let asked = QUESTIONS.map(|question| review(client, namespace, question));
    let answers = tokio::time::timeout(LIMIT, join_all(asked)).await.ok()?;
    answers.into_iter().collect()
}

fn reviewed(verdicts: &[Verdict], server: Readiness) -> Option<Reviewed> {
    let unasked = verdicts.contains(&Verdict::Unasked);
    if unasked && server == Readiness::NotReady {
        return None;
    }
    // Who may not even ask learns it by trying.
    let answers: Vec<bool> = verdicts.iter().map(|verdict| *verdict != Verdict::Missing).collect();
    Some(Reviewed { rights: gather(&answers)?, server })
}

fn gather(answers: &[bool]) -> Option<NamespaceRights> {
    let [list, watch, get_forward, create_forward, ephemeral, create, delete, jobs] = *answers else { return None };
    Some(NamespaceRights {
        watch_pods: list && watch,
        // WebSockets are a GET; newer API servers check create as well.
        port_forward: get_forward && create_forward,
        ephemeral_containers: ephemeral,
        create_pods: create,
        delete_pods: delete,
        create_jobs: jobs,
    })
}

#[derive(Deserialize)]
struct Review {
    status: Option<Allowed>,
}

#[derive(Deserialize)]
struct Allowed {
    allowed: bool,
}

async fn review(
    client: &kube::Client,
    namespace: &str,
    (verb, group, resource, subresource): (&str, &str, &str, &str),
) -> Option<Verdict> {
    let body = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {
            "namespace": namespace, "verb": verb, "group": group, "resource": resource, "subresource": subresource,
        }},
    });
    let request = http::Request::post(REVIEWS).header(http::header::CONTENT_TYPE, "application/json");
    let request = request.body(body.to_string().into_bytes()).ok()?;
    match client.request::<Review>(request).await {
        Ok(Review { status: Some(Allowed { allowed: true }) }) => Some(Verdict::Granted),
        Ok(_) => Some(Verdict::Missing),
        Err(kube::Error::Api(status)) if status.code == 403 || status.code == 404 => Some(Verdict::Unasked),
        Err(error) => {
            tracing::debug!(%error, namespace, verb, resource, subresource, "access review failed");
            None
        }
    }
}

#[cfg(test)]
mod tests;
