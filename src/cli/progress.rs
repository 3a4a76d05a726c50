//! What is told on the way to a result: on stderr, so that stdout holds the result alone.

/// Whether it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// As it comes.
    Shown,
    /// Not at all: `--quiet`.
    Quiet,
}

impl Progress {
    /// By the flag.
    pub fn unless(quiet: bool) -> Progress {
        if quiet { Progress::Quiet } else { Progress::Shown }
    }

    /// Tells a line.
    pub fn tell(self, line: impl std::fmt::Display) {
        match self {
            Progress::Shown => anstream::eprintln!("{line}"),
            Progress::Quiet => {}
        }
    }
}

/// A time on the way, as `0.4s`.
pub fn seconds(millis: u64) -> String {
    format!("{}.{}s", millis / 1000, millis % 1000 / 100)
}
