//! Decides every answer and what the host's resolver should look like. Pure.
//!
//! A question that the facts answer and that nothing translates is answered in the same step. Every other one becomes a
//! job, which identical questions join (one look-up, every asker answered; it is also what stops a loop through the
//! cluster back to us):
//!
//! ```text
//!          facts missing            real addresses
//!   asked ──────▶ Facts ──▶ Asking ──────▶ Translating ──▶ answered
//!                   │         │  ▲ a host's answer, or none   │
//!                   └─────────┴──┴── time over ───────────────┴──▶ SERVFAIL
//! ```
//!
//! Invariants: an address leaves only as it came out of ProxyVia, or when nothing is translated and it is the cluster's
//! for certain; a name is denied only by complete facts or by the cluster's name server; every query is answered once.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::actors::dns::messages::{Configure, DnsState, Transport};
use crate::actors::proxy_via::messages::{AllocateError, TranslationChanged};
use crate::actors::shell::Core;
use crate::actors::vif::messages::VifChanged;
use crate::cluster::{ClusterInfo, ClusterRecords};
use crate::ids::{Attempt, Generation, Millis, ReplyId};
use crate::net::dns_message::{
    Answer, Code, Limit, Query, Question, Record, Unanswerable, build, failure, parse_query,
};

mod attachment;
mod cache;
mod facts;
mod jobs;
pub(super) mod open_end;
mod records;
#[cfg(test)]
mod tests;

use attachment::Attachment;
use cache::Cache;
use facts::Facts;
use jobs::{Job, Waiter};

use crate::net::resolver::{AttachFailed, Attached, LinkPlan};
use crate::spec::DnsMode;

/// How long an answer or a denial may be kept, in seconds: short, because what it says can change at any time.
const TTL: u32 = 5;
/// How long a question waits for facts and ranges that are still coming: well below the 5 s after which clients give up.
const FACTS_WAIT: Duration = Duration::from_secs(2);
/// How long a name server of the cluster has.
const ASK_WAIT: Duration = Duration::from_secs(4);
/// The same where the connections beside this one are asked after it.
const ASK_WAIT_BEFORE_OTHERS: Duration = Duration::from_secs(3);
/// The same for a name outside the cluster, for which there is another way after it.
const ASK_WAIT_OUTSIDE: Duration = Duration::from_secs(2);
/// How long ProxyVia has; it only computes, so this is for the case that it ended.
const TRANSLATE_WAIT: Duration = Duration::from_secs(2);
/// Questions in progress; more are answered SERVFAIL at once.
const MAX_JOBS: usize = 1024;
/// Askers of one question; more are answered SERVFAIL at once.
const MAX_WAITERS: usize = 256;

/// Stands for one look-up in progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LookupId(pub u64);

/// Stands for one question to an upstream. A look-up may ask several, one after another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct QuestionId {
    /// The look-up.
    pub lookup: LookupId,
    /// The how-manieth of it.
    pub number: u32,
}

/// Whose name servers are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Upstream {
    /// The cluster's, through an agent.
    Cluster,
    /// The same for a name that is not the cluster's, to which one of the cluster led.
    Outside,
    /// Those that the host used before us.
    Host,
}

/// Whether an answer settles it, or another connection may know better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ours {
    Yes,
    No,
}

/// What Dns hears.
#[derive(Clone, Debug)]
pub enum Input {
    /// How names work in this connection.
    Configured(Configure),
    /// A raw query.
    Asked {
        /// Its reply.
        id: ReplyId,
        /// The message.
        query: Bytes,
        /// What it came over.
        transport: Transport,
    },
    /// Services, endpoints, pods.
    Records(Generation, Arc<ClusterRecords>),
    /// Ranges and domain.
    Info(Generation, Arc<ClusterInfo>),
    /// What is translated.
    Translation(TranslationChanged),
    /// The device.
    Device(VifChanged),
    /// An upstream answered, or did not.
    Answered {
        /// The question; what answers an earlier one of the look-up is too late.
        id: QuestionId,
        /// The raw answer; `None` when none could be had.
        answer: Option<Bytes>,
    },
    /// ProxyVia translated, or did not; `None` when it is gone.
    Translated {
        /// The look-up.
        id: LookupId,
        /// Real to handed-out address.
        result: Option<Result<BTreeMap<IpAddr, IpAddr>, AllocateError>>,
    },
    /// The host's resolver is attached, or not.
    Attached {
        /// Which try.
        attempt: Attempt,
        /// What came of it.
        result: Result<Attached, AttachFailed>,
    },
    /// The host's resolver started anew, or something changed its settings.
    ResolverChanged,
    /// Undo everything done to the host.
    Restore(ReplyId),
    /// It is undone; what could not be.
    Restored {
        /// Which try.
        attempt: Attempt,
        /// What is left.
        left: Vec<String>,
    },
    /// Time has passed.
    Woke,
}

/// What Dns wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Answer a query.
    Reply {
        /// Its reply.
        id: ReplyId,
        /// The raw answer; `None` leaves it without one.
        answer: Option<Bytes>,
    },
    /// Pass a query on to the connections beside this one and the host's previous servers, and the answer back untouched.
    Forward {
        /// Its reply.
        id: ReplyId,
        /// The raw query.
        query: Bytes,
        /// Over what it goes on.
        transport: Transport,
        /// The raw answer if no server answers.
        failure: Bytes,
    },
    /// Ask the connections beside this one for a name that its cluster does not have, or of which its own name servers say
    /// nothing.
    Deny {
        /// Its reply.
        id: ReplyId,
        /// The raw query.
        query: Bytes,
        /// Over what it goes on.
        transport: Transport,
        /// The raw answer if no cluster has the name.
        denial: Bytes,
        /// The raw answer if one of them cannot tell.
        failure: Bytes,
    },
    /// Ask an upstream.
    Ask {
        /// The question.
        id: QuestionId,
        /// Whom.
        upstream: Upstream,
        /// The raw query.
        query: Bytes,
        /// How long it may take.
        limit: Duration,
    },
    /// Have ProxyVia translate.
    Translate {
        /// The look-up.
        id: LookupId,
        /// The name asked for.
        name: Arc<str>,
        /// The real addresses.
        addresses: Vec<IpAddr>,
    },
    /// Make the host's resolver ask us; checks first what is there already.
    Attach {
        /// Which try.
        attempt: Attempt,
        /// By what.
        mode: DnsMode,
        /// What it shall look like.
        plan: LinkPlan,
    },
    /// Undo what was done to the host.
    Detach {
        /// Which try.
        attempt: Attempt,
    },
    /// Answer a `Restore`.
    AnswerRestore {
        /// Its reply.
        id: ReplyId,
        /// What is left.
        left: Vec<String>,
    },
    /// Tell Session.
    Report(DnsState),
}

/// The core of Dns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsCore {
    facts: Facts,
    jobs: BTreeMap<LookupId, Job>,
    by_question: BTreeMap<Question, LookupId>,
    cache: Cache,
    attachment: Attachment,
    last_lookup: u64,
    effects: VecDeque<Effect>,
}

impl Core for DnsCore {
    type Input = Input;
    type Effect = Effect;

    fn handle(&mut self, now: Millis, input: Input) {
        match input {
            Input::Configured(configure) => {
                self.facts.configure(&configure);
                self.attachment.configure(configure.mode);
                self.facts_changed(now);
            }
            Input::Asked { id, query, transport } => self.asked(now, id, query, transport),
            Input::Records(generation, records) => {
                if generation >= self.facts.records.0 {
                    self.facts.records = (generation, records);
                    self.facts_changed(now);
                }
            }
            Input::Info(generation, info) => {
                if generation >= self.facts.info.0 {
                    self.facts.info = (generation, info);
                    self.facts_changed(now);
                }
            }
            Input::Translation(changed) => {
                if self.facts.translation.as_ref().is_none_or(|known| known.generation <= changed.generation) {
                    self.facts.translation = Some(changed);
                    self.facts_changed(now);
                }
            }
            Input::Device(changed) => {
                self.attachment.device(changed);
                self.attach(now);
            }
            Input::Answered { id, answer } => self.answered(now, id, answer.as_deref()),
            Input::Translated { id, result } => self.translated(now, id, result),
            Input::Attached { attempt, result } => {
                self.attachment.attached(now, attempt, result);
                self.attach(now);
            }
            Input::ResolverChanged => {
                self.attachment.disturbed(now);
                self.attach(now);
            }
            Input::Restore(id) => {
                self.attachment.restore(id);
                self.attach(now);
            }
            Input::Restored { attempt, left } => {
                self.attachment.restored(attempt, left);
                self.attach(now);
            }
            Input::Woke => {
                self.expire(now);
                self.attach(now);
            }
        }
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn poll_deadline(&self) -> Option<Millis> {
        self.jobs.values().map(|job| job.until).chain(self.attachment.deadline()).min()
    }

    fn woke() -> Input {
        Input::Woke
    }
}

impl DnsCore {
    fn facts_changed(&mut self, now: Millis) {
        self.attach(now);
        self.retry_waiting(now);
    }

    fn attach(&mut self, now: Millis) {
        let effects = self.attachment.step(now, &self.facts);
        self.effects.extend(effects);
        if self.facts.host_domains.iter().map(|domain| &**domain).ne(self.attachment.domains()) {
            self.facts.host_domains = self.attachment.domains().iter().map(|domain| facts::lower(domain)).collect();
        }
        let forwarding = self.attachment.forwarding();
        if forwarding != self.facts.forwarding {
            self.facts.forwarding = forwarding;
            self.retry_waiting(now);
        }
    }

    fn asked(&mut self, now: Millis, id: ReplyId, raw: Bytes, transport: Transport) {
        let query = match parse_query(&raw) {
            Ok(query) => query,
            Err(Unanswerable(answer)) => return self.effects.push_back(Effect::Reply { id, answer }),
        };
        self.look_up(now, Waiter { id, query, raw, transport });
    }

    fn reply(&mut self, waiter: &Waiter, answer: &Answer) {
        self.reply_as(waiter, answer, if answer.code == Code::NxDomain { Ours::No } else { Ours::Yes });
    }

    fn reply_as(&mut self, waiter: &Waiter, answer: &Answer, ours: Ours) {
        let limit = limit_of(waiter.transport);
        let mut answer = answer.clone();
        answer.rotate(usize::from(waiter.query.id));
        let built = build(&waiter.query, &answer, limit);
        self.effects.push_back(if ours == Ours::No && self.facts.forwarding {
            // The host asks nobody after us, so what another connection knows is ours to find out.
            let failure = failure(&waiter.query, Code::ServFail);
            let (query, transport) = (waiter.raw.clone(), waiter.transport);
            Effect::Deny { id: waiter.id, query, transport, denial: built, failure }
        } else {
            Effect::Reply { id: waiter.id, answer: Some(built) }
        });
    }

    fn fail(&mut self, waiter: &Waiter) {
        self.reply(waiter, &Answer::empty(Code::ServFail));
    }
}

fn limit_of(transport: Transport) -> Limit {
    match transport {
        Transport::Udp => Limit::Udp,
        Transport::Tcp => Limit::Tcp,
    }
}
