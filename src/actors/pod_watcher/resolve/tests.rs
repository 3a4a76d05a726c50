//! Answers weighed against each other, and look-ups over ways that are slow or broken, in paused time.

use std::sync::Mutex;

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

/// An API server that answers the n-th GET of a deployment `web` as `code(n)` says, each after `delay`; there is nothing
/// else but deployment `web`.
fn api(delay: Duration, code: impl Fn(usize) -> Option<u16> + Send + Sync + 'static) -> watch::Receiver<kube::Client> {
    api_that_is(404, delay, code)
}

/// The same; it answers `/readyz` so.
fn api_that_is(
    ready: u16,
    delay: Duration,
    code: impl Fn(usize) -> Option<u16> + Send + Sync + 'static,
) -> watch::Receiver<kube::Client> {
    let (count, code) = (Arc::new(Mutex::new(0)), Arc::new(code));
    let serve = move |request: http::Request<kube::client::Body>| {
        let path = request.uri().path().to_owned();
        let code = match path.as_str() {
            "/apis/apps/v1/namespaces/demo/deployments/web" => {
                let mut count = count.lock().expect("unpoisoned");
                *count += 1;
                code(*count)
            }
            "/readyz" => Some(ready),
            "/apis/apps/v1/namespaces/demo/deployments" | "/api/v1/namespaces/demo" => Some(200),
            _ => Some(404),
        };
        async move {
            let Some(code) = code else { return std::future::pending().await };
            sleep(delay).await;
            let web = r#"{"metadata":{"name":"web","namespace":"demo"},"spec":{"replicas":1}}"#;
            let body = match code {
                200 if path.ends_with("/deployments") => format!(r#"{{"items":[{web}]}}"#),
                200 => web.to_owned(),
                code => format!(r#"{{"status":"Failure","message":"no","reason":"x","code":{code}}}"#),
            };
            let response = http::Response::builder().status(code);
            response.body(kube::client::Body::from(body.into_bytes())).map_err(tower::BoxError::from)
        }
    };
    watch::channel(kube::Client::new(tower::service_fn(serve), "demo")).1
}

/// What a name turns out to be, and how long it took.
async fn timed(name: &str, client: watch::Receiver<kube::Client>) -> (Resolution, Duration) {
    let pods = watch::channel(None).1;
    timed_beside(name, client, pods).await
}

/// The same, with pods in sight.
async fn timed_beside(name: &str, client: watch::Receiver<kube::Client>, pods: PodsInSight) -> (Resolution, Duration) {
    let begun = Instant::now();
    let reference: WorkloadRef = name.parse().expect("a reference");
    let mut resolutions = resolve(client, "demo".into(), [reference.clone()].into(), pods, || 128).await;
    (resolutions.remove(&reference).expect("an answer"), begun.elapsed())
}

fn web() -> Resolution {
    let workload = Workload::new("demo", WorkloadKind::Deployment, "web");
    Resolution::Found { workload, replicas: Some(1) }
}

const SLOW: Duration = Duration::from_secs(3);
const USUAL: Duration = Duration::from_millis(300);

#[tokio::test(start_paused = true)]
async fn a_slow_answer_is_an_answer() {
    assert_eq!(timed("web", api(SLOW, |_| Some(200))).await, (web(), SLOW));
}

#[tokio::test(start_paused = true)]
async fn a_look_up_that_fails_is_made_again_until_it_does_not() {
    let (resolution, took) = timed("web", api(USUAL, |n| Some(if n < 5 { 503 } else { 200 }))).await;
    assert_eq!(resolution, web());
    assert!(took > RETRY_FIRST * 7 && took < Duration::from_secs(10), "{took:?}");
    // One that is never answered is given up, and made again.
    let (resolution, took) = timed("web", api(USUAL, |n| (n > 1).then_some(200))).await;
    assert_eq!(resolution, web());
    assert!(took > FIND_LIMIT && took < FIND_LIMIT + Duration::from_secs(2), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_counts_at_once_where_the_api_server_says_that_it_is_ready() {
    let refused = Resolution::Forbidden { missing: "get deployments in demo".into() };
    let (resolution, took) = timed("web", api_that_is(200, USUAL, |_| Some(403))).await;
    assert_eq!(resolution, refused);
    assert!(took <= USUAL * 3, "{took:?}");
    // It may have become ready between the refusal and that word.
    let (resolution, _) = timed("web", api_that_is(200, USUAL, |n| Some(if n == 1 { 403 } else { 200 }))).await;
    assert_eq!(resolution, web());
    // Where it does not say, it has to go on.
    let (resolution, took) = timed("web", api_that_is(403, Duration::from_millis(50), |_| Some(403))).await;
    assert_eq!(resolution, refused);
    assert!(took >= refusal::GOES_ON && took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_starting_is_asked_until_it_is_not() {
    let (resolution, took) = timed("web", api_that_is(500, USUAL, |n| Some(if n < 6 { 403 } else { 200 }))).await;
    assert_eq!(resolution, web());
    assert!(took > refusal::GOES_ON, "{took:?}");
    // One that never gets ready does not hide the missing right for ever.
    let (resolution, took) = timed("web", api_that_is(500, USUAL, |_| Some(403))).await;
    assert!(matches!(resolution, Resolution::Forbidden { .. }), "{resolution:?}");
    assert!(took >= refusal::NOT_READY && took < refusal::NOT_READY + Duration::from_secs(2), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_name_is_refused_soon_with_near_names_on_any_way() {
    for (way, limit) in [(USUAL, Duration::from_secs(2)), (SLOW, SLOW * 3)] {
        let (resolution, took) = timed("wbe", api(way, |_| Some(200))).await;
        let near = vec!["deployment/web".to_owned()];
        assert_eq!(resolution, Resolution::NotFound { near, namespace_missing: false });
        assert!(took < limit, "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_near_name_may_be_of_another_kind() {
    for (name, wanted) in [
        ("statefulset/wbe", "deployment/web"),
        ("daemonset/web", "deployment/web"),
        ("pod/wbe", "deployment/web"),
        ("demo/statefulset/wbe", "demo/deployment/web"),
    ] {
        let (resolution, _) = timed(name, api(USUAL, |_| Some(200))).await;
        let near = vec![wanted.to_owned()];
        assert_eq!(resolution, Resolution::NotFound { near, namespace_missing: false }, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_another_namespace_has_is_offered_with_it() {
    let snapshot = |pods: &[(&str, &str)]| {
        let fact = |(namespace, name): &(&str, &str)| {
            let pod = serde_json::json!({"metadata": {"uid": format!("{namespace}-{name}"), "namespace": namespace, "name": name}});
            serde_json::from_value::<Object>(pod).expect("a pod").pod(&mut Names::default())
        };
        let pods = pods.iter().map(fact).map(|pod| (pod.uid.clone(), Arc::new(pod))).collect();
        Some(Arc::new(PodSnapshot { pods, namespaces: None }))
    };
    let near = async |name: &str, pods: PodsInSight| {
        let (resolution, took) = timed_beside(name, api(USUAL, |_| Some(200)), pods).await;
        let Resolution::NotFound { near, .. } = resolution else { panic!("{resolution:?}") };
        (near, took)
    };
    let (_told, pods) = watch::channel(snapshot(&[("zoo", "api"), ("other", "api"), ("demo", "store")]));
    assert_eq!(near("api", pods.clone()).await.0, ["other/pod/api"]);
    assert_eq!(near("statefulset/api", pods.clone()).await.0, [""; 0]);
    assert_eq!(near("store", pods).await.0, [""; 0]);
    // Pods that never come into sight cost the other names nothing.
    let (_silent, pods) = watch::channel(None);
    let (near, took) = near("wbe", pods).await;
    assert_eq!(near, ["deployment/web"]);
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_name_does_not_wait_for_one_that_cannot_be_looked_up() {
    let references = ["web", "wbe"].map(|name| name.parse().expect("a reference"));
    let pods = watch::channel(None).1;
    let resolutions = resolve(api(USUAL, |_| Some(503)), "demo".into(), references.into(), pods, || 128).await;
    assert_eq!(resolutions.len(), 1, "{resolutions:?}");
}

#[test]
fn pauses_grow_to_a_limit_and_differ() {
    let pauses: Vec<Duration> = (1..40).map(|tries| pause(tries, 0)).collect();
    assert!(pauses.is_sorted());
    assert!(pause(40, u8::MAX) <= RETRY_MAX * 5 / 4 && pause(1, 0) < pause(1, u8::MAX));
}
