//! The children of a session: their inputs, and what becomes of their effects.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use podway::actors::agent_placer::core::{self as placer, AgentPlacerCore};
use podway::actors::client_list::core::{self as clients, ClientListCore};
use podway::actors::dns::core as dns;
use podway::actors::pod_watcher::core as watcher;
use podway::actors::pod_watcher::messages::WatchHealth;
use podway::actors::proxy_via::core::{self as via, ProxyViaCore};
use podway::actors::proxy_via::messages::AllocateError;
use podway::actors::session::core::{self as session, TeardownStep};
use podway::actors::session::messages::Child;
use podway::actors::shell::{Core, Exit};
use podway::actors::vif::core::{self as vif, VifCore};
use podway::actors::vif::messages::{VifChanged, VifState};
use podway::ids::{Generation, Millis};

use super::*;
use crate::support::mutants;

const CHILDREN: [Part; 6] = [ClientList, AgentPlacer, ProxyVia, Vif, PodWatcher, Dns];

impl ConnectWorld {
    pub(super) fn session_wants(&mut self, effect: session::Effect) {
        match effect {
            session::Effect::Start { .. } => self.under_way(Outside::Client),
            session::Effect::Resolve(_) if self.alive.is_disjoint(&CHILDREN.into()) => self.unresolved = true,
            session::Effect::Resolve(_) => self.under_way(Outside::Resolve),
            session::Effect::Select(selection) => {
                self.nothing_begun_after_teardown(Session, "a selection");
                self.send(Session, ProxyVia, Letter::Via(via::Input::Select(selection)));
            }
            session::Effect::Register(id, target, deadline) => {
                self.nothing_begun_after_teardown(Session, "a waiter");
                // At a ClientList that fell nobody waits.
                if self.alive.contains(&ClientList) {
                    self.seen.registered.insert(id);
                }
                let register = clients::Input::Register { id, target, deadline };
                self.send(Session, ClientList, Letter::Clients(register));
            }
            session::Effect::Teardown(step) => {
                self.seen.stopping.insert(Session);
                self.teardown(step);
            }
            session::Effect::DropChildren => self.drop_children(),
            session::Effect::Reach => self.under_way(Outside::Reach),
            session::Effect::Publish | session::Effect::Ask(_) => {}
            session::Effect::Answer(reply, _) => self.answered(reply),
            session::Effect::End => self.session_ended(),
        }
    }

    /// The API client is there: all children begin.
    pub(super) fn children_begin(&mut self) {
        if !self.session.is_running() {
            return;
        }
        let plan = self.setup.plan.clone();
        self.clients = Held::new(ClientListCore::new(KEY, FINGERPRINT));
        self.placer = Held::new(AgentPlacerCore::new(plan));
        self.via = Held::new(ProxyViaCore::new(self.setup.config.clone()));
        self.vif = Held::new(VifCore::new());
        self.seen.stopping.clear();
        self.seen.placed_in.clear();
        // What was said to an earlier run is not said to this one.
        self.last.values_mut().for_each(VecDeque::clear);
        self.seen.selected = false;
        self.seen.came = Generation(0);
        self.seen.plans.clear();
        // Waiters of an earlier run waited at a ClientList that is no more.
        self.seen.registered.clear();
        self.seen.settled.clear();
        self.seen.owners.clear();
        self.seen.vips.clear();
        self.names = (false, false, 0);
        self.alive.extend(CHILDREN);
        self.under_way(Outside::Reach);
        if std::mem::take(&mut self.unresolved) {
            self.under_way(Outside::Resolve);
        }
        self.send(Session, Vif, Letter::Vif(vif::Input::Open { device: "podway0".into(), mtu: 1500 }));
        self.names_begin();
        let hosts = self.script.host.clone();
        for (facts, n) in hosts.into_iter().zip(1..) {
            self.send(Host, ProxyVia, Letter::Via(via::Input::Host(Generation(n), Arc::new(facts))));
        }
        if self.watcher.is_some() {
            return self.watching_begins();
        }
        let health = session::Input::Watch(Generation(1), WatchHealth::Fresh);
        self.send(PodWatcher, Session, Letter::Session(health));
        let cluster = self.script.cluster.clone();
        for (info, n) in cluster.into_iter().zip(1..) {
            self.send(PodWatcher, ProxyVia, Letter::Via(via::Input::Cluster(Generation(n), Arc::new(info))));
        }
        self.tell_pods();
    }

    /// All children are gone, and with them what they waited for.
    pub(super) fn drop_children(&mut self) {
        for part in CHILDREN {
            self.alive.remove(&part);
        }
        self.queries_are_dropped();
        if self.hurried || !self.never.is_empty() {
            // A step was passed over: the device goes with the actor that holds it, and the link's names with the link.
            self.device_goes();
            self.seen.attached = false;
            self.seen.links.clear();
            self.seen.registered.clear();
        }
        self.queues.retain(|(_, to), _| matches!(to, Session | Daemon));
        // What was asked of the API server for a pod goes on without them.
        self.outside.retain(|outside| outside.kind() == Waits::Place);
        self.cluster.change(|cluster| cluster.streams.clear());
        self.seen.applying = None;
        self.seen.flows.clear();
    }

    fn teardown(&mut self, step: TeardownStep) {
        let forgotten = self.mutant == Some(Mutant::DeviceForgotten) && step == TeardownStep::CloseVif;
        if self.alive.is_disjoint(&CHILDREN.into()) || forgotten {
            return self.under_way(Outside::StepDone(step));
        }
        let (to, letter) = match step {
            TeardownStep::RemoveAgents => return self.under_way(Outside::StepDone(step)),
            TeardownStep::RestoreDns if self.dns.is_none() => return self.under_way(Outside::StepDone(step)),
            TeardownStep::RestoreDns => (Dns, Letter::Dns(dns::Input::Restore(RESTORE))),
            TeardownStep::StopPlacer => (AgentPlacer, Letter::Stop),
            TeardownStep::StopDataPlane => (Vif, Letter::Vif(vif::Input::StopDataPlane(STOP_FLOWS))),
            TeardownStep::HangUp => (ClientList, Letter::Clients(clients::Input::HangUpAll(HANG_UP))),
            TeardownStep::StopWatching => return self.stop_watching(),
            TeardownStep::CloseVif => (Vif, Letter::Vif(vif::Input::Close(CLOSE))),
        };
        if self.alive.contains(&to) {
            return self.send(Session, to, letter);
        }
        // What a child that fell can no more undo, its session undoes.
        match step {
            TeardownStep::RestoreDns => self.seen.attached = false,
            TeardownStep::CloseVif => self.device_goes(),
            _ => {}
        }
        self.under_way(Outside::StepDone(step));
    }

    fn stop_watching(&mut self) {
        // PodWatcher and Dns stop at once; the step is done when the others have, too.
        if self.alive.remove(&PodWatcher) {
            self.watcher(watcher::Input::Stop);
        }
        self.alive.remove(&Dns);
        self.queries_are_dropped();
        self.queues.retain(|(_, to), _| !matches!(to, PodWatcher | Dns));
        self.send(Session, ProxyVia, Letter::Stop);
        self.send(Session, ClientList, Letter::Stop);
        self.stopped_watching();
    }

    fn stopped_watching(&mut self) {
        if !self.alive.contains(&ProxyVia) && !self.alive.contains(&ClientList) {
            self.under_way(Outside::StepDone(TeardownStep::StopWatching));
        }
    }

    pub(super) fn stopped(&mut self, part: Part) {
        self.seen.stopping.insert(part);
        match part {
            // It ends when it says so.
            AgentPlacer => return self.placer(placer::Input::Stop(STOP_PLACER)),
            ProxyVia => self.via(via::Input::Stop),
            _ => {}
        }
        self.gone(part);
        self.stopped_watching();
    }

    fn gone(&mut self, part: Part) {
        self.alive.remove(&part);
        self.queues.retain(|(_, to), _| *to != part);
    }

    /// A child panics: it is gone with its tasks, and its session hears of it.
    pub(super) fn panics(&mut self, part: Part) {
        if !self.alive.contains(&part) {
            return;
        }
        self.gone(part);
        let child = match part {
            ClientList => {
                self.outside.retain(|outside| outside.kind() != Waits::Dial);
                self.seen.links.clear();
                self.seen.dialled.clear();
                // Whoever it would have told is told by its end.
                self.seen.registered.clear();
                self.seen.settled.clear();
                Child::ClientList
            }
            AgentPlacer => Child::AgentPlacer,
            ProxyVia => Child::ProxyVia,
            Vif => {
                let of_vif = |outside: &Outside| matches!(outside.kind(), Waits::Device | Waits::Routes | Waits::Undo);
                self.outside.retain(|outside| !of_vif(outside));
                // A device ends with whoever holds it.
                self.device_goes();
                Child::Vif
            }
            PodWatcher => {
                self.outside.retain(|outside| !matches!(outside.kind(), Waits::Watch | Waits::Gather));
                self.cluster.change(|cluster| cluster.streams.clear());
                Child::PodWatcher
            }
            Dns => {
                self.outside.retain(|outside| outside.kind() != Waits::Names);
                self.queries_are_dropped();
                Child::Dns
            }
            Session | Daemon | Host | Part::Cluster => return,
        };
        let exit = Exit::Panicked("a bug".into());
        self.send(part, Session, Letter::Session(session::Input::ChildExited(child, exit)));
    }

    /// Queries that a Dns which is gone had not answered: whoever asked is told that there will be no answer.
    fn queries_are_dropped(&mut self) {
        let lost: Vec<_> = self.seen.queries.iter().filter(|q| !self.seen.replied.contains(q)).copied().collect();
        self.seen.replied.extend(lost);
    }

    pub(super) fn device_goes(&mut self) {
        self.seen.device = false;
        self.seen.applying = None;
        self.seen.on_device.clear();
    }

    pub(super) fn clients(&mut self, input: clients::Input) {
        if matches!(input, clients::Input::HangUpAll(_)) {
            self.seen.stopping.insert(ClientList);
        }
        let now = self.now;
        let Some(input) = mutants::to_clients(self.mutant, &self.clients, &mut self.seen.came, input) else { return };
        for effect in driven(&mut self.clients, now, input) {
            say(|| format!("ClientList: {}", short(&effect)));
            match effect {
                clients::Effect::Dial { pod, attempt, port, .. } => {
                    self.nothing_begun_after_teardown(ClientList, "a dial");
                    self.one_client_per_pod(&pod.uid);
                    let agent = pod.agents.iter().find(|agent| agent.port == port).expect("an agent is dialled");
                    self.seen.dialled.insert((pod.uid.clone(), attempt), Arc::clone(&agent.name));
                    self.under_way(Outside::Dial(pod.uid.clone(), attempt));
                }
                // What it means to flows is the data path's.
                clients::Effect::Abandon { .. } => {}
                clients::Effect::HangUp { pod, attempt } => {
                    self.seen.links.remove(&(pod.clone(), attempt));
                    self.seen.dialled.remove(&(pod.clone(), attempt));
                    self.outside.remove(&Outside::Dial(pod, attempt));
                }
                clients::Effect::Publish(table) => {
                    let named = table.workloads.values().flatten().chain(&table.general);
                    for link in named {
                        if !self.seen.links.contains(&(link.pod.uid.clone(), link.attempt)) {
                            self.fault("table_names_working_links", &format!("{} has no link", link.pod.uid));
                        }
                    }
                }
                clients::Effect::Settle { id, outcome } => {
                    self.one_answer_per_waiter(id, &outcome);
                    self.send(ClientList, Session, Letter::Session(session::Input::Settled(id, outcome)));
                }
                clients::Effect::TellLinks(generation, targets) => {
                    self.send(ClientList, Session, Letter::Session(session::Input::Links(generation, targets)));
                }
                clients::Effect::TellUnfit(generation, agents) => {
                    self.send(ClientList, AgentPlacer, Letter::Placer(placer::Input::Unfit(generation, agents)));
                }
                clients::Effect::HungUp(_) => self.under_way(Outside::StepDone(TeardownStep::HangUp)),
            }
        }
    }

    pub(super) fn placer(&mut self, input: placer::Input) {
        let now = self.now;
        for effect in driven(&mut self.placer, now, input) {
            say(|| format!("AgentPlacer: {}", short(&effect)));
            match effect {
                placer::Effect::Place { place, attempt, container, port, .. } => {
                    self.nothing_begun_after_teardown(AgentPlacer, "a placement");
                    self.under_way(Outside::Place(place, attempt, container, port));
                }
                placer::Effect::Tell(generation, hopeless) => {
                    let fact = clients::Input::Hopeless(generation, hopeless);
                    self.send(AgentPlacer, ClientList, Letter::Clients(fact));
                }
                placer::Effect::Settle(attempt) => self.unsettled_is_settled(attempt),
                placer::Effect::Remove(..) => {}
                placer::Effect::Withdraw => self.under_way(Outside::Withdraw),
                placer::Effect::Stopped(_) => {
                    self.placer_gone();
                    self.gone(AgentPlacer);
                    self.under_way(Outside::StepDone(TeardownStep::StopPlacer));
                }
            }
        }
    }

    pub(super) fn via(&mut self, input: via::Input) {
        let now = self.now;
        let Some(input) = mutants::to_via(self.mutant, &mut self.seen.selected, input) else { return };
        let came = mutants::via(self.mutant, driven(&mut self.via, now, input));
        for effect in came {
            say(|| format!("ProxyVia: {}", short(&effect)));
            match effect {
                via::Effect::Publish(table) => self.vips_have_one_owner(table.vips),
                via::Effect::TellVif(fact) => {
                    self.seen.plans.insert(fact.generation, Held::new(fact.plan.clone()));
                    self.send(ProxyVia, Vif, Letter::Vif(vif::Input::Plan(fact.generation, fact.plan)));
                }
                via::Effect::TellWorkloads(generation, fact) => {
                    let told = clients::Input::Via(generation, fact.clone());
                    self.send(ProxyVia, ClientList, Letter::Clients(told));
                    self.send(ProxyVia, AgentPlacer, Letter::Placer(placer::Input::Via(generation, fact)));
                }
                via::Effect::TellDns(fact) if self.dns.is_some() => {
                    self.send(ProxyVia, Dns, Letter::Dns(dns::Input::Translation(fact)));
                }
                via::Effect::TellDns(fact) => {
                    self.names.0 = !fact.dns_addresses.is_empty();
                    // Dns asks again once the ranges are known.
                    if fact.ready && self.question == Some(Err(AllocateError::NotReady)) {
                        self.question = None;
                        self.questions += 1;
                    }
                    self.attach_names();
                }
                via::Effect::TellSession(fact) => {
                    let state = session::Input::Via(fact.generation, fact.state);
                    self.send(ProxyVia, Session, Letter::Session(state));
                }
                via::Effect::Answer(reply, answer) => {
                    self.vip_routable_before_answered(&answer);
                    if self.seen.stopping.contains(&ProxyVia) && answer.is_ok() {
                        self.fault("nothing_begun_after_teardown", "an address was given out");
                    }
                    if self.dns.is_some() {
                        self.translated(reply, answer);
                    } else {
                        self.question = Some(answer);
                    }
                }
            }
        }
    }

    pub(super) fn vif(&mut self, input: vif::Input) {
        if matches!(input, vif::Input::Close(_)) {
            self.seen.stopping.insert(Vif);
        }
        let now = self.now;
        for effect in mutants::vif(self.mutant, driven(&mut self.vif, now, input)) {
            say(|| format!("Vif: {}", short(&effect)));
            match effect {
                vif::Effect::Open { .. } => self.under_way(Outside::Open),
                vif::Effect::Apply(change) => {
                    self.nothing_begun_after_teardown(Vif, "a change of routes");
                    self.routes_of_some_plan(&change);
                    self.under_way(Outside::Apply(change.generation));
                    self.seen.applying = Some(Held::new(change));
                }
                vif::Effect::StopDataPlane => self.under_way(Outside::StopFlows),
                vif::Effect::Close => self.under_way(Outside::CloseDevice),
                vif::Effect::Answer(STOP_FLOWS) => {
                    self.under_way(Outside::StepDone(TeardownStep::StopDataPlane));
                }
                vif::Effect::Answer(_) => self.under_way(Outside::StepDone(TeardownStep::CloseVif)),
                vif::Effect::Tell(generation, state) => {
                    self.send(Vif, Session, Letter::Session(session::Input::Vif(generation, state.clone())));
                    if self.dns.is_some() {
                        let device = VifChanged { generation, state };
                        self.send(Vif, Dns, Letter::Dns(dns::Input::Device(device)));
                    } else {
                        self.names.1 = matches!(state, VifState::Up { .. });
                        self.attach_names();
                    }
                }
            }
        }
    }

    /// When each core that has a timer wants to be woken; PodWatcher's time is its own.
    fn deadlines(&self) -> Vec<(Part, Option<Millis>)> {
        let mut wanted = Vec::new();
        if self.seen.started != self.seen.ended {
            wanted.push((Session, self.session.poll_deadline()));
        }
        if let Some(daemon) = &self.daemon {
            wanted.push((Daemon, daemon.poll_deadline()));
        }
        for (part, at) in [
            (ClientList, mutants::clients_deadline(self.mutant, self.clients.poll_deadline())),
            (AgentPlacer, self.placer.poll_deadline()),
            (Vif, self.vif.poll_deadline()),
            (Dns, self.dns_deadline()),
        ] {
            if self.alive.contains(&part) {
                wanted.push((part, at));
            }
        }
        wanted
    }

    /// Cores that want to be woken first.
    pub(super) fn sleepers(&self) -> (Option<Millis>, Vec<Part>) {
        let wanted = self.deadlines();
        let first = wanted.iter().filter_map(|(_, at)| *at).min();
        let due = wanted.into_iter().filter(|(_, at)| first.is_some() && *at == first).map(|(part, _)| part);
        (first, due.collect())
    }

    pub(super) fn wake(&mut self, part: Part) {
        self.now = self.now.max(self.sleepers().0.expect("steps() said there is one"));
        say(|| format!("it is {} ms", self.now.0));
        match part {
            Session => self.session(session::Input::Woke),
            ClientList => self.clients(clients::Input::Woke),
            AgentPlacer => self.placer(placer::Input::Woke),
            Dns => self.dns(dns::Input::Woke),
            Daemon => self.daemon(podway::actors::daemon::core::Input::Woke),
            ProxyVia | Vif | PodWatcher | Host | Part::Cluster => self.vif(vif::Input::Woke),
        }
    }

    /// Time goes on at once. Whoever was to be woken meanwhile is, once: what then still is due would be tried without
    /// a pause.
    pub(super) fn leap(&mut self, millis: u64) {
        let by = std::time::Duration::from_millis(millis);
        self.hurried = true;
        (self.now, self.watcher_now) = (self.now + by, self.watcher_now + by);
        let due = |world: &ConnectWorld, part: Part| {
            world.deadlines().into_iter().any(|(of, at)| of == part && at.is_some_and(|at| at <= world.now))
        };
        for part in [Daemon, Session, ClientList, AgentPlacer, Vif, Dns] {
            if due(self, part) {
                self.wake(part);
            }
            if due(self, part) {
                self.fault("no_storm", &format!("{part:?} was woken after {millis} ms and wants to be woken at once"));
            }
        }
        self.watcher_leaps();
    }

    /// The addresses that the flows use, as the data plane tells them.
    pub(super) fn flows_are(&mut self, vips: BTreeSet<IpAddr>) {
        self.seen.flows = vips.clone();
        if self.alive.contains(&ProxyVia) {
            self.send(Vif, ProxyVia, Letter::Via(via::Input::InUse(vips)));
        }
    }
}
