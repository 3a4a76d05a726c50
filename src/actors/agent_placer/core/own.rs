//! The pod of our own: made where it is missing, replaced where its agent will not do.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::in_pod::AgentInPod;
use super::placement::Progress;
use super::{AgentPlacerCore, Effect, Made, Place, Plan};
use crate::actors::agent_placer::manifest::own_name;
use crate::actors::client_list::messages::Unfit;
use crate::cluster::{PodFact, PodPhase, PodSnapshot};
use crate::ids::{Attempt, Millis};
use crate::spec::AgentMode;
use crate::workload::PodUid;

/// What this session has done for a pod of our own.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OwnRecord {
    /// One was asked for.
    pub(super) asked: bool,
    /// One was made.
    pub(super) made: bool,
    /// A Job was made of which no pod has been in sight: it may get one at any time.
    pub(super) job_waits: bool,
    /// Those in sight when one was last asked for: it is another than these.
    pub(super) before: BTreeSet<PodUid>,
    /// All were removed.
    pub(super) removed: bool,
    /// Why the agent of one could not be run: it is gone soon, and the next would end as it did.
    pub(super) broken: Option<Arc<str>>,
}

impl AgentPlacerCore {
    /// Places our own pod where it is missing; the reason when there can be none.
    pub(super) fn ensure_own(&mut self, now: Millis, pods: &PodSnapshot) -> Option<Arc<str>> {
        let mut unfit = None;
        for (pod, agent) in self.own_pods(pods) {
            match agent {
                AgentInPod::Stuck(why) => return Some(why),
                AgentInPod::Absent | AgentInPod::Running | AgentInPod::Starting => return None,
                AgentInPod::Unfit(why) => unfit = Some((Arc::clone(pod), Arc::clone(why.why()))),
            }
        }
        if let Some(why) = &self.own.broken {
            return Some(Arc::clone(why));
        }
        if self.plan.mode == AgentMode::Ephemeral {
            return Some("--agent ephemeral makes no pod of its own".into());
        }
        if let Some(why) = self.unfit_image(pods) {
            return Some(why);
        }
        if let Some(unfit) = self.made_unfit(pods) {
            return Some(format!("the agent that was placed will not do: {}", unfit.why()).into());
        }
        let why = self.make_own(now, pods, unfit.as_ref().map(|(pod, _)| pod))?;
        // Why there is none, and why the one there is does not do.
        Some(match unfit {
            None => why,
            Some((pod, unfit)) => {
                let (namespace, name) = (&pod.namespace, &pod.name);
                format!(
                    "pod {namespace}/{name}: {unfit}; it could not be replaced: {why}; delete it, or wait: it ends 10 \
                     minutes after its last client"
                )
                .into()
            }
        })
    }

    /// Makes a pod of our own, in the place of `unfit`; the reason when there can be none.
    fn make_own(&mut self, now: Millis, pods: &PodSnapshot, unfit: Option<&Arc<PodFact>>) -> Option<Arc<str>> {
        let rights = self.rights.1.namespaces.get(&self.plan.namespace).copied();
        let mut reason = None;
        for (place, allowed) in [
            (Place::OwnJob, rights.is_none_or(|r| r.create_jobs)),
            (Place::OwnPod, rights.is_none_or(|r| r.create_pods)),
        ] {
            if !allowed {
                continue;
            }
            let finished = if place == Place::OwnPod { finished_own_pod(&self.plan, pods) } else { None };
            if let Some(pod) = finished.filter(|_| rights.is_some_and(|r| !r.delete_pods)) {
                let (name, namespace) = (&pod.name, &pod.namespace);
                let text = format!(
                    "pod {name} has finished and is in the way: delete it (missing right: delete pods in namespace {namespace})"
                );
                reason = Some(text.into());
                continue;
            }
            let believed = self.refusal(&place);
            // One at a time: what was refused is asked again only while the other is not on its way.
            let mut others = self.placements.iter().filter(|(other, _)| other.is_own() && **other != place);
            let alone = others.all(|(_, placement)| matches!(placement.progress, Progress::Failed { .. }));
            if alone && self.placements.get(&place).is_none_or(|placement| placement.is_due(now)) {
                self.own.asked = true;
                self.own.before = self.own_pods(pods).map(|(pod, _)| pod.uid.clone()).collect();
                let old = finished.or(unfit).cloned();
                self.ask(place, old, "podway-agent".to_owned(), self.plan.first_port);
            }
            match believed {
                Some(why) => reason = Some(why),
                None => return None,
            }
        }
        let missing = || format!("missing right: create jobs or pods in namespace {}", self.plan.namespace).into();
        Some(reason.unwrap_or_else(missing))
    }

    /// A create without an answer is settled once a later one, or a snapshot, shows what there is; unsettled, it is looked for
    /// when the actor ends.
    pub(super) fn made(&mut self, place: Place, attempt: Attempt, made: &Made) {
        let settled = match made {
            Made::Perhaps => self.unsettled.insert(place, attempt),
            Made::Exactly(_) | Made::Before => {
                self.effects.push_back(Effect::Settle(attempt));
                self.unsettled.remove(&place)
            }
            Made::Nothing => Some(attempt),
        };
        self.effects.extend(settled.map(Effect::Settle));
    }

    /// What a create without an answer made is in sight.
    pub(super) fn settle_what_runs(&mut self) {
        for place in [Place::OwnJob, Place::OwnPod] {
            if self.runs(&place) {
                self.effects.extend(self.unsettled.remove(&place).map(Effect::Settle));
            }
        }
    }

    /// Whether a pod of our own of this place runs that was not there when one was last asked for.
    fn runs(&self, place: &Place) -> bool {
        self.own_pods(&self.pods.1).any(|(pod, _)| {
            let made = if pod.own_job.is_some() { Place::OwnJob } else { Place::OwnPod };
            made == *place && pod.phase == PodPhase::Running && !self.own.before.contains(&pod.uid)
        })
    }

    /// Pods of our own that live, and what their agent is.
    pub(super) fn own_pods<'a>(
        &'a self,
        pods: &'a PodSnapshot,
    ) -> impl Iterator<Item = (&'a Arc<PodFact>, AgentInPod)> {
        let own = pods.pods.values().filter(|pod| {
            pod.own_pod_of.as_deref() == Some(&*self.plan.fingerprint)
                && pod.namespace == self.plan.namespace
                && matches!(pod.phase, PodPhase::Pending | PodPhase::Running)
                && !pod.terminating
        });
        own.map(|pod| (pod, self.plan.agent_in(pod, &self.unfit.1)))
    }

    /// Why a pod of our own that this session made ended before it began.
    pub(super) fn broken_own(&self, pods: &PodSnapshot) -> Option<Arc<str>> {
        let made = pods.pods.values().filter(|pod| {
            pod.phase == PodPhase::Failed
                && self.own.asked
                && self.plan.owns(pod)
                && !self.own.before.contains(&pod.uid)
        });
        let mut states = made.map(|pod| self.plan.agent_in(pod, &self.unfit.1));
        states.find_map(|state| match state {
            AgentInPod::Stuck(why) => Some(why),
            AgentInPod::Absent | AgentInPod::Starting | AgentInPod::Running | AgentInPod::Unfit(_) => None,
        })
    }

    /// Why no agent of our image will do: one that this session placed runs, and speaks another protocol.
    pub(super) fn unfit_image(&self, pods: &PodSnapshot) -> Option<Arc<str>> {
        let placed = self.placed.iter().filter_map(|agent| self.unfit.1.get(agent).cloned());
        placed.chain(self.made_unfit(pods)).find_map(|unfit| match unfit {
            Unfit::Protocol(why) => Some(format!("the agent that was placed is of another version: {why}").into()),
            Unfit::Key(_) => None,
        })
    }

    /// Why the pod of our own that this session made will not do: the next one would say the same.
    fn made_unfit(&self, pods: &PodSnapshot) -> Option<Unfit> {
        let mut made = self.own_pods(pods).filter(|(pod, _)| self.own.made && !self.own.before.contains(&pod.uid));
        made.find_map(|(_, agent)| match agent {
            AgentInPod::Unfit(unfit) => Some(unfit),
            AgentInPod::Absent | AgentInPod::Starting | AgentInPod::Running | AgentInPod::Stuck(_) => None,
        })
    }
}

/// A bare pod of our own that has finished: until it is deleted, no other can have its name.
fn finished_own_pod<'a>(plan: &Plan, pods: &'a PodSnapshot) -> Option<&'a Arc<PodFact>> {
    let name = own_name(&plan.fingerprint);
    pods.pods.values().find(|pod| {
        *pod.name == *name
            && pod.own_pod_of.as_deref() == Some(&*plan.fingerprint)
            && pod.namespace == plan.namespace
            && matches!(pod.phase, PodPhase::Succeeded | PodPhase::Failed)
            && !pod.terminating
    })
}
