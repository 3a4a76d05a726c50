//! AgentPlacer: sees to it that every wanted workload has an agent.
//!
//! Hears what ClientList hears; asks the API server for what is missing; tells ClientList only what cannot be had.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::{Actor, AsyncContext as _, Context, Handler, Recipient};
use futures_util::future::join_all;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use self::core::{AgentPlacerCore, Effect, Input, Made, Place, PlaceOutcome, Plan};
use self::making::Maker;
use self::manifest::Agent;
use self::messages::RemoveAll;
use crate::actors::client_list::messages::{AgentsUnfit, PlacementHopeless, ViaWorkloadsChanged};
use crate::actors::pod_watcher::messages::{PodsChanged, RightsChanged};
use crate::actors::shell::{
    Driven, LateWork, NO_LIMIT, Reply, Shell, Stop, TaskFailed, Tasks, drive, drives, spawn, spawn_reporting, stop,
    told,
};
use crate::cluster::PodFact;
use crate::error::chain;
use crate::ids::{Attempt, ReplyId};
use crate::net::obstacle::Obstacle;

pub mod core;
mod making;
pub mod manifest;
pub mod messages;

/// An API server that has not answered a placement by then is asked again.
const PLACE_LIMIT: Duration = Duration::from_secs(10);
/// `disconnect --clean` waits this long for the deletions to be accepted; with what is waited for before, it is less than
/// Session gives the step.
const REMOVE_LIMIT: Duration = Duration::from_millis(4500);

/// The actor.
pub struct AgentPlacer {
    driven: Driven<AgentPlacerCore>,
    client: watch::Receiver<kube::Client>,
    agent: Arc<Agent>,
    namespace: Arc<str>,
    client_list: Recipient<PlacementHopeless>,
    removals: HashMap<ReplyId, Reply<Vec<String>>>,
    stops: HashMap<ReplyId, Reply<()>>,
    next_reply: ReplyId,
    /// Ephemeral containers that are being asked for: that ends with who asked for them, however it ends.
    asking: Tasks,
    /// Creates of a pod of our own that are not settled; told when they are. Dropped untold, what was made is deleted again.
    unsettled: HashMap<Attempt, Reply<()>>,
    /// Whether all of ours is to go, also what is made after this actor.
    clean: Arc<AtomicBool>,
    late: LateWork,
}

impl AgentPlacer {
    /// A placer for agents as `plan` and `agent` say, that asks by the newest `client`. What it cannot end before it ends
    /// itself is `late` work.
    pub fn new(
        plan: Plan,
        agent: Arc<Agent>,
        client: watch::Receiver<kube::Client>,
        client_list: Recipient<PlacementHopeless>,
        late: LateWork,
    ) -> Self {
        AgentPlacer {
            namespace: Arc::clone(&plan.namespace),
            driven: Driven::new(AgentPlacerCore::new(plan)),
            client,
            agent,
            client_list,
            removals: HashMap::new(),
            stops: HashMap::new(),
            next_reply: ReplyId(0),
            asking: Tasks::default(),
            unsettled: HashMap::new(),
            clean: Arc::default(),
            late,
        }
    }

    fn own(&self) -> Own {
        let client = self.client.borrow().clone();
        Own { client, agent: Arc::clone(&self.agent), namespace: Arc::clone(&self.namespace) }
    }
}

/// Our own pod and what it takes to delete it, which outlives the placer that made it.
#[derive(Clone)]
pub struct Own {
    /// The client.
    pub client: kube::Client,
    /// What names it.
    pub agent: Arc<Agent>,
    /// Where it is.
    pub namespace: Arc<str>,
}

impl Own {
    /// Deletes one that never ran, as far as that is possible.
    pub async fn withdraw(self) {
        let withdrawal = withdraw(self.client, &self.agent, &self.namespace);
        if tokio::time::timeout(REMOVE_LIMIT, withdrawal).await.is_err() {
            warn!("our own pod, which never ran, may be left: the API server did not answer in time");
        }
    }

    /// Deletes those of every image, `pods` among them, and says what is left.
    pub async fn remove(self, pods: Vec<Arc<PodFact>>) -> Vec<String> {
        let removal = remove(self.client, &self.agent, &self.namespace, pods);
        tokio::time::timeout(REMOVE_LIMIT, removal)
            .await
            .unwrap_or_else(|_| vec![format!("our own pod: {}", describe(&TaskFailed::TimedOut))])
    }
}

impl Actor for AgentPlacer {
    type Context = Context<Self>;
}

impl Shell for AgentPlacer {
    type Core = AgentPlacerCore;

    fn driven(&mut self) -> &mut Driven<AgentPlacerCore> {
        &mut self.driven
    }

    fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::Place { place, attempt, pod, container, port } => {
                let me = ctx.address();
                let agent = Arc::clone(&self.agent);
                match (&place, pod) {
                    (Place::Pod(_), Some(pod)) => {
                        let client = self.client.borrow().clone();
                        let work = async move { add_to(client, &agent, &pod, &container, port).await };
                        self.asking.keep(spawn_reporting(work, PLACE_LIMIT, move |result| {
                            let outcome = result.unwrap_or_else(|failed| PlaceOutcome::Failed(describe(&failed)));
                            me.do_send(Placed { place, attempt, outcome, taken: None });
                        }));
                    }
                    (Place::OwnJob | Place::OwnPod | Place::Pod(_), old) => {
                        let (client, namespace) = (self.client.clone(), Arc::clone(&self.namespace));
                        let clean = Arc::clone(&self.clean);
                        let maker = Maker { client, agent, namespace, place, port, clean };
                        let making = maker.clone();
                        let work = async move { making.make(old).await };
                        let late = self.late.begin();
                        // It goes on when this actor ends: what may have been made has to be deleted then.
                        drop(spawn_reporting(work, PLACE_LIMIT, move |result| {
                            let unknown = |failed| (PlaceOutcome::Failed(describe(&failed)), Made::Perhaps);
                            let (outcome, made) = result.unwrap_or_else(unknown);
                            let (taken, was_taken) = Reply::new();
                            let (place, taken) = (maker.place.clone(), Some((made.clone(), taken)));
                            me.do_send(Placed { place, attempt, outcome, taken });
                            spawn(async move {
                                if was_taken.await.is_err() {
                                    maker.unmake(made, late).await;
                                }
                            });
                        }));
                    }
                }
            }
            Effect::Settle(attempt) => {
                if let Some(taken) = self.unsettled.remove(&attempt) {
                    taken.answer(());
                }
            }
            Effect::Tell(generation, hopeless) => {
                self.client_list.do_send(PlacementHopeless { generation, hopeless });
            }
            Effect::Withdraw => {
                let me = ctx.address();
                let late = self.late.begin();
                drop(spawn_reporting(self.own().withdraw(), NO_LIMIT, move |result| {
                    drop(late);
                    if let Err(failed) = result {
                        warn!(?failed, "our own pod, which never ran, may be left");
                    }
                    me.do_send(Withdrawn);
                }));
            }
            Effect::Stopped(id) => {
                if let Some(reply) = self.stops.remove(&id) {
                    reply.answer(());
                }
                stop(ctx);
            }
            Effect::Remove(id, pods) => {
                let Some(reply) = self.removals.remove(&id) else { return };
                drop(spawn_reporting(self.own().remove(pods), NO_LIMIT, move |result| {
                    reply.answer(result.unwrap_or_else(|failed| vec![format!("our own pod: {}", describe(&failed))]));
                }));
            }
        }
    }
}

fn describe(failed: &TaskFailed) -> Arc<str> {
    match failed {
        TaskFailed::TimedOut => "the API server did not answer in time".into(),
        TaskFailed::Panicked(why) => format!("bug: {why}").into(),
        TaskFailed::Aborted => "given up".into(),
    }
}

/// Adds an agent to a pod.
async fn add_to(client: kube::Client, agent: &Agent, pod: &PodFact, container: &str, port: u16) -> PlaceOutcome {
    let pods: Api<Pod> = Api::namespaced(client, &pod.namespace);
    let patch = Patch::Strategic(manifest::ephemeral_patch(agent, container, port));
    info!(pod = %pod.name, container, "adding an agent to a pod");
    match pods.patch_ephemeral_containers(&pod.name, &PatchParams::default(), &patch).await {
        Ok(_) => PlaceOutcome::Accepted,
        Err(error) => outcome_of(&Place::Pod(pod.uid.clone()), error),
    }
}

fn outcome_of(place: &Place, error: kube::Error) -> PlaceOutcome {
    let kube::Error::Api(status) = &error else {
        debug!(error = &error as &dyn std::error::Error, ?place, "a placement failed");
        return PlaceOutcome::Failed(Obstacle::of(&error).words().into());
    };
    let message: Arc<str> = status.message.as_str().into();
    match status.code {
        403 => {
            warn!(?place, %message, "a placement was refused");
            PlaceOutcome::Forbidden(message)
        }
        404 if matches!(place, Place::Pod(_)) => PlaceOutcome::Gone,
        // A policy that gives no answer is none that allows: it goes on refusing, until somebody mends it.
        500.. if status.message.contains("failed calling webhook") => PlaceOutcome::Forbidden(message),
        // There already: the next snapshot shows it, or a finished Job or pod of ours is still going. Never hopeless.
        409 => PlaceOutcome::Failed(message),
        400 | 422 => PlaceOutcome::Rejected(message),
        _ => PlaceOutcome::Failed(message),
    }
}

/// Deletes the Job or the bare pod of this image; there is at most one of them.
async fn withdraw(client: kube::Client, agent: &Agent, namespace: &str) {
    let name = manifest::own_name(&agent.fingerprint);
    info!(name, "taking our own pod back, which never ran");
    let (job, pod) = tokio::join!(
        delete::<Job>(&client, namespace, &name, DeleteParams::background()),
        delete::<Pod>(&client, namespace, &name, DeleteParams::default()),
    );
    for Left { why, forbidden } in [job, pod].into_iter().flatten() {
        // A refusal says nothing of whether there is one.
        if forbidden {
            debug!(why, "our own pod, which never ran, may be left");
        } else {
            warn!(why, "our own pod, which never ran, is left");
        }
    }
}

/// Deletes all Jobs and pods of this key, and says what is left.
async fn remove(client: kube::Client, agent: &Agent, namespace: &str, pods: Vec<Arc<PodFact>>) -> Vec<String> {
    // Those of the image in use go also where listing is refused, and where an earlier version gave no label of the key.
    let known = pods.iter().filter_map(|pod| pod.own_pod_of.as_deref()).chain([agent.fingerprint.as_str()]);
    let guessed: BTreeSet<String> = known.map(manifest::own_name).collect();
    let mut names: BTreeSet<String> = pods.iter().map(|pod| pod.name.to_string()).collect();
    let (of_key, of_fingerprint) = (manifest::of_key(agent), manifest::of_fingerprint(agent));
    // A Job's pod may be younger than the newest snapshot.
    let (more_jobs, more_pods, more_of_image) = tokio::join!(
        names_of::<Job>(&client, namespace, &of_key),
        names_of::<Pod>(&client, namespace, &of_key),
        names_of::<Pod>(&client, namespace, &of_fingerprint),
    );
    // What made a pod in sight is there, too, whoever may list it.
    let of_pods = pods.iter().filter(|pod| pod.own_job.is_some()).map(|pod| pod.workload.name.to_string());
    let seen_jobs: BTreeSet<String> = more_jobs.into_iter().chain(of_pods).collect();
    names.extend(more_pods.into_iter().chain(more_of_image));
    let jobs = join_all(guessed.union(&seen_jobs).map(async |name| {
        let left = delete::<Job>(&client, namespace, name, DeleteParams::background()).await?;
        // Who may not delete a Job of a guessed name is not told of a Job that may never have been.
        (!left.forbidden || seen_jobs.contains(name)).then_some(left)
    }));
    let jobs = jobs.await;
    let pods = join_all(names.iter().map(|name| delete::<Pod>(&client, namespace, name, DeleteParams::default())));
    jobs.into_iter().chain(pods.await).flatten().map(|left| left.why).collect()
}

/// What could not be deleted.
struct Left {
    /// Which object, and why.
    why: String,
    /// Whether a right is missing; then the object may not even exist.
    forbidden: bool,
}

/// Names of what bears a label; none where that may not be listed.
async fn names_of<K: Owned>(client: &kube::Client, namespace: &str, label: &str) -> Vec<String> {
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let listed = api.list_metadata(&ListParams::default().labels(label)).await;
    listed.into_iter().flat_map(|list| list.items).filter_map(|object| object.metadata.name).collect()
}

/// Deletes one object; says why it is left, where it is.
async fn delete<K: Owned>(client: &kube::Client, namespace: &str, name: &str, how: DeleteParams) -> Option<Left> {
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let (forbidden, why) = match api.delete(name, &how).await {
        Ok(_) => return None,
        Err(kube::Error::Api(status)) if status.code == 404 => return None,
        // A policy may refuse as well, in its own words.
        Err(kube::Error::Api(status)) if status.code == 403 && status.message.contains(" cannot delete resource ") => {
            debug!(message = status.message, "a deletion was refused");
            (true, format!("missing right: delete {} in namespace {namespace}", K::plural(&())))
        }
        Err(kube::Error::Api(status)) => (status.code == 403, status.message.clone()),
        Err(error) => (false, chain(&error)),
    };
    let kind = K::kind(&()).to_lowercase();
    Some(Left { why: format!("{kind} {namespace}/{name}: {why}"), forbidden })
}

/// What our own pod is made of: Jobs and pods.
trait Owned:
    kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
    + Clone
    + std::fmt::Debug
    + DeserializeOwned
    + serde::Serialize
{
}

impl Owned for Job {}
impl Owned for Pod {}

/// self → AgentPlacer. A placement ended.
struct Placed {
    place: Place,
    attempt: Attempt,
    outcome: PlaceOutcome,
    /// Of a pod of our own, what came of it; told when this actor answers for that. Dropped untold, what was made is
    /// deleted again.
    taken: Option<(Made, Reply<()>)>,
}

/// self → AgentPlacer. Our own pod, which never ran, was taken back as far as that was possible.
struct Withdrawn;

told!(Placed, Withdrawn);

impl From<Withdrawn> for Input {
    fn from(Withdrawn: Withdrawn) -> Input {
        Input::Withdrawn
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

impl From<AgentsUnfit> for Input {
    fn from(message: AgentsUnfit) -> Input {
        Input::Unfit(message.generation, message.agents)
    }
}

drives!(AgentPlacer, PodsChanged, RightsChanged, ViaWorkloadsChanged, AgentsUnfit, Withdrawn);

impl Handler<Placed> for AgentPlacer {
    type Result = ();
    fn handle(&mut self, message: Placed, ctx: &mut Context<Self>) {
        let Placed { place, attempt, outcome, taken } = message;
        if let Some((made, taken)) = taken {
            self.unsettled.insert(attempt, taken);
            drive(self, Input::Made(place.clone(), attempt, made), ctx);
        }
        drive(self, Input::Finished { place, attempt, outcome }, ctx);
    }
}

impl Handler<RemoveAll> for AgentPlacer {
    type Result = ();
    fn handle(&mut self, message: RemoveAll, ctx: &mut Context<Self>) {
        self.next_reply = self.next_reply.next();
        self.removals.insert(self.next_reply, message.reply);
        self.clean.store(true, Ordering::Release);
        self.asking.end();
        drive(self, Input::RemoveAll(self.next_reply), ctx);
    }
}

impl Handler<Stop> for AgentPlacer {
    type Result = ();
    fn handle(&mut self, message: Stop, ctx: &mut Context<Self>) {
        self.next_reply = self.next_reply.next();
        self.stops.insert(self.next_reply, message.reply);
        self.asking.end();
        drive(self, Input::Stop(self.next_reply), ctx);
    }
}

#[cfg(test)]
mod tests;
