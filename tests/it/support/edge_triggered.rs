//! The mutant: a client list that decides when a snapshot arrives, as podway's ancestor did. The explorer must find it
//! out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use podway::actors::client_list::core::{DialOutcome, Effect, Input, LinkName, Table};
use podway::actors::client_list::messages::WaiterOutcome;
use podway::cluster::PodFact;
use podway::ids::{Attempt, Generation, Millis, WaiterId};
use podway::net::views::Target;
use podway::workload::{PodUid, Workload};

use super::clients_world::Machine;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct EdgeTriggered {
    clients: BTreeMap<PodUid, (Arc<PodFact>, bool)>,
    selected: BTreeSet<Workload>,
    waiters: BTreeMap<WaiterId, (Target, Millis)>,
    attempt: Attempt,
    effects: VecDeque<Effect>,
}

impl EdgeTriggered {
    fn wanted(&self, pod: &PodFact) -> bool {
        let target = Target::Workload(pod.workload.clone());
        self.selected.contains(&pod.workload) || self.waiters.values().any(|(waiting, _)| *waiting == target)
    }

    fn settle_connected(&mut self) {
        let ready = |target: &Target| {
            let connected = self.clients.values().filter(|(_, connected)| *connected);
            connected.map(|(pod, _)| pod).find(|pod| *target == Target::Workload(pod.workload.clone())).cloned()
        };
        let settled: Vec<_> = self.waiters.iter().filter_map(|(id, (target, _))| Some((*id, ready(target)?))).collect();
        for (id, pod) in settled {
            self.waiters.remove(&id);
            let link = LinkName { attempt: self.attempt, pod: pod.clone() };
            let workloads = BTreeMap::from([(pod.workload.clone(), vec![link])]);
            self.effects.push_back(Effect::Publish(Table { generation: Generation(1), workloads, ..Table::default() }));
            self.effects.push_back(Effect::Settle { id, outcome: WaiterOutcome::Ready { pod: pod.uid.clone() } });
        }
    }
}

impl Machine for EdgeTriggered {
    fn handle(&mut self, now: Millis, input: Input) {
        match input {
            // The snapshot is looked at once and not kept: that is the fault.
            Input::Pods(_, snapshot) => {
                self.clients.retain(|uid, _| snapshot.pods.contains_key(uid));
                for (uid, pod) in &snapshot.pods {
                    let first = self.clients.is_empty();
                    if !self.clients.contains_key(uid) && (first || self.wanted(pod)) {
                        self.attempt = self.attempt.next();
                        self.clients.insert(uid.clone(), (Arc::clone(pod), false));
                        self.effects.push_back(Effect::Dial {
                            pod: Arc::clone(pod),
                            attempt: self.attempt,
                            port: 1,
                            special: BTreeSet::new(),
                        });
                    }
                }
                self.settle_connected();
            }
            Input::Via(_, via) => self.selected = via.workloads,
            Input::Register { id, target, deadline } => {
                self.waiters.insert(id, (target, deadline));
                self.settle_connected();
            }
            Input::DialFinished { pod, outcome, .. } => {
                if matches!(outcome, DialOutcome::Connected { .. })
                    && let Some((_, connected)) = self.clients.get_mut(&pod)
                {
                    *connected = true;
                }
                self.settle_connected();
            }
            Input::Woke => {
                let late: Vec<_> = self.waiters.iter().filter(|(_, (_, at))| *at <= now).map(|(id, _)| *id).collect();
                for id in late {
                    self.waiters.remove(&id);
                    self.effects.push_back(Effect::Settle { id, outcome: WaiterOutcome::TimedOut });
                }
            }
            _ => {}
        }
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn poll_deadline(&self) -> Option<Millis> {
        self.waiters.values().map(|(_, at)| *at).min()
    }
}
