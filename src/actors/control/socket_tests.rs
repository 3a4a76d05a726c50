//! The socket end to end, with a Daemon that has one connection.

use std::path::Path;
use std::sync::Arc;

use actix::{Actor, Context, Handler};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::listener::{Owner, bind};
use super::protocol::{MAX_LINE, Op, Request};
use super::*;
use crate::actors::daemon::messages::{
    CloseSession, Closed, ForgoCredentials, KeepCredentials, ListSessions, OpenSession, Opened, PlanSession,
    RenewCredentials, SessionView, not_found,
};
use crate::actors::session::core::renewal::Ask;
use crate::actors::session::messages::{Asking, KeeperCame, Remains};
use crate::ids::AskId;
use crate::logs::{Level, LogLine, LogRing, PAGE, Whose};
use crate::spec::{AgentMode, ClusterAccess, ConnectSpec, Credential, DnsMode};
use crate::status::{ConnectOutcome, Mark, Phase, SessionStatus, Step};

const CANARY: &str = "canary-7f3a";

struct FakeDaemon(watch::Sender<Arc<SessionStatus>>);

impl FakeDaemon {
    fn view(&self) -> SessionView {
        SessionView { name: "demo".into(), owner_uid: 0, status: self.0.subscribe() }
    }
}

impl Actor for FakeDaemon {
    type Context = Context<FakeDaemon>;
}

impl Handler<OpenSession> for FakeDaemon {
    type Result = ();
    fn handle(&mut self, message: OpenSession, _: &mut Context<FakeDaemon>) {
        tracing::info!(?message, "asked to connect");
        // What a test has told of it before is there.
        let existed = *self.view().status.borrow() != Arc::default();
        message.reply.answer(Ok(Opened { view: self.view(), existed }));
        if !existed {
            self.0.send_modify(|status| {
                let status = Arc::make_mut(status);
                status.steps.push(Step { at_ms: 1, text: "cluster answers".into(), mark: Mark::Ok });
                status.outcome = Some(ConnectOutcome::Ready);
            });
        }
    }
}

impl Handler<PlanSession> for FakeDaemon {
    type Result = ();
    // The reply is dropped.
    fn handle(&mut self, message: PlanSession, _: &mut Context<FakeDaemon>) {
        tracing::info!(?message, "asked to plan");
    }
}

impl Handler<CloseSession> for FakeDaemon {
    type Result = ();
    fn handle(&mut self, message: CloseSession, _: &mut Context<FakeDaemon>) {
        let remains = Remains { left: vec!["a pod".into()], ..Remains::default() };
        message.reply.answer(Ok(Closed { name: message.name.unwrap_or_default(), remains }));
    }
}

impl Handler<ListSessions> for FakeDaemon {
    type Result = ();
    fn handle(&mut self, message: ListSessions, _: &mut Context<FakeDaemon>) {
        message.reply.answer(vec![self.view()]);
    }
}

impl Handler<RenewCredentials> for FakeDaemon {
    type Result = ();
    // The reply is dropped: what a daemon does that goes away.
    fn handle(&mut self, _: RenewCredentials, _: &mut Context<FakeDaemon>) {}
}

impl Handler<ForgoCredentials> for FakeDaemon {
    type Result = ();
    fn handle(&mut self, message: ForgoCredentials, _: &mut Context<FakeDaemon>) {
        message.reply.answer(Err(not_found(Some(&format!("{} {} {}", message.name, message.ask, message.why)), true)));
    }
}

impl Handler<KeepCredentials> for FakeDaemon {
    type Result = ();
    // Asks at once. Its connection is replaced or over when the phase says so; that the keeper went, the name says.
    fn handle(&mut self, message: KeepCredentials, _: &mut Context<FakeDaemon>) {
        let KeeperCame { asking, gone } = message.keeper;
        let states = self.0.clone();
        message.reply.answer(Ok(()));
        tokio::spawn(async move {
            asking.send_replace(Asking::Wanted(Ask { id: AskId(3), within: Duration::from_secs(45) }));
            let mut states_rx = states.subscribe();
            tokio::select! {
                _ = gone => {
                    states.send_modify(|status| Arc::make_mut(status).name = "the keeper is gone".into());
                }
                ends = states_rx.wait_for(|status| status.phase >= Phase::Disconnecting) => {
                    if ends.is_ok_and(|status| status.phase == Phase::Disconnecting) {
                        asking.send_replace(Asking::Replaced);
                    }
                }
            }
        });
    }
}

struct Peer(BufReader<UnixStream>);

impl Peer {
    async fn raw(path: &Path) -> Peer {
        let mut peer = Peer(BufReader::new(UnixStream::connect(path).await.expect("connected")));
        assert_eq!(peer.line().await, "{\"podway\":1}");
        peer
    }

    async fn new(path: &Path) -> Peer {
        let mut peer = Peer::raw(path).await;
        peer.say("{\"podway\":1}").await;
        peer
    }

    async fn say(&mut self, line: &str) {
        // The daemon may close while a line that is too long is still being written.
        drop(self.0.get_mut().write_all(format!("{line}\n").as_bytes()).await);
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        drop(self.0.read_line(&mut line).await);
        line.trim_end().to_owned()
    }

    async fn ask(&mut self, line: &str) -> String {
        self.say(line).await;
        self.line().await
    }
}

fn with_control<F: Future<Output = ()>>(test: impl FnOnce(std::path::PathBuf, actix::Addr<Control>) -> F) {
    serve(|path, control, _, _| test(path, control));
}

type States = watch::Sender<Arc<SessionStatus>>;

fn with_daemon<F: Future<Output = ()>>(test: impl FnOnce(std::path::PathBuf, States) -> F) {
    serve(|path, _, states, _| test(path, states));
}

fn serve<F: Future<Output = ()>>(test: impl FnOnce(std::path::PathBuf, actix::Addr<Control>, States, LogRing) -> F) {
    actix_rt::System::new().block_on(async {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s");
        let states = watch::Sender::new(Arc::new(SessionStatus::default()));
        let daemon = FakeDaemon(states.clone()).start();
        let logs = LogRing::default();
        let edges = Edges {
            open: daemon.clone().recipient(),
            plan: daemon.clone().recipient(),
            close: daemon.clone().recipient(),
            list: daemon.clone().recipient(),
            renew: daemon.clone().recipient(),
            forgo: daemon.clone().recipient(),
            keep: daemon.recipient(),
            logs: logs.clone(),
            settings: Arc::default(),
        };
        let listener = bind(&path, Owner::by_hand(None, None)).expect("listening");
        let control = Control::new(listener, edges).start();
        let test = test(path, control, states, logs);
        timeout(Duration::from_secs(20), test).await.expect("in time");
    });
}

fn connect_line() -> String {
    let spec = ConnectSpec {
        name: "demo".into(),
        context: String::new(),
        namespace: "shop".into(),
        proxy_via: Vec::new(),
        also_proxy: Vec::new(),
        never_proxy: Vec::new(),
        vnat: Vec::new(),
        allow_conflicting_subnets: Vec::new(),
        agent: AgentMode::Auto,
        agent_image: String::new(),
        dns: DnsMode::Auto,
        timeout_ms: 1,
    };
    let access = ClusterAccess {
        server: "https://192.0.2.1".into(),
        tls_server_name: None,
        certificate_authority_data: None,
        insecure_skip_tls_verify: false,
        proxy_url: None,
        impersonate: None,
        credential: Credential::Token(CANARY.into()),
        expires_at: None,
    };
    let op = Op::Connect { spec: Box::new(spec), access: Box::new(access) };
    Request { id: 1, op }.to_line().expect("JSON")
}

#[test]
fn connect_tells_its_steps_and_then_its_result() {
    with_control(async |path, _| {
        let mut peer = Peer::new(&path).await;
        assert!(peer.ask(&connect_line()).await.contains("cluster answers"));
        assert!(peer.line().await.starts_with("{\"id\":1,\"result\":{\"outcome\":\"ready\""));
    });
}

/// Sets how the connect that made the connection ended, and where the connection stands.
fn stands(states: &States, outcome: Option<ConnectOutcome>, standing: ConnectOutcome) {
    states.send_modify(|status| {
        let status = Arc::make_mut(status);
        status.steps = vec![Step { at_ms: 1, text: "an old step".into(), mark: Mark::Ok }];
        (status.outcome, status.standing) = (outcome, Some(standing));
    });
}

fn lacking(what: &str) -> ConnectOutcome {
    ConnectOutcome::TimedOut { missing: vec![what.to_owned()] }
}

#[test]
fn a_connect_that_finds_its_connection_is_judged_by_the_state_now() {
    with_daemon(async |path, states| {
        let mut peer = Peer::new(&path).await;
        for (outcome, standing, said) in [
            (lacking("web"), ConnectOutcome::Ready, r#"{"already":true,"outcome":"ready","status""#),
            (
                ConnectOutcome::Ready,
                lacking("links"),
                r#"{"already":true,"missing":["links"],"outcome":"timed_out","status""#,
            ),
            (
                ConnectOutcome::Ready,
                ConnectOutcome::Degraded { pending: vec!["web".into()] },
                r#"{"already":true,"outcome":"degraded","pending":["web"],"status""#,
            ),
        ] {
            stands(&states, Some(outcome), standing);
            let answer = peer.ask(&connect_line()).await;
            assert!(answer.starts_with(&format!(r#"{{"id":1,"result":{said}"#)), "{answer}");
        }
    });
}

#[test]
fn a_connect_that_finds_its_connection_waits_for_it_in_its_own_time() {
    with_daemon(async |path, states| {
        let mut peer = Peer::new(&path).await;
        // While it is still being made, its steps are told.
        stands(&states, None, lacking("web"));
        assert!(
            peer.ask(&connect_line().replace(r#""timeout_ms":1"#, r#""timeout_ms":60000"#)).await.contains("old step")
        );
        stands(&states, Some(lacking("web")), lacking("web"));
        stands(&states, Some(lacking("web")), ConnectOutcome::Ready);
        let answer = peer.line().await;
        assert!(answer.starts_with(r#"{"id":1,"result":{"outcome":"ready","status""#), "{answer}");
    });
}

#[test]
fn the_other_requests_are_answered() {
    with_control(async |path, _| {
        let mut peer = Peer::new(&path).await;
        let ended = peer.ask(r#"{"id":2,"op":"disconnect","name":"demo"}"#).await;
        assert_eq!(ended, r#"{"id":2,"result":{"closed":[{"left":["a pod"],"name":"demo"}]}}"#);
        assert!(peer.ask(r#"{"id":3,"op":"status"}"#).await.contains("sessions"));
        let refused = peer.ask(r#"{"id":4,"op":"status","name":"x"}"#).await;
        assert!(refused.contains("connection x: not found") && refused.contains("podway status"), "{refused}");
        assert!(peer.ask(r#"{"id":5,"op":"version"}"#).await.contains("\"protocol\":1"));
        assert!(peer.ask(r#"{"id":6,"op":"fly"}"#).await.contains("unknown op"));
        let access = r#"{"server":"https://192.0.2.1"}"#;
        let renewed = peer.ask(&format!(r#"{{"id":7,"op":"renew","name":"demo","access":{access}}}"#)).await;
        assert!(renewed.contains("it is stopping"), "{renewed}");
    });
}

#[test]
fn a_keeper_is_asked_and_told_the_end_or_that_another_took_its_place() {
    with_daemon(async |path, states| {
        let wanted = r#"{"id":1,"event":"credentials_wanted","ask":3,"within_ms":45000}"#;
        for (phase, last) in [
            (Phase::Disconnecting, "another keeper took this one's place"),
            (Phase::Disconnected, r#"{"id":1,"result":{"name":"demo"}}"#),
        ] {
            states.send_modify(|status| Arc::make_mut(status).phase = Phase::Connected);
            let mut peer = Peer::new(&path).await;
            assert_eq!(peer.ask(r#"{"id":1,"op":"keep","name":"demo"}"#).await, wanted);
            // Others are answered meanwhile.
            let forgone = peer.ask(r#"{"id":2,"op":"forgo","name":"demo","ask":3,"why":"no login"}"#).await;
            assert!(forgone.contains("demo 3 no login"), "{forgone}");
            states.send_modify(|status| Arc::make_mut(status).phase = phase);
            let told = peer.line().await;
            assert!(told.contains(last), "{told}");
        }
    });
}

#[test]
fn a_keeper_that_goes_away_is_noticed() {
    with_daemon(async |path, states| {
        let mut peer = Peer::new(&path).await;
        assert!(peer.ask(r#"{"id":1,"op":"keep","name":"demo"}"#).await.contains("credentials_wanted"));
        drop(peer);
        let mut states = states.subscribe();
        drop(states.wait_for(|status| status.name == "the keeper is gone").await.expect("the daemon is there"));
    });
}

#[test]
fn what_breaks_the_rules_gets_one_error_and_the_end() {
    with_control(async |path, _| {
        for (line, reason) in [
            ("{\"podway\":2}".to_owned(), "UnsupportedVersion"),
            ("GET / HTTP/1.1".to_owned(), "BadRequest"),
            ("x".repeat(MAX_LINE + 1), "LimitReached"),
        ] {
            let mut peer = Peer::raw(&path).await;
            let refused = peer.ask(&line).await;
            assert!(refused.contains(reason), "{refused}");
            assert_eq!(peer.line().await, "");
        }
        let mut peer = Peer::new(&path).await;
        assert!(peer.ask("garbage").await.contains("BadRequest"));
        assert_eq!(peer.line().await, "");
    });
}

#[test]
fn one_request_too_many_is_refused_and_the_rest_go_on() {
    with_control(async |path, _| {
        let mut peer = Peer::new(&path).await;
        for id in 1..=protocol::MAX_IN_FLIGHT {
            assert!(peer.ask(&format!(r#"{{"id":{id},"op":"watch"}}"#)).await.contains("\"event\":\"status\""));
        }
        assert!(peer.ask(r#"{"id":99,"op":"version"}"#).await.contains("LimitReached"));
    });
}

#[test]
fn stop_ends_connections_and_removes_the_socket() {
    with_control(async |path, control| {
        let mut half = Peer::new(&path).await;
        half.0.get_mut().write_all(b"{\"id\":1").await.expect("written");
        let (reply, stopped) = Reply::new();
        control.do_send(Stop { reply });
        stopped.await.expect("answered");
        assert_eq!(half.line().await, "");
        assert!(!path.exists());
    });
}

#[test]
fn a_slow_reader_gets_the_latest_state_and_holds_nobody_up() {
    with_daemon(async |path, states| {
        let mut slow = Peer::new(&path).await;
        slow.say(r#"{"id":1,"op":"watch"}"#).await;
        // Long enough that the socket's buffers fill up with a few of them.
        let filler = "x".repeat(100_000);
        for number in 1..=200 {
            states.send_modify(|status| {
                let status = Arc::make_mut(status);
                status.since = number;
                status.warnings = vec![filler.clone()];
            });
            tokio::task::yield_now().await;
        }
        let mut quick = Peer::new(&path).await;
        assert!(quick.ask(r#"{"id":1,"op":"version"}"#).await.contains("result"));
        let mut seen = 0;
        let mut since = 0;
        while since < 200 {
            let line: serde_json::Value = serde_json::from_str(&slow.line().await).expect("JSON");
            let now = line["status"]["since"].as_str().and_then(crate::timestamp::parse).expect("a time");
            assert!(now >= since, "{now} came after {since}");
            (since, seen) = (now, seen + 1);
        }
        assert!(seen < 200, "nothing was passed over");
    });
}

#[test]
fn a_peer_that_reads_nothing_is_given_up() {
    with_daemon(async |path, states| {
        let mut deaf = Peer::new(&path).await;
        deaf.say(r#"{"id":1,"op":"watch"}"#).await;
        let filler = "x".repeat(1_000_000);
        let before = states.receiver_count();
        states.send_modify(|status| Arc::make_mut(status).warnings = vec![filler]);
        let watched = async {
            while states.receiver_count() == before {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, watched).await.expect("it began to watch");
        let given_up = async {
            while states.receiver_count() > before {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(3 * PATIENCE, given_up).await.expect("its watch ended");
    });
}

#[test]
fn half_a_line_and_the_end_leaves_nothing_behind() {
    with_daemon(async |path, states| {
        for half in ["", "{", r#"{"id":1,"op":"watch"#, "{\"id\":1,\"op\":\"watch\"}\n{\"id\":2"] {
            let mut peer = Peer::new(&path).await;
            peer.0.get_mut().write_all(half.as_bytes()).await.expect("written");
            peer.0.get_mut().shutdown().await.expect("the end");
            // What is a whole request may be answered first; then the daemon closes, too.
            while !peer.line().await.is_empty() {}
        }
        let mut peer = Peer::new(&path).await;
        assert!(peer.ask(r#"{"id":1,"op":"version"}"#).await.contains("result"));
        assert_eq!(states.receiver_count(), 0);
    });
}

#[test]
fn disconnect_all_ends_each_connection() {
    with_control(async |path, _| {
        let mut peer = Peer::new(&path).await;
        let ended = peer.ask(r#"{"id":1,"op":"disconnect","all":true,"clean":true}"#).await;
        assert_eq!(ended, r#"{"id":1,"result":{"closed":[{"left":["a pod"],"name":"demo"}]}}"#);
    });
}

/// What is logged, for a test to read.
#[derive(Clone, Default)]
struct Logged(Arc<std::sync::Mutex<Vec<u8>>>);

impl io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no writer panicked").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn no_log_at_any_level_holds_a_credential() {
    let logged = Logged::default();
    let writer = logged.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    with_control(async |path, _| {
        let mut peer = Peer::new(&path).await;
        assert!(!peer.ask(&connect_line()).await.contains(CANARY));
        assert!(!peer.line().await.contains(CANARY));
        assert!(!peer.ask(&connect_line().replace("\"server\"", "\"sever\"")).await.contains(CANARY));
        assert!(!peer.ask(&connect_line()[2..]).await.contains(CANARY));
    });
    let text = String::from_utf8(logged.0.lock().expect("no writer panicked").clone()).expect("UTF-8");
    assert!(text.contains("asked to connect"), "nothing was logged: {text}");
    assert!(!text.contains(CANARY), "{text}");
}

fn log_line(message: &str, level: Level) -> LogLine {
    LogLine {
        time: 0,
        level,
        target: "podway::x".to_owned(),
        session: None,
        message: message.to_owned(),
        fields: Default::default(),
    }
}

/// The messages of an event, which is about `id`.
fn messages(line: &str) -> Vec<String> {
    let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
    assert_eq!((&event["id"], &event["event"]), (&1.into(), &"log".into()), "{line}");
    let lines = event["lines"].as_array().expect("lines").iter();
    lines.map(|line| line["message"].as_str().expect("a message").to_owned()).collect()
}

#[test]
fn the_log_is_told_in_pages_without_what_concerns_others_and_followed() {
    serve(async |path, _, _, logs| {
        // Root reads all: a user is somebody else than the one who runs the test.
        let me = nix::unistd::geteuid().as_raw();
        for number in 0..=PAGE {
            logs.keep(Whose::User(me), log_line(&number.to_string(), Level::Info));
            logs.keep(Whose::User(me), log_line("detail", Level::Debug));
        }
        if me != 0 {
            logs.keep(Whose::User(me + 1), log_line("another's", Level::Error));
        }
        let mut peer = Peer::new(&path).await;
        let first = messages(&peer.ask(r#"{"id":1,"op":"logs","level":"info","follow":true}"#).await);
        assert_eq!((first.len(), first[0].as_str()), (PAGE, "0"));
        assert_eq!(messages(&peer.line().await), [PAGE.to_string()]);
        logs.keep(Whose::Nobodys, log_line("later", Level::Warn));
        assert_eq!(messages(&peer.line().await), ["later"]);
        let mut other = Peer::new(&path).await;
        assert_eq!(messages(&other.ask(r#"{"id":1,"op":"logs","level":"warn"}"#).await), ["later"]);
        let end: serde_json::Value = serde_json::from_str(&other.line().await).expect("JSON");
        assert_eq!(end["result"]["upto"], logs.newest().borrow().to_owned());
    });
}
