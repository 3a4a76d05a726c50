//! ClientList and AgentPlacer against real agents on loopback, one of which speaks another protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext as _, Context, Handler};
use podway::actors::agent_placer::AgentPlacer;
use podway::actors::agent_placer::core::Plan;
use podway::actors::agent_placer::manifest::Agent as Placed;
use podway::actors::client_list::core::DialOutcome;
use podway::actors::client_list::dialer::handshake_outcome;
use podway::actors::client_list::messages::{
    GeneralEgress, LinksChanged, RegisterWaiter, ViaWorkloadsChanged, WaiterOutcome, WaiterSettled,
};
use podway::actors::client_list::{ClientList, Dialed, Dialer, Edges};
use podway::actors::pod_watcher::messages::{PodsChanged, RightsChanged};
use podway::actors::shell::{LateWork, now, start_monitored};
use podway::cluster::{NamespaceRights, PodFact, Rights};
use podway::ids::{Generation, WaiterId};
use podway::net::agent::native::{Beside, NativeLink};
use podway::net::cidr::Cidr;
use podway::spec::AgentMode;
use podway_agent::args::Serve;
use podway_agent::server::{Agent, FlowLimits};
use podway_tunnel::client::{Carrier, Config};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, LocalSet};

use crate::support::facts::{self, FINGERPRINT, pod, snapshot, target, workload};

const SOON: Duration = Duration::from_secs(20);

/// Dials the agents of one pod on loopback. They listen where there is room; a container's port only names them.
struct Loopback {
    pair: Arc<Ed25519KeyPair>,
    agents: Mutex<BTreeMap<u16, SocketAddr>>,
    dialled: Mutex<Vec<u16>>,
}

impl Dialer for Loopback {
    fn dial(
        &self,
        pod: Arc<PodFact>,
        port: u16,
        _: Vec<Cidr>,
    ) -> Pin<Box<dyn Future<Output = Result<Dialed, DialOutcome>> + Send>> {
        self.dialled.lock().expect("unpoisoned").push(port);
        let address = self.agents.lock().expect("unpoisoned")[&port];
        let config = Config {
            pair: Arc::clone(&self.pair),
            session_id: [7; 16],
            pod_uid: pod.uid.to_string(),
            special: Vec::new(),
            budget: podway_tunnel::client::budget(),
            line: None,
            bulk: None,
        };
        Box::pin(async move {
            let stream = TcpStream::connect(address).await.expect("the agent listens");
            let carrier = Carrier::connect(stream, &config).await.map_err(|error| handshake_outcome(&error))?;
            let closed = carrier.closed();
            Ok(Dialed {
                link: Arc::new(NativeLink::new(carrier, Beside::default())),
                version: "".into(),
                closed: Box::pin(closed),
            })
        })
    }
}

/// Hears what ClientList tells a session.
struct Ear(mpsc::UnboundedSender<WaiterOutcome>);

impl Actor for Ear {
    type Context = Context<Self>;
}

impl Handler<LinksChanged> for Ear {
    type Result = ();
    fn handle(&mut self, _: LinksChanged, _: &mut Context<Self>) {}
}

impl Handler<WaiterSettled> for Ear {
    type Result = ();
    fn handle(&mut self, message: WaiterSettled, _: &mut Context<Self>) {
        self.0.send(message.outcome).expect("the test listens");
    }
}

struct World {
    key: String,
    dialer: Arc<Loopback>,
    serving: Vec<JoinHandle<()>>,
    client_list: Addr<ClientList>,
    placer: Addr<AgentPlacer>,
    /// What the API server was asked to change.
    patches: mpsc::UnboundedReceiver<serde_json::Value>,
    outcomes: mpsc::UnboundedReceiver<WaiterOutcome>,
    _table: watch::Receiver<Arc<podway::net::views::ClientTable>>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.serving.iter().for_each(JoinHandle::abort);
    }
}

impl World {
    fn new() -> World {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        let pair = Arc::new(Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("its pair"));
        let key = podway_tunnel::encode_key(pair.public_key().as_ref());
        let dialer = Arc::new(Loopback { pair, agents: Mutex::default(), dialled: Mutex::default() });

        let (patch_tx, patches) = mpsc::unbounded_channel();
        let serve = move |request: http::Request<kube::client::Body>| {
            let patch_tx = patch_tx.clone();
            async move {
                assert!(request.uri().path().ends_with("/pods/web-t/ephemeralcontainers"), "{}", request.uri());
                let body = request.into_body().collect_bytes().await.expect("a body");
                patch_tx.send(serde_json::from_slice(&body).expect("a patch")).expect("the test listens");
                let body = kube::client::Body::from(br#"{"metadata":{"name":"web-t"}}"#.to_vec());
                Ok::<_, tower::BoxError>(http::Response::new(body))
            }
        };
        let client = kube::Client::new(tower::service_fn(serve), "demo");

        let (outcome_tx, outcomes) = mpsc::unbounded_channel();
        let ear = Ear(outcome_tx).start();
        let (table, published) = watch::channel(Arc::default());
        let context = Context::<AgentPlacer>::new();
        let placer = context.address();
        let edges = Edges { session: ear.clone().recipient(), agent_placer: placer.clone().recipient(), table };
        let client_list = ClientList::new(&key, FINGERPRINT, Arc::clone(&dialer) as Arc<dyn Dialer>, edges).start();
        let plan = Plan {
            key: key.as_str().into(),
            fingerprint: FINGERPRINT.into(),
            first_port: 20_001,
            namespace: "demo".into(),
            mode: AgentMode::Auto,
        };
        let agent = Arc::new(Placed {
            image: "podway-agent:test".into(),
            key: key.clone(),
            fingerprint: FINGERPRINT.into(),
            mark: "00ff".into(),
        });
        let actor = AgentPlacer::new(
            plan,
            agent,
            watch::channel(client).1,
            client_list.clone().recipient(),
            LateWork::default(),
        );
        start_monitored(actor, context, |_| ());

        let via = ViaWorkloadsChanged {
            generation: Generation(1),
            workloads: BTreeSet::from([workload("web")]),
            general: GeneralEgress::NotNeeded,
            special: BTreeMap::new(),
        };
        client_list.do_send(via.clone());
        placer.do_send(via);
        let deadline = now() + SOON;
        let to = ear.recipient();
        client_list.do_send(RegisterWaiter { id: WaiterId(1), target: target("web"), deadline, to });
        World { key, dialer, serving: Vec::new(), client_list, placer, patches, outcomes, _table: published }
    }

    /// Starts an agent in the pod.
    async fn serve(&mut self, port: u16, limits: FlowLimits) {
        let serve = Serve {
            listen: "127.0.0.1:0".parse().expect("an address"),
            authorized_key: podway_tunnel::decode_key(&self.key).expect("a key"),
            pod_uid: "t".into(),
            idle_exit: Duration::from_secs(3600),
            resolv_conf: "/nonexistent".into(),
        };
        let agent = Agent::bind(serve, limits).await.expect("bound");
        self.dialer.agents.lock().expect("unpoisoned").insert(port, agent.address());
        self.serving.push(tokio::spawn(agent.run(std::future::pending())));
    }

    /// Shows the pod with an agent on each of these ports.
    fn show(&self, generation: u64, ports: &[u16]) {
        let mut web = pod("t", "web", facts::Agent::Running);
        let one = web.agents.remove(0);
        web.agents.extend(ports.iter().enumerate().map(|(n, port)| podway::cluster::AgentContainer {
            name: format!("podway-agent-{FINGERPRINT}-{}", n + 1).into(),
            authorized_key: self.key.as_str().into(),
            port: *port,
            ..one.clone()
        }));
        let fact = PodsChanged { generation: Generation(generation), pods: snapshot([web]) };
        self.client_list.do_send(fact.clone());
        self.placer.do_send(fact);
    }

    async fn outcome(&mut self) -> WaiterOutcome {
        tokio::time::timeout(SOON * 2, self.outcomes.recv()).await.expect("settled").expect("the ear lives")
    }
}

fn of_another_protocol() -> FlowLimits {
    FlowLimits { protocols: 2..=3, ..FlowLimits::default() }
}

#[tokio::test]
async fn an_agent_of_another_protocol_is_dialled_once_and_followed_by_the_next() {
    let test = async {
        let mut world = World::new();
        world.serve(20_001, of_another_protocol()).await;
        world.show(1, &[20_001]);
        let patch = tokio::time::timeout(SOON, world.patches.recv()).await.expect("placed").expect("a patch");
        let container = &patch["spec"]["ephemeralContainers"][0];
        assert_eq!(container["name"], format!("podway-agent-{FINGERPRINT}-2"));
        assert!(container["args"].as_array().expect("arguments").contains(&"127.0.0.1:20002".into()), "{container}");
        world.serve(20_002, FlowLimits::default()).await;
        world.show(2, &[20_001, 20_002]);
        assert_eq!(world.outcome().await, WaiterOutcome::Ready { pod: "t".into() });
        assert_eq!(*world.dialer.dialled.lock().expect("unpoisoned"), [20_001, 20_002]);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn an_agent_of_another_protocol_is_named_where_no_other_may_be_added() {
    let test = async {
        let mut world = World::new();
        world.serve(20_001, of_another_protocol()).await;
        let rights = NamespaceRights { watch_pods: true, port_forward: true, ..NamespaceRights::default() };
        let rights = Arc::new(Rights { namespaces: BTreeMap::from([("demo".into(), rights)]), ..Rights::default() });
        let fact = RightsChanged { generation: Generation(1), rights };
        world.client_list.do_send(fact.clone());
        world.placer.do_send(fact);
        world.show(1, &[20_001]);
        let outcome = world.outcome().await;
        let WaiterOutcome::Hopeless { why } = &outcome else { panic!("{outcome:?}") };
        for part in ["pod web-t", "the agent speaks protocol 2 to 3, this podway 1", "patch pods/ephemeralcontainers"] {
            assert!(why.contains(part), "{part:?} is not in {why}");
        }
    };
    LocalSet::new().run_until(test).await;
}
