//! The loop against an API server on the loopback device that answers as each test says, word for word.
#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks for the effects it is about")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::actors::pod_watcher::core::{Effect, Input, PodWatcherCore};
use crate::actors::pod_watcher::messages::WatchHealth;
use crate::actors::shell::Core as _;
use crate::cluster::PodSnapshot;
use crate::ids::Millis;
use crate::spec::ClusterAccess;

/// Longer than any test takes, so that one that waits for nothing ends.
const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    async fn new() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        Server { listener, address }
    }

    async fn client(&self) -> kube::Client {
        let access = ClusterAccess::bare(&format!("http://{}", self.address));
        crate::net::kube_client::client(&access).await.expect("a client")
    }

    /// The next request; each has a connection of its own, as every answer closes its one.
    async fn request(&self) -> Asked {
        let asked = async {
            let (mut socket, _) = self.listener.accept().await.expect("a connection");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(socket.read_u8().await.expect("a request"));
            }
            let head = String::from_utf8(head).expect("text");
            Asked { target: head.split(' ').nth(1).expect("a target").to_owned(), socket }
        };
        timeout(PATIENCE, asked).await.expect("a request")
    }
}

struct Asked {
    target: String,
    socket: TcpStream,
}

impl Asked {
    fn has(&self, parameter: &str) -> bool {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        query.split('&').any(|part| part == parameter)
    }

    fn watches_from(&self, version: &str) {
        let wanted = ["watch=true", "allowWatchBookmarks=true", &format!("resourceVersion={version}")];
        assert!(wanted.iter().all(|parameter| self.has(parameter)), "{}", self.target);
    }

    fn lists(&self) {
        assert!(self.has("limit=500") && !self.target.contains("watch="), "{}", self.target);
    }

    async fn answer(mut self, code: u16, body: &str) {
        let length = body.len();
        let text = format!(
            "HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        self.socket.write_all(text.as_bytes()).await.expect("sent");
        self.socket.shutdown().await.expect("closed");
    }

    async fn refuse(self, code: u16) {
        self.answer(code, &status(code)).await;
    }

    async fn list(self, version: &str, more: &str, pods: &[(&str, &str)]) {
        let items: Vec<_> = pods.iter().map(|(name, version)| pod(name, version)).collect();
        let list = format!(
            r#"{{"metadata":{{"resourceVersion":"{version}","continue":"{more}"}},"items":[{}]}}"#,
            items.join(",")
        );
        self.answer(200, &list).await;
    }

    /// Begins a watch's answer.
    async fn stream(mut self) -> Stream {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
        self.socket.write_all(head.as_bytes()).await.expect("sent");
        Stream(self.socket)
    }
}

struct Stream(TcpStream);

impl Stream {
    async fn send(&mut self, text: &str) {
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        self.0.write_all(chunk.as_bytes()).await.expect("sent");
    }

    async fn event(&mut self, kind: &str, object: &str) {
        self.send(&format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")).await;
    }

    /// Ends the answer in order; dropping the stream cuts it.
    async fn end(mut self) {
        self.0.write_all(b"0\r\n\r\n").await.expect("sent");
        self.0.shutdown().await.expect("closed");
    }
}

fn pod(name: &str, version: &str) -> String {
    format!(r#"{{"metadata":{{"name":"{name}","namespace":"demo","uid":"{name}","resourceVersion":"{version}"}}}}"#)
}

fn bookmark(version: &str) -> String {
    format!(r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"resourceVersion":"{version}"}}}}"#)
}

fn status(code: u16) -> String {
    format!(
        r#"{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure","message":"no","reason":"x","code":{code}}}"#
    )
}

/// Core and tasks, without the actor around them.
struct Rig {
    client: kube::Client,
    core: PodWatcherCore,
    tasks: BTreeMap<WatchId, (JoinHandle<()>, Arc<Notify>)>,
    reports: (mpsc::UnboundedSender<Input>, mpsc::UnboundedReceiver<Input>),
    now: Millis,
    pods: Option<Arc<PodSnapshot>>,
    health: Option<WatchHealth>,
    resumed: usize,
}

impl Rig {
    /// Watches pods only.
    fn new(client: kube::Client) -> Rig {
        let mut rig = Rig {
            client,
            core: PodWatcherCore::new(),
            tasks: BTreeMap::new(),
            reports: mpsc::unbounded_channel(),
            now: Millis(0),
            pods: None,
            health: None,
            resumed: 0,
        };
        rig.input(Input::Watch(BTreeSet::from(["demo".into()])));
        rig
    }

    fn input(&mut self, input: Input) {
        self.core.handle(self.now, input);
        while let Some(effect) = self.core.poll_effect() {
            match effect {
                Effect::Start(id, attempt) if id.kind == Kind::Pods => {
                    let (resume, tell, of) = (Arc::new(Notify::new()), self.reports.0.clone(), id.clone());
                    let tell = move |report| {
                        drop(tell.send(match report {
                            Report::Events(events, _) => Input::Observed(of.clone(), attempt, events),
                            Report::Failed(trouble) => Input::Failed(of.clone(), attempt, trouble, 0),
                        }));
                    };
                    let task = tokio::spawn(run(self.client.clone(), id.clone(), Arc::clone(&resume), tell));
                    self.tasks.insert(id, (task, resume));
                }
                Effect::Resume(id) => {
                    self.resumed += 1;
                    if let Some((_, resume)) = self.tasks.get(&id) {
                        resume.notify_one();
                    }
                }
                Effect::End(id) => {
                    if let Some((task, _)) = self.tasks.remove(&id) {
                        task.abort();
                    }
                }
                Effect::TellPods(_, pods) => self.pods = Some(pods),
                Effect::TellHealth(_, health) => self.health = Some(health),
                _ => {}
            }
        }
    }

    /// Handles one report; the core's clock then stands at its next deadline, if that is not far.
    async fn step(&mut self) {
        let report = timeout(PATIENCE, self.reports.1.recv()).await.expect("a report").expect("a sender");
        self.input(report);
        while let Some(at) = self.core.poll_deadline().filter(|at| at.since(self.now) < Duration::from_secs(4)) {
            self.now = self.now.max(at);
            self.input(Input::Woke);
        }
    }

    /// Handles reports until these pods are known.
    async fn until(&mut self, names: &[&str]) {
        while self.names() != names {
            self.step().await;
        }
    }

    fn names(&self) -> Vec<String> {
        self.pods.iter().flat_map(|pods| pods.pods.values()).map(|pod| pod.name.to_string()).collect()
    }
}

/// A rig that knows one pod `a` at version 10, and the request for its watch.
async fn following(server: &Server) -> (Rig, Asked) {
    let mut rig = Rig::new(server.client().await);
    server.request().await.list("10", "", &[("a", "9")]).await;
    rig.until(&["a"]).await;
    let watch = server.request().await;
    watch.watches_from("10");
    (rig, watch)
}

#[tokio::test]
async fn a_list_comes_in_pages_and_is_told_whole() {
    let server = Server::new().await;
    let mut rig = Rig::new(server.client().await);
    let first = server.request().await;
    first.lists();
    first.list("10", "next", &[("a", "1")]).await;
    let second = server.request().await;
    assert!(second.has("continue=next"), "{}", second.target);
    assert_eq!(rig.names(), [""; 0]);
    second.list("10", "", &[("b", "2")]).await;
    rig.until(&["a", "b"]).await;
    server.request().await.watches_from("10");
}

#[tokio::test]
async fn a_list_that_is_forgotten_between_its_pages_is_begun_again_at_once_and_then_after_a_pause() {
    let server = Server::new().await;
    let mut rig = Rig::new(server.client().await);
    for _ in 0..LISTS {
        let first = server.request().await;
        assert!(!first.target.contains("continue="), "{}", first.target);
        first.list("10", "next", &[("a", "1")]).await;
        assert_eq!(rig.resumed, 0);
        server.request().await.refuse(410).await;
    }
    let first = loop {
        tokio::select! {
            first = server.request() => break first,
            () = rig.step() => {}
        }
    };
    assert!(rig.resumed > 0, "without a pause");
    first.list("20", "", &[("b", "2")]).await;
    rig.until(&["b"]).await;
}

#[tokio::test]
async fn a_watch_that_ends_goes_on_from_the_last_bookmark() {
    let server = Server::new().await;
    let (mut rig, watch) = following(&server).await;
    let mut stream = watch.stream().await;
    stream.event("ADDED", &pod("b", "11")).await;
    stream.event("BOOKMARK", &bookmark("50")).await;
    rig.until(&["a", "b"]).await;
    stream.end().await;
    let watch = server.request().await;
    watch.watches_from("50");
    let mut stream = watch.stream().await;
    stream.event("DELETED", &pod("a", "51")).await;
    rig.until(&["b"]).await;
    assert_eq!(rig.resumed, 0);
}

#[tokio::test]
async fn a_version_that_is_gone_is_listed_anew_whichever_way_it_is_told() {
    let server = Server::new().await;
    let (mut rig, watch) = following(&server).await;
    watch.refuse(410).await;
    let list = server.request().await;
    list.lists();
    assert_eq!(rig.names(), ["a"]);
    list.list("20", "", &[("b", "19")]).await;
    rig.until(&["b"]).await;
    let mut stream = server.request().await.stream().await;
    stream.event("ERROR", &status(410)).await;
    let list = server.request().await;
    list.lists();
    assert_eq!(rig.names(), ["b"]);
    list.list("30", "", &[("c", "29")]).await;
    rig.until(&["c"]).await;
}

#[tokio::test]
async fn a_cut_in_the_middle_of_a_line_loses_nothing() {
    let server = Server::new().await;
    let (mut rig, watch) = following(&server).await;
    let mut stream = watch.stream().await;
    stream.event("ADDED", &pod("b", "11")).await;
    stream.send(r#"{"type":"ADDED","object":{"metadata":{"na"#).await;
    rig.until(&["a", "b"]).await;
    drop(stream);
    let again = loop {
        tokio::select! {
            again = server.request() => break again,
            () = rig.step() => assert_eq!(rig.names(), ["a", "b"]),
        }
    };
    again.watches_from("11");
    let mut stream = again.stream().await;
    stream.event("ADDED", &pod("c", "12")).await;
    rig.until(&["a", "b", "c"]).await;
}

#[tokio::test]
async fn an_api_server_that_goes_away_is_waited_for_with_what_is_known() {
    let mut server = Server::new().await;
    let (mut rig, watch) = following(&server).await;
    let address = server.address;
    // Nobody listens there until it is bound again.
    drop(server);
    drop(watch);
    while rig.resumed < 3 {
        rig.step().await;
        assert_eq!(rig.names(), ["a"]);
    }
    server = Server { listener: TcpListener::bind(address).await.expect("the same port"), address };
    let again = loop {
        tokio::select! {
            again = server.request() => break again,
            () = rig.step() => {}
        }
    };
    again.watches_from("10");
    let mut stream = again.stream().await;
    stream.event("ADDED", &pod("b", "11")).await;
    rig.until(&["a", "b"]).await;
}

#[tokio::test]
async fn refused_everywhere_it_watches_the_namespaces_of_interest() {
    let server = Server::new().await;
    let mut rig = Rig::new(server.client().await);
    let all = server.request().await;
    assert!(all.target.starts_with("/api/v1/pods?"), "{}", all.target);
    all.refuse(403).await;
    let one = loop {
        tokio::select! {
            asked = server.request() => match asked.target.starts_with("/api/v1/namespaces/demo/pods?") {
                true => break asked,
                // The rig skips pauses, also the one before all namespaces are tried again.
                false => asked.refuse(403).await,
            },
            () = rig.step() => {}
        }
    };
    one.list("10", "", &[("a", "9")]).await;
    rig.until(&["a"]).await;
    assert_eq!(rig.pods.expect("told").namespaces, Some(["demo".into()].into()));
}

#[tokio::test]
async fn refused_credentials_are_told_as_such() {
    let server = Server::new().await;
    let (mut rig, watch) = following(&server).await;
    watch.refuse(401).await;
    rig.step().await;
    assert!(matches!(rig.health, Some(WatchHealth::Stale { .. })), "once is not enough: {:?}", rig.health);
    while !matches!(rig.health, Some(WatchHealth::Unauthorized { .. })) {
        server.request().await.refuse(401).await;
        rig.step().await;
    }
    assert_eq!(rig.names(), ["a"]);
}

/// A client whose requests are heard and never answered.
fn mute() -> kube::Client {
    let never = |_: http::Request<kube::client::Body>| {
        std::future::pending::<Result<http::Response<kube::client::Body>, tower::BoxError>>()
    };
    kube::Client::new(tower::service_fn(never), "demo")
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_never_answers_is_given_up() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let begun = Instant::now();
    let id = WatchId { kind: Kind::Pods, namespace: None };
    let task = tokio::spawn(run(mute(), id, Arc::new(Notify::new()), move |report| drop(tell.send(report))));
    assert!(matches!(told.recv().await, Some(Report::Events(events, _)) if events == [Event::Init]));
    let Some(Report::Failed(Trouble::Down(why))) = told.recv().await else { panic!("it did not fail") };
    assert_eq!((begun.elapsed(), why.as_str()), (LIST_LIMIT, "no answer to a list in time"));
    task.abort();
}
