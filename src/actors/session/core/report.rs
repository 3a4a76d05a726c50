//! From what a session knows to what `podway status` shows: conditions, lines, steps.

use std::collections::BTreeMap;

pub use self::ranges::range_line;
use self::ranges::{range_step, too_narrow};
use super::renewal::Outlook as Renewing;
use super::{Facts, Life, SILENCE, SILENT, SessionCore, needed};
use crate::actors::client_list::messages::{LinkState, Placement, TargetState};
use crate::actors::pod_watcher::messages::WatchHealth;
use crate::actors::proxy_via::messages::RangeStatus;
use crate::actors::vif::messages::VifState;
use crate::cluster::Resolution;
use crate::ids::Millis;
use crate::net::resolver::{Outlook, REPLACED};
use crate::net::route_plan::Ipv6;
use crate::net::views::Target;
use crate::spec::{AgentMode, DnsMode};
use crate::status::{
    Condition, ConnectOutcome, CredentialsLine, DeviceLine, DnsLine, LinkLine, Mark, Phase, RangeLine, RenewalLine,
    SessionStatus, Vips, WorkloadLine,
};

mod ranges;

/// The `state` of what the user wants no agent for.
const OFF: &str = "Off";
/// A `placement`.
const OWN_POD: &str = "own pod";

/// A condition before its transition time is known.
struct Holds {
    kind: &'static str,
    /// Of several of a kind, which.
    subject: String,
    status: bool,
    reason: &'static str,
    message: String,
}

impl SessionCore {
    /// What still keeps this connection from being ready, by a stable key, in words.
    pub(super) fn missing(&self) -> BTreeMap<String, String> {
        let not_ready = |condition: Holds| (!condition.status).then(|| (condition.kind.to_owned(), condition.message));
        let mut missing: BTreeMap<String, String> =
            [self.watch_ready(), self.routes_ready(), self.dns_ready()].into_iter().filter_map(not_ready).collect();
        if self.without_names().is_some() {
            missing.remove("DNSReady");
        }
        match self.rules() {
            None => {
                let mut resolutions = self.facts.resolutions.iter().flatten();
                let refused = resolutions.find_map(|(reference, resolution)| match resolution {
                    Resolution::Forbidden { missing } => {
                        Some(format!("workload {reference}: missing right: {missing}"))
                    }
                    Resolution::Found { .. }
                    | Resolution::NotFound { .. }
                    | Resolution::Ambiguous { .. }
                    | Resolution::Failed { .. } => None,
                });
                let text =
                    refused.unwrap_or_else(|| "the workloads of --proxy-via are still being looked up".to_owned());
                missing.insert("rules".to_owned(), text);
            }
            Some(rules) => {
                for target in needed(&rules) {
                    let line = self.workload_line(&target);
                    if line.state != "Ready" {
                        let text = match target {
                            Target::Workload(_) => format!("{}: {}", line.workload, line.message),
                            // Its message names what it is about.
                            Target::General => line.message,
                        };
                        missing.insert(line.workload, text);
                    }
                }
            }
        }
        missing
    }

    /// How a connect ends with what is there now, if it waits no longer.
    pub(super) fn standing(&self) -> ConnectOutcome {
        if self.life != Life::Running {
            return ConnectOutcome::TimedOut { missing: vec![self.ready().message] };
        }
        let (missing, pending) = (self.missing(), self.scaled_to_zero());
        if missing.is_empty() {
            ConnectOutcome::Ready
        } else if missing.keys().all(|key| pending.contains_key(key)) {
            ConnectOutcome::Degraded { pending: pending.into_values().collect() }
        } else {
            ConnectOutcome::TimedOut { missing: missing.into_values().collect() }
        }
    }

    fn watch_ready(&self) -> Holds {
        let (status, reason, message) = match (self.facts.watch.as_ref().map(|(_, health)| health), self.unanswered()) {
            (Some(WatchHealth::Fresh), _) => (true, "Fresh", String::new()),
            (Some(WatchHealth::Unauthorized { why }), _) => {
                let trouble = self.renewal.trouble().map(|trouble| format!("; not renewed: {trouble}"));
                (false, "NeedsLogin", format!("{why}{}", trouble.unwrap_or_default()))
            }
            (Some(WatchHealth::Starting | WatchHealth::Stale { .. }) | None, Some((reason, message))) => {
                (false, reason, message)
            }
            (Some(WatchHealth::Stale { why }), None) => (false, "Stale", format!("{why}; it is asked again")),
            (Some(WatchHealth::Starting) | None, None) => (false, "Starting", "the cluster is being listed".to_owned()),
        };
        Holds { kind: "WatchReady", subject: String::new(), status, reason, message }
    }

    fn routes_ready(&self) -> Holds {
        let (kind, subject) = ("RoutesReady", String::new());
        let Some((_, via)) = self.facts.via.as_ref().filter(|(_, via)| via.ready) else {
            let message = "the cluster's ranges are not known yet".to_owned();
            return Holds { kind, subject, status: false, reason: "RangesUnknown", message };
        };
        match &self.facts.vif {
            Some((_, VifState::Up { applied, failed, .. })) if *applied >= via.plan => {
                let message: Vec<String> = failed.iter().map(|(route, why)| format!("{route}: {why}")).collect();
                let reason = if failed.is_empty() { "Applied" } else { "PartlyApplied" };
                Holds { kind, subject, status: true, reason, message: message.join("; ") }
            }
            Some((_, VifState::Up { .. })) => Holds {
                kind,
                subject,
                status: false,
                reason: "Applying",
                message: "routes are being applied".to_owned(),
            },
            Some((_, VifState::Failed { why })) => {
                Holds { kind, subject, status: false, reason: "DeviceFailed", message: why.clone() }
            }
            Some((_, VifState::Down)) | None => Holds {
                kind,
                subject,
                status: false,
                reason: "DeviceDown",
                message: "the device is being made".to_owned(),
            },
        }
    }

    fn dns_ready(&self) -> Holds {
        let (status, reason, message) = match &self.facts.dns {
            Some((_, dns)) if dns.ready && self.spec.dns == DnsMode::Off => (true, "Off", dns.message.as_str()),
            Some((_, dns)) if dns.ready => (true, "Applied", dns.message.as_str()),
            Some((_, dns)) => match dns.outlook {
                Outlook::Hopeless => (false, "NotAttached", dns.message.as_str()),
                Outlook::Taken => (false, "FileTaken", dns.message.as_str()),
                Outlook::Edited => (false, "Edited", dns.message.as_str()),
                Outlook::Overwritten => (false, "Overwritten", dns.message.as_str()),
                Outlook::Open if dns.message.is_empty() => (false, "Applying", "names are being attached"),
                Outlook::Open => (false, "Applying", dns.message.as_str()),
            },
            None => (false, "Starting", "names are being attached"),
        };
        Holds { kind: "DNSReady", subject: String::new(), status, reason, message: message.to_owned() }
    }

    /// Why names are not attached, where that is how it stays: who lets podway choose has a connection without names on
    /// a host that has nothing to attach them to, or where something else takes them away.
    fn without_names(&self) -> Option<&str> {
        let (_, dns) = self.facts.dns.as_ref().filter(|_| self.spec.dns == DnsMode::Auto)?;
        (!dns.ready && dns.outlook != Outlook::Open).then_some(dns.message.as_str())
    }

    fn targets(&self) -> Vec<Target> {
        let rules = self.rules().unwrap_or_default();
        let mut targets: Vec<Target> = Vec::new();
        for target in rules.into_iter().map(|rule| Target::Workload(rule.workload)) {
            if !targets.contains(&target) {
                targets.push(target);
            }
        }
        if self.facts.links.1.contains_key(&Target::General) {
            targets.push(Target::General);
        }
        targets
    }

    fn workload_line(&self, target: &Target) -> WorkloadLine {
        let name = match target {
            Target::Workload(workload) => workload.to_string(),
            Target::General => WorkloadLine::GENERAL.to_owned(),
        };
        let nothing = TargetState { pods: 0, running: 0, links: Vec::new(), hopeless: None };
        let state = self.facts.links.1.get(target).unwrap_or(&nothing);
        let (word, message) = match self.is_off(target, state) {
            true => (OFF, "not reached: --agent ephemeral makes no pod of its own".to_owned()),
            false => word_of(target, state, self.scaled_to_zero().contains_key(&name)),
        };
        let links = state.links.iter().map(|link| {
            let (health, message) = match &link.state {
                LinkState::NoAgent => ("no agent", String::new()),
                LinkState::Starting { image } => ("no agent", format!("image {image} is starting")),
                LinkState::Dialing => ("dialing", String::new()),
                LinkState::Ready => ("ready", String::new()),
                LinkState::Draining => ("draining", String::new()),
                LinkState::Lost { why, dialing: true } => ("dialing", why.to_string()),
                LinkState::Lost { why, dialing: false } | LinkState::Failed { why } => ("failed", why.to_string()),
            };
            let placement = match link.placement {
                Placement::Ephemeral => "ephemeral container",
                Placement::OwnPod => OWN_POD,
            };
            LinkLine {
                pod: link.pod_name.to_string(),
                placement: placement.into(),
                version: link.version.to_string(),
                health: health.into(),
                message,
            }
        });
        WorkloadLine { workload: name, state: word.to_owned(), message, links: links.collect() }
    }

    /// Whether the user wants no way for what no rule covers: nothing is missing then, and nothing will come.
    fn is_off(&self, target: &Target, state: &TargetState) -> bool {
        let unwanted = self.spec.agent == AgentMode::Ephemeral && !self.spec.proxy_via.is_empty();
        unwanted && *target == Target::General && state.links.is_empty()
    }

    fn conditions(&self) -> Vec<Holds> {
        let mut conditions = vec![self.watch_ready(), self.routes_ready(), self.dns_ready()];
        for target in self.targets() {
            let line = self.workload_line(&target);
            if line.state == OFF {
                continue;
            }
            let (kind, subject) = match target {
                Target::Workload(_) => ("WorkloadReady", line.workload),
                Target::General => ("AgentReady", String::new()),
            };
            let ready = line.state == "Ready";
            let reason = match line.state.as_str() {
                "Ready" => "LinkReady",
                "Hopeless" => "Hopeless",
                "Unreachable" => "Unreachable",
                _ => "Pending",
            };
            conditions.push(Holds { kind, subject, status: ready, reason, message: line.message });
        }
        conditions.insert(0, self.ready());
        conditions
    }

    fn ready(&self) -> Holds {
        let waiting: Vec<String> = self.missing().into_values().collect();
        // While it is torn down, what is missing is missing because of that.
        let (reason, message) = match self.phase() {
            Phase::Disconnecting => ("Disconnecting", "the connection is being ended".to_owned()),
            Phase::Disconnected => ("Disconnected", "the connection has ended".to_owned()),
            Phase::Connecting | Phase::Connected if self.life != Life::Running => {
                ("StartingAnew", "the connection is being made anew".to_owned())
            }
            Phase::Connecting | Phase::Connected if waiting.is_empty() => match self.without_names() {
                None => ("EverythingWorks", String::new()),
                Some(why) => ("WithoutNames", why.to_owned()),
            },
            Phase::Connecting | Phase::Connected => ("NotYet", waiting.join("; ")),
        };
        let status = matches!(reason, "EverythingWorks" | "WithoutNames");
        Holds { kind: "Ready", subject: String::new(), status, reason, message }
    }

    /// What is said of an API server that has not answered, by its own error or in general.
    fn unanswered(&self) -> Option<(&'static str, String)> {
        if self.life != Life::Running || self.facts.api_server.is_some() {
            return None;
        }
        Some(match self.reaching.trouble() {
            Some(why) => ("Unreached", format!("{why}; it is asked again")),
            None => ("Starting", SILENT.to_owned()),
        })
    }

    /// The document at `now`, with transition times taken over from `previous` where nothing changed. `wall` is the same in
    /// seconds since 1970, `since` that of the start.
    pub fn status(&self, previous: &SessionStatus, now: Millis, wall: i64, since: i64) -> SessionStatus {
        let conditions = self.conditions().into_iter().map(|holds| {
            let status = if holds.status { "True" } else { "False" };
            let same = |c: &&Condition| c.r#type == holds.kind && c.subject == holds.subject && c.status == status;
            let before = previous.conditions.iter().find(same);
            Condition {
                last_transition_time: before.map_or(wall, |c| c.last_transition_time),
                r#type: holds.kind.to_owned(),
                subject: holds.subject,
                status: status.to_owned(),
                reason: holds.reason.to_owned(),
                message: holds.message,
            }
        });
        let facts = &self.facts;
        SessionStatus {
            name: self.spec.name.clone(),
            context: self.spec.context.clone(),
            server: previous.server.clone(),
            namespace: self.spec.namespace.clone(),
            owner_uid: previous.owner_uid,
            phase: self.phase(),
            outcome: self.outcome.clone(),
            standing: Some(self.standing()),
            since,
            conditions: conditions.collect(),
            steps: self.steps.clone(),
            ranges: {
                let ranges = facts.via.iter().flat_map(|(_, via)| &via.ranges);
                ranges.map(|range| range_line(range, &self.spec.allow_conflicting_subnets)).collect()
            },
            vips: vips(facts),
            workloads: self.targets().iter().map(|target| self.workload_line(target)).collect(),
            dns: dns_line(facts),
            device: device_line(facts),
            flows: self.flows,
            warnings: self.warnings(wall),
            credentials_expire_at: self.renewal.expires_at(),
            credentials: self.credentials(),
            api_server: self.unanswered().map(|_| {
                let line = self.reaching.line(now, wall);
                previous.api_server.as_ref().map_or_else(|| line.clone(), |previous| line.clone().steadied(previous))
            }),
            suggestion: self.suggestion(),
        }
    }

    /// Who renews the credentials; nothing where they do not end, as far as is known.
    fn credentials(&self) -> Option<CredentialsLine> {
        let outlook = match self.renewal.outlook() {
            Renewing::ByHand if self.renewal.expires_at().is_none() => return None,
            Renewing::ByHand => RenewalLine::ByHand,
            Renewing::Automatic => RenewalLine::Automatic,
            Renewing::Failing => RenewalLine::Failing,
            Renewing::NeedsLogin => RenewalLine::NeedsLogin,
        };
        let message = self.renewal.trouble().unwrap_or_default().to_owned();
        Some(CredentialsLine { renewal: outlook, message })
    }

    /// What a person may type next: Session knows no service names, so it is a command of ours.
    fn suggestion(&self) -> Option<String> {
        let name = &self.spec.name;
        match &self.outcome {
            Some(ConnectOutcome::Failed(_)) | None => None,
            Some(_) if self.life != Life::Running => None,
            Some(ConnectOutcome::Degraded { .. } | ConnectOutcome::TimedOut { .. }) if !self.missing().is_empty() => {
                Some(format!("podway wait {name}"))
            }
            Some(ConnectOutcome::Ready | ConnectOutcome::Degraded { .. } | ConnectOutcome::TimedOut { .. }) => {
                Some(format!("podway status {name}"))
            }
        }
    }

    fn warnings(&self, wall: i64) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some((_, dns)) = &self.facts.dns
            && !dns.message.is_empty()
            // What the user asked for is told as a step.
            && dns.message != REPLACED
        {
            warnings.push(format!("DNS: {}", dns.message));
        }
        if let Some((_, via)) = self.facts.via.as_ref().filter(|(_, via)| via.ipv6 == Ipv6::Off) {
            let mut text = "IPv6 is off on this host: only IPv4 addresses of the cluster are reached".to_owned();
            // What the user named is worth a word of its own.
            let named = via.ranges.iter().map(|range| range_line(range, &[])).filter(|line| line.source == line.cidr);
            let named: Vec<String> = named.map(|line| line.cidr).filter(|cidr| cidr.contains(':')).collect();
            if !named.is_empty() {
                text.push_str(&format!("; nothing is translated for {}", named.join(", ")));
            }
            warnings.push(text);
        }
        if let Some((_, VifState::Up { failed, .. })) = &self.facts.vif {
            warnings.extend(failed.iter().map(|(route, why)| format!("route {route}: {why}")));
        }
        if let Some(state) = self.facts.links.1.get(&Target::General)
            && let Some(why) = &state.hopeless
        {
            let without = "addresses without a via workload";
            match (self.spec.proxy_via.is_empty(), self.spec.agent) {
                (true, _) => warnings.push(format!("{without} cannot be reached: {why}")),
                (false, AgentMode::Auto | AgentMode::Pod) => {
                    warnings.push(format!("{without} go only through the pods of via workloads: {why}"));
                }
                // That was asked for.
                (false, AgentMode::Ephemeral) => {}
            }
        }
        for (resource, namespace) in &self.facts.rights.1.unseen {
            let names = match *resource {
                "services" => "services",
                _ => "headless services and of single pods",
            };
            warnings.push(format!(
                "missing right: list and watch {resource} in namespace {namespace}: names of {names} are not known there; \
                 podway rbac -n {namespace} prints the rule"
            ));
        }
        if let Some(named) = &self.named_image {
            warnings.extend(self.facts.links.1.iter().filter_map(|(target, state)| other_image(target, state, named)));
        }
        let ended = self.renewal.expires_at().is_some_and(|at| at <= wall);
        if let Some(trouble) = self.renewal.trouble() {
            let what = if ended { "have ended and are not renewed" } else { "are not renewed" };
            warnings.push(format!("the credentials {what}: {trouble}; log in, then podway connect again"));
        } else if ended {
            warnings.push("the credentials have ended: log in and connect again".to_owned());
        }
        warnings
    }

    /// Adds a step for everything that has become true.
    pub(super) fn note_steps(&mut self, now: Millis) {
        if self.outcome.is_some() {
            return;
        }
        let mut found = Vec::new();
        if let Some((_, via)) = self.facts.via.as_ref().filter(|(_, via)| via.ready) {
            // A range that the user named and that is left out is nothing that was done.
            let mark = |range: &RangeStatus, line: &RangeLine| {
                let left_out = line.treatment == "excluded" && line.source == line.cidr;
                let in_vain = too_narrow(range, &self.spec.allow_conflicting_subnets).is_some();
                if left_out || in_vain { Mark::Warn } else { Mark::Ok }
            };
            let lines = via.ranges.iter().map(|range| (range, range_line(range, &self.spec.allow_conflicting_subnets)));
            found.extend(lines.map(|(range, line)| (mark(range, &line), range_step(&line))));
        }
        if let Some((_, VifState::Up { name, .. })) = &self.facts.vif
            && self.routes_ready().status
        {
            found.push((Mark::Ok, format!("routes are on device {name}")));
        }
        if let Some((_, dns)) = self.facts.dns.as_ref().filter(|(_, dns)| dns.ready) {
            let undone = if dns.message == REPLACED { "; the former file comes back at disconnect" } else { "" };
            found.push((
                Mark::Ok,
                match self.spec.dns {
                    DnsMode::Off => "the host asks no names here (--dns off)".to_owned(),
                    DnsMode::Auto | DnsMode::Resolved | DnsMode::File => {
                        format!("names are answered through {}{undone}", dns.backend)
                    }
                },
            ));
        }
        if self.without_names().is_some() {
            found.push((Mark::Warn, "names are not attached to this host".to_owned()));
        }
        for target in self.targets() {
            let line = self.workload_line(&target);
            // It is tried again, for as long as `connect` waits; an agent that has just started does not listen yet.
            let since = match line.state.as_str() {
                "Unreachable" => Some(*self.unreachable.entry(target.clone()).or_insert(now)),
                "Ready" => self.unreachable.remove(&target).and(None),
                _ => None,
            };
            if since.is_some_and(|since| now.since(since) >= SILENCE / 2) {
                let what = if target == Target::General { "podway's own pod" } else { line.workload.as_str() };
                found.push((Mark::Warn, format!("{what}: {}", line.message)));
            }
            if let (true, Some(link)) = (line.state == "Ready", line.links.iter().find(|link| link.health == "ready")) {
                let (what, pod) = (line.title(self.spec.proxy_via.is_empty()), &link.pod);
                let text = match target == Target::General && link.placement == OWN_POD {
                    true => format!("{what} through podway's own pod {pod}"),
                    false => format!("{what} through pod {pod} ({})", link.placement),
                };
                found.push((Mark::Ok, text));
            }
        }
        for (mark, text) in found {
            self.step(now, mark, text);
        }
        if let Some(ConnectOutcome::TimedOut { missing }) = &self.outcome.clone() {
            for text in missing {
                self.step(now, Mark::Warn, text.clone());
            }
        }
    }
}

/// Says so where agents of a workload serve that were there before, of another image than the user named. A pod of our own
/// always has that image.
fn other_image(target: &Target, state: &TargetState, named: &str) -> Option<String> {
    let Target::Workload(workload) = target else { return None };
    let other = state.links.iter().find(|link| link.state == LinkState::Ready && *link.image != *named)?;
    let image = &other.image;
    Some(format!("{workload}: uses the agent {image} that is there already, not {named}, which new pods get"))
}

fn word_of(target: &Target, state: &TargetState, scaled_to_zero: bool) -> (&'static str, String) {
    let has = |wanted: fn(&LinkState) -> bool| state.links.iter().any(|link| wanted(&link.state));
    if has(|state| *state == LinkState::Ready) {
        return ("Ready", String::new());
    }
    if let Some(why) = &state.hopeless {
        return ("Hopeless", why.to_string());
    }
    if state.pods == 0 {
        let text = match target {
            Target::General => "our own pod is being made",
            Target::Workload(_) if scaled_to_zero => "scaled to zero: attaches by itself when a pod comes",
            Target::Workload(_) => "no pod runs: attaches by itself when one comes",
        };
        return ("Pending", text.to_owned());
    }
    let (mut failed, mut starting) = (None, None);
    for link in &state.links {
        match &link.state {
            LinkState::Failed { why } => _ = failed.get_or_insert_with(|| format!("pod {}: {why}", link.pod_name)),
            LinkState::Lost { why, .. } => {
                _ = failed.get_or_insert_with(|| format!("pod {}: {why}; it is dialled again", link.pod_name));
            }
            LinkState::Starting { image } => _ = starting.get_or_insert((&link.pod_name, image)),
            LinkState::NoAgent | LinkState::Dialing | LinkState::Ready | LinkState::Draining => {}
        }
    }
    match failed {
        Some(why) => ("Unreachable", why),
        None if state.running == 0 => {
            let text = match target {
                Target::General => "our own pod is starting",
                Target::Workload(_) => "none of its pods runs yet: attaches by itself when one does",
            };
            ("Pending", text.to_owned())
        }
        // The kubelet tells in the pod what keeps an image some ten seconds later than in its events.
        None => match starting.and_then(|(pod, image)| Some((pod.split_once('/')?, image))) {
            Some(((namespace, pod), image)) if !has(|state| *state == LinkState::Dialing) => {
                let events = format!("kubectl -n {namespace} describe pod {pod}");
                ("Connecting", format!("pod {namespace}/{pod}: image {image} is starting; its events: {events}"))
            }
            Some(_) | None if has(|state| *state == LinkState::Dialing) => {
                ("Connecting", "its agent is being dialled".to_owned())
            }
            Some(_) | None => ("Connecting", "its agent is being placed and dialled".to_owned()),
        },
    }
}

fn vips(facts: &Facts) -> Vips {
    let Some((_, via)) = &facts.via else { return Vips::default() };
    Vips {
        ranges: via.virtual_ranges.iter().map(ToString::to_string).collect(),
        in_use: via.vips_in_use,
        capacity: via.vips_capacity,
        fixed: via
            .fixed
            .iter()
            .map(|(vip, real, workload, name)| (vip.to_string(), real.to_string(), workload.to_string(), name.clone()))
            .collect(),
    }
}

fn dns_line(facts: &Facts) -> DnsLine {
    let Some((_, dns)) = &facts.dns else { return DnsLine::default() };
    DnsLine {
        backend: dns.backend.clone(),
        server: dns.server.clone(),
        domains: dns.domains.clone(),
        only: dns.only.clone(),
        ready: dns.ready,
        message: dns.message.clone(),
    }
}

fn device_line(facts: &Facts) -> DeviceLine {
    match &facts.vif {
        Some((_, VifState::Up { name, routes, failed, .. })) => DeviceLine {
            name: name.to_string(),
            routes: routes.clone(),
            failed: failed.iter().map(|(route, why)| format!("{route}: {why}")).collect(),
        },
        Some((_, VifState::Down | VifState::Failed { .. })) | None => DeviceLine::default(),
    }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
