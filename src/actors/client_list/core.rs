//! Who should be connected, who waits, and what to tell of it. Pure.
//!
//! ```text
//!   pods, via workloads, rights, placement ──▶ wanted links ──▶ Dial ──▶ Dialing ──▶ Ready ──▶ (lost) ─┐
//!                                                                 ▲         └─▶ Failed, retry later ◀──┘
//!   RegisterWaiter ──▶ waiters ──▶ settled whenever what they wait for holds, whatever came first
//! ```
//!
//! Invariants: one link for each pod UID; each waiter settles exactly once; nothing is dialled after `HangUpAll`; the
//! table that names a link is published before a waiter is told of it. Flows outlive links: an agent that was reached is
//! abandoned exactly once, when it is gone or nobody wants it, and before its link is hung up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::messages::{
    GeneralEgress, LinkState, LinkStatus, Placement, TargetState, Unfit, UnfitAgents, WaiterOutcome,
};
use crate::actors::agent_placer::manifest::is_named_after;
use crate::actors::shell::Core;
use crate::backoff::doubling;
use crate::cluster::{AgentContainer, ContainerState, PodFact, PodPhase, PodSnapshot, Rights};
use crate::ids::{Attempt, Generation, Millis, ReplyId, WaiterId};
use crate::net::cidr::Cidr;
use crate::net::views::Target;
use crate::refusal::{self, Readiness};
use crate::workload::{PodUid, Workload};

/// The first pause after a failed dial; doubles up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// The longest pause: an API server that comes back is noticed this soon.
const RETRY_MAX: Duration = Duration::from_secs(3);
/// A link that lived this long worked: its end is no failure of dialling.
const LIVED: Duration = Duration::from_secs(5);
/// The longest pause while the API server refuses.
const RETRY_REFUSED: Duration = Duration::from_secs(30);
/// A blocked flow skips the rest of a pause, but never makes dials denser than this.
const RETRY_WHEN_BLOCKED: Duration = Duration::from_millis(500);
/// So long after it was told that flows wait, some may still: what the longest waits, and the second in which the same is
/// not told again.
const BLOCKED: Duration = Duration::from_secs(11);

/// What goes in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Input {
    /// Fact of PodWatcher.
    Pods(Generation, Arc<PodSnapshot>),
    /// Fact of PodWatcher.
    Rights(Generation, Arc<Rights>),
    /// Fact of ProxyVia.
    Via(Generation, ViaFact),
    /// Fact of AgentPlacer.
    Hopeless(Generation, BTreeMap<Target, Arc<str>>),
    /// A waiter is registered.
    Register {
        /// Its name.
        id: WaiterId,
        /// What for.
        target: Target,
        /// Until when.
        deadline: Millis,
    },
    /// A waiter is withdrawn.
    Cancel(WaiterId),
    /// A dial ended.
    DialFinished {
        /// Pod.
        pod: PodUid,
        /// Attempt.
        attempt: Attempt,
        /// How.
        outcome: DialOutcome,
    },
    /// A link that worked ended.
    LinkLost {
        /// Pod.
        pod: PodUid,
        /// Attempt.
        attempt: Attempt,
        /// Why.
        why: Arc<str>,
    },
    /// Flows wait for a link.
    FlowsBlocked(Target),
    /// Teardown.
    HangUpAll(ReplyId),
    /// Time has passed.
    Woke,
}

/// What ProxyVia wants carried.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ViaFact {
    /// Workloads.
    pub workloads: BTreeSet<Workload>,
    /// Default egress.
    pub general: GeneralEgress,
    /// Pod-loopback and other special prefixes that a workload's agent shall be allowed to dial.
    pub special: BTreeMap<Workload, BTreeSet<Cidr>>,
}

/// How a dial ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DialOutcome {
    /// The agent answered the first call.
    Connected {
        /// What it says its version is; empty where it says none.
        version: Arc<str>,
    },
    /// Nobody listens yet.
    Refused,
    /// The API server forbids the port-forward; says what is missing.
    Forbidden(Arc<str>),
    /// No answer in time.
    TimedOut,
    /// The agent answered that it will not do, as it speaks another protocol; says so.
    Unfit(Unfit),
    /// Another failure, with its cause.
    Failed(Arc<str>),
    /// A bug; what the panic said.
    Panicked(Arc<str>),
}

/// What the shell shall do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Dial the agent of this pod; answered by `DialFinished`.
    Dial {
        /// The pod.
        pod: Arc<PodFact>,
        /// Attempt.
        attempt: Attempt,
        /// The agent's port.
        port: u16,
        /// Prefixes to ask permission for.
        special: BTreeSet<Cidr>,
    },
    /// The agent of this pod is gone, or not wanted any more: flows through it that wait for another link end.
    Abandon {
        /// The pod.
        pod: PodUid,
    },
    /// End a link or a dial.
    HangUp {
        /// Pod.
        pod: PodUid,
        /// Attempt.
        attempt: Attempt,
    },
    /// Publish the table of working links.
    Publish(Table),
    /// Settle a waiter.
    Settle {
        /// Which.
        id: WaiterId,
        /// How.
        outcome: WaiterOutcome,
    },
    /// Tell Session.
    TellLinks(Generation, BTreeMap<Target, TargetState>),
    /// Tell AgentPlacer.
    TellUnfit(Generation, UnfitAgents),
    /// Answer `HangUpAll`.
    HungUp(ReplyId),
}

/// The published table, with links by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Table {
    /// Version.
    pub generation: Generation,
    /// Links of each workload, best first.
    pub workloads: BTreeMap<Workload, Vec<LinkName>>,
    /// Links of the default egress, best first.
    pub general: Vec<LinkName>,
    /// Targets that cannot be had, and why.
    pub hopeless: BTreeMap<Target, Arc<str>>,
}

/// A link by its identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkName {
    /// Attempt.
    pub attempt: Attempt,
    /// Pod.
    pub pod: Arc<PodFact>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Link {
    attempt: Attempt,
    pod: Arc<PodFact>,
    /// The container that was dialled.
    agent: Arc<str>,
    /// What the agent was asked to allow; fixed by the handshake.
    special: BTreeSet<Cidr>,
    /// The API server's refusal, while its last word was one.
    refused: Option<Refused>,
    phase: LinkPhase,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Refused {
    since: Millis,
    last: Millis,
    why: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum LinkPhase {
    Dialing {
        tries: u32,
        /// Why the link before it was lost, or the dial failed.
        after: Option<Arc<str>>,
    },
    /// `tries` are those that failed before it, and links that were lost at once.
    Ready {
        since: Millis,
        tries: u32,
        version: Arc<str>,
    },
    Failed {
        why: Arc<str>,
        tries: u32,
        not_before: Millis,
        retry_at: Millis,
    },
}

impl Link {
    fn is_ready(&self) -> bool {
        matches!(self.phase, LinkPhase::Ready { .. })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Waiter {
    target: Target,
    deadline: Millis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mode {
    Serving,
    HungUp,
}

/// The core.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientListCore {
    key: Arc<str>,
    fingerprint: Arc<str>,
    pods: (Generation, Arc<PodSnapshot>),
    rights: (Generation, Arc<Rights>),
    via: (Generation, ViaFact),
    placement: (Generation, BTreeMap<Target, Arc<str>>),
    links: BTreeMap<PodUid, Link>,
    /// The containers that were reached last, by pod: flows through them may go on over the next link.
    reached: BTreeMap<PodUid, Arc<str>>,
    /// Agents that said that they will not do. A container of a pod never becomes another.
    unfit: UnfitAgents,
    waiters: BTreeMap<WaiterId, Waiter>,
    /// Until when flows to these may be waiting.
    blocked: BTreeMap<Target, Millis>,
    next_attempt: Attempt,
    mode: Mode,
    table: Table,
    told: (Generation, BTreeMap<Target, TargetState>),
    told_unfit: (Generation, UnfitAgents),
    effects: VecDeque<Effect>,
}

impl ClientListCore {
    /// A list for agents that take `key` (base64 public key) and bear `fingerprint` in their names.
    pub fn new(key: &str, fingerprint: &str) -> Self {
        ClientListCore {
            key: key.into(),
            fingerprint: fingerprint.into(),
            pods: Default::default(),
            rights: Default::default(),
            via: Default::default(),
            placement: Default::default(),
            links: BTreeMap::new(),
            reached: BTreeMap::new(),
            unfit: UnfitAgents::new(),
            waiters: BTreeMap::new(),
            blocked: BTreeMap::new(),
            next_attempt: Attempt(1),
            mode: Mode::Serving,
            table: Table::default(),
            told: Default::default(),
            told_unfit: Default::default(),
            effects: VecDeque::new(),
        }
    }

    /// Waiters that are not settled yet.
    pub fn waiting(&self) -> impl Iterator<Item = (WaiterId, &Target)> {
        self.waiters.iter().map(|(id, waiter)| (*id, &waiter.target))
    }

    /// Whether a waiter for `target` would be settled as ready now.
    pub fn is_ready(&self, target: &Target) -> bool {
        self.ready_pod(target).is_some()
    }

    fn store(&mut self, now: Millis, input: Input) {
        match input {
            Input::Pods(generation, pods) => {
                newer(&mut self.pods, generation, pods);
                let pods = &self.pods.1.pods;
                self.unfit.retain(|(pod, _), _| pods.contains_key(pod));
            }
            Input::Rights(generation, rights) => {
                newer(&mut self.rights, generation, rights);
                self.ask_refused_again(now);
            }
            Input::Via(generation, via) => newer(&mut self.via, generation, via),
            Input::Hopeless(generation, hopeless) => newer(&mut self.placement, generation, hopeless),
            Input::Register { id, target, deadline } => {
                self.waiters.insert(id, Waiter { target, deadline });
            }
            Input::Cancel(id) => {
                if self.waiters.remove(&id).is_some() {
                    self.effects.push_back(Effect::Settle { id, outcome: WaiterOutcome::Cancelled });
                }
            }
            Input::DialFinished { pod, attempt, outcome } => self.dial_finished(now, &pod, attempt, outcome),
            Input::LinkLost { pod, attempt, why } => {
                if let Some(link) = self.current(&pod, attempt)
                    && let LinkPhase::Ready { since, tries, .. } = link.phase
                {
                    // Ready => Failed. One that lived is dialled again at once: the pod is most likely still there. One
                    // that was lost at once counts as a dial that failed.
                    let lived = now.since(since) >= LIVED;
                    let tries = if lived { 0 } else { tries + 1 };
                    let pause = if lived { Duration::ZERO } else { pause(&link.pod.uid, tries, RETRY_MAX) };
                    link.phase = failed(now, why, tries, pause);
                }
            }
            Input::FlowsBlocked(target) => _ = self.blocked.insert(target, now + BLOCKED),
            Input::HangUpAll(reply) => self.hang_up_all(reply),
            Input::Woke => {}
        }
    }

    fn current(&mut self, pod: &PodUid, attempt: Attempt) -> Option<&mut Link> {
        self.links.get_mut(pod).filter(|link| link.attempt == attempt)
    }

    fn dial_finished(&mut self, now: Millis, pod: &PodUid, attempt: Attempt, outcome: DialOutcome) {
        let Some(link) = self.links.get_mut(pod).filter(|link| link.attempt == attempt) else {
            // Superseded: what came of it is not ours to keep.
            if matches!(outcome, DialOutcome::Connected { .. }) {
                self.effects.push_back(Effect::HangUp { pod: pod.clone(), attempt });
            }
            return;
        };
        let LinkPhase::Dialing { tries, .. } = link.phase else { return };
        let tries = tries + 1;
        let before = link.refused.take();
        let why: Arc<str> = match outcome {
            // Dialing => Ready
            DialOutcome::Connected { version } => {
                link.phase = LinkPhase::Ready { since: now, tries: tries - 1, version };
                return;
            }
            DialOutcome::Refused => "the agent does not listen".into(),
            DialOutcome::TimedOut => "no answer in time".into(),
            DialOutcome::Forbidden(why) => {
                let since = before.map_or(now, |refused| refused.since);
                link.refused = Some(Refused { since, last: now, why: Arc::clone(&why) });
                why
            }
            // Dialing => (nothing): another agent of the pod is dialled, or none.
            DialOutcome::Unfit(unfit) => {
                let agent = Arc::clone(&link.agent);
                self.unfit.insert((pod.clone(), agent), unfit);
                self.links.remove(pod);
                return;
            }
            DialOutcome::Failed(why) => why,
            DialOutcome::Panicked(why) => format!("bug: {why}").into(),
        };
        let longest = match &link.refused {
            None => RETRY_MAX,
            Some(refused) if believed(&self.rights.1, &link.pod, refused) => {
                refusal::pause(refused.last.since(refused.since), RETRY_REFUSED)
            }
            Some(_) => refusal::AGAIN,
        };
        // Dialing => Failed
        link.phase = failed(now, why, tries, pause(pod, tries, longest));
    }

    /// Dials at once what was refused: other rights may be there.
    fn ask_refused_again(&mut self, now: Millis) {
        for link in self.links.values_mut().filter(|link| link.refused.is_some()) {
            if let LinkPhase::Failed { not_before, retry_at, .. } = &mut link.phase {
                *retry_at = (*retry_at).min((*not_before).max(now));
            }
        }
    }

    /// Skips pauses of links that flows may be waiting for.
    fn hurry(&mut self, now: Millis) {
        self.blocked.retain(|_, until| *until > now);
        let wanted: Vec<PodUid> =
            self.blocked.keys().flat_map(|target| self.pods_of(target)).map(|pod| pod.uid.clone()).collect();
        for uid in wanted {
            if let Some(Link { phase: LinkPhase::Failed { not_before, retry_at, .. }, .. }) = self.links.get_mut(&uid) {
                *retry_at = (*retry_at).min((*not_before).max(now));
            }
        }
    }

    fn hang_up_all(&mut self, reply: ReplyId) {
        self.mode = Mode::HungUp;
        for pod in std::mem::take(&mut self.reached).into_keys() {
            self.effects.push_back(Effect::Abandon { pod });
        }
        for (pod, link) in std::mem::take(&mut self.links) {
            if !matches!(link.phase, LinkPhase::Failed { .. }) {
                self.effects.push_back(Effect::HangUp { pod, attempt: link.attempt });
            }
        }
        self.effects.push_back(Effect::HungUp(reply));
    }

    /// Recomputes the links from all state.
    fn reconcile(&mut self, now: Millis) {
        if self.mode == Mode::HungUp {
            return;
        }
        let pods = Arc::clone(&self.pods.1);
        let wanted_targets = self.wanted_targets();
        let wanted: BTreeSet<PodUid> =
            wanted_targets.iter().flat_map(|target| self.pods_of(target)).map(|pod| pod.uid.clone()).collect();

        // A link whose pod is not wanted, or is gone and does not work, ends. One that works outlives reports: only
        // the link's own end is proof.
        let ended: Vec<PodUid> = self
            .links
            .iter()
            .filter(|(uid, link)| match pods.pods.get(*uid) {
                Some(pod) => !wanted.contains(*uid) && !self.still_wanted(pod, &wanted_targets),
                None => !link.is_ready(),
            })
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in ended {
            self.abandon(uid.clone());
            if let Some(link) = self.links.remove(&uid)
                && !matches!(link.phase, LinkPhase::Failed { .. })
            {
                self.effects.push_back(Effect::HangUp { pod: uid, attempt: link.attempt });
            }
        }
        for (uid, link) in &mut self.links {
            if let Some(pod) = pods.pods.get(uid) {
                link.pod = Arc::clone(pod);
            }
        }

        for uid in wanted {
            let Some(pod) = pods.pods.get(&uid) else { continue };
            let Some(agent) = self.usable_agent(pod) else { continue };
            let (port, name) = (agent.port, Arc::clone(&agent.name));
            let special = self.via.1.special.get(&pod.workload).cloned().unwrap_or_default();
            let (tries, after) = match self.links.get(&uid) {
                None => (0, None),
                // A waiter may have had it dialled before the rules were known: the handshake asked for too little.
                Some(link) if link.special != special => {
                    if !matches!(link.phase, LinkPhase::Failed { .. }) {
                        self.effects.push_back(Effect::HangUp { pod: uid.clone(), attempt: link.attempt });
                    }
                    (0, None)
                }
                Some(Link { phase: LinkPhase::Failed { why, tries, retry_at, .. }, .. }) if *retry_at <= now => {
                    (*tries, Some(Arc::clone(why)))
                }
                Some(_) => continue,
            };
            let attempt = self.next_attempt;
            self.next_attempt = attempt.next();
            let refused = self.links.get(&uid).and_then(|link| link.refused.clone());
            let phase = LinkPhase::Dialing { tries, after };
            let link = Link { attempt, pod: Arc::clone(pod), agent: name, special: special.clone(), refused, phase };
            self.links.insert(uid, link);
            self.effects.push_back(Effect::Dial { pod: Arc::clone(pod), attempt, port, special });
        }
    }

    fn abandon(&mut self, pod: PodUid) {
        if self.reached.remove(&pod).is_some() {
            self.effects.push_back(Effect::Abandon { pod });
        }
    }

    /// Gives up agents that were reached and that nobody can reach again.
    fn abandon_lost(&mut self) {
        for (uid, link) in self.links.iter().filter(|(_, link)| link.is_ready()) {
            self.reached.insert(uid.clone(), Arc::clone(&link.agent));
        }
        let runs = |uid: &PodUid, agent: &Arc<str>| {
            let pod = self.pods.1.pods.get(uid).filter(|pod| !has_ended(pod));
            let agents = pod.map_or(&[][..], |pod| &pod.agents);
            agents.iter().any(|a| a.name == *agent && a.state == ContainerState::Running)
        };
        // A pod that is about to end is not dialled again.
        let comes_back = |uid: &PodUid| self.pods.1.pods.get(uid).is_some_and(|pod| takes_new_flows(pod));
        let stands = |uid: &PodUid, agent: &Arc<str>| {
            let link = self.links.get(uid);
            link.is_some_and(|link| link.is_ready() || (runs(uid, agent) && comes_back(uid)))
        };
        let lost = self.reached.iter().filter(|(uid, agent)| !stands(uid, agent));
        let lost: Vec<PodUid> = lost.map(|(uid, _)| uid.clone()).collect();
        for uid in lost {
            self.abandon(uid);
        }
    }

    fn wanted_targets(&self) -> BTreeSet<Target> {
        let mut targets: BTreeSet<Target> = self.via.1.workloads.iter().cloned().map(Target::Workload).collect();
        if self.via.1.general == GeneralEgress::Wanted {
            targets.insert(Target::General);
        }
        targets.extend(self.waiters.values().map(|waiter| waiter.target.clone()));
        targets
    }

    /// Whether `pod` belongs to a wanted target at all, whatever its state: its link may go on.
    fn still_wanted(&self, pod: &PodFact, wanted: &BTreeSet<Target>) -> bool {
        wanted.iter().any(|target| self.belongs(pod, target))
    }

    fn belongs(&self, pod: &PodFact, target: &Target) -> bool {
        match target {
            Target::Workload(workload) => pod.workload == *workload,
            Target::General => pod.own_pod_of.as_deref() == Some(&*self.fingerprint),
        }
    }

    /// Pods that may take new flows for `target`.
    fn pods_of<'a>(&'a self, target: &'a Target) -> impl Iterator<Item = &'a Arc<PodFact>> {
        self.pods.1.pods.values().filter(move |pod| self.belongs(pod, target) && takes_new_flows(pod))
    }

    /// The running agent to dial: the newest of our own image and protocol, else the newest that takes our key; never one
    /// that said that it will not do.
    fn usable_agent<'a>(&self, pod: &'a PodFact) -> Option<&'a AgentContainer> {
        let unfit = |a: &AgentContainer| self.unfit.contains_key(&(pod.uid.clone(), Arc::clone(&a.name)));
        let usable =
            |a: &&AgentContainer| a.state == ContainerState::Running && a.authorized_key == self.key && !unfit(a);
        let ours = |a: &&AgentContainer| is_named_after(&a.name, &self.fingerprint);
        let newest_first = || pod.agents.iter().rev().filter(usable);
        newest_first().find(ours).or_else(|| newest_first().next())
    }

    /// Working links for `target`, best first: pods in sight, by name; then those whose pod has left our sight.
    fn ready_links<'a>(&'a self, target: &'a Target) -> Vec<&'a Link> {
        let working = |link: &&Link| link.is_ready() && self.belongs(&link.pod, target);
        let in_sight = |link: &Link| self.pods.1.pods.contains_key(&link.pod.uid);
        let mut links: Vec<&Link> =
            self.links.values().filter(working).filter(|l| in_sight(l) && takes_new_flows(&l.pod)).collect();
        if links.is_empty() {
            links = self.links.values().filter(working).filter(|l| !in_sight(l)).collect();
        }
        links.sort_by(|a, b| a.pod.name.cmp(&b.pod.name));
        if links.is_empty() && *target == Target::General && self.placement.1.contains_key(target) {
            // No pod of our own may be had: an agent of a via workload serves general traffic too.
            links = self.links.values().filter(|l| l.is_ready() && takes_new_flows(&l.pod)).collect();
        }
        links
    }

    fn ready_pod(&self, target: &Target) -> Option<PodUid> {
        self.ready_links(target).first().map(|link| link.pod.uid.clone())
    }

    /// Why there will be no link to `target` unless something changes.
    fn hopeless(&self, target: &Target) -> Option<Arc<str>> {
        if self.ready_pod(target).is_some() {
            return None;
        }
        if let Target::Workload(workload) = target
            && self.rights.1.namespaces.get(&workload.namespace).is_some_and(|rights| !rights.port_forward)
        {
            return Some(
                format!("missing right: create and get pods/portforward in namespace {}", workload.namespace).into(),
            );
        }
        if let Some(why) = self.placement.1.get(target) {
            let other_exit = *target == Target::General && !self.via.1.workloads.is_empty();
            return (!other_exit).then(|| Arc::clone(why));
        }
        // As long as one of them may come there is hope.
        let links = self.links.values().filter(|link| self.belongs(&link.pod, target));
        let refusals: Option<Vec<&Arc<str>>> = links.map(|link| self.refusal(link)).collect();
        refusals?.first().map(|why| Arc::clone(why))
    }

    /// Why this link will not come, where the API server refuses it and means it.
    fn refusal<'a>(&self, link: &'a Link) -> Option<&'a Arc<str>> {
        let refused = link.refused.as_ref()?;
        believed(&self.rights.1, &link.pod, refused).then_some(&refused.why)
    }

    fn publish(&mut self) {
        let wanted = self.wanted_targets();
        let name = |link: &&Link| LinkName { attempt: link.attempt, pod: Arc::clone(&link.pod) };
        let mut table = Table { generation: self.table.generation, ..Table::default() };
        if self.mode == Mode::Serving {
            for target in &wanted {
                let links: Vec<LinkName> = self.ready_links(target).iter().map(name).collect();
                if let Some(why) = self.hopeless(target) {
                    table.hopeless.insert(target.clone(), why);
                }
                match target {
                    Target::Workload(workload) if !links.is_empty() => {
                        table.workloads.insert(workload.clone(), links);
                    }
                    Target::Workload(_) => {}
                    Target::General => table.general = links,
                }
            }
        }
        if table != self.table {
            table.generation = table.generation.next();
            self.table = table.clone();
            self.effects.push_back(Effect::Publish(table));
        }
    }

    fn settle_waiters(&mut self, now: Millis) {
        let settled: Vec<(WaiterId, WaiterOutcome)> =
            self.waiters.iter().filter_map(|(id, waiter)| Some((*id, self.outcome_of(now, waiter)?))).collect();
        for (id, outcome) in settled {
            self.waiters.remove(&id);
            self.effects.push_back(Effect::Settle { id, outcome });
        }
    }

    fn outcome_of(&self, now: Millis, waiter: &Waiter) -> Option<WaiterOutcome> {
        if self.mode == Mode::HungUp {
            return Some(WaiterOutcome::Cancelled);
        }
        if let Some(pod) = self.ready_pod(&waiter.target) {
            return Some(WaiterOutcome::Ready { pod });
        }
        if let Some(why) = self.hopeless(&waiter.target) {
            return Some(WaiterOutcome::Hopeless { why });
        }
        (waiter.deadline <= now).then_some(WaiterOutcome::TimedOut)
    }

    fn tell(&mut self) {
        let targets: BTreeMap<Target, TargetState> =
            self.wanted_targets().into_iter().map(|target| (target.clone(), self.target_state(&target))).collect();
        if targets != self.told.1 {
            self.told = (self.told.0.next(), targets.clone());
            self.effects.push_back(Effect::TellLinks(self.told.0, targets));
        }
        if self.unfit != self.told_unfit.1 {
            self.told_unfit = (self.told_unfit.0.next(), self.unfit.clone());
            self.effects.push_back(Effect::TellUnfit(self.told_unfit.0, self.unfit.clone()));
        }
    }

    fn target_state(&self, target: &Target) -> TargetState {
        let mut pods: BTreeMap<&PodUid, &Arc<PodFact>> =
            self.pods.1.pods.iter().filter(|(_, pod)| self.belongs(pod, target) && !has_ended(pod)).collect();
        let in_sight = pods.len();
        let running = pods.values().filter(|pod| takes_new_flows(pod)).count();
        for link in self.links.values().filter(|link| self.belongs(&link.pod, target)) {
            pods.entry(&link.pod.uid).or_insert(&link.pod);
        }
        let links = pods.values().filter_map(|pod| self.link_status(pod)).collect();
        let served = self.links.values().any(|link| link.is_ready() && self.belongs(&link.pod, target));
        let unplaced = || self.placement.1.get(target).filter(|_| !served).cloned();
        TargetState { pods: in_sight, running, links, hopeless: self.hopeless(target).or_else(unplaced) }
    }

    /// Why the agents of a pod will not do, where one of them said so and there is no other.
    fn unfit_in(&self, pod: &PodFact) -> Option<Arc<str>> {
        let of_pod = || self.unfit.iter().find(|((uid, _), _)| *uid == pod.uid);
        self.usable_agent(pod).is_none().then(of_pod).flatten().map(|(_, unfit)| Arc::clone(unfit.why()))
    }

    /// What becomes of the agent in a pod without a link; `None` where there is no agent of ours.
    fn unlinked(&self, pod: &PodFact) -> Option<LinkState> {
        let own = pod.own_pod_of.as_deref() == Some(&*self.fingerprint);
        let mut state = None;
        for agent in pod.agents.iter().filter(|agent| agent.authorized_key == self.key) {
            let asked = own || is_named_after(&agent.name, &self.fingerprint);
            match (&agent.state, agent.obstacle()) {
                (ContainerState::Waiting, _) if asked => {
                    return Some(LinkState::Starting { image: Arc::clone(&agent.image) });
                }
                (_, Some(why)) if asked => state = Some(LinkState::Failed { why: why.into() }),
                (_, _) => state = state.or(Some(LinkState::NoAgent)),
            }
        }
        state
    }

    fn link_status(&self, pod: &PodFact) -> Option<LinkStatus> {
        let link = self.links.get(&pod.uid);
        let phase = link.map(|link| &link.phase);
        let state = match phase {
            Some(LinkPhase::Ready { .. }) if takes_new_flows(pod) => LinkState::Ready,
            Some(LinkPhase::Ready { .. }) => LinkState::Draining,
            Some(LinkPhase::Dialing { after: None, .. }) => LinkState::Dialing,
            Some(LinkPhase::Dialing { after: Some(why), .. }) => {
                LinkState::Lost { why: Arc::clone(why), dialing: true }
            }
            Some(LinkPhase::Failed { why, .. }) => LinkState::Lost { why: Arc::clone(why), dialing: false },
            None => match self.unfit_in(pod) {
                Some(why) => LinkState::Failed { why },
                None => self.unlinked(pod)?,
            },
        };
        let placement = match pod.own_pod_of {
            Some(_) => Placement::OwnPod,
            None => Placement::Ephemeral,
        };
        let pod_name = format!("{}/{}", pod.namespace, pod.name).into();
        let version = match phase {
            Some(LinkPhase::Ready { version, .. }) => Arc::clone(version),
            Some(LinkPhase::Dialing { .. } | LinkPhase::Failed { .. }) | None => "".into(),
        };
        let dialled = link.and_then(|link| pod.agents.iter().find(|agent| agent.name == link.agent));
        let image = dialled.map(|agent| Arc::clone(&agent.image)).unwrap_or_default();
        Some(LinkStatus { pod: pod.uid.clone(), pod_name, placement, image, version, state })
    }
}

impl Core for ClientListCore {
    type Input = Input;
    type Effect = Effect;

    fn handle(&mut self, now: Millis, input: Input) {
        self.store(now, input);
        self.hurry(now);
        self.reconcile(now);
        self.abandon_lost();
        self.publish();
        self.settle_waiters(now);
        self.tell();
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn poll_deadline(&self) -> Option<Millis> {
        let retries = self.links.values().filter_map(|link| match &link.phase {
            LinkPhase::Failed { retry_at, .. } if self.may_redial(link) => Some(*retry_at),
            LinkPhase::Failed { .. } | LinkPhase::Dialing { .. } | LinkPhase::Ready { .. } => None,
        });
        self.waiters.values().map(|waiter| waiter.deadline).chain(retries).min()
    }

    fn woke() -> Input {
        Input::Woke
    }
}

impl ClientListCore {
    /// Whether waking up for this failed link would dial it.
    fn may_redial(&self, link: &Link) -> bool {
        self.mode == Mode::Serving
            && self.pods.1.pods.get(&link.pod.uid).is_some_and(|pod| {
                takes_new_flows(pod)
                    && self.usable_agent(pod).is_some()
                    && self.still_wanted(pod, &self.wanted_targets())
            })
    }
}

/// Stores a fact unless it is older than the one there.
fn newer<T>(slot: &mut (Generation, T), generation: Generation, fact: T) {
    if generation > slot.0 {
        *slot = (generation, fact);
    }
}

fn takes_new_flows(pod: &PodFact) -> bool {
    pod.phase == PodPhase::Running && !pod.terminating
}

fn has_ended(pod: &PodFact) -> bool {
    matches!(pod.phase, PodPhase::Succeeded | PodPhase::Failed)
}

/// Whether a refused port-forward is a missing right, or a policy. Rights are told only once the API server can be
/// believed: before, it may be starting.
fn believed(rights: &Rights, pod: &PodFact, refused: &Refused) -> bool {
    let server = match rights.namespaces.get(&pod.namespace) {
        Some(rights) if !rights.port_forward => Readiness::Ready,
        Some(_) => Readiness::Silent,
        None => Readiness::NotReady,
    };
    refused.last.since(refused.since) >= server.patience()
}

fn failed(now: Millis, why: Arc<str>, tries: u32, pause: Duration) -> LinkPhase {
    let not_before = now + RETRY_WHEN_BLOCKED.min(pause);
    LinkPhase::Failed { why, tries, not_before, retry_at: now + pause }
}

/// The pause before the next dial, with jitter by pod and try, so that many links do not dial in step.
fn pause(pod: &PodUid, tries: u32, longest: Duration) -> Duration {
    let doubled = doubling(RETRY_FIRST, tries.saturating_sub(1), longest);
    let seed = pod.0.bytes().fold(tries.wrapping_mul(2_654_435_761), |h, b| h.wrapping_mul(31).wrapping_add(b.into()));
    doubled * (75 + seed % 50) / 100
}

#[cfg(test)]
mod tests;
