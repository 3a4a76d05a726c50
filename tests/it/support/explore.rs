//! Walks every interleaving of a world: depth first, with a visited set.
//!
//! A world is some cores, the queues between them, and what is still outstanding outside. One queue for each (sender,
//! receiver) pair is what actix promises, and no more. A failure prints its path: the list of steps is the bug report.

use std::collections::HashSet;
use std::fmt::{self, Debug};
use std::num::NonZeroU64;
use std::ops::Deref;
use std::rc::Rc;

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
}

/// How much was walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explored {
    /// Distinct states.
    pub states: usize,
    /// Steps taken.
    pub steps: usize,
    /// Distinct states in which nothing more could happen.
    pub ends: usize,
}

/// A state that breaks a property, and how it was reached.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Which property, and how.
    pub why: String,
    /// The steps to it, one a line.
    pub path: Vec<String>,
    /// Distinct states seen until then.
    pub states: usize,
}

/// No scenario of ours is near this; one that gets there has an unbounded dimension.
const STATES_AT_MOST: usize = 2_000_000;

/// Walks every order from `start`.
pub fn explore<W: World>(start: W) -> Result<Explored, Box<Broken>> {
    let mut seen = HashSet::from([fingerprint(&start)]);
    let mut explored = Explored { states: 1, steps: 0, ends: 0 };
    // Each frame: the state, the steps not taken yet, and the step that led here.
    let mut stack = vec![(start.clone(), start.steps(), None::<W::Step>)];
    check(&start, &start.steps()).map_err(|why| broken(why, &stack, &explored))?;
    while let Some((world, steps, _)) = stack.last_mut() {
        let Some(step) = steps.pop() else {
            stack.pop();
            continue;
        };
        let mut next = world.clone();
        next.take(&step);
        explored.steps += 1;
        if !seen.insert(fingerprint(&next)) {
            continue;
        }
        explored.states += 1;
        assert!(explored.states < STATES_AT_MOST, "the scenario has an unbounded dimension");
        let steps = next.steps();
        explored.ends += usize::from(steps.is_empty());
        let verdict = check(&next, &steps);
        stack.push((next, steps, Some(step)));
        verdict.map_err(|why| broken(why, &stack, &explored))?;
    }
    Ok(explored)
}

fn check<W: World>(world: &W, steps: &[W::Step]) -> Result<(), String> {
    world.always()?;
    if steps.is_empty() { world.quiescent() } else { Ok(()) }
}

fn broken<W: World>(why: String, stack: &[(W, Vec<W::Step>, Option<W::Step>)], explored: &Explored) -> Box<Broken> {
    let path = stack.iter().filter_map(|(_, _, step)| step.as_ref()).map(|step| format!("{step:?}")).collect();
    Box::new(Broken { why, path, states: explored.states })
}

/// 128 bits of the state as `Debug` prints it; every core prints all of its state. A digest in assembly is the fastest
/// there is without optimization.
pub fn fingerprint<T: Debug>(state: &T) -> u128 {
    let digest = ring::digest::digest(&ring::digest::SHA256, format!("{state:?}").as_bytes());
    let (half, _) = digest.as_ref().split_first_chunk().expect("256 bits");
    u128::from_be_bytes(*half)
}

/// A part of a world that most steps leave alone: shared between states, and printed as its fingerprint.
#[derive(Clone)]
pub struct Held<T>(Rc<T>, u128);

impl<T: Clone + Debug> Held<T> {
    pub fn new(value: T) -> Self {
        let print = fingerprint(&value);
        Held(Rc::new(value), print)
    }

    /// Changes this state's own copy.
    pub fn change<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(Rc::make_mut(&mut self.0));
        self.1 = fingerprint(&*self.0);
        result
    }
}

impl<T> Deref for Held<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Debug for Held<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.1)
    }
}

/// Walks `walks` orders from `start`, each to its end, for worlds that are too wide to be walked whole. The orders are
/// the same on every run.
pub fn walk<W: World>(start: &W, walks: u64) -> Result<usize, Box<Broken>> {
    let mut taken = 0;
    for walk in 0..walks {
        let mut chance = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(walk + 1);
        let (mut world, mut path) = (start.clone(), Vec::new());
        loop {
            let steps = world.steps();
            check(&world, &steps).map_err(|why| Box::new(Broken { why, path: path.clone(), states: taken }))?;
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            let Some(choices) = NonZeroU64::new(u64::try_from(steps.len()).unwrap_or(0)) else { break };
            let step = &steps[usize::try_from((chance >> 8) % choices).expect("small")];
            path.push(format!("{step:?}"));
            world.take(step);
            taken += 1;
        }
    }
    Ok(taken)
}

/// Walks every order and fails the test with the path where a property breaks.
pub fn assert_holds<W: World>(start: W) -> Explored {
    match explore(start) {
        Ok(explored) => explored,
        Err(broken) => panic!("{}\nafter\n  {}", broken.why, broken.path.join("\n  ")),
    }
}
