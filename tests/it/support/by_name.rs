//! The second mutant: a client list that takes the result of a dial for whatever pod of that name it dialled last. The
//! explorer must find it out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use podway::actors::client_list::core::{ClientListCore, Effect, Input};
use podway::actors::shell::Core;
use podway::ids::{Attempt, Millis};
use podway::workload::PodUid;

use super::clients_world::Machine;

/// See the module.
#[derive(Clone, Debug)]
pub struct ByName {
    list: ClientListCore,
    names: BTreeMap<PodUid, Arc<str>>,
    newest: BTreeMap<Arc<str>, (PodUid, Attempt)>,
    effects: VecDeque<Effect>,
}

impl ByName {
    pub fn new(list: ClientListCore) -> Self {
        ByName { list, names: BTreeMap::new(), newest: BTreeMap::new(), effects: VecDeque::new() }
    }
}

impl Machine for ByName {
    fn handle(&mut self, now: Millis, input: Input) {
        let input = match input {
            // Whose result it is, is told by the name alone: that is the fault.
            Input::DialFinished { pod, outcome, .. } => {
                let (pod, attempt) = self.newest[&self.names[&pod]].clone();
                Input::DialFinished { pod, attempt, outcome }
            }
            input => input,
        };
        Core::handle(&mut self.list, now, input);
        while let Some(effect) = Core::poll_effect(&mut self.list) {
            if let Effect::Dial { pod, attempt, .. } = &effect {
                self.names.insert(pod.uid.clone(), Arc::clone(&pod.name));
                self.newest.insert(Arc::clone(&pod.name), (pod.uid.clone(), *attempt));
            }
            self.effects.push_back(effect);
        }
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn poll_deadline(&self) -> Option<Millis> {
        Core::poll_deadline(&self.list)
    }
}
