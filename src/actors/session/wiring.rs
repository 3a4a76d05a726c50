//! The graph of actors: starts the children of one run and gives each the edges it has.

use std::collections::BTreeSet;
use std::sync::Arc;

use actix::{Actor, Addr, AsyncContext as _, Context};
use tokio::sync::watch;

use super::gate::Gate;
use super::messages::{Child, ChildExited};
use super::{Children, Ingredients, Session};
use crate::actors::agent_placer::AgentPlacer;
use crate::actors::agent_placer::core::Plan;
use crate::actors::agent_placer::manifest::Agent;
use crate::actors::client_list::dialer::NativeDialer;
use crate::actors::client_list::{self, ClientList};
use crate::actors::dns::messages::Configure;
use crate::actors::dns::{self, Dns};
use crate::actors::pod_watcher::messages::Watch;
use crate::actors::pod_watcher::{self, PodWatcher};
use crate::actors::proxy_via::core::ProxyViaConfig;
use crate::actors::proxy_via::{self, ProxyVia};
use crate::actors::shell::start_monitored;
use crate::actors::vif::messages::Open;
use crate::actors::vif::{self, Vif};
use crate::digest;
use crate::identity::Identity;
use crate::net::resolver::host::HostResolver;

/// Starts every child, with its edges, and tells each what it can begin with.
pub fn start(
    ingredients: &Ingredients,
    host: &HostResolver,
    identity: &Identity,
    run: u64,
    client: kube::Client,
    ctx: &mut Context<Session>,
) -> Children {
    let spec = &ingredients.spec;
    let (fingerprint, first_port) = identity.fingerprint(&spec.agent_image);
    let gate = Gate::new(run, ctx.address().downgrade()).start();
    let (table, clients) = watch::channel(Arc::default());
    let (vip_table, vips) = watch::channel(Arc::default());
    let (client_tx, client_rx) = watch::channel(client.clone());

    let session_id = podway_tunnel::handshake::random().unwrap_or_default();
    let buffers = podway_tunnel::client::budget();
    // PodWatcher tells ClientList what there is, and hears of refused dials: it is made here, and takes that up later.
    let pod_watcher_context = Context::<PodWatcher>::new();
    let pod_watcher = pod_watcher_context.address();
    let doubts = pod_watcher.downgrade().recipient();
    let dialer = NativeDialer::new(client_rx.clone(), identity.clone(), session_id, Arc::clone(&buffers), doubts);
    // ClientList and AgentPlacer tell each other: the second is made first, with an address that it takes up when it starts.
    let agent_placer_context = Context::<AgentPlacer>::new();
    let agent_placer = agent_placer_context.address();
    let edges =
        client_list::Edges { session: gate.clone().recipient(), agent_placer: agent_placer.clone().recipient(), table };
    let key = &identity.public;
    let client_list = child(Child::ClientList, ClientList::new(key, &fingerprint, Arc::new(dialer), edges), &gate);

    let plan = Plan {
        key: Arc::clone(key),
        fingerprint: fingerprint.as_str().into(),
        first_port,
        namespace: spec.namespace.as_str().into(),
        mode: spec.agent,
    };
    let mark = digest::hex(&podway_tunnel::handshake::random::<8>().unwrap_or_default());
    let agent = Arc::new(Agent { image: spec.agent_image.clone(), key: key.to_string(), fingerprint, mark });
    let (hopeless, late) = (client_list.clone().recipient(), ingredients.settings.late.clone());
    let placer = AgentPlacer::new(plan, Arc::clone(&agent), client_rx, hopeless, late);
    monitor(Child::AgentPlacer, placer, agent_placer_context, &gate);

    // Three actors tell each other in a ring (ProxyVia → Vif → ProxyVia, ProxyVia → Dns → ProxyVia): the later ends of
    // the ring are made first, with an address that ProxyVia takes up when it starts.
    let proxy_via_context = Context::<ProxyVia>::new();
    let proxy_via = proxy_via_context.address();
    let edges = dns::Edges { proxy_via: proxy_via.clone().recipient(), session: gate.clone().recipient() };
    let dns = child(Child::Dns, Dns::new(edges, clients.clone(), host.clone()), &gate);
    let edges = vif::Edges {
        session: gate.clone().recipient(),
        dns: dns.clone().recipient(),
        stats: gate.clone().recipient(),
        proxy_via: proxy_via.clone().recipient(),
        in_use: proxy_via.clone().recipient(),
        queries: dns.clone().recipient(),
        blocked: client_list.clone().recipient(),
        clients,
        vips,
        buffers,
    };
    let vif =
        child(Child::Vif, Vif::new(edges, ingredients.settings.udp_idle, ingredients.settings.etc.clone()), &gate);
    let edges = proxy_via::Edges {
        vif: vif.clone().recipient(),
        dns: dns.clone().recipient(),
        session: gate.clone().recipient(),
        client_list: client_list.clone().recipient(),
        agent_placer: agent_placer.clone().recipient(),
        table: vip_table,
    };
    let config = ProxyViaConfig {
        virtual_v4: ingredients.settings.virtual_subnet,
        virtual_v6: super::virtual_v6(ingredients.owner_uid),
    };
    let actor = ProxyVia::new(config, edges).remembering(super::vip_memory(ingredients), ingredients.wall);
    monitor(Child::ProxyVia, actor, proxy_via_context, &gate);

    let edges = pod_watcher::Edges {
        client_list: client_list.clone().recipient(),
        agent_placer: agent_placer.clone().recipient(),
        info: vec![proxy_via.clone().recipient(), dns.clone().recipient()],
        records: dns.clone().recipient(),
        rights: vec![gate.clone().recipient(), client_list.clone().recipient(), agent_placer.clone().recipient()],
        health: gate.clone().recipient(),
    };
    monitor(Child::PodWatcher, PodWatcher::new(client, edges), pod_watcher_context, &gate);

    let mut namespaces = BTreeSet::from([Arc::from(spec.namespace.as_str())]);
    let named = spec.proxy_via.iter().filter_map(|rule| rule.workload.namespace.as_deref());
    namespaces.extend(named.map(Arc::from));
    pod_watcher.do_send(Watch { namespaces });
    vif.do_send(Open { device: ingredients.device.clone(), mtu: ingredients.settings.mtu });
    dns.do_send(Configure {
        mode: spec.dns,
        namespace: spec.namespace.clone(),
        include_suffixes: ingredients.settings.include_suffixes.clone(),
    });
    Children { gate, pod_watcher, client_list, agent_placer, proxy_via, vif, dns, client: client_tx, agent }
}

fn child<A: Actor<Context = Context<A>>>(child: Child, actor: A, gate: &Addr<Gate>) -> Addr<A> {
    let context = Context::new();
    let address = context.address();
    monitor(child, actor, context, gate);
    address
}

fn monitor<A: Actor<Context = Context<A>>>(child: Child, actor: A, context: Context<A>, gate: &Addr<Gate>) {
    let gate = gate.clone();
    start_monitored(actor, context, move |exit| gate.do_send(ChildExited { child, exit }));
}
