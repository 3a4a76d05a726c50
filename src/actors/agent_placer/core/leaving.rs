//! What is left to do at teardown: a Job whose pod never ran would wait in the cluster for ever, as only an agent that
//! runs can end itself.

use std::time::Duration;

use super::{AgentPlacerCore, Effect, Place, Progress};
use crate::actors::client_list::messages::GeneralEgress;
use crate::cluster::PodPhase;
use crate::ids::{Millis, ReplyId};

/// Less than Session gives a step of teardown.
const LEAVE_WITHIN: Duration = Duration::from_millis(1200);

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

    pub(super) fn withdrawn(&mut self) {
        if let Some(leaving) = &mut self.leaving {
            leaving.withdrawing = Withdrawing::Done;
        }
    }

    pub(super) fn leaving_until(&self) -> Option<Millis> {
        self.leaving.as_ref().map(|leaving| leaving.until)
    }

    /// Goes on with leaving as far as it can.
    pub(super) fn leave(&mut self, now: Millis) {
        let Some(Leaving { reply, until, withdrawing }) = self.leaving.clone() else { return };
        let late = until <= now;
        let done = match withdrawing {
            // What is being made cannot be deleted before it is there.
            Withdrawing::NotYet if self.own_is_being_asked() && !late => false,
            Withdrawing::NotYet if self.own_never_ran() => {
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

    fn own_placements(&self) -> impl Iterator<Item = &Progress> {
        let own = self.placements.iter().filter(|(place, _)| matches!(place, Place::OwnJob | Place::OwnPod));
        own.map(|(_, placement)| &placement.progress)
    }

    fn own_is_being_asked(&self) -> bool {
        self.own_placements().any(|progress| *progress == Progress::Asked)
    }

    /// Whether there may be a Job or pod of ours that has never run: one in sight, or one that no snapshot shows yet.
    fn own_never_ran(&self) -> bool {
        let pods = self.pods.1.pods.values().filter(|pod| {
            pod.own_pod_of.as_deref() == Some(&*self.plan.fingerprint) && pod.namespace == self.plan.namespace
        });
        let phases: Vec<PodPhase> = pods.filter(|pod| !pod.terminating).map(|pod| pod.phase).collect();
        let placed = self.own_placements().any(|progress| !matches!(progress, Progress::Refused { .. }));
        self.via.1.general == GeneralEgress::Wanted
            && !phases.iter().any(|phase| matches!(phase, PodPhase::Running | PodPhase::Unknown))
            && (placed || phases.contains(&PodPhase::Pending))
    }
}
