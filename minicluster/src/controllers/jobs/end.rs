//! How Jobs end, and when they expire.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::COMPONENT;
use super::tracking::Tally;
use crate::controllers::conditions::{self, Condition};
use crate::controllers::pods::count;
use crate::controllers::wanted::Wanted;
use crate::events::{Note, Severity};
use crate::object::{self, number, says, text};
use crate::strategy::{Deletion, Propagation};
use crate::time::Time;

/// How a Job ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Enough pods succeeded.
    Complete,
    /// Too many failed.
    BackoffLimit,
    /// It took too long.
    Deadline,
}

impl End {
    fn texts(self) -> (&'static str, &'static str) {
        match self {
            End::Complete => ("CompletionsReached", "Reached expected number of succeeded pods"),
            End::BackoffLimit => ("BackoffLimitExceeded", "Job has reached the specified backoff limit"),
            End::Deadline => ("DeadlineExceeded", "Job was active longer than specified deadline"),
        }
    }

    /// Writes its conditions and times.
    pub fn write(self, job: &mut Value, now: Time) {
        let (reason, message) = self.texts();
        let kinds = match self {
            End::Complete => ["SuccessCriteriaMet", "Complete"],
            End::BackoffLimit | End::Deadline => ["FailureTarget", "Failed"],
        };
        for kind in kinds {
            conditions::set(job, Condition { kind, holds: true, reason, message }, Some("lastProbeTime"), now);
        }
        if self == End::Complete {
            job["status"]["completionTime"] = json!(now.rfc3339());
        }
    }

    /// What people are told.
    pub fn note(self, job: &Value) -> Note {
        let (reason, message) = self.texts();
        match self {
            End::Complete => Note::new(job, COMPONENT, Severity::Normal, "Completed", "Job completed"),
            End::BackoffLimit | End::Deadline => Note::new(job, COMPONENT, Severity::Warning, reason, message),
        }
    }
}

/// How it should end now, if so.
pub fn of(job: &Value, tally: &Tally, started: Option<Time>, now: Time, wanted: &mut Wanted) -> Option<End> {
    let completions = number(job, "/spec/completions");
    let succeeded = tally.all_succeeded();
    if completions.is_some_and(|completions| succeeded >= completions) {
        return Some(End::Complete);
    }
    if tally.all_failed() > count(job, "/spec/backoffLimit") {
        return Some(End::BackoffLimit);
    }
    let seconds = number(job, "/spec/activeDeadlineSeconds").and_then(|seconds| u64::try_from(seconds).ok());
    if let Some((started, seconds)) = started.zip(seconds).filter(|_| !says(job, "/spec/suspend")) {
        let deadline = started.after(Duration::from_secs(seconds));
        if deadline <= now {
            return Some(End::Deadline);
        }
        wanted.again_at(deadline);
    }
    // Without a number, all pods end once one succeeded.
    (completions.is_none() && succeeded > 0 && count(job, "/status/active") == 0).then_some(End::Complete)
}

/// Whether it ended.
pub fn is_finished(job: &Value) -> bool {
    conditions::holds(job, "Complete") || conditions::holds(job, "Failed")
}

/// Says whether it rests.
pub fn write_suspended(job: &mut Value, now: Time) {
    let suspended = says(job, "/spec/suspend");
    if suspended || conditions::find(job, "Suspended").is_some() {
        let (reason, message) =
            if suspended { ("JobSuspended", "Job suspended") } else { ("JobResumed", "Job resumed") };
        let condition = Condition { kind: "Suspended", holds: suspended, reason, message };
        conditions::set(job, condition, Some("lastProbeTime"), now);
    }
}

/// Deletes it when it has been over for as long as `ttlSecondsAfterFinished` says.
pub fn expire(job: &Arc<Value>, now: Time, wanted: &mut Wanted) {
    let seconds = number(job, "/spec/ttlSecondsAfterFinished").and_then(|seconds| u64::try_from(seconds).ok());
    let ended = ["Complete", "Failed"].into_iter().filter(|kind| conditions::holds(job, kind));
    let ended = ended.filter_map(|kind| Time::parse(text(conditions::find(job, kind)?, "/lastTransitionTime"))).next();
    let Some((seconds, ended)) = seconds.zip(ended) else { return };
    let at = ended.after(Duration::from_secs(seconds));
    if object::is_going(job) {
        return;
    }
    if at > now {
        wanted.again_at(at);
    } else {
        wanted.delete(job, Deletion { propagation: Some(Propagation::Foreground), ..Deletion::default() });
    }
}
