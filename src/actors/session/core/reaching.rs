//! When the API server is asked for the connected namespace, and what is said while it gives no answer. Pure.
//!
//! ```text
//!   Asked ──no answer, connect waits──▶ the connect fails
//!     ▲ │ └─no answer, later──▶ Pausing ──due──▶ Asked        each pause longer, up to PAUSE_LONGEST
//!     │ │                          │ the watches reach it, or new credentials: soon
//!     └─┼──────────────────────────┘
//!       └─▶ answered, or refused for good: the connection ends
//! ```
//!
//! `connect` fails at the first error, which may be a wrong address. Once it has said that the connection goes on by itself,
//! that is true: what may pass is asked again without an end, since `podway status` shows it and `podway disconnect` ends it.
//! Credentials that are refused then may be renewed, by a keeper or by connecting again; a refusal of those that were replaced
//! since it was asked says nothing.

use std::time::Duration;

use crate::backoff;
use crate::error::UserError;
use crate::ids::Millis;
use crate::refusal;
use crate::status::ApiServerLine;

/// Pause after the first question that was not answered; doubles.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest pause: whoever joins a VPN waits no longer for that to be noticed.
const PAUSE_LONGEST: Duration = Duration::from_secs(10);

/// The API server was not reached, or does not want this connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreached {
    /// As the user is told.
    pub error: UserError,
    /// Whether it may pass.
    pub outlook: Outlook,
}

/// Whether asking again may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outlook {
    /// A network, a machine or a server that may come back.
    MayPass,
    /// These credentials are refused; others may not be.
    Refused,
    /// Somebody has to change something: a right, a certificate, a name.
    Definite,
}

/// The question of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reaching {
    since: Millis,
    /// Questions in a row that were not answered.
    fruitless: u32,
    next: Option<Millis>,
    why: Option<String>,
    /// Whether other credentials were taken up since the question was asked.
    outdated: bool,
    /// A random byte of this connection.
    jitter: u8,
}

impl Reaching {
    /// It was asked for the first time.
    pub fn begun(now: Millis, jitter: u8) -> Reaching {
        Reaching { since: now, fruitless: 0, next: None, why: None, outdated: false, jitter }
    }

    /// No answer came; it is asked again after a pause.
    pub fn failed(&mut self, now: Millis, error: &UserError) {
        self.why = Some(error.message.clone());
        // Another one each time, of one random byte.
        let times = u8::try_from(self.fruitless.min(255)).unwrap_or(u8::MAX);
        let jitter = self.jitter.wrapping_add(times.wrapping_mul(97));
        let pause = backoff::doubling(PAUSE_FIRST, self.fruitless, PAUSE_LONGEST);
        self.next = Some(now + backoff::spread(pause, jitter));
        self.fruitless = self.fruitless.saturating_add(1);
    }

    /// Other credentials were taken up.
    pub fn renewed(&mut self, now: Millis) {
        self.outdated = self.next.is_none();
        self.hurry(now);
    }

    /// The credentials were refused with which it was asked. Whether that says nothing, as there are others: it is asked
    /// again at once then.
    pub fn is_outdated(&mut self, now: Millis) -> bool {
        let outdated = std::mem::take(&mut self.outdated);
        if outdated {
            self.next = Some(now);
        }
        outdated
    }

    /// Something is better than it was: others reach it, or there are other credentials. No need to wait for long.
    pub fn hurry(&mut self, now: Millis) {
        self.next = self.next.map(|next| next.min(now + refusal::AGAIN));
    }

    /// Whether it is to be asked now; then it is.
    pub fn take_due(&mut self, now: Millis) -> bool {
        let due = self.next.is_some_and(|next| next <= now);
        if due {
            (self.next, self.outdated) = (None, false);
        }
        due
    }

    /// When [`Reaching::take_due`] has something to do.
    pub fn deadline(&self) -> Option<Millis> {
        self.next
    }

    /// Why the last question was not answered, where one was not.
    pub fn trouble(&self) -> Option<&str> {
        self.why.as_deref()
    }

    /// For people, at `now`, which is `wall` in seconds since 1970.
    pub fn line(&self, now: Millis, wall: i64) -> ApiServerLine {
        let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
        ApiServerLine {
            message: self.why.clone().unwrap_or_else(|| super::SILENT.to_owned()),
            waiting_since: wall.saturating_sub(seconds(now.since(self.since))),
            next_try: self.next.map(|next| wall.saturating_add(seconds(next.since(now)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Reason;

    fn no_answer() -> UserError {
        UserError::new(Reason::ClusterUnreachable, "API server https://a: no answer came from that address", "")
    }

    #[test]
    fn pauses_grow_to_ten_seconds_and_no_more_and_never_end() {
        let mut reaching = Reaching::begun(Millis(0), 128);
        let (mut now, mut pauses) = (Millis(0), Vec::new());
        for _ in 0..1000 {
            reaching.failed(now, &no_answer());
            let next = reaching.deadline().expect("it goes on");
            assert!(!reaching.take_due(Millis(next.0 - 1)));
            pauses.push(next.since(now));
            now = next;
            assert!(reaching.take_due(now) && !reaching.take_due(now), "once");
        }
        assert!(pauses[0] >= PAUSE_FIRST * 3 / 4 && pauses[0] <= PAUSE_FIRST * 5 / 4, "{:?}", pauses[0]);
        assert!(pauses[4..].iter().all(|pause| *pause >= PAUSE_LONGEST * 3 / 4 && *pause <= PAUSE_LONGEST * 5 / 4));
        assert!(pauses[4..].windows(2).any(|two| two[0] != two[1]), "they are spread");
    }

    #[test]
    fn an_api_server_that_others_reach_is_asked_soon() {
        let mut reaching = Reaching::begun(Millis(0), 0);
        reaching.hurry(Millis(1));
        assert_eq!(reaching.deadline(), None, "it is being asked");
        (0..9).for_each(|_| reaching.failed(Millis(1000), &no_answer()));
        reaching.hurry(Millis(2000));
        assert_eq!(reaching.deadline(), Some(Millis(2000) + refusal::AGAIN));
        reaching.hurry(Millis(2100));
        assert_eq!(reaching.deadline(), Some(Millis(2000) + refusal::AGAIN), "no later than it was");
    }

    #[test]
    fn what_is_waited_for_since_when_and_until_when_is_told_by_the_clock_on_the_wall() {
        let mut reaching = Reaching::begun(Millis(1000), 128);
        let line = reaching.line(Millis(3000), 100);
        assert_eq!((line.message.as_str(), line.waiting_since, line.next_try), (super::super::SILENT, 98, None));
        (0..5).for_each(|_| reaching.failed(Millis(61_000), &no_answer()));
        let line = reaching.line(Millis(61_000), 158);
        assert_eq!((line.message.as_str(), line.waiting_since), (no_answer().message.as_str(), 98));
        assert!(line.next_try.is_some_and(|next| (165..=170).contains(&next)), "{:?}", line.next_try);
        // While the host slept, only the clock on the wall went on.
        assert_eq!(reaching.line(Millis(62_000), 30_000).steadied(&line).waiting_since, 98);
    }
}
