//! One watch as the core sees it: its objects, the list under way, and its trouble. Pure.

use std::collections::BTreeMap;
use std::mem::discriminant;
use std::time::Duration;

use super::facts::{Event, Fact, Key, Trouble};
use crate::backoff::doubling;
use crate::ids::{Attempt, Millis};
use crate::refusal;

/// First pause after a failure.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// Longest pause: what a user waits at most once the API server is back.
const BACKOFF_CAP: Duration = Duration::from_secs(3);
/// Pause after 404, and the longest after 403: as a rule these pass only when someone changes the cluster.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);

/// The state of one watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Number of the task that feeds it; events of others are stale.
    pub attempt: Attempt,
    /// What exists, by the last complete list and what came since.
    pub objects: BTreeMap<Key, Fact>,
    building: Option<BTreeMap<Key, Fact>>,
    /// Whether a list has ever been completed.
    pub listed: bool,
    /// Why it is down, while it is.
    pub trouble: Option<Trouble>,
    failures: u32,
    /// Since when it is refused as its trouble says (401 or 403: what one says is no word about the other), and when that
    /// was said last.
    refused: Option<(Millis, Millis)>,
    /// When it is to go on after a failure.
    pub resume_at: Option<Millis>,
}

impl Watched {
    /// A watch that knows `objects` from elsewhere and has not listed yet.
    pub fn new(attempt: Attempt, objects: BTreeMap<Key, Fact>) -> Watched {
        Watched {
            attempt,
            objects,
            building: None,
            listed: false,
            trouble: None,
            failures: 0,
            refused: None,
            resume_at: None,
        }
    }

    /// Whether waiting for its first list makes no sense any more: it is there, or it is refused.
    pub fn settled(&self) -> bool {
        self.listed || matches!(self.trouble, Some(Trouble::Forbidden(_) | Trouble::Unknown(_)))
    }

    /// Takes an event; true if what it knows has changed.
    pub fn observe(&mut self, event: Event) -> bool {
        match event {
            Event::Init => {
                self.building = Some(BTreeMap::new());
                return false;
            }
            Event::InitApply(key, fact) => {
                // Keeping the old value of an equal one keeps one copy in memory while a list is under way.
                let known = self.objects.get(&key).filter(|known| **known == fact).cloned();
                self.building.get_or_insert_default().insert(key, known.unwrap_or(fact));
                return false;
            }
            Event::Alive | Event::InitDone | Event::Apply(..) | Event::Delete(_) => {}
        }
        self.well();
        match event {
            Event::InitDone => {
                let Some(built) = self.building.take() else { return false };
                let changed = !self.listed || built != self.objects;
                self.objects = built;
                self.listed = true;
                changed
            }
            Event::Apply(key, fact) => {
                if let Some(building) = &mut self.building {
                    building.insert(key.clone(), fact.clone());
                }
                if self.objects.get(&key) == Some(&fact) {
                    return false;
                }
                self.objects.insert(key, fact);
                true
            }
            Event::Delete(key) => {
                if let Some(building) = &mut self.building {
                    building.remove(&key);
                }
                self.objects.remove(&key).is_some()
            }
            Event::Init | Event::InitApply(..) | Event::Alive => false,
        }
    }

    /// Notes a failure and sets the time to go on. `jitter` spreads the pause over its upper half.
    pub fn fail(&mut self, now: Millis, trouble: Trouble, jitter: u8) {
        self.building = None;
        let pause = match trouble {
            // An API server that has just started refuses for a moment what it grants.
            Trouble::Forbidden(_) => doubling(refusal::AGAIN, self.failures, REFUSED_PAUSE),
            Trouble::Unknown(_) => REFUSED_PAUSE,
            Trouble::Unauthorized(_) | Trouble::Down(_) => doubling(BACKOFF_FIRST, self.failures, BACKOFF_CAP),
        };
        self.failures = self.failures.saturating_add(1).min(8);
        let goes_on = self.trouble.as_ref().is_some_and(|before| discriminant(before) == discriminant(&trouble));
        self.refused = match trouble {
            Trouble::Unauthorized(_) | Trouble::Forbidden(_) => {
                let before = self.refused.filter(|_| goes_on);
                Some((before.map_or(now, |(since, _)| since), now))
            }
            Trouble::Unknown(_) | Trouble::Down(_) => None,
        };
        self.trouble = Some(trouble);
        self.resume_at = Some(now + (pause / 2 + pause * u32::from(jitter) / 510));
    }

    /// Restarts it with another task and other credentials; what it knows stays. One that was down is so until it is heard:
    /// whether the API server takes these is not known yet.
    pub fn restart(&mut self, attempt: Attempt) {
        self.attempt = attempt;
        self.building = None;
        self.refused = None;
        self.trouble = match self.trouble.take() {
            Some(Trouble::Unauthorized(_)) => Some(Trouble::Down("other credentials are tried".to_owned())),
            down @ Some(Trouble::Down(_)) => down,
            Some(Trouble::Forbidden(_) | Trouble::Unknown(_)) | None => None,
        };
        self.failures = 0;
        self.resume_at = None;
    }

    /// How long it has been refused as its trouble says, from the first answer to the last.
    pub fn refused_for(&self) -> Duration {
        self.refused.map_or(Duration::ZERO, |(since, last)| last.since(since))
    }

    fn well(&mut self) {
        self.refused = None;
        self.trouble = None;
        self.failures = 0;
        self.resume_at = None;
    }
}
