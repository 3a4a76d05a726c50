//! Walks every interleaving of a world: depth first, with a visited set.
//!
//! A world is some cores, the queues between them, and what is still outstanding outside. One queue for each (sender,
//! receiver) pair is what actix promises, and no more. A failure prints its path: the list of steps is the bug report.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};

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

/// 128 bits of the state as `Debug` prints it; every core prints all of its state.
fn fingerprint<W: Debug>(world: &W) -> u128 {
    let text = format!("{world:?}");
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, &text).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

/// Walks every order and fails the test with the path where a property breaks.
pub fn assert_holds<W: World>(start: W) -> Explored {
    match explore(start) {
        Ok(explored) => explored,
        Err(broken) => panic!("{}\nafter\n  {}", broken.why, broken.path.join("\n  ")),
    }
}
