//! The explorer itself: it counts exactly, names cycles, finds the shortest way, and sees from where no way leads home.

use crate::support::explore::{World, explore, walk};
use crate::support::table;

/// Senders with so many messages each, all equal but for their sender.
#[derive(Clone, Debug)]
struct Senders(Vec<u32>);

impl World for Senders {
    type Step = usize;

    fn steps(&self) -> Vec<usize> {
        (0..self.0.len()).filter(|sender| self.0[*sender] > 0).collect()
    }
    fn take(&mut self, step: &usize) {
        self.0[*step] -= 1;
    }
    fn always(&self) -> Result<(), String> {
        Ok(())
    }
    fn quiescent(&self) -> Result<(), String> {
        Ok(())
    }
}

#[test]
fn interleavings_are_counted_exactly() {
    // n! / (a! b! ...): the orders of messages of which each sender's keep theirs.
    for (senders, ways, states) in [
        (vec![1, 1], 2, 4),
        (vec![4, 4, 4], 34_650, 125),
        (vec![3, 3, 3, 3], 369_600, 256),
        (vec![5, 5, 5], 756_756, 216),
    ] {
        let longest = senders.iter().sum::<u32>() as usize;
        let explored = explore(Senders(senders)).expect("nothing can break");
        assert_eq!((explored.interleavings, explored.states, explored.longest), (ways, states, longest));
    }
}

/// Places and the ways between them; what is wrong with each.
#[derive(Clone, Debug)]
struct Map {
    at: u32,
    ways: &'static [(u32, u32)],
    bad: &'static [u32],
    rest: &'static [u32],
}

impl World for Map {
    type Step = (u32, u32);

    fn steps(&self) -> Vec<(u32, u32)> {
        self.ways.iter().copied().filter(|(from, _)| *from == self.at).collect()
    }
    fn take(&mut self, step: &(u32, u32)) {
        self.at = step.1;
    }
    fn always(&self) -> Result<(), String> {
        if self.bad.contains(&self.at) { Err(format!("{} is bad", self.at)) } else { Ok(()) }
    }
    fn quiescent(&self) -> Result<(), String> {
        Ok(())
    }
    fn at_rest(&self) -> bool {
        self.rest.contains(&self.at)
    }
}

#[test]
fn a_cycle_is_an_error_that_names_it() {
    let ways = &[(0, 1), (1, 2), (2, 3), (3, 1), (0, 9)];
    let broken = explore(Map { at: 0, ways, bad: &[], rest: &[9] }).expect_err("it goes round");
    assert_eq!(broken.why, "a cycle: (1, 2), (2, 3), (3, 1)");
    assert_eq!(broken.path, ["(0, 1)", "(1, 2)", "(2, 3)", "(3, 1)"]);
}

#[test]
fn a_failure_is_told_by_the_shortest_way() {
    let ways = &[(0, 1), (1, 2), (2, 3), (3, 4), (0, 5), (5, 4), (4, 6)];
    let broken = explore(Map { at: 0, ways, bad: &[4], rest: &[6] }).expect_err("4 is reached");
    assert_eq!((&*broken.why, broken.path.len()), ("4 is bad", 2));
    assert!(broken.story.contains("1. (0, 5)") && broken.story.contains("2. (5, 4)"), "{}", broken.story);
}

#[test]
fn a_state_from_which_no_rest_can_be_reached_is_found() {
    let ways = &[(0, 1), (1, 2), (0, 3), (3, 4), (4, 5), (4, 2)];
    let world = Map { at: 0, ways, bad: &[], rest: &[2] };
    let broken = explore(world.clone()).expect_err("5 is a dead end");
    assert_eq!((&*broken.why, broken.path.len()), ("rest_can_be_reached: from here it cannot", 3));
    explore(Map { rest: &[2, 5], ..world }).expect("all ends are rests");
}

#[test]
fn a_walk_that_fails_names_the_seed_that_replays_it() {
    let ways = &[(0, 1), (0, 2), (1, 3), (2, 3)];
    let broken = walk(&Map { at: 0, ways, bad: &[3], rest: &[] }, 3).expect_err("every walk gets there");
    assert!(broken.why.contains("PODWAY_SEED=1 replays"), "{}", broken.why);
}

#[test]
#[ignore = "prints what the others found: just interleave"]
fn print_the_table() {
    let file = std::env::var_os(table::FILE).expect("just interleave sets it");
    println!("{}", table::whole(&std::fs::read_to_string(file).expect("some scenario was explored")));
}

#[test]
fn the_table_has_a_total() {
    let lines = "  34650  125  300  7 ms  b\n  2  4  4  1 ms  a\n";
    let table: Vec<String> =
        table::whole(lines).lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(table[1..], ["2 4 4 1 ms a", "34650 125 300 7 ms b", "34652 129 304 8 ms total of 2"]);
}
