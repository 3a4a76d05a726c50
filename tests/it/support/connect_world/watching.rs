//! The real PodWatcher: what it asks of the API server, and whom it tells.

use std::collections::BTreeSet;
use std::sync::Arc;

use podway::actors::agent_placer::core as placer;
use podway::actors::client_list::core as clients;
use podway::actors::dns::core as dns;
use podway::actors::pod_watcher::core::{Effect, Input};
use podway::actors::pod_watcher::facts::{Kind, Trouble, WatchId};
use podway::actors::pod_watcher::rights::Reviewed;
use podway::actors::proxy_via::core as via;
use podway::actors::session::core as session;
use podway::cluster::{ClusterInfo, NamespaceRights};
use podway::ids::Attempt;
use podway::refusal::Readiness;

use super::*;
use crate::support::mutants;

/// In the middle of the spread.
const JITTER: u8 = 128;

impl ConnectWorld {
    pub(super) fn watching_begins(&mut self) {
        self.watcher = Some(Held::new(PodWatcherCore::new()));
        self.watcher_now = Millis(0);
        // Until then it has told nothing, and Dns and ProxyVia know of no ranges.
        let empty = Arc::new(ClusterInfo::default());
        self.send(PodWatcher, ProxyVia, Letter::Via(via::Input::Cluster(Generation(0), empty)));
        self.watcher(Input::Watch(BTreeSet::from(["demo".into()])));
    }

    pub(super) fn watcher(&mut self, input: Input) {
        let now = self.watcher_now;
        let Some(core) = &mut self.watcher else { return };
        for effect in driven(core, now, input) {
            say(|| format!("PodWatcher: {}", short(&effect)));
            match effect {
                Effect::Start(id, attempt) => {
                    self.cluster.change(|cluster| cluster.streams.remove(&id));
                    self.outside.retain(|outside| !matches!(outside, Outside::List(other, _) if *other == id));
                    self.lists(id, attempt);
                }
                Effect::Resume(id) => {
                    let attempt = self.cluster.tasks.get(&id).copied().expect("it was started");
                    self.lists(id, attempt);
                }
                Effect::End(id) => {
                    self.cluster.change(|cluster| cluster.streams.remove(&id));
                    self.outside.retain(|outside| !matches!(outside, Outside::List(other, _) if *other == id));
                }
                Effect::AskRights(namespace, attempt) => self.under_way(Outside::Rights(namespace, attempt)),
                Effect::TellPods(generation, pods) => {
                    let told = clients::Input::Pods(generation, Arc::clone(&pods));
                    self.send(PodWatcher, ClientList, Letter::Clients(told));
                    self.send(PodWatcher, AgentPlacer, Letter::Placer(placer::Input::Pods(generation, pods)));
                }
                Effect::TellInfo(generation, info) => {
                    let told = via::Input::Cluster(generation, Arc::clone(&info));
                    self.send(PodWatcher, ProxyVia, Letter::Via(told));
                    self.send(PodWatcher, Dns, Letter::Dns(dns::Input::Info(generation, info)));
                }
                Effect::TellRecords(generation, records) => {
                    self.send(PodWatcher, Dns, Letter::Dns(dns::Input::Records(generation, records)));
                }
                Effect::TellRights(generation, rights) => {
                    let told = session::Input::Rights(generation, Arc::clone(&rights));
                    self.send(PodWatcher, Session, Letter::Session(told));
                    let told = clients::Input::Rights(generation, Arc::clone(&rights));
                    self.send(PodWatcher, ClientList, Letter::Clients(told));
                    self.send(PodWatcher, AgentPlacer, Letter::Placer(placer::Input::Rights(generation, rights)));
                }
                Effect::TellHealth(generation, health) => {
                    self.send(PodWatcher, Session, Letter::Session(session::Input::Watch(generation, health)));
                }
            }
        }
        self.watcher_sleeps();
    }

    /// Lists of what does not change are prompt, and never fail.
    fn lists(&mut self, id: WatchId, attempt: Attempt) {
        self.cluster.change(|cluster| cluster.tasks.insert(id.clone(), attempt));
        if id.kind == Kind::Pods {
            self.under_way(Outside::List(id, attempt));
        } else {
            self.list_comes(id, attempt, true);
        }
    }

    pub(super) fn list_comes(&mut self, id: WatchId, attempt: Attempt, well: bool) {
        if !well {
            self.failing_lists -= 1;
            let trouble = Trouble::Down("refused".into());
            let failed = Input::Failed(id, attempt, trouble, JITTER);
            return self.send(Part::Cluster, PodWatcher, Letter::Watcher(failed));
        }
        let events = mutants::list(self.mutant, self.cluster.listed.contains(&id), self.listed(id.kind));
        self.cluster.change(|cluster| {
            cluster.listed.insert(id.clone());
            cluster.streams.insert(id.clone(), attempt)
        });
        self.send(Part::Cluster, PodWatcher, Letter::Watcher(Input::Observed(id, attempt, events)));
    }

    pub(super) fn rights_come(&mut self, namespace: Arc<str>, attempt: Attempt) {
        let rights = NamespaceRights::ALL;
        let reviewed = Some(Reviewed { rights, server: Readiness::Ready });
        self.watcher(Input::Rights(namespace, attempt, reviewed, JITTER));
    }

    /// Its timer is one more thing under way.
    fn watcher_sleeps(&mut self) {
        self.outside.remove(&Outside::WatcherWakes);
        if self.alive.contains(&PodWatcher) && self.watcher.as_ref().is_some_and(|core| core.poll_deadline().is_some())
        {
            self.outside.insert(Outside::WatcherWakes);
        }
    }

    pub(super) fn watcher_wakes(&mut self) {
        let at = self.watcher.as_ref().and_then(|core| core.poll_deadline());
        self.watcher_now = self.watcher_now.max(at.unwrap_or_default());
        self.watcher(Input::Woke);
    }

    /// Its part of [`ConnectWorld::leap`].
    pub(super) fn watcher_leaps(&mut self) {
        let due = |world: &ConnectWorld| {
            let at = world.watcher.as_ref().and_then(|core| core.poll_deadline());
            world.alive.contains(&PodWatcher) && at.is_some_and(|at| at <= world.watcher_now)
        };
        if due(self) {
            self.watcher_wakes();
        }
        if due(self) {
            self.fault("no_storm", "PodWatcher was woken after a leap and wants to be woken at once");
        }
    }

    /// The stream of the pods ends: what happens until it lists again is not told.
    pub(super) fn watch_ends(&mut self) {
        let pods: Vec<_> = self.cluster.streams.iter().filter(|(id, _)| id.kind == Kind::Pods).collect();
        let pods: Vec<_> = pods.into_iter().map(|(id, attempt)| (id.clone(), *attempt)).collect();
        for (id, attempt) in pods {
            self.cluster.change(|cluster| cluster.streams.remove(&id));
            let failed = Input::Failed(id, attempt, Trouble::Down("the stream ended".into()), JITTER);
            self.send(Part::Cluster, PodWatcher, Letter::Watcher(failed));
        }
    }

    pub(super) fn watcher_credentials(&mut self) {
        if self.alive.contains(&PodWatcher) {
            self.send(Session, PodWatcher, Letter::Watcher(Input::ClientChanged));
        }
    }
}
