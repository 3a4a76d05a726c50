//! What is under way outside comes to its end.

use std::collections::BTreeMap;
use std::net::IpAddr;

use podway::actors::agent_placer::core::PlaceOutcome;
use podway::actors::client_list::core::{self as clients, DialOutcome};
use podway::actors::client_list::messages::Unfit;
use podway::actors::dns::core as dns;
use podway::actors::session::core as session;
use podway::actors::vif::core as vif;

use podway::cluster::ContainerState;

use super::*;
use crate::support::facts::connected;
use crate::support::session_world::found;

impl ConnectWorld {
    pub(super) fn ends(&mut self, outside: &Outside, well: bool) {
        self.outside.remove(outside);
        say(|| format!("{outside:?} {}", if well { "is done" } else { "fails" }));
        match outside.clone() {
            Outside::Client => self.children_begin(),
            Outside::Reach => {
                let api_server = IpAddr::from([192, 168, 1, 9]);
                self.session(session::Input::Reached(Ok(BTreeSet::from([api_server]))));
            }
            Outside::Resolve => {
                let resolutions = self.script.workloads.iter().map(|(name, replicas)| found(name, *replicas)).collect();
                self.session(session::Input::Resolved(resolutions));
            }
            Outside::List(id, attempt) => self.list_comes(id, attempt, well),
            Outside::Rights(namespace, attempt) => self.rights_come(namespace, attempt),
            Outside::WatcherWakes => self.watcher_wakes(),
            Outside::Dial(pod, attempt) => self.dial_ends(pod, attempt, well),
            Outside::Place(place, attempt, container, port) if well => self.placed(place, attempt, &container, port),
            Outside::Place(place, attempt, ..) => {
                self.failing_placements -= 1;
                self.placer_told(place, attempt, PlaceOutcome::Failed("refused for now".into()));
            }
            // What nobody hears of is deleted by whoever made it.
            Outside::Placed(place, _) if place.is_own() && !self.alive.contains(&AgentPlacer) => {
                self.under_way(Outside::Withdraw);
            }
            Outside::Placed(place, attempt) => self.placer_told(place, attempt, PlaceOutcome::Accepted),
            Outside::Withdraw => self.withdrawn(),
            Outside::Open => {
                self.seen.device = true;
                self.vif(vif::Input::Opened(Ok(7)));
            }
            Outside::Apply(generation) => self.applied(generation, well),
            Outside::StopFlows => self.vif(vif::Input::DataPlaneStopped),
            Outside::CloseDevice => {
                self.device_goes();
                self.vif(vif::Input::Closed);
            }
            Outside::Upstream(id) => self.dns(dns::Input::Answered { id, answer: None }),
            Outside::Attach(attempt) => self.attach_ends(attempt, well),
            Outside::Detach(attempt) => self.detach_ends(attempt),
            Outside::StepDone(step) => self.session(session::Input::StepDone(step, Vec::new())),
        }
    }

    fn dial_ends(&mut self, pod: PodUid, attempt: Attempt, well: bool) {
        let container = self.seen.dialled.remove(&(pod.clone(), attempt)).expect("it was dialled");
        let there = self.pods.1.pods.get(&pod);
        let runs = there.is_some_and(|pod| {
            pod.agents.iter().any(|agent| agent.name == container && agent.state == ContainerState::Running)
        });
        let outcome = match well {
            true if self.script.unfit.contains(&*container) => {
                DialOutcome::Unfit(Unfit::Protocol("another protocol".into()))
            }
            true if runs => connected(),
            _ => DialOutcome::Refused,
        };
        if outcome == connected() {
            self.seen.links.insert((pod.clone(), attempt));
        } else if !well {
            self.failing_dials -= 1;
        }
        self.clients(clients::Input::DialFinished { pod, attempt, outcome });
    }

    fn applied(&mut self, generation: Generation, well: bool) {
        let change = self.seen.applying.take().expect("it was asked for");
        let mut failed = BTreeMap::new();
        if well {
            self.seen.on_device.extend(&change.add_routes);
        } else {
            self.failing_routes -= 1;
            failed.extend(change.add_routes.iter().map(|route| (route.to_string(), "no".to_owned())));
        }
        self.seen.on_device.retain(|route| !change.remove_routes.contains(route));
        self.vif(vif::Input::Applied { generation, failed });
    }
}
