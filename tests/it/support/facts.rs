//! Facts about a small cluster, short to write.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use podway::actors::client_list::core::{DialOutcome, ViaFact};
use podway::actors::client_list::messages::GeneralEgress;
use podway::actors::shell::Core;
use podway::cluster::{AgentContainer, ContainerState, NamespaceRights, PodFact, PodPhase, PodSnapshot, Rights};
use podway::ids::Millis;
use podway::net::views::Target;
use podway::workload::{PodUid, Workload, WorkloadKind};

/// The key that agents of these tests take.
pub const KEY: &str = "key";
/// The fingerprint of these tests.
pub const FINGERPRINT: &str = "1a2b3c4d";

/// Deployment `name` of namespace `demo`.
pub fn workload(name: &str) -> Workload {
    Workload::new("demo", WorkloadKind::Deployment, name)
}

/// The target of that deployment.
pub fn target(name: &str) -> Target {
    Target::Workload(workload(name))
}

/// A dial that came through.
pub fn connected() -> DialOutcome {
    DialOutcome::Connected { version: "0.1.0".into() }
}

/// Whether a pod has an agent of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agent {
    Absent,
    Running,
}

/// A running pod `uid` of deployment `of`.
pub fn pod(uid: &str, of: &str, agent: Agent) -> PodFact {
    let agents = match agent {
        Agent::Absent => Vec::new(),
        Agent::Running => vec![AgentContainer {
            name: format!("podway-agent-{FINGERPRINT}-1").into(),
            image: "podway-agent:test".into(),
            port: 20_001,
            authorized_key: KEY.into(),
            state: ContainerState::Running,
        }],
    };
    PodFact {
        uid: PodUid::from(uid),
        namespace: "demo".into(),
        name: format!("{of}-{uid}").into(),
        workload: workload(of),
        ips: vec!["10.42.0.7".parse().expect("an address")],
        host_network: false,
        phase: PodPhase::Running,
        ready: true,
        terminating: false,
        agents,
        own_pod_of: None,
        own_job: None,
    }
}

/// A snapshot of these pods.
pub fn snapshot(pods: impl IntoIterator<Item = PodFact>) -> Arc<PodSnapshot> {
    let pods = pods.into_iter().map(|pod| (pod.uid.clone(), Arc::new(pod))).collect();
    Arc::new(PodSnapshot { pods, namespaces: None })
}

/// These deployments are selected, nothing else is carried.
pub fn via(names: &[&str]) -> ViaFact {
    ViaFact {
        workloads: names.iter().map(|name| workload(name)).collect::<BTreeSet<_>>(),
        general: GeneralEgress::NotNeeded,
        special: BTreeMap::new(),
    }
}

/// A review that says that everything may be done in `demo`.
pub fn all_rights() -> Arc<Rights> {
    let rights = NamespaceRights::ALL;
    Arc::new(Rights { namespaces: BTreeMap::from([("demo".into(), rights)]), ..Rights::default() })
}

/// What comes of one input.
pub fn effects<C: Core>(core: &mut C, now: Millis, input: C::Input) -> Vec<C::Effect> {
    core.handle(now, input);
    std::iter::from_fn(|| core.poll_effect()).collect()
}
