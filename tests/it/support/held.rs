//! Parts of a state, shared between states and compared by their fingerprints.

use std::cell::Cell;
use std::fmt::{self, Debug};
use std::ops::Deref;
use std::rc::Rc;

/// 128 bits of the state as `Debug` prints it; every core prints all of its state. Printed by the standard library into
/// its own string and digested in assembly: both are fast without optimization.
pub fn fingerprint<T: Debug>(state: &T) -> u128 {
    let text = fmt::format(format_args!("{state:?}"));
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let (half, _) = digest.as_ref().split_first_chunk().expect("256 bits");
    u128::from_be_bytes(*half)
}

/// A part of a world that most steps leave alone: shared between states, and printed as its fingerprint, which is taken
/// once, when it is first printed after a change.
#[derive(Clone)]
pub struct Held<T>(Rc<T>, Cell<Option<u128>>);

impl<T: Clone + Debug> Held<T> {
    pub fn new(value: T) -> Self {
        Held(Rc::new(value), Cell::new(None))
    }

    /// Changes this state's own copy.
    pub fn change<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> R {
        self.1.set(None);
        change(Rc::make_mut(&mut self.0))
    }
}

impl<T> Deref for Held<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Debug> Debug for Held<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let print = self.1.get().unwrap_or_else(|| fingerprint(&*self.0));
        self.1.set(Some(print));
        write!(f, "{print:x}")
    }
}
