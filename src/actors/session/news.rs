//! What is worth a line of the log, from one status document to the next. Pure, but for [`News::log`].
//!
//! The document says how things stand, the log how they came to it: a route of a VPN, a range that moved, an agent that
//! was lost. A connection that changes without end may fill neither the log nor the memory behind `podway logs`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tracing::{info, warn};

use crate::ids::Millis;
use crate::status::{Condition, Phase, RangeLine, RenewalLine, SessionStatus};

/// Lines of one connection in [`WINDOW`]: more than a bad day of a few agents needs.
const MOST: u32 = 40;
/// See [`MOST`].
const WINDOW: Duration = Duration::from_secs(60);
/// Ranges that one line names.
const NAMED: usize = 3;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// All works.
    Ready,
    /// The API server gives no answer, or a watch fails; says why.
    ApiServerAway(String),
    /// It answers again.
    ApiServerBack,
    /// It refuses the credentials; says why.
    CredentialsRefused(String),
    /// The keeper could not renew them; says why.
    CredentialsNotRenewed(String),
    /// A route of this host overlaps these ranges: the note, the ranges.
    Conflict(String, String),
    /// It is gone; these ranges, and what happens to them now.
    ConflictGone(String, String),
    /// Virtual addresses come from other ranges: before, now.
    VirtualMoved(String, String),
    /// An agent carries traffic: workload, pod.
    AgentReady(String, String),
    /// An agent does so no more: workload, pod, why.
    AgentLost(String, String, String),
}

/// How many lines may still be told.
#[derive(Clone, Debug, Default)]
pub struct Budget {
    since: Millis,
    told: u32,
}

/// What is told of so much news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// These.
    pub news: Vec<News>,
    /// Whether it has to be said that some are left out from now on.
    pub first_left_out: bool,
}

impl Budget {
    /// Keeps as many as there is room for at `now`.
    pub fn take(&mut self, now: Millis, mut news: Vec<News>) -> Told {
        if now.since(self.since) >= WINDOW {
            *self = Budget { since: now, told: 0 };
        }
        let room = usize::try_from(MOST.saturating_sub(self.told)).unwrap_or(0);
        let first_left_out = news.len() > room && self.told <= MOST;
        news.truncate(room);
        self.told += u32::try_from(news.len()).unwrap_or(MOST);
        if first_left_out {
            self.told = MOST + 1;
        }
        Told { news, first_left_out }
    }
}

/// What happened between two documents of one connection. Its end is told by whoever ends it.
pub fn between(before: &SessionStatus, now: &SessionStatus) -> Vec<News> {
    let ends = |status: &SessionStatus| matches!(status.phase, Phase::Disconnecting | Phase::Disconnected);
    if ends(before) || ends(now) {
        return Vec::new();
    }
    let mut news = Vec::new();
    api_server(before, now, &mut news);
    credentials(before, now, &mut news);
    conflicts(&before.ranges, &now.ranges, &mut news);
    if !before.vips.ranges.is_empty() && !now.vips.ranges.is_empty() && before.vips.ranges != now.vips.ranges {
        news.push(News::VirtualMoved(before.vips.ranges.join(", "), now.vips.ranges.join(", ")));
    }
    agents(before, now, &mut news);
    if now.holds("Ready") && !before.holds("Ready") {
        news.push(News::Ready);
    }
    news
}

fn watch(status: &SessionStatus) -> Option<&Condition> {
    status.conditions.iter().find(|condition| condition.r#type == "WatchReady")
}

fn api_server(before: &SessionStatus, now: &SessionStatus, news: &mut Vec<News>) {
    let is_away = |reason: &str| matches!(reason, "Stale" | "Unreached" | "NeedsLogin");
    let (before, Some(now)) = (watch(before).map_or("", |c| c.reason.as_str()), watch(now)) else { return };
    match now.reason.as_str() {
        "Fresh" if is_away(before) => news.push(News::ApiServerBack),
        "NeedsLogin" if before != "NeedsLogin" => news.push(News::CredentialsRefused(now.message.clone())),
        "Stale" | "Unreached" if !is_away(before) => news.push(News::ApiServerAway(now.message.clone())),
        _ => {}
    }
}

fn credentials(before: &SessionStatus, now: &SessionStatus, news: &mut Vec<News>) {
    let trouble = |status: &SessionStatus| {
        let line = status.credentials.as_ref()?;
        let bad = matches!(line.renewal, RenewalLine::Failing | RenewalLine::NeedsLogin) && !line.message.is_empty();
        bad.then(|| line.message.clone())
    };
    if let Some(why) = trouble(now)
        && trouble(before).as_ref() != Some(&why)
    {
        news.push(News::CredentialsNotRenewed(why));
    }
}

/// Ranges by what clashes with them; one line for each route, however many ranges it overlaps.
fn conflicts(before: &[RangeLine], now: &[RangeLine], news: &mut Vec<News>) {
    let clash = |line: &&RangeLine| line.treatment == "translated" && !line.note.is_empty();
    let known: BTreeMap<_, _> = before.iter().map(|line| ((&line.cidr, &line.source), line)).collect();
    let mut came: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut went: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in now {
        let earlier = known.get(&(&line.cidr, &line.source)).copied();
        let clashed = earlier.filter(clash);
        if clash(&line) {
            if clashed.is_none_or(|earlier| earlier.note != line.note) {
                came.entry(&line.note).or_default().push(&line.cidr);
            }
        } else if clashed.is_some() {
            went.entry(&line.treatment).or_default().push(&line.cidr);
        }
    }
    news.extend(came.into_iter().map(|(note, ranges)| News::Conflict(note.to_owned(), some_of(&ranges))));
    news.extend(went.into_iter().map(|(treated, ranges)| News::ConflictGone(some_of(&ranges), treated.to_owned())));
}

fn some_of(ranges: &[&str]) -> String {
    let named = ranges.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    match ranges.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

fn agents(before: &SessionStatus, now: &SessionStatus, news: &mut Vec<News>) {
    let ready = |status: &SessionStatus| -> BTreeSet<(String, String)> {
        let links = status.workloads.iter().flat_map(|line| line.links.iter().map(move |link| (line, link)));
        let ready = links.filter(|(_, link)| link.health == "ready");
        // As `podway status` calls it beside others.
        ready.map(|(line, link)| (line.title(false).to_owned(), link.pod.clone())).collect()
    };
    let (were, are) = (ready(before), ready(now));
    for (workload, pod) in were.difference(&are) {
        let links = now.workloads.iter().filter(|line| line.title(false) == workload).flat_map(|line| &line.links);
        let why = match links.into_iter().find(|link| link.pod == *pod) {
            None => "it is gone, or not wanted any more".to_owned(),
            Some(link) if link.message.is_empty() => link.health.clone(),
            Some(link) => link.message.clone(),
        };
        news.push(News::AgentLost(workload.clone(), pod.clone(), why));
    }
    news.extend(are.difference(&were).cloned().map(|(workload, pod)| News::AgentReady(workload, pod)));
}

impl News {
    /// One line of the log.
    pub fn log(&self) {
        match self {
            News::Ready => info!("the connection is ready"),
            News::ApiServerAway(why) => warn!(why, "the API server does not answer"),
            News::ApiServerBack => info!("the API server answers again"),
            News::CredentialsRefused(why) => warn!(why, "the API server refuses the credentials"),
            News::CredentialsNotRenewed(why) => warn!(why, "the credentials could not be renewed"),
            News::Conflict(note, ranges) => {
                warn!(ranges, because = note, "a route of this host overlaps the cluster: virtual addresses are used");
            }
            News::ConflictGone(ranges, treated) => info!(ranges, now = treated, "a route that overlapped is gone"),
            News::VirtualMoved(from, to) => warn!(from, to, "virtual addresses come from another range now"),
            News::AgentReady(workload, pod) => info!(workload, pod, "an agent is ready"),
            News::AgentLost(workload, pod, why) => warn!(workload, pod, why, "an agent is lost"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{CredentialsLine, LinkLine, Vips, WorkloadLine};

    fn range(cidr: &str, treatment: &str, note: &str) -> RangeLine {
        RangeLine { cidr: cidr.into(), source: "service".into(), treatment: treatment.into(), note: note.into() }
    }

    fn with(change: impl FnOnce(&mut SessionStatus)) -> SessionStatus {
        let mut status = SessionStatus { phase: Phase::Connected, ..SessionStatus::default() };
        change(&mut status);
        status
    }

    fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Condition {
        Condition {
            r#type: kind.into(),
            subject: String::new(),
            status: status.into(),
            reason: reason.into(),
            message: message.into(),
            last_transition_time: 0,
        }
    }

    #[test]
    fn a_route_that_overlaps_is_told_once_for_all_its_ranges_when_it_comes_and_when_it_goes() {
        let cidrs = ["10.43.0.1/32", "10.43.0.2/32", "10.43.0.3/32", "10.43.0.4/32", "10.43.0.5/32"];
        let all = |treatment: &str, note: &str| {
            with(|status| status.ranges = cidrs.map(|cidr| range(cidr, treatment, note)).into())
        };
        let (plain, clash) = (all("routed", ""), all("translated", "conflicts with 10.0.0.0/8 via wg0"));
        let some = "10.43.0.1/32, 10.43.0.2/32, 10.43.0.3/32 and 2 more".to_owned();
        let came = News::Conflict("conflicts with 10.0.0.0/8 via wg0".into(), some.clone());
        assert_eq!(between(&plain, &clash), std::slice::from_ref(&came));
        assert_eq!(between(&SessionStatus::default(), &clash), [came], "also where it was there before");
        assert_eq!(between(&clash, &clash), []);
        assert_eq!(between(&clash, &plain), [News::ConflictGone(some, "routed".into())]);
    }

    #[test]
    fn a_virtual_range_that_moves_is_told_and_the_first_is_not() {
        let from = |ranges: &[&str]| {
            let ranges = ranges.iter().map(|range| (*range).to_owned()).collect();
            with(|status| status.vips = Vips { ranges, ..Vips::default() })
        };
        assert_eq!(between(&from(&[]), &from(&["246.246.0.0/16"])), []);
        let moved = between(&from(&["246.246.0.0/16"]), &from(&["100.64.0.0/16"]));
        assert_eq!(moved, [News::VirtualMoved("246.246.0.0/16".into(), "100.64.0.0/16".into())]);
    }

    #[test]
    fn an_agent_that_comes_and_is_lost_is_told_with_why_and_the_end_of_a_connection_is_no_loss() {
        let link = |health: &str, message: &str| {
            let link = LinkLine {
                pod: "demo/web-1".into(),
                placement: "ephemeral container".into(),
                version: String::new(),
                health: health.into(),
                message: message.into(),
            };
            let line = WorkloadLine {
                workload: "demo/deployment/web".into(),
                state: String::new(),
                message: String::new(),
                links: vec![link],
            };
            with(|status| status.workloads = vec![line])
        };
        let (web, pod) = ("demo/deployment/web".to_owned(), "demo/web-1".to_owned());
        let (ready, dialing) = (link("ready", ""), link("dialing", "the connection was cut"));
        assert_eq!(between(&dialing, &ready), [News::AgentReady(web.clone(), pod.clone())]);
        let lost = News::AgentLost(web.clone(), pod.clone(), "the connection was cut".into());
        assert_eq!(between(&ready, &dialing), [lost]);
        let gone = between(&ready, &with(|_| ()));
        assert_eq!(gone, [News::AgentLost(web, pod, "it is gone, or not wanted any more".into())]);
        assert_eq!(between(&ready, &with(|status| status.phase = Phase::Disconnecting)), []);
    }

    #[test]
    fn the_api_server_and_the_credentials_are_told_when_they_change() {
        let watch = |status: &str, reason: &str| {
            with(|s| s.conditions = vec![condition("WatchReady", status, reason, "it is silent")])
        };
        let (fresh, stale) = (watch("True", "Fresh"), watch("False", "Stale"));
        assert_eq!(between(&fresh, &stale), [News::ApiServerAway("it is silent".into())]);
        assert_eq!(between(&stale, &watch("False", "Unreached")), [], "it was told");
        assert_eq!(between(&stale, &fresh), [News::ApiServerBack]);
        assert_eq!(between(&watch("False", "Starting"), &fresh), []);
        let refused = watch("False", "NeedsLogin");
        assert_eq!(between(&fresh, &refused), [News::CredentialsRefused("it is silent".into())]);
        let kept = |renewal, message: &str| {
            with(|s| s.credentials = Some(CredentialsLine { renewal, message: message.into() }))
        };
        let (well, ill) = (kept(RenewalLine::Automatic, ""), kept(RenewalLine::Failing, "no login"));
        assert_eq!(between(&well, &ill), [News::CredentialsNotRenewed("no login".into())]);
        assert_eq!(between(&ill, &ill), []);
        let ready = with(|s| s.conditions = vec![condition("Ready", "True", "EverythingWorks", "")]);
        assert_eq!(between(&with(|_| ()), &ready), [News::Ready]);
    }

    #[test]
    fn what_changes_without_end_is_told_so_often_in_a_minute_and_that_some_is_left_out_once() {
        let mut budget = Budget::default();
        let mut told = (0, 0);
        for at in 0..1000 {
            let Told { news, first_left_out } = budget.take(Millis(at), vec![News::Ready]);
            told = (told.0 + news.len(), told.1 + u32::from(first_left_out));
        }
        assert_eq!(told, (40, 1));
        let later = budget.take(Millis(61_000), vec![News::Ready]);
        assert_eq!(later, Told { news: vec![News::Ready], first_left_out: false });
    }
}
