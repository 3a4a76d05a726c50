//! What is left to do at the end: a Job whose pod never ran would wait in the cluster for ever, as only an agent that runs
//! can end itself.
//!
//! What is still being made cannot be deleted before it is there: it is waited for, for a while. What comes later than
//! that comes to nobody, and whoever asked for it deletes it again (the shell, by its UID).

use std::sync::Arc;
use std::time::Duration;

use super::in_pod::AgentInPod;
use super::placement::{Placement, Progress};
use super::{AgentPlacerCore, Effect};
use crate::actors::client_list::messages::GeneralEgress;
use crate::cluster::{PodFact, PodPhase};
use crate::ids::{Millis, ReplyId};

/// Less than Session gives a step of teardown.
const LEAVE_WITHIN: Duration = Duration::from_millis(1200);

/// A `RemoveAll` that waits for what is being made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Removing {
    reply: ReplyId,
    until: Millis,
}

/// A `Stop` that is not answered yet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Leaving {
    reply: ReplyId,
    until: Millis,
    withdrawing: Withdrawing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Withdrawing {
    NotYet,
    Asked,
    Done,
}

impl AgentPlacerCore {
    pub(super) fn stop(&mut self, now: Millis, reply: ReplyId) {
        self.stopped = true;
        if let Some(before) = self.leaving.take() {
            self.effects.push_back(Effect::Stopped(before.reply));
        }
        self.leaving = Some(Leaving { reply, until: now + LEAVE_WITHIN, withdrawing: Withdrawing::NotYet });
    }

    pub(super) fn remove_all(&mut self, now: Millis, reply: ReplyId) {
        self.stopped = true;
        self.removing.push(Removing { reply, until: now + LEAVE_WITHIN });
    }

    pub(super) fn withdrawn(&mut self) {
        if let Some(leaving) = &mut self.leaving {
            leaving.withdrawing = Withdrawing::Done;
        }
    }

    pub(super) fn leaving_until(&self) -> Option<Millis> {
        let removing = self.removing.iter().map(|removing| removing.until);
        removing.chain(self.leaving.as_ref().map(|leaving| leaving.until)).min()
    }

    /// Removes everything as soon as nothing is being made any more, or it takes too long.
    pub(super) fn remove(&mut self, now: Millis) {
        let asked = self.own_is_being_asked();
        let (waiting, due): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.removing).into_iter().partition(|removing| asked && removing.until > now);
        self.removing = waiting;
        for Removing { reply, .. } in due {
            let ours = self.pods.1.pods.values().filter(|pod| self.plan.owns(pod));
            self.effects.push_back(Effect::Remove(reply, ours.cloned().collect()));
            (self.own.removed, self.own.job_waits) = (true, false);
            // What was made so far is deleted with it.
            self.placements.retain(|place, placement| !place.is_own() || placement.progress == Progress::Asked);
        }
    }

    /// Goes on with leaving as far as it can.
    pub(super) fn leave(&mut self, now: Millis) {
        let Some(Leaving { reply, until, withdrawing }) = self.leaving.clone() else { return };
        let late = until <= now;
        let done = match withdrawing {
            Withdrawing::NotYet if self.own_is_being_asked() && !late => false,
            Withdrawing::NotYet if self.own_is_not_wanted() => {
                self.effects.push_back(Effect::Withdraw);
                self.leaving = Some(Leaving { reply, until, withdrawing: Withdrawing::Asked });
                late
            }
            Withdrawing::NotYet | Withdrawing::Done => true,
            Withdrawing::Asked => late,
        };
        if done {
            self.leaving = None;
            self.effects.push_back(Effect::Stopped(reply));
        }
    }

    fn own_placements(&self) -> impl Iterator<Item = &Placement> {
        let own = self.placements.iter().filter(|(place, _)| place.is_own());
        own.map(|(_, placement)| placement)
    }

    fn own_is_being_asked(&self) -> bool {
        self.own_placements().any(|placement| placement.progress == Progress::Asked)
    }

    /// Whether there may be a Job or pod of ours that is nobody's: one in sight that has never run, or one that no
    /// snapshot shows yet. Whether this session still wants one does not matter, it has asked for it.
    fn own_is_not_wanted(&self) -> bool {
        let pods = self.pods.1.pods.values().filter(|pod| {
            pod.own_pod_of.as_deref() == Some(&*self.plan.fingerprint) && pod.namespace == self.plan.namespace
        });
        let fit = |pod: &&Arc<PodFact>| !matches!(self.plan.agent_in(pod, &self.unfit.1), AgentInPod::Unfit(_));
        let phases: Vec<PodPhase> = pods.filter(|pod| !pod.terminating).filter(fit).map(|pod| pod.phase).collect();
        let placed = self.own.job_waits || self.own_placements().any(|placement| placement.refused.is_none());
        if self.own.removed {
            return placed;
        }
        (self.own.asked || self.via.1.general == GeneralEgress::Wanted)
            && !phases.iter().any(|phase| matches!(phase, PodPhase::Running | PodPhase::Unknown))
            && (placed || phases.contains(&PodPhase::Pending))
    }
}
