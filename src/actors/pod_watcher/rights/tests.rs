//! Reviews by an API server that has just started, by one that refuses the question, and by one that says no.

use std::sync::Mutex;

use super::*;

#[test]
fn both_verbs_of_a_port_forward_are_needed() {
    let rights = gather(&[true, true, true, false, true, true, true, true]).expect("eight answers");
    assert!(rights.watch_pods && !rights.port_forward && rights.create_jobs);
    assert_eq!(gather(&[true]), None);
}

/// What an API server answers: to `/readyz`, and to a review in its `n`-th round.
fn api(ready: u16, review: fn(usize) -> (u16, bool)) -> kube::Client {
    let asked = Mutex::new(0);
    let serve = move |request: http::Request<kube::client::Body>| {
        let (code, body) = if request.uri().path() == "/readyz" {
            (ready, "[-]informer-sync failed".to_owned())
        } else {
            let mut asked = asked.lock().expect("unpoisoned");
            let (code, allowed) = review(*asked / QUESTIONS.len());
            *asked += 1;
            (code, format!(r#"{{"status":{{"allowed":{allowed}}}}}"#))
        };
        let response = http::Response::builder().status(code).body(kube::client::Body::from(body.into_bytes()));
        std::future::ready(response.map_err(tower::BoxError::from))
    };
    kube::Client::new(tower::service_fn(serve), "demo")
}

#[tokio::test]
async fn what_is_granted_is_asked_once() {
    let client = api(500, |round| (200, round == 0));
    let reviewed = ask(&client, "demo").await.expect("answers");
    assert!(reviewed.rights.all() && reviewed.server == Readiness::Ready, "{reviewed:?}");
}

#[tokio::test]
async fn a_refusal_is_asked_again_once_the_api_server_has_said_that_it_is_ready() {
    let late = api(200, |round| (200, round > 0));
    assert!(ask(&late, "demo").await.expect("answers").rights.all());
    let meant = ask(&api(200, |_| (200, false)), "demo").await.expect("answers");
    assert_eq!(meant, Reviewed { rights: NamespaceRights::default(), server: Readiness::Ready });
}

#[tokio::test]
async fn a_refusal_says_what_the_api_server_said_of_itself() {
    for (code, server) in [(500, Readiness::NotReady), (403, Readiness::Silent)] {
        let reviewed = ask(&api(code, |_| (200, false)), "demo").await.expect("answers");
        assert_eq!(reviewed, Reviewed { rights: NamespaceRights::default(), server });
    }
}

#[tokio::test]
async fn who_may_not_ask_learns_by_trying_but_not_from_an_api_server_that_is_starting() {
    for ready in [200, 403] {
        assert!(ask(&api(ready, |_| (403, false)), "demo").await.expect("answers").rights.all());
    }
    assert_eq!(ask(&api(500, |_| (403, false)), "demo").await, None);
}
