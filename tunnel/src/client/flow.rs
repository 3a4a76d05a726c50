//! TCP flows as the workstation drives them: by polling, from one task each.
//!
//! ```text
//!   going ──── its carrier ended ───▶ resuming ──── the line is over, the time is over,  ──▶ over
//!     ▲                                   │          or the agent does not know the flow
//!     └──── taken over by the next one ───┘
//! ```

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::stream::{Going, Moved, Stream, Way};
use super::tide::Tide;
use super::{Direction, Shared};
use crate::acks::Acks;
use crate::credit::{Budget, Grant, Receiver, Sender};
use crate::frames::{Ack, CREDIT_BROKEN, Data, FlowFrame, Recall, Reset, Yielded, flow_frame};
use crate::queue::Queue;
use crate::resend;
use crate::resume::{Keeping, Outbox};
use crate::review::Reviews;
use crate::wire::WireError;
use crate::words::Words;
use crate::{RESUME_WINDOW, resume};

/// How long a dropped flow that both ends finished may wait for the agent to end its stream. What takes longer has left
/// for the agent by then, which needs no carrier to deliver it; a stream of a hung agent must not be held for ever.
const LEAVE_WITHIN: Duration = Duration::from_secs(30);

/// The reason of a [`Reset`] of a flow that could not go on over another carrier.
const NOT_KEPT: &str = "what the peer lacks was not kept";

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
    flow: Option<Flow>,
}

#[derive(Debug)]
struct Flow {
    stream: Stream,
    /// Of the carrier that the flow was opened on: its clock stays the flow's.
    first: Arc<Shared>,
    receiver: Receiver<Buffers>,
    reviews: Reviews,
    words: Words,
    acks: Acks,
    sender: Sender,
    outbox: Outbox<Buffers>,
    tide: Tide,
    /// It moves much, most of it that way, and looks for a carrier for that.
    is_bulk: Option<Direction>,
    /// How often it was not taken over there, and how often it stays before it asks again.
    refused: u32,
    patience: u32,
    /// Room was told, and nothing has been sent since.
    promised: bool,
    /// Bytes handed out by the last event, for which no credit was given yet.
    unacknowledged: u64,
    ours: Side,
    theirs: Side,
    /// Our `Fin` followed theirs, and took the end of the stream along: the agent ends it in turn when it has everything, and
    /// no longer keeps the flow.
    all_is_said: bool,
    /// Their `Fin` is here, whatever became of the flow since.
    their_fin: bool,
    /// Taken off the stream and not handed out; the credit we granted bounds it.
    queue: Queue,
    /// Handed out when the queue is empty: the end of their direction, then that of the flow.
    fin_waits: bool,
    reset_waits: bool,
}

impl TcpFlow {
    /// A flow that the agent has opened, with the limit that it named.
    pub(super) fn new(stream: Stream, first: Arc<Shared>, receiver: Receiver<Buffers>, limit: u64) -> TcpFlow {
        let keeping = if stream.may_resume() { Keeping::Everything } else { Keeping::Nothing };
        let outbox = Outbox::new(Buffers(Arc::clone(&first.budget)), keeping);
        TcpFlow {
            flow: Some(Flow {
                stream,
                first,
                receiver,
                reviews: Reviews::default(),
                words: Words::default(),
                acks: Acks::default(),
                sender: Sender::new(limit),
                outbox,
                tide: Tide::default(),
                is_bulk: None,
                refused: 0,
                patience: 0,
                promised: false,
                unacknowledged: 0,
                ours: Side::Open,
                theirs: Side::Open,
                all_is_said: false,
                their_fin: false,
                queue: Queue::default(),
                fin_waits: false,
                reset_waits: false,
            }),
        }
    }

    /// Ready with how many bytes may be sent now.
    pub fn poll_send_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Ended>> {
        self.flow.as_mut().map_or(Poll::Ready(Err(Ended)), |flow| flow.poll_send_ready(cx))
    }

    /// Sends at most as many bytes as [`TcpFlow::poll_send_ready`] last said.
    pub fn send(&mut self, data: Bytes) -> Result<(), Ended> {
        self.flow.as_mut().map_or(Err(Ended), |flow| flow.send(data))
    }

    /// Finishes our direction.
    pub fn send_fin(&mut self) {
        if let Some(flow) = &mut self.flow {
            flow.send_fin();
        }
    }

    /// Ends both directions at once.
    pub fn send_reset(&mut self) {
        if let Some(flow) = &mut self.flow {
            flow.reset("");
        }
    }

    /// The next event. Taking one gives credit for the data of the event before, and asking for one after the `Fin` tells the
    /// agent that it is here.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        self.flow.as_mut().map_or(Poll::Pending, |flow| flow.poll_event(cx))
    }

    /// Takes what came off the carrier, where it would wait uncounted and in pieces of any size. To be called by a task
    /// that does not take events just now, which is woken when more comes.
    pub fn poll_arrivals(&mut self, cx: &mut Context<'_>) {
        if let Some(flow) = &mut self.flow {
            flow.poll_arrivals(cx);
        }
    }

    /// Whether it waits for another carrier, or has to say there again what it said before.
    pub fn stands_still(&self) -> bool {
        self.flow.as_ref().is_some_and(|flow| matches!(flow.stream.way, Way::Resuming(_)) || flow.outbox.has_again())
    }
}

impl Flow {
    /// What is here of their direction, in words of the protocol.
    fn received(&self) -> u64 {
        self.receiver.received() + u64::from(self.their_fin)
    }

    fn poll_send_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Ended>> {
        self.promised = false;
        loop {
            if self.ours != Side::Open {
                return Poll::Ready(Err(Ended));
            }
            if self.sender.available() > 0
                && let Some(room) = ready!(self.poll_room(cx))
            {
                let credit = usize::try_from(self.sender.available()).unwrap_or(usize::MAX);
                self.promised = true;
                return Poll::Ready(Ok(room.min(credit)));
            }
            // Credit comes on the same stream as data, so data is taken off to get at it; and so does the stream's end.
            ready!(self.poll_frame(cx));
        }
    }

    /// Room for new data on the carrier; none where there is no carrier.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Option<usize>> {
        let Some(writer) = self.stream.writer() else { return Poll::Ready(None) };
        let said = ready!(self.words.poll(cx, writer));
        if said.is_err() || ready!(resend::poll(&mut self.outbox, writer, cx)).is_err() {
            return Poll::Ready(None);
        }
        writer.poll_room(cx).map(Result::ok)
    }

    fn send(&mut self, data: Bytes) -> Result<(), Ended> {
        if self.ours != Side::Open {
            return Err(Ended);
        }
        self.promised = false;
        let (offset, length) = (self.sender.offset(), data.len() as u64);
        self.sender.sent(length);
        let behind = self.outbox.has_again();
        self.outbox.sent(&data);
        let gone = match self.stream.writer().filter(|_| !behind) {
            Some(writer) => writer.send_data(offset, data).is_err(),
            None => false,
        };
        self.moved(length, Direction::Up);
        if gone && !self.stream.may_resume() { Err(Ended) } else { Ok(()) }
    }

    /// So many bytes were sent or handed out. Goes over to another carrier with the next poll, which can be woken by it.
    fn moved(&mut self, length: u64, direction: Direction) {
        if let Some(most) = self.tide.moved(length, direction, || self.first.now()) {
            if self.patience == 0 {
                self.is_bulk = Some(most);
            }
            self.patience = self.patience.saturating_sub(1);
        }
    }

    fn send_fin(&mut self) {
        if self.ours == Side::Open {
            self.ours = Side::Finished;
            self.outbox.finish();
            if let Some(writer) = self.stream.writer() {
                // What it has to follow may need room, for which somebody has to be woken.
                if !self.outbox.has_again() {
                    let mut cx = Context::from_waker(Waker::noop());
                    drop(resend::poll(&mut self.outbox, writer, &mut cx));
                    // Who still takes what came may yet have to say that it is reset.
                    let all_is_heard = self.theirs == Side::Finished && self.queue.is_empty() && !self.fin_waits;
                    if all_is_heard && self.stream.may_resume() {
                        self.all_is_said = true;
                        self.stream.finish();
                    }
                }
            }
        }
    }

    /// Both directions ended in order, and so does the flow.
    fn is_orderly(&self) -> bool {
        let settled = self.outbox.is_settled() || !self.stream.may_resume();
        self.theirs == Side::Finished && self.ours == Side::Finished && settled
    }

    fn reset(&mut self, reason: &str) {
        if self.ours == Side::Reset {
            return;
        }
        if self.is_orderly() {
            // It is over already. A last word that waits for room goes first, then the drop ends the stream.
            if self.words.is_empty() {
                self.stream.finish();
            }
            return;
        }
        self.ours = Side::Reset;
        self.theirs = Side::Reset;
        self.receiver.finished();
        // Nothing of it is told again, but that it is over.
        self.outbox.forget();
        if let Some(writer) = self.stream.writer() {
            drop(writer.send_flow(flow_frame::Frame::Reset(Reset { reason: reason.to_owned() })));
        }
        self.stream.finish();
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        self.give_credit();
        self.speak(cx);
        loop {
            if let Some(data) = self.queue.pop() {
                self.unacknowledged = data.len() as u64;
                self.moved(self.unacknowledged, Direction::Down);
                return Poll::Ready(Event::Data(data));
            }
            if std::mem::take(&mut self.fin_waits) {
                return Poll::Ready(Event::Fin);
            }
            if std::mem::take(&mut self.reset_waits) {
                return Poll::Ready(Event::Reset);
            }
            if self.is_quiet() {
                return Poll::Pending;
            }
            ready!(self.poll_frame(cx));
        }
    }

    fn poll_arrivals(&mut self, cx: &mut Context<'_>) {
        self.speak(cx);
        while !self.is_quiet() && self.poll_frame(cx).is_ready() {}
        // Of what has just come the agent has to hear, though nothing else may wake this task.
        self.speak(cx);
    }

    /// Whether nothing comes any more that changes anything for the program.
    fn is_quiet(&self) -> bool {
        let unsettled = self.ours == Side::Finished && self.stream.may_resume() && !self.outbox.is_settled();
        self.theirs != Side::Open && self.ours != Side::Open && !unsettled
    }

    fn give_credit(&mut self) {
        let length = std::mem::take(&mut self.unacknowledged);
        if length > 0 {
            let round_trip = match &self.stream.way {
                Way::Going(going) => {
                    self.receiver.is_on_bulk(going.shared.bulk);
                    going.shared.round_trip()
                }
                Way::Resuming(_) | Way::Over => self.first.round_trip(),
            };
            let grant = self.receiver.taken(length, self.first.now(), round_trip);
            grant.into_iter().for_each(|grant| self.grant(grant));
        }
    }

    fn grant(&mut self, grant: Grant) {
        self.acks.told(grant.received);
        self.words.grant(grant);
    }

    /// Says what waits, and asks for what the far side does not use.
    fn speak(&mut self, cx: &mut Context<'_>) {
        let received = self.received();
        if self.stream.is_finished() {
            return;
        }
        let Some(writer) = self.stream.writer() else { return };
        if self.theirs != Side::Reset && self.outbox.keeps() && self.acks.poll(cx, received) {
            self.words.acknowledge(received);
        }
        while let Poll::Ready(Ok(())) = self.words.poll(cx, writer)
            && self.theirs == Side::Open
            && let Some(limit) = self.reviews.poll(cx, &mut self.receiver)
        {
            self.words.recall(limit);
        }
        // That the stream ended is read off it.
        drop(resend::poll(&mut self.outbox, writer, cx));
    }

    /// Leaves for the carrier for bulk where it moves much. Not while somebody was told that there is room on this one, and
    /// not where something that the agent may lack was not kept.
    fn consider_moving(&mut self) {
        let open = self.ours == Side::Open || self.theirs == Side::Open;
        if let Some(direction) = self.is_bulk
            && open
            && !self.promised
            && self.outbox.is_whole()
        {
            self.is_bulk = None;
            self.stream.move_to_bulk(direction, self.received());
        }
    }

    /// Takes one frame off the stream, or goes over to the next carrier. `Pending` for ever once there is no stream.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.consider_moving();
        let going = match &mut self.stream.way {
            Way::Going(going) => going,
            Way::Resuming(resuming) => {
                match ready!(resuming.as_mut().poll(cx)) {
                    Moved::There(going, has) => self.resumed(going, has, cx),
                    Moved::Stayed(going) => self.stayed(going, cx),
                    Moved::Over => self.ended(),
                }
                return Poll::Ready(());
            }
            Way::Over => return Poll::Pending,
        };
        // What the frame before made us say. That the stream ended is read off it as well.
        drop(self.words.poll(cx, &mut going.writer));
        match ready!(going.reader.poll_next::<FlowFrame>(cx)) {
            Some(Ok(frame)) => {
                self.stream.brought();
                self.take(frame.frame);
                self.close(cx);
            }
            Some(Err(WireError::Ended(_))) => self.lost(),
            Some(Err(WireError::Malformed)) => self.broken(),
            None => self.ended(),
        }
        Poll::Ready(())
    }

    fn take(&mut self, frame: Option<flow_frame::Frame>) {
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
            Some(flow_frame::Frame::Ack(Ack { received, limit })) => {
                if self.outbox.keeps() && self.outbox.acknowledged(received).is_err() {
                    self.reset(&resume::AckBroken.to_string());
                    self.reset_waits = true;
                }
                self.sender.granted(limit);
            }
            Some(flow_frame::Frame::Recall(Recall { limit })) => {
                let limit = self.sender.recalled(limit);
                self.words.yielded(limit);
            }
            Some(flow_frame::Frame::Yielded(Yielded { limit })) => {
                let grant = self.receiver.yielded(limit);
                grant.into_iter().for_each(|grant| self.grant(grant));
            }
            Some(flow_frame::Frame::Fin(_)) if self.theirs == Side::Open => {
                self.theirs = Side::Finished;
                self.their_fin = true;
                self.receiver.finished();
                self.fin_waits = true;
            }
            Some(flow_frame::Frame::Reset(_)) => self.broken(),
            _ => {}
        }
    }

    /// Ends our side of the stream once both ends have everything and know it, which says so to the agent. Until then it
    /// keeps the flow, so that one it does not know has not ended in order.
    fn close(&mut self, cx: &mut Context<'_>) {
        if self.stream.may_resume() && self.is_orderly() {
            self.speak(cx);
            if self.words.is_empty() {
                self.acks.told(self.received());
                self.stream.finish();
            }
        }
    }

    /// The carrier ended under the flow.
    fn lost(&mut self) {
        if !self.stream.lost(self.received()) {
            self.broken();
        }
    }

    /// Says on this stream that the flow is reset, and nothing more.
    fn say_reset(&mut self) {
        let reset = flow_frame::Frame::Reset(Reset { reason: String::new() });
        self.stream.writer().map(|writer| writer.send_flow(reset));
        self.stream.finish();
    }

    /// The carrier for bulk has not taken the flow over: what was said meanwhile is said here.
    fn stayed(&mut self, going: Going, cx: &mut Context<'_>) {
        self.stream.stayed(going);
        self.is_bulk = None;
        self.refused += 1;
        self.patience = 1 << self.refused.min(10);
        if self.ours == Side::Reset {
            return self.say_reset();
        }
        self.speak(cx);
    }

    /// The next carrier has taken the flow over; the agent has so much of our direction.
    fn resumed(&mut self, going: Going, has: u64, cx: &mut Context<'_>) {
        self.stream.resumed(going);
        self.all_is_said = false;
        if self.ours == Side::Reset {
            // Said on the carrier before, which may have taken it along.
            return self.say_reset();
        }
        if self.outbox.resume(has).is_err() {
            self.reset(NOT_KEPT);
            self.reset_waits = true;
            return;
        }
        self.words = Words::default();
        let grant = Grant { received: self.received(), ..self.receiver.resumed() };
        self.grant(grant);
        self.speak(cx);
    }

    /// The agent has ended the stream, or does not know the flow: in order, if nothing was left to say on either side.
    fn ended(&mut self) {
        if self.all_is_said && self.ours == Side::Finished {
            self.outbox.settle();
        }
        self.broken();
    }

    /// The stream ended, or the far side reset the flow.
    fn broken(&mut self) {
        let orderly = self.is_orderly();
        let known = self.ours == Side::Reset;
        self.ours = Side::Reset;
        self.theirs = Side::Reset;
        self.receiver.finished();
        self.stream.finish();
        self.stream.way = Way::Over;
        self.reset_waits = !orderly && !known;
    }

    /// Nobody will take what has come.
    fn forget_arrivals(&mut self) {
        let length = self.queue.bytes() + std::mem::take(&mut self.unacknowledged);
        self.queue = Queue::default();
        self.receiver.taken(length, self.first.now(), self.first.round_trip());
    }

    /// Sees to it that the agent hears all that was said, over another carrier if need be. Ready when it has, or cannot.
    fn poll_settle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.is_orderly() || matches!(self.stream.way, Way::Over) {
                return Poll::Ready(());
            }
            self.speak(cx);
            ready!(self.poll_frame(cx));
        }
    }

    /// Ready when the agent has ended the stream, too.
    fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.speak(cx);
            if self.is_orderly() && self.words.is_empty() {
                self.stream.finish();
            }
            if matches!(self.stream.way, Way::Over) {
                return Poll::Ready(());
            }
            ready!(self.poll_frame(cx));
        }
    }
}

impl Drop for TcpFlow {
    fn drop(&mut self) {
        let Some(mut flow) = self.flow.take() else { return };
        let runtime = flow.first.runtime.clone();
        // Its last words may set a timer.
        let _context = runtime.enter();
        if flow.ours != Side::Finished || flow.theirs != Side::Finished {
            flow.reset("");
        }
        let may_resume = flow.stream.may_resume();
        if flow.ours == Side::Reset && !may_resume {
            return;
        }
        flow.forget_arrivals();
        if flow.poll_leave(&mut Context::from_waker(Waker::noop())).is_ready() {
            return;
        }
        // A stream dropped before the agent ended it is cancelled, and what is queued on it is thrown away with it.
        runtime.spawn(async move {
            if may_resume {
                drop(timeout(RESUME_WINDOW + LEAVE_WITHIN, poll_fn(|cx| flow.poll_settle(cx))).await);
            }
            drop(timeout(LEAVE_WITHIN, poll_fn(|cx| flow.poll_leave(cx))).await);
        });
    }
}
