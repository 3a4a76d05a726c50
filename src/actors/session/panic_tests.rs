//! A child that panics, on a real device and real files: the whole connection goes, and leaves the host as it was.

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::messages::Child;
use super::*;
use crate::actors::client_list::messages::TargetState;
use crate::actors::pod_watcher::messages::ClusterInfoChanged;
use crate::actors::proxy_via::messages::TranslationChanged;
use crate::actors::shell::{Exit, start_monitored};
use crate::actors::vif::messages::VifState;
use crate::cluster::ClusterInfo;
use crate::ids::Generation;
use crate::net::in_namespace::in_namespace;
use crate::net::route::RouteHandle;
use crate::net::views::Target;
use crate::status::Phase;

const THEIRS: &str = "nameserver 192.0.2.53\n";
const DEVICE: &str = "podway7";

/// Makes a child panic.
struct Fall;

type Look = dyn FnOnce(&mut Session, &mut Context<Session>) + Send;

/// Looks into a session, or at one of its children.
struct With(Box<Look>);

told!(Fall, With);

impl Handler<With> for Session {
    type Result = ();
    fn handle(&mut self, With(look): With, ctx: &mut Context<Self>) {
        look(self, ctx);
    }
}

macro_rules! falls {
    ($($actor:ty),*) => {$(
        impl Handler<Fall> for $actor {
            type Result = ();
            fn handle(&mut self, _: Fall, _: &mut Context<Self>) {
                panic!("it fell");
            }
        }
    )*};
}
falls!(PodWatcher, ClientList, AgentPlacer, ProxyVia, Vif, Dns);

/// A connection to an API server that takes every request, and answers what deletes something.
struct Bench {
    deleted: watch::Receiver<Vec<String>>,
    session: Addr<Session>,
    exit: oneshot::Receiver<Exit>,
    status: watch::Receiver<Arc<SessionStatus>>,
    etc: TempDir,
    runtime: TempDir,
    _state: TempDir,
}

impl Bench {
    async fn start() -> Bench {
        let routes = RouteHandle::open().unwrap();
        routes.set_up(routes.link_index("lo").await.unwrap(), 65_536).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let (tell, deleted) = watch::channel(Vec::new());
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::task::spawn_local(serve(stream, tell.clone()));
            }
        });
        let (etc, runtime, state) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(etc.path().join("resolv.conf"), THEIRS).unwrap();
        let settings = Settings {
            mtu: 1400,
            virtual_subnet: "246.246.0.0/16".parse().unwrap(),
            udp_idle: Duration::from_secs(60),
            include_suffixes: Vec::new(),
            runtime_dir: runtime.path().into(),
            state_dir: state.path().into(),
            etc: etc.path().into(),
            editor: FileEditor::default(),
            late: Default::default(),
        };
        let spec = serde_json::json!({ "name": "demo", "namespace": "demo", "timeout_ms": 30_000, "dns": "file" });
        let (tell, status) = watch::channel(Arc::default());
        let session = Session::new(Ingredients {
            spec: serde_json::from_value(spec).unwrap(),
            named_image: None,
            access: serde_json::from_value(serde_json::json!({ "server": server })).unwrap(),
            owner_uid: 1000,
            settings: Arc::new(settings),
            device: DEVICE.into(),
            status: tell,
            wall: || 0,
        });
        let context = Context::new();
        let address = context.address();
        let (ended, exit) = oneshot::channel();
        start_monitored(session, context, |how| drop(ended.send(how)));
        Bench { deleted, session: address, exit, status, etc, runtime, _state: state }
    }

    async fn with<T: Send + 'static>(&self, look: impl FnOnce(&mut Session) -> T + Send + 'static) -> T {
        let (reply, answer) = oneshot::channel();
        self.session.do_send(With(Box::new(|session, _| drop(reply.send(look(session))))));
        answer.await.unwrap()
    }

    async fn until(&mut self, holds: impl Fn(&SessionStatus) -> bool) {
        self.status.wait_for(|status| holds(status)).await.unwrap();
    }

    /// The device is there and names are attached, in the run of this number.
    async fn up(&mut self, run: u64) {
        self.until(|status| status.device.name == DEVICE).await;
        self.with(move |session| {
            assert_eq!(session.run, run);
            let generation = Generation(1000);
            let dns = &session.children.as_ref().unwrap().dns;
            let info = ClusterInfo { domain: "cluster.local".into(), complete: true, ..ClusterInfo::default() };
            dns.do_send(ClusterInfoChanged { generation, info: Arc::new(info) });
            dns.do_send(TranslationChanged {
                generation,
                translated: BTreeSet::new(),
                virtual_ranges: vec!["246.246.0.0/16".parse().unwrap()],
                dns_addresses: vec!["246.246.0.2".parse().unwrap()],
                names: Arc::default(),
                namespaces: BTreeSet::new(),
                ready: true,
            });
            let routes = vec!["246.246.0.0/16".into()];
            let failed = Default::default();
            let state = VifState::Up { ifindex: 7, name: DEVICE.into(), applied: Generation(0), routes, failed };
            dns.do_send(VifChanged { generation, state });
        })
        .await;
        self.until(|status| status.dns.ready).await;
        assert_ne!(self.file(), THEIRS);
        assert_eq!(names_in(self.runtime.path()), ["os-journal.json"]);
    }

    async fn fall(&self, child: Child) {
        self.with(move |session| {
            let children = session.children.as_ref().unwrap();
            match child {
                Child::PodWatcher => children.pod_watcher.do_send(Fall),
                Child::ClientList => children.client_list.do_send(Fall),
                Child::AgentPlacer => children.agent_placer.do_send(Fall),
                Child::ProxyVia => children.proxy_via.do_send(Fall),
                Child::Vif => children.vif.do_send(Fall),
                Child::Dns => children.dns.do_send(Fall),
            }
        })
        .await;
        let said = format!("{child:?} panicked: it fell");
        let mut status = self.status.clone();
        status.wait_for(|status| status.steps.iter().any(|step| step.text == said)).await.unwrap();
    }

    async fn disconnect(self) {
        let (reply, remains) = Reply::new();
        self.session.do_send(Disconnect { clean: false, reply });
        assert_eq!(remains.await.unwrap().left, [""; 0]);
        self.leaves_nothing().await;
    }

    /// The connection is over and the host as it was before.
    async fn leaves_nothing(self) {
        assert_eq!(self.exit.await.unwrap(), Exit::Stopped);
        assert_eq!(self.status.borrow().phase, Phase::Disconnected);
        assert_eq!(fs::read_to_string(self.etc.path().join("resolv.conf")).unwrap(), THEIRS);
        assert_eq!(names_in(self.etc.path()), ["resolv.conf"]);
        assert_eq!(names_in(self.runtime.path()), [""; 0]);
        assert!(RouteHandle::open().unwrap().link_index(DEVICE).await.is_err(), "the device is still there");
    }

    fn file(&self) -> String {
        fs::read_to_string(self.etc.path().join("resolv.conf")).unwrap()
    }
}

/// Answers one connection: what deletes something, and what looks for our pods, of which there are none.
async fn serve(stream: TcpStream, tell: watch::Sender<Vec<String>>) {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let status = if let Some(rest) = line.strip_prefix("DELETE ") {
            let path = rest.split([' ', '?']).next().unwrap_or_default().to_owned();
            tell.send_modify(|deleted| deleted.push(path));
            "200 OK"
        } else if line.starts_with("GET ") && line.contains("labelSelector=podway.dev") {
            "404 Not Found"
        } else {
            continue;
        };
        let (word, code) = if status.starts_with("200") { ("Success", 200) } else { ("Failure", 404) };
        let body = format!(r#"{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"{word}","code":{code}}}"#);
        let head =
            format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        lines.get_mut().write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    }
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

const CHILDREN: [Child; 6] =
    [Child::PodWatcher, Child::ClientList, Child::AgentPlacer, Child::ProxyVia, Child::Vif, Child::Dns];

#[test]
fn a_connection_whose_child_panics_is_made_anew_and_leaves_nothing() {
    for child in CHILDREN {
        in_namespace(move || async move {
            let mut bench = Bench::start().await;
            bench.up(1).await;
            bench.fall(child).await;
            // Made anew: what the first run had is gone, or this could not be had again.
            bench.until(|status| status.device.name.is_empty()).await;
            bench.until(|status| !status.device.name.is_empty()).await;
            assert_eq!(bench.file(), THEIRS, "{child:?}");
            bench.up(2).await;
            bench.disconnect().await;
        });
    }
}

#[test]
fn a_disconnect_after_a_panic_gives_the_host_back() {
    for child in CHILDREN {
        in_namespace(move || async move {
            let mut bench = Bench::start().await;
            bench.up(1).await;
            bench.fall(child).await;
            bench.disconnect().await;
        });
    }
}

#[test]
fn our_own_pod_that_never_ran_is_taken_back_without_its_placer() {
    in_namespace(|| async {
        let mut bench = Bench::start().await;
        bench.up(1).await;
        bench.session.do_send(With(Box::new(|session, ctx| {
            let pending = TargetState { pods: 1, running: 0, links: Vec::new(), hopeless: None };
            drive(session, Input::Links(Generation(1000), [(Target::General, pending)].into()), ctx);
        })));
        bench.fall(Child::AgentPlacer).await;
        let mut deleted = bench.deleted.wait_for(|deleted| deleted.len() == 2).await.unwrap().clone();
        deleted.sort();
        assert!(deleted[0].starts_with("/api/v1/namespaces/demo/pods/podway-agent-"), "{deleted:?}");
        assert!(deleted[1].starts_with("/apis/batch/v1/namespaces/demo/jobs/podway-agent-"), "{deleted:?}");
        bench.disconnect().await;
    });
}

#[test]
fn our_pods_go_though_that_is_asked_when_the_connection_is_being_ended_already() {
    in_namespace(|| async {
        let mut bench = Bench::start().await;
        bench.up(1).await;
        let ((first, left), (second, more)) = (Reply::new(), Reply::new());
        bench.session.do_send(Disconnect { clean: false, reply: first });
        bench.session.do_send(Disconnect { clean: true, reply: second });
        assert_eq!((left.await.unwrap(), more.await.unwrap()), (Remains::default(), Remains::default()));
        let deleted = bench.deleted.borrow().clone();
        let job = "/apis/batch/v1/namespaces/demo/jobs/podway-agent-";
        assert!(deleted.iter().any(|path| path.starts_with(job)), "{deleted:?}");
        bench.leaves_nothing().await;
    });
}
