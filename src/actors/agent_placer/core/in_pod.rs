//! What one pod holds of ours, and what is free in it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{AgentPlacerCore, Plan};
use crate::actors::agent_placer::manifest::is_named_after;
use crate::actors::client_list::messages::{GeneralEgress, Unfit, UnfitAgents};
use crate::cluster::{AgentContainer, ContainerState, PodFact, PodPhase};
use crate::net::views::Target;

/// What a pod holds of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AgentInPod {
    Absent,
    Starting,
    Running,
    Stuck(Arc<str>),
    /// One runs and said that it will not do; there is no other.
    Unfit(Unfit),
}

impl Plan {
    /// A running agent serves whatever its image, as the handshake agrees on a protocol. One that does not run yet, or
    /// never will, counts only with our own image: a wrong `--agent-image` must not stand in the way of the right one.
    pub(super) fn agent_in(&self, pod: &PodFact, unfit: &UnfitAgents) -> AgentInPod {
        let mut found = AgentInPod::Absent;
        for agent in self.of_our_key(pod) {
            match &agent.state {
                ContainerState::Running => match unfit.get(&(pod.uid.clone(), Arc::clone(&agent.name))) {
                    None => return AgentInPod::Running,
                    Some(unfit) if found == AgentInPod::Absent => found = AgentInPod::Unfit(unfit.clone()),
                    Some(_) => {}
                },
                ContainerState::Waiting if self.bears_our_fingerprint(pod, agent) => found = AgentInPod::Starting,
                ContainerState::Stuck { .. }
                    if found != AgentInPod::Starting && self.bears_our_fingerprint(pod, agent) =>
                {
                    let why = agent.obstacle().unwrap_or_default();
                    found = AgentInPod::Stuck(format!("pod {}: {why}", pod.name).into());
                }
                ContainerState::Waiting | ContainerState::Stuck { .. } | ContainerState::Terminated => {}
            }
        }
        found
    }

    /// Whether this is a pod of our own in our namespace, of whatever image.
    pub(super) fn owns(&self, pod: &PodFact) -> bool {
        let ours = pod.own_pod_of.as_deref() == Some(&*self.fingerprint) || self.of_our_key(pod).next().is_some();
        pod.own_pod_of.is_some() && pod.namespace == self.namespace && ours
    }

    fn of_our_key<'a>(&'a self, pod: &'a PodFact) -> impl Iterator<Item = &'a AgentContainer> {
        pod.agents.iter().filter(|agent| agent.authorized_key == self.key)
    }

    /// In a pod of our own the pod's label carries the fingerprint, elsewhere the container's name.
    fn bears_our_fingerprint(&self, pod: &PodFact, agent: &AgentContainer) -> bool {
        pod.own_pod_of.as_deref() == Some(&*self.fingerprint) || is_named_after(&agent.name, &self.fingerprint)
    }

    /// Containers of ours, of whatever image: none of them can be removed.
    pub(super) fn containers_in(&self, pod: &PodFact) -> usize {
        self.of_our_key(pod).count()
    }

    /// The first name of ours that no container of the pod has.
    pub(super) fn free_name(&self, pod: &PodFact) -> String {
        let taken: BTreeSet<&str> = pod.agents.iter().map(|agent| &*agent.name).collect();
        let name = |n: usize| format!("podway-agent-{}-{n}", self.fingerprint);
        // One number more than there are containers is enough.
        let free = (1..=taken.len()).map(name).find(|name| !taken.contains(name.as_str()));
        free.unwrap_or_else(|| name(taken.len() + 1))
    }

    /// The first port of ours that no agent of the pod was told to take, whoever's it is.
    pub(super) fn free_port(&self, pod: &PodFact) -> u16 {
        let taken: BTreeSet<u16> = pod.agents.iter().map(|agent| agent.port).collect();
        let free = (self.first_port..=u16::MAX).find(|port| !taken.contains(port));
        free.unwrap_or(self.first_port)
    }
}

impl AgentPlacerCore {
    /// The pods whose agents are there for what is wanted, running or starting.
    pub fn present(&self) -> Vec<(Target, Arc<PodFact>)> {
        let (plan, unfit) = (&self.plan, &self.unfit.1);
        let usable = |pod: &PodFact| matches!(plan.agent_in(pod, unfit), AgentInPod::Running | AgentInPod::Starting);
        let of = |pod: &Arc<PodFact>| {
            let live = pod.phase == PodPhase::Running && !pod.terminating;
            if self.via.1.workloads.contains(&pod.workload) && live {
                return Some(Target::Workload(pod.workload.clone()));
            }
            (self.via.1.general == GeneralEgress::Wanted && plan.owns(pod) && !pod.terminating)
                .then_some(Target::General)
        };
        let usable = self.pods.1.pods.values().filter(|pod| usable(pod));
        usable.filter_map(|pod| Some((of(pod)?, Arc::clone(pod)))).collect()
    }
}
