//! ClientList: owns the links to traffic agents and everyone who waits for one.
//!
//! Hears pods, rights, via workloads and hopeless placements; dials; publishes [`ClientTable`]; settles waiters. What
//! it decides is in [`core`]; this file dials and publishes. Never waits for a dial.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext as _, Context, Handler, Recipient};
use tokio::sync::watch;
use tracing::debug;

use self::core::{ClientListCore, DialOutcome, Effect, Input, LinkName, Table, ViaFact};
use self::messages::{
    AgentsUnfit, CancelWaiter, FlowsBlocked, LinksChanged, PlacementHopeless, RegisterWaiter, ViaWorkloadsChanged,
    WaiterSettled,
};
use crate::actors::falls;
use crate::actors::pod_watcher::messages::{PodsChanged, RightsChanged};
use crate::actors::shell::{
    Driven, NO_LIMIT, Reply, Shell, Stop, TaskFailed, drive, spawn, spawn_reporting, stop, told,
};
use crate::cluster::PodFact;
use crate::ids::{Attempt, ReplyId, WaiterId};
use crate::net::agent::AgentLink;
use crate::net::cidr::Cidr;
use crate::net::views::{ClientTable, LinkEntry};
use crate::workload::PodUid;

mod bulk;
pub mod core;
pub mod dialer;
pub mod messages;

/// A dial that takes longer is given up: TLS, upgrade and handshake at a round trip of a second fit.
const DIAL_LIMIT: Duration = Duration::from_secs(10);

/// How long agents may take to hear that they are left. Whom they do not hear, they wait for; nobody else has to.
const LEAVE_LIMIT: Duration = Duration::from_millis(200);

/// A link, and the future that ends with it and says why.
pub struct Dialed {
    /// The link.
    pub link: Arc<dyn AgentLink>,
    /// The agent's version, empty where it says none.
    pub version: Arc<str>,
    /// Resolves when the link ends.
    pub closed: Pin<Box<dyn Future<Output = String> + Send>>,
}

/// Makes links. Behind a trait so that tests dial without a cluster.
pub trait Dialer: Send + Sync {
    /// Dials the agent that listens on `port` of the pod's loopback.
    fn dial(
        &self,
        pod: Arc<PodFact>,
        port: u16,
        special: Vec<Cidr>,
    ) -> Pin<Box<dyn Future<Output = Result<Dialed, DialOutcome>> + Send>>;

    /// The agent in that pod will not be dialled for what was opened through it: flows that wait for it end.
    fn abandon(&self, _pod: &PodUid) {}
}

/// The edges of ClientList.
pub struct Edges {
    /// Session: state of every link.
    pub session: Recipient<LinksChanged>,
    /// AgentPlacer: agents that will not do.
    pub agent_placer: Recipient<AgentsUnfit>,
    /// The published table.
    pub table: watch::Sender<Arc<ClientTable>>,
}

/// The actor.
pub struct ClientList {
    driven: Driven<ClientListCore>,
    edges: Edges,
    dialer: Arc<dyn Dialer>,
    links: HashMap<(PodUid, Attempt), Held>,
    waiters: HashMap<WaiterId, Recipient<WaiterSettled>>,
    hang_ups: HashMap<ReplyId, Reply<()>>,
    /// The agents that have to be told of a hang-up.
    leaving: Vec<Arc<dyn AgentLink>>,
    next_reply: ReplyId,
}

/// What the shell holds for one attempt.
struct Held {
    /// Present once the dial succeeded.
    link: Option<Arc<dyn AgentLink>>,
    /// Ends the dial, or the watch over the link.
    abort: tokio::task::AbortHandle,
}

// Also when the actor panics: nothing is dialled on behalf of nobody.
impl Drop for Held {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

impl ClientList {
    /// A list for agents that take `key` (base64) and bear `fingerprint`.
    pub fn new(key: &str, fingerprint: &str, dialer: Arc<dyn Dialer>, edges: Edges) -> Self {
        ClientList {
            driven: Driven::new(ClientListCore::new(key, fingerprint)),
            edges,
            dialer,
            links: HashMap::new(),
            waiters: HashMap::new(),
            hang_ups: HashMap::new(),
            leaving: Vec::new(),
            next_reply: ReplyId(0),
        }
    }

    fn dial(&mut self, pod: Arc<PodFact>, attempt: Attempt, port: u16, special: Vec<Cidr>, ctx: &mut Context<Self>) {
        debug!(pod = %pod.name, %attempt, port, "dialling an agent");
        let uid = pod.uid.clone();
        let me = ctx.address();
        let work = self.dialer.dial(pod, port, special);
        let key = (uid.clone(), attempt);
        let abort = spawn_reporting(work, DIAL_LIMIT, move |result| {
            let result = match result {
                Ok(result) => result,
                Err(TaskFailed::TimedOut) => Err(DialOutcome::TimedOut),
                Err(TaskFailed::Panicked(why)) => Err(DialOutcome::Panicked(why.into())),
                Err(TaskFailed::Aborted) => Err(DialOutcome::Failed("given up".into())),
            };
            me.do_send(DialEnded { pod: uid, attempt, result });
        });
        self.links.insert(key, Held { link: None, abort });
    }

    fn publish(&self, table: Table) {
        let entry = |name: &LinkName| {
            let held = self.links.get(&(name.pod.uid.clone(), name.attempt))?;
            Some(LinkEntry {
                pod: name.pod.uid.clone(),
                pod_name: format!("{}/{}", name.pod.namespace, name.pod.name).into(),
                link: Arc::clone(held.link.as_ref()?),
            })
        };
        let mut published = ClientTable {
            generation: table.generation,
            general: table.general.iter().filter_map(entry).collect(),
            hopeless: table.hopeless,
            ..ClientTable::default()
        };
        for (workload, names) in &table.workloads {
            published.workloads.insert(workload.clone(), names.iter().filter_map(entry).collect());
            for name in names {
                let Some(entry) = entry(name) else { continue };
                published.by_pod_ip.extend(name.pod.ips.iter().map(|ip| (*ip, entry.clone())));
            }
        }
        self.edges.table.send_replace(Arc::new(published));
    }

    fn dial_ended(&mut self, ended: DialEnded, ctx: &mut Context<Self>) {
        let DialEnded { pod, attempt, result } = ended;
        let outcome = match result {
            Ok(dialed) => {
                let me = ctx.address();
                let uid = pod.clone();
                let abort = spawn_reporting(dialed.closed, NO_LIMIT, move |why| {
                    let why = why.unwrap_or_else(|failed| format!("{failed:?}"));
                    me.do_send(LinkEnded { pod: uid, attempt, why });
                });
                match self.links.get_mut(&(pod.clone(), attempt)) {
                    Some(held) => *held = Held { link: Some(dialed.link), abort },
                    // Hung up meanwhile: the link ends here.
                    None => abort.abort(),
                }
                DialOutcome::Connected { version: dialed.version }
            }
            Err(outcome) => {
                debug!(%pod, %attempt, ?outcome, "a dial failed");
                self.links.remove(&(pod.clone(), attempt));
                outcome
            }
        };
        drive(self, Input::DialFinished { pod, attempt, outcome }, ctx);
    }
}

impl Actor for ClientList {
    type Context = Context<Self>;
}

impl Shell for ClientList {
    type Core = ClientListCore;

    fn driven(&mut self) -> &mut Driven<ClientListCore> {
        &mut self.driven
    }

    fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::Dial { pod, attempt, port, special } => {
                self.dial(pod, attempt, port, special.into_iter().collect(), ctx);
            }
            Effect::Abandon { pod } => {
                debug!(%pod, "an agent is given up");
                self.dialer.abandon(&pod);
            }
            Effect::HangUp { pod, attempt } => {
                self.links.remove(&(pod, attempt));
            }
            Effect::Publish(table) => self.publish(table),
            Effect::Settle { id, outcome } => {
                if let Some(to) = self.waiters.remove(&id) {
                    to.do_send(WaiterSettled { id, outcome });
                }
            }
            Effect::TellLinks(generation, targets) => {
                self.edges.session.do_send(LinksChanged { generation, targets });
            }
            Effect::TellUnfit(generation, agents) => {
                self.edges.agent_placer.do_send(AgentsUnfit { generation, agents });
            }
            Effect::HungUp(id) => {
                self.links.clear();
                let leaving = std::mem::take(&mut self.leaving);
                if let Some(reply) = self.hang_ups.remove(&id) {
                    spawn(async move {
                        let left = futures_util::future::join_all(leaving.iter().map(|link| link.leave()));
                        drop(tokio::time::timeout(LEAVE_LIMIT, left).await);
                        reply.answer(());
                    });
                }
            }
        }
    }
}

/// self → ClientList. A dial ended.
struct DialEnded {
    pod: PodUid,
    attempt: Attempt,
    result: Result<Dialed, DialOutcome>,
}

/// self → ClientList. A link that worked ended.
struct LinkEnded {
    pod: PodUid,
    attempt: Attempt,
    why: String,
}

/// Session → ClientList. Teardown: all links end, all waiters settle, nothing is dialled again.
#[derive(Debug)]
pub struct HangUpAll {
    /// Answered when done.
    pub reply: Reply<()>,
}

told!(DialEnded, LinkEnded, HangUpAll);

impl Handler<DialEnded> for ClientList {
    type Result = ();
    fn handle(&mut self, message: DialEnded, ctx: &mut Context<Self>) {
        falls::at_message::<Self>("DialEnded");
        self.dial_ended(message, ctx);
    }
}

impl Handler<LinkEnded> for ClientList {
    type Result = ();
    fn handle(&mut self, message: LinkEnded, ctx: &mut Context<Self>) {
        falls::at_message::<Self>("LinkEnded");
        let LinkEnded { pod, attempt, why } = message;
        if self.links.remove(&(pod.clone(), attempt)).is_some() {
            debug!(%pod, why, "a link to an agent ended");
            drive(self, Input::LinkLost { pod, attempt, why: why.into() }, ctx);
        }
    }
}

impl Handler<RegisterWaiter> for ClientList {
    type Result = ();
    fn handle(&mut self, message: RegisterWaiter, ctx: &mut Context<Self>) {
        let RegisterWaiter { id, target, deadline, to } = message;
        self.waiters.insert(id, to);
        drive(self, Input::Register { id, target, deadline }, ctx);
    }
}

impl Handler<HangUpAll> for ClientList {
    type Result = ();
    fn handle(&mut self, message: HangUpAll, ctx: &mut Context<Self>) {
        self.next_reply = self.next_reply.next();
        self.hang_ups.insert(self.next_reply, message.reply);
        self.leaving.extend(self.links.values().filter_map(|held| held.link.clone()));
        drive(self, Input::HangUpAll(self.next_reply), ctx);
    }
}

impl Handler<Stop> for ClientList {
    type Result = ();
    fn handle(&mut self, message: Stop, ctx: &mut Context<Self>) {
        falls::at_message::<Self>("Stop");
        stop(ctx);
        message.reply.answer(());
    }
}

impl From<PodsChanged> for Input {
    fn from(message: PodsChanged) -> Input {
        Input::Pods(message.generation, message.pods)
    }
}

impl From<RightsChanged> for Input {
    fn from(message: RightsChanged) -> Input {
        Input::Rights(message.generation, message.rights)
    }
}

impl From<ViaWorkloadsChanged> for Input {
    fn from(message: ViaWorkloadsChanged) -> Input {
        Input::Via(message.generation, message.into())
    }
}

impl From<ViaWorkloadsChanged> for ViaFact {
    fn from(message: ViaWorkloadsChanged) -> ViaFact {
        let ViaWorkloadsChanged { generation: _, workloads, general, special } = message;
        ViaFact { workloads, general, special }
    }
}

impl From<PlacementHopeless> for Input {
    fn from(message: PlacementHopeless) -> Input {
        Input::Hopeless(message.generation, message.hopeless)
    }
}

impl From<CancelWaiter> for Input {
    fn from(message: CancelWaiter) -> Input {
        Input::Cancel(message.id)
    }
}

impl From<FlowsBlocked> for Input {
    fn from(message: FlowsBlocked) -> Input {
        Input::FlowsBlocked(message.target)
    }
}

crate::actors::shell::drives!(
    ClientList,
    PodsChanged,
    RightsChanged,
    ViaWorkloadsChanged,
    PlacementHopeless,
    CancelWaiter,
    FlowsBlocked
);

#[cfg(test)]
mod shell_tests;
