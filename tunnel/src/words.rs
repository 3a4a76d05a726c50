//! What a flow has to say about credit, and what it could not say yet.

use std::task::{Context, Poll, ready};

use crate::credit::Grant;
use crate::frames::{Ack, Recall, Yielded, flow_frame::Frame};
use crate::wire::{WireError, Writer};

/// Words that wait for room in front of the carrier, at most one of a kind: a peer that makes us answer and takes
/// nothing off would else fill our memory. Each says all that the one before it said.
#[derive(Debug, Default)]
pub struct Words {
    recall: Option<Recall>,
    ack: Option<Ack>,
    yielded: Option<Yielded>,
}

impl Words {
    /// What the peer may send now.
    pub fn grant(&mut self, Grant { received, limit }: Grant) {
        self.ack = Some(Ack { received, limit });
    }

    /// What is here, without news of credit.
    pub fn acknowledge(&mut self, received: u64) {
        self.ack.get_or_insert_default().received = received;
    }

    /// How far we go, as the peer asked.
    pub fn yielded(&mut self, limit: u64) {
        self.yielded = Some(Yielded { limit });
    }

    /// Asks the peer for what it does not need. Only where nothing waits: a grant of before would otherwise follow, and
    /// be taken for a newer one.
    pub fn recall(&mut self, limit: u64) {
        debug_assert!(self.ack.as_ref().is_none_or(|ack| ack.limit == 0));
        self.recall = Some(Recall { limit });
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.recall.is_none() && self.ack.is_none() && self.yielded.is_none()
    }

    /// Says what waits, before any more data takes the room. Ready when nothing waits any more.
    ///
    /// # Errors
    ///
    /// The stream ended.
    pub fn poll(&mut self, cx: &mut Context<'_>, writer: &mut Writer) -> Poll<Result<(), WireError>> {
        while !self.is_empty() {
            ready!(writer.poll_room_for_word(cx))?;
            let recall = self.recall.take().map(Frame::Recall);
            let word = recall.or_else(|| self.ack.take().map(Frame::Ack));
            let Some(word) = word.or_else(|| self.yielded.take().map(Frame::Yielded)) else { break };
            writer.send_flow(word)?;
        }
        Poll::Ready(Ok(()))
    }
}
