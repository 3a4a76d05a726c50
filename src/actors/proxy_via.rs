//! ProxyVia: owns the rules, the virtual addresses and the route plan.
//!
//! Hears rules, ranges of the cluster, the host's network and the addresses of answers; publishes [`VipTable`]; tells
//! the plan, the translation and the workloads. What it decides is in [`core`]; this file tells and publishes.

use std::collections::HashMap;
use std::sync::Arc;

use actix::{Actor, Context, Handler, Recipient};
use tokio::sync::watch;

use self::core::{Effect, Input, ProxyViaConfig, ProxyViaCore, Table};
use self::messages::{
    AllocateVips, Allocation, HostFactsChanged, RoutePlanChanged, SelectProxyVia, TranslationChanged, ViaChanged,
};
use crate::actors::client_list::core::ViaFact;
use crate::actors::client_list::messages::ViaWorkloadsChanged;
use crate::actors::pod_watcher::messages::ClusterInfoChanged;
use crate::actors::shell::{Driven, Reply, Shell, Stop, drive, stop};
use crate::ids::ReplyId;
use crate::net::views::VipTable;

pub mod core;
pub mod messages;

/// The edges of ProxyVia.
pub struct Edges {
    /// Vif: what the device shall carry.
    pub vif: Recipient<RoutePlanChanged>,
    /// Dns: what is translated.
    pub dns: Recipient<TranslationChanged>,
    /// Session: state for people.
    pub session: Recipient<ViaChanged>,
    /// ClientList: whom to be connected to.
    pub client_list: Recipient<ViaWorkloadsChanged>,
    /// AgentPlacer: where agents are needed.
    pub agent_placer: Recipient<ViaWorkloadsChanged>,
    /// The published table.
    pub table: watch::Sender<Arc<VipTable>>,
}

/// The actor.
pub struct ProxyVia {
    driven: Driven<ProxyViaCore>,
    edges: Edges,
    asked: HashMap<ReplyId, Reply<Allocation>>,
    next_reply: ReplyId,
}

impl ProxyVia {
    /// A ProxyVia that draws from the ranges of `config`.
    pub fn new(config: ProxyViaConfig, edges: Edges) -> Self {
        let driven = Driven::new(ProxyViaCore::new(config));
        ProxyVia { driven, edges, asked: HashMap::new(), next_reply: ReplyId(0) }
    }
}

impl Actor for ProxyVia {
    type Context = Context<Self>;
}

impl Shell for ProxyVia {
    type Core = ProxyViaCore;

    fn driven(&mut self) -> &mut Driven<ProxyViaCore> {
        &mut self.driven
    }

    fn perform(&mut self, effect: Effect, _: &mut Context<Self>) {
        match effect {
            Effect::Publish(table) => {
                self.edges.table.send_replace(Arc::new(table.into()));
            }
            Effect::TellVif(fact) => self.edges.vif.do_send(fact),
            Effect::TellWorkloads(generation, fact) => {
                let ViaFact { workloads, general, special } = fact;
                let fact = ViaWorkloadsChanged { generation, workloads, general, special };
                self.edges.client_list.do_send(fact.clone());
                self.edges.agent_placer.do_send(fact);
            }
            Effect::TellDns(fact) => self.edges.dns.do_send(fact),
            Effect::TellSession(fact) => self.edges.session.do_send(fact),
            Effect::Answer(id, answer) => {
                if let Some(reply) = self.asked.remove(&id) {
                    reply.answer(answer);
                }
            }
        }
    }
}

impl Handler<AllocateVips> for ProxyVia {
    type Result = ();
    fn handle(&mut self, message: AllocateVips, ctx: &mut Context<Self>) {
        let AllocateVips { name, addresses, reply } = message;
        self.next_reply = self.next_reply.next();
        self.asked.insert(self.next_reply, reply);
        drive(self, Input::Allocate { reply: self.next_reply, name, addresses }, ctx);
    }
}

impl Handler<Stop> for ProxyVia {
    type Result = ();
    fn handle(&mut self, message: Stop, ctx: &mut Context<Self>) {
        drive(self, Input::Stop, ctx);
        stop(ctx);
        message.reply.answer(());
    }
}

impl From<Table> for VipTable {
    fn from(table: Table) -> VipTable {
        let Table { generation, vips, virtual_ranges, device_addresses, dns_addresses, routed, pod_ranges } = table;
        let vips = vips.into_iter().collect();
        VipTable { generation, vips, virtual_ranges, device_addresses, dns_addresses, routed, pod_ranges }
    }
}

impl From<SelectProxyVia> for Input {
    fn from(message: SelectProxyVia) -> Input {
        Input::Select(message)
    }
}

impl From<ClusterInfoChanged> for Input {
    fn from(message: ClusterInfoChanged) -> Input {
        Input::Cluster(message.generation, message.info)
    }
}

impl From<HostFactsChanged> for Input {
    fn from(message: HostFactsChanged) -> Input {
        Input::Host(message.generation, message.facts)
    }
}

crate::actors::shell::drives!(ProxyVia, SelectProxyVia, ClusterInfoChanged, HostFactsChanged);
