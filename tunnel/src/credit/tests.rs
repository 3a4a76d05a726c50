use std::collections::VecDeque;

use proptest::prelude::{ProptestConfig, Strategy, TestCaseError, any, prop_assert, prop_assert_eq, prop_assert_ne};
use proptest::proptest;

use super::*;

type Near<'a> = Receiver<&'a Budget>;

fn enter(budget: &Budget) -> Near<'_> {
    Receiver::new(budget, 0).expect("a place")
}

/// All that flows were granted or may yet be without asking.
fn promised(budget: &Budget, flows: u32) -> u64 {
    let places = u64::from(flows) - budget.places.load(Ordering::Relaxed);
    budget.pool_size - budget.pool.load(Ordering::Relaxed) + places * SMALLEST_WINDOW
}

/// Uses the whole window once in each round trip.
fn bulk(receiver: &mut Near<'_>, round_trips: u64) {
    const ROUND_TRIP: u64 = 80_000;
    let begin = receiver.epoch.0;
    for round_trip in 1..=round_trips {
        let chunk = receiver.granted - receiver.arrived;
        receiver.arrived(receiver.arrived, chunk).expect("within the limit");
        receiver.taken(chunk, begin + round_trip * ROUND_TRIP, ROUND_TRIP);
    }
}

#[test]
fn a_window_grows_only_while_it_is_the_limit() {
    let budget = Budget::new(8 * LARGEST_WINDOW, 2);
    let mut receiver = enter(&budget);
    bulk(&mut receiver, 20);
    assert_eq!(receiver.window, LARGEST_WINDOW);
    let mut slow = enter(&budget);
    slow.arrived(0, 1000).expect("within the limit");
    slow.taken(1000, 80_000, 80_000);
    assert_eq!(slow.window, FIRST_WINDOW);
}

#[test]
fn a_short_way_still_gets_a_window_that_covers_the_scheduling_at_its_ends() {
    /// 1 GB/s, the window's worth taken in quarters.
    const BYTES_A_MICROSECOND: u64 = 1000;
    let budget = Budget::new(WORKSTATION_BUFFERS, 16_384);
    let mut receiver = enter(&budget);
    let mut now = 0;
    while now < 2_000_000 {
        let chunk = receiver.window / 4;
        receiver.arrived(receiver.arrived, chunk).expect("within the limit");
        now += chunk / BYTES_A_MICROSECOND;
        receiver.taken(chunk, now, 50);
    }
    // Twice what passes in four milliseconds, rounded up to a power of two, and no more.
    assert!((4 << 20..=8 << 20).contains(&receiver.window), "{}", receiver.window);
}

#[test]
fn a_small_window_grows_with_every_round_trip() {
    let budget = Budget::new(WORKSTATION_BUFFERS, 16_384);
    let mut receiver = enter(&budget);
    receiver.window = SMALLEST_WINDOW;
    receiver.granted = SMALLEST_WINDOW;
    receiver.settle();
    let mut now = 0;
    while receiver.window < FIRST_WINDOW && now < 9 * SHORTEST_ROUND_TRIP {
        let chunk = receiver.granted - receiver.arrived;
        receiver.arrived(receiver.arrived, chunk).expect("within the limit");
        now += SHORTEST_ROUND_TRIP;
        receiver.taken(chunk, now, 1000);
    }
    assert_eq!(receiver.window, FIRST_WINDOW);
}

#[test]
fn a_flow_that_grew_leaves_growth_to_others_and_gives_its_own_back() {
    let budget = Budget::new(32 << 20, 16_384);
    let mut greedy = enter(&budget);
    bulk(&mut greedy, 40);
    let mut second = enter(&budget);
    bulk(&mut second, 40);
    assert!(greedy.window >= 4 << 20, "{}", greedy.window);
    assert!(second.window >= 2 << 20, "{}", second.window);
    drop((greedy, second));
    assert_eq!(promised(&budget, 16_384), 0);
    assert_eq!(budget.held(), 0);
}

#[test]
fn as_many_flows_as_may_be_have_a_window_and_all_may_stall_within_the_budget() {
    const TOTAL: u64 = 32 << 20;
    const FLOWS: u32 = 16_384;
    let budget = Budget::new(TOTAL, FLOWS);
    let mut bulky = enter(&budget);
    bulk(&mut bulky, 40);
    let mut flows: Vec<_> = (1..FLOWS).map(|_| enter(&budget)).collect();
    assert!(Receiver::new(&budget, 0).is_none(), "one more than there are places");
    assert_eq!(flows.last().map(Receiver::first_limit), Some(SMALLEST_WINDOW));
    for flow in &mut flows {
        flow.arrived(0, flow.first_limit()).expect("what was granted is taken");
    }
    let chunk = bulky.granted - bulky.arrived;
    bulky.arrived(bulky.arrived, chunk).expect("what was granted is taken");
    assert!(budget.held() > TOTAL / 2, "{}", budget.held());
    assert!(budget.held() <= promised(&budget, FLOWS) && promised(&budget, FLOWS) <= TOTAL);
    drop((flows, bulky));
    assert_eq!((budget.held(), promised(&budget, FLOWS)), (0, 0));
}

#[test]
fn a_hundred_flows_that_come_together_have_windows_worth_having() {
    let budget = Budget::new(WORKSTATION_BUFFERS, 16_384);
    let flows: Vec<_> = (0..100).map(|_| enter(&budget)).collect();
    assert_eq!(flows.first().map(Receiver::first_limit), Some(FIRST_WINDOW));
    assert!(flows.iter().all(|flow| flow.first_limit() >= 80 * 1024));
}

#[test]
fn flows_give_back_what_they_do_not_use_once_it_is_scarce_and_not_before() {
    let budget = Budget::new(32 << 20, 16_384);
    let mut first = enter(&budget);
    assert_eq!(first.review(), None, "there is enough");
    let mut others: Vec<_> = (0..500).map(|_| enter(&budget)).collect();
    let mut late = enter(&budget);
    bulk(&mut late, 20);
    assert!(late.window < 1 << 20, "the pool is out: {}", late.window);
    for flow in [&mut first].into_iter().chain(&mut others) {
        // Its sender has nothing to send.
        if let Some(limit) = flow.review() {
            assert_eq!(flow.yielded(limit), None);
        }
    }
    bulk(&mut late, 20);
    assert!(late.window >= 2 << 20, "{}", late.window);
    assert_eq!(first.window, first.granted);
    bulk(&mut first, 1);
    assert!(first.granted > first.arrived, "it goes on where it was");
}

#[test]
fn a_flow_that_uses_its_window_keeps_it_though_others_want_it() {
    let budget = Budget::new(32 << 20, 16_384);
    let mut bulky = enter(&budget);
    bulk(&mut bulky, 40);
    let _others: Vec<_> = (0..1000).map(|_| enter(&budget)).collect();
    let window = bulky.window;
    assert_eq!(bulky.review(), None);
    bulk(&mut bulky, 4);
    assert_eq!(bulky.review(), None);
    assert_eq!(bulky.window, window);
}

#[test]
fn what_a_finished_sender_was_granted_is_free_at_once() {
    let budget = Budget::new(32 << 20, 16_384);
    let mut flow = enter(&budget);
    flow.arrived(0, 5000).expect("within the limit");
    flow.finished();
    assert_eq!(promised(&budget, 16_384), 5000);
    assert_eq!(flow.arrived(5000, 1), Err(CreditBroken));
    assert_eq!(flow.taken(5000, 100_000, 1000), None, "nobody to grant to");
    assert_eq!(promised(&budget, 16_384), SMALLEST_WINDOW, "its place");
}

#[test]
fn an_answer_to_a_recall_says_nothing_about_what_was_granted_since() {
    let budget = Budget::new(4 << 20, 1024);
    let mut flow = enter(&budget);
    let mut sender = Sender::new(flow.first_limit());
    let _others: Vec<_> = (0..500).map(|_| enter(&budget)).collect();
    let limit = flow.review().expect("it is asked back");
    let chunk = sender.available();
    flow.arrived(0, chunk).expect("sent before the question came");
    sender.sent(chunk);
    let answer = sender.recalled(limit);
    let grant = flow.taken(chunk, 1000, 1000).expect("a window is used up");
    sender.granted(grant.limit);
    assert_eq!(flow.yielded(answer), None);
    assert_eq!(flow.granted, sender.limit, "both have the same limit");
}

#[test]
fn a_peer_that_breaks_its_credit_is_counted() {
    let budget = Budget::new(4 << 20, 2);
    let mut flow = enter(&budget);
    assert_eq!(flow.arrived(1, 1), Err(CreditBroken), "a gap");
    assert_eq!(flow.arrived(0, flow.first_limit() + 1), Err(CreditBroken), "too much");
    assert_eq!(flow.arrived(u64::MAX, 1), Err(CreditBroken));
    assert_eq!((budget.broken(), budget.held()), (3, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever the sizes and times: the sender is never stopped for good, never over its limit, and no byte is lost.
    #[test]
    fn a_transfer_ends(sizes in proptest::collection::vec(1_u64..100_000, 1..60), round_trip in 1_u64..200_000, jitter in any::<u16>()) {
        let budget = Budget::new(4 * FIRST_WINDOW, 4);
        let mut receiver = enter(&budget);
        let mut sender = Sender::new(receiver.first_limit());
        let mut now = 0;
        let total: u64 = sizes.iter().sum();
        for size in sizes {
            let mut left = size;
            while left > 0 {
                let chunk = left.min(sender.available());
                prop_assert_ne!(chunk, 0, "stopped for good");
                prop_assert!(receiver.arrived(sender.offset(), chunk).is_ok());
                sender.sent(chunk);
                left -= chunk;
                now += u64::from(jitter);
                if let Some(grant) = receiver.taken(chunk, now, round_trip) {
                    sender.granted(grant.limit);
                }
            }
        }
        prop_assert_eq!(receiver.taken, total);
        prop_assert!(receiver.arrived(sender.offset(), receiver.window * 3).is_err());
        prop_assert_eq!(budget.held(), 0);
    }
}

/// From the sender to the receiver, in order.
enum Up {
    Data(u64, u64),
    Yielded(u64),
    Fin,
}

/// From the receiver to the sender, in order.
enum Down {
    Grant(Grant),
    Recall(u64),
}

/// One flow: its two ends, what is under way between them, and what its programs do.
struct Pair<'a> {
    receiver: Near<'a>,
    sender: Sender,
    up: VecDeque<Up>,
    down: VecDeque<Down>,
    /// Bytes that the sending program still has.
    to_send: u64,
    total: u64,
    fin: bool,
    reads: bool,
    /// A peer of a version that knows no recall.
    old: bool,
}

impl Pair<'_> {
    fn tell(&mut self, grant: Option<Grant>) {
        self.down.extend(grant.map(Down::Grant));
    }

    fn step(&mut self, what: u8, size: u64, now: u64, round_trip: u64) -> Result<(), TestCaseError> {
        match what {
            0 => {
                let length = size.min(self.to_send).min(self.sender.available());
                if length > 0 {
                    self.up.push_back(Up::Data(self.sender.offset(), length));
                    self.sender.sent(length);
                    self.to_send -= length;
                }
                if self.to_send == 0 && !self.fin && size.is_multiple_of(2) {
                    self.fin = true;
                    self.up.push_back(Up::Fin);
                }
            }
            1 => match self.up.pop_front() {
                Some(Up::Data(offset, length)) => prop_assert_eq!(self.receiver.arrived(offset, length), Ok(())),
                Some(Up::Yielded(limit)) => {
                    let grant = self.receiver.yielded(limit);
                    self.tell(grant);
                }
                Some(Up::Fin) => self.receiver.finished(),
                None => {}
            },
            2 => match self.down.pop_front() {
                Some(Down::Grant(grant)) => self.sender.granted(grant.limit),
                Some(Down::Recall(limit)) if !self.old => {
                    let limit = self.sender.recalled(limit);
                    self.up.push_back(Up::Yielded(limit));
                }
                Some(Down::Recall(_)) | None => {}
            },
            3 if self.reads => {
                let length = size.min(self.receiver.arrived - self.receiver.taken);
                if length > 0 {
                    let grant = self.receiver.taken(length, now, round_trip);
                    self.tell(grant);
                }
            }
            4 => {
                let recall = self.receiver.review();
                self.down.extend(recall.map(Down::Recall));
            }
            _ => {}
        }
        prop_assert!(self.receiver.arrived <= self.receiver.granted, "more came than was granted");
        let lower = self.sender.limit <= self.receiver.granted;
        prop_assert!(lower || self.fin, "the sender believes in more");
        Ok(())
    }
}

fn steps() -> impl Strategy<Value = Vec<(usize, u8, u64, u32)>> {
    // Mostly bytes, sometimes a review.
    let what = proptest::sample::select(vec![0_u8, 0, 0, 1, 1, 1, 2, 2, 3, 3, 3, 4]);
    let size = proptest::sample::select(vec![1_u64, 100, 1024, 5000, 65_536, 1 << 20]);
    proptest::collection::vec((any::<usize>(), what, size, 0_u32..50_000), 1..1500)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Stalled, slow and quick readers, idle and busy senders, old peers, in any order: what is granted, and so what is
    /// held wherever it is, stays within the budget; no flow ends; whoever reads gets everything; and who stalled gets
    /// it when it reads again.
    #[test]
    fn no_flow_ends_for_another(
        flows in proptest::collection::vec((any::<bool>(), any::<bool>(), 0_u64..3_000_000), 1..24),
        steps in steps(),
        total in proptest::sample::select(vec![64_u64 << 10, 256 << 10, 1 << 20, 8 << 20]),
        round_trip in 1_u64..100_000,
    ) {
        let places = 32;
        let budget = Budget::new(total, places);
        prop_assert_eq!(budget.places.load(Ordering::Relaxed), u64::from(places));
        let mut pairs: Vec<_> = flows.iter().map(|(reads, old, total)| {
            let receiver = enter(&budget);
            let sender = Sender::new(receiver.first_limit());
            let (up, down) = (VecDeque::new(), VecDeque::new());
            Pair { receiver, sender, up, down, to_send: *total, total: *total, fin: false, reads: *reads, old: *old }
        }).collect();
        let within = |pairs: &[Pair<'_>]| {
            let granted: u64 = pairs.iter().map(|pair| pair.receiver.granted - pair.receiver.taken).sum();
            let held: u64 = pairs.iter().map(|pair| pair.receiver.arrived - pair.receiver.taken).sum();
            prop_assert_eq!(held, budget.held());
            prop_assert!(granted <= promised(&budget, places), "{} of {}", granted, promised(&budget, places));
            prop_assert!(promised(&budget, places) <= total);
            Ok(())
        };
        let mut now = 0;
        let count = pairs.len();
        for (which, what, size, later) in steps {
            now += u64::from(later);
            pairs[which % count].step(what, size, now, round_trip)?;
            within(&pairs)?;
        }
        // Readers get everything, however many others stand still; then those read again too.
        for all in [false, true] {
            for pair in pairs.iter_mut().filter(|pair| pair.reads || all) {
                pair.reads = true;
                while pair.receiver.taken < pair.total {
                    let before = (pair.receiver.taken, pair.sender.sent, pair.up.len(), pair.down.len());
                    for what in [0, 1, 3, 2] {
                        now += 1000;
                        pair.step(what, 65_536, now, round_trip)?;
                    }
                    let after = (pair.receiver.taken, pair.sender.sent, pair.up.len(), pair.down.len());
                    prop_assert_ne!(before, after, "stopped for good");
                }
            }
            within(&pairs)?;
        }
        drop(pairs);
        prop_assert_eq!((budget.held(), promised(&budget, places), budget.broken()), (0, 0, 0));
    }
}
