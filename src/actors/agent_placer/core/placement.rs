//! What was asked of the API server, what it said, and when it is asked again.

use std::sync::Arc;
use std::time::Duration;

use super::{AgentPlacerCore, Effect, Place, PlaceOutcome};
use crate::actors::agent_placer::PLACE_LIMIT;
use crate::backoff::doubling;
use crate::cluster::PodFact;
use crate::ids::{Attempt, Millis};
use crate::refusal::{self, Readiness};

/// A placed agent that no snapshot shows for this long is placed again.
const SEEN_WITHIN: Duration = Duration::from_secs(10);
/// A Job whose pod no snapshot shows for this long is looked at: a quota refuses its pod, and nothing tells us.
const JOB_SEEN_WITHIN: Duration = Duration::from_secs(1);
/// The first pause after a failure; doubles.
const RETRY_FIRST: Duration = Duration::from_millis(250);
/// The longest pause.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// The longest pause while the API server refuses.
const RETRY_REFUSED: Duration = Duration::from_secs(60);
/// A refusal that was not repeated for this long goes on no more: where it does, it is asked again by then, and answered.
const GOES_ON_WITHIN: Duration = RETRY_REFUSED.saturating_add(PLACE_LIMIT);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Progress {
    Asked,
    /// Accepted; asked again if no snapshot shows it by then.
    Accepted {
        until: Millis,
    },
    Failed {
        retry_at: Millis,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Placement {
    pub(super) attempt: Attempt,
    pub(super) tries: u32,
    pub(super) progress: Progress,
    /// The API server's refusal, while its last word was one.
    pub(super) refused: Option<Refused>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Refused {
    since: Millis,
    last: Millis,
    why: Arc<str>,
    how: Refusal,
    /// Whether another place of the namespace got an agent meanwhile: then it says nothing of others.
    alone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Refusal {
    /// A right or a quota is missing, or the API server is starting.
    Forbidden,
    /// It is not what may be placed.
    Rejected,
}

impl Placement {
    /// Whether it is time to ask (again).
    pub(super) fn is_due(&self, now: Millis) -> bool {
        match self.progress {
            Progress::Asked => false,
            Progress::Accepted { until: at } | Progress::Failed { retry_at: at } => at <= now,
        }
    }
}

impl AgentPlacerCore {
    pub(super) fn finished(&mut self, now: Millis, place: &Place, attempt: Attempt, outcome: PlaceOutcome) {
        let Some(placement) = self.placements.get_mut(place).filter(|p| p.attempt == attempt) else { return };
        placement.tries += 1;
        let before = placement.refused.take();
        let (why, how) = match outcome {
            PlaceOutcome::Accepted => {
                let within = if *place == Place::OwnJob { JOB_SEEN_WITHIN } else { SEEN_WITHIN };
                placement.progress = Progress::Accepted { until: now + within };
                self.own.made |= place.is_own();
                self.own.job_waits |= *place == Place::OwnJob;
                self.refused_alone(place);
                return;
            }
            PlaceOutcome::Gone | PlaceOutcome::Failed(_) => {
                placement.progress = failed(now, placement.tries);
                return;
            }
            PlaceOutcome::Forbidden(why) => (why, Refusal::Forbidden),
            PlaceOutcome::Rejected(why) => (why, Refusal::Rejected),
        };
        let (since, alone) = before.map_or((now, false), |refused| (refused.since, refused.alone));
        placement.refused = Some(Refused { since, last: now, why, how, alone });
        let pause = match self.refusal(place) {
            Some(_) => refusal::pause(now.since(since), RETRY_REFUSED),
            None => refusal::AGAIN,
        };
        if let Some(placement) = self.placements.get_mut(place) {
            placement.progress = Progress::Failed { retry_at: now + pause };
        }
    }

    /// Why this place will not be had, where the API server refuses it and means it.
    pub(super) fn refusal(&self, place: &Place) -> Option<Arc<str>> {
        let refused = self.placements.get(place)?.refused.as_ref()?;
        let namespace = self.namespace_of(place);
        // Rights are told only once the API server can be believed: before, it may be starting.
        let server = match self.rights.1.namespaces.contains_key(namespace?) {
            true => Readiness::Silent,
            false => Readiness::NotReady,
        };
        // What goes on in one place of a namespace need not go on in each.
        let of_namespace = self.placements.iter().filter(|(other, _)| self.namespace_of(other) == namespace);
        let others = of_namespace.filter_map(|(_, placement)| placement.refused.as_ref()).filter(|other| {
            other.how == Refusal::Forbidden && !other.alone && refused.last.since(other.last) <= GOES_ON_WITHIN
        });
        let since = others.map(|other| other.since).fold(refused.since, Millis::min);
        let meant = match refused.how {
            Refusal::Rejected => true,
            Refusal::Forbidden => refused.last.since(since) >= server.patience(),
        };
        meant.then(|| Arc::clone(&refused.why))
    }

    /// Something was accepted at `place`: what others of its namespace are refused is no matter of the namespace.
    fn refused_alone(&mut self, place: &Place) {
        let namespace = self.namespace_of(place).cloned();
        let there = |other: &Place| self.namespace_of(other).cloned() == namespace;
        let others: Vec<Place> = self.placements.keys().filter(|other| there(other)).cloned().collect();
        for other in others {
            if let Some(refused) = self.placements.get_mut(&other).and_then(|placement| placement.refused.as_mut()) {
                refused.alone = true;
            }
        }
    }

    fn namespace_of<'a>(&'a self, place: &Place) -> Option<&'a Arc<str>> {
        match place {
            Place::Pod(uid) => self.pods.1.pods.get(uid).map(|pod| &pod.namespace),
            Place::OwnJob | Place::OwnPod => Some(&self.plan.namespace),
        }
    }

    pub(super) fn ask(&mut self, place: Place, pod: Option<Arc<PodFact>>, container: String, port: u16) {
        let attempt = self.next_attempt;
        self.next_attempt = attempt.next();
        let (tries, refused) =
            self.placements.remove(&place).map_or((0, None), |before| (before.tries, before.refused));
        self.placements.insert(place.clone(), Placement { attempt, tries, progress: Progress::Asked, refused });
        self.effects.push_back(Effect::Place { place, attempt, pod, container, port });
    }
}

fn failed(now: Millis, tries: u32) -> Progress {
    let pause = doubling(RETRY_FIRST, tries.saturating_sub(1), RETRY_MAX);
    Progress::Failed { retry_at: now + pause }
}
