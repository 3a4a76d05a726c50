//! Questions in progress: who waits for them, and for what they wait.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::records::{Found, record};
use super::{
    ASK_WAIT, AllocateError, Answer, Code, DnsCore, Effect, FACTS_WAIT, LookupId, MAX_JOBS, MAX_WAITERS, Millis, Query,
    Question, Record, ReplyId, TRANSLATE_WAIT, TTL, Transport, Upstream,
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
    /// ProxyVia.
    Translating { answer: Answer },
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
    Translate(Answer),
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
            Step::Translate(_) | Step::Ask(..) | Step::Wait if self.jobs.len() >= MAX_JOBS => self.fail(&waiter),
            step @ (Step::Translate(_) | Step::Ask(..) | Step::Wait) => {
                self.last_lookup += 1;
                let id = LookupId(self.last_lookup);
                let until = now + FACTS_WAIT;
                self.by_question.insert(question.clone(), id);
                self.jobs.insert(
                    id,
                    Job { question, waiters: vec![waiter], stage: Stage::Facts, until, end: now + WHOLE_WAIT },
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

    pub(super) fn answered(&mut self, now: Millis, id: LookupId, raw: Option<&[u8]>) {
        let Some(job) = self.jobs.get(&id) else { return };
        let Stage::Asking { question, upstream, path } = &job.stage else { return };
        let parsed = raw.and_then(|raw| parse_answer(raw, wire_id(id), question).ok());
        let Some(mut answer) = parsed else { return self.finish(id, None) };
        answer.cap_ttl(TTL);
        let (question, upstream, path) = (question.clone(), *upstream, path.clone());
        if upstream == Upstream::Cluster {
            self.cache.put(now, question.clone(), answer.clone());
        }
        let step = self.combine(&question, upstream, path, answer);
        self.take(now, id, step);
    }

    pub(super) fn translated(
        &mut self,
        now: Millis,
        id: LookupId,
        result: Option<Result<BTreeMap<IpAddr, IpAddr>, AllocateError>>,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Stage::Translating { answer } = &job.stage else { return };
        match result {
            Some(Ok(handed_out)) => {
                let answer = answer.clone().translate(&handed_out).ok();
                self.finish(id, answer);
            }
            Some(Err(AllocateError::NotReady)) => {
                job.stage = Stage::Facts;
                job.until = (now + FACTS_WAIT).min(job.end);
            }
            Some(Err(AllocateError::Exhausted | AllocateError::Foreign(_))) | None => self.finish(id, None),
        }
    }

    pub(super) fn expire(&mut self, now: Millis) {
        let over: Vec<LookupId> = self.jobs.iter().filter(|(_, job)| job.until <= now).map(|(id, _)| *id).collect();
        for id in over {
            self.finish(id, None);
        }
    }

    /// Follows aliases through the facts until something must be asked, translated or awaited.
    fn next_step(&self, now: Millis, asked: &Question) -> Step {
        let mut path = Path { aliases: Vec::new(), owner: asked.name.clone() };
        loop {
            let question = Question { name: path.owner.clone(), kind: asked.kind };
            let (name, upstream) = match self.facts.find(&question) {
                Found::Answer(answer) => return self.combine(&question, Upstream::Cluster, path, answer),
                Found::Virtual(mut answer) => {
                    answer.answers.splice(..0, path.aliases);
                    return Step::Done(answer);
                }
                Found::Wait => return Step::Wait,
                Found::Host if path.aliases.is_empty() => return Step::Forward,
                Found::Refuse if path.aliases.is_empty() => return Step::Done(Answer::empty(Code::Refused)),
                // The client follows the alias itself, by the host's own servers.
                Found::Refuse => return Step::Done(self.facts.known(path.aliases)),
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
                Found::Host => (question.name, Upstream::Host),
            };
            let question = Question { name, kind: asked.kind };
            let cached = self.cache.get(now, &question).filter(|_| upstream == Upstream::Cluster);
            return match cached {
                Some(answer) => self.combine(&question, upstream, path, answer),
                None => Step::Ask(question, upstream, path),
            };
        }
    }

    fn combine(&self, question: &Question, upstream: Upstream, path: Path, mut answer: Answer) -> Step {
        answer.rename(&question.name, &path.owner);
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
        Step::Translate(answer)
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
            Step::Translate(answer) => {
                let effect = Effect::Translate { id, name: job.question.name.clone(), addresses: answer.addresses() };
                job.stage = Stage::Translating { answer };
                job.until = (now + TRANSLATE_WAIT).min(job.end);
                self.effects.push_back(effect);
            }
            Step::Ask(question, upstream, path) => {
                let Some(query) = build_query(wire_id(id), &question) else { return self.finish(id, None) };
                job.stage = Stage::Asking { question, upstream, path };
                job.until = (now + ASK_WAIT).min(job.end);
                self.effects.push_back(Effect::Ask { id, upstream, query, limit: ASK_WAIT });
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

/// The id a question is asked with; whoever sends it over an open network makes it unpredictable.
fn wire_id(id: LookupId) -> u16 {
    u16::try_from(id.0 & 0xffff).unwrap_or(0)
}
