//! What must hold: in every state, in every state in which nothing more can happen, and at the end.

use podway::actors::client_list::messages::WaiterOutcome;
use podway::cluster::{ContainerState, PodPhase};
use podway::net::cidr::covers;
use podway::net::views::VipEntry;
use podway::status::{ConnectOutcome, Phase};

use super::*;

/// In every state.
impl ConnectWorld {
    pub(super) fn fault(&mut self, property: &str, what: &str) {
        self.seen.fault.get_or_insert_with(|| format!("{property}: {what}"));
    }

    pub(super) fn one_answer_per_waiter(&mut self, id: WaiterId, outcome: &WaiterOutcome) {
        let count = self.seen.settled.entry(id).or_default();
        *count += 1;
        if *count > 1 {
            self.fault("one_answer_per_waiter", &format!("waiter {id} was answered again: {outcome:?}"));
        }
        if let WaiterOutcome::Ready { pod } = outcome
            && !self.seen.links.iter().any(|(uid, _)| uid == pod)
        {
            self.fault("no_answer_before_its_truth", &format!("waiter {id} was told of {pod}, which has no link"));
        }
    }

    pub(super) fn vip_routable_before_answered(&mut self, answer: &Result<BTreeMap<IpAddr, IpAddr>, AllocateError>) {
        let plan = self.seen.plans.last_key_value().map(|(_, plan)| plan.clone());
        for (real, vip) in answer.iter().flatten() {
            let routed = plan.iter().flat_map(|plan| &plan.routes).any(|route| covers(route, &Cidr::from(*vip)));
            if real != vip && !self.seen.vips.contains(vip) {
                self.fault("vip_routable_before_answered", &format!("{vip} is in no published table"));
            } else if real != vip && !routed {
                self.fault("vip_routable_before_answered", &format!("{vip} is in no told plan"));
            }
        }
    }

    /// A table is published: what an address stands for does not change, and what flows use stays.
    pub(super) fn vips_have_one_owner(&mut self, vips: BTreeMap<IpAddr, VipEntry>) {
        for (vip, entry) in &vips {
            let owner = (entry.real, entry.target.clone());
            let before = self.seen.owners.entry(*vip).or_insert_with(|| owner.clone());
            if *before != owner {
                self.fault("one_owner_per_vip", &format!("{vip} stands for something else now"));
            }
        }
        if let Some(vip) = self.seen.flows.iter().find(|vip| !vips.contains_key(vip)).copied() {
            self.fault("no_vip_freed_under_a_flow", &format!("{vip} is used"));
        }
        self.seen.vips = vips.into_keys().collect();
    }

    pub(super) fn ready_means_it_works(&mut self) {
        let whole = |plan: &Held<RoutePlan>| plan.routes == self.seen.on_device;
        if self.seen.links.is_empty() && !self.hurried && self.senders.is_empty() && self.last.is_empty() {
            self.fault("ready_means_it_works", "there is no link");
        } else if !self.seen.plans.values().any(whole) {
            self.fault("ready_means_it_works", "not all routes of a plan are on the device");
        }
    }

    pub(super) fn one_client_per_pod(&mut self, uid: &PodUid) {
        let dialing = self.outside.iter().any(|outside| matches!(outside, Outside::Dial(pod, _) if pod == uid));
        if dialing || self.seen.links.iter().any(|(pod, _)| pod == uid) {
            self.fault("one_client_per_pod", &format!("pod {uid} is dialled twice"));
        }
    }

    pub(super) fn nothing_begun_after_teardown(&mut self, part: Part, what: &str) {
        if self.seen.stopping.contains(&part) {
            self.fault("nothing_begun_after_teardown", what);
        }
    }

    pub(super) fn routes_of_some_plan(&mut self, change: &vif::Change) {
        let plan = self.seen.plans.get(&change.generation).map(|plan| plan.routes.clone()).unwrap_or_default();
        if !change.add_routes.is_subset(&plan) {
            self.fault("routes_of_some_plan", &format!("{:?} is in no plan", change.add_routes));
        }
        if !self.seen.device {
            self.fault("routes_of_some_plan", "there is no device");
        }
    }
}

/// In every state in which nothing more can happen.
impl ConnectWorld {
    /// Whether no connection is left, or none was ever begun.
    pub(super) fn is_over(&self) -> bool {
        self.seen.ended > 0 && self.seen.started == self.seen.ended
    }

    /// Everybody who asked was answered.
    pub(super) fn nothing_is_owed(&self) -> Result<(), String> {
        if let Some(id) = self.seen.registered.iter().find(|id| !self.seen.settled.contains_key(id)) {
            return Err(format!("nothing_is_owed: waiter {id} was never answered"));
        }
        if let Some(id) = self.seen.queries.iter().find(|id| !self.seen.replied.contains(id)) {
            return Err(format!("nothing_is_owed: query {id} was never answered"));
        }
        if let Some(id) = self.seen.requests.iter().find(|id| !self.seen.served.contains(id)) {
            return Err(format!("nothing_is_owed: request {id} was never answered"));
        }
        if let Some(id) = self.seen.asked.iter().find(|id| !self.seen.answered.contains(id)) {
            return Err(format!("nothing_is_owed: disconnect {id} was never answered"));
        }
        Ok(())
    }

    pub(super) fn teardown_ends(&self) -> Result<(), String> {
        if self.daemon.is_none() && (self.seen.ended != 1 || self.session.phase() != Phase::Disconnected) {
            return Err("teardown_ends: the end was not told".into());
        }
        let dialing = self.outside.iter().any(|outside| outside.kind() == Waits::Dial);
        let children = self.alive.iter().any(|part| *part != Daemon);
        let links = dialing || !self.seen.links.is_empty();
        if self.seen.device || self.seen.attached || links || children {
            let Seen { device, attached, .. } = self.seen;
            return Err(format!(
                "teardown_ends: left behind: device {device}, resolver {attached}, links {links}, children {children}"
            ));
        }
        if self.pods.1.pods.values().any(|pod| pod.own_pod_of.is_some() && pod.phase == PodPhase::Pending) {
            return Err("teardown_ends: a pod of ours that never ran is left behind".into());
        }
        Ok(())
    }

    pub(super) fn no_lost_wake_up(&self) -> Result<(), String> {
        if self.seen.started == 0 {
            return Ok(());
        }
        let outcome = self.session.outcome();
        let as_expected = match (self.expected, outcome) {
            (Expected::Any, Some(_)) => true,
            (_, Some(ConnectOutcome::TimedOut { .. })) if self.hurried => true,
            (Expected::Ready | Expected::ReadyOrDegraded, Some(ConnectOutcome::Ready))
            | (Expected::Degraded | Expected::ReadyOrDegraded, Some(ConnectOutcome::Degraded { .. }))
            | (Expected::TimedOut, Some(ConnectOutcome::TimedOut { .. })) => true,
            _ => false,
        };
        if !as_expected {
            return Err(format!("no_lost_wake_up: expected {:?}, got {outcome:?}", self.expected));
        }
        // Whatever was said by the deadline, what is there is connected in the end, unless it never answers.
        let may_be_reached = [Waits::Dial, Waits::Watch, Waits::Start].iter().all(|waits| !self.never.contains(waits));
        for name in self.script.workloads.keys().filter(|_| may_be_reached) {
            let target = Target::Workload(workload(name));
            if self.is_there(&target) && !self.clients.is_ready(&target) {
                return Err(format!("no_lost_wake_up: {name} is there and has no link"));
            }
            if !self.is_there(&target) && !self.any_link_to(&target) && self.clients.is_ready(&target) {
                return Err(format!("no_lost_wake_up: {name} is gone and counts as ready"));
            }
        }
        self.what_is_told_is_true()?;
        self.routes_are_there()?;
        match &self.question {
            Some(Err(error)) => Err(format!("no_lost_wake_up: Dns was told {error}")),
            Some(Ok(answer)) if answer.iter().all(|(real, vip)| real == vip) => {
                Err("no_lost_wake_up: a translated address was handed out as it is".into())
            }
            Some(Ok(_)) | None => Ok(()),
        }
    }

    fn routes_are_there(&self) -> Result<(), String> {
        if [Waits::Device, Waits::Routes, Waits::Start].iter().any(|waits| self.never.contains(waits)) {
            return Ok(());
        }
        let last = self.seen.plans.last_key_value().map(|(_, plan)| &plan.routes);
        if last.is_none_or(|routes| *routes != self.seen.on_device) {
            return Err(format!("no_lost_wake_up: {last:?} is wanted, {:?} is there", self.seen.on_device));
        }
        Ok(())
    }

    /// Nobody believes in a pod that is gone: a link to one has ended, and no new one is tried.
    fn what_is_told_is_true(&self) -> Result<(), String> {
        let gone = self.seen.links.iter().find(|(uid, _)| !self.pods.1.pods.contains_key(uid));
        match gone {
            Some((uid, _)) => Err(format!("no_lost_wake_up: there is a link to {uid}, which is gone")),
            None if self.clients.poll_deadline().is_some() => {
                Err("no_lost_wake_up: ClientList waits for a time that does not come".into())
            }
            None => Ok(()),
        }
    }

    fn any_link_to(&self, target: &Target) -> bool {
        let of = |uid: &PodUid| self.pods.1.pods.get(uid).map(|pod| Target::Workload(pod.workload.clone()));
        self.seen.links.iter().any(|(uid, _)| of(uid).as_ref() == Some(target))
    }

    fn is_there(&self, target: &Target) -> bool {
        self.pods.1.pods.values().any(|pod| {
            *target == Target::Workload(pod.workload.clone())
                && pod.phase == PodPhase::Running
                && !pod.terminating
                && pod.agents.iter().any(|agent| agent.state == ContainerState::Running)
        })
    }
}

/// In words.
impl Letter {
    pub(super) fn words(&self) -> String {
        use crate::support::story::short;
        match self {
            Letter::Session(input) => short(input),
            Letter::Clients(input) => short(input),
            Letter::Placer(input) => short(input),
            Letter::Via(input) => short(input),
            Letter::Vif(input) => short(input),
            Letter::Watcher(input) => short(input),
            Letter::Dns(input) => short(input),
            Letter::Daemon(input) => short(input),
            Letter::Stop => "stop".to_owned(),
        }
    }
}
