//! The life of one container, as facts about its runs and the decision what comes next. No IO.

use std::time::Duration;

use crate::time::Time;

/// The pause before the second restart; it doubles with each.
const BACK_OFF: Duration = Duration::from_secs(10);
/// The longest pause.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(300);
/// Who ran for so long starts counting anew.
const WELL: Duration = Duration::from_secs(600);
/// How long the reason of a failed pull is told before the pause is.
const TOLD: Duration = Duration::from_secs(1);

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Exit code; 128 and the signal's number if one ended it.
    pub code: i32,
    /// When it began.
    pub since: Time,
    /// When it ended.
    pub at: Time,
}

/// Why a container does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// One word.
    pub reason: &'static str,
    /// A sentence; may be empty.
    pub message: String,
}

/// Where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Not to run yet.
    New,
    /// It waits for something; until then, if a time is known.
    Waiting(Waiting, Option<Time>),
    /// It was asked to start.
    Starting,
    /// It runs.
    Running {
        /// Since when.
        since: Time,
        /// Whether its probe succeeds.
        ready: bool,
        /// Whether it was asked to end.
        terminated: bool,
    },
    /// It ended, and was not started again.
    Ended(Ended),
}

/// When a container is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Always.
    Always,
    /// When it failed.
    OnFailure,
    /// Never.
    Never,
}

/// Why a container cannot be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The image cannot be had; what the registry says.
    Pull(String),
    /// Something that does not change by itself.
    Config(Waiting),
}

/// One container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The number of its latest run, from 1 on.
    pub attempt: u32,
    /// Where it is.
    pub state: State,
    /// How the run before ended.
    pub last: Option<Ended>,
    /// Pauses in a row.
    backed_off: u32,
    /// Failed pulls in a row.
    pulls: u32,
}

impl Default for Container {
    fn default() -> Container {
        Container { attempt: 0, state: State::New, last: None, backed_off: 0, pulls: 0 }
    }
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing, until something happens.
    Nothing,
    /// Nothing before then.
    Again(Time),
    /// It is to be started.
    Start,
}

fn doubled(count: u32) -> Duration {
    let factor = 1_u32.checked_shl(count).unwrap_or(u32::MAX);
    BACK_OFF.saturating_mul(factor).min(LONGEST_BACK_OFF)
}

impl Container {
    /// Decides what comes next for a container that is wanted. `obstacle` is what keeps it from starting.
    pub fn advance(&mut self, restart: Restart, obstacle: Option<Obstacle>, now: Time) -> Next {
        if let State::Ended(ended) = self.state {
            if !self.is_restarted(restart, ended) {
                return Next::Nothing;
            }
            self.last = Some(ended);
            let well = ended.since.until(ended.at) >= WELL;
            self.backed_off = if well { 0 } else { self.backed_off + 1 };
            // The first time without a pause.
            let Some(earlier) = self.backed_off.checked_sub(2) else { return self.start(obstacle, now) };
            let pause = doubled(earlier);
            let message = format!("back-off {}s restarting failed container", pause.as_secs());
            self.state = State::Waiting(Waiting { reason: "CrashLoopBackOff", message }, Some(ended.at.after(pause)));
        }
        match &self.state {
            State::New => self.start(obstacle, now),
            State::Waiting(_, Some(until)) if *until > now => Next::Again(*until),
            State::Waiting(waiting, _) if waiting.reason == "ErrImagePull" => {
                let message = waiting.message.clone();
                self.pause_pulling(message, now)
            }
            State::Waiting(..) => self.start(obstacle, now),
            State::Starting | State::Running { .. } | State::Ended(_) => Next::Nothing,
        }
    }

    fn is_restarted(&self, restart: Restart, ended: Ended) -> bool {
        match restart {
            Restart::Always => true,
            Restart::OnFailure => ended.code != 0,
            Restart::Never => false,
        }
    }

    fn start(&mut self, obstacle: Option<Obstacle>, now: Time) -> Next {
        match obstacle {
            None => {
                self.attempt += 1;
                self.pulls = 0;
                self.state = State::Starting;
                Next::Start
            }
            Some(Obstacle::Pull(message)) => {
                self.pulls += 1;
                let until = now.after(TOLD);
                self.state = State::Waiting(Waiting { reason: "ErrImagePull", message }, Some(until));
                Next::Again(until)
            }
            Some(Obstacle::Config(waiting)) => {
                self.state = State::Waiting(waiting, None);
                Next::Nothing
            }
        }
    }

    fn pause_pulling(&mut self, message: String, now: Time) -> Next {
        let until = now.after(doubled(self.pulls.saturating_sub(1)));
        self.state = State::Waiting(Waiting { reason: "ImagePullBackOff", message }, Some(until));
        Next::Again(until)
    }

    /// It runs.
    pub fn started(&mut self, ready: bool, now: Time) {
        self.state = State::Running { since: now, ready, terminated: false };
    }

    /// It could not be started.
    pub fn failed(&mut self, message: String) {
        self.state = State::Waiting(Waiting { reason: "RunContainerError", message }, None);
    }

    /// Its run ended.
    pub fn ended(&mut self, code: i32, now: Time) {
        let since = if let State::Running { since, .. } = self.state { since } else { now };
        self.state = State::Ended(Ended { code, since, at: now });
    }

    /// What its probe says.
    pub fn probed(&mut self, ready: bool) {
        if let State::Running { ready: was, .. } = &mut self.state {
            *was = ready;
        }
    }

    /// Whether it serves.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Running { ready: true, .. })
    }

    /// Whether there is, or may be, a process.
    pub fn is_alive(&self) -> bool {
        matches!(self.state, State::Starting | State::Running { .. })
    }

    /// How often it was started again.
    pub fn restarts(&self) -> u32 {
        self.attempt.saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_millis(seconds * 1000)
    }

    fn started(seconds: u64) -> Container {
        let mut container = Container::default();
        assert_eq!(container.advance(Restart::Always, None, at(seconds)), Next::Start);
        container.started(true, at(seconds));
        container
    }

    #[test]
    fn a_crash_is_mended_at_once_the_next_ones_later_and_later() {
        let mut container = started(0);
        container.ended(1, at(1));
        assert_eq!(container.advance(Restart::Always, None, at(1)), Next::Start);
        assert_eq!((container.attempt, container.restarts(), container.last.unwrap().code), (2, 1, 1));
        let mut now = 1;
        for pause in [10, 20, 40, 80, 160, 300, 300] {
            container.started(true, at(now));
            container.ended(1, at(now));
            assert_eq!(container.advance(Restart::Always, None, at(now)), Next::Again(at(now + pause)));
            assert!(matches!(&container.state, State::Waiting(waiting, _) if waiting.reason == "CrashLoopBackOff"));
            now += pause;
            assert_eq!(container.advance(Restart::Always, None, at(now)), Next::Start);
        }
        container.started(true, at(now));
        container.ended(1, at(now + 700));
        assert_eq!(container.advance(Restart::Always, None, at(now + 700)), Next::Start, "it ran well for long");
    }

    #[test]
    fn what_ends_well_is_started_again_only_where_it_is_always() {
        for (restart, code, again) in [
            (Restart::Always, 0, true),
            (Restart::OnFailure, 0, false),
            (Restart::OnFailure, 1, true),
            (Restart::Never, 1, false),
        ] {
            let mut container = started(0);
            container.ended(code, at(1));
            assert_eq!(container.advance(restart, None, at(1)) == Next::Start, again, "{restart:?} {code}");
        }
    }

    #[test]
    fn a_failed_pull_is_told_then_paused_then_tried_again() {
        let mut container = Container::default();
        let none = || Some(Obstacle::Pull("not found".to_owned()));
        let reason = |container: &Container| {
            let State::Waiting(waiting, _) = &container.state else { panic!("{:?}", container.state) };
            waiting.reason
        };
        let mut now = 0;
        for pause in [10, 20, 40] {
            assert_eq!(container.advance(Restart::Always, none(), at(now)), Next::Again(at(now + 1)));
            assert_eq!(reason(&container), "ErrImagePull");
            now += 1;
            assert_eq!(container.advance(Restart::Always, none(), at(now)), Next::Again(at(now + pause)));
            assert_eq!(reason(&container), "ImagePullBackOff");
            now += pause;
        }
        assert_eq!(container.advance(Restart::Always, None, at(now)), Next::Start, "now it is there");
    }
}
