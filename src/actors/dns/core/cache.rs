//! What upstreams said lately: bounded, with real addresses, each kept for one TTL.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::TTL;
use crate::ids::Millis;
use crate::net::dns_message::{Answer, Question};

/// Answers kept; the oldest goes first. An answer takes some 300 bytes.
const MAX_ANSWERS: usize = 2048;

/// As all are kept equally long, the order of arrival is the order of expiry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cache {
    answers: BTreeMap<Question, (Millis, Answer)>,
    order: VecDeque<(Millis, Question)>,
}

impl Cache {
    pub(super) fn get(&self, now: Millis, question: &Question) -> Option<Answer> {
        self.answers.get(question).filter(|(until, _)| now < *until).map(|(_, answer)| answer.clone())
    }

    /// Keeps an answer or a denial for as long as clients may, 5 s at most (RFC 2308 section 5 for denials).
    pub(super) fn put(&mut self, now: Millis, question: Question, answer: Answer) {
        let until = now + Duration::from_secs(u64::from(TTL));
        self.order.push_back((until, question.clone()));
        self.answers.insert(question, (until, answer));
        while self.order.front().is_some_and(|(until, _)| *until <= now) || self.order.len() > MAX_ANSWERS {
            let Some((until, question)) = self.order.pop_front() else { break };
            if self.answers.get(&question).is_some_and(|(kept, _)| *kept == until) {
                self.answers.remove(&question);
            }
        }
    }
}
