//! What the user may do in a namespace, by SelfSubjectAccessReviews that are all asked at once.

use std::time::Duration;

use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::json;

use crate::cluster::NamespaceRights;

/// Limit for all reviews of a namespace.
const LIMIT: Duration = Duration::from_secs(10);
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

/// Asks; `None` when the API server gave no answer to each question in time.
///
/// Cancel safe.
pub async fn ask(client: &kube::Client, namespace: &str) -> Option<NamespaceRights> {
    let asked = QUESTIONS.map(|question| review(client, namespace, question));
    let answers = tokio::time::timeout(LIMIT, join_all(asked)).await.ok()?;
    let answers: Option<Vec<bool>> = answers.into_iter().collect();
    gather(&answers?)
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
    status: Option<Verdict>,
}

#[derive(Deserialize)]
struct Verdict {
    allowed: bool,
}

async fn review(
    client: &kube::Client,
    namespace: &str,
    (verb, group, resource, subresource): (&str, &str, &str, &str),
) -> Option<bool> {
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
        Ok(review) => Some(review.status.is_some_and(|status| status.allowed)),
        // Who may not even ask learns it by trying.
        Err(kube::Error::Api(status)) if status.code == 403 || status.code == 404 => Some(true),
        Err(error) => {
            tracing::debug!(%error, namespace, verb, resource, subresource, "access review failed");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_verbs_of_a_port_forward_are_needed() {
        let rights = gather(&[true, true, true, false, true, true, true, true]).expect("eight answers");
        assert!(rights.watch_pods && !rights.port_forward && rights.create_jobs);
        assert_eq!(gather(&[true]), None);
    }
}
