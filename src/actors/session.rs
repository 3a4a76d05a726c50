//! Session: one connection. Starts its children all at once, wires their edges, tears them down in order.
//!
//! What it decides is in [`core`]; the wiring below is the graph of actors.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext as _, Context, Handler};
use futures_util::TryFutureExt as _;
use tokio::sync::{oneshot, watch};
use tracing::{debug, info, warn};

use self::core::{Effect, Input, SessionCore, TeardownStep};
use self::gate::Gate;
use self::messages::{Asking, ChildExited, CredentialsForgone, CredentialsRenewed, Disconnect, KeeperCame, Remains};
use crate::actors::agent_placer::manifest::Agent;
use crate::actors::agent_placer::messages::RemoveAll;
use crate::actors::agent_placer::{AgentPlacer, Own};
use crate::actors::client_list::messages::{LinksChanged, RegisterWaiter, WaiterSettled};
use crate::actors::client_list::{ClientList, HangUpAll};
use crate::actors::dns::Dns;
use crate::actors::dns::messages::{DnsChanged, Restore};
use crate::actors::falls;
use crate::actors::pod_watcher::PodWatcher;
use crate::actors::pod_watcher::messages::{ResolveWorkloads, RightsChanged, UseClient, WatchHealthChanged};
use crate::actors::proxy_via::ProxyVia;
use crate::actors::proxy_via::messages::ViaChanged;
use crate::actors::shell::{
    Driven, Exit, LateWork, NO_LIMIT, Reply, Shell, Stop, TaskFailed, blocking, drive, jitter, now, spawn,
    spawn_reporting, stop, told,
};
use crate::actors::vif::messages::{Close, FlowStats, StopDataPlane, VifChanged};
use crate::actors::vif::{self, Vif};
use crate::digest;
use crate::error::{UserError, chain};
use crate::identity::Identity;
use crate::ids::{AskId, KeeperId, ReplyId};
use crate::net::cidr::Cidr;
use crate::net::kube_client;
use crate::net::os_journal::OsJournal;
use crate::net::resolver::host::{FileEditor, HostResolver};
use crate::spec::{ClusterAccess, ConnectSpec};
use crate::status::{ConnectOutcome, SessionStatus};
use crate::workload::WorkloadRef;

pub mod core;
mod gate;
pub mod messages;
mod news;
pub(crate) mod reach;
mod wiring;

/// How often the clock on the wall is asked for the end of the credentials.
const LOOK_AT_THE_CLOCK: Duration = Duration::from_secs(20);
/// A reachable API server answers the first question within this time. What comes of it when it does not is the core's to
/// say.
const REACH_LIMIT: Duration = Duration::from_secs(20);

/// What a session is made from.
pub struct Ingredients {
    /// What was asked for, with the agent image filled in.
    pub spec: ConnectSpec,
    /// The agent image that the user named.
    pub named_image: Option<String>,
    /// How to reach the cluster.
    pub access: ClusterAccess,
    /// Whose it is.
    pub owner_uid: u32,
    /// Settings of the daemon.
    pub settings: Arc<Settings>,
    /// The device's name.
    pub device: String,
    /// Where status goes.
    pub status: watch::Sender<Arc<SessionStatus>>,
    /// Seconds since 1970 now.
    pub wall: fn() -> i64,
}

/// What every session takes from the daemon's configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// MTU of the device.
    pub mtu: u32,
    /// Preferred IPv4 range of virtual addresses.
    pub virtual_subnet: Cidr,
    /// How long a UDP association lives without a datagram.
    pub udp_idle: Duration,
    /// More suffixes that the cluster answers.
    pub include_suffixes: Vec<String>,
    /// Runtime directory.
    pub runtime_dir: std::path::PathBuf,
    /// State directory.
    pub state_dir: std::path::PathBuf,
    /// Where the host's resolver is configured (`/etc`).
    pub etc: std::path::PathBuf,
    /// Which connection edits `resolv.conf`.
    pub editor: FileEditor,
    /// What goes on after a connection.
    pub late: LateWork,
}

/// The children of one run.
struct Children {
    gate: Addr<Gate>,
    pod_watcher: Addr<PodWatcher>,
    client_list: Addr<ClientList>,
    agent_placer: Addr<AgentPlacer>,
    proxy_via: Addr<ProxyVia>,
    vif: Addr<Vif>,
    dns: Addr<Dns>,
    client: watch::Sender<kube::Client>,
    agent: Arc<Agent>,
}

/// The actor.
pub struct Session {
    driven: Driven<SessionCore>,
    ingredients: Ingredients,
    /// What Dns changes; held here too, so that a Dns that died does not take with it how to undo it.
    host: HostResolver,
    since: i64,
    /// Counts runs of the children, so that what an earlier run still sends is told apart.
    run: u64,
    children: Option<Children>,
    /// A question that came before there was a PodWatcher to ask.
    unresolved: Option<BTreeSet<WorkloadRef>>,
    replies: HashMap<ReplyId, Reply<Remains>>,
    next_reply: ReplyId,
    /// Who is asked for credentials; dropped with the session, which ends the keeper.
    keeper: Option<watch::Sender<Asking>>,
    last_keeper: KeeperId,
    /// Counts credentials that came, so that a client made of older ones is told apart.
    renewals: u64,
    /// How much may be logged of what changes.
    log: news::Budget,
}

impl Session {
    /// A session that begins when its actor starts.
    pub fn new(ingredients: Ingredients) -> Session {
        let (since, expires_at) = ((ingredients.wall)(), ingredients.access.expires_at);
        let core = SessionCore::new(ingredients.spec.clone(), expires_at)
            .naming_image(ingredients.named_image.clone())
            .lasting(lasts(expires_at, since), jitter());
        let Settings { runtime_dir, etc, editor, .. } = &*ingredients.settings;
        let host = HostResolver::new(etc, OsJournal::new(runtime_dir), editor.clone()).of(ingredients.owner_uid);
        Session {
            driven: Driven::new(core),
            ingredients,
            host,
            since,
            run: 0,
            children: None,
            unresolved: None,
            replies: HashMap::new(),
            next_reply: ReplyId(0),
            keeper: None,
            last_keeper: KeeperId(0),
            renewals: 0,
            log: news::Budget::default(),
        }
    }

    /// Credentials end by the clock on the wall, which goes on while the host sleeps, and may be set.
    fn look_at_the_clock(&mut self, ctx: &mut Context<Self>) {
        let wall = (self.ingredients.wall)();
        if let Some(left) = lasts(self.ingredients.access.expires_at, wall) {
            drive(self, Input::Left(left), ctx);
        }
    }

    fn publish(&mut self) {
        let wall = (self.ingredients.wall)();
        let mut news = Vec::new();
        self.ingredients.status.send_if_modified(|status| {
            let fresh = self.driven.core.status(status, now(), wall, self.since);
            if **status == fresh {
                return false;
            }
            news = news::between(status, &fresh);
            *status = Arc::new(fresh);
            true
        });
        let told = self.log.take(now(), news);
        told.news.iter().for_each(news::News::log);
        if told.first_left_out {
            warn!("much changes: the rest of this minute is not logged");
        }
    }

    fn start_children(&mut self, client: kube::Client, identity: &Identity, ctx: &mut Context<Self>) {
        let children = wiring::start(&self.ingredients, &self.host, identity, self.run, client.clone(), ctx);
        self.reach(client, ctx);
        if let Some(references) = self.unresolved.take() {
            self.resolve(&children, references, ctx);
        }
        self.children = Some(children);
    }

    fn reach(&self, client: kube::Client, ctx: &mut Context<Self>) {
        let (me, run) = (ctx.address(), self.run);
        let (access, namespace) = (self.ingredients.access.clone(), self.ingredients.spec.namespace.clone());
        let server = access.shown_server();
        let work = reach::reach(access, client, namespace, (self.ingredients.wall)());
        drop(spawn_reporting(work, REACH_LIMIT, move |result| {
            let result = result.unwrap_or_else(|failed| Err(reach::failed(&server, &failed)));
            me.do_send(OfRun { run, input: Input::Reached(result) });
        }));
    }

    fn resolve(&self, children: &Children, references: BTreeSet<WorkloadRef>, ctx: &mut Context<Self>) {
        let (reply, answer) = Reply::new();
        let default_namespace = self.ingredients.spec.namespace.as_str().into();
        children.pod_watcher.do_send(ResolveWorkloads { default_namespace, references, reply });
        let (me, run) = (ctx.address(), self.run);
        // PodWatcher asks until it has an answer; the connect's own deadline says how long `connect` waits for it.
        drop(spawn_reporting(answer, NO_LIMIT, move |result| match result {
            Ok(Ok(resolutions)) => me.do_send(OfRun { run, input: Input::Resolved(resolutions) }),
            // PodWatcher ended: its monitor tells.
            Ok(Err(_)) | Err(TaskFailed::TimedOut | TaskFailed::Aborted | TaskFailed::Panicked(_)) => {}
        }));
    }

    fn teardown(&mut self, step: TeardownStep, ctx: &mut Context<Self>) {
        let (me, run) = (ctx.address(), self.run);
        let done = move |left| me.do_send(OfRun { run, input: Input::StepDone(step, left) });
        let Some(children) = &self.children else {
            let left = Some(core::NOT_REMOVED.to_owned()).filter(|_| step == TeardownStep::RemoveAgents);
            return done(left.into_iter().collect());
        };
        let own = |children: &Children| Own {
            client: children.client.borrow().clone(),
            agent: Arc::clone(&children.agent),
            namespace: self.ingredients.spec.namespace.as_str().into(),
        };
        // A child that is no more answers nothing; what it had done is then undone here.
        let ended = match step {
            TeardownStep::RemoveAgents => {
                let (reply, answer) = Reply::new();
                children.agent_placer.do_send(RemoveAll { reply });
                return report(answer, own(children).remove(Vec::new()), done);
            }
            TeardownStep::StopPlacer => {
                let stopped = ask(&children.agent_placer, |reply| Stop { reply }).map_ok(|()| Vec::new());
                let own = self.driven.core.own_pod_never_worked().then(|| own(children));
                let withdrawn = async {
                    if let Some(own) = own {
                        own.withdraw().await;
                    }
                    Vec::new()
                };
                return report(stopped, withdrawn, done);
            }
            TeardownStep::RestoreDns => {
                let (reply, answer) = Reply::new();
                children.dns.do_send(Restore { reply });
                let host = self.host.clone();
                return report(answer, host.detach(), done);
            }
            TeardownStep::CloseVif => {
                let closed = ask(&children.vif, |reply| Close { reply }).map_ok(|()| Vec::new());
                let (name, ours) = (self.ingredients.device.clone(), self.driven.core.device());
                let gone = async move {
                    let gone = vif::gone(&name, ours).await;
                    gone.err().map(|error| format!("device {name}: {error}")).into_iter().collect()
                };
                return report(closed, gone, done);
            }
            TeardownStep::StopDataPlane => vec![ask(&children.vif, |reply| StopDataPlane { reply })],
            TeardownStep::HangUp => vec![ask(&children.client_list, |reply| HangUpAll { reply })],
            TeardownStep::StopWatching => vec![
                ask(&children.proxy_via, |reply| Stop { reply }),
                ask(&children.pod_watcher, |reply| Stop { reply }),
                ask(&children.dns, |reply| Stop { reply }),
                ask(&children.client_list, |reply| Stop { reply }),
            ],
        };
        spawn(async move {
            for answer in ended {
                // An actor that is gone has nothing left to do.
                drop(answer.await);
            }
            done(Vec::new());
        });
    }
}

/// The IPv6 range of virtual addresses: a unique local /64 (RFC 4193) that is the same for one user on every connect.
pub(crate) fn virtual_v6(uid: u32) -> Cidr {
    let hash = digest::sha256(format!("podway virtual range of {uid}").as_bytes());
    let mut octets = [0_u8; 16];
    octets.iter_mut().zip(&hash).take(8).for_each(|(octet, random)| *octet = *random);
    if let Some(first) = octets.first_mut() {
        *first = 0xfd;
    }
    Cidr::from(ipnet::Ipv6Net::new_assert(octets.into(), 64))
}

/// Where the virtual addresses of this user's connection to this cluster are remembered.
pub(crate) fn memory_path(settings: &Settings, access: &ClusterAccess, name: &str, uid: u32) -> std::path::PathBuf {
    let ClusterAccess { server, tls_server_name, .. } = access;
    // Several clusters may lie behind one URL.
    let named = tls_server_name.iter().map(|name| format!("\n{name}")).collect::<String>();
    let connection = format!("{server}\n{name}{named}");
    let name = digest::short_name(&connection);
    settings.state_dir.join("vips").join(format!("{uid}-{name}.json"))
}

fn vip_memory(ingredients: &Ingredients) -> std::path::PathBuf {
    let Ingredients { settings, access, spec, owner_uid, .. } = ingredients;
    memory_path(settings, access, &spec.name, *owner_uid)
}

/// Asks one child and gives the receiver of its answer.
fn ask<A, M>(child: &Addr<A>, message: impl FnOnce(Reply<()>) -> M) -> oneshot::Receiver<()>
where
    A: Actor<Context = Context<A>> + Handler<M>,
    M: actix::Message<Result = ()> + Send + 'static,
{
    let (reply, answer) = Reply::new();
    child.do_send(message(reply));
    answer
}

/// Tells what a child left; of a child that is no more, what is left after `instead`.
fn report<E: Send + 'static>(
    answer: impl Future<Output = Result<Vec<String>, E>> + Send + 'static,
    instead: impl Future<Output = Vec<String>> + Send + 'static,
    done: impl FnOnce(Vec<String>) + Send + 'static,
) {
    spawn(async move {
        let left = match answer.await {
            Ok(left) => left,
            Err(_) => instead.await,
        };
        done(left);
    });
}

impl Actor for Session {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        drive(self, Input::Begin, ctx);
        ctx.run_interval(LOOK_AT_THE_CLOCK, Session::look_at_the_clock);
    }
}

impl Shell for Session {
    type Core = SessionCore;

    fn driven(&mut self) -> &mut Driven<SessionCore> {
        &mut self.driven
    }

    fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::Start { left } => {
                if !left.is_empty() {
                    warn!(?left, "a run of this connection left something");
                }
                self.run += 1;
                let (me, run, access) = (ctx.address(), self.run, self.ingredients.access.clone());
                let server = access.shown_server();
                let (state_dir, uid) = (self.ingredients.settings.state_dir.clone(), self.ingredients.owner_uid);
                let work = async move {
                    let loading = blocking(move || Identity::load_or_create(&state_dir, uid));
                    let client = kube_client::client(&access).await.map_err(|error| reach::unusable(&error))?;
                    let identity = loading.await.map_err(|error| reach::keyless(&error))?;
                    Ok((client, identity.map_err(|error| reach::keyless(&error))?))
                };
                drop(spawn_reporting(work, REACH_LIMIT, move |result| {
                    let made = result.unwrap_or_else(|failed| Err(reach::failed(&server, &failed).error));
                    me.do_send(Made { run, made });
                }));
            }
            Effect::Reach => {
                debug!("the API server is asked again");
                // The core asks again only what children have asked.
                if let Some(children) = &self.children {
                    let client = children.client.borrow().clone();
                    self.reach(client, ctx);
                }
            }
            Effect::Resolve(references) => {
                let Some(children) = &self.children else {
                    self.unresolved = Some(references);
                    return;
                };
                self.resolve(children, references, ctx);
            }
            Effect::Select(selection) => {
                if let Some(children) = &self.children {
                    children.proxy_via.do_send(selection);
                }
            }
            Effect::Register(id, target, deadline) => {
                if let Some(children) = &self.children {
                    let to = children.gate.clone().recipient();
                    children.client_list.do_send(RegisterWaiter { id, target, deadline, to });
                }
            }
            Effect::Teardown(step) => {
                debug!(?step, "teardown");
                self.teardown(step, ctx);
            }
            Effect::DropChildren => self.children = None,
            Effect::Ask(ask) => {
                debug!(ask = %ask.id, "new credentials are wanted");
                if let Some(keeper) = &self.keeper {
                    keeper.send_replace(Asking::Wanted(ask));
                }
            }
            Effect::Publish => self.publish(),
            Effect::Answer(id, remains) => {
                if let Some(reply) = self.replies.remove(&id) {
                    reply.answer(remains);
                }
            }
            Effect::End => {
                match self.driven.core.outcome() {
                    Some(ConnectOutcome::Failed(error)) => {
                        warn!(
                            session = self.ingredients.spec.name,
                            why = error.message,
                            "the connection came to nothing"
                        );
                    }
                    Some(_) | None => info!(session = self.ingredients.spec.name, "the connection is over"),
                }
                stop(ctx);
            }
        }
    }
}

/// self → Session. The client for the API server and the user's key pair are there, or cannot be had.
struct Made {
    run: u64,
    made: Result<(kube::Client, Identity), UserError>,
}

/// self → Session. Fresh credentials came to a client, or to none.
struct ClientRenewed {
    /// Which.
    renewal: u64,
    ask: Option<AskId>,
    made: Result<(ClusterAccess, kube::Client), String>,
    taken: Reply<()>,
}

/// self → Session. A keeper went.
struct KeeperWent {
    keeper: KeeperId,
}

told!(Made, ClientRenewed, KeeperWent);

impl From<ChildExited> for Input {
    fn from(message: ChildExited) -> Input {
        let ChildExited { child, exit } = message;
        if let Exit::Panicked(why) = &exit {
            warn!(?child, why, "a child panicked");
        }
        Input::ChildExited(child, exit)
    }
}

impl From<RightsChanged> for Input {
    fn from(message: RightsChanged) -> Input {
        Input::Rights(message.generation, message.rights)
    }
}

impl From<WatchHealthChanged> for Input {
    fn from(message: WatchHealthChanged) -> Input {
        Input::Watch(message.generation, message.health)
    }
}

impl From<VifChanged> for Input {
    fn from(message: VifChanged) -> Input {
        Input::Vif(message.generation, message.state)
    }
}

impl From<DnsChanged> for Input {
    fn from(message: DnsChanged) -> Input {
        Input::Dns(message.generation, message.state)
    }
}

impl From<ViaChanged> for Input {
    fn from(message: ViaChanged) -> Input {
        Input::Via(message.generation, message.state)
    }
}

impl From<LinksChanged> for Input {
    fn from(message: LinksChanged) -> Input {
        Input::Links(message.generation, message.targets)
    }
}

impl From<WaiterSettled> for Input {
    fn from(message: WaiterSettled) -> Input {
        Input::Settled(message.id, message.outcome)
    }
}

impl From<FlowStats> for Input {
    fn from(message: FlowStats) -> Input {
        Input::Flows(message)
    }
}

/// A child or task of some run → Session. What an earlier run still sends is told apart by its number.
struct OfRun {
    run: u64,
    input: Input,
}

told!(OfRun);

impl Handler<OfRun> for Session {
    type Result = ();
    fn handle(&mut self, message: OfRun, ctx: &mut Context<Self>) {
        if message.run == self.run {
            drive(self, message.input, ctx);
        }
    }
}

impl Handler<Disconnect> for Session {
    type Result = ();
    fn handle(&mut self, message: Disconnect, ctx: &mut Context<Self>) {
        self.next_reply = self.next_reply.next();
        self.replies.insert(self.next_reply, message.reply);
        drive(self, Input::Disconnect { clean: message.clean, reply: self.next_reply }, ctx);
    }
}

impl Handler<Made> for Session {
    type Result = ();
    fn handle(&mut self, message: Made, ctx: &mut Context<Self>) {
        falls::at_message::<Self>("Made");
        // A session that was told to end meanwhile starts nothing.
        if message.run != self.run || !self.driven.core.is_running() {
            return;
        }
        match message.made {
            Ok((client, identity)) => self.start_children(client, &identity, ctx),
            // Nothing here asks the network: without a client or a key pair there are no children that could go on.
            Err(error) => drive(self, Input::Reached(Err(reach::definite(error))), ctx),
        }
    }
}

impl Handler<CredentialsRenewed> for Session {
    type Result = ();
    fn handle(&mut self, message: CredentialsRenewed, ctx: &mut Context<Self>) {
        falls::at_message::<Self>("CredentialsRenewed");
        let CredentialsRenewed { access, ask, taken } = message;
        if !self.driven.core.accepts(ask) {
            debug!(?ask, "credentials came too late: there are newer ones");
            return;
        }
        if ask.is_none() {
            // Whoever kept those before knows how to get the like of them, which may be another user's.
            if let Some(before) = self.keeper.take() {
                before.send_replace(Asking::Replaced);
            }
            drive(self, Input::RenewedByHand, ctx);
        }
        self.renewals += 1;
        let (me, renewal) = (ctx.address(), self.renewals);
        let work = async move { (kube_client::client(&access).await, access) };
        drop(spawn_reporting(work, REACH_LIMIT, move |result| {
            let made = match result {
                Ok((Ok(client), access)) => Ok((access, client)),
                Ok((Err(error), _)) => Err(format!("unusable: {}", chain(&error))),
                Err(failed) => Err(format!("they could not be taken up: {failed:?}")),
            };
            me.do_send(ClientRenewed { renewal, ask, made, taken });
        }));
    }
}

impl Handler<ClientRenewed> for Session {
    type Result = ();
    fn handle(&mut self, message: ClientRenewed, ctx: &mut Context<Self>) {
        falls::at_message::<Self>("ClientRenewed");
        let ClientRenewed { renewal, ask, made, taken } = message;
        if renewal != self.renewals {
            return;
        }
        match made {
            Ok((access, client)) => {
                if let Some(children) = &self.children {
                    children.client.send_replace(client.clone());
                    children.pod_watcher.do_send(UseClient { client });
                }
                let expires_at = access.expires_at;
                self.ingredients.access = access;
                info!("the credentials were renewed");
                let lasts = lasts(expires_at, (self.ingredients.wall)());
                drive(self, Input::Renewed { ask, expires_at, lasts }, ctx);
                taken.answer(());
            }
            Err(why) => {
                debug!(why, "renewed credentials are not used");
                drive(self, Input::NotRenewed(ask, why), ctx);
            }
        }
    }
}

impl Handler<CredentialsForgone> for Session {
    type Result = ();
    fn handle(&mut self, message: CredentialsForgone, ctx: &mut Context<Self>) {
        let CredentialsForgone { ask, why } = message;
        drive(self, Input::NotRenewed(Some(ask), why), ctx);
    }
}

impl Handler<KeeperCame> for Session {
    type Result = ();
    fn handle(&mut self, message: KeeperCame, ctx: &mut Context<Self>) {
        let KeeperCame { asking, gone } = message;
        self.last_keeper = self.last_keeper.next();
        let (me, keeper) = (ctx.address(), self.last_keeper);
        drop(spawn_reporting(gone, NO_LIMIT, move |_| me.do_send(KeeperWent { keeper })));
        if let Some(before) = self.keeper.replace(asking) {
            before.send_replace(Asking::Replaced);
        }
        drive(self, Input::KeeperCame(keeper), ctx);
    }
}

impl Handler<KeeperWent> for Session {
    type Result = ();
    fn handle(&mut self, message: KeeperWent, ctx: &mut Context<Self>) {
        drive(self, Input::KeeperWent(message.keeper), ctx);
    }
}

/// How long credentials last from `wall` on.
fn lasts(expires_at: Option<i64>, wall: i64) -> Option<Duration> {
    const LONGEST: u64 = 10 * 365 * 86_400;
    let left = |at: i64| u64::try_from(at.saturating_sub(wall)).unwrap_or(0).min(LONGEST);
    expires_at.map(|at| Duration::from_secs(left(at)))
}

#[cfg(test)]
mod panic_tests;
