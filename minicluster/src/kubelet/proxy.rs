//! Services on the network: which pods an address leads to, and that it does. The part of kube-proxy.
//!
//! Without translating addresses: a service's address is an address of each of its backends, and the node has a route
//! to it over all of them. So a service's port is its pods' own, and a pod that calls a service of its own calls itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::watch;

use super::core::node_addresses;
use super::machine::Networks;
use crate::controllers::world::World;
use crate::net::{API, NetError, NodeNet, Pair, PodNet};
use crate::object::{self, list};
use crate::resource::{ENDPOINT_SLICES, NODES, SERVICES};
use crate::store::Store;

/// Where a service's address leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lead {
    /// To pods, by their addresses of the same family; to none: refused.
    Pods(BTreeSet<IpAddr>),
    /// To the node itself.
    Node,
}

/// Where each service's address should lead, and each node's, as all nodes are one.
pub fn plan(world: &World) -> BTreeMap<IpAddr, Lead> {
    let nodes: BTreeSet<IpAddr> = world.list(&NODES).flat_map(|node| both(node_addresses(node))).collect();
    let mut plan: BTreeMap<IpAddr, Lead> = nodes.iter().map(|address| (*address, Lead::Node)).collect();
    let nodes = nodes.into_iter().chain(both(API)).collect();
    for service in world.list(&SERVICES) {
        let addresses = list(service, "/spec/clusterIPs").iter().filter_map(|address| address.as_str()?.parse().ok());
        for address in addresses {
            plan.insert(address, lead(world, service, address, &nodes));
        }
    }
    plan
}

fn both(pair: Pair) -> [IpAddr; 2] {
    [pair.v4.into(), pair.v6.into()]
}

fn lead(world: &World, service: &serde_json::Value, address: IpAddr, nodes: &BTreeSet<IpAddr>) -> Lead {
    let name = object::name(service);
    let slices = world.list_in(&ENDPOINT_SLICES, object::namespace(service));
    let slices = slices.filter(|slice| object::label(slice, "kubernetes.io/service-name") == Some(name));
    let endpoints: Vec<_> = slices.flat_map(|slice| list(slice, "/endpoints")).collect();
    let backends = |wanted: &dyn Fn(&serde_json::Value) -> bool| -> BTreeSet<IpAddr> {
        let chosen = endpoints.iter().filter(|endpoint| wanted(&endpoint["conditions"]));
        let addresses = chosen.flat_map(|endpoint| list(endpoint, "/addresses"));
        let parsed = addresses.filter_map(|address| address.as_str()?.parse::<IpAddr>().ok());
        parsed.filter(|backend| backend.is_ipv4() == address.is_ipv4()).collect()
    };
    let mut chosen = backends(&|conditions| conditions["ready"] != false);
    if chosen.is_empty() {
        // Those that leave, while nobody else is there.
        chosen = backends(&|conditions| conditions["serving"] == true && conditions["terminating"] == true);
    }
    let pods: BTreeSet<IpAddr> = chosen.difference(nodes).copied().collect();
    // Both at once cannot be: the node would take all for itself.
    if pods.is_empty() && !chosen.is_empty() { Lead::Node } else { Lead::Pods(pods) }
}

/// Makes services lead where they should, as long as it runs.
pub async fn run(store: Store, node: NodeNet, mut networks: watch::Receiver<Arc<Networks>>) {
    let mut revisions = store.revisions();
    let mut done = BTreeMap::new();
    loop {
        revisions.borrow_and_update();
        let plan = plan(&World::read(&store));
        let pods = Arc::clone(&networks.borrow_and_update());
        let gone: Vec<IpAddr> = done.keys().filter(|address| !plan.contains_key(address)).copied().collect();
        let differing = plan.into_iter().filter_map(|(address, lead)| {
            let now = Now::of(lead, &pods);
            (done.get(&address) != Some(&now)).then_some((address, now))
        });
        let changes: Vec<(IpAddr, Option<Now>)> = gone
            .into_iter()
            .map(|address| (address, None))
            .chain(differing.map(|(address, now)| (address, Some(now))))
            .collect();
        let made = join_all(changes.into_iter().map(|(address, now)| {
            let before = done.get(&address).cloned();
            let (node, pods) = (&node, &pods);
            async move {
                let result = change(node, address, before.as_ref(), now.as_ref(), pods).await;
                (address, now, result)
            }
        }));
        for (address, now, result) in made.await {
            if let Err(error) = result {
                // A pod that leaves meanwhile; the next look is with what is true then.
                tracing::debug!(%address, %error, "a service does not lead where it should");
                done.remove(&address);
                continue;
            }
            match now {
                Some(now) => done.insert(address, now),
                None => done.remove(&address),
            };
        }
        tokio::select! {
            changed = revisions.changed() => if changed.is_err() { return },
            changed = networks.changed() => if changed.is_err() { return },
        }
    }
}

/// Where an address leads: to those of its pods that have a network, told apart by the node's ends of their pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Now {
    Pods(BTreeMap<IpAddr, u32>),
    Node,
}

impl Now {
    fn of(lead: Lead, pods: &Networks) -> Now {
        match lead {
            Lead::Node => Now::Node,
            Lead::Pods(wanted) => {
                let there = wanted.into_iter().filter_map(|address| Some((address, pods.get(&address)?.index)));
                Now::Pods(there.collect())
            }
        }
    }

    fn pods(&self) -> BTreeMap<IpAddr, u32> {
        match self {
            Now::Pods(pods) => pods.clone(),
            Now::Node => BTreeMap::new(),
        }
    }
}

async fn change(
    node: &NodeNet,
    service: IpAddr,
    before: Option<&Now>,
    now: Option<&Now>,
    pods: &Networks,
) -> Result<(), NetError> {
    let none = BTreeMap::new();
    let (old, new) = (before.map_or_else(|| none.clone(), Now::pods), now.map_or_else(|| none.clone(), Now::pods));
    // A pod has the address before anything is led to it, and keeps it until nothing is.
    let backends: Vec<PodNet> = new.keys().filter_map(|address| pods.get(address).cloned()).collect();
    for result in join_all(backends.iter().map(|pod| pod.serve(service))).await {
        result?;
    }
    match now {
        Some(Now::Pods(_)) => node.lead(&[service], &backends).await?,
        Some(Now::Node) => {
            node.serve(service).await?;
            node.unlead(&[service]).await?;
        }
        None => node.unlead(&[service]).await?,
    }
    if before == Some(&Now::Node) && now != Some(&Now::Node) {
        node.stop_serving(service).await?;
    }
    let left = old.iter().filter(|(address, index)| new.get(address) != Some(index));
    let left = left.filter_map(|(address, index)| pods.get(address).filter(|pod| pod.index == *index));
    join_all(left.map(|pod| pod.stop_serving(service))).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::testing::Bed;
    use serde_json::{Value, json};

    fn world(endpoints: &Value) -> World {
        let bed = Bed::new(0);
        let node = json!({"status": {"addresses": [{"address": "10.41.0.1"}, {"address": "fd41::1"}]}});
        bed.create(&NODES, "", "node1", node);
        let spec = json!({"clusterIP": "10.43.0.80", "clusterIPs": ["10.43.0.80"]});
        bed.create(&SERVICES, "demo", "web", json!({"spec": spec}));
        bed.create(&SERVICES, "demo", "headless", json!({"spec": {"clusterIP": "None"}}));
        let labels = json!({"labels": {"kubernetes.io/service-name": "web"}});
        bed.create(&ENDPOINT_SLICES, "demo", "web-1", json!({"metadata": labels, "endpoints": endpoints}));
        World::read(&bed.store)
    }

    fn pods(all: &[&str]) -> Lead {
        Lead::Pods(all.iter().map(|address| address.parse().unwrap()).collect())
    }

    #[test]
    fn a_service_leads_to_who_is_ready_else_to_who_leaves_else_nowhere() {
        let endpoint = |address: &str, ready: bool, terminating: bool| {
            let conditions = json!({"ready": ready, "serving": ready || terminating, "terminating": terminating});
            json!({"addresses": [address], "conditions": conditions})
        };
        for (endpoints, wanted) in [
            (vec![endpoint("10.42.0.2", true, false), endpoint("10.42.0.3", false, true)], pods(&["10.42.0.2"])),
            (vec![endpoint("10.42.0.3", false, true), endpoint("10.42.0.4", false, false)], pods(&["10.42.0.3"])),
            (vec![endpoint("10.42.0.4", false, false)], pods(&[])),
            (vec![endpoint("10.41.0.1", true, false)], Lead::Node),
            (vec![endpoint("10.41.0.1", true, false), endpoint("10.42.0.2", true, false)], pods(&["10.42.0.2"])),
            (vec![endpoint("192.0.2.1", true, false)], Lead::Node),
            (vec![endpoint("fd42::2", true, false)], pods(&[])),
        ] {
            let plan = plan(&world(&json!(endpoints)));
            assert_eq!(plan.get(&"10.43.0.80".parse().unwrap()), Some(&wanted), "{endpoints:?}");
        }
    }
}
