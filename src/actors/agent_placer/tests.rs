//! What is asked of the API server, against one that is a function.

use std::sync::{Arc, Mutex};

use actix::Message;
use tokio::sync::{Notify, watch};
use tokio::task::LocalSet;

use super::*;
use crate::actors::client_list::messages::GeneralEgress;
use crate::actors::shell::start_monitored;
use crate::cluster::{PodPhase, PodSnapshot};
use crate::ids::Generation;
use crate::spec::AgentMode;
use crate::workload::{Workload, WorkloadKind};

pub(super) type Asked = Arc<Mutex<Vec<String>>>;

/// A client of an API server that answers each request with a code and a body, and what it was asked.
pub(super) fn api(answer: impl Fn(&str) -> (u16, String) + Send + Sync + 'static) -> (kube::Client, Asked) {
    let asked = Asked::default();
    let (seen, answer) = (Arc::clone(&asked), Arc::new(answer));
    let serve = move |request: http::Request<kube::client::Body>| {
        let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
        async move {
            let line = format!("{} {}", request.method(), request.uri());
            let body = request.into_body().collect_bytes().await.map_err(tower::BoxError::from)?;
            let (code, answer) = answer(&line);
            seen.lock().expect("unpoisoned").push(format!("{line} {}", String::from_utf8_lossy(&body)));
            let response = http::Response::builder().status(code).body(kube::client::Body::from(answer.into_bytes()));
            response.map_err(tower::BoxError::from)
        }
    };
    (kube::Client::new(tower::service_fn(serve), "demo"), asked)
}

pub(super) fn agent() -> Agent {
    Agent { image: "podway-agent:1".into(), key: "a2V5".into(), fingerprint: "1a2b3c4d".into(), mark: "00ff".into() }
}

fn status(code: u16) -> (u16, String) {
    let reason = if code == 404 { "NotFound" } else { "x" };
    let text = format!(r#"{{"status":"Failure","message":"no ({code})","reason":"{reason}","code":{code}}}"#);
    (code, text)
}

fn names(list: &str, names: &[&str]) -> (u16, String) {
    let items: Vec<String> = names.iter().map(|name| format!(r#"{{"metadata":{{"name":"{name}"}}}}"#)).collect();
    (200, format!(r#"{{"kind":"{list}","apiVersion":"v1","metadata":{{}},"items":[{}]}}"#, items.join(",")))
}

fn deleted(asked: &Asked) -> Vec<String> {
    let asked = asked.lock().expect("unpoisoned");
    let last =
        |text: &String| Some(text.strip_prefix("DELETE ")?.split_whitespace().next()?.trim_end_matches('?').to_owned());
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

/// Hears what cannot be had.
struct Sink;

impl Actor for Sink {
    type Context = Context<Self>;
}

impl Handler<PlacementHopeless> for Sink {
    type Result = ();
    fn handle(&mut self, _: PlacementHopeless, _: &mut Context<Self>) {}
}

struct Fall;

impl Message for Fall {
    type Result = ();
}

impl Handler<Fall> for AgentPlacer {
    type Result = ();
    fn handle(&mut self, _: Fall, _: &mut Context<Self>) {
        panic!("it fell");
    }
}

/// A placer that wants a pod of its own, and an API server that makes the first Job when `go` says so; everything else it
/// answers as `answer` says. What was asked is told with its body.
struct World {
    placer: actix::Addr<AgentPlacer>,
    asked: Asked,
    go: Arc<Notify>,
    late: LateWork,
    client: watch::Sender<kube::Client>,
}

fn plan() -> Plan {
    Plan {
        key: "a2V5".into(),
        fingerprint: "1a2b3c4d".into(),
        first_port: 20_000,
        namespace: "demo".into(),
        mode: AgentMode::Auto,
    }
}

fn world(answer: impl Fn(&str) -> (u16, String) + Send + Sync + 'static) -> World {
    let answer = Arc::new(answer);
    let (asked, go) = (Asked::default(), Arc::new(Notify::new()));
    let (seen, wait) = (Arc::clone(&asked), Arc::clone(&go));
    let serve = move |request: http::Request<kube::client::Body>| {
        let (seen, wait, answer) = (Arc::clone(&seen), Arc::clone(&wait), Arc::clone(&answer));
        async move {
            let line = format!("{} {}", request.method(), request.uri());
            let body = request.into_body().collect_bytes().await.map_err(tower::BoxError::from)?;
            let first = {
                let mut seen = seen.lock().expect("unpoisoned");
                seen.push(format!("{line} {}", String::from_utf8_lossy(&body)));
                line.starts_with("POST") && seen.iter().filter(|line| line.starts_with("POST")).count() == 1
            };
            let (code, body) = if first {
                wait.notified().await;
                (201, r#"{"metadata":{"name":"podway-agent-1a2b3c4d","uid":"late"}}"#.to_owned())
            } else {
                answer(&line)
            };
            let response = http::Response::builder().status(code).body(kube::client::Body::from(body.into_bytes()));
            response.map_err(tower::BoxError::from)
        }
    };
    let client = kube::Client::new(tower::service_fn(serve), "demo");
    let context = Context::new();
    let placer = context.address();
    let late = LateWork::default();
    let (client, newest) = watch::channel(client);
    let actor = AgentPlacer::new(plan(), Arc::new(agent()), newest, Sink.start().recipient(), late.clone());
    start_monitored(actor, context, |_| ());
    placer.do_send(PodsChanged { generation: Generation(1), pods: Arc::new(PodSnapshot::default()) });
    placer.do_send(ViaWorkloadsChanged {
        generation: Generation(1),
        workloads: BTreeSet::new(),
        general: GeneralEgress::Wanted,
        special: std::collections::BTreeMap::new(),
    });
    World { placer, asked, go, late, client }
}

impl World {
    async fn until_asked(&self, what: impl Fn(&str) -> bool) {
        let wait = async {
            while !self.asked.lock().expect("unpoisoned").iter().any(|line| what(line)) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let came = tokio::time::timeout(Duration::from_secs(120), wait).await;
        assert!(came.is_ok(), "only these were asked: {:?}", self.asked);
    }

    async fn stopped(&self) {
        let (reply, answer) = Reply::new();
        self.placer.do_send(Stop { reply });
        let stopped = tokio::time::timeout(Duration::from_millis(1500), answer).await;
        stopped.expect("a create that hangs does not hold up the end").expect("answered");
    }
}

fn creates(line: &str) -> bool {
    line.starts_with("POST /apis/batch/v1/namespaces/demo/jobs")
}

/// Deletes the Job that came too late, and no other.
fn deletes_exactly(line: &str) -> bool {
    line.starts_with("DELETE /apis/batch/v1/namespaces/demo/jobs/podway-agent-1a2b3c4d")
        && line.contains(r#""preconditions":{"uid":"late"}"#)
}

/// The answer to a question for the Job, or for the pods of this image: those that a Job made, with their phases.
fn in_cluster(line: &str, mark: &str, pods: &[(&str, &str)]) -> (u16, String) {
    match line {
        _ if line.starts_with("GET /apis/batch/v1/namespaces/demo/jobs/podway-agent-1a2b3c4d") => {
            let metadata = format!(r#"{{"name":"j","uid":"late","annotations":{{"podway.dev/made-by":"{mark}"}}}}"#);
            (200, format!(r#"{{"apiVersion":"meta.k8s.io/v1","kind":"PartialObjectMetadata","metadata":{metadata}}}"#))
        }
        _ if line.starts_with("GET /api/v1/namespaces/demo/pods?") => {
            assert!(line.contains("podway.dev%2Fagent%3D1a2b3c4d"), "{line}");
            let owner = |uid: &str| format!(r#"[{{"apiVersion":"batch/v1","kind":"Job","name":"j","uid":"{uid}"}}]"#);
            let pod = |(uid, phase): &(&str, &str)| {
                let owner = owner(uid);
                format!(r#"{{"metadata":{{"name":"p","ownerReferences":{owner}}},"status":{{"phase":"{phase}"}}}}"#)
            };
            let items: Vec<String> = pods.iter().map(pod).collect();
            (200, format!(r#"{{"kind":"PodList","apiVersion":"v1","metadata":{{}},"items":[{}]}}"#, items.join(",")))
        }
        _ => status(404),
    }
}

/// An API server that has this one Job, whose pod does not run.
fn waits(line: &str) -> (u16, String) {
    in_cluster(line, "00ff", &[("late", "Pending"), ("another", "Running")])
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_made_after_the_end_is_deleted() {
    let test = async {
        let world = world(waits);
        world.until_asked(creates).await;
        world.stopped().await;
        world.go.notify_one();
        world.until_asked(deletes_exactly).await;
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_made_after_the_placer_fell_is_deleted() {
    let test = async {
        let world = world(waits);
        world.until_asked(creates).await;
        world.placer.do_send(Fall);
        tokio::time::sleep(Duration::from_millis(1)).await;
        world.go.notify_one();
        world.until_asked(deletes_exactly).await;
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn what_came_of_a_create_without_an_answer_is_looked_for_by_its_mark() {
    let test = async {
        let world = world(waits);
        world.until_asked(creates).await;
        world.stopped().await;
        world.until_asked(deletes_exactly).await;
    };
    LocalSet::new().run_until(test).await;
    // That of another run stays.
    let test = async {
        let world = world(|line| in_cluster(line, "ff00", &[]));
        world.until_asked(creates).await;
        world.stopped().await;
        world.until_asked(|line| line.starts_with("GET")).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let asked = world.asked.lock().expect("unpoisoned");
        assert!(!asked.iter().any(|line| deletes_exactly(line)), "{asked:?}");
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_came_too_late_and_runs_is_left_to_who_uses_it() {
    for answered in [false, true] {
        let test = async {
            // The next connection may have taken it up; it ends by itself.
            let world = world(|line| in_cluster(line, "00ff", &[("late", "Running")]));
            world.until_asked(creates).await;
            world.stopped().await;
            if answered {
                world.go.notify_one();
            }
            world.until_asked(|line| line.starts_with("GET /api/v1/namespaces/demo/pods")).await;
            tokio::time::sleep(Duration::from_secs(60)).await;
            let asked = world.asked.lock().expect("unpoisoned");
            assert!(!asked.iter().any(|line| deletes_exactly(line)), "{asked:?}");
        };
        LocalSet::new().run_until(test).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_create_without_an_answer_makes_later_is_looked_for_at_the_end() {
    let is_there = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_there);
    let test = async move {
        let shown = move |line: &str| match seen.load(Ordering::Acquire) {
            true => waits(line),
            false => status(404),
        };
        let world = world(shown);
        world.until_asked(creates).await;
        // Nothing came of it as far as the placer can tell, and the next ones are refused.
        tokio::time::sleep(PLACE_LIMIT * 2).await;
        world.stopped().await;
        is_there.store(true, Ordering::Release);
        world.until_asked(deletes_exactly).await;
        world.late.over().await;
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn what_another_create_was_answered_for_is_not_looked_for() {
    let test = async {
        let made = (201, r#"{"metadata":{"name":"podway-agent-1a2b3c4d","uid":"second"}}"#.to_owned());
        let world = world(move |line| if line.starts_with("POST") { made.clone() } else { status(404) });
        world.until_asked(creates).await;
        tokio::time::sleep(PLACE_LIMIT * 2).await;
        world.stopped().await;
        world.late.over().await;
        let asked = world.asked.lock().expect("unpoisoned");
        assert!(!asked.iter().any(|line| line.starts_with("GET")), "{asked:?}");
    };
    LocalSet::new().run_until(test).await;
}

/// The answer to a create of what is there already.
fn taken() -> (u16, String) {
    (409, r#"{"status":"Failure","message":"there already","reason":"AlreadyExists","code":409}"#.to_owned())
}

impl World {
    /// The pod of our own that a snapshot shows.
    fn shows(&self, generation: u64, pod: PodFact) {
        let pods = PodSnapshot { pods: [(pod.uid.clone(), Arc::new(pod))].into(), namespaces: None };
        self.placer.do_send(PodsChanged { generation: Generation(generation), pods: Arc::new(pods) });
    }

    async fn is_over_within(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.late.over()).await.is_ok()
    }
}

/// Long enough for what is answered at once, and shorter than any pause.
const AT_ONCE: Duration = Duration::from_millis(100);

#[tokio::test(start_paused = true)]
async fn a_create_without_an_answer_whose_pod_is_there_is_not_looked_for() {
    let test = async {
        let world = world(|line| if line.starts_with("POST") { taken() } else { status(404) });
        world.until_asked(creates).await;
        tokio::time::sleep(PLACE_LIMIT * 2).await;
        world.stopped().await;
        assert!(world.is_over_within(AT_ONCE).await, "the next create was told that it is there");
    };
    LocalSet::new().run_until(test).await;
    for (kind, before, settles) in [
        (WorkloadKind::Job, PLACE_LIMIT / 2, true),
        (WorkloadKind::Job, PLACE_LIMIT * 2, true),
        // Another than what was asked for.
        (WorkloadKind::Pod, PLACE_LIMIT * 2, false),
    ] {
        let test = async {
            let world = world(|_| status(500));
            world.until_asked(creates).await;
            tokio::time::sleep(before).await;
            world.shows(2, (*in_the_way(kind)).clone());
            tokio::time::sleep(PLACE_LIMIT * 2).await;
            world.stopped().await;
            assert_eq!(world.is_over_within(AT_ONCE).await, settles, "{kind:?} after {before:?}");
        };
        LocalSet::new().run_until(test).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_waits_for_what_may_come_too_late_only_until_it_was_found_or_not_found_twice() {
    type Answer = fn(&str) -> (u16, String);
    let cases: [(Answer, u64, bool); 4] = [
        (|_| status(404), 2_100, true),
        (waits, 100, true),
        (|line| in_cluster(line, "00ff", &[("late", "Running")]), 100, true),
        (|_| status(500), 30_000, false),
    ];
    for (number, (answer, limit, over)) in cases.into_iter().enumerate() {
        let test = async {
            let world = world(answer);
            world.until_asked(creates).await;
            world.stopped().await;
            world.until_asked(|line| line.starts_with("GET")).await;
            assert_eq!(world.is_over_within(Duration::from_millis(limit)).await, over, "case {number}");
        };
        LocalSet::new().run_until(test).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_come_too_late_is_looked_for_with_the_newest_credentials() {
    let test = async {
        let world = world(|_| status(401));
        world.until_asked(creates).await;
        let (newest, asked) = api(waits);
        world.client.send_replace(newest);
        world.stopped().await;
        world.until_asked(|_| asked.lock().expect("unpoisoned").iter().any(|line| deletes_exactly(line))).await;
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_came_too_late_for_clean_is_deleted_though_it_runs() {
    for answered in [false, true] {
        let test = async {
            let world = world(|line| match line.contains("podway.dev%2Fkey") {
                true => status(403),
                false => in_cluster(line, "00ff", &[("late", "Running")]),
            });
            world.until_asked(creates).await;
            let (reply, left) = Reply::new();
            world.placer.do_send(RemoveAll { reply });
            left.await.expect("it is answered");
            world.stopped().await;
            if answered {
                world.go.notify_one();
            }
            world.until_asked(deletes_exactly).await;
        };
        LocalSet::new().run_until(test).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_late_work_waits_until_what_came_too_late_is_deleted() {
    let test = async {
        let world = world(waits);
        world.until_asked(creates).await;
        world.stopped().await;
        let soon = Duration::from_secs(1);
        assert!(tokio::time::timeout(soon, world.late.over()).await.is_err(), "the create is not answered");
        world.go.notify_one();
        assert!(tokio::time::timeout(soon, world.late.over()).await.is_ok(), "{:?}", world.asked);
        assert!(world.asked.lock().expect("unpoisoned").iter().any(|line| deletes_exactly(line)));
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_was_heard_of_stays() {
    let test = async {
        let world = world(|_| status(404));
        world.until_asked(creates).await;
        world.go.notify_one();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let asked = world.asked.lock().expect("unpoisoned");
        assert!(!asked.iter().any(|line| line.starts_with("DELETE")), "{asked:?}");
    };
    LocalSet::new().run_until(test).await;
}

/// A pod of our own that is in the way, made by a Job or bare.
fn in_the_way(kind: WorkloadKind) -> Arc<PodFact> {
    Arc::new(PodFact {
        uid: "old".into(),
        namespace: "demo".into(),
        name: "podway-agent-1a2b3c4d".into(),
        workload: Workload::new("demo", kind, "podway-agent-1a2b3c4d"),
        ips: Vec::new(),
        host_network: false,
        phase: PodPhase::Running,
        ready: true,
        terminating: false,
        agents: Vec::new(),
        own_pod_of: Some("1a2b3c4d".into()),
        own_job: (kind == WorkloadKind::Job).then(|| "old job".into()),
    })
}

#[tokio::test]
async fn a_pod_of_our_own_is_replaced_or_it_is_said_why_not() {
    let job = r#"{"metadata":{"name":"podway-agent-1a2b3c4d","uid":"new"}}"#;
    let done = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success"}"#;
    let cases = [(WorkloadKind::Job, Place::OwnJob, "old job"), (WorkloadKind::Pod, Place::OwnPod, "old")];
    for (kind, place, uid) in cases {
        let maker = |client| Maker {
            client: watch::channel(client).1,
            agent: Arc::new(agent()),
            namespace: "demo".into(),
            place: place.clone(),
            port: 20_000,
            clean: Arc::default(),
        };
        let (client, asked) = api(move |request| match request {
            _ if request.starts_with("POST") => (201, job.to_owned()),
            _ => (200, done.to_owned()),
        });
        let made = maker(client).make(Some(in_the_way(kind))).await;
        assert_eq!(made, (PlaceOutcome::Accepted, Made::Exactly("new".into())));
        // It may be looked at again while the watch is down: a new one of the same name stays.
        let exactly = format!(r#""preconditions":{{"uid":"{uid}"}}"#);
        let all = asked.lock().expect("unpoisoned").clone();
        let deletes: Vec<&String> = all.iter().filter(|line| line.starts_with("DELETE")).collect();
        assert!(matches!(deletes.as_slice(), [one] if one.contains(&exactly)), "{all:?}");
        // What may not be deleted is named, where it is in the way.
        let (client, _) = api(|request| if request.starts_with("POST") { status(409) } else { status(403) });
        let (outcome, made) = maker(client).make(Some(in_the_way(kind))).await;
        assert_eq!((outcome, made), (PlaceOutcome::Forbidden("no (403)".into()), Made::Nothing));
        // One that took its name is another: nothing is refused, it is seen in the next snapshot.
        let (client, _) = api(|_| status(409));
        let (outcome, _) = maker(client).make(Some(in_the_way(kind))).await;
        assert!(matches!(outcome, PlaceOutcome::Failed(_)), "{outcome:?}");
    }
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
async fn nothing_is_added_to_a_pod_on_behalf_of_an_actor_that_panicked() {
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
        let client = kube::Client::new(tower::service_fn(never), "demo");
        let context = Context::new();
        let placer = context.address();
        let client = watch::channel(client).1;
        let actor = AgentPlacer::new(plan(), Arc::new(agent()), client, Sink.start().recipient(), LateWork::default());
        start_monitored(actor, context, |_| ());
        let web = PodFact { own_pod_of: None, ..(*in_the_way(WorkloadKind::Deployment)).clone() };
        let workloads = BTreeSet::from([web.workload.clone()]);
        let pods = Arc::new(PodSnapshot { pods: [(web.uid.clone(), Arc::new(web))].into(), namespaces: None });
        placer.do_send(PodsChanged { generation: Generation(1), pods });
        placer.do_send(ViaWorkloadsChanged {
            generation: Generation(1),
            workloads,
            general: GeneralEgress::NotNeeded,
            special: Default::default(),
        });
        until("it asks", || Arc::strong_count(&open) == 2).await;
        placer.do_send(Fall);
        until("it asks no more", || Arc::strong_count(&open) == 1).await;
    };
    LocalSet::new().run_until(work).await;
}
