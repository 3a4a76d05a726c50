//! A client list that tells waiters of a pod because an agent is seen in it, not because a link works. The explorer must
//! find it out.

use std::collections::VecDeque;
use std::sync::Arc;

use podway::actors::client_list::core::{ClientListCore, Effect, Input};
use podway::actors::client_list::messages::WaiterOutcome;
use podway::actors::shell::Core;
use podway::cluster::PodSnapshot;
use podway::ids::{Millis, WaiterId};
use podway::net::views::Target;

use super::clients_world::Machine;

/// See the module.
#[derive(Clone, Debug)]
pub struct OnPresence {
    list: ClientListCore,
    pods: Arc<PodSnapshot>,
    effects: VecDeque<Effect>,
}

impl OnPresence {
    pub fn new(list: ClientListCore) -> Self {
        OnPresence { list, pods: Arc::default(), effects: VecDeque::new() }
    }
}

impl Machine for OnPresence {
    fn handle(&mut self, now: Millis, input: Input) {
        if let Input::Pods(_, pods) = &input {
            self.pods = Arc::clone(pods);
        }
        Core::handle(&mut self.list, now, input);
        self.effects.extend(std::iter::from_fn(|| Core::poll_effect(&mut self.list)));
        let waiting: Vec<(WaiterId, Target)> = self.list.waiting().map(|(id, target)| (id, target.clone())).collect();
        for (id, target) in waiting {
            let of = |pod: &Target| *pod == target;
            let seen = self.pods.pods.values().find(|pod| of(&Target::Workload(pod.workload.clone())));
            if let Some(pod) = seen.filter(|pod| !pod.agents.is_empty()) {
                let outcome = WaiterOutcome::Ready { pod: pod.uid.clone() };
                self.effects.push_back(Effect::Settle { id, outcome });
                Core::handle(&mut self.list, now, Input::Cancel(id));
                while Core::poll_effect(&mut self.list).is_some() {}
            }
        }
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn poll_deadline(&self) -> Option<Millis> {
        Core::poll_deadline(&self.list)
    }
}
