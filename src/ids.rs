//! Small newtypes for what must not be mixed up, and the time of cores.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

/// Milliseconds since the daemon started. Cores know no other clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// The time from `earlier` to `self`, zero if `earlier` is later.
    pub fn since(self, earlier: Millis) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Millis {
    type Output = Millis;
    fn add(self, rhs: Duration) -> Millis {
        let millis = u64::try_from(rhs.as_millis()).unwrap_or(u64::MAX);
        Millis(self.0.saturating_add(millis))
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// The number after this one.
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// Numbers the versions of one fact; a receiver drops a fact older than the one it has.
    Generation
}
number! {
    /// Numbers the tries at one thing (a dial, a placement); a result of another attempt is stale.
    Attempt
}
number! {
    /// Stands for a reply inside a core; the shell keeps the sender.
    ReplyId
}
number! {
    /// Names one waiter, unique within the session.
    WaiterId
}
number! {
    /// Names one keeper of credentials, unique within the session.
    KeeperId
}
number! {
    /// Numbers the questions for new credentials of one session.
    AskId
}
