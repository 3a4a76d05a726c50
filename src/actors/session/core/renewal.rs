//! When credentials are asked for anew, and what is said of it. Pure.
//!
//! ```text
//!   ByHand ──came──▶ Waiting ──due, refused──▶ Asked ──renewed──▶ Waiting
//!      ▲                │ ▲                      │ failed, no answer in time
//!      └──── went ──────┘ └────── pause ◀────────┘
//! ```
//!
//! The keeper is a process of the user's, which resolves the kubeconfig again. At most one is asked, one thing at a time.
//! An answer counts while no other credentials were taken up since it was asked for, however late it comes.

use std::time::Duration;

use crate::backoff;
use crate::ids::{AskId, KeeperId, Millis};

/// Asked this long before the end at the latest, where the lifetime is long enough.
const BEFORE_END: Duration = Duration::from_secs(60);
/// How long an answer may take: the time of a plugin, and of starting it.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(45);
/// Pause after credentials were taken up: those that last no time at all must not make plugins run without end.
const PAUSE_LEAST: Duration = Duration::from_secs(1);
/// Pause after the first failure; doubles.
const PAUSE_FIRST: Duration = Duration::from_secs(2);
/// The longest pause: whoever logs in meanwhile waits no longer for that to be noticed, and `connect` does it at once.
const PAUSE_LONGEST: Duration = Duration::from_secs(300);
/// The longest text of a failure, in characters.
const LONGEST: usize = 300;

/// What renews the credentials of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    keeper: Option<KeeperId>,
    /// When the credentials end, in seconds since 1970.
    expires_at: Option<i64>,
    /// When new ones are wanted, where it is known when these end.
    due: Option<Millis>,
    /// Whether the API server does not take them.
    refused: bool,
    asked: Option<(AskId, Millis)>,
    last: AskId,
    /// Whatever was asked for up to this is of no use any more: other credentials were taken up since.
    outdated: AskId,
    /// Askings since the last that helped.
    fruitless: u32,
    not_before: Millis,
    /// Why the last asking failed, for people.
    trouble: Option<String>,
    /// A random byte of this connection.
    jitter: u8,
}

/// Who renews them, as far as it goes well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// The user, by connecting again.
    ByHand,
    /// A keeper waits, or has been asked.
    Automatic,
    /// A keeper failed; these credentials still work, as far as is known.
    Failing,
    /// They are refused, and nobody has others.
    NeedsLogin,
}

/// A question for the keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Its number.
    pub id: AskId,
    /// How long the answer may take.
    pub within: Duration,
}

impl Renewal {
    /// Of credentials that end then, as far as is known.
    pub fn new(expires_at: Option<i64>) -> Renewal {
        Renewal {
            keeper: None,
            expires_at,
            due: None,
            refused: false,
            asked: None,
            last: AskId(0),
            outdated: AskId(0),
            fruitless: 0,
            not_before: Millis(0),
            trouble: None,
            jitter: 0,
        }
    }

    /// The first credentials last so long from `now` on.
    pub fn begin(&mut self, now: Millis, lasts: Option<Duration>, jitter: u8) {
        self.jitter = jitter;
        self.due = lasts.map(|lasts| now + self.wait(lasts));
    }

    /// When the credentials end, in seconds since 1970.
    pub fn expires_at(&self) -> Option<i64> {
        self.expires_at
    }

    /// Why the last asking failed.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Who renews them.
    pub fn outlook(&self) -> Outlook {
        match (self.keeper, &self.trouble) {
            (_, Some(_)) if self.refused => Outlook::NeedsLogin,
            (None, _) if self.refused => Outlook::NeedsLogin,
            (Some(_), Some(_)) => Outlook::Failing,
            (Some(_), None) => Outlook::Automatic,
            (None, _) => Outlook::ByHand,
        }
    }

    /// A keeper came, in place of any that was there.
    pub fn came(&mut self, now: Millis, keeper: KeeperId) {
        self.keeper = Some(keeper);
        // Whoever started it knows more than the one before: a login, say.
        self.asked = None;
        self.fruitless = 0;
        self.not_before = now;
    }

    /// A keeper went; one that had been replaced before is nobody's loss.
    pub fn went(&mut self, keeper: KeeperId) {
        if self.keeper == Some(keeper) {
            self.keeper = None;
            self.asked = None;
        }
    }

    /// Whether credentials that were asked for so are still of use; those that nobody asked for always are.
    pub fn accepts(&self, ask: Option<AskId>) -> bool {
        ask.is_none_or(|ask| ask > self.outdated && ask <= self.last)
    }

    /// Credentials were taken up, which last so long from `now` on.
    pub fn renewed(&mut self, now: Millis, ask: Option<AskId>, expires_at: Option<i64>, lasts: Option<Duration>) {
        // A plugin may hand out what it has until that ends.
        let same = ask.is_some() && expires_at.is_some() && expires_at <= self.expires_at;
        let ended = lasts == Some(Duration::ZERO);
        self.outdated = self.last;
        self.asked = None;
        self.trouble = ended.then(|| "what it gave had ended already".to_owned()).filter(|_| ask.is_some());
        // Whether those helped is known when the API server takes them.
        self.fruitless = if same || ended || self.refused { self.fruitless + 1 } else { 0 };
        self.refused = false;
        self.expires_at = expires_at;
        self.due = lasts.map(|lasts| now + if same { Duration::ZERO } else { self.wait(lasts) });
        self.not_before = now + self.pause();
    }

    /// The clock leapt, or the host slept: the credentials last so long from `now` on, which may be less than was thought.
    pub fn leapt(&mut self, now: Millis, lasts: Option<Duration>) {
        let Some(lasts) = lasts else { return };
        let sooner = now + self.wait(lasts);
        self.due = self.due.map(|due| due.min(sooner));
    }

    /// The keeper could not do what it was asked.
    pub fn failed(&mut self, now: Millis, ask: AskId, why: &str) {
        if self.asked.is_some_and(|(asked, _)| asked == ask) {
            self.give_up(now, printable(why));
        }
    }

    /// The API server takes the credentials, or does not.
    pub fn judged(&mut self, refused: bool) {
        self.refused = refused;
        if !refused && self.trouble.is_none() {
            self.fruitless = 0;
        }
    }

    /// What to ask the keeper now.
    pub fn reconcile(&mut self, now: Millis) -> Option<Ask> {
        if self.asked.is_some_and(|(_, until)| until <= now) {
            self.give_up(now, format!("no answer came in {} s", ANSWER_LIMIT.as_secs()));
        }
        if self.next().is_none_or(|next| next > now) {
            return None;
        }
        self.last = self.last.next();
        self.asked = Some((self.last, now + ANSWER_LIMIT));
        Some(Ask { id: self.last, within: ANSWER_LIMIT })
    }

    /// When [`Renewal::reconcile`] has something to do.
    pub fn deadline(&self) -> Option<Millis> {
        self.asked.map(|(_, until)| until).or_else(|| self.next())
    }

    /// When the keeper is to be asked next.
    fn next(&self) -> Option<Millis> {
        if self.keeper.is_none() || self.asked.is_some() {
            return None;
        }
        let due = if self.refused { Some(self.not_before) } else { self.due };
        due.map(|due| due.max(self.not_before))
    }

    fn give_up(&mut self, now: Millis, why: String) {
        self.asked = None;
        self.fruitless += 1;
        self.not_before = now + self.pause();
        self.trouble = Some(why);
    }

    /// How long after the last answer the next may be asked for.
    fn pause(&self) -> Duration {
        let Some(before) = self.fruitless.checked_sub(1) else { return PAUSE_LEAST };
        // Another one each time, of one random byte.
        let times = u8::try_from(before.min(255)).unwrap_or(u8::MAX);
        let jitter = self.jitter.wrapping_add(times.wrapping_mul(97));
        backoff::spread(backoff::doubling(PAUSE_FIRST, before, PAUSE_LONGEST), jitter)
    }

    /// How long to wait with credentials that last so long: four fifths of it, up to a minute before the end, never less
    /// than half; up to a tenth less, so that connections of one login do not ask in step.
    fn wait(&self, lasts: Duration) -> Duration {
        let wait = (lasts * 4 / 5).min(lasts.saturating_sub(BEFORE_END)).max(lasts / 2);
        wait - wait * u32::from(self.jitter) / 2550
    }
}

/// A text of another process, safe for a terminal and a log.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}

#[cfg(test)]
#[path = "renewal_tests.rs"]
mod tests;
