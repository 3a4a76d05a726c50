//! Two ends and a carrier between them that is cut anywhere, in the middle of frames too.

use bytes::{BufMut as _, BytesMut};
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof};
use proptest::proptest;
use proptest::test_runner::TestCaseError;
use prost::Message as _;

use super::*;
use crate::assembly::Assembly;
use crate::credit::{Receiver, Sender};
use crate::frames::{Ack, Data, Fin, FlowFrame, Resume, Resumed, flow_frame::Frame};

const NEAR: usize = 0;
const FAR: usize = 1;

/// What one end is as far as the carrier goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Going,
    Detached,
    /// It asked, and waits for the answer.
    Asking,
}

struct End<'a> {
    outbox: Outbox<&'a Budget>,
    sender: Sender,
    receiver: Receiver<&'a Budget>,
    phase: Phase,
    /// On its way to the other end.
    wire: BytesMut,
    /// Of what comes from the other end.
    assembly: Assembly,
    written: u64,
    got: Vec<u8>,
    taken: u64,
    fins: usize,
    clock: u64,
}

/// The byte at an offset of a direction.
fn byte(from: usize, offset: u64) -> u8 {
    (offset.wrapping_mul(2_654_435_761) >> 7) as u8 ^ (from as u8)
}

impl<'a> End<'a> {
    fn new(budget: &'a Budget) -> End<'a> {
        End {
            outbox: Outbox::new(budget, Keeping::Everything),
            sender: Sender::default(),
            receiver: Receiver::new(budget, 0).expect("a place"),
            phase: Phase::Going,
            wire: BytesMut::new(),
            assembly: Assembly::default(),
            written: 0,
            got: Vec::new(),
            taken: 0,
            fins: 0,
            clock: 0,
        }
    }

    fn received(&self) -> u64 {
        self.receiver.received() + self.fins as u64
    }

    fn say(&mut self, frame: Frame) {
        let frame = FlowFrame { frame: Some(frame) };
        self.wire.put_u8(0);
        self.wire.put_u32(frame.encoded_len() as u32);
        frame.encode(&mut self.wire).expect("room");
    }

    /// What has to go out before anything new.
    fn resend(&mut self, room: usize) {
        while self.phase == Phase::Going
            && let Some((offset, bytes)) = self.outbox.again(room)
        {
            self.say(Frame::Data(Data { offset, bytes }));
        }
        if self.phase == Phase::Going && self.outbox.take_fin() {
            self.say(Frame::Fin(Fin {}));
        }
    }

    fn write(&mut self, from: usize, length: u64) {
        let length = length.min(self.sender.available());
        if self.phase != Phase::Going || self.outbox.finished || length == 0 {
            return;
        }
        let offset = self.sender.offset();
        let bytes: Bytes = (offset..offset + length).map(|at| byte(from, at)).collect::<Vec<u8>>().into();
        self.sender.sent(length);
        self.written += length;
        let behind = self.outbox.has_again();
        self.outbox.sent(&bytes);
        if !behind {
            self.say(Frame::Data(Data { offset, bytes }));
        }
    }

    fn take(&mut self, length: u64) {
        let length = length.min(self.got.len() as u64 - self.taken);
        self.taken += length;
        self.clock += 50_000;
        if let Some(grant) = self.receiver.taken(length, self.clock, 10_000)
            && self.phase == Phase::Going
        {
            let received = self.received();
            self.say(Frame::Ack(Ack { received, limit: grant.limit }));
        }
    }

    fn acknowledge(&mut self) {
        if self.phase == Phase::Going {
            let received = self.received();
            self.say(Frame::Ack(Ack { received, limit: 0 }));
        }
    }

    fn restate(&mut self) {
        let received = self.received();
        let limit = self.receiver.resumed().limit;
        self.say(Frame::Ack(Ack { received, limit }));
    }

    /// What one frame does. Whether the flow goes on.
    fn hear(&mut self, frame: Frame) -> Result<bool, TestCaseError> {
        match frame {
            Frame::Data(Data { offset, bytes }) => {
                prop_assert_eq!(self.fins, 0, "after the end");
                prop_assert!(self.receiver.arrived(offset, bytes.len() as u64).is_ok(), "doubled, lost or not granted");
                self.got.extend(bytes);
            }
            Frame::Ack(Ack { received, limit }) => {
                prop_assert!(self.outbox.acknowledged(received).is_ok());
                self.sender.granted(limit);
            }
            Frame::Fin(Fin {}) => {
                prop_assert_eq!(self.fins, 0, "two ends");
                self.fins = 1;
                self.receiver.finished();
                self.acknowledge();
            }
            Frame::Resume(Resume { received, .. }) => {
                prop_assert_eq!(self.phase, Phase::Detached);
                if self.outbox.resume(received).is_err() {
                    return Ok(false);
                }
                self.phase = Phase::Going;
                let received = self.received();
                self.say(Frame::Resumed(Resumed { received }));
                self.restate();
            }
            Frame::Resumed(Resumed { received }) => {
                prop_assert_eq!(self.phase, Phase::Asking);
                if self.outbox.resume(received).is_err() {
                    return Ok(false);
                }
                self.phase = Phase::Going;
                self.restate();
            }
            Frame::Open(_)
            | Frame::Opened(_)
            | Frame::Failed(_)
            | Frame::Attach(_)
            | Frame::Reset(_)
            | Frame::Recall(_)
            | Frame::Yielded(_) => panic!("{frame:?}"),
        }
        Ok(true)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize, u64),
    Finish(usize),
    Resend(usize, usize),
    /// So many bytes of what an end has said arrive.
    Deliver(usize, usize),
    Take(usize, u64),
    Acknowledge(usize),
    Cut,
    Connect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let end = || any::<bool>().prop_map(usize::from);
    let step = prop_oneof![
        6 => (end(), 1_u64..5000).prop_map(|(end, length)| Step::Write(end, length)),
        1 => end().prop_map(Step::Finish),
        4 => (end(), 1_usize..3000).prop_map(|(end, room)| Step::Resend(end, room)),
        10 => (end(), 1_usize..9000).prop_map(|(end, length)| Step::Deliver(end, length)),
        6 => (end(), 1_u64..9000).prop_map(|(end, length)| Step::Take(end, length)),
        3 => end().prop_map(Step::Acknowledge),
        2 => Just(Step::Cut),
        3 => Just(Step::Connect),
    ];
    proptest::collection::vec(step, 1..400)
}

struct World<'a> {
    ends: [End<'a>; 2],
    /// Whether the flow goes on: what was not kept ends it.
    lives: bool,
}

impl<'a> World<'a> {
    fn new(budgets: &'a [Budget; 2]) -> World<'a> {
        let mut ends = [End::new(&budgets[NEAR]), End::new(&budgets[FAR])];
        let limits = [&ends[FAR], &ends[NEAR]].map(|end| end.receiver.first_limit());
        for (end, limit) in ends.iter_mut().zip(limits) {
            end.sender.granted(limit);
        }
        World { ends, lives: true }
    }

    fn deliver(&mut self, from: usize, length: usize) -> Result<(), TestCaseError> {
        let wire = &mut self.ends[from].wire;
        let chunk = wire.split_to(length.min(wire.len())).freeze();
        let to = &mut self.ends[1 - from];
        to.assembly.push(chunk);
        while let Some(mut message) = to.assembly.take().expect("well formed") {
            let message = message.copy_to_bytes(message.remaining());
            let frame = FlowFrame::decode(message).expect("a frame").frame.expect("known");
            self.lives &= to.hear(frame)?;
        }
        Ok(())
    }

    fn cut(&mut self) {
        for end in &mut self.ends {
            end.wire.clear();
            end.assembly = Assembly::default();
            end.phase = Phase::Detached;
        }
    }

    fn connect(&mut self) {
        let near = &mut self.ends[NEAR];
        if near.phase == Phase::Detached {
            near.phase = Phase::Asking;
            let received = near.received();
            near.say(Frame::Resume(Resume { flow_id: Bytes::new(), received }));
        }
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Write(end, length) => self.ends[end].write(end, length),
            Step::Finish(end) => {
                self.ends[end].outbox.finish();
                self.ends[end].resend(usize::MAX);
            }
            Step::Resend(end, room) => self.ends[end].resend(room),
            Step::Deliver(from, length) => self.deliver(from, length)?,
            Step::Take(end, length) => self.ends[end].take(length),
            Step::Acknowledge(end) => self.ends[end].acknowledge(),
            Step::Cut => self.cut(),
            Step::Connect => self.connect(),
        }
        Ok(())
    }

    /// Nothing disturbs it any more, and both ends finish.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        self.connect();
        for round in 0..1000 {
            for end in [NEAR, FAR] {
                if round > 0 && self.ends[end].phase == Phase::Going {
                    self.ends[end].outbox.finish();
                }
                self.ends[end].resend(1000);
                self.deliver(end, usize::MAX)?;
                self.ends[end].take(u64::MAX);
                self.ends[end].acknowledge();
            }
            if !self.lives || self.ends.iter().all(|end| end.outbox.is_settled() && end.fins == 1) {
                break;
            }
        }
        Ok(())
    }

    /// Each end has a part of what the other wrote, as it was written; all of it when the flow lived.
    fn check(&self) -> Result<(), TestCaseError> {
        for from in [NEAR, FAR] {
            let (wrote, got) = (&self.ends[from], &self.ends[1 - from].got);
            prop_assert!(got.iter().zip(0..).all(|(got, at)| *got == byte(from, at)));
            prop_assert!(got.len() as u64 <= wrote.written);
            if self.lives {
                prop_assert_eq!(got.len() as u64, wrote.written);
                prop_assert!(wrote.outbox.is_settled());
                prop_assert_eq!(self.ends[1 - from].fins, 1);
            }
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn wherever_carriers_are_cut_every_byte_arrives_once_and_in_order(steps in steps()) {
        let budgets = [Budget::new(1 << 20, 16), Budget::new(1 << 18, 4)];
        let mut world = World::new(&budgets);
        for step in steps {
            world.step(step)?;
            prop_assert!(world.lives, "there was room to keep everything");
        }
        world.settle()?;
        world.check()?;
        prop_assert!(budgets.iter().all(|budget| budget.kept() == 0));
    }

    #[test]
    fn a_flow_that_cannot_be_kept_goes_on_or_ends_and_never_lies(steps in steps(), keeps in 0_u64..20_000) {
        let budgets = [Budget::new(1 << 20, 16).that_keeps(keeps), Budget::new(1 << 18, 4).that_keeps(keeps / 2)];
        let mut world = World::new(&budgets);
        for step in steps {
            world.step(step)?;
            prop_assert!(budgets[NEAR].kept() <= keeps && budgets[FAR].kept() <= keeps / 2);
            if !world.lives {
                break;
            }
        }
        if world.lives {
            world.settle()?;
        }
        world.check()?;
        drop(world);
        prop_assert!(budgets.iter().all(|budget| budget.kept() == 0), "given back");
    }
}

fn chunk(length: usize) -> Bytes {
    Bytes::from(vec![7; length])
}

#[test]
fn what_the_peer_has_is_let_go_and_the_rest_goes_out_again() {
    let budget = Budget::new(1 << 20, 16);
    let mut outbox = Outbox::new(&budget, Keeping::Everything);
    outbox.sent(&chunk(3000));
    outbox.sent(&chunk(500));
    outbox.finish();
    assert!(outbox.take_fin() && !outbox.take_fin());
    assert_eq!(budget.kept(), 3500);
    assert_eq!(outbox.acknowledged(1000), Ok(()));
    assert_eq!(budget.kept(), 2500);
    assert_eq!(outbox.resume(999), Err(ResumeError::Stale));
    assert_eq!(outbox.resume(3502), Err(ResumeError::Lost), "more than there is");
    assert_eq!(outbox.resume(1200), Ok(()));
    assert!(!outbox.take_fin(), "before the bytes");
    let pieces: Vec<(u64, usize)> =
        std::iter::from_fn(|| outbox.again(1500)).map(|(offset, piece)| (offset, piece.len())).collect();
    assert_eq!(pieces, [(1200, 1500), (2700, 300), (3000, 500)]);
    assert!(outbox.take_fin());
    assert_eq!(outbox.acknowledged(3500), Ok(()));
    assert!(!outbox.is_settled(), "the end is not there yet");
    assert_eq!(outbox.acknowledged(3501), Ok(()));
    assert!(outbox.is_settled());
    assert_eq!(outbox.acknowledged(3502), Err(AckBroken));
    assert_eq!(budget.kept(), 0);
}

#[test]
fn a_peer_that_grants_without_end_and_acknowledges_nothing_makes_nobody_keep_without_end() {
    let budget = Budget::new(1 << 20, 16);
    let mut outbox = Outbox::new(&budget, Keeping::Everything);
    let piece = chunk(crate::MAX_DATA);
    for _ in 0..2 * FLOW_KEEPS / crate::MAX_DATA as u64 {
        outbox.sent(&piece);
        assert!(budget.kept() <= FLOW_KEEPS);
    }
    // It cannot go on elsewhere with a peer that lacks what was let go, and can once the peer has that.
    assert_eq!(outbox.resume(0), Err(ResumeError::Lost));
    let sent = 2 * FLOW_KEEPS;
    assert_eq!(outbox.acknowledged(sent), Ok(()));
    outbox.sent(&chunk(10));
    assert_eq!(outbox.resume(sent), Ok(()));
    assert_eq!(outbox.again(100), Some((sent, chunk(10))));
}

#[test]
fn nothing_is_kept_for_a_peer_that_does_not_know_how_to_go_on() {
    let budget = Budget::new(1 << 20, 16);
    let mut outbox = Outbox::new(&budget, Keeping::Nothing);
    outbox.sent(&chunk(3000));
    assert_eq!(budget.kept(), 0);
    assert_eq!(outbox.resume(3000), Err(ResumeError::Lost));
}

#[test]
fn small_pieces_are_kept_in_few_blocks() {
    let budget = Budget::new(1 << 20, 16);
    let mut outbox = Outbox::new(&budget, Keeping::Everything);
    for _ in 0..100_000 {
        outbox.sent(&Bytes::from_static(b"."));
    }
    assert_eq!(outbox.resume(0), Ok(()));
    assert!(outbox.again.len() < 10, "{} blocks", outbox.again.len());
}

/// A peer that takes a flow over and then says that it has everything must not leave behind what nobody counts.
#[test]
fn nothing_is_held_for_a_peer_that_has_it() {
    let budget = Budget::new(1 << 20, 4);
    let mut outbox = Outbox::new(&budget, Keeping::Everything);
    for chunk in [&b"first"[..], b"second", b"third"] {
        outbox.sent(&Bytes::copy_from_slice(chunk));
    }
    outbox.resume(0).unwrap();
    assert_eq!(outbox.again(2), Some((0, Bytes::from_static(b"fi"))));
    outbox.acknowledged(7).unwrap();
    assert_eq!(outbox.again(2), Some((7, Bytes::from_static(b"co"))));
    outbox.acknowledged(16).unwrap();
    assert!(!outbox.has_again() && outbox.again.capacity() == 0);
    // What is new goes out as ever.
    outbox.sent(&Bytes::from_static(b"new"));
    assert!(!outbox.has_again());
}
