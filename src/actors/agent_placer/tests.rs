//! What is asked of the API server at the end, against one that is a function.

use std::sync::{Arc, Mutex};

use super::*;
use crate::actors::client_list::messages::GeneralEgress;
use crate::ids::Generation;

type Asked = Arc<Mutex<Vec<String>>>;

/// A client of an API server that answers each request with a code and a body, and what it was asked.
fn api(answer: impl Fn(&str) -> (u16, String) + Send + Sync + 'static) -> (kube::Client, Asked) {
    let asked = Asked::default();
    let (seen, answer) = (Arc::clone(&asked), Arc::new(answer));
    let serve = move |request: http::Request<kube::client::Body>| {
        let text = format!("{} {}", request.method(), request.uri());
        let (code, body) = answer(&text);
        seen.lock().expect("unpoisoned").push(text);
        let response = http::Response::builder().status(code).body(kube::client::Body::from(body.into_bytes()));
        std::future::ready(response.map_err(tower::BoxError::from))
    };
    (kube::Client::new(tower::service_fn(serve), "demo"), asked)
}

fn agent() -> Agent {
    Agent { image: "podway-agent:1".into(), key: "a2V5".into(), fingerprint: "1a2b3c4d".into() }
}

fn status(code: u16) -> (u16, String) {
    let text = format!(r#"{{"status":"Failure","message":"no ({code})","reason":"x","code":{code}}}"#);
    (code, text)
}

fn names(list: &str, names: &[&str]) -> (u16, String) {
    let items: Vec<String> = names.iter().map(|name| format!(r#"{{"metadata":{{"name":"{name}"}}}}"#)).collect();
    (200, format!(r#"{{"kind":"{list}","apiVersion":"v1","metadata":{{}},"items":[{}]}}"#, items.join(",")))
}

fn deleted(asked: &Asked) -> Vec<String> {
    let asked = asked.lock().expect("unpoisoned");
    let last = |text: &String| Some(text.strip_prefix("DELETE ")?.trim_end_matches('?').to_owned());
    asked.iter().filter_map(last).collect()
}

#[tokio::test]
async fn clean_deletes_the_jobs_and_pods_of_every_image_of_this_key() {
    let (client, asked) = api(|request| match request {
        _ if request.starts_with("GET /apis/batch/v1/namespaces/demo/jobs?") => {
            assert!(request.contains("podway.dev%2Fkey%3Daedbcece349eeb04"), "{request}");
            names("JobList", &["podway-agent-99999999"])
        }
        _ if request.starts_with("GET") => names("PodList", &["podway-agent-99999999-x"]),
        _ => (200, r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success"}"#.to_owned()),
    });
    assert_eq!(remove(client, &agent(), "demo", Vec::new()).await, [""; 0]);
    assert_eq!(
        deleted(&asked),
        [
            "/apis/batch/v1/namespaces/demo/jobs/podway-agent-1a2b3c4d",
            "/apis/batch/v1/namespaces/demo/jobs/podway-agent-99999999",
            "/api/v1/namespaces/demo/pods/podway-agent-99999999-x",
        ]
    );
}

#[tokio::test]
async fn what_clean_may_not_delete_is_told_where_it_is_there() {
    let (client, _) = api(|request| match request {
        _ if request.starts_with("GET /apis/batch") => names("JobList", &["podway-agent-99999999"]),
        _ if request.starts_with("GET") => status(403),
        _ => status(403),
    });
    let left = remove(client, &agent(), "demo", Vec::new()).await;
    assert_eq!(left, ["job demo/podway-agent-99999999: no (403)"]);
}

#[tokio::test]
async fn our_own_pod_is_taken_back_as_a_job_and_as_a_pod() {
    let (client, asked) = api(|_| status(404));
    withdraw(client, &agent(), "demo").await;
    let mut deleted = deleted(&asked);
    deleted.sort();
    assert_eq!(
        deleted,
        [
            "/api/v1/namespaces/demo/pods/podway-agent-1a2b3c4d",
            "/apis/batch/v1/namespaces/demo/jobs/podway-agent-1a2b3c4d",
        ]
    );
}

struct Fall;

told!(Fall);

impl Handler<Fall> for AgentPlacer {
    type Result = ();
    fn handle(&mut self, _: Fall, _: &mut Context<Self>) {
        panic!("it fell");
    }
}

/// Hears what cannot be had.
struct Sink;

impl Actor for Sink {
    type Context = Context<Self>;
}

impl Handler<PlacementHopeless> for Sink {
    type Result = ();
    fn handle(&mut self, _: PlacementHopeless, _: &mut Context<Self>) {}
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    // Less than a placement may take by itself.
    assert!(tokio::time::timeout(PLACE_LIMIT / 2, wait).await.is_ok(), "{what}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_placed_on_behalf_of_an_actor_that_panicked() {
    let work = async {
        let open = Arc::new(());
        let asking = Arc::downgrade(&open);
        let never = move |_: http::Request<kube::client::Body>| {
            let open = asking.upgrade();
            async move {
                std::future::pending::<()>().await;
                drop(open);
                Err::<http::Response<kube::client::Body>, _>(tower::BoxError::from("never"))
            }
        };
        let plan = Plan {
            key: "a2V5".into(),
            fingerprint: "1a2b3c4d".into(),
            first_port: 20_000,
            namespace: "demo".into(),
            mode: crate::spec::AgentMode::Auto,
        };
        let client = kube::Client::new(tower::service_fn(never), "demo");
        let context = Context::new();
        let placer = context.address();
        let actor = AgentPlacer::new(plan, Arc::new(agent()), client, Sink.start().recipient());
        crate::actors::shell::start_monitored(actor, context, |_| ());
        placer.do_send(PodsChanged { generation: Generation(1), pods: Arc::default() });
        placer.do_send(ViaWorkloadsChanged {
            generation: Generation(1),
            workloads: BTreeSet::new(),
            general: GeneralEgress::Wanted,
            special: Default::default(),
        });
        until("it asks", || Arc::strong_count(&open) == 2).await;
        placer.do_send(Fall);
        until("it asks no more", || Arc::strong_count(&open) == 1).await;
    };
    tokio::task::LocalSet::new().run_until(work).await;
}
