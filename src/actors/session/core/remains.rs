//! What a connection leaves in the cluster, in words: agents end by themselves, when nobody has used them for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{LinkState, SessionCore, TeardownStep};
use crate::actors::client_list::messages::Placement;

/// Where an agent runs: placement and `namespace/name` of the pod.
pub(super) type RunningAgent = (Placement, Arc<str>);

impl SessionCore {
    /// The pods in which an agent runs.
    pub(super) fn running_agents(&self) -> BTreeSet<RunningAgent> {
        let links = self.facts.links.1.values().flat_map(|state| &state.links);
        let running = links.filter(|link| link.state != LinkState::NoAgent);
        running.map(|link| (link.placement, Arc::clone(&link.pod_name))).collect()
    }

    /// What became of the agents in the cluster, a sentence each.
    pub(super) fn agents_left(&self) -> Vec<String> {
        let mut pods: BTreeMap<(Placement, &str), usize> = BTreeMap::new();
        for (placement, pod) in &self.agents {
            let namespace = pod.split_once('/').map_or("", |(namespace, _)| namespace);
            *pods.entry((*placement, namespace)).or_default() += 1;
        }
        let asked = self.begun_steps.contains(&TeardownStep::RemoveAgents);
        let sentence = |((placement, namespace), count): ((Placement, &str), usize)| match placement {
            Placement::OwnPod if namespace != self.spec.namespace => Some(format!(
                "left in {namespace}: podway's own pod of another connection, which ends by itself 10 minutes after its last use"
            )),
            Placement::OwnPod if asked && self.left.is_empty() => {
                Some(format!("removed from {namespace}: podway's own pod"))
            }
            // What is left then is told with its cause.
            Placement::OwnPod if asked => None,
            Placement::OwnPod => Some(format!(
                "left in {namespace}: podway's own pod, which ends by itself in 10 minutes (with --clean, at once)"
            )),
            Placement::Ephemeral => {
                let pods = if count == 1 { "pod" } else { "pods" };
                Some(format!(
                    "left in {namespace}: ephemeral containers in {count} {pods}, which go with their pods; the agents in \
                     them end by themselves in 8 hours"
                ))
            }
        };
        pods.into_iter().filter_map(sentence).collect()
    }
}
