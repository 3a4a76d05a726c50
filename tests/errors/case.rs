//! The form of a case.

use std::time::Duration;

use crate::world::World;

/// Cases that share a cluster, a workstation and a daemon, and run one after another.
pub struct Group {
    /// A heading of the document. Several groups may share one.
    pub title: &'static str,
    /// How the daemon is.
    pub daemon: Daemon,
    /// In the order of the document.
    pub cases: Vec<Case>,
}

/// The daemon of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// One serves, and has to go on serving after each case.
    Serves,
    /// The cases start what they need.
    None,
}

/// Something that fails, and what has to be said of it. Its whole text is in docs/errors.md.
pub struct Case {
    /// What is wrong, for the document.
    pub name: &'static str,
    /// Makes it so; what it does to the world is undone afterwards by [`World::undo`].
    pub setup: fn(&World),
    /// What the user types on the workstation.
    pub command: &'static [&'static str],
    /// The exit code.
    pub exit: i32,
    /// The stable reason; empty for what has no form for scripts.
    pub reason: &'static str,
    /// What the text has to hold.
    pub says: &'static [&'static str],
    /// How long it may take.
    pub limit: Duration,
    /// Why it may take longer than others.
    pub slow: &'static str,
    /// Whether it is told without being an error.
    pub notice: bool,
}

/// Unless the cluster itself takes longer to say what is wrong.
pub const LIMIT: Duration = Duration::from_secs(2);

/// A case with nothing to set up, that ends with exit code 1.
pub fn case(name: &'static str, command: &'static [&'static str], reason: &'static str) -> Case {
    Case {
        name,
        setup: |_| {},
        command,
        exit: match reason {
            "BadRequest" => 2,
            "NotConnected" | "DaemonUnreachable" => 3,
            "TimedOut" => 124,
            _ => 1,
        },
        reason,
        says: &[],
        limit: LIMIT,
        slow: "",
        notice: false,
    }
}

impl Case {
    /// Something has to be so first.
    pub fn given(mut self, setup: fn(&World)) -> Case {
        self.setup = setup;
        self
    }

    /// The text holds these.
    pub fn says(mut self, words: &'static [&'static str]) -> Case {
        self.says = words;
        self
    }

    /// It ends with another exit code than its reason has in general.
    pub fn exits(mut self, code: i32) -> Case {
        self.exit = code;
        self
    }

    /// It takes longer than others, and why that is no fault of podway's.
    pub fn within(mut self, seconds: f64, why: &'static str) -> Case {
        (self.limit, self.slow) = (Duration::from_secs_f64(seconds), why);
        self
    }

    /// It works, and what it says is no error.
    pub fn notice(mut self) -> Case {
        (self.exit, self.notice) = (0, true);
        self
    }
}
