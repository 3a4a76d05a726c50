//! What the host's resolver should look like, and how far that is.
//!
//! ```text
//!   nothing ──plan known──▶ Attaching ──▶ attached ──check, plan changed, disturbed──▶ Attaching
//!      ▲                       │ failed: again after a pause; what is hopeless only where any way will do, or names come already
//!      └───── Detaching ◀──────┴── device gone, Restore
//! ```

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::facts::{Facts, OWN_ZONE};
use super::{Attempt, DnsMode, DnsState, Effect, Generation, Millis, ReplyId, VifChanged};
use crate::actors::vif::messages::VifState;
use crate::backoff::doubling;
use crate::net::cidr::Cidr;
use crate::net::resolver::{AttachFailed, Attached, Backend, LinkPlan, MAX_DOMAINS, Outlook, REPLACED, tlds};

/// How often the settings are checked for drift.
const CHECK: Duration = Duration::from_secs(60);
/// The same for the file, which announces nothing.
const CHECK_FILE: Duration = Duration::from_secs(5);
/// First pause after a failure; doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often settings that something else overwrote are put back at once, unless they stay in between ([`STAYS`]). Then
/// names count as taken away, and are put back ever more rarely until the settings stay.
const MAX_REPAIRS: u32 = 10;
/// Longest pause between two tries then.
const LONGEST_TRUCE: Duration = Duration::from_secs(300);
/// Settings that were not overwritten for this long stay, and what was before does not count. Longer than any pause, so
/// that they were also seen to stay.
const STAYS: Duration = Duration::from_secs(600);

/// What is told for as long as that counts.
const OVERWRITTEN: &str = "something else wrote resolv.conf while connected; podway put its own back, and what was written \
                           comes back at the disconnect";

#[derive(Clone, Debug, PartialEq, Eq)]
enum Running {
    Attaching(LinkPlan),
    Detaching,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attachment {
    mode: Option<DnsMode>,
    device: Option<VifChanged>,
    running: Option<(Attempt, Running)>,
    applied: Option<(LinkPlan, Attached)>,
    /// Whether all names of the host may come to us by its file: one check that fails does not change that.
    file: bool,
    /// Domains of the workstation's own, as they were seen last.
    domains: Vec<String>,
    /// Whether anything may have been done that `Detach` would undo.
    touched: bool,
    failed: Option<AttachFailed>,
    failures: u32,
    /// How often something else was seen to have overwritten our settings, and when last.
    repairs: u32,
    repaired: Millis,
    /// When the next try or check is due.
    due: Option<Millis>,
    /// Whether there is something to try or check then. Until there is, no time brings it.
    planned: bool,
    attempt: Attempt,
    restore: Option<Vec<ReplyId>>,
    left: Vec<String>,
    reported: Option<DnsState>,
}

impl Attachment {
    pub(super) fn configure(&mut self, mode: DnsMode) {
        self.mode = Some(mode);
    }

    pub(super) fn device(&mut self, changed: VifChanged) {
        if self.device.as_ref().is_none_or(|known| known.generation <= changed.generation) {
            self.device = Some(changed);
        }
    }

    pub(super) fn attached(&mut self, now: Millis, attempt: Attempt, result: Result<Attached, AttachFailed>) {
        let Some((current, Running::Attaching(plan))) = self.running.clone() else { return };
        if current != attempt {
            return;
        }
        self.running = None;
        match result {
            Ok(attached) => {
                if attached.repaired {
                    self.repairs += 1;
                    self.repaired = now;
                } else if now.since(self.repaired) >= STAYS {
                    self.repairs = 0;
                }
                let pause = match (attached.backend, self.overwritten()) {
                    // Whoever edits the file may end: then it is ours.
                    (Backend::File, None) | (Backend::Beside, _) => CHECK_FILE,
                    (Backend::File, Some(more)) => doubling(CHECK_FILE, more, LONGEST_TRUCE),
                    (Backend::Resolved | Backend::Off, _) => CHECK,
                };
                self.due = Some(now + pause);
                self.failures = 0;
                self.failed = None;
                self.file = attached.backend == Backend::File;
                if let Some(domains) = &attached.domains {
                    self.domains.clone_from(domains);
                }
                self.applied = Some((plan, attached));
            }
            Err(failed) => {
                let pause = match failed.outlook {
                    Outlook::Open => Some(doubling(FIRST_PAUSE, self.failures, LONGEST_PAUSE)),
                    Outlook::Taken | Outlook::Overwritten | Outlook::Edited => Some(CHECK_FILE),
                    // A host changes: what cannot be attached now may be later. While its names come to us there is
                    // more to it.
                    Outlook::Hopeless => self.goes_on(&failed).then_some(if failed.file { CHECK_FILE } else { CHECK }),
                };
                self.failures += 1;
                self.file = failed.file;
                self.due = pause.map(|pause| now + pause);
                self.failed = Some(failed);
                self.applied = None;
            }
        }
    }

    /// Somebody changed the resolver's settings, or it started anew.
    pub(super) fn disturbed(&mut self, now: Millis) {
        if self.failed.as_ref().is_none_or(|failed| self.goes_on(failed)) && self.overwritten().is_none() {
            self.due = Some(now);
        }
    }

    /// Whether another try may be of use after this one.
    fn goes_on(&self, failed: &AttachFailed) -> bool {
        failed.outlook != Outlook::Hopeless || self.mode == Some(DnsMode::Auto) || failed.file
    }

    /// Where something else keeps overwriting our settings: how often since that was seen.
    fn overwritten(&self) -> Option<u32> {
        self.repairs.checked_sub(MAX_REPAIRS)
    }

    pub(super) fn restore(&mut self, id: ReplyId) {
        self.restore.get_or_insert_default().push(id);
    }

    pub(super) fn restored(&mut self, attempt: Attempt, left: Vec<String>) {
        if self.running == Some((attempt, Running::Detaching)) {
            self.running = None;
            self.touched = false;
            self.applied = None;
            self.file = false;
            self.left = left;
        }
    }

    pub(super) fn deadline(&self) -> Option<Millis> {
        self.due.filter(|_| self.running.is_none() && self.restore.is_none() && self.planned)
    }

    /// Whether all the host's names may come to us.
    pub(super) fn forwarding(&self) -> bool {
        // The file may be ours before we hear of it, unless it was another connection's.
        let first = self.applied.is_none() && self.failed.is_none() && self.mode == Some(DnsMode::File);
        self.file || (first && matches!(&self.running, Some((_, Running::Attaching(_)))))
    }

    /// Domains of the workstation's own.
    pub(super) fn domains(&self) -> &[String] {
        &self.domains
    }

    /// Starts what is due, answers what is done, reports what changed.
    pub(super) fn step(&mut self, now: Millis, facts: &Facts) -> Vec<Effect> {
        let mut effects = Vec::new();
        let plan = self.plan(facts);
        self.planned = plan.is_some() && self.mode.is_some_and(|mode| mode != DnsMode::Off);
        if self.running.is_none() {
            self.start(now, plan.as_ref(), &mut effects);
        }
        let mut state = self.state(plan.as_ref());
        let records = Some(&facts.records.1).filter(|records| records.complete);
        let only = records.and_then(|records| records.namespaces.as_ref());
        state.only = only.map(|names| names.iter().map(ToString::to_string).collect());
        if self.mode.is_some() && self.reported.as_ref() != Some(&state) {
            self.reported = Some(state.clone());
            effects.push(Effect::Report(state));
        }
        effects
    }

    fn start(&mut self, now: Millis, plan: Option<&LinkPlan>, effects: &mut Vec<Effect>) {
        if self.touched && (self.restore.is_some() || plan.is_none()) {
            let attempt = self.begin(Running::Detaching);
            return effects.push(Effect::Detach { attempt });
        }
        if let Some(waiting) = &mut self.restore {
            let left = self.left.clone();
            return effects.extend(waiting.drain(..).map(|id| Effect::AnswerRestore { id, left: left.clone() }));
        }
        let (Some(plan), Some(mode)) = (plan, self.mode) else { return };
        if mode == DnsMode::Off {
            return;
        }
        let due = self.due.is_some_and(|due| due <= now);
        let wanted = match (&self.applied, &self.failed) {
            (Some((applied, _)), _) => applied != plan || due,
            (None, Some(_)) => due,
            (None, None) => true,
        };
        if wanted {
            let attempt = self.begin(Running::Attaching(plan.clone()));
            self.touched = true;
            effects.push(Effect::Attach { attempt, mode, plan: plan.clone() });
        }
    }

    fn begin(&mut self, running: Running) -> Attempt {
        self.attempt = self.attempt.next();
        self.running = Some((self.attempt, running));
        self.due = None;
        self.attempt
    }

    fn device_up(&self) -> Option<(u32, &str, &[String], Generation)> {
        match &self.device.as_ref()?.state {
            VifState::Up { ifindex, name, applied, routes, .. } => Some((*ifindex, name, routes, *applied)),
            VifState::Down | VifState::Failed { .. } => None,
        }
    }

    /// What the link should look like; `None` until the device carries the DNS address and the domain is known.
    fn plan(&self, facts: &Facts) -> Option<LinkPlan> {
        let (ifindex, interface, routes, applied) = self.device_up()?;
        let (domain, translation) = (facts.domain()?, facts.translation.as_ref()?);
        if facts.namespace.is_empty() {
            return None;
        }
        let carried = |address: &IpAddr| {
            applied > Generation(0) || routes.iter().filter_map(|r| r.parse::<Cidr>().ok()).any(|r| r.contains(address))
        };
        let servers: Vec<IpAddr> = translation.dns_addresses.iter().copied().filter(carried).collect();
        if servers.is_empty() {
            return None;
        }
        let search = format!("{}.svc.{domain}", facts.namespace);
        let mut seen = BTreeSet::from([search.clone()]);
        let mut routing = Vec::new();
        let namespaces = std::iter::once(&facts.namespace)
            .chain(&translation.namespaces)
            .chain(&facts.records.1.known_namespaces)
            .map(|namespace| namespace.to_string())
            .filter(|namespace| !tlds::is_public(namespace));
        let first = [domain.to_owned(), "svc".to_owned(), OWN_ZONE.to_owned()];
        let suffixes = facts.suffixes.iter().map(|suffix| suffix.to_string());
        for name in first.into_iter().chain(suffixes).chain(reverse_zones(facts, &servers)).chain(namespaces) {
            if routing.len() + 1 < MAX_DOMAINS && seen.insert(name.clone()) {
                routing.push(name);
            }
        }
        Some(LinkPlan { ifindex, interface: interface.to_owned(), servers, search: vec![search], routing })
    }

    fn state(&self, plan: Option<&LinkPlan>) -> DnsState {
        let mut state = DnsState::default();
        if let Some(plan) = plan {
            state.server = plan.servers.first().map(ToString::to_string).unwrap_or_default();
            state.domains = plan.search.iter().cloned().chain(plan.routing.iter().map(|d| format!("~{d}"))).collect();
        }
        if self.restore.is_some() {
            return state;
        }
        if self.mode == Some(DnsMode::Off) {
            state.backend = Backend::Off.to_string();
            state.ready = plan.is_some();
            state.domains.clear();
            return state;
        }
        if let Some((applied, attached)) = &self.applied {
            state.backend = attached.backend.to_string();
            state.message = attached.message.clone();
            state.ready = plan == Some(applied);
            if self.repairs > 0 && attached.backend == Backend::File {
                state.message = match attached.message.as_str() {
                    "" | REPLACED => OVERWRITTEN.to_owned(),
                    more => format!("{OVERWRITTEN}; {more}"),
                };
            }
            if self.overwritten().is_some() {
                state.ready = false;
                state.outlook = Outlook::Overwritten;
                state.message = format!(
                    "something else keeps overwriting {}; find and stop it, or connect with --dns off",
                    attached.backend
                );
            }
        }
        if let Some(failed) = &self.failed {
            state.message = failed.message.clone();
            state.outlook = failed.outlook;
            if self.mode == Some(DnsMode::Auto) && failed.outlook != Outlook::Open {
                state.backend = Backend::Off.to_string();
                state.domains.clear();
            }
        }
        state
    }
}

/// Zones of the addresses that are ours alone: the cluster's ranges unless the host may use the same, and the virtual ones.
fn reverse_zones(facts: &Facts, servers: &[IpAddr]) -> Vec<String> {
    let hidden = |range: &&Cidr| {
        let translated = facts.translation.as_ref().map(|t| &t.translated);
        translated.is_some_and(|all| all.iter().any(|t| t.contains(*range) || range.contains(t)))
    };
    let ranges = facts.info.1.service_cidrs.iter().chain(&facts.info.1.pod_cidrs).filter(|range| !hidden(range));
    let all = facts.translation.iter().flat_map(|translation| &translation.virtual_ranges);
    // Of a range that ends within a label, at least where the first addresses are given out.
    let around = |range: &Cidr| {
        let at = servers.iter().find(|server| range.contains(*server))?;
        Cidr::new(*at, if at.is_ipv4() { 24 } else { 64 }).ok()
    };
    let own = all.filter_map(|range| reverse_zone(range).map_or_else(|| around(range), |_| Some(*range)));
    own.chain(ranges.copied()).filter_map(|range| reverse_zone(&range)).take(16).collect()
}

/// The zone of a range that ends at a label of its family; others would need many and are left out.
fn reverse_zone(range: &Cidr) -> Option<String> {
    let bits = usize::from(range.prefix_len());
    match range.network() {
        IpAddr::V4(network) if bits.is_multiple_of(8) && (8..=24).contains(&bits) => {
            let labels: Vec<String> = network.octets()[..bits / 8].iter().rev().map(ToString::to_string).collect();
            Some(format!("{}.in-addr.arpa", labels.join(".")))
        }
        IpAddr::V6(network) if bits.is_multiple_of(4) && (16..=120).contains(&bits) => {
            let digits = format!("{:032x}", network.to_bits());
            let labels: Vec<String> = digits[..bits / 4].chars().rev().map(String::from).collect();
            Some(format!("{}.ip6.arpa", labels.join(".")))
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}
