//! Which pods get an agent, and whether our own pod is needed. Pure.
//!
//! A wanted workload has agents when `AGENTS_PER_WORKLOAD` of its pods (or all, if fewer) hold a running or starting
//! one that takes our key. Re-use comes before adding: an ephemeral container can be neither removed nor restarted.
//! Success is never reported; a placed agent shows itself as a fact in the next snapshot. Only what cannot become true
//! is told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use self::in_pod::AgentInPod;
use self::leaving::{Leaving, Removing};
use self::own::OwnRecord;
use self::placement::{Placement, Progress};
use crate::actors::client_list::core::ViaFact;
use crate::actors::client_list::messages::{GeneralEgress, UnfitAgents};
use crate::actors::shell::Core;
use crate::cluster::{NamespaceRights, PodFact, PodPhase, PodSnapshot, Rights};
use crate::ids::{Attempt, Generation, Millis, ReplyId};
use crate::net::views::Target;
use crate::spec::AgentMode;
use crate::workload::{PodUid, Workload};

mod in_pod;
mod leaving;
mod own;
mod placement;

/// One to carry, one to fall back on.
const AGENTS_PER_WORKLOAD: usize = 2;
/// What ends the words for a pod that holds as many; a user is told which command that is.
pub const FULL: &str = ": delete the pod to go on";
/// Ephemeral containers of ours that one pod may collect over its life, ended ones included.
const CONTAINERS_PER_POD: usize = 4;

/// What does not change during a session.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Plan {
    /// Our public key in base64, as the agents' arguments carry it.
    pub key: Arc<str>,
    /// Fingerprint of key, image and protocol, as the agents' names carry it.
    pub fingerprint: Arc<str>,
    /// The first port to listen on; where it is taken in a pod, the next free one is.
    pub first_port: u16,
    /// Where our own pod lives.
    pub namespace: Arc<str>,
    /// Which placements may be used.
    pub mode: AgentMode,
}

/// What goes in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Input {
    /// Fact of PodWatcher.
    Pods(Generation, Arc<PodSnapshot>),
    /// Fact of PodWatcher.
    Rights(Generation, Arc<Rights>),
    /// Fact of ProxyVia.
    Via(Generation, ViaFact),
    /// Fact of ClientList.
    Unfit(Generation, UnfitAgents),
    /// A placement ended.
    Finished {
        /// Where.
        place: Place,
        /// Attempt.
        attempt: Attempt,
        /// How.
        outcome: PlaceOutcome,
    },
    /// What came of asking for a pod of our own; before `Finished`.
    Made(Place, Attempt, Made),
    /// Teardown: nothing is placed any more, and a pod of our own that never ran is taken back.
    Stop(ReplyId),
    /// What `Withdraw` deletes is gone, or cannot be deleted.
    Withdrawn,
    /// Delete every pod of our own.
    RemoveAll(ReplyId),
    /// Time has passed.
    Woke,
}

/// Where an agent goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Into this pod, as an ephemeral container.
    Pod(PodUid),
    /// A pod of our own, made by a Job.
    OwnJob,
    /// A bare pod of our own.
    OwnPod,
}

impl Place {
    /// Whether it is a pod of our own.
    pub fn is_own(&self) -> bool {
        match self {
            Place::OwnJob | Place::OwnPod => true,
            Place::Pod(_) => false,
        }
    }
}

/// How a placement ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PlaceOutcome {
    /// Accepted, or there already; the next snapshot will show it.
    Accepted,
    /// A right is missing; says which.
    Forbidden(Arc<str>),
    /// The pod is gone.
    Gone,
    /// Refused for good: an admission policy, an invalid image reference.
    Rejected(Arc<str>),
    /// Failed for now.
    Failed(Arc<str>),
}

/// What came of asking for a pod of our own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Made {
    /// It was refused.
    Nothing,
    /// One of its name is there, made before: what an earlier create made without an answer is no other than that.
    Before,
    /// This, by its UID.
    Exactly(String),
    /// The API server did not say.
    Perhaps,
}

/// What the shell shall do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Ask the API server; answered by `Finished`.
    Place {
        /// Where.
        place: Place,
        /// Attempt.
        attempt: Attempt,
        /// The pod, for an ephemeral container; for a pod of our own, the one to delete first: it has finished, or will
        /// not do.
        pod: Option<Arc<PodFact>>,
        /// Name of the container.
        container: String,
        /// Port it listens on.
        port: u16,
    },
    /// What this create of a pod of our own made is known, and goes at the end as any of ours does. Until then, whoever asked
    /// for it looks for it when this actor ends.
    Settle(Attempt),
    /// Tell ClientList what cannot be had.
    Tell(Generation, BTreeMap<Target, Arc<str>>),
    /// Delete every Job and pod of ours, with these among them, then answer.
    Remove(ReplyId, Vec<Arc<PodFact>>),
    /// Delete our own Job or pod of this image, which never ran; answered by `Withdrawn`.
    Withdraw,
    /// Answer a `Stop`, and stop.
    Stopped(ReplyId),
}

/// The core.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AgentPlacerCore {
    plan: Plan,
    pods: (Generation, Arc<PodSnapshot>),
    rights: (Generation, Arc<Rights>),
    via: (Generation, ViaFact),
    unfit: (Generation, UnfitAgents),
    placements: BTreeMap<Place, Placement>,
    /// Containers that this session placed.
    placed: BTreeSet<(PodUid, Arc<str>)>,
    own: OwnRecord,
    /// Creates of a pod of our own that the API server has not answered, one for each place.
    unsettled: BTreeMap<Place, Attempt>,
    next_attempt: Attempt,
    stopped: bool,
    removing: Vec<Removing>,
    leaving: Option<Leaving>,
    now: Millis,
    told: (Generation, BTreeMap<Target, Arc<str>>),
    effects: VecDeque<Effect>,
}

impl AgentPlacerCore {
    /// A placer that has been told nothing yet.
    pub fn new(plan: Plan) -> Self {
        AgentPlacerCore {
            plan,
            pods: Default::default(),
            rights: Default::default(),
            via: Default::default(),
            unfit: Default::default(),
            placements: BTreeMap::new(),
            placed: BTreeSet::new(),
            own: OwnRecord::default(),
            unsettled: BTreeMap::new(),
            next_attempt: Attempt(1),
            stopped: false,
            removing: Vec::new(),
            leaving: None,
            now: Millis(0),
            told: Default::default(),
            effects: VecDeque::new(),
        }
    }

    fn reconcile(&mut self, now: Millis) {
        if self.stopped {
            return;
        }
        let pods = Arc::clone(&self.pods.1);
        // A placement in a pod that is gone, or that a snapshot now shows, has served.
        let own_is_shown = self.own_pods(&pods).any(|(_, agent)| !matches!(agent, AgentInPod::Unfit(_)));
        self.own.job_waits &= !own_is_shown;
        let (plan, unfit) = (&self.plan, &self.unfit.1);
        self.placements.retain(|place, placement| match place {
            Place::Pod(uid) => pods.pods.get(uid).is_some_and(|pod| {
                let shown = !matches!(plan.agent_in(pod, unfit), AgentInPod::Absent | AgentInPod::Unfit(_));
                !shown || placement.progress == Progress::Asked
            }),
            Place::OwnJob | Place::OwnPod => !matches!(placement.progress, Progress::Accepted { .. }) || !own_is_shown,
        });
        self.placed.retain(|(uid, _)| pods.pods.contains_key(uid));
        if let Some(why) = self.broken_own(&pods) {
            self.own.broken = Some(why);
        }
        self.own.before.retain(|uid| pods.pods.contains_key(uid));

        let mut hopeless = BTreeMap::new();
        for workload in self.via.1.workloads.clone() {
            if let Some(why) = self.ensure_workload(now, &workload, &pods) {
                hopeless.insert(Target::Workload(workload), why);
            }
        }
        if self.via.1.general == GeneralEgress::Wanted
            && self.pods.0 > Generation(0)
            && let Some(why) = self.ensure_own(now, &pods)
        {
            hopeless.insert(Target::General, why);
        }
        if hopeless != self.told.1 {
            self.told = (self.told.0.next(), hopeless.clone());
            self.effects.push_back(Effect::Tell(self.told.0, hopeless));
        }
    }

    /// Places what is missing for `workload`; the reason when there can be none.
    fn ensure_workload(&mut self, now: Millis, workload: &Workload, pods: &PodSnapshot) -> Option<Arc<str>> {
        let mut candidates: Vec<&Arc<PodFact>> = pods
            .pods
            .values()
            .filter(|pod| pod.workload == *workload && pod.phase == PodPhase::Running && !pod.terminating)
            .collect();
        // Ready pods first, then a stable order, so that every podway of this user prefers the same pods.
        candidates.sort_by(|a, b| b.ready.cmp(&a.ready).then_with(|| a.name.cmp(&b.name)));
        let usable = |pod: &&&Arc<PodFact>| {
            matches!(self.plan.agent_in(pod, &self.unfit.1), AgentInPod::Running | AgentInPod::Starting)
        };
        let present = candidates.iter().filter(usable).count();
        let wanted = AGENTS_PER_WORKLOAD.min(candidates.len());
        let (mut coming, mut refused) = (present, 0);
        let mut reason: Option<Arc<str>> = None;
        let refusal = self.ephemeral_refusal(workload).or_else(|| self.unfit_image(pods));
        for pod in candidates {
            let unfit = match self.plan.agent_in(pod, &self.unfit.1) {
                AgentInPod::Running | AgentInPod::Starting => continue,
                AgentInPod::Stuck(why) => {
                    reason.get_or_insert(why);
                    continue;
                }
                AgentInPod::Absent => None,
                AgentInPod::Unfit(unfit) => Some((format!("pod {}: ", pod.name), unfit)),
            };
            // Why there is none, and why the one there is does not do.
            let because = |why: &str| match &unfit {
                None => why.into(),
                Some((pod, unfit)) if why.contains(&**unfit.why()) => format!("{pod}{why}").into(),
                Some((pod, unfit)) => format!("{pod}{}; {why}", unfit.why()).into(),
            };
            if coming >= wanted {
                break;
            }
            if let Some(why) = &refusal {
                reason.get_or_insert_with(|| because(why));
                continue;
            }
            let used = self.plan.containers_in(pod);
            if used >= CONTAINERS_PER_POD {
                let which = if unfit.is_some() { "cannot be used" } else { "do not run" };
                let text = format!("pod {} holds {used} agents that {which}{FULL}", pod.name);
                reason.get_or_insert_with(|| because(&text));
                continue;
            }
            let place = Place::Pod(pod.uid.clone());
            let believed = self.refusal(&place);
            // A refusal that goes on is asked again in as many pods as are wanted, not in all of them.
            let again = believed.is_none() || refused < wanted;
            let due = self.placements.get(&place).is_none_or(|p| again && p.is_due(now));
            if due {
                let (container, port) = (self.plan.free_name(pod), self.plan.free_port(pod));
                self.placed.insert((pod.uid.clone(), container.as_str().into()));
                self.ask(place, Some(Arc::clone(pod)), container, port);
            }
            if let Some(why) = believed {
                reason.get_or_insert_with(|| because(&why));
                refused += 1;
                continue;
            }
            coming += 1;
        }
        (coming == 0).then_some(reason).flatten()
    }

    fn ephemeral_refusal(&self, workload: &Workload) -> Option<Arc<str>> {
        if self.plan.mode == AgentMode::Pod {
            return Some("--agent pod places no agent in a workload's pods".into());
        }
        let rights: &NamespaceRights = self.rights.1.namespaces.get(&workload.namespace)?;
        (!rights.ephemeral_containers).then(|| {
            format!("missing right: patch pods/ephemeralcontainers in namespace {}", workload.namespace).into()
        })
    }
}

impl Core for AgentPlacerCore {
    type Input = Input;
    type Effect = Effect;

    fn handle(&mut self, now: Millis, input: Input) {
        self.now = now;
        match input {
            Input::Pods(generation, pods) if generation > self.pods.0 => self.pods = (generation, pods),
            Input::Rights(generation, rights) if generation > self.rights.0 => {
                self.rights = (generation, rights);
                // What was refused may have been for a right that is there now. What is being asked is waited for.
                self.placements.retain(|_, p| p.refused.is_none() || p.progress == Progress::Asked);
                self.placements.values_mut().for_each(|placement| placement.refused = None);
            }
            Input::Via(generation, via) if generation > self.via.0 => self.via = (generation, via),
            Input::Unfit(generation, unfit) if generation > self.unfit.0 => self.unfit = (generation, unfit),
            Input::Pods(..) | Input::Rights(..) | Input::Via(..) | Input::Unfit(..) | Input::Woke => {}
            Input::Finished { place, attempt, outcome } => self.finished(now, &place, attempt, outcome),
            Input::Made(place, attempt, made) => self.made(place, attempt, &made),
            Input::Stop(reply) => self.stop(now, reply),
            Input::Withdrawn => self.withdrawn(),
            Input::RemoveAll(reply) => self.remove_all(now, reply),
        }
        self.reconcile(now);
        self.settle_what_runs();
        self.remove(now);
        self.leave(now);
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn poll_deadline(&self) -> Option<Millis> {
        if self.stopped {
            return self.leaving_until();
        }
        let wanted: BTreeSet<&Workload> = self.via.1.workloads.iter().collect();
        let matters = |place: &Place| match place {
            Place::Pod(uid) => self.pods.1.pods.get(uid).is_some_and(|pod| wanted.contains(&pod.workload)),
            Place::OwnJob | Place::OwnPod => self.via.1.general == GeneralEgress::Wanted,
        };
        let now = self.now;
        let times = self.placements.iter().filter(|(place, _)| matters(place)).filter_map(|(_, p)| match p.progress {
            Progress::Failed { retry_at, .. } => Some(retry_at),
            Progress::Accepted { until } => Some(until),
            Progress::Asked => None,
        });
        // What reconcile passed over although it was due waits for a fact, not for time.
        times.filter(|at| *at > now).min()
    }

    fn woke() -> Input {
        Input::Woke
    }
}

#[cfg(test)]
mod tests;
