//! Delays that a test asks for, so that the real actors meet messages in orders that a quiet machine never makes.
//!
//! With the variable `PODWAY_LATE=MILLIS` each actor is given its inputs in the order in which they came, but each up to
//! so many milliseconds late, by chance. Each actor has its own chance, so what two of them tell a third comes in
//! any order that actix allows. Only in builds with debug assertions: in what is shipped nothing of this is left.

use std::sync::OnceLock;
use std::time::Duration;

/// The variable.
pub const VARIABLE: &str = "PODWAY_LATE";

/// How late the next input is given; `None` where nobody asked for that.
pub fn next() -> Option<Duration> {
    static MOST: OnceLock<Option<u64>> = OnceLock::new();
    if !cfg!(debug_assertions) {
        return None;
    }
    let most = (*MOST.get_or_init(|| std::env::var(VARIABLE).ok()?.parse().ok()))?;
    let byte = u64::from(super::shell::jitter());
    Some(Duration::from_millis(most * byte / 255))
}
