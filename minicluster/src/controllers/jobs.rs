//! Jobs: pods until enough of them succeeded.
//!
//! Pods carry a finalizer until they are counted, as in the real cluster: a pod that is deleted before its controller saw
//! its end would be lost otherwise. Indexed completion and pod failure policies are not there.

mod end;
mod tracking;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use self::end::End;
use self::tracking::Tally;
use super::pods::{self, count, counts};
use super::wanted::Wanted;
use super::world::World;
use crate::events::{Note, Severity};
use crate::object::{self, items, says, text};
use crate::resource::JOBS;
use crate::strategy::Deletion;
use crate::time::Time;

const COMPONENT: &str = "job-controller";
/// Holds a pod until its end is counted.
const TRACKING: &str = "batch.kubernetes.io/job-tracking";

/// What Jobs want.
pub fn wanted(world: &World, now: Time, wanted: &mut Wanted) {
    tracking::let_strangers_go(world, wanted);
    for job in world.list(&JOBS) {
        if !end::is_finished(job) && !object::is_going(job) {
            run(world, job, now, wanted);
        }
        end::expire(job, now, wanted);
    }
}

fn run(world: &World, job: &Arc<Value>, now: Time, wanted: &mut Wanted) {
    let pods = pods::claim(world, job, wanted);
    let tally = Tally::of(job, &pods, wanted);
    let active: Vec<_> = pods.iter().filter(|pod| pods::is_active(pod)).copied().collect();
    let suspended = says(job, "/spec/suspend");
    let started = text(job, "/status/startTime");
    let started = if started.is_empty() && !suspended { now.rfc3339() } else { started.to_owned() };
    let end = end::of(job, &tally, Time::parse(&started), now, wanted);
    let mut remaining = active.len();
    if end.is_some() || suspended {
        for pod in &active {
            remaining -= 1;
            delete(job, pod, wanted);
        }
    } else {
        remaining = manage(world, job, &tally, active.clone(), &pods, now, wanted);
    }
    let terminating = pods.iter().filter(|pod| object::is_going(pod) && !pods::is_over(pod)).count();
    // The end is written when all pods are gone from the count, as the real controller does.
    let settled = tally.uncounted_is_empty() && terminating == 0 && remaining == 0;
    let ready = active.iter().filter(|pod| pods::is_ready(pod)).count();
    write_status(job, &tally, (active.len(), ready, terminating), &started, end.filter(|_| settled), now, wanted);
}

/// Makes and deletes pods; returns how many will be active.
fn manage(
    world: &World,
    job: &Arc<Value>,
    tally: &Tally,
    mut active: Vec<&Arc<Value>>,
    pods: &[&Arc<Value>],
    now: Time,
    wanted: &mut Wanted,
) -> usize {
    let parallelism = usize::try_from(count(job, "/spec/parallelism")).unwrap_or(0);
    let goal = match object::number(job, "/spec/completions") {
        Some(completions) => usize::try_from(completions - tally.all_succeeded()).unwrap_or(0).min(parallelism),
        // Without a number of completions the first success ends it: no more are begun then.
        None if tally.all_succeeded() > 0 => active.len().min(parallelism),
        None => parallelism,
    };
    let surplus = active.len().saturating_sub(goal);
    pods::by_worth(&mut active);
    for pod in active.iter().take(surplus) {
        delete(job, pod, wanted);
    }
    let only_after_failure = text(job, "/spec/podReplacementPolicy") == "Failed";
    let going = pods.iter().filter(|pod| object::is_going(pod) && !pods::is_over(pod)).count();
    let taken = active.len() + if only_after_failure { going } else { 0 };
    if let Some(at) = backoff_until(pods, tally).filter(|at| *at > now && taken < goal) {
        wanted.again_at(at);
        return active.len() - surplus;
    }
    for index in 0..goal.saturating_sub(taken) {
        if !create(world, job, index, wanted) {
            break;
        }
    }
    goal
}

/// After failures the next pod waits: 10 s, doubled with each failure, at most 10 minutes.
fn backoff_until(pods: &[&Arc<Value>], tally: &Tally) -> Option<Time> {
    let failures = u32::try_from(tally.all_failed()).unwrap_or(u32::MAX).checked_sub(1)?;
    let ended = pods
        .iter()
        .filter(|pod| text(pod, "/status/phase") == "Failed")
        .filter_map(|pod| tracking::ended(pod))
        .max()?;
    let wait = 10_u64.saturating_mul(2_u64.saturating_pow(failures)).min(600);
    Some(ended.after(Duration::from_secs(wait)))
}

fn create(world: &World, job: &Arc<Value>, index: usize, wanted: &mut Wanted) -> bool {
    let (key, mut pod) = pods::of_template_with_suffix(world, job, index);
    items(&mut pod, "/metadata/finalizers").push(json!(TRACKING));
    if let Some(why) = pods::refusal(world, job, &pod) {
        let message = format!("Error creating: {why}");
        let note = Note::new(job, COMPONENT, Severity::Warning, "FailedCreate", message);
        let told = note.key();
        if world.get(told.resource, &told.namespace, &told.name).is_none() {
            wanted.note(note);
        }
        return false;
    }
    let message = format!("Created pod: {}", key.name);
    wanted.note(Note::new(job, COMPONENT, Severity::Normal, "SuccessfulCreate", message));
    wanted.create(key, pod);
    true
}

fn delete(job: &Value, pod: &Value, wanted: &mut Wanted) {
    let message = format!("Deleted pod: {}", object::name(pod));
    wanted.note(Note::new(job, COMPONENT, Severity::Normal, "SuccessfulDelete", message));
    wanted.delete(pod, Deletion::default());
}

fn write_status(
    job: &Arc<Value>,
    tally: &Tally,
    (active, ready, terminating): (usize, usize, usize),
    started: &str,
    end: Option<End>,
    now: Time,
    wanted: &mut Wanted,
) {
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let ended = end.is_some();
    let note = end.as_ref().map(|end| end.note(job));
    wanted.change(job, |job| {
        let conditions = job["status"].get("conditions").cloned();
        let mut status = counts(
            &[
                ("active", number(active)),
                ("ready", number(ready)),
                ("terminating", number(terminating)),
                ("succeeded", tally.succeeded),
                ("failed", tally.failed),
            ],
            &["ready", "terminating"],
        );
        status.insert("uncountedTerminatedPods".to_owned(), tally.uncounted());
        if !started.is_empty() {
            status.insert("startTime".to_owned(), json!(started));
        }
        job["status"] = json!(status);
        if let Some(conditions) = conditions {
            job["status"]["conditions"] = conditions;
        }
        if let Some(end) = end {
            end.write(job, now);
        } else {
            end::write_suspended(job, now);
        }
    });
    if let Some(note) = note.filter(|_| ended) {
        wanted.note(note);
    }
}

#[cfg(test)]
mod tests;
