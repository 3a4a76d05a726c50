//! Walks every interleaving of a world: depth first, each distinct state once.
//!
//! A world is some cores, the queues between them, and what is still outstanding outside. One queue for each (sender,
//! receiver) pair is what actix promises, and no more.
//!
//! The states and the steps between them are a graph without cycles: whatever repeats in a core has a budget in its
//! scenario. An interleaving is a path through that graph from the start to where nothing more can happen, so their
//! number is counted exactly, once for each state, from the ends backwards.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::time::Duration;

pub use super::held::{Held, fingerprint};
use super::{story, table};

/// Something whose every order can be walked.
pub trait World: Clone + Debug {
    /// One thing that can happen next.
    type Step: Clone + Debug;

    /// Everything that can happen next. Empty means quiescent.
    fn steps(&self) -> Vec<Self::Step>;
    /// Lets it happen.
    fn take(&mut self, step: &Self::Step);
    /// What must hold in every state.
    fn always(&self) -> Result<(), String>;
    /// What must hold when nothing more can happen.
    fn quiescent(&self) -> Result<(), String>;
    /// What a user does at last, once nothing else can happen.
    fn at_last(&self) -> Option<Self::Step> {
        None
    }
    /// Whether everything is over and undone. From every state such a state can be reached.
    fn at_rest(&self) -> bool {
        self.steps().is_empty()
    }
}

/// How much was walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explored {
    /// Ways from the start to an end.
    pub interleavings: u128,
    /// Distinct states.
    pub states: usize,
    /// Steps taken.
    pub steps: usize,
    /// Distinct states in which nothing more could happen.
    pub ends: usize,
    /// Of the longest way.
    pub longest: usize,
    /// How long it took on a processor, whatever else the machine did.
    pub time: Duration,
}

/// A state that breaks a property, and how it was reached.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Which property, and how.
    pub why: String,
    /// The shortest way to it: its steps.
    pub path: Vec<String>,
    /// The same in words: who did what, and what came of it.
    pub story: String,
    /// Distinct states seen until then.
    pub states: usize,
}

/// No scenario of ours is near these; one that gets there has an unbounded dimension.
const STATES_AT_MOST: usize = 2_000_000;
const STEPS_AT_MOST: usize = 400;

/// What is known of a state that was walked.
struct Node {
    /// Where each of its steps leads, in their order.
    next: Vec<u32>,
    ways: u128,
    longest: usize,
    at_rest: bool,
}

/// A state whose steps are being taken.
struct Frame<W: World> {
    world: W,
    steps: Vec<W::Step>,
    node: usize,
}

/// What can happen next, and at last.
fn choices<W: World>(world: &W, steps: Vec<W::Step>) -> Vec<W::Step> {
    if steps.is_empty() { world.at_last().into_iter().collect() } else { steps }
}

fn check<W: World>(world: &W, steps: &[W::Step]) -> Result<(), String> {
    world.always()?;
    if steps.is_empty() { world.quiescent() } else { Ok(()) }
}

/// Walks every order from `start`.
pub fn explore<W: World>(start: W) -> Result<Explored, Box<Broken>> {
    let begun = time_on_cpu();
    let mut seen: HashMap<u128, u32> = HashMap::new();
    let mut nodes: Vec<Node> = Vec::new();
    let mut open: HashSet<u32> = HashSet::new();
    let mut taken = 0;
    let mut stack: Vec<Frame<W>> = Vec::new();
    let mut entered = Some((start.clone(), fingerprint(&start)));
    loop {
        if let Some((world, print)) = entered.take() {
            let steps = world.steps();
            if check(&world, &steps).is_err() {
                return Err(shortest(&start, nodes.len()));
            }
            let (steps, node) = (choices(&world, steps), nodes.len());
            let at_rest = steps.is_empty() && world.at_rest();
            nodes.push(Node { next: Vec::new(), ways: u128::from(steps.is_empty()), longest: 0, at_rest });
            assert!(nodes.len() < STATES_AT_MOST, "the scenario has an unbounded dimension");
            let number = u32::try_from(node).expect("bounded");
            seen.insert(print, number);
            open.insert(number);
            stack.push(Frame { world, steps, node });
            if stack.len() > STEPS_AT_MOST {
                return Err(broken(&start, taken_so_far(&stack, &nodes), "it goes on and on".to_owned(), nodes.len()));
            }
        }
        let Some(Frame { world, steps, node }) = stack.last() else { break };
        let Some(step) = steps.get(nodes[*node].next.len()) else {
            let Some(Frame { node, .. }) = stack.pop() else { break };
            open.remove(&u32::try_from(node).expect("bounded"));
            if let Some(above) = stack.last() {
                leads_to(&mut nodes, above.node, node);
            }
            continue;
        };
        let mut next = world.clone();
        next.take(step);
        taken += 1;
        let print = fingerprint(&next);
        match seen.get(&print) {
            Some(known) if open.contains(known) => {
                let mut path = taken_so_far(&stack, &nodes);
                path.push(step.clone());
                let from = stack.iter().position(|frame| frame.node == *known as usize).unwrap_or_default();
                let names: Vec<String> = path[from..].iter().map(|step| format!("{step:?}")).collect();
                return Err(broken(&start, path, format!("a cycle: {}", names.join(", ")), nodes.len()));
            }
            Some(known) => leads_to(&mut nodes, *node, *known as usize),
            None => entered = Some((next, print)),
        }
    }
    let ends = nodes.iter().filter(|node| node.next.is_empty()).count();
    if let Some(stranded) = stranded(&nodes) {
        let path = way_to(&start, &nodes, stranded);
        return Err(broken(&start, path, "rest_can_be_reached: from here it cannot".to_owned(), nodes.len()));
    }
    let first = &nodes[0];
    let (interleavings, longest) = (first.ways, first.longest);
    Ok(Explored {
        interleavings,
        states: nodes.len(),
        steps: taken,
        ends,
        longest,
        time: time_on_cpu().saturating_sub(begun),
    })
}

/// How long this thread has run.
fn time_on_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(stat.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or_default())
}

fn leads_to(nodes: &mut [Node], from: usize, to: usize) {
    let (ways, longest) = (nodes[to].ways, nodes[to].longest + 1);
    let node = &mut nodes[from];
    node.next.push(u32::try_from(to).expect("bounded"));
    node.ways = node.ways.checked_add(ways).expect("fewer interleavings than 2^128");
    node.longest = node.longest.max(longest);
}

/// The steps that led to the state that is looked at now.
fn taken_so_far<W: World>(stack: &[Frame<W>], nodes: &[Node]) -> Vec<W::Step> {
    let (_, before) = stack.split_last().expect("a walk has begun");
    before.iter().map(|frame| frame.steps[nodes[frame.node].next.len()].clone()).collect()
}

/// The first state from which no rest can be reached: going backwards from every rest does not meet it.
fn stranded(nodes: &[Node]) -> Option<usize> {
    let mut before: Vec<Vec<u32>> = vec![Vec::new(); nodes.len()];
    for (from, node) in nodes.iter().enumerate() {
        for to in &node.next {
            before[*to as usize].push(u32::try_from(from).expect("bounded"));
        }
    }
    let mut reached: Vec<bool> = nodes.iter().map(|node| node.at_rest).collect();
    let mut look: Vec<usize> = (0..nodes.len()).filter(|node| reached[*node]).collect();
    while let Some(node) = look.pop() {
        for from in &before[node] {
            if !std::mem::replace(&mut reached[*from as usize], true) {
                look.push(*from as usize);
            }
        }
    }
    reached.iter().position(|reached| !reached)
}

/// A shortest way from the start to a state, by the graph.
fn way_to<W: World>(start: &W, nodes: &[Node], wanted: usize) -> Vec<W::Step> {
    let mut came_from: HashMap<usize, (usize, usize)> = HashMap::new();
    let mut look = VecDeque::from([0]);
    while let Some(node) = look.pop_front() {
        for (choice, next) in nodes[node].next.iter().enumerate() {
            let next = *next as usize;
            if next != 0 && !came_from.contains_key(&next) {
                came_from.insert(next, (node, choice));
                look.push_back(next);
            }
        }
    }
    let mut taken = Vec::new();
    let mut at = wanted;
    while let Some((before, choice)) = came_from.get(&at) {
        taken.push(*choice);
        at = *before;
    }
    let mut world = start.clone();
    let mut path = Vec::new();
    for choice in taken.into_iter().rev() {
        let step = choices(&world, world.steps())[choice].clone();
        world.take(&step);
        path.push(step);
    }
    path
}

/// Walks breadth first to the nearest state that breaks a property; there is one.
fn shortest<W: World>(start: &W, states: usize) -> Box<Broken> {
    let mut came: Vec<(usize, Option<W::Step>)> = vec![(0, None)];
    let mut seen = BTreeSet::from([fingerprint(start)]);
    let mut look = VecDeque::from([(0, start.clone())]);
    while let Some((number, world)) = look.pop_front() {
        let steps = world.steps();
        if let Err(why) = check(&world, &steps) {
            let mut path = Vec::new();
            let mut at = number;
            while let (before, Some(step)) = &came[at] {
                path.push(step.clone());
                at = *before;
            }
            path.reverse();
            return broken(start, path, why, states);
        }
        for step in choices(&world, steps) {
            let mut next = world.clone();
            next.take(&step);
            if seen.insert(fingerprint(&next)) {
                came.push((number, Some(step)));
                look.push_back((came.len() - 1, next));
            }
        }
    }
    unreachable!("the walk found a state that breaks a property")
}

fn broken<W: World>(start: &W, path: Vec<W::Step>, why: String, states: usize) -> Box<Broken> {
    let mut world = start.clone();
    let mut story = String::new();
    for (step, number) in path.iter().zip(1..) {
        let said = story::of(|| world.take(step));
        story.push_str(&format!("  {number}. {step:?}\n"));
        said.iter().for_each(|line| story.push_str(&format!("       {line}\n")));
    }
    let path = path.iter().map(|step| format!("{step:?}")).collect();
    Box::new(Broken { why, path, story, states })
}

impl Broken {
    /// Fails the test with the story.
    pub fn fail(&self, how: &str) -> ! {
        panic!("{}\n{how}, {} steps:\n{}", self.why, self.path.len(), self.story)
    }
}

/// Walks every order, fails the test with the shortest story where a property breaks, and adds a line to the table.
pub fn assert_holds<W: World>(start: W) -> Explored {
    let explored = explore(start).unwrap_or_else(|broken| broken.fail("the shortest way there"));
    assert!(explored.ends > 0, "no order came to its end: {explored:?}");
    table::add(&explored);
    explored
}

/// Seeds one walk; the name is told by a walk that fails.
pub const SEED: &str = "PODWAY_SEED";

/// Walks `walks` orders from `start`, each to its end, for worlds that are too wide to be walked whole. The orders are the
/// same on every run, unless [`SEED`] asks for one walk.
pub fn walk<W: World>(start: &W, walks: u64) -> Result<usize, Box<Broken>> {
    let one = std::env::var(SEED).ok().map(|seed| seed.parse().expect("a seed is a number"));
    let seeds = one.map_or(1..=walks, |seed: u64| seed..=seed);
    let mut taken = 0;
    for seed in seeds {
        let mut chance = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed);
        let (mut world, mut path) = (start.clone(), Vec::new());
        loop {
            let steps = world.steps();
            if let Err(why) = check(&world, &steps) {
                return Err(broken(start, path, format!("{why}\n{SEED}={seed} replays this walk"), taken));
            }
            let steps = choices(&world, steps);
            if steps.is_empty() {
                break;
            }
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            let step = steps[usize::try_from((chance >> 8) % steps.len() as u64).expect("small")].clone();
            world.take(&step);
            path.push(step);
            taken += 1;
        }
    }
    Ok(taken)
}
