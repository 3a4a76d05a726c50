//! AgentPlacer: sees to it that every wanted workload has an agent.
//!
//! Hears what ClientList hears; asks the API server for what is missing; tells ClientList only what cannot be had.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext as _, Context, Handler, Recipient};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracing::{debug, info, warn};

use self::core::{AgentPlacerCore, Effect, Input, Place, PlaceOutcome, Plan};
use self::manifest::Agent;
use self::messages::RemoveAll;
use crate::actors::client_list::messages::{PlacementHopeless, ViaWorkloadsChanged};
use crate::actors::pod_watcher::messages::{PodsChanged, RightsChanged, UseClient};
use crate::actors::shell::{Driven, Reply, Shell, Stop, TaskFailed, drive, drives, spawn_reporting, stop, told};
use crate::cluster::PodFact;
use crate::error::chain;
use crate::ids::{Attempt, ReplyId};

pub mod core;
pub mod manifest;
pub mod messages;

/// An API server that has not answered a placement by then is asked again.
const PLACE_LIMIT: Duration = Duration::from_secs(10);
/// `disconnect --clean` waits this long for the deletions to be accepted.
const REMOVE_LIMIT: Duration = Duration::from_secs(5);

/// The actor.
pub struct AgentPlacer {
    driven: Driven<AgentPlacerCore>,
    client: kube::Client,
    agent: Arc<Agent>,
    namespace: Arc<str>,
    client_list: Recipient<PlacementHopeless>,
    removals: HashMap<ReplyId, Reply<Vec<String>>>,
    next_reply: ReplyId,
}

impl AgentPlacer {
    /// A placer for agents as `plan` and `agent` say.
    pub fn new(plan: Plan, agent: Agent, client: kube::Client, client_list: Recipient<PlacementHopeless>) -> Self {
        AgentPlacer {
            namespace: Arc::clone(&plan.namespace),
            driven: Driven::new(AgentPlacerCore::new(plan)),
            client,
            agent: Arc::new(agent),
            client_list,
            removals: HashMap::new(),
            next_reply: ReplyId(0),
        }
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
                let (me, key) = (ctx.address(), place.clone());
                let (client, agent) = (self.client.clone(), Arc::clone(&self.agent));
                let namespace = Arc::clone(&self.namespace);
                let work = async move { ask(client, &agent, &namespace, &key, pod, &container, port).await };
                drop(spawn_reporting(work, PLACE_LIMIT, move |result| {
                    let outcome = result.unwrap_or_else(|failed| PlaceOutcome::Failed(describe(&failed).into()));
                    me.do_send(Placed { place, attempt, outcome });
                }));
            }
            Effect::Tell(generation, hopeless) => {
                self.client_list.do_send(PlacementHopeless { generation, hopeless });
            }
            Effect::Remove(id, pods) => {
                let Some(reply) = self.removals.remove(&id) else { return };
                let (client, agent) = (self.client.clone(), Arc::clone(&self.agent));
                let namespace = Arc::clone(&self.namespace);
                let work = async move { remove(client, &agent, &namespace, pods).await };
                drop(spawn_reporting(work, REMOVE_LIMIT, move |result| {
                    reply.answer(result.unwrap_or_else(|failed| vec![format!("our own pod: {}", describe(&failed))]));
                }));
            }
        }
    }
}

fn describe(failed: &TaskFailed) -> String {
    match failed {
        TaskFailed::TimedOut => "the API server did not answer in time".to_owned(),
        TaskFailed::Panicked(why) => format!("bug: {why}"),
        TaskFailed::Aborted => "given up".to_owned(),
    }
}

async fn ask(
    client: kube::Client,
    agent: &Agent,
    namespace: &str,
    place: &Place,
    pod: Option<Arc<PodFact>>,
    container: &str,
    port: u16,
) -> PlaceOutcome {
    let result = match (place, pod) {
        (Place::Pod(_), Some(pod)) => {
            let pods: Api<Pod> = Api::namespaced(client, &pod.namespace);
            let patch = Patch::Strategic(manifest::ephemeral_patch(agent, container, port));
            info!(pod = %pod.name, container, "adding an agent to a pod");
            pods.patch_ephemeral_containers(&pod.name, &PatchParams::default(), &patch).await.map(drop)
        }
        (Place::OwnJob, _) => create::<Job>(client, namespace, manifest::own_job(agent, port)).await,
        (Place::OwnPod | Place::Pod(_), finished) => {
            if let Some(finished) = finished
                && let Err(error) = delete_finished(client.clone(), &finished).await
            {
                return outcome_of(place, error);
            }
            create::<Pod>(client, namespace, manifest::own_pod(agent, port)).await
        }
    };
    match result {
        Ok(()) => PlaceOutcome::Accepted,
        Err(error) => outcome_of(place, error),
    }
}

/// Deletes exactly this pod: one that took its name since stays (409, and the next snapshot shows it).
async fn delete_finished(client: kube::Client, pod: &PodFact) -> kube::Result<()> {
    info!(pod = %pod.name, "deleting our own pod that has finished");
    let exactly = Preconditions { uid: Some(pod.uid.to_string()), resource_version: None };
    let params = DeleteParams { preconditions: Some(exactly), ..DeleteParams::default() };
    match Api::<Pod>::namespaced(client, &pod.namespace).delete(&pod.name, &params).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop),
    }
}

async fn create<K>(client: kube::Client, namespace: &str, object: Value) -> kube::Result<()>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + serde::Serialize,
    K::DynamicType: Default,
{
    let object: K = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
    Api::<K>::namespaced(client, namespace).create(&PostParams::default(), &object).await.map(drop)
}

fn outcome_of(place: &Place, error: kube::Error) -> PlaceOutcome {
    let kube::Error::Api(status) = &error else {
        debug!(error = &error as &dyn std::error::Error, ?place, "a placement failed");
        return PlaceOutcome::Failed(chain(&error).into());
    };
    let message: Arc<str> = status.message.as_str().into();
    match status.code {
        403 => {
            warn!(?place, %message, "a placement was refused");
            PlaceOutcome::Forbidden(message)
        }
        404 if matches!(place, Place::Pod(_)) => PlaceOutcome::Gone,
        // There already: the next snapshot shows it, or a finished Job or pod of ours is still going. Never hopeless.
        409 => PlaceOutcome::Failed(message),
        400 | 422 => PlaceOutcome::Rejected(message),
        _ => PlaceOutcome::Failed(message),
    }
}

async fn remove(client: kube::Client, agent: &Agent, namespace: &str, pods: Vec<Arc<PodFact>>) -> Vec<String> {
    let mut left = Vec::new();
    let name = manifest::own_name(&agent.fingerprint);
    let gone = |result: kube::Result<()>| match result {
        Ok(()) => None,
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 403 => None,
        Err(error) => Some(chain(&error)),
    };
    let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
    if let Some(why) = gone(jobs.delete(&name, &DeleteParams::background()).await.map(drop)) {
        left.push(format!("job {namespace}/{name}: {why}"));
    }
    // The Job's pod may be younger than the newest snapshot; where listing is refused, what the snapshot had must do.
    let api: Api<Pod> = Api::namespaced(client, namespace);
    let ours = ListParams::default().labels(&format!("podway.dev/agent={}", agent.fingerprint));
    let mut names: BTreeSet<String> = pods.iter().map(|pod| pod.name.to_string()).collect();
    if let Ok(listed) = api.list_metadata(&ours).await {
        names.extend(listed.items.into_iter().filter_map(|pod| pod.metadata.name));
    }
    for name in names {
        match api.delete(&name, &DeleteParams::default()).await.map(drop) {
            Err(kube::Error::Api(status)) if status.code == 403 => {
                left.push(format!("pod {namespace}/{name}: {}", status.message));
            }
            other => left.extend(gone(other).map(|why| format!("pod {namespace}/{name}: {why}"))),
        }
    }
    left
}

/// self → AgentPlacer. A placement ended.
struct Placed {
    place: Place,
    attempt: Attempt,
    outcome: PlaceOutcome,
}

told!(Placed);

impl From<Placed> for Input {
    fn from(message: Placed) -> Input {
        Input::Finished { place: message.place, attempt: message.attempt, outcome: message.outcome }
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

drives!(AgentPlacer, PodsChanged, RightsChanged, ViaWorkloadsChanged, Placed);

impl Handler<UseClient> for AgentPlacer {
    type Result = ();
    fn handle(&mut self, message: UseClient, _: &mut Context<Self>) {
        self.client = message.client;
    }
}

impl Handler<RemoveAll> for AgentPlacer {
    type Result = ();
    fn handle(&mut self, message: RemoveAll, ctx: &mut Context<Self>) {
        self.next_reply = self.next_reply.next();
        self.removals.insert(self.next_reply, message.reply);
        drive(self, Input::RemoveAll(self.next_reply), ctx);
    }
}

impl Handler<Stop> for AgentPlacer {
    type Result = ();
    fn handle(&mut self, message: Stop, ctx: &mut Context<Self>) {
        drive(self, Input::Stop, ctx);
        stop(ctx);
        message.reply.answer(());
    }
}
