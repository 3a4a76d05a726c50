//! Sends what a peer lacks after its flow has gone over to another carrier.

use std::ops::Deref;
use std::task::{Context, Poll, ready};

use crate::credit::Budget;
use crate::frames::{Fin, flow_frame};
use crate::resume::Outbox;
use crate::wire::{WireError, Writer};

/// Sends what has to go out before anything new. Ready when nothing of that is left.
///
/// # Errors
///
/// The stream ended.
pub fn poll<B: Deref<Target = Budget>>(
    outbox: &mut Outbox<B>,
    writer: &mut Writer,
    cx: &mut Context<'_>,
) -> Poll<Result<(), WireError>> {
    while outbox.has_again() {
        let room = ready!(writer.poll_room(cx))?;
        if let Some((offset, bytes)) = outbox.again(room) {
            writer.send_data(offset, bytes)?;
        }
    }
    if outbox.take_fin() {
        writer.send_flow(flow_frame::Frame::Fin(Fin {}))?;
    }
    Poll::Ready(Ok(()))
}
