//! When a refusal of the API server is believed. Pure: cores ask it too.
//!
//! 403 is a word about the user only where the API server knows the roles. One that has just started has not read them
//! yet: for a moment it refuses what it grants, the review of rights among it. It says so itself at `/readyz`, which is
//! not ok before everything is read (check `informer-sync`), and which everyone may ask
//! (`--authorization-always-allow-paths`). 401 is the same for keys of tokens that it has yet to fetch.
//!
//! The rule: a refusal counts when it came after the API server had said that it is ready; where it does not say, when
//! it has been repeated for [`GOES_ON`]; where it says that it is not ready, for [`NOT_READY`]. Until then it is asked
//! again every [`AGAIN`]. Nothing is refused for ever: what is believed is asked again too, with longer pauses.

use std::time::Duration;

/// How long a refusal has to go on where nothing else tells whether it is meant: with everything around it, a wait that
/// cannot succeed still ends within two seconds.
pub const GOES_ON: Duration = Duration::from_secs(1);
/// The same where the API server says that it is not ready: a check of it that never passes must not hide a missing
/// right for ever.
pub const NOT_READY: Duration = Duration::from_secs(10);
/// Pause before what is in doubt is asked again.
pub const AGAIN: Duration = Duration::from_millis(250);

/// What the API server had said of itself before it refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Readiness {
    /// It knows who may do what.
    Ready,
    /// It does not tell, or it was not asked.
    Silent,
    /// It is starting, or ending.
    NotReady,
}

/// Pause before what was refused is asked again, having been refused for so long: as long again, from [`AGAIN`] to
/// `longest`.
pub fn pause(refused_for: Duration, longest: Duration) -> Duration {
    refused_for.clamp(AGAIN, longest)
}

impl Readiness {
    /// How long a refusal has to go on to be believed.
    pub fn patience(self) -> Duration {
        match self {
            Readiness::Ready => Duration::ZERO,
            Readiness::Silent => GOES_ON,
            Readiness::NotReady => NOT_READY,
        }
    }
}
