//! Questions in progress: who waits for them, and for what they wait.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::facts::public;
use super::records::{Found, record};
use super::{
    ASK_WAIT, ASK_WAIT_BEFORE_OTHERS, ASK_WAIT_OUTSIDE, AllocateError, Answer, Code, DnsCore, Effect, FACTS_WAIT,
    LookupId, MAX_JOBS, MAX_WAITERS, Millis, Ours, Query, Question, QuestionId, Record, ReplyId, TRANSLATE_WAIT, TTL,
    Transport, Upstream,
};
use crate::net::dns_message::{Data, Kind, build_query, failure, parse_answer};

/// Aliases followed; more are a loop.
const MAX_ALIASES: usize = 8;
/// How long a question may take in all, whatever it waits for.
const WHOLE_WAIT: Duration = Duration::from_secs(7);

/// One client that asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waiter {
    pub id: ReplyId,
    pub query: Query,
    pub raw: Bytes,
    pub transport: Transport,
}

/// One question in progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub question: Question,
    pub waiters: Vec<Waiter>,
    pub stage: Stage,
    /// How many questions were put to upstreams.
    pub asked: u32,
    /// When this stage is over.
    pub until: Millis,
    /// When all is over.
    pub end: Millis,
}

/// What it waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Facts or ranges that are still coming.
    Facts,
    /// An upstream, asked `question`.
    Asking { question: Question, upstream: Upstream, path: Path },
    /// ProxyVia, which leaves the addresses in `outside` as they are.
    Translating { answer: Answer, outside: BTreeSet<IpAddr> },
}

/// How a question led to the one that is asked upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// The aliases in between.
    aliases: Vec<Record>,
    /// The name under which the answer is given: a short form of the one that is asked upstream, or the same.
    owner: Arc<str>,
}

/// What can be done about a question now.
enum Step {
    Done(Answer),
    Translate(Answer, BTreeSet<IpAddr>),
    Ask(Question, Upstream, Path),
    Forward,
    Wait,
}

impl DnsCore {
    pub(super) fn look_up(&mut self, now: Millis, waiter: Waiter) {
        let question = waiter.query.question.clone();
        if let Some(job) = self.by_question.get(&question).and_then(|id| self.jobs.get_mut(id)) {
            if job.waiters.len() < MAX_WAITERS {
                job.waiters.push(waiter);
            } else {
                self.fail(&waiter);
            }
            return;
        }
        match self.next_step(now, &question) {
            Step::Done(answer) => self.reply(&waiter, &answer),
            Step::Forward => self.forward(waiter),
            Step::Translate(..) | Step::Ask(..) | Step::Wait if self.jobs.len() >= MAX_JOBS => self.fail(&waiter),
            step @ (Step::Translate(..) | Step::Ask(..) | Step::Wait) => {
                self.last_lookup += 1;
                let id = LookupId(self.last_lookup);
                let until = now + FACTS_WAIT;
                self.by_question.insert(question.clone(), id);
                self.jobs.insert(
                    id,
                    Job {
                        question,
                        waiters: vec![waiter],
                        stage: Stage::Facts,
                        asked: 0,
                        until,
                        end: now + WHOLE_WAIT,
                    },
                );
                self.take(now, id, step);
            }
        }
    }

    /// Looks again at everything that waits for facts.
    pub(super) fn retry_waiting(&mut self, now: Millis) {
        let waiting: Vec<LookupId> =
            self.jobs.iter().filter(|(_, job)| job.stage == Stage::Facts).map(|(id, _)| *id).collect();
        for id in waiting {
            let Some(question) = self.jobs.get(&id).map(|job| job.question.clone()) else { continue };
            let step = self.next_step(now, &question);
            self.take(now, id, step);
        }
    }

    pub(super) fn answered(&mut self, now: Millis, id: QuestionId, raw: Option<&[u8]>) {
        let QuestionId { lookup: id, number } = id;
        let Some(job) = self.jobs.get(&id).filter(|job| job.asked == number) else { return };
        let Stage::Asking { question, upstream, path } = &job.stage else { return };
        let parsed = raw.and_then(|raw| parse_answer(raw, wire_id(id), question).ok());
        let Some(mut answer) = parsed else { return self.unanswered(now, id) };
        answer.cap_ttl(TTL);
        let (asked, question, upstream, path) = (job.question.clone(), question.clone(), *upstream, path.clone());
        if upstream != Upstream::Host {
            self.cache.put(now, question.clone(), answer.clone());
        }
        let step = self.combine(now, &asked, &question, upstream, path, answer);
        self.take(now, id, step);
    }

    pub(super) fn translated(
        &mut self,
        now: Millis,
        id: LookupId,
        result: Option<Result<BTreeMap<IpAddr, IpAddr>, AllocateError>>,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Stage::Translating { answer, outside } = &job.stage else { return };
        match result {
            Some(Ok(mut handed_out)) => {
                handed_out.extend(outside.iter().map(|address| (*address, *address)));
                let answer = answer.clone().translate(&handed_out).ok();
                self.finish(id, answer);
            }
            Some(Err(AllocateError::NotReady)) => {
                job.stage = Stage::Facts;
                job.until = (now + FACTS_WAIT).min(job.end);
            }
            Some(Err(AllocateError::Foreign(address))) => {
                let (asked, answer, mut outside) = (job.question.clone(), answer.clone(), outside.clone());
                let step = match self.out_of_the_cluster(&asked, &answer, address) {
                    None => return self.finish(id, None),
                    Some(_) if public(address) && outside.insert(address) => Step::Translate(answer, outside),
                    Some(path) => self.by_the_host(&asked, path),
                };
                self.take(now, id, step);
            }
            Some(Err(AllocateError::Exhausted)) | None => self.finish(id, None),
        }
    }

    /// An upstream could not be asked, or did not answer in time.
    fn unanswered(&mut self, now: Millis, id: LookupId) {
        let Some(job) = self.jobs.get(&id) else { return };
        match &job.stage {
            Stage::Asking { upstream: Upstream::Outside, path, .. } => {
                let step = self.by_the_host(&job.question, path.clone());
                self.take(now, id, step);
            }
            Stage::Asking { upstream: Upstream::Cluster, .. } => {
                // The host asks nobody after us.
                for waiter in self.remove(id) {
                    self.reply_as(&waiter, &Answer::empty(Code::ServFail), Ours::No);
                }
            }
            Stage::Asking { upstream: Upstream::Host, .. } | Stage::Facts | Stage::Translating { .. } => {
                self.finish(id, None);
            }
        }
    }

    /// How a name outside the cluster is found without the cluster: by the host's servers, as far as those are ours to
    /// ask; else the client follows the alias itself.
    fn by_the_host(&self, asked: &Question, path: Path) -> Step {
        if self.facts.forwarding {
            let question = Question { name: path.owner.clone(), kind: asked.kind };
            Step::Ask(question, Upstream::Host, path)
        } else {
            Step::Done(self.facts.known(path.aliases))
        }
    }

    /// The aliases that lead from the name that was asked to the first one outside the cluster, where this address is that
    /// of a name outside.
    fn out_of_the_cluster(&self, asked: &Question, answer: &Answer, address: IpAddr) -> Option<Path> {
        let mut holders = answer.answers.iter().filter(|record| record.data.address() == Some(address));
        if !holders.all(|record| self.facts.is_elsewhere(&record.name)) {
            return None;
        }
        let mut path = Path { aliases: Vec::new(), owner: asked.name.clone() };
        while !self.facts.is_elsewhere(&path.owner) {
            let (alias, target) = alias_of(answer, &path.owner).filter(|_| path.aliases.len() <= MAX_ALIASES)?;
            path.aliases.push(alias.clone());
            path.owner = target.clone();
        }
        (!path.aliases.is_empty()).then_some(path)
    }

    pub(super) fn expire(&mut self, now: Millis) {
        let over: Vec<LookupId> = self.jobs.iter().filter(|(_, job)| job.until <= now).map(|(id, _)| *id).collect();
        for id in over {
            self.unanswered(now, id);
        }
    }

    fn next_step(&self, now: Millis, asked: &Question) -> Step {
        self.follow(now, asked, Path { aliases: Vec::new(), owner: asked.name.clone() })
    }

    /// Follows aliases through the facts until something must be asked, translated or awaited.
    fn follow(&self, now: Millis, asked: &Question, mut path: Path) -> Step {
        loop {
            let question = Question { name: path.owner.clone(), kind: asked.kind };
            let (name, upstream) = match self.facts.find(&question) {
                Found::Answer(answer) => {
                    return self.combine(now, asked, &question, Upstream::Cluster, path, answer);
                }
                Found::Virtual(mut answer) => {
                    answer.answers.splice(..0, path.aliases);
                    return Step::Done(answer);
                }
                Found::Wait => return Step::Wait,
                Found::Host if path.aliases.is_empty() => return Step::Forward,
                Found::Refuse if path.aliases.is_empty() => return Step::Done(Answer::empty(Code::Refused)),
                Found::Host | Found::Refuse if self.facts.is_outside(&question.name) && !asked.kind.is_binding() => {
                    (question.name, Upstream::Outside)
                }
                Found::Host | Found::Refuse => return self.by_the_host(asked, path),
                Found::Alias(target) => {
                    path.aliases.push(record(&question.name, Data::Cname(target.clone())));
                    // A target is absolute: a single label is no service of the connected namespace.
                    if question.kind == Kind::CNAME || !target.contains('.') {
                        return Step::Done(self.facts.known(path.aliases));
                    }
                    if path.aliases.len() > MAX_ALIASES {
                        return Step::Done(Answer::empty(Code::ServFail));
                    }
                    path.owner = target;
                    continue;
                }
                Found::Ask(name) => (name, Upstream::Cluster),
            };
            let question = Question { name, kind: asked.kind };
            return match self.cache.get(now, &question) {
                Some(answer) => self.combine(now, asked, &question, upstream, path, answer),
                None => Step::Ask(question, upstream, path),
            };
        }
    }

    fn combine(
        &self,
        now: Millis,
        asked: &Question,
        question: &Question,
        upstream: Upstream,
        mut path: Path,
        mut answer: Answer,
    ) -> Step {
        answer.rename(&question.name, &path.owner);
        if let Some(target) = open_end(&answer, &path.owner, asked.kind).filter(|_| upstream != Upstream::Host) {
            path.aliases.append(&mut answer.answers);
            path.owner = target;
            return match path.aliases.len() > MAX_ALIASES {
                true => Step::Done(Answer::empty(Code::ServFail)),
                false => self.follow(now, asked, path),
            };
        }
        answer.answers.splice(..0, path.aliases);
        let addresses = answer.addresses();
        if upstream == Upstream::Host || addresses.is_empty() {
            return Step::Done(answer);
        }
        if !self.facts.translation_ready() {
            return Step::Wait;
        }
        if addresses.iter().all(|address| self.facts.plain(*address)) {
            return Step::Done(answer);
        }
        Step::Translate(answer, BTreeSet::new())
    }

    fn take(&mut self, now: Millis, id: LookupId, step: Step) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        match step {
            Step::Done(answer) => self.finish(id, Some(answer)),
            Step::Forward => {
                for waiter in self.remove(id) {
                    self.forward(waiter);
                }
            }
            Step::Wait => {
                // Time already spent on facts counts; after an upstream's answer it starts anew.
                if job.stage != Stage::Facts {
                    job.stage = Stage::Facts;
                    job.until = (now + FACTS_WAIT).min(job.end);
                }
            }
            Step::Translate(answer, outside) => {
                let addresses: Vec<IpAddr> =
                    answer.addresses().into_iter().filter(|address| !outside.contains(address)).collect();
                let effect = Effect::Translate { id, name: job.question.name.clone(), addresses };
                job.stage = Stage::Translating { answer, outside };
                job.until = (now + TRANSLATE_WAIT).min(job.end);
                self.effects.push_back(effect);
            }
            Step::Ask(question, upstream, path) => {
                let Some(query) = build_query(wire_id(id), &question) else { return self.finish(id, None) };
                let limit = match upstream {
                    Upstream::Outside => ASK_WAIT_OUTSIDE,
                    Upstream::Cluster if self.facts.forwarding => ASK_WAIT_BEFORE_OTHERS,
                    Upstream::Cluster | Upstream::Host => ASK_WAIT,
                };
                job.stage = Stage::Asking { question, upstream, path };
                job.until = (now + limit).min(job.end);
                job.asked += 1;
                let id = QuestionId { lookup: id, number: job.asked };
                self.effects.push_back(Effect::Ask { id, upstream, query, limit });
            }
        }
    }

    fn finish(&mut self, id: LookupId, answer: Option<Answer>) {
        let answer = answer.unwrap_or_else(|| Answer::empty(Code::ServFail));
        for waiter in self.remove(id) {
            self.reply(&waiter, &answer);
        }
    }

    fn remove(&mut self, id: LookupId) -> Vec<Waiter> {
        let Some(job) = self.jobs.remove(&id) else { return Vec::new() };
        self.by_question.remove(&job.question);
        job.waiters
    }

    fn forward(&mut self, waiter: Waiter) {
        let failure = failure(&waiter.query, Code::ServFail);
        self.effects.push_back(Effect::Forward {
            id: waiter.id,
            query: waiter.raw,
            transport: waiter.transport,
            failure,
        });
    }
}

/// The alias that this name is in an answer, and for what.
fn alias_of<'a>(answer: &'a Answer, name: &str) -> Option<(&'a Record, &'a Arc<str>)> {
    answer.answers.iter().filter(|record| &*record.name == name).find_map(|record| match &record.data {
        Data::Cname(target) => Some((record, target)),
        Data::A(_)
        | Data::Aaaa(_)
        | Data::Ptr(_)
        | Data::Ns(_)
        | Data::Txt(_)
        | Data::Srv { .. }
        | Data::Soa { .. }
        | Data::Other(_) => None,
    })
}

/// The name at which the aliases of an answer end without another word, which has to be asked then.
pub(super) fn open_end(answer: &Answer, owner: &Arc<str>, kind: Kind) -> Option<Arc<str>> {
    if answer.code != Code::NoError || kind == Kind::CNAME || !answer.authority.is_empty() {
        return None;
    }
    let mut name = owner;
    for _ in 0..=MAX_ALIASES {
        let Some((_, target)) = alias_of(answer, name) else { break };
        name = target;
    }
    let told = name == owner || answer.answers.iter().any(|record| record.name == *name);
    (!told).then(|| name.clone())
}

/// The id a question is asked with; whoever sends it over an open network makes it unpredictable.
fn wire_id(id: LookupId) -> u16 {
    u16::try_from(id.0 & 0xffff).unwrap_or(0)
}
