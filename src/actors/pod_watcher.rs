//! PodWatcher: owns the watches of the cluster and tells what they say.
//!
//! The shell: it runs the tasks of the watches and carries out what the [`core`] decides. What comes from
//! the API server is decoded in those tasks and is limited there to a few messages that this actor has not handled.

pub mod core;
pub mod decode;
pub mod facts;
mod kubelet;
pub mod messages;
pub mod resolve;
pub mod rights;
pub mod snapshot;
pub mod watched;
pub mod watches;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext as _, Context, Handler, Message, Recipient};
use tokio::sync::{Notify, OwnedSemaphorePermit, watch};
use tokio::task::AbortHandle;

use self::core::{Effect, Input, PodWatcherCore};
use self::facts::{Trouble, WatchId};
use self::messages::{
    ClusterInfoChanged, Doubt, PodsChanged, RecordsChanged, ResolveWorkloads, RightsChanged, UseClient, Watch,
    WatchHealthChanged,
};
use self::watches::Report;
use crate::actors::falls;
use crate::actors::shell::{self, Driven, NO_LIMIT, Shell, TaskFailed, Tasks, drive, jitter, spawn, spawn_reporting};
use crate::cluster::PodSnapshot;
use crate::ids::Attempt;

/// Limit for asking for rights; the asking has shorter ones of its own.
const RIGHTS_LIMIT: Duration = rights::LIMIT.saturating_mul(3);

/// Who hears what.
#[derive(Clone, Debug)]
pub struct Edges {
    /// ClientList.
    pub client_list: Recipient<PodsChanged>,
    /// AgentPlacer.
    pub agent_placer: Recipient<PodsChanged>,
    /// ProxyVia, Dns, Session.
    pub info: Vec<Recipient<ClusterInfoChanged>>,
    /// Dns.
    pub records: Recipient<RecordsChanged>,
    /// Session, ClientList, AgentPlacer.
    pub rights: Vec<Recipient<RightsChanged>>,
    /// Session.
    pub health: Recipient<WatchHealthChanged>,
}

/// The actor.
pub struct PodWatcher {
    driven: Driven<PodWatcherCore>,
    client: watch::Sender<kube::Client>,
    edges: Edges,
    tasks: BTreeMap<WatchId, Task>,
    asking: Tasks,
    pods: watch::Sender<Option<Arc<PodSnapshot>>>,
}

struct Task {
    attempt: Attempt,
    abort: AbortHandle,
    resume: Arc<Notify>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

impl PodWatcher {
    /// A watcher that waits for [`Watch`].
    pub fn new(client: kube::Client, edges: Edges) -> PodWatcher {
        PodWatcher {
            driven: Driven::new(PodWatcherCore::new()),
            client: watch::Sender::new(client),
            edges,
            tasks: BTreeMap::new(),
            asking: Tasks::default(),
            pods: watch::Sender::new(None),
        }
    }

    /// The client with the newest credentials.
    fn client(&self) -> kube::Client {
        self.client.borrow().clone()
    }

    fn start(&mut self, id: WatchId, attempt: Attempt, ctx: &Context<Self>) {
        self.end(&id);
        let resume = Arc::new(Notify::new());
        let address: Recipient<Heard> = ctx.address().recipient();
        let tell = {
            let (id, address) = (id.clone(), address.clone());
            move |report| address.do_send(Heard::of(&id, attempt, report))
        };
        let task = spawn(watches::run(self.client(), id.clone(), Arc::clone(&resume), tell));
        let abort = task.abort_handle();
        let of = id.clone();
        spawn(async move {
            // It ends by itself only by a panic; resuming then starts it anew.
            if let Err(error) = task.await
                && error.is_panic()
            {
                address.do_send(Heard::of(
                    &of,
                    attempt,
                    Report::Failed(Trouble::Down("the watch's task panicked".into())),
                ));
            }
        });
        self.tasks.insert(id, Task { attempt, abort, resume });
    }

    fn end(&mut self, id: &WatchId) {
        drop(self.tasks.remove(id));
    }

    fn resume(&mut self, id: WatchId, ctx: &Context<Self>) {
        let Some(task) = self.tasks.get(&id) else { return };
        if task.abort.is_finished() {
            let attempt = task.attempt;
            self.start(id, attempt, ctx);
        } else {
            task.resume.notify_one();
        }
    }

    fn ask_rights(&mut self, namespace: Arc<str>, attempt: Attempt, ctx: &Context<Self>) {
        let address: Recipient<Heard> = ctx.address().recipient();
        let (client, of) = (self.client(), Arc::clone(&namespace));
        let asking = spawn_reporting(async move { rights::ask(&client, &of).await }, RIGHTS_LIMIT, move |rights| {
            let input = Input::Rights(namespace, attempt, rights.ok().flatten(), jitter());
            address.do_send(Heard { input, permit: None });
        });
        self.asking.keep(asking);
    }
}

impl Actor for PodWatcher {
    type Context = Context<Self>;
}

impl Shell for PodWatcher {
    type Core = PodWatcherCore;

    fn driven(&mut self) -> &mut Driven<PodWatcherCore> {
        &mut self.driven
    }

    fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::Start(id, attempt) => self.start(id, attempt, ctx),
            Effect::Resume(id) => self.resume(id, ctx),
            Effect::End(id) => self.end(&id),
            Effect::AskRights(namespace, attempt) => self.ask_rights(namespace, attempt, ctx),
            Effect::TellPods(generation, pods) => {
                self.pods.send_replace(Some(Arc::clone(&pods)));
                let fact = PodsChanged { generation, pods };
                self.edges.client_list.do_send(fact.clone());
                self.edges.agent_placer.do_send(fact);
            }
            Effect::TellInfo(generation, info) => {
                for edge in &self.edges.info {
                    edge.do_send(ClusterInfoChanged { generation, info: Arc::clone(&info) });
                }
            }
            Effect::TellRecords(generation, records) => {
                self.edges.records.do_send(RecordsChanged { generation, records });
            }
            Effect::TellRights(generation, rights) => {
                for edge in &self.edges.rights {
                    edge.do_send(RightsChanged { generation, rights: Arc::clone(&rights) });
                }
            }
            Effect::TellHealth(generation, health) => {
                self.edges.health.do_send(WatchHealthChanged { generation, health });
            }
        }
    }
}

impl Handler<Watch> for PodWatcher {
    type Result = ();
    fn handle(&mut self, message: Watch, ctx: &mut Context<Self>) {
        drive(self, Input::Watch(message.namespaces), ctx);
    }
}

impl Handler<UseClient> for PodWatcher {
    type Result = ();
    fn handle(&mut self, message: UseClient, ctx: &mut Context<Self>) {
        self.client.send_replace(message.client);
        drive(self, Input::ClientChanged, ctx);
    }
}

impl Handler<Doubt> for PodWatcher {
    type Result = ();
    fn handle(&mut self, _: Doubt, ctx: &mut Context<Self>) {
        drive(self, Input::Doubted, ctx);
    }
}

impl Handler<ResolveWorkloads> for PodWatcher {
    type Result = ();
    fn handle(&mut self, message: ResolveWorkloads, _: &mut Context<Self>) {
        falls::at_message::<Self>("ResolveWorkloads");
        let ResolveWorkloads { default_namespace, references, reply } = message;
        let asked = references.clone();
        let work =
            resolve::resolve(self.client.subscribe(), default_namespace, references, self.pods.subscribe(), jitter);
        // It answers once it knows; each part has a limit of its own.
        let asking = spawn_reporting(work, NO_LIMIT, move |resolved| match resolved {
            Ok(resolutions) => reply.answer(resolutions),
            Err(TaskFailed::Panicked(why)) => {
                let failed = |reference| (reference, resolve::failed(&format!("bug: {why}")));
                reply.answer(asked.into_iter().map(failed).collect());
            }
            // This actor ends, and nobody waits any more.
            Err(TaskFailed::Aborted | TaskFailed::TimedOut) => {}
        });
        self.asking.keep(asking);
    }
}

impl Handler<shell::Stop> for PodWatcher {
    type Result = ();
    fn handle(&mut self, message: shell::Stop, ctx: &mut Context<Self>) {
        drive(self, Input::Stop, ctx);
        self.asking.end();
        message.reply.answer(());
        shell::stop(ctx);
    }
}

/// A task → PodWatcher. What it saw; the permit lets it send on once this was handled.
struct Heard {
    input: Input,
    permit: Option<OwnedSemaphorePermit>,
}

impl Heard {
    fn of(id: &WatchId, attempt: Attempt, report: Report) -> Heard {
        match report {
            Report::Events(events, permit) => {
                Heard { input: Input::Observed(id.clone(), attempt, events), permit: Some(permit) }
            }
            Report::Failed(trouble) => {
                Heard { input: Input::Failed(id.clone(), attempt, trouble, jitter()), permit: None }
            }
        }
    }
}

impl Message for Heard {
    type Result = ();
}

impl Handler<Heard> for PodWatcher {
    type Result = ();
    fn handle(&mut self, message: Heard, ctx: &mut Context<Self>) {
        drive(self, message.input, ctx);
        drop(message.permit);
    }
}

#[cfg(test)]
mod tests;
