//! Associations as the workstation drives them.

use std::task::{Context, Poll, ready};

use bytes::Bytes;

use crate::frames::{FlowFrame, REFUSED, Reset, flow_frame};
use crate::wire::{Reader, Writer};

/// Why an association is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UdpEnded {
    /// The far side said that nobody listens there.
    #[error("the far side refused a datagram")]
    Refused,
    /// Silence for long, or the carrier's loss: nothing that the far side said.
    #[error("the association is over")]
    Over,
}

/// One UDP association.
#[derive(Debug)]
pub struct UdpFlow {
    reader: Reader,
    writer: Writer,
    ended: Option<UdpEnded>,
}

impl UdpFlow {
    /// An association that the agent has opened.
    pub(super) fn new(reader: Reader, writer: Writer) -> UdpFlow {
        UdpFlow { reader, writer, ended: None }
    }

    /// Sends one datagram; drops it when the way is congested, and is then false.
    pub fn send(&mut self, datagram: Bytes) -> bool {
        if datagram.len() > crate::MAX_DATA || self.ended.is_some() {
            return false;
        }
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match self.writer.poll_room(&mut cx) {
            Poll::Ready(Ok(room)) if room >= datagram.len().min(crate::MAX_DATA / 2) => {
                self.writer.send_data(0, datagram).is_ok()
            }
            Poll::Ready(_) | Poll::Pending => false,
        }
    }

    /// The next datagram, or why none comes any more.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, UdpEnded>> {
        loop {
            if let Some(ended) = self.ended {
                return Poll::Ready(Err(ended));
            }
            let frame = match ready!(self.reader.poll_next::<FlowFrame>(cx)) {
                Some(Ok(frame)) => frame.frame,
                Some(Err(_)) | None => {
                    self.ended = Some(UdpEnded::Over);
                    continue;
                }
            };
            match frame {
                Some(flow_frame::Frame::Data(data)) => return Poll::Ready(Ok(data.bytes)),
                Some(flow_frame::Frame::Reset(Reset { reason })) if reason == REFUSED => {
                    self.ended = Some(UdpEnded::Refused);
                }
                Some(flow_frame::Frame::Reset(_) | flow_frame::Frame::Fin(_)) => self.ended = Some(UdpEnded::Over),
                _ => {}
            }
        }
    }
}

impl Drop for UdpFlow {
    fn drop(&mut self) {
        if self.ended.is_none() {
            drop(self.writer.send_flow(flow_frame::Frame::Reset(Reset { reason: String::new() })));
        }
        self.writer.finish();
    }
}
