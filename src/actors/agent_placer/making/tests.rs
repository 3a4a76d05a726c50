//! A Job that is there, and whose pod is refused: what is told of that.

use super::super::tests::{agent, api};
use super::*;

const QUOTA: &str = "pods \"podway-agent-1a2b3c4d\" is forbidden: exceeded quota: full, requested: pods=1, used: pods=0, limited: pods=0";

/// What making a Job comes to that is there already, where the API server answers so for a pod of it.
async fn outcome(code: u16, message: &str) -> (PlaceOutcome, Made) {
    let failure = |code: u16, reason: &str, message: &str| {
        let text = serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message,
        });
        (code, text.to_string())
    };
    let message = message.to_owned();
    let (client, asked) = api(move |line| match line {
        _ if line.starts_with("POST /apis/batch/") => failure(409, "AlreadyExists", "jobs \"j\" already exists"),
        _ if !line.starts_with("POST /api/v1/namespaces/demo/pods?") => panic!("{line}"),
        _ if code == 201 => (code, r#"{"metadata":{"name":"p"}}"#.to_owned()),
        _ => failure(code, "Forbidden", &message),
    });
    let maker = Maker {
        client: watch::channel(client).1,
        agent: Arc::new(agent()),
        namespace: "demo".into(),
        place: Place::OwnJob,
        port: 9801,
        clean: Arc::default(),
    };
    let came = maker.make(None).await;
    // It is asked without consequences.
    let asked = asked.lock().unwrap();
    assert!(asked.len() == 2 && asked[1].contains("/pods?") && asked[1].contains("dryRun=All"), "{asked:?}");
    came
}

#[tokio::test]
async fn what_refuses_the_pod_of_a_job_is_told() {
    assert_eq!(outcome(403, QUOTA).await, (PlaceOutcome::Forbidden(QUOTA.into()), Made::Before));
    let webhook = "admission webhook \"gate.example\" denied the request: no";
    assert_eq!(outcome(400, webhook).await, (PlaceOutcome::Rejected(webhook.into()), Made::Before));
    let silent = "Internal error occurred: failed calling webhook \"slow.example\": context deadline exceeded";
    assert_eq!(outcome(500, silent).await, (PlaceOutcome::Forbidden(silent.into()), Made::Before));
}

#[tokio::test]
async fn what_says_nothing_of_the_jobs_pod_is_not_told() {
    let waits = (PlaceOutcome::Failed("jobs \"j\" already exists".into()), Made::Before);
    assert_eq!(outcome(201, "").await, waits, "it would be taken");
    let right =
        "pods is forbidden: User \"u\" cannot create resource \"pods\" in API group \"\" in the namespace \"demo\"";
    assert_eq!(outcome(403, right).await, waits, "the user may make Jobs only");
    assert_eq!(outcome(400, "admission webhook \"w\" does not support dry run").await, waits, "it cannot be asked so");
    assert_eq!(outcome(409, "pods \"p\" already exists").await, waits, "a bare pod is there");
    assert_eq!(outcome(503, "the server is starting").await, waits);
}
