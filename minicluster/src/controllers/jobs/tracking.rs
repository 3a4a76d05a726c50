//! Counting pods that ended, each once. A pod's UID is written down as uncounted, then its finalizer is taken, then it is
//! counted and struck out: whatever is interrupted goes on where it was.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::TRACKING;
use crate::controllers::pods::{self, count};
use crate::controllers::wanted::Wanted;
use crate::controllers::world::World;
use crate::object::{self, items, list, text};
use crate::resource::{JOBS, PODS};
use crate::time::Time;

/// What ended, as the status will say.
pub struct Tally {
    /// Counted successes.
    pub succeeded: i64,
    /// Counted failures.
    pub failed: i64,
    uncounted_succeeded: BTreeSet<String>,
    uncounted_failed: BTreeSet<String>,
}

impl Tally {
    /// The next step of counting.
    pub fn of(job: &Value, pods: &[&Arc<Value>], wanted: &mut Wanted) -> Tally {
        let listed = |path: &str| -> BTreeSet<String> {
            list(job, path).iter().filter_map(|uid| uid.as_str().map(str::to_owned)).collect()
        };
        let mut succeeded = listed("/status/uncountedTerminatedPods/succeeded");
        let mut failed = listed("/status/uncountedTerminatedPods/failed");
        for pod in pods {
            if succeeded.contains(object::uid(pod)) || failed.contains(object::uid(pod)) {
                let_go(pod, wanted);
            }
        }
        let held =
            |uid: &String| pods.iter().any(|pod| object::uid(pod) == uid && object::has_finalizer(pod, TRACKING));
        let counted = |uids: &mut BTreeSet<String>| {
            let before = uids.len();
            uids.retain(held);
            i64::try_from(before - uids.len()).unwrap_or(0)
        };
        let all_succeeded = count(job, "/status/succeeded") + counted(&mut succeeded);
        let all_failed = count(job, "/status/failed") + counted(&mut failed);
        let only_failed = text(job, "/spec/podReplacementPolicy") == "Failed";
        for pod in pods.iter().filter(|pod| object::has_finalizer(pod, TRACKING)) {
            let phase = text(pod, "/status/phase");
            if phase == "Succeeded" {
                succeeded.insert(object::uid(pod).to_owned());
            } else if phase == "Failed" || (object::is_going(pod) && !only_failed) {
                // One that is deleted may never come to an end of its own.
                failed.insert(object::uid(pod).to_owned());
            }
        }
        Tally { succeeded: all_succeeded, failed: all_failed, uncounted_succeeded: succeeded, uncounted_failed: failed }
    }

    /// Successes, counted or not.
    pub fn all_succeeded(&self) -> i64 {
        self.succeeded + i64::try_from(self.uncounted_succeeded.len()).unwrap_or(0)
    }

    /// Failures, counted or not.
    pub fn all_failed(&self) -> i64 {
        self.failed + i64::try_from(self.uncounted_failed.len()).unwrap_or(0)
    }

    /// Whether all are counted.
    pub fn uncounted_is_empty(&self) -> bool {
        self.uncounted_succeeded.is_empty() && self.uncounted_failed.is_empty()
    }

    /// As the status has it.
    pub fn uncounted(&self) -> Value {
        let all = [("succeeded", &self.uncounted_succeeded), ("failed", &self.uncounted_failed)];
        let listed = all.into_iter().filter(|(_, uids)| !uids.is_empty());
        Value::Object(listed.map(|(name, uids)| (name.to_owned(), json!(uids))).collect::<Map<_, _>>())
    }
}

/// Takes the finalizer of pods whose Job is gone or over.
pub fn let_strangers_go(world: &World, wanted: &mut Wanted) {
    for pod in world.list(&PODS).filter(|pod| object::has_finalizer(pod, TRACKING)) {
        let owner = object::controller(pod);
        let job = owner.and_then(|owner| world.get(&JOBS, object::namespace(pod), text(owner, "/name")));
        let job = job.filter(|job| owner.is_some_and(|owner| text(owner, "/uid") == object::uid(job)));
        let counts = job.is_some_and(|job| !super::end::is_finished(job) && !object::is_going(job));
        if !counts {
            let_go(pod, wanted);
        }
    }
}

fn let_go(pod: &Arc<Value>, wanted: &mut Wanted) {
    if object::has_finalizer(pod, TRACKING) {
        wanted.change(pod, |pod| items(pod, "/metadata/finalizers").retain(|finalizer| finalizer != TRACKING));
    }
}

/// When the last of its containers ended.
pub fn ended(pod: &Value) -> Option<Time> {
    let containers = list(pod, "/status/containerStatuses").iter();
    let last = containers.filter_map(|status| Time::parse(text(status, "/state/terminated/finishedAt"))).max();
    last.or_else(|| pods::is_over(pod).then(|| Time::parse(text(pod, "/metadata/creationTimestamp")))?)
}
