//! Which pods get an agent, and whether our own pod is needed. Pure.
//!
//! A wanted workload has agents when `AGENTS_PER_WORKLOAD` of its pods (or all, if fewer) hold a running or starting
//! one that takes our key. Re-use comes before adding: an ephemeral container can be neither removed nor restarted.
//! Success is never reported; a placed agent shows itself as a fact in the next snapshot. Only what cannot become true
//! is told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use self::in_pod::AgentInPod;
use self::leaving::Leaving;
use super::manifest::own_name;
use crate::actors::client_list::core::ViaFact;
use crate::actors::client_list::messages::GeneralEgress;
use crate::actors::shell::Core;
use crate::backoff::doubling;
use crate::cluster::{NamespaceRights, PodFact, PodPhase, PodSnapshot, Rights};
use crate::ids::{Attempt, Generation, Millis, ReplyId};
use crate::net::views::Target;
use crate::spec::AgentMode;
use crate::workload::{PodUid, Workload};

mod in_pod;
mod leaving;

/// One to carry, one to fall back on.
const AGENTS_PER_WORKLOAD: usize = 2;
/// Ephemeral containers of ours that one pod may collect over its life, ended ones included.
const CONTAINERS_PER_POD: usize = 4;
/// A placed agent that no snapshot shows for this long is placed again.
const SEEN_WITHIN: Duration = Duration::from_secs(10);
/// The first pause after a failure; doubles.
const RETRY_FIRST: Duration = Duration::from_millis(250);
/// The longest pause.
const RETRY_MAX: Duration = Duration::from_secs(10);

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
    /// A placement ended.
    Finished {
        /// Where.
        place: Place,
        /// Attempt.
        attempt: Attempt,
        /// How.
        outcome: PlaceOutcome,
    },
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

/// What the shell shall do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Ask the API server; answered by `Finished`.
    Place {
        /// Where.
        place: Place,
        /// Attempt.
        attempt: Attempt,
        /// The pod, for an ephemeral container; for a bare pod of our own, the finished one to delete first.
        pod: Option<Arc<PodFact>>,
        /// Name of the container.
        container: String,
        /// Port it listens on.
        port: u16,
    },
    /// Tell ClientList what cannot be had.
    Tell(Generation, BTreeMap<Target, Arc<str>>),
    /// Delete every Job and pod of ours, with these among them, then answer.
    Remove(ReplyId, Vec<Arc<PodFact>>),
    /// Delete our own Job or pod of this image, which never ran; answered by `Withdrawn`.
    Withdraw,
    /// Answer a `Stop`, and stop.
    Stopped(ReplyId),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    Asked,
    /// Accepted; asked again if no snapshot shows it by then.
    Accepted {
        until: Millis,
    },
    Failed {
        retry_at: Millis,
    },
    /// Will not work however often it is asked.
    Refused {
        why: Arc<str>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Placement {
    attempt: Attempt,
    tries: u32,
    progress: Progress,
}

/// The core.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AgentPlacerCore {
    plan: Plan,
    pods: (Generation, Arc<PodSnapshot>),
    rights: (Generation, Arc<Rights>),
    via: (Generation, ViaFact),
    placements: BTreeMap<Place, Placement>,
    next_attempt: Attempt,
    stopped: bool,
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
            placements: BTreeMap::new(),
            next_attempt: Attempt(1),
            stopped: false,
            leaving: None,
            now: Millis(0),
            told: Default::default(),
            effects: VecDeque::new(),
        }
    }

    fn finished(&mut self, now: Millis, place: &Place, attempt: Attempt, outcome: PlaceOutcome) {
        let Some(placement) = self.placements.get_mut(place).filter(|p| p.attempt == attempt) else { return };
        placement.tries += 1;
        placement.progress = match outcome {
            PlaceOutcome::Accepted => Progress::Accepted { until: now + SEEN_WITHIN },
            PlaceOutcome::Forbidden(why) | PlaceOutcome::Rejected(why) => Progress::Refused { why },
            PlaceOutcome::Gone => failed(now, placement.tries),
            PlaceOutcome::Failed(_) => failed(now, placement.tries),
        };
    }

    fn reconcile(&mut self, now: Millis) {
        if self.stopped {
            return;
        }
        let pods = Arc::clone(&self.pods.1);
        // A placement in a pod that is gone, or that a snapshot now shows, has served.
        self.placements.retain(|place, placement| match place {
            Place::Pod(uid) => pods.pods.get(uid).is_some_and(|pod| {
                let shown = self.plan.agent_in(pod) != AgentInPod::Absent;
                !shown || placement.progress == Progress::Asked
            }),
            Place::OwnJob | Place::OwnPod => {
                !matches!(placement.progress, Progress::Accepted { .. }) || !own_pod_alive(&self.plan, &pods)
            }
        });

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
        let usable =
            |pod: &&&Arc<PodFact>| matches!(self.plan.agent_in(pod), AgentInPod::Running | AgentInPod::Starting);
        let present = candidates.iter().filter(usable).count();
        let wanted = AGENTS_PER_WORKLOAD.min(candidates.len());
        let mut coming = present;
        let mut reason: Option<Arc<str>> = None;
        let refusal = self.ephemeral_refusal(workload);
        for pod in candidates {
            match self.plan.agent_in(pod) {
                AgentInPod::Running | AgentInPod::Starting => continue,
                AgentInPod::Stuck(why) => {
                    reason.get_or_insert(why);
                    continue;
                }
                AgentInPod::Absent => {}
            }
            if coming >= wanted {
                break;
            }
            if let Some(why) = &refusal {
                reason.get_or_insert_with(|| Arc::clone(why));
                continue;
            }
            let used = self.plan.containers_in(pod);
            if used >= CONTAINERS_PER_POD {
                let text = format!("pod {} holds {used} agents that do not run: delete the pod to go on", pod.name);
                reason.get_or_insert(text.into());
                continue;
            }
            let place = Place::Pod(pod.uid.clone());
            match self.placements.get(&place).map(|placement| &placement.progress) {
                Some(Progress::Refused { why }) => {
                    reason.get_or_insert_with(|| Arc::clone(why));
                    continue;
                }
                Some(Progress::Failed { retry_at, .. }) if *retry_at > now => {}
                Some(Progress::Accepted { until }) if *until > now => {}
                Some(Progress::Asked) => {}
                Some(Progress::Failed { .. } | Progress::Accepted { .. }) | None => {
                    let (container, port) = (self.plan.free_name(pod), self.plan.free_port(pod));
                    self.ask(place, Some(Arc::clone(pod)), container, port);
                }
            }
            coming += 1;
        }
        (coming == 0).then_some(reason).flatten()
    }

    /// Places our own pod where it is missing; the reason when there can be none.
    fn ensure_own(&mut self, now: Millis, pods: &PodSnapshot) -> Option<Arc<str>> {
        let own: Vec<&Arc<PodFact>> = own_pods(&self.plan, pods).collect();
        if let Some(why) = own.iter().find_map(|pod| match self.plan.agent_in(pod) {
            AgentInPod::Stuck(why) => Some(why),
            AgentInPod::Absent | AgentInPod::Running | AgentInPod::Starting => None,
        }) {
            return Some(why);
        }
        if !own.is_empty() {
            return None;
        }
        if self.plan.mode == AgentMode::Ephemeral {
            return Some("--agent ephemeral makes no pod of its own".into());
        }
        let rights = self.rights.1.namespaces.get(&self.plan.namespace);
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
            match self.placements.get(&place).map(|placement| &placement.progress) {
                Some(Progress::Refused { why }) => {
                    reason = Some(Arc::clone(why));
                    continue;
                }
                Some(Progress::Failed { retry_at, .. }) if *retry_at > now => {}
                Some(Progress::Accepted { until }) if *until > now => {}
                Some(Progress::Asked) => {}
                Some(Progress::Failed { .. } | Progress::Accepted { .. }) | None => {
                    let finished = finished.cloned();
                    self.ask(place, finished, "podway-agent".to_owned(), self.plan.first_port);
                }
            }
            return None;
        }
        let missing = || format!("missing right: create jobs or pods in namespace {}", self.plan.namespace).into();
        Some(reason.unwrap_or_else(missing))
    }

    fn ask(&mut self, place: Place, pod: Option<Arc<PodFact>>, container: String, port: u16) {
        let attempt = self.next_attempt;
        self.next_attempt = attempt.next();
        let tries = self.placements.get(&place).map_or(0, |placement| placement.tries);
        self.placements.insert(place.clone(), Placement { attempt, tries, progress: Progress::Asked });
        self.effects.push_back(Effect::Place { place, attempt, pod, container, port });
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

fn own_pods<'a>(plan: &'a Plan, pods: &'a PodSnapshot) -> impl Iterator<Item = &'a Arc<PodFact>> {
    pods.pods.values().filter(move |pod| {
        pod.own_pod_of.as_deref() == Some(&*plan.fingerprint)
            && pod.namespace == plan.namespace
            && matches!(pod.phase, PodPhase::Pending | PodPhase::Running)
            && !pod.terminating
    })
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

fn own_pod_alive(plan: &Plan, pods: &PodSnapshot) -> bool {
    own_pods(plan, pods).next().is_some()
}

fn failed(now: Millis, tries: u32) -> Progress {
    let pause = doubling(RETRY_FIRST, tries.saturating_sub(1), RETRY_MAX);
    Progress::Failed { retry_at: now + pause }
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
                // What was refused may have been for a right that is there now.
                self.placements.retain(|_, placement| !matches!(placement.progress, Progress::Refused { .. }));
            }
            Input::Via(generation, via) if generation > self.via.0 => self.via = (generation, via),
            Input::Pods(..) | Input::Rights(..) | Input::Via(..) | Input::Woke => {}
            Input::Finished { place, attempt, outcome } => self.finished(now, &place, attempt, outcome),
            Input::Stop(reply) => self.stop(now, reply),
            Input::Withdrawn => self.withdrawn(),
            Input::RemoveAll(reply) => {
                self.stopped = true;
                let ours = self.pods.1.pods.values().filter(|pod| self.plan.owns(pod));
                self.effects.push_back(Effect::Remove(reply, ours.cloned().collect()));
            }
        }
        self.reconcile(now);
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
            Progress::Asked | Progress::Refused { .. } => None,
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
