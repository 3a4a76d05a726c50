//! A rule for the cluster's services, and the services' range comes late; facts before what they are for.

use std::sync::Arc;

use podway::actors::proxy_via::core::{Effect, Input, ProxyViaConfig, ProxyViaCore};
use podway::actors::proxy_via::messages::SelectProxyVia;
use podway::ids::{Generation, Millis};
use podway::spec::{RangeSelector, ViaRule};

use crate::support::connect_world::{ConnectWorld, Part, Waits, host, ranges};
use crate::support::explore::assert_holds;
use crate::support::facts::{Agent, effects, pod, workload};

#[test]
fn s50_ensure_by_workload_not_by_subnet() {
    let config = ProxyViaConfig {
        virtual_v4: "246.246.0.0/16".parse().expect("a range"),
        virtual_v6: "fd00:0:0:246::/64".parse().expect("a range"),
    };
    let mut via = ProxyViaCore::new(config);
    let rule = ViaRule { range: RangeSelector::Service, workload: workload("web") };
    let selection = SelectProxyVia {
        rules: vec![rule],
        vnat: Vec::new(),
        also_proxy: Vec::new(),
        never_proxy: Vec::new(),
        allow_conflicting: Vec::new(),
        api_server: [].into(),
    };
    // Nothing is known of the cluster or the host.
    let came = effects(&mut via, Millis(0), Input::Select(selection));
    let told = came.iter().find_map(|effect| match effect {
        Effect::TellWorkloads(_, fact) => Some(fact.workloads.clone()),
        _ => None,
    });
    assert_eq!(told, Some([workload("web")].into()), "{came:?}");
    let late = Input::Cluster(Generation(1), Arc::new(ranges(true)));
    let came = effects(&mut via, Millis(0), late);
    assert!(!came.iter().any(|e| matches!(e, Effect::TellWorkloads(_, f) if f.workloads.is_empty())), "{came:?}");
}

#[test]
fn s53_cluster_facts_before_vip_generator() {
    use Part::{Host, PodWatcher, ProxyVia, Session, Vif};
    let mut other = host();
    other.resolvers.insert([10, 42, 0, 53].into());
    let world = ConnectWorld::new([pod("t", "web", Agent::Running)]).with(|script| {
        script.cluster = vec![ranges(false), ranges(true)];
        script.host = vec![host(), other];
    });
    let edges = [(Session, ProxyVia), (PodWatcher, ProxyVia), (Host, ProxyVia), (ProxyVia, Vif)];
    let mut world = world.slow(&edges, &[Waits::Device, Waits::Routes]);
    world.questions = 1;
    assert_holds(world.begun());
}
