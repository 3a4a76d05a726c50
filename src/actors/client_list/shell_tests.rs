//! What becomes of dials and links when the actor panics.

use tokio::sync::oneshot;
use tokio::task::LocalSet;

use super::*;
use crate::actors::client_list::messages::GeneralEgress;
use crate::actors::shell::start_monitored;
use crate::cluster::{AgentContainer, ContainerState, PodPhase, PodSnapshot};
use crate::ids::Generation;
use crate::workload::{Workload, WorkloadKind};

/// Hears what ClientList tells Session.
struct Sink;

impl Actor for Sink {
    type Context = Context<Self>;
}

impl Handler<LinksChanged> for Sink {
    type Result = ();
    fn handle(&mut self, _: LinksChanged, _: &mut Context<Self>) {}
}

impl Handler<AgentsUnfit> for Sink {
    type Result = ();
    fn handle(&mut self, _: AgentsUnfit, _: &mut Context<Self>) {}
}

struct Fall;

told!(Fall);

impl Handler<Fall> for ClientList {
    type Result = ();
    fn handle(&mut self, _: Fall, _: &mut Context<Self>) {
        panic!("it fell");
    }
}

/// Dials without end; each dial holds `open`.
struct Mute(std::sync::Weak<()>);

impl Dialer for Mute {
    fn dial(
        &self,
        _: Arc<PodFact>,
        _: u16,
        _: Vec<Cidr>,
    ) -> Pin<Box<dyn Future<Output = Result<Dialed, DialOutcome>> + Send>> {
        let open = self.0.upgrade();
        Box::pin(async move {
            std::future::pending::<()>().await;
            drop(open);
            Err(DialOutcome::Refused)
        })
    }
}

fn pod() -> PodFact {
    let agent = AgentContainer {
        name: "podway-agent-1a2b3c4d-1".into(),
        image: "agent".into(),
        port: 20_000,
        authorized_key: "key".into(),
        state: ContainerState::Running,
    };
    PodFact {
        uid: "uid".into(),
        namespace: "demo".into(),
        name: "web-1".into(),
        workload: Workload::new("demo", WorkloadKind::Deployment, "web"),
        ips: Vec::new(),
        host_network: false,
        phase: PodPhase::Running,
        ready: true,
        terminating: false,
        agents: vec![agent],
        own_pod_of: None,
        own_job: None,
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    // Less than a dial may take by itself.
    assert!(tokio::time::timeout(DIAL_LIMIT / 2, wait).await.is_ok(), "{what}");
}

#[tokio::test(start_paused = true)]
async fn dials_end_with_an_actor_that_panics() {
    LocalSet::new()
        .run_until(async {
            let open = Arc::new(());
            let sink = Sink.start();
            let edges = Edges {
                session: sink.clone().recipient(),
                agent_placer: sink.recipient(),
                table: watch::channel(Arc::default()).0,
            };
            let context = Context::new();
            let list = context.address();
            let (ended, exit) = oneshot::channel();
            let actor = ClientList::new("key", "1a2b3c4d", Arc::new(Mute(Arc::downgrade(&open))), edges);
            start_monitored(actor, context, |how| drop(ended.send(how)));
            let pods = [("uid".into(), Arc::new(pod()))].into();
            let pods = Arc::new(PodSnapshot { pods, namespaces: None });
            list.do_send(PodsChanged { generation: Generation(1), pods });
            list.do_send(ViaWorkloadsChanged {
                generation: Generation(1),
                workloads: [Workload::new("demo", WorkloadKind::Deployment, "web")].into(),
                general: GeneralEgress::NotNeeded,
                special: Default::default(),
            });
            until("it dials", || Arc::strong_count(&open) == 2).await;
            list.do_send(Fall);
            exit.await.unwrap();
            until("nobody dials any more", || Arc::strong_count(&open) == 1).await;
        })
        .await;
}
