//! What one direction of a flow keeps so that the flow can go on over another carrier. Pure.
//!
//! ```text
//!            acknowledged        again_at            sent
//!  ──────────────┼───────────────────┼─────────────────┼──▶ offsets
//!   peer has it  │  on this carrier  │ to be sent anew │
//!                └────────── kept, counted ────────────┘
//! ```
//!
//! - The peer tells what it has ([`Outbox::acknowledged`], [`Outbox::resume`]): bytes, and one more once it has the `Fin`.
//!   What it has is let go.
//! - What is kept is counted in the [`Budget`]. Where there is no room, a flow keeps nothing of what it sent so far and
//!   goes on: it cannot be resumed until the peer has all of that.
//! - On another carrier everything that the peer lacks is sent again, in order, before anything new.

use std::collections::VecDeque;
use std::ops::Deref;

use bytes::{Buf as _, Bytes};

use crate::credit::Budget;
use crate::queue::Queue;

/// Bytes that one flow may keep: the largest window, beyond which no peer in its senses grants.
pub const FLOW_KEEPS: u64 = crate::credit::LARGEST_WINDOW;

/// Whether a flow can go on over another carrier at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// It can: what is sent is kept.
    Everything,
    /// The peer does not know how: nothing is kept.
    Nothing,
}

/// The peer says that it has what was never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer acknowledged what was not sent")]
pub struct AckBroken;

/// Why a flow cannot go on with what the peer says it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResumeError {
    /// The peer has told of more before: this word was overtaken.
    #[error("the peer had more before")]
    Stale,
    /// What it lacks was not kept, or it has what was never sent.
    #[error("what the peer lacks was not kept")]
    Lost,
}

/// The sender's side of one direction.
#[derive(Debug)]
pub struct Outbox<B: Deref<Target = Budget>> {
    budget: B,
    keeping: Keeping,
    kept: Queue,
    /// Offset of the first byte in `kept`.
    start: u64,
    /// Bytes sent.
    sent: u64,
    finished: bool,
    /// What the peer is known to have; its `Fin` counts one.
    acknowledged: u64,
    /// What this carrier still has to bring again, from `again_at` to `sent`.
    again: VecDeque<Bytes>,
    again_at: u64,
    /// The `Fin` has to go out on this carrier.
    fin_waits: bool,
}

impl<B: Deref<Target = Budget>> Outbox<B> {
    /// A direction on which nothing was sent yet.
    pub fn new(budget: B, keeping: Keeping) -> Outbox<B> {
        Outbox {
            budget,
            keeping,
            kept: Queue::default(),
            start: 0,
            sent: 0,
            finished: false,
            acknowledged: 0,
            again: VecDeque::new(),
            again_at: 0,
            fin_waits: false,
        }
    }

    /// Whether the flow can go on over another carrier at all.
    pub fn keeps(&self) -> bool {
        self.keeping == Keeping::Everything
    }

    /// Whether all that the peer may lack is here.
    pub fn is_whole(&self) -> bool {
        self.keeps() && self.start <= self.acknowledged
    }

    /// `chunk` goes out, after all that went out before. Where something has to be sent again, the chunk follows it there.
    pub fn sent(&mut self, chunk: &Bytes) {
        let length = chunk.len() as u64;
        self.sent += length;
        if self.has_again() {
            self.again.push_back(chunk.clone());
        }
        if self.keeping == Keeping::Nothing {
            return;
        }
        if self.sent - self.start <= FLOW_KEEPS && self.budget.keep(length) {
            self.kept.push(chunk.clone());
        } else {
            self.let_go();
        }
    }

    /// What was sent need not be told again.
    pub fn forget(&mut self) {
        self.let_go();
        self.again = VecDeque::new();
    }

    /// Keeps nothing of what was sent so far.
    fn let_go(&mut self) {
        self.budget.let_go(self.kept.bytes());
        self.kept = Queue::default();
        self.start = self.sent;
    }

    /// Nothing more will be sent: the `Fin` has to go out.
    pub fn finish(&mut self) {
        self.fin_waits |= !self.finished;
        self.finished = true;
    }

    /// The peer has `received`.
    ///
    /// # Errors
    ///
    /// It cannot: that much was not sent.
    pub fn acknowledged(&mut self, received: u64) -> Result<(), AckBroken> {
        if received > self.everything() {
            return Err(AckBroken);
        }
        if received > self.acknowledged {
            self.acknowledged = received;
            let had = received.min(self.sent).saturating_sub(self.start).min(self.kept.bytes());
            self.kept.skip(had);
            self.start += had;
            self.budget.let_go(had);
            self.skip_again(received.min(self.sent));
        }
        Ok(())
    }

    /// What the peer has is not sent again: nothing is held that is not counted.
    fn skip_again(&mut self, received: u64) {
        while self.again_at < received
            && let Some(front) = self.again.front_mut()
        {
            let part = usize::try_from(received - self.again_at).unwrap_or(usize::MAX).min(front.len());
            front.advance(part);
            self.again_at += part as u64;
            if front.is_empty() {
                self.again.pop_front();
            }
        }
        if self.again.is_empty() {
            self.again = VecDeque::new();
        }
    }

    /// What the peer has once it has everything.
    fn everything(&self) -> u64 {
        self.sent + u64::from(self.finished)
    }

    /// Goes on over another carrier with a peer that has `received`.
    ///
    /// # Errors
    ///
    /// It cannot. Nothing was changed.
    pub fn resume(&mut self, received: u64) -> Result<(), ResumeError> {
        if received < self.acknowledged {
            return Err(ResumeError::Stale);
        }
        let lost = self.keeping == Keeping::Nothing || received.min(self.sent) < self.start;
        if lost || self.acknowledged(received).is_err() {
            return Err(ResumeError::Lost);
        }
        self.again = self.kept.chunks().cloned().collect();
        self.again_at = self.start;
        self.fin_waits = self.finished && received <= self.sent;
        Ok(())
    }

    /// Whether something has to be sent again before anything new.
    pub fn has_again(&self) -> bool {
        !self.again.is_empty()
    }

    /// The next piece to be sent again, of at most `room` bytes, with its offset.
    pub fn again(&mut self, room: usize) -> Option<(u64, Bytes)> {
        let front = self.again.front_mut()?;
        let piece = front.split_to(room.min(front.len()));
        if front.is_empty() {
            self.again.pop_front();
            if self.again.is_empty() {
                self.again = VecDeque::new();
            }
        }
        let offset = self.again_at;
        self.again_at += piece.len() as u64;
        Some((offset, piece))
    }

    /// Whether the `Fin` has to go out now. Then it counts as gone.
    pub fn take_fin(&mut self) -> bool {
        self.again.is_empty() && std::mem::take(&mut self.fin_waits)
    }

    /// The peer has everything, by its own account.
    pub fn settle(&mut self) {
        // It can have what was sent.
        self.acknowledged(self.everything()).ok();
    }

    /// Whether the peer has everything, the `Fin` too.
    pub fn is_settled(&self) -> bool {
        self.finished && self.acknowledged == self.everything()
    }
}

impl<B: Deref<Target = Budget>> Drop for Outbox<B> {
    fn drop(&mut self) {
        self.budget.let_go(self.kept.bytes());
    }
}

#[cfg(test)]
mod tests;
