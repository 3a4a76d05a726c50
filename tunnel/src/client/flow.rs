//! Flows as the workstation drives them: by polling, from one task each.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::Shared;
use crate::credit::{Budget, Receiver, Sender};
use crate::frames::{Ack, CREDIT_BROKEN, Data, Fin, FlowFrame, REFUSED, Recall, Reset, Yielded, flow_frame};
use crate::queue::Queue;
use crate::review::Reviews;
use crate::wire::{Reader, Writer};
use crate::words::Words;

/// How long a dropped flow that both ends finished may wait for the agent to end its stream. What takes longer has left
/// for the agent by then, which needs no carrier to deliver it; a stream of a hung agent must not be held for ever.
const LEAVE_WITHIN: Duration = Duration::from_secs(30);

/// How far one direction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Open,
    Finished,
    /// Both directions ended at once.
    Reset,
}

/// What came from the far side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The next bytes.
    Data(Bytes),
    /// The far side finished its direction.
    Fin,
    /// The flow is over.
    Reset,
}

/// The flow is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the flow has ended")]
pub struct Ended;

/// A handle on the session's budget.
#[derive(Debug)]
pub(super) struct Buffers(pub(super) Arc<Budget>);

impl std::ops::Deref for Buffers {
    type Target = Budget;
    fn deref(&self) -> &Budget {
        &self.0
    }
}

/// One TCP flow. Driven by polling from one task; dropping it unfinished resets it.
#[derive(Debug)]
pub struct TcpFlow {
    /// Taken only by `drop`.
    reader: Option<Reader>,
    writer: Writer,
    receiver: Receiver<Buffers>,
    reviews: Reviews,
    words: Words,
    sender: Sender,
    shared: Arc<Shared>,
    /// Bytes handed out by the last event and not yet acknowledged.
    unacknowledged: u64,
    ours: Side,
    theirs: Side,
    /// Taken off the stream and not handed out; the credit we granted bounds it.
    queue: Queue,
    /// Handed out when the queue is empty: the end of their direction, then that of the flow.
    fin_waits: bool,
    reset_waits: bool,
}

impl TcpFlow {
    /// A flow that the agent has opened, with the limit that it named.
    pub(super) fn new(
        reader: Reader,
        writer: Writer,
        receiver: Receiver<Buffers>,
        limit: u64,
        shared: Arc<Shared>,
    ) -> TcpFlow {
        TcpFlow {
            reader: Some(reader),
            writer,
            receiver,
            reviews: Reviews::default(),
            words: Words::default(),
            sender: Sender::new(limit),
            shared,
            unacknowledged: 0,
            ours: Side::Open,
            theirs: Side::Open,
            queue: Queue::default(),
            fin_waits: false,
            reset_waits: false,
        }
    }

    /// Ready with how many bytes may be sent now.
    pub fn poll_send_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Ended>> {
        if self.ours != Side::Open {
            return Poll::Ready(Err(Ended));
        }
        while self.sender.available() == 0 {
            // Credit comes on the same stream as data, so data is taken off to get at it.
            ready!(self.poll_frame(cx));
            if self.ours != Side::Open {
                return Poll::Ready(Err(Ended));
            }
        }
        ready!(self.words.poll(cx, &mut self.writer)).map_err(|_| Ended)?;
        match ready!(self.writer.poll_room(cx)) {
            Ok(room) => {
                let credit = usize::try_from(self.sender.available()).unwrap_or(usize::MAX);
                Poll::Ready(Ok(room.min(credit)))
            }
            Err(_) => Poll::Ready(Err(Ended)),
        }
    }

    /// Sends at most as many bytes as [`TcpFlow::poll_send_ready`] last said.
    pub fn send(&mut self, data: Bytes) -> Result<(), Ended> {
        if self.ours != Side::Open {
            return Err(Ended);
        }
        let (offset, length) = (self.sender.offset(), data.len() as u64);
        self.sender.sent(length);
        self.writer.send_data(offset, data).map_err(|_| Ended)
    }

    /// Finishes our direction.
    pub fn send_fin(&mut self) {
        if self.ours == Side::Open {
            self.ours = Side::Finished;
            drop(self.writer.send_flow(flow_frame::Frame::Fin(Fin {})));
        }
    }

    /// Ends both directions at once.
    pub fn send_reset(&mut self) {
        self.reset("");
    }

    fn reset(&mut self, reason: &str) {
        if self.ours != Side::Reset {
            let over = self.ours == Side::Finished && self.theirs == Side::Finished;
            self.ours = Side::Reset;
            self.theirs = Side::Reset;
            self.receiver.finished();
            if !over {
                drop(self.writer.send_flow(flow_frame::Frame::Reset(Reset { reason: reason.to_owned() })));
            }
            self.writer.finish();
        }
    }

    /// The next event. Taking one acknowledges the data of the event before.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        self.acknowledge();
        self.speak(cx);
        loop {
            if let Some(data) = self.queue.pop() {
                self.unacknowledged = data.len() as u64;
                return Poll::Ready(Event::Data(data));
            }
            if std::mem::take(&mut self.fin_waits) {
                return Poll::Ready(Event::Fin);
            }
            if std::mem::take(&mut self.reset_waits) {
                return Poll::Ready(Event::Reset);
            }
            if self.theirs != Side::Open && self.ours != Side::Open {
                return Poll::Pending;
            }
            ready!(self.poll_frame(cx));
        }
    }

    /// Takes what came off the carrier, where it would wait uncounted and in pieces of any size. To be called by a task
    /// that does not take events just now, which is woken when more comes.
    pub fn poll_arrivals(&mut self, cx: &mut Context<'_>) {
        self.speak(cx);
        while (self.theirs == Side::Open || self.ours == Side::Open) && self.poll_frame(cx).is_ready() {}
    }

    fn acknowledge(&mut self) {
        let length = std::mem::take(&mut self.unacknowledged);
        if length > 0 {
            let grant = self.receiver.taken(length, self.shared.now(), self.shared.round_trip());
            grant.into_iter().for_each(|grant| self.words.grant(grant));
        }
    }

    /// Says what waits, and asks for what the far side does not use.
    fn speak(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Ok(())) = self.words.poll(cx, &mut self.writer)
            && self.theirs == Side::Open
            && let Some(limit) = self.reviews.poll(cx, &mut self.receiver)
        {
            self.words.recall(limit);
        }
    }

    /// Takes one frame off the stream. `Pending` for ever once there is no stream.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(reader) = &mut self.reader else { return Poll::Pending };
        // What the frame before made us say. That the stream ended is read off it as well.
        drop(self.words.poll(cx, &mut self.writer));
        let frame = match ready!(reader.poll_next::<FlowFrame>(cx)) {
            Some(Ok(frame)) => frame.frame,
            Some(Err(_)) | None => {
                self.broken();
                return Poll::Ready(());
            }
        };
        match frame {
            Some(flow_frame::Frame::Data(Data { offset, bytes })) => {
                let length = bytes.len() as u64;
                if self.theirs != Side::Open || self.receiver.arrived(offset, length).is_err() {
                    self.reset(CREDIT_BROKEN);
                    self.reset_waits = true;
                } else {
                    self.queue.push(bytes);
                }
            }
            Some(flow_frame::Frame::Ack(Ack { limit, .. })) => self.sender.granted(limit),
            Some(flow_frame::Frame::Recall(Recall { limit })) => {
                let limit = self.sender.recalled(limit);
                self.words.yielded(limit);
            }
            Some(flow_frame::Frame::Yielded(Yielded { limit })) => {
                let grant = self.receiver.yielded(limit);
                grant.into_iter().for_each(|grant| self.words.grant(grant));
            }
            Some(flow_frame::Frame::Fin(_)) if self.theirs == Side::Open => {
                self.theirs = Side::Finished;
                self.receiver.finished();
                self.fin_waits = true;
            }
            Some(flow_frame::Frame::Reset(_)) => self.broken(),
            _ => {}
        }
        Poll::Ready(())
    }

    /// The stream ended, or the far side reset the flow.
    fn broken(&mut self) {
        let orderly = self.theirs == Side::Finished && self.ours == Side::Finished;
        let known = self.ours == Side::Reset;
        self.ours = Side::Reset;
        self.theirs = Side::Reset;
        self.receiver.finished();
        self.writer.finish();
        self.reset_waits = !orderly && !known;
    }
}

impl Drop for TcpFlow {
    fn drop(&mut self) {
        if self.ours != Side::Finished || self.theirs != Side::Finished {
            return self.send_reset();
        }
        self.writer.finish();
        let Some(mut reader) = self.reader.take() else { return };
        let mut cx = Context::from_waker(std::task::Waker::noop());
        if let Poll::Ready(None | Some(Err(_))) = reader.poll_next::<FlowFrame>(&mut cx) {
            return;
        }
        // A stream dropped before the agent ended it is cancelled, and what is queued on it is thrown away with it.
        self.shared.runtime.spawn(async move {
            let ended = async { while let Some(Ok(_)) = reader.next::<FlowFrame>().await {} };
            drop(timeout(LEAVE_WITHIN, ended).await);
        });
    }
}

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

    /// Sends one datagram; drops it when the way is congested.
    pub fn send(&mut self, datagram: Bytes) {
        if datagram.len() > crate::MAX_DATA || self.ended.is_some() {
            return;
        }
        let mut cx = Context::from_waker(std::task::Waker::noop());
        if let Poll::Ready(Ok(room)) = self.writer.poll_room(&mut cx)
            && room >= datagram.len().min(crate::MAX_DATA / 2)
        {
            drop(self.writer.send_data(0, datagram));
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
