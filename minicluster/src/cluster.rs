//! The cluster put together: store, controllers, API server, and whatever runs the pods; and what a demo or a test does
//! to it.

mod ask;
mod condition;
mod fetch;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::api::{self, Credential, Kubelet, Server};
use crate::control::{Condition, Name, Signal, Target};
use crate::controllers::wanted::Wanted;
use crate::controllers::world::World;
use crate::controllers::{self};
use crate::faults::Faults;
use crate::object::{self, entries, text};
use crate::rbac::profiles::{self, Profile};
use crate::resource::{DAEMON_SETS, DEPLOYMENTS, NODES, PODS, REPLICA_SETS, Resource, STATEFUL_SETS};
use crate::store::{Key, Store};
use crate::strategy::{self, Deletion, Part, Propagation, Refusal};
use crate::time::Time;
use crate::{clock, manifests};

/// The namespace of kubeconfigs.
const NAMESPACE: &str = "demo";

/// What runs the pods that the store has, on all nodes that it has.
pub trait Runtime: Kubelet {
    /// Sends a signal to processes of a pod.
    ///
    /// # Errors
    /// When there are none.
    fn signal(&self, pod_uid: &str, target: Target, signal: Signal) -> io::Result<()>;
}

/// What a cluster is made of.
pub struct Options {
    /// The objects: [`new_store`].
    pub store: Store,
    /// What runs pods of that store.
    pub runtime: Arc<dyn Runtime>,
    /// [`controllers::all`], or that and a fake kubelet.
    pub controllers: fn(&World, Time) -> Wanted,
    /// Where the API server listens; the first is in kubeconfigs.
    pub listeners: Vec<TcpListener>,
    /// How many nodes it begins with.
    pub nodes: u8,
    /// Whether it has the sample workloads.
    pub samples: bool,
}

/// Why a cluster could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An object it begins with was refused.
    #[error("{0:?}")]
    Object(Key, #[source] Refusal),
    /// The API server could not be started.
    #[error("API server")]
    Api(#[from] api::StartError),
}

/// Why the cluster did not do what it was asked.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum OperationError {
    /// It knows no such kind.
    #[error("no such kind: {0}")]
    Kind(String),
    /// The object is not there.
    #[error("{} {}/{}: not found", .0.kind, .0.namespace, .0.name)]
    NotFound(Name),
    /// It cannot be done to objects of that kind.
    #[error("{0} cannot be {1}")]
    NotPossible(String, &'static str),
    /// The objects were refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It is not so, though it was waited for.
    #[error("not within {0:?}: {1}")]
    NotYet(Duration, String),
    /// What runs the pods could not.
    #[error("{0}")]
    Runtime(String),
}

/// An empty store, by the machine's clock.
pub fn new_store() -> Store {
    Store::new(clock::rfc3339)
}

/// A running cluster. Ends when it is dropped; pods end with what runs them.
pub struct Cluster {
    store: Store,
    runtime: Arc<dyn Runtime>,
    faults: Faults,
    api: Server,
    _controllers: JoinSet<()>,
}

impl Cluster {
    /// Starts it. Needs a tokio runtime around it.
    ///
    /// # Errors
    /// When the API server does not start.
    pub fn start(options: Options) -> Result<Cluster, StartError> {
        let Options { store, runtime, controllers, listeners, nodes, samples } = options;
        let time = clock::rfc3339();
        let mut objects = manifests::system();
        objects.extend(profiles::system());
        objects.extend((1..=nodes).map(|number| manifests::node(number, &time)));
        if samples {
            objects.extend(manifests::samples());
            objects.extend(profiles::podway(NAMESPACE));
        }
        for (key, object) in objects {
            strategy::create(&store, &key, object).map_err(|refusal| StartError::Object(key, refusal))?;
        }
        let faults = Faults::new();
        let kubelet: Arc<dyn Kubelet> = runtime.clone();
        let api = Server::start(
            api::Options {
                store: store.clone(),
                kubelet,
                faults: faults.clone(),
                users: Profile::ALL.map(Profile::user).to_vec(),
                names: Vec::new(),
                websocket_needs_create: true,
            },
            listeners,
        )?;
        let mut tasks = JoinSet::new();
        tasks.spawn(controllers::run(store.clone(), clock::now, controllers));
        Ok(Cluster { store, runtime, faults, api, _controllers: tasks })
    }

    /// Its objects.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What goes wrong on purpose between clients and its API.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Its API server.
    pub fn api(&self) -> &Server {
        &self.api
    }

    /// A kubeconfig for a user, who has the name of a profile; `None` where there is none of that name.
    pub fn kubeconfig(&self, user: &str) -> Option<String> {
        self.api.kubeconfig(user, Credential::Certificate, NAMESPACE)
    }

    /// Ends the API server and all its connections, and waits until they are closed.
    pub async fn stop(self) {
        self.api.stop().await;
    }

    /// One object.
    ///
    /// # Errors
    /// When there is no such kind, or no such object.
    pub fn get(&self, name: &Name) -> Result<Arc<Value>, OperationError> {
        self.store.get(&key(name)?).ok_or_else(|| OperationError::NotFound(name.clone()))
    }

    fn change(&self, name: &Name, change: impl FnOnce(&mut Value)) -> Result<(), OperationError> {
        strategy::update(&self.store, &key(name)?, None, Part::Main, change)?;
        Ok(())
    }

    /// Adds the object, or merges it into the one that is there.
    ///
    /// # Errors
    /// When it may not be as it is.
    pub fn apply(&self, object: Value) -> Result<(), OperationError> {
        let kind = || OperationError::Kind(format!("{} {}", text(&object, "/apiVersion"), text(&object, "/kind")));
        let key = object::key(&object).ok_or_else(kind)?;
        if self.store.get(&key).is_none() {
            strategy::create(&self.store, &key, object)?;
        } else {
            strategy::update(&self.store, &key, None, Part::Main, |before| json_patch::merge(before, &object))?;
        }
        Ok(())
    }

    /// Deletes an object; what it owns goes after it.
    ///
    /// # Errors
    /// When it is not there.
    pub fn delete(&self, name: &Name, grace: Option<i64>) -> Result<(), OperationError> {
        let how = Deletion { grace, propagation: Some(Propagation::Background), ..Deletion::default() };
        strategy::delete(&self.store, &key(name)?, &how, clock::now())?;
        Ok(())
    }

    /// Sets how many replicas a workload should have.
    ///
    /// # Errors
    /// When it is not there, or has none.
    pub fn scale(&self, name: &Name, replicas: u32) -> Result<(), OperationError> {
        of_kinds(name, &[&DEPLOYMENTS, &REPLICA_SETS, &STATEFUL_SETS], "scaled")?;
        self.change(name, |workload| workload["spec"]["replicas"] = json!(replicas))
    }

    /// Begins a rollout of the same pods anew, as `kubectl rollout restart`.
    ///
    /// # Errors
    /// When it is not there, or has no rollouts.
    pub fn restart(&self, name: &Name) -> Result<(), OperationError> {
        of_kinds(name, &[&DEPLOYMENTS, &STATEFUL_SETS, &DAEMON_SETS], "restarted")?;
        let now = clock::now().rfc3339_with_millis();
        self.change(name, |workload| {
            let annotations = entries(workload, "/spec/template/metadata/annotations");
            annotations.insert("kubectl.kubernetes.io/restartedAt".to_owned(), json!(now));
        })
    }

    /// Sends a signal to processes of a pod.
    ///
    /// # Errors
    /// When there is no such pod, or no such process in it.
    pub fn signal(&self, namespace: &str, pod: &str, target: Target, signal: Signal) -> Result<(), OperationError> {
        let name = Name::new(PODS.plural, namespace, pod);
        let object = self.get(&name)?;
        let sent = self.runtime.signal(object::uid(&object), target, signal);
        sent.map_err(|error| OperationError::Runtime(format!("pod {namespace}/{pod}: {error}")))
    }

    /// Asks a pod's port for a path, over HTTP and from inside the pod; answers with `code` and `body`.
    ///
    /// # Errors
    /// When there is no such pod, or no answer.
    pub async fn fetch(&self, namespace: &str, pod: &str, port: u16, path: &str) -> Result<Value, OperationError> {
        let object = self.get(&Name::new(PODS.plural, namespace, pod))?;
        let failed = |error: io::Error| OperationError::Runtime(format!("pod {namespace}/{pod}: {error}"));
        let stream = self.runtime.dial(object::uid(&object), port).await.map_err(failed)?;
        fetch::get(stream, path).await.map_err(failed)
    }

    /// Adds a node, which is ready at once; returns its name.
    ///
    /// # Errors
    /// When there is no number left for it.
    pub fn add_node(&self) -> Result<String, OperationError> {
        let (_, nodes) = self.store.list(&NODES, None);
        let number = |node: &Arc<Value>| object::name(node).strip_prefix("node")?.parse::<u8>().ok();
        let last = nodes.iter().filter_map(number).max().unwrap_or(0);
        let number = last.checked_add(1).ok_or_else(|| OperationError::Runtime("too many nodes".to_owned()))?;
        let (key, node) = manifests::node(number, &clock::rfc3339());
        strategy::create(&self.store, &key, node)?;
        Ok(key.name)
    }

    /// Takes a node away; its pods are gone with it.
    ///
    /// # Errors
    /// When it is not there.
    pub fn remove_node(&self, name: &str) -> Result<(), OperationError> {
        self.delete(&Name::new(NODES.plural, "", name), None)
    }

    /// Waits until a condition holds. Cancel safe.
    ///
    /// # Errors
    /// When it does not within `limit`: what is missing.
    pub async fn wait(&self, condition: &Condition, limit: Duration) -> Result<(), OperationError> {
        let mut revisions = self.store.revisions();
        let holds = async {
            while condition::missing(condition, &World::read(&self.store)).is_some() {
                // The sender lives in the store, which this has.
                let _ = revisions.changed().await;
            }
        };
        if tokio::time::timeout(limit, holds).await.is_ok() {
            return Ok(());
        }
        match condition::missing(condition, &World::read(&self.store)) {
            Some(missing) => Err(OperationError::NotYet(limit, missing)),
            None => Ok(()),
        }
    }
}

/// An object's name in the store.
fn key(name: &Name) -> Result<Key, OperationError> {
    let resource = kind(&name.kind)?;
    let namespace = if resource.namespaced { name.namespace.as_str() } else { "" };
    Ok(Key::new(resource, namespace, name.name.as_str()))
}

/// The kind with that plural: they differ among all groups here.
fn kind(plural: &str) -> Result<&'static Resource, OperationError> {
    let mut all = crate::resource::ALL.into_iter();
    all.find(|resource| resource.plural == plural).ok_or_else(|| OperationError::Kind(plural.to_owned()))
}

fn of_kinds(name: &Name, kinds: &[&'static Resource], what: &'static str) -> Result<(), OperationError> {
    let resource = kind(&name.kind)?;
    if kinds.contains(&resource) { Ok(()) } else { Err(OperationError::NotPossible(name.kind.clone(), what)) }
}

#[cfg(test)]
mod tests;
