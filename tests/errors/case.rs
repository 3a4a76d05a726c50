//! The form of a case.

use std::time::Duration;

use crate::world::World;

/// Cases that share a cluster, a workstation and a daemon, and run one after another.
pub struct Group {
    /// A heading of the document. Several groups may share one.
    pub title: &'static str,
    /// What is there beforehand.
    pub stage: Stage,
    /// In the order of the document.
    pub cases: Vec<Case>,
}

/// What a group finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A daemon, which has to go on serving after each case.
    Daemon,
    /// The same, on a cluster whose agents speak another protocol.
    OtherAgents,
    /// No daemon: the cases start what they need.
    Nothing,
}

/// Something that fails, and what has to be said of it. Its whole text is in docs/errors.md.
pub struct Case {
    /// What is wrong, for the document.
    pub name: String,
    /// Makes it so; what it does to the world is undone afterwards by [`World::undo`].
    pub setup: Box<dyn Fn(&World) + Send + Sync>,
    /// What the user types on the workstation behind `podway`.
    pub command: Vec<&'static str>,
    /// The exit code.
    pub exit: i32,
    /// The stable reason; empty for what has no form for scripts.
    pub reason: &'static str,
    /// What the text has to hold.
    pub says: Vec<String>,
    /// How long it may take.
    pub limit: Duration,
    /// Why it may take longer than others.
    pub slow: &'static str,
    /// Whether it is told without being an error.
    pub notice: bool,
}

/// Unless the cluster itself takes longer to say what is wrong.
pub const LIMIT: Duration = Duration::from_secs(2);
/// Where agents are: a kubelet takes its time.
pub const KUBELET: f64 = 3.0;

/// A case with nothing to set up; its exit code is the one that its reason has in general.
pub fn case(name: impl Into<String>, command: &[&'static str], reason: &'static str) -> Case {
    Case {
        name: name.into(),
        setup: Box::new(|_| {}),
        command: command.to_vec(),
        exit: match reason {
            "NotConnected" | "DaemonUnreachable" => 3,
            "TimedOut" => 124,
            _ => 1,
        },
        reason,
        says: Vec::new(),
        limit: LIMIT,
        slow: "",
        notice: false,
    }
}

/// A case of the command line: what cannot be understood.
pub fn usage(name: &str, command: &[&'static str]) -> Case {
    case(name, command, "BadRequest").exits(2)
}

/// A case of `podway connect -n demo`.
pub fn connect(name: impl Into<String>, flags: &[&'static str], reason: &'static str) -> Case {
    case(name, &[&["connect", "-n", "demo"], flags].concat(), reason)
}

impl Case {
    /// Something has to be so first.
    pub fn given(mut self, setup: impl Fn(&World) + Send + Sync + 'static) -> Case {
        self.setup = Box::new(setup);
        self
    }

    /// The text holds these.
    pub fn says(mut self, words: &[&str]) -> Case {
        self.says = words.iter().map(|word| (*word).to_owned()).collect();
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
