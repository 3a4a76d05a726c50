//! A pod of our own: made, and deleted again where nobody took it.
//!
//! A create that is under way when the connection ends may succeed after everything was looked through. Whoever asked for
//! it then deletes exactly what came of it: by its UID where the answer told that, else by the mark that it was made with.
//! The next connection may have a pod of the same name already, or use this one: what runs stays, and ends by itself when
//! nobody uses it, unless all was to go. One that does not run yet carries nothing, and whoever waits for it makes another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, PostParams, Preconditions};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::core::{Made, Place, PlaceOutcome};
use super::manifest::{self, Agent};
use super::{Owned, outcome_of};
use crate::cluster::PodFact;
use crate::error::chain;

/// When what may have been made is looked for: an API server that did not answer in time may still be at it.
const LOOKS: [Duration; 4] = [Duration::ZERO, Duration::from_secs(2), Duration::from_secs(8), Duration::from_secs(30)];
/// Limit of one look.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// What a look saw of what was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Nothing,
    /// It is deleted now, or runs.
    Found,
}

/// Makes one Job or one bare pod.
#[derive(Clone)]
pub(super) struct Maker {
    /// The newest: credentials end sooner than looking may.
    pub(super) client: watch::Receiver<kube::Client>,
    pub(super) agent: Arc<Agent>,
    pub(super) namespace: Arc<str>,
    pub(super) place: Place,
    pub(super) port: u16,
    /// Whether `disconnect --clean` came: then what runs goes too.
    pub(super) clean: Arc<AtomicBool>,
}

impl Maker {
    /// Makes it, in the place of `old` where that is in the way.
    pub(super) async fn make(&self, old: Option<Arc<PodFact>>) -> (PlaceOutcome, Made) {
        let removed = match &old {
            Some(old) => self.remove(old).await,
            None => Ok(()),
        };
        let created = match self.place {
            Place::OwnJob => self.create::<Job>(manifest::own_job(&self.agent, self.port)).await,
            Place::OwnPod | Place::Pod(_) => self.create::<Pod>(manifest::own_pod(&self.agent, self.port)).await,
        };
        match created {
            Ok(uid) => (PlaceOutcome::Accepted, uid.map_or(Made::Perhaps, Made::Exactly)),
            Err(kube::Error::Api(status)) if status.code == 409 && removed.is_err() => {
                let why = removed.err().unwrap_or(kube::Error::Api(status));
                (outcome_of(&self.place, why), Made::Nothing)
            }
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                let refused = match self.place {
                    Place::OwnJob => self.refused_to_the_job().await,
                    Place::OwnPod | Place::Pod(_) => None,
                };
                (refused.unwrap_or_else(|| outcome_of(&self.place, kube::Error::Api(status))), Made::Before)
            }
            Err(error) => {
                let refused = matches!(&error, kube::Error::Api(status) if status.code < 500);
                (outcome_of(&self.place, error), if refused { Made::Nothing } else { Made::Perhaps })
            }
        }
    }

    /// Why the API server takes no pod of a Job that is there. Its controller is told, and we are not: only who may list
    /// events could read of it. So the pod is made without being stored (`dryRun=All`), through the same admission, quotas
    /// among it.
    async fn refused_to_the_job(&self) -> Option<PlaceOutcome> {
        let pod: Pod = serde_json::from_value(manifest::own_pod(&self.agent, self.port)).ok()?;
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        match outcome_of(&self.place, self.api::<Pod>().create(&dry, &pod).await.err()?) {
            // That is about us, who may make Jobs only.
            PlaceOutcome::Forbidden(why) if why.contains("cannot create resource") => None,
            PlaceOutcome::Forbidden(why) => Some(PlaceOutcome::Forbidden(why)),
            // Not that a webhook cannot be asked without consequences.
            PlaceOutcome::Rejected(why) if why.contains("denied the request") => Some(PlaceOutcome::Rejected(why)),
            PlaceOutcome::Rejected(_) | PlaceOutcome::Accepted | PlaceOutcome::Gone | PlaceOutcome::Failed(_) => None,
        }
    }

    /// Deletes exactly the Job of this pod, or this pod where none made it: one that took its name since stays (409, and
    /// the next snapshot shows it).
    async fn remove(&self, old: &PodFact) -> kube::Result<()> {
        info!(pod = %old.name, "deleting a pod of our own that is in the way");
        if let Some(uid) = &old.own_job {
            let jobs: Api<Job> = self.api();
            // Without the Job its pod goes too.
            return gone(jobs.delete(&old.workload.name, &exactly(uid.to_string())).await.map(drop));
        }
        let pods: Api<Pod> = self.api();
        gone(pods.delete(&old.name, &exactly(old.uid.to_string())).await.map(drop))
    }

    async fn create<K: Owned>(&self, object: Value) -> kube::Result<Option<String>> {
        let object: K = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
        let made = self.api::<K>().create(&PostParams::default(), &object).await?;
        Ok(made.meta().uid.clone())
    }

    /// Deletes what was made, unless it runs and may stay, and nothing else. It is `late` work until that is done, or was twice not to
    /// be found.
    pub(super) async fn unmake(&self, made: Made, late: watch::Receiver<()>) {
        if matches!(made, Made::Nothing | Made::Before) {
            return;
        }
        let (mut late, mut left) = (Some(late), None);
        for pause in LOOKS {
            sleep(pause).await;
            let look = async {
                match self.place {
                    Place::OwnJob => self.unmake_once::<Job>(&made).await,
                    Place::OwnPod | Place::Pod(_) => self.unmake_once::<Pod>(&made).await,
                }
            };
            match timeout(LOOK_LIMIT, look).await {
                Ok(Ok(_)) if made != Made::Perhaps => return,
                // There may have been several creates without an answer, and each may still come. The end of the process
                // does not wait for those.
                Ok(Ok(seen)) => {
                    left = None;
                    if seen == Seen::Found || !pause.is_zero() {
                        drop(late.take());
                    }
                }
                Ok(Err(error)) => left = Some(chain(&error)),
                Err(_) => left = Some("no answer in time".to_owned()),
            }
        }
        if let Some(why) = left {
            warn!(why, "a pod of our own that came too late may be left");
        }
    }

    async fn unmake_once<K: Owned>(&self, made: &Made) -> kube::Result<Seen> {
        let name = manifest::own_name(&self.agent.fingerprint);
        let api: Api<K> = self.api();
        let uid = match made {
            Made::Nothing | Made::Before => return Ok(Seen::Nothing),
            Made::Exactly(uid) => uid.clone(),
            Made::Perhaps => {
                let Some(found) = api.get_metadata_opt(&name).await? else { return Ok(Seen::Nothing) };
                let marked = manifest::is_marked(&found.metadata, &self.agent);
                let Some(uid) = found.metadata.uid.filter(|_| marked) else { return Ok(Seen::Nothing) };
                uid
            }
        };
        if !self.clean.load(Ordering::Acquire) && self.runs(&uid).await? {
            info!(name, "a pod of our own that came too late runs: it ends when nobody uses it");
            return Ok(Seen::Found);
        }
        info!(name, "deleting a pod of our own that came too late");
        match gone(api.delete(&name, &exactly(uid)).await.map(drop)) {
            // Another has its name.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Seen::Found),
            other => other.map(|()| Seen::Found),
        }
    }

    /// Whether the pod of this UID runs, or one that the Job of this UID made.
    async fn runs(&self, uid: &str) -> kube::Result<bool> {
        let of_image = ListParams::default().labels(&manifest::of_fingerprint(&self.agent));
        let pods = self.api::<Pod>().list(&of_image).await?;
        let is_of = |pod: &Pod| {
            let mut owners = pod.metadata.owner_references.iter().flatten();
            pod.metadata.uid.as_deref() == Some(uid) || owners.any(|owner| owner.uid == uid)
        };
        let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
        Ok(pods.items.iter().any(|pod| is_of(pod) && phase(pod).as_deref() == Some("Running")))
    }

    fn api<K: Owned>(&self) -> Api<K> {
        Api::namespaced(self.client.borrow().clone(), &self.namespace)
    }
}

/// Deletes an object of this UID only, with what belongs to it.
fn exactly(uid: String) -> DeleteParams {
    let preconditions = Some(Preconditions { uid: Some(uid), resource_version: None });
    DeleteParams { preconditions, ..DeleteParams::background() }
}

/// What is gone already needs no deleting.
fn gone(deleted: kube::Result<()>) -> kube::Result<()> {
    match deleted {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
