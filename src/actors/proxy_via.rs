//! ProxyVia: owns the rules, the virtual addresses and the route plan.
//!
//! Hears rules, ranges of the cluster, the host's network and the addresses of answers; publishes [`VipTable`]; tells
//! the plan, the translation and the workloads. What it decides is in [`core`]; this file tells and publishes.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::{Actor, AsyncContext as _, Context, Handler, Recipient};
use tokio::sync::watch;
use tracing::warn;

use self::core::{Effect, Input, ProxyViaConfig, ProxyViaCore, Table};
use self::messages::{
    AllocateVips, Allocation, HostFactsChanged, RoutePlanChanged, SelectProxyVia, TranslationChanged, ViaChanged,
    VipsInUseChanged,
};
use crate::actors::client_list::core::ViaFact;
use crate::actors::client_list::messages::ViaWorkloadsChanged;
use crate::actors::pod_watcher::messages::ClusterInfoChanged;
use crate::actors::shell::{Driven, Reply, Shell, Stop, blocking, drive, spawn_reporting, stop, told};
use crate::ids::ReplyId;
use crate::net::views::VipTable;
use crate::net::vip::memory::VipMemory;

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

/// How long new virtual addresses wait for being written down: many come at once.
const SAVE_AFTER: Duration = Duration::from_secs(3);
/// How long reading or writing them may take.
const FILE_LIMIT: Duration = Duration::from_secs(1);

/// The actor.
pub struct ProxyVia {
    driven: Driven<ProxyViaCore>,
    edges: Edges,
    asked: HashMap<ReplyId, Reply<Allocation>>,
    next_reply: ReplyId,
    memory: Option<Memory>,
}

/// Where virtual addresses are kept for the next connection.
struct Memory {
    path: PathBuf,
    /// Seconds since 1970 now.
    wall: fn() -> i64,
    /// One writer at a time.
    writing: Arc<Mutex<()>>,
    save: Save,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Save {
    Done,
    Due,
}

impl Memory {
    fn now(&self) -> u64 {
        u64::try_from((self.wall)()).unwrap_or(0)
    }

    /// Writes down what the core knows now, if that is more than nothing; `then` is called when it is done or given up.
    fn save(&mut self, core: &ProxyViaCore, then: impl FnOnce() + Send + 'static) {
        self.save = Save::Done;
        let now = self.now();
        let Some(memory) = core.memory(now) else { return then() };
        let (path, writing) = (self.path.clone(), Arc::clone(&self.writing));
        let write = move || {
            // What a writer that panicked left behind is replaced as a whole.
            let _one = writing.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = memory.save(&path, now) {
                warn!(path = %path.display(), %error, "virtual addresses are not kept for the next connection");
            }
        };
        let work = async move { blocking(write).await.ok() };
        spawn_reporting(work, FILE_LIMIT, move |_| then());
    }
}

impl ProxyVia {
    /// A ProxyVia that draws from the ranges of `config`.
    pub fn new(config: ProxyViaConfig, edges: Edges) -> Self {
        let driven = Driven::new(ProxyViaCore::new(config));
        ProxyVia { driven, edges, asked: HashMap::new(), next_reply: ReplyId(0), memory: None }
    }

    /// Gives addresses of earlier connections their meaning again, and keeps those of this one in the file `path`, which
    /// belongs to this user, cluster and connection alone. `wall` tells the seconds since 1970.
    #[must_use]
    pub fn remembering(mut self, path: PathBuf, wall: fn() -> i64) -> Self {
        self.driven = Driven::new(self.driven.core.awaiting_memory());
        self.memory = Some(Memory { path, wall, writing: Arc::default(), save: Save::Done });
        self
    }

    fn save_soon(&mut self, ctx: &mut Context<Self>) {
        let Some(memory) = self.memory.as_mut().filter(|memory| memory.save == Save::Done) else { return };
        memory.save = Save::Due;
        ctx.run_later(SAVE_AFTER, |this, _| {
            if let Some(memory) = &mut this.memory {
                memory.save(&this.driven.core, || ());
            }
        });
    }
}

impl Actor for ProxyVia {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let Some(memory) = &self.memory else { return };
        let (me, path, now) = (ctx.address(), memory.path.clone(), memory.now());
        let load = async move { blocking(move || VipMemory::load(&path, now)).await.ok() };
        spawn_reporting(load, FILE_LIMIT, move |loaded| {
            let why = match loaded {
                Ok(Some(Ok(memory))) => return me.do_send(Loaded(Some(memory))),
                Ok(Some(Err(error))) => error.to_string(),
                Ok(None) => "the reader panicked".to_owned(),
                Err(failed) => format!("{failed:?}"),
            };
            warn!(why, "the virtual addresses of before cannot be read; starting without them");
            me.do_send(Loaded(None));
        });
    }
}

/// self → ProxyVia. What earlier connections left; nothing where that could not be read.
struct Loaded(Option<VipMemory>);

told!(Loaded);

impl Shell for ProxyVia {
    type Core = ProxyViaCore;

    fn driven(&mut self) -> &mut Driven<ProxyViaCore> {
        &mut self.driven
    }

    fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::Publish(table) => {
                self.save_soon(ctx);
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
        match &mut self.memory {
            Some(memory) if memory.save == Save::Due => {
                memory.save(&self.driven.core, || message.reply.answer(()));
            }
            Some(_) | None => message.reply.answer(()),
        }
        stop(ctx);
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

impl Handler<Loaded> for ProxyVia {
    type Result = ();
    fn handle(&mut self, Loaded(known): Loaded, ctx: &mut Context<Self>) {
        if known.is_none() {
            // What is there may be good, and is not replaced.
            self.memory = None;
        }
        drive(self, Input::Remember(known.unwrap_or_default()), ctx);
    }
}

impl From<VipsInUseChanged> for Input {
    fn from(message: VipsInUseChanged) -> Input {
        Input::InUse(message.vips)
    }
}

impl From<HostFactsChanged> for Input {
    fn from(message: HostFactsChanged) -> Input {
        Input::Host(message.generation, message.facts)
    }
}

crate::actors::shell::drives!(ProxyVia, SelectProxyVia, ClusterInfoChanged, HostFactsChanged, VipsInUseChanged);

#[cfg(test)]
mod shell_tests;
