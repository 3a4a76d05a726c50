use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::LocalSet;

use super::cluster::same_cluster;
use super::*;
use crate::spec::ClusterAccess;
use crate::status::ConnectOutcome;

/// A daemon that keeps its files in `directory`.
fn daemon(directory: &Path) -> Daemon {
    let settings = Settings {
        mtu: 1400,
        virtual_subnet: "246.246.0.0/16".parse().unwrap(),
        udp_idle: Duration::from_secs(60),
        include_suffixes: Vec::new(),
        runtime_dir: directory.into(),
        state_dir: directory.into(),
        etc: directory.into(),
        editor: Default::default(),
        late: Default::default(),
    };
    Daemon::new(settings, "agent".to_owned(), || 0, Reply::new().0)
}

async fn shut_down(daemon: &Addr<Daemon>) {
    let (reply, over) = Reply::new();
    daemon.do_send(Shutdown { reply });
    over.await.unwrap();
}

fn caller(uid: u32) -> Caller {
    Caller { uid, gid: uid, pid: None }
}

/// Asks for a connection to `server`. To one that no client can be made for, nothing is done to the host.
fn ask(daemon: &Addr<Daemon>, uid: u32, name: &str, server: &str) -> Answer {
    ask_for(daemon, uid, name, access(server, serde_json::json!({})))
}

fn ask_for(daemon: &Addr<Daemon>, uid: u32, name: &str, access: ClusterAccess) -> Answer {
    let spec = serde_json::json!({ "name": name, "namespace": "demo", "timeout_ms": 1000 });
    let (reply, answer) = Reply::new();
    daemon.do_send(OpenSession { caller: caller(uid), spec: serde_json::from_value(spec).unwrap(), access, reply });
    answer
}

type Answer = oneshot::Receiver<Result<Opened, UserError>>;

async fn open(daemon: &Addr<Daemon>, uid: u32, name: &str, server: &str) -> Result<SessionView, UserError> {
    ask(daemon, uid, name, server).await.unwrap().map(|opened| opened.view)
}

/// The error that the connect of this connection ends with.
async fn failure(view: &mut SessionView) -> UserError {
    let status = view.status.wait_for(|status| status.outcome.is_some()).await.expect("an outcome").clone();
    match &status.outcome {
        Some(ConnectOutcome::Failed(error)) => error.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_pair_that_cannot_be_had_fails_the_connect_and_not_its_acceptance() {
    let directory = tempfile::tempdir().unwrap();
    // Where the directory of the keys should be.
    fs::write(directory.path().join("keys"), b"").expect("written");
    let work = async {
        let daemon = daemon(directory.path()).start();
        let mut view = open(&daemon, 7, "demo", "http://127.0.0.1:1").await.expect("it is accepted");
        let error = failure(&mut view).await;
        assert!(error.message.starts_with("key pair: "), "{error}");
    };
    LocalSet::new().run_until(work).await;
}

fn cluster(server: &str, more: serde_json::Value) -> Cluster {
    Cluster::of(&access(server, more))
}

fn access(server: &str, more: serde_json::Value) -> ClusterAccess {
    let mut access = serde_json::json!({ "server": server });
    access.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(access).unwrap()
}

#[test]
fn a_cluster_is_known_by_its_url_its_name_and_the_way_there() {
    let authority = |ca: &str| serde_json::json!({ "certificate_authority_data": ca });
    let a = cluster("https://192.0.2.1:6443", authority("A"));
    assert!(same_cluster(&a, &a.clone()));
    let unchecked = cluster("https://192.0.2.1:6443/", serde_json::json!({}));
    assert!(same_cluster(&a, &unchecked), "unchecked certificates");
    assert!(!same_cluster(&a, &cluster("https://192.0.2.1:6443", authority("B"))));
    let proxied = serde_json::json!({ "certificate_authority_data": "A", "proxy_url": "socks5://192.0.2.9" });
    assert!(!same_cluster(&a, &cluster("https://192.0.2.1:6443", proxied)));
    assert!(!same_cluster(&a, &cluster("https://192.0.2.2:6443", authority("A"))));
    // One router, several clusters behind it.
    let named = |name: &str| cluster("https://Gate.example:6443", serde_json::json!({ "tls_server_name": name }));
    assert!(!same_cluster(&named("a.example"), &named("b.example")));
    assert!(same_cluster(&named("a.example"), &named("A.example")));
    let plain = cluster("https://gate.example:6443", serde_json::json!({}));
    assert!(!same_cluster(&plain, &named("a.example")));
    assert!(same_cluster(&plain, &named("gate.example")), "the name it would have anyway");
}

#[tokio::test]
async fn clusters_behind_one_url_are_told_apart_by_their_names_in_tls() {
    let directory = tempfile::tempdir().unwrap();
    let work = async {
        let daemon = daemon(directory.path()).start();
        let named = |name: &str| access("https://127.0.0.1:1", serde_json::json!({ "tls_server_name": name }));
        let a = ask_for(&daemon, 1000, "a", named("a.example")).await.unwrap();
        assert!(a.is_ok());
        // Not taken for a's new credentials.
        let refused = ask_for(&daemon, 1000, "a", named("b.example")).await.unwrap().unwrap_err();
        assert_eq!(refused.message, "connection a: exists and differs in the server's name in TLS");
        assert_eq!(refused.hint, "podway disconnect a first, or choose another --name");
        let (reply, renewed) = Reply::new();
        daemon.do_send(RenewCredentials {
            caller: caller(1000),
            name: "a".into(),
            access: named("b.example"),
            ask: None,
            reply,
        });
        assert_eq!(renewed.await.unwrap().unwrap_err().message, "renew a: differs in the server's name in TLS");
        assert!(ask_for(&daemon, 1000, "b", named("b.example")).await.unwrap().is_ok());
        let refused = ask_for(&daemon, 1000, "c", named("b.example")).await.unwrap().unwrap_err();
        assert_eq!(refused.message, "connect: connection \"b\" already reaches this cluster");
        shut_down(&daemon).await;
    };
    LocalSet::new().run_until(work).await;
}

/// A daemon whose connection `a`, of user 1000, is in this phase.
fn having(directory: &Path, phase: Phase, access: &ClusterAccess) -> (Addr<Daemon>, Played) {
    let (daemon, played) = holding(directory, phase, access);
    (daemon.start(), played)
}

#[tokio::test]
async fn a_device_takes_a_name_that_neither_a_connection_nor_the_host_has() {
    let directory = tempfile::tempdir().unwrap();
    let (daemon, _played) = holding(directory.path(), Phase::Connected, &access("no URL", serde_json::json!({})));
    assert_eq!(daemon.free_device(|_| false), "podway1");
    assert_eq!(daemon.free_device(|name| matches!(name, "podway1" | "podway2")), "podway3");
}

/// The same, not started.
fn holding(directory: &Path, phase: Phase, access: &ClusterAccess) -> (Daemon, Played) {
    let mut daemon = daemon(directory);
    let played = hold(&mut daemon, "a", phase, access);
    (daemon, played)
}

/// Gives the daemon a connection.
fn hold(daemon: &mut Daemon, name: &str, phase: Phase, access: &ClusterAccess) -> Played {
    let session = Context::new();
    let status = SessionStatus { phase, ..SessionStatus::default() };
    let (status, receiver) = watch::channel(Arc::new(status));
    let spec = serde_json::json!({ "name": name, "namespace": "demo", "timeout_ms": 1, "agent_image": "agent" });
    let (spec, cluster) = (serde_json::from_value(spec).unwrap(), Cluster::of(access));
    daemon.driven.core.hold(name, 1000, spec, cluster);
    let running = Running {
        place: Place { context: String::new(), namespace: String::new() },
        owner_uid: 1000,
        device: "podway0".to_owned(),
        address: session.address(),
        status: receiver,
    };
    daemon.sessions.insert(name.into(), running);
    Played { session, _status: status }
}

/// A session that the test plays.
struct Played {
    /// Takes what the session is told, and answers nothing.
    session: Context<Session>,
    _status: watch::Sender<Arc<SessionStatus>>,
}

/// A daemon whose connection `a` to `no URL` is being ended until the test says that it has.
fn ending(directory: &Path) -> (Addr<Daemon>, Played) {
    having(directory, Phase::Disconnecting, &access("no URL", serde_json::json!({})))
}

#[tokio::test]
async fn a_way_to_the_cluster_that_changed_is_named_and_taken_up_by_a_new_connection() {
    let directory = tempfile::tempdir().unwrap();
    let work = async {
        let by = |proxy: &str, ca: &str| {
            let more = serde_json::json!({ "proxy_url": proxy, "certificate_authority_data": ca });
            access("https://127.0.0.1:1", more)
        };
        let (before, rotated) = (by("socks5://192.0.2.9", "A"), by("socks5://192.0.2.9", "B"));
        let (daemon, _played) = having(directory.path(), Phase::Connected, &before);
        assert!(ask_for(&daemon, 1000, "a", before).await.unwrap().unwrap().existed);
        for (access, parts) in [
            (rotated, "the certificate authority"),
            (by("socks5://192.0.2.8", "A"), "the proxy"),
            (by("socks5://192.0.2.8", "B"), "the proxy, the certificate authority"),
        ] {
            let refused = ask_for(&daemon, 1000, "a", access.clone()).await.unwrap().unwrap_err();
            assert_eq!(refused.message, format!("connection a: exists and differs in {parts}"));
            assert_eq!(refused.hint, "podway disconnect a first");
            let (reply, renewed) = Reply::new();
            daemon.do_send(RenewCredentials { caller: caller(1000), name: "a".into(), access, ask: None, reply });
            let refused = renewed.await.unwrap().unwrap_err();
            assert_eq!(refused.message, format!("renew a: differs in {parts}"));
            assert_eq!(refused.hint, "podway disconnect a, then connect again");
        }
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn what_is_asked_for_while_a_connection_ends_waits_for_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let work = async {
        let daemon = daemon(directory.path()).start();
        for round in 0..5 {
            // Other options each time: what exists would be refused as different.
            let mut view = open(&daemon, 1000, "a", &format!("no URL {round}")).await.expect("accepted");
            failure(&mut view).await;
        }
        shut_down(&daemon).await;
    };
    LocalSet::new().run_until(work).await;
}

fn close(daemon: &Addr<Daemon>, uid: u32, name: Option<&str>) -> oneshot::Receiver<Result<Closed, UserError>> {
    let (reply, closed) = Reply::new();
    daemon.do_send(CloseSession { caller: caller(uid), name: name.map(str::to_owned), clean: false, reply });
    closed
}

async fn names(daemon: &Addr<Daemon>, uid: u32) -> Vec<String> {
    let (reply, listed) = Reply::new();
    daemon.do_send(ListSessions { caller: caller(uid), reply });
    listed.await.unwrap().iter().map(|view| view.name.to_string()).collect()
}

/// The error of a connect that was withdrawn.
async fn withdrawn(answer: Answer) -> String {
    let error = answer.await.expect("an answer").expect_err("it must not be opened");
    assert_eq!(error.reason, Reason::Cancelled);
    error.message
}

#[tokio::test]
async fn what_waits_for_an_end_is_withdrawn_by_a_disconnect_or_with_its_asker() {
    let directory = tempfile::tempdir().unwrap();
    let work = async {
        let (daemon, _ending) = ending(directory.path());
        let b = ask(&daemon, 1000, "b", "no URL");
        drop(ask(&daemon, 1000, "c", "no URL"));
        let waits = ask(&daemon, 1000, "d", "no URL");
        assert_eq!(close(&daemon, 1000, Some("b")).await.unwrap().expect("closed").name, "b");
        assert_eq!(withdrawn(b).await, "connect b: withdrawn by podway disconnect");
        daemon.do_send(SessionEnded { name: "a".into(), exit: Exit::Stopped });
        // Had c been opened, d would be refused: it is the same cluster.
        let d = waits.await.unwrap().expect("opened");
        assert_eq!((d.view.name.as_ref(), d.existed), ("d", false));
        shut_down(&daemon).await;
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_an_end_waits_no_longer_than_its_own_time() {
    let directory = tempfile::tempdir().unwrap();
    let work = async {
        let (daemon, _ending) = ending(directory.path());
        let error = ask(&daemon, 1000, "b", "no URL").await.unwrap().expect_err("its time is over");
        assert_eq!(error.reason, Reason::TimedOut);
        assert_eq!(names(&daemon, 1000).await, ["a"]);
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn a_name_that_is_taken_is_refused_at_once_whatever_ends_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    let work = async {
        let (mut daemon, _ending) =
            holding(directory.path(), Phase::Disconnecting, &access("no URL", serde_json::json!({})));
        let elsewhere = access("another URL", serde_json::json!({}));
        let _work = hold(&mut daemon, "work", Phase::Connected, &elsewhere);
        let refused = ask(&daemon.start(), 1000, "work", "no URL").await.unwrap().expect_err("it is another one");
        assert_eq!(refused.reason, Reason::AlreadyConnected);
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn what_waits_for_an_end_is_one_of_its_users_connections() {
    let directory = tempfile::tempdir().unwrap();
    let work = async {
        let (daemon, ending) = ending(directory.path());
        let mut b = ask(&daemon, 1000, "b", "no URL");
        let c = ask(&daemon, 1001, "c", "no URL");
        drop(ask(&daemon, 1001, "gone", "no URL"));
        assert_eq!(names(&daemon, 1000).await, ["a", "b"]);
        assert_eq!(names(&daemon, 1001).await, ["c"]);
        assert_eq!(names(&daemon, 0).await, ["a", "b", "c"]);

        let refused = close(&daemon, 1000, None).await.unwrap().expect_err("several");
        assert_eq!(refused.hint, "name one of a, b, or say --all");
        assert!(b.try_recv().is_err(), "a refused disconnect withdraws nothing");
        assert_eq!(close(&daemon, 1001, Some("b")).await.unwrap().expect_err("another's").reason, Reason::NotConnected);
        assert_eq!(close(&daemon, 1001, None).await.unwrap().expect("its only one").name, "c");
        assert_eq!(withdrawn(c).await, "connect c: withdrawn by podway disconnect");
        assert_eq!(close(&daemon, 0, Some("b")).await.unwrap().expect("root may").name, "b");
        withdrawn(b).await;

        // One that waits for an earlier one of its name goes with it.
        let again = ask(&daemon, 1000, "a", "no URL");
        assert_eq!(names(&daemon, 1000).await, ["a"]);
        let closed = close(&daemon, 1000, None);
        withdrawn(again).await;
        drop(ending.session);
        assert_eq!(closed.await.unwrap().expect("closed").name, "a");
        daemon.do_send(SessionEnded { name: "a".into(), exit: Exit::Stopped });
        assert_eq!(names(&daemon, 0).await, [""; 0]);
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn a_connection_that_there_is_none_of_is_told_apart_from_none_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let work = async {
        let (daemon, _played) = having(directory.path(), Phase::Connected, &access("no URL", serde_json::json!({})));
        let refused = close(&daemon, 1000, Some("b")).await.unwrap().expect_err("there is none");
        assert_eq!(
            (&*refused.message, &*refused.hint),
            ("connection b: not found", "podway status shows those there are")
        );
        for (name, message) in [(Some("b"), "connection b: not found"), (None, "not connected")] {
            let refused = close(&daemon, 1001, name).await.unwrap().expect_err("there is none");
            assert_eq!((&*refused.message, &*refused.hint), (message, "podway connect makes a connection"));
        }
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn a_clean_disconnect_that_comes_too_late_says_that_it_removed_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let work = async {
        let (daemon, ending) = ending(directory.path());
        drop(ending.session);
        for (clean, left) in [(true, vec![NOT_REMOVED.to_owned()]), (false, Vec::new())] {
            let (reply, closed) = Reply::new();
            daemon.do_send(CloseSession { caller: caller(1000), name: None, clean, reply });
            assert_eq!(closed.await.unwrap().expect("closed").remains.left, left);
        }
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn a_clean_disconnect_of_no_connection_says_how_to_remove_what_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let work = async {
        let daemon = daemon(directory.path()).start();
        let hint = async || {
            let (reply, closed) = Reply::new();
            daemon.do_send(CloseSession { caller: caller(1000), name: None, clean: true, reply });
            closed.await.unwrap().expect_err("there is none").hint
        };
        assert_eq!(hint().await, "podway connect makes a connection", "this user has made nothing");
        let identity = Identity::load_or_create(directory.path(), 1000).expect("a key pair");
        let label = of_public_key(&identity.public);
        let unknown =
            format!("kubectl get jobs,pods -A -l {label} shows what is left of earlier connections, if anything is");
        assert_eq!(hint().await, unknown, "a key of which the places are not known");
        for (context, namespace) in [("", "till"), ("kind", "shop")] {
            let place = Place { context: context.into(), namespace: namespace.into() };
            places::add(directory.path(), 1000, place).expect("noted");
        }
        let lines = format!(
            "kubectl --context kind -n shop delete jobs,pods -l {label}; kubectl -n till delete jobs,pods -l {label} removes what"
        );
        assert!(hint().await.starts_with(&lines), "{}", hint().await);
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn what_waits_for_an_end_is_shown_as_connecting_until_it_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let work = async {
        let (daemon, _ending) = ending(directory.path());
        let opened = ask(&daemon, 1000, "b", "no URL");
        let (reply, listed) = Reply::new();
        daemon.do_send(ListSessions { caller: caller(1000), reply });
        let mut view = listed.await.unwrap().pop().expect("it is listed");
        let status = Arc::clone(&view.status.borrow());
        assert_eq!((&*status.name, &*status.server, status.phase), ("b", "no URL", Phase::Connecting));
        daemon.do_send(SessionEnded { name: "a".into(), exit: Exit::Stopped });
        opened.await.unwrap().expect("opened");
        // By the view that was had before.
        failure(&mut view).await;
        shut_down(&daemon).await;
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn a_second_connection_to_a_cluster_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let work = async {
        let daemon = daemon(directory.path()).start();
        let all = tokio::join!(
            open(&daemon, 1000, "a", "no URL"),
            open(&daemon, 1000, "b", "no URL/"),
            open(&daemon, 1001, "c", "no URL"),
            open(&daemon, 1000, "d", "no URL either"),
        );
        assert!(all.0.is_ok() && all.3.is_ok());
        let refused = all.1.unwrap_err();
        assert_eq!(refused.message, "connect: connection \"a\" already reaches this cluster");
        assert_eq!(refused.hint, "use that connection, or podway disconnect a first");
        let refused = all.2.unwrap_err();
        assert_eq!(refused.message, "connect: a connection of another user already reaches this cluster");
        shut_down(&daemon).await;
    };
    LocalSet::new().run_until(work).await;
}

/// A listener that takes connections and says nothing, and its URL.
async fn mute() -> (tokio::net::TcpListener, String) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

#[tokio::test]
async fn a_user_has_few_dry_runs_at_once_and_one_that_nobody_waits_for_ends() {
    LocalSet::new()
        .run_until(async {
            let directory = tempfile::tempdir().unwrap();
            let daemon = daemon(directory.path()).start();
            let (_listener, url) = mute().await;
            let plan = |uid: u32| {
                let spec = serde_json::json!({ "name": "a", "namespace": "demo", "timeout_ms": u64::MAX });
                let (reply, answer) = Reply::new();
                let access = access(&url, serde_json::json!({}));
                let spec = serde_json::from_value(spec).unwrap();
                daemon.do_send(PlanSession { caller: caller(uid), spec, access, reply });
                answer
            };
            let waiting: Vec<_> = (0..PLANS_PER_USER).map(|_| plan(7)).collect();
            let refused = plan(7).await.unwrap().expect_err("one too many");
            assert_eq!(refused.reason, Reason::LimitReached);
            drop(waiting);
            // Their places are free once they were seen to be given up.
            let mut again = plan(7);
            while let Ok(Ok(Err(refused))) = timeout(Duration::from_secs(1), &mut again).await {
                assert_eq!(refused.reason, Reason::LimitReached);
                again = plan(7);
            }
            shut_down(&daemon).await;
        })
        .await;
}
