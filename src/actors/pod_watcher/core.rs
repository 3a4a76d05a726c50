//! Which watches run, what they know, and what of it is told.
//!
//! ```text
//! Watch ─▶ all namespaces ── 403 ─▶ each namespace of interest ── probe succeeds ─▶ all namespaces
//! a watch:  listing ─▶ fresh ─▶ down (pause, at most 3 s) ─▶ fresh
//! ```
//!
//! Invariants: nothing is told before the first lists it rests on are whole; what is known stays told while a watch is
//! down or lists again; a fact is told only when it differs from the one told last.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::facts::{Event, Kind, Trouble, WatchId};
use super::messages::WatchHealth;
use super::rights::Reviewed;
use super::snapshot::{self, Watches};
use super::watched::Watched;
use crate::actors::shell::Core;
use crate::backoff;
use crate::cluster::{ClusterInfo, ClusterRecords, NamespaceRights, PodSnapshot, Rights};
use crate::ids::{Attempt, Generation, Millis};
use crate::refusal;

/// A burst of changes is told as one after this time, so that a rollout is not a storm of snapshots.
const GATHER: Duration = Duration::from_millis(5);
/// Pods that lengthen [`GATHER`] by a millisecond: a snapshot costs in proportion to them.
const PODS_PER_MILLISECOND: usize = 400;
/// Watches are made anew because of refused dials no more often than that.
const DOUBT_AGAIN: Duration = Duration::from_secs(10);
/// Pause before rights that could not be asked for are asked for again.
const RIGHTS_RETRY: Duration = Duration::from_secs(3);
/// How soon a missing right is asked for again; doubles, jittered by a quarter either way. An API server that has just
/// started refuses for a moment what it grants.
const LOOK_FIRST: Duration = Duration::from_secs(1);
/// How long at most a missing right may stay unnoticed after it was granted; jittered likewise.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What goes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Start. Only the first counts.
    Watch(BTreeSet<Arc<str>>),
    /// A watch saw this.
    Observed(WatchId, Attempt, Vec<Event>),
    /// A watch failed and waits to be resumed. The last is the jitter.
    Failed(WatchId, Attempt, Trouble, u8),
    /// What reviews of a namespace said; `None` when they could not be made. The last is the jitter.
    Rights(Arc<str>, Attempt, Option<Reviewed>, u8),
    /// There is a new client.
    ClientChanged,
    /// A dial was refused with the credentials that the watches began with, or with older ones.
    Doubted,
    /// Stop everything.
    Stop,
    /// Time has passed.
    Woke,
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start a watch's task, in place of any other of it.
    Start(WatchId, Attempt),
    /// Let a failed watch go on.
    Resume(WatchId),
    /// End a watch's task.
    End(WatchId),
    /// Ask what the user may do there; answered by `Rights`.
    AskRights(Arc<str>, Attempt),
    /// Tell the pods.
    TellPods(Generation, Arc<PodSnapshot>),
    /// Tell ranges and names.
    TellInfo(Generation, Arc<ClusterInfo>),
    /// Tell the records.
    TellRecords(Generation, Arc<ClusterRecords>),
    /// Tell the rights.
    TellRights(Generation, Arc<Rights>),
    /// Tell how the watches are.
    TellHealth(Generation, WatchHealth),
}

/// The machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodWatcherCore {
    interest: BTreeSet<Arc<str>>,
    running: bool,
    stopped: bool,
    watches: Watches,
    /// Watches of all namespaces that may replace those of single ones; told of only once they do.
    probes: BTreeMap<Kind, Watched>,
    attempts: Attempt,
    rights: BTreeMap<Arc<str>, NamespaceRights>,
    /// When rights are asked for that could not be asked for, or are in doubt.
    ask_rights: BTreeMap<Arc<str>, Millis>,
    /// Questions for rights under way; an answer to another one was given to other credentials.
    asking: BTreeMap<Arc<str>, Attempt>,
    /// Since when a right is refused that is not believed to be missing yet.
    doubts: BTreeMap<Arc<str>, Millis>,
    /// When what was refused is tried again, while something is.
    look_again: Option<Millis>,
    /// Looks in a row that found a right missing.
    looks: u32,
    /// When a watch was last made anew because the credentials are in doubt.
    doubted: Option<Millis>,
    dirty: BTreeSet<Kind>,
    tell_at: Option<Millis>,
    told: Told,
    effects: VecDeque<Effect>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Told {
    generation: Generation,
    pods: Option<Arc<PodSnapshot>>,
    info: Option<Arc<ClusterInfo>>,
    records: Option<Arc<ClusterRecords>>,
    rights: Option<Arc<Rights>>,
    health: Option<WatchHealth>,
}

impl Core for PodWatcherCore {
    type Input = Input;
    type Effect = Effect;

    fn handle(&mut self, now: Millis, input: Input) {
        if self.stopped {
            return;
        }
        match input {
            Input::Watch(namespaces) => self.start(namespaces),
            Input::Observed(id, attempt, events) => self.observed(now, &id, attempt, events),
            Input::Failed(id, attempt, trouble, jitter) => self.failed(now, &id, attempt, trouble, jitter),
            Input::Rights(namespace, attempt, reviewed, jitter) => {
                self.rights_came(now, namespace, attempt, reviewed, jitter);
            }
            Input::ClientChanged => self.restart(now),
            Input::Doubted => self.doubt(now),
            Input::Stop => {
                self.stopped = true;
                self.effects.extend(self.watches.keys().cloned().map(Effect::End));
                self.watches.clear();
                self.end_probes();
                return;
            }
            Input::Woke => {}
        }
        self.resume(now);
        self.tell(now);
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn poll_deadline(&self) -> Option<Millis> {
        if self.stopped {
            return None;
        }
        let resumes = self.watches.values().chain(self.probes.values()).filter_map(|watched| watched.resume_at);
        resumes.chain(self.ask_rights.values().copied()).chain(self.look_again).chain(self.tell_at).min()
    }

    fn woke() -> Input {
        Input::Woke
    }
}

impl PodWatcherCore {
    /// A machine that has not been told to watch.
    pub fn new() -> PodWatcherCore {
        PodWatcherCore::default()
    }

    fn start(&mut self, namespaces: BTreeSet<Arc<str>>) {
        if self.running {
            return;
        }
        self.running = true;
        self.interest = namespaces;
        for kind in Kind::ALL {
            self.begin(WatchId { kind, namespace: None }, BTreeMap::new());
        }
        for namespace in self.interest.clone() {
            self.ask(namespace);
        }
    }

    /// Asks for the rights in a namespace, unless that is under way.
    fn ask(&mut self, namespace: Arc<str>) {
        self.ask_rights.remove(&namespace);
        if self.asking.contains_key(&namespace) {
            return;
        }
        self.attempts = self.attempts.next();
        self.asking.insert(Arc::clone(&namespace), self.attempts);
        self.effects.push_back(Effect::AskRights(namespace, self.attempts));
    }

    fn begin(&mut self, id: WatchId, objects: BTreeMap<super::facts::Key, super::facts::Fact>) {
        self.attempts = self.attempts.next();
        self.watches.insert(id.clone(), Watched::new(self.attempts, objects));
        self.effects.push_back(Effect::Start(id, self.attempts));
    }

    fn observed(&mut self, now: Millis, id: &WatchId, attempt: Attempt, events: Vec<Event>) {
        if self.probed(id, attempt, &events) {
            self.look_again = Some(now);
            self.dirty.insert(id.kind);
            self.tell_by(now);
            return;
        }
        let Some(watched) = self.watches.get_mut(id).filter(|watched| watched.attempt == attempt) else { return };
        let was_listed = watched.listed;
        let was_refused = matches!(watched.trouble, Some(Trouble::Forbidden(_)));
        let mut changed = false;
        for event in events {
            changed |= watched.observe(event);
        }
        if was_refused && watched.trouble.is_none() {
            // One right was granted; others often come with it.
            (self.looks, self.look_again) = (0, Some(now));
        }
        if !changed {
            return;
        }
        let first = !was_listed && watched.listed;
        self.dirty.insert(id.kind);
        // What a caller waits for is told at once; what follows is gathered.
        self.tell_by(if first { now } else { now + self.gather() });
    }

    /// Feeds a probe; true when it replaced the watches of single namespaces.
    ///
    /// It has to follow as well as list before it may: these are two rights.
    fn probed(&mut self, id: &WatchId, attempt: Attempt, events: &[Event]) -> bool {
        let Some(probe) = self.probe(id, attempt) else { return false };
        for event in events {
            probe.observe(event.clone());
        }
        if !(probe.listed && events.contains(&Event::Alive)) {
            return false;
        }
        let Some(probe) = self.probes.remove(&id.kind) else { return false };
        let single: Vec<WatchId> = self.watches.keys().filter(|other| other.kind == id.kind).cloned().collect();
        for other in single {
            self.watches.remove(&other);
            self.effects.push_back(Effect::End(other));
        }
        self.watches.insert(id.clone(), probe);
        true
    }

    fn probe(&mut self, id: &WatchId, attempt: Attempt) -> Option<&mut Watched> {
        let probe = self.probes.get_mut(&id.kind).filter(|_| id.namespace.is_none());
        probe.filter(|probe| probe.attempt == attempt)
    }

    fn failed(&mut self, now: Millis, id: &WatchId, attempt: Attempt, trouble: Trouble, jitter: u8) {
        if let Some(probe) = self.probe(id, attempt) {
            if matches!(trouble, Trouble::Forbidden(_)) {
                self.probes.remove(&id.kind);
                self.effects.push_back(Effect::End(id.clone()));
                self.look_later(now, jitter);
            } else {
                probe.fail(now, trouble, jitter);
            }
            return;
        }
        let Some(watched) = self.watches.get_mut(id).filter(|watched| watched.attempt == attempt) else { return };
        let everywhere = id.namespace.is_none() && id.kind.namespaced();
        // Nobody waits for what is known already: it is not given up for an API server that has just started.
        let forbidden = |trouble: &Trouble| matches!(trouble, Trouble::Forbidden(_));
        let goes_on = watched.trouble.as_ref().is_some_and(forbidden) && watched.refused_for() >= refusal::NOT_READY;
        if everywhere && forbidden(&trouble) && (goes_on || !watched.listed) {
            let known = std::mem::take(&mut watched.objects);
            self.narrow(id, &known);
            self.look_later(now, jitter);
        } else {
            watched.fail(now, trouble, jitter);
        }
        self.dirty.insert(id.kind);
        self.tell_by(now);
    }

    /// All namespaces => each namespace of interest, with what is known of it.
    fn narrow(&mut self, id: &WatchId, known: &BTreeMap<super::facts::Key, super::facts::Fact>) {
        self.watches.remove(id);
        self.effects.push_back(Effect::End(id.clone()));
        for namespace in self.interest.clone() {
            let objects = known.iter().filter(|((of, _), _)| *of == namespace);
            let objects = objects.map(|(key, fact)| (key.clone(), fact.clone())).collect();
            self.begin(WatchId { kind: id.kind, namespace: Some(namespace) }, objects);
        }
    }

    fn rights_came(
        &mut self,
        now: Millis,
        namespace: Arc<str>,
        attempt: Attempt,
        reviewed: Option<Reviewed>,
        jitter: u8,
    ) {
        if self.asking.get(&namespace) != Some(&attempt) {
            return;
        }
        self.asking.remove(&namespace);
        let Some(Reviewed { rights, server }) = reviewed else {
            // What refused before an outage may have been another state of the API server.
            self.doubts.remove(&namespace);
            self.ask_rights.insert(namespace, now + RIGHTS_RETRY);
            return;
        };
        if self.rights.get(&namespace).is_none_or(|before| *before != rights) {
            let since = *self.doubts.entry(Arc::clone(&namespace)).or_insert(now);
            let refused_for = now.since(since);
            if refused_for < server.patience() {
                // What is believed stays so.
                self.ask_rights.insert(namespace, now + refusal::pause(refused_for, LOOK_FIRST));
                return;
            }
        }
        self.doubts.remove(&namespace);
        self.rights.insert(namespace, rights);
        if !rights.all() {
            self.look_later(now, jitter);
        }
    }

    fn look_later(&mut self, now: Millis, jitter: u8) {
        let pause = backoff::spread(backoff::doubling(LOOK_FIRST, self.looks, LOOK_AGAIN), jitter);
        self.look_again.get_or_insert(now + pause);
    }

    /// Asks for all rights, and probes all namespaces where a kind was refused them.
    fn look(&mut self) {
        self.look_again = None;
        self.looks = self.looks.saturating_add(1);
        for namespace in self.interest.clone() {
            self.ask(namespace);
        }
        for kind in Kind::ALL.into_iter().filter(|kind| kind.namespaced()) {
            let id = WatchId { kind, namespace: None };
            if !self.watches.contains_key(&id) && !self.probes.contains_key(&kind) {
                self.attempts = self.attempts.next();
                self.probes.insert(kind, Watched::new(self.attempts, BTreeMap::new()));
                self.effects.push_back(Effect::Start(id, self.attempts));
            }
        }
    }

    fn end_probes(&mut self) {
        for kind in std::mem::take(&mut self.probes).into_keys() {
            self.effects.push_back(Effect::End(WatchId { kind, namespace: None }));
        }
    }

    fn restart(&mut self, now: Millis) {
        if !self.running {
            return;
        }
        for (id, watched) in &mut self.watches {
            self.attempts = self.attempts.next();
            watched.restart(self.attempts);
            self.effects.push_back(Effect::Start(id.clone(), self.attempts));
        }
        self.end_probes();
        // Other credentials may have other rights, and what was asked with the old ones says nothing of them.
        self.asking.clear();
        self.doubts.clear();
        (self.looks, self.look_again) = (0, Some(now));
    }

    /// Asks the API server anew, by the watch that has least to list.
    fn doubt(&mut self, now: Millis) {
        let soon = self.doubted.is_some_and(|before| now.since(before) < DOUBT_AGAIN);
        // What is refused already tells by itself.
        let known = self.watches.values().any(|watched| matches!(watched.trouble, Some(Trouble::Unauthorized(_))));
        if soon || known {
            return;
        }
        let well = self.watches.iter_mut().filter(|(_, watched)| watched.trouble.is_none() && watched.listed);
        if let Some((id, watched)) = well.min_by_key(|(_, watched)| watched.objects.len()) {
            self.doubted = Some(now);
            self.attempts = self.attempts.next();
            watched.restart(self.attempts);
            self.effects.push_back(Effect::Start(id.clone(), self.attempts));
        }
    }

    fn resume(&mut self, now: Millis) {
        if self.look_again.is_some_and(|at| at <= now) {
            self.look();
        }
        let probes = self.probes.iter_mut().map(|(kind, probe)| (WatchId { kind: *kind, namespace: None }, probe));
        for (id, watched) in self.watches.iter_mut().map(|(id, watched)| (id.clone(), watched)).chain(probes) {
            if watched.resume_at.is_some_and(|at| at <= now) {
                watched.resume_at = None;
                self.effects.push_back(Effect::Resume(id));
            }
        }
        let due: Vec<_> = self.ask_rights.iter().filter(|(_, at)| **at <= now).map(|(name, _)| name.clone()).collect();
        for namespace in due {
            self.ask(namespace);
        }
    }

    fn gather(&self) -> Duration {
        let pods = self.told.pods.as_ref().map_or(0, |told| told.pods.len());
        GATHER + Duration::from_millis((pods / PODS_PER_MILLISECOND) as u64)
    }

    fn tell_by(&mut self, at: Millis) {
        self.tell_at = Some(self.tell_at.map_or(at, |earlier| earlier.min(at)));
    }

    fn tell(&mut self, now: Millis) {
        if !self.running {
            return;
        }
        self.tell_rights();
        self.tell_health();
        if self.tell_at.is_none_or(|at| at > now) {
            return;
        }
        self.tell_at = None;
        let mut later = BTreeSet::new();
        if self.touched(&[Kind::Pods]) {
            if self.settled(&[Kind::Pods]) {
                self.tell_pods()
            } else {
                later.insert(Kind::Pods);
            }
        }
        let kinds = [Kind::Pods, Kind::Services, Kind::Nodes, Kind::ServiceCidrs];
        if self.touched(&kinds) {
            if self.settled(&kinds) {
                self.tell_info()
            } else {
                later.extend(kinds);
            }
        }
        let kinds = [Kind::Pods, Kind::Services, Kind::Slices];
        if self.touched(&kinds) || self.touched(&[Kind::Namespaces]) {
            if self.settled(&kinds) {
                self.tell_records()
            } else {
                later.extend(kinds);
            }
        }
        self.dirty = later;
    }

    fn touched(&self, kinds: &[Kind]) -> bool {
        kinds.iter().any(|kind| self.dirty.contains(kind))
    }

    fn settled(&self, kinds: &[Kind]) -> bool {
        self.watches.iter().filter(|(id, _)| kinds.contains(&id.kind)).all(|(_, watched)| watched.settled())
    }

    /// The namespaces to which a kind is narrowed; `None` is all.
    fn sight(&self, kind: Kind) -> Option<BTreeSet<Arc<str>>> {
        let everywhere = self.watches.contains_key(&WatchId { kind, namespace: None });
        (!everywhere).then(|| self.interest.clone())
    }

    fn tell_pods(&mut self) {
        let pods = snapshot::pods(&self.watches, self.sight(Kind::Pods));
        if self.told.pods.as_deref() != Some(&pods) {
            let (generation, pods) = (self.generation(), Arc::new(pods));
            self.told.pods = Some(Arc::clone(&pods));
            self.effects.push_back(Effect::TellPods(generation, pods));
        }
    }

    fn tell_info(&mut self) {
        let info = snapshot::info(&self.watches);
        if self.told.info.as_deref() != Some(&info) {
            let (generation, info) = (self.generation(), Arc::new(info));
            self.told.info = Some(Arc::clone(&info));
            self.effects.push_back(Effect::TellInfo(generation, info));
        }
    }

    fn tell_records(&mut self) {
        let records = snapshot::records(&self.watches, self.sight(Kind::Services), &self.interest);
        if self.told.records.as_deref() != Some(&records) {
            let (generation, records) = (self.generation(), Arc::new(records));
            self.told.records = Some(Arc::clone(&records));
            self.effects.push_back(Effect::TellRecords(generation, records));
        }
    }

    fn tell_rights(&mut self) {
        let whole = !self.interest.is_empty() && self.interest.iter().all(|name| self.rights.contains_key(name));
        let refused = self.watches.iter().filter(|(_, watched)| matches!(watched.trouble, Some(Trouble::Forbidden(_))));
        let unseen = refused.filter_map(|(id, _)| Some((unseen(id.kind)?, Arc::clone(id.namespace.as_ref()?))));
        let rights = Rights { namespaces: self.rights.clone(), unseen: unseen.collect() };
        if whole && self.told.rights.as_deref() != Some(&rights) {
            let (generation, rights) = (self.generation(), Arc::new(rights));
            self.told.rights = Some(Arc::clone(&rights));
            self.effects.push_back(Effect::TellRights(generation, rights));
        }
    }

    fn tell_health(&mut self) {
        let health = self.health();
        if self.told.health.as_ref() != Some(&health) {
            let generation = self.generation();
            self.told.health = Some(health.clone());
            self.effects.push_back(Effect::TellHealth(generation, health));
        }
    }

    fn health(&self) -> WatchHealth {
        let mut stale = None;
        for (id, watched) in &self.watches {
            match &watched.trouble {
                Some(Trouble::Unauthorized(why)) if watched.refused_for() >= refusal::GOES_ON => {
                    return WatchHealth::Unauthorized { why: why.clone() };
                }
                Some(Trouble::Unauthorized(why) | Trouble::Down(why)) => {
                    stale = stale.or_else(|| Some(format!("{id}: {why}")))
                }
                // Without a right there is nothing to be stale; the rights tell it.
                Some(Trouble::Forbidden(_) | Trouble::Unknown(_)) | None => {}
            }
        }
        match stale {
            Some(why) => WatchHealth::Stale { why },
            None if self.settled(&Kind::ALL) => WatchHealth::Fresh,
            None => WatchHealth::Starting,
        }
    }

    fn generation(&mut self) -> Generation {
        self.told.generation = self.told.generation.next();
        self.told.generation
    }
}

/// The resource of a kind without which names are missing; pods are a matter of the rights themselves.
fn unseen(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Services => Some("services"),
        Kind::Slices => Some("endpointslices"),
        Kind::Pods | Kind::Nodes | Kind::ServiceCidrs | Kind::Namespaces => None,
    }
}

#[cfg(test)]
mod tests;
