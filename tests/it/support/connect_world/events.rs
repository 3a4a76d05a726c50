//! What people, the cluster and the host do.

use std::collections::BTreeSet;
use std::sync::Arc;

use podway::actors::client_list::core as clients;
use podway::actors::dns::core as dns;
use podway::actors::proxy_via::core as via;
use podway::actors::session::core as session;

use super::*;

impl ConnectWorld {
    pub(super) fn happens(&mut self, event: Event) {
        match event {
            Event::Connect => self.user_connects(),
            Event::Disconnect => self.user_disconnects(),
            Event::Quit => self.quit(),
            Event::PodIs(mut pod) => {
                // A container that was added to a pod can be neither removed nor replaced.
                let before = self.pods.1.pods.get(&pod.uid).map(|before| before.agents.clone()).unwrap_or_default();
                if before.len() >= pod.agents.len() {
                    pod.agents = before;
                }
                self.pod_is(*pod);
            }
            Event::PodGoes(uid) => self.pod_goes(uid),
            Event::AgentRestarts(uid) => self.agent_restarts(uid),
            Event::WatchEnds => self.watch_ends(),
            Event::RangesAreKnown => self.ranges_are_known(),
            Event::HostIs(facts) => self.host_is(*facts),
            Event::Asks => self.asks(),
            Event::FlowBegins => {
                let given = self.seen.given.first().copied();
                if let Some(vip) = given.filter(|vip| self.alive.contains(&Vif) && self.seen.vips.contains(vip)) {
                    self.flows_are(BTreeSet::from([vip]));
                }
            }
            Event::FlowsEnd => self.flows_are(BTreeSet::new()),
            Event::FlowWaits => {
                let target = Target::Workload(workload("web"));
                self.send(Vif, ClientList, Letter::Clients(clients::Input::FlowsBlocked(target)));
            }
            Event::CarrierLost => {
                if let Some((pod, attempt)) = self.seen.links.first().cloned() {
                    self.carrier_lost(pod, attempt);
                }
            }
            Event::CredentialsChange => {
                self.session(session::Input::Renewed { ask: None, expires_at: None, lasts: None });
                self.watcher_credentials();
            }
            Event::ResolverChanges => {
                if self.dns.is_some() {
                    self.send(Host, Dns, Letter::Dns(dns::Input::ResolverChanged));
                }
            }
            Event::Panics(part) => self.panics(part),
            Event::Crash => self.crashes(),
            Event::TimeLeaps(millis) => self.leap(millis),
            Event::Again(from, to) => {
                // The older of the last two: it is known already, or newer is.
                let last = self.last.get(&(from, to)).and_then(|last| last.front().cloned());
                if let Some(letter) = last
                    && self.alive.contains(&to)
                {
                    say(|| format!("{from:?} tells {to:?} again: {}", letter.words()));
                    self.receive(to, (*letter).clone());
                }
            }
        }
    }

    fn host_is(&mut self, facts: HostFacts) {
        self.script.change(|script| script.host.push(facts.clone()));
        let generation = Generation(u64::try_from(self.script.host.len()).expect("few"));
        self.send(Host, ProxyVia, Letter::Via(via::Input::Host(generation, Arc::new(facts))));
    }
}
