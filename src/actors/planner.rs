//! Planner: what connecting would change, for `podway connect --dry-run`. It asks and reads, and changes nothing.
//!
//! ```text
//!   Daemon ─▶ Planner ─ starts ─▶ PodWatcher ─ facts ─▶ Planner ─ reply ─▶ whoever asked
//! ```
//!
//! It starts of a connection's parts PodWatcher alone, which only reads, and feeds what is told to the cores of ProxyVia
//! and AgentPlacer in [`core`]. Without a key pair of the user's one is made up, as there can be no agent of theirs then.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext as _, Context, Handler};

use self::core::{Facts, Wanted};
use crate::actors::agent_placer::core::Plan;
use crate::actors::daemon::messages::PlanSession;
use crate::actors::falls;
use crate::actors::pod_watcher::messages::{
    ClusterInfoChanged, PodsChanged, RecordsChanged, ResolveWorkloads, RightsChanged, Watch, WatchHealthChanged,
};
use crate::actors::pod_watcher::{self, PodWatcher};
use crate::actors::proxy_via::core::ProxyViaConfig;
use crate::actors::session::{Settings, memory_path, reach, virtual_v6};
use crate::actors::shell::{
    Exit, NO_LIMIT, Reply, Stop, Tasks, blocking, spawn_reporting, start_monitored, stop, told,
};
use crate::actors::vif::feeds::host_now;
use crate::error::{Reason, UserError, chain};
use crate::identity::Identity;
use crate::net::kube_client;
use crate::net::os_journal::OsJournal;
use crate::net::resolver::Outlook;
use crate::net::resolver::host::HostResolver;
use crate::net::tun;
use crate::net::vip::memory::VipMemory;
use crate::plan::ConnectPlan;
use crate::spec::ClusterAccess;

pub mod core;

/// The most that a plan may take, whatever its asker says.
const PLAN_LIMIT: Duration = Duration::from_secs(600);
/// How often it is looked whether the asker is still there.
const LOOK: Duration = Duration::from_millis(500);
/// How long the first answer of the API server may take.
const REACH_LIMIT: Duration = Duration::from_secs(20);

/// The actor of one plan.
pub struct Planner {
    wanted: Wanted,
    access: ClusterAccess,
    owner_uid: u32,
    settings: Arc<Settings>,
    wall: fn() -> i64,
    facts: Facts,
    watcher: Option<Addr<PodWatcher>>,
    tasks: Tasks,
    reply: Option<Reply<Result<Box<ConnectPlan>, UserError>>>,
}

/// Something that was found out; tasks → Planner.
struct Learned(Box<Learning>);

type Learning = dyn FnOnce(&mut Planner, &mut Context<Planner>) + Send;

told!(Learned);

impl Planner {
    /// Plans what `asked` asks for, with the device `device`. It begins when the actor starts, and ends with an answer.
    pub fn new(asked: PlanSession, device: String, settings: Arc<Settings>, wall: fn() -> i64) -> Planner {
        let PlanSession { caller, spec, access, reply } = asked;
        let config = ProxyViaConfig { virtual_v4: settings.virtual_subnet, virtual_v6: virtual_v6(caller.uid) };
        Planner {
            wanted: Wanted { spec, server: access.shown_server(), device, config },
            access,
            owner_uid: caller.uid,
            settings,
            wall,
            facts: Facts::default(),
            watcher: None,
            tasks: Tasks::default(),
            reply: Some(reply),
        }
    }

    /// Runs `work` beside the actor, and has `learn` take in what came of it.
    fn find_out<T: Send + 'static>(
        &mut self,
        work: impl Future<Output = T> + Send + 'static,
        learn: impl FnOnce(&mut Planner, T, &mut Context<Planner>) + Send + 'static,
        ctx: &Context<Planner>,
    ) {
        let me = ctx.address();
        self.tasks.keep(spawn_reporting(work, REACH_LIMIT, move |result| {
            me.do_send(Learned(Box::new(move |planner, ctx| match result {
                Ok(found) => learn(planner, found, ctx),
                Err(failed) => planner.end(Err(reach::failed(&planner.access.shown_server(), &failed).error), ctx),
            })));
        }));
    }

    /// Recomputes whether there is enough for an answer.
    fn review(&mut self, ctx: &mut Context<Planner>) {
        if self.reply.as_ref().is_none_or(Reply::is_closed) {
            return self.end(Err(self.facts.late(&self.wanted)), ctx);
        }
        if let Some(outcome) = self.facts.outcome(&self.wanted) {
            self.end(outcome, ctx);
        }
    }

    fn end(&mut self, outcome: Result<ConnectPlan, UserError>, ctx: &mut Context<Planner>) {
        if let Some(reply) = self.reply.take() {
            reply.answer(outcome.map(Box::new));
        }
        self.tasks.end();
        if let Some(watcher) = self.watcher.take() {
            let (reply, _) = Reply::new();
            watcher.do_send(Stop { reply });
        }
        stop(ctx);
    }

    fn watch(&mut self, client: kube::Client, ctx: &mut Context<Planner>) {
        let me = ctx.address();
        let edges = pod_watcher::Edges {
            client_list: me.clone().recipient(),
            agent_placer: me.clone().recipient(),
            info: vec![me.clone().recipient()],
            records: me.clone().recipient(),
            rights: vec![me.clone().recipient()],
            health: me.clone().recipient(),
        };
        let context = Context::new();
        let watcher: Addr<PodWatcher> = context.address();
        start_monitored(PodWatcher::new(client.clone(), edges), context, move |exit| {
            let why = match exit {
                Exit::Stopped => return,
                Exit::Panicked(why) => UserError::new(Reason::Internal, format!("connect: {why}"), ""),
            };
            me.do_send(Learned(Box::new(move |planner, ctx| planner.end(Err(why), ctx))));
        });
        let spec = &self.wanted.spec;
        let own = Arc::<str>::from(spec.namespace.as_str());
        let named = spec.proxy_via.iter().filter_map(|rule| rule.workload.namespace.as_deref());
        let namespaces = named.map(Arc::from).chain([Arc::clone(&own)]).collect();
        watcher.do_send(Watch { namespaces });
        let references: BTreeSet<_> = spec.proxy_via.iter().map(|rule| rule.workload.clone()).collect();
        if !references.is_empty() {
            let (reply, answer) = Reply::new();
            watcher.do_send(ResolveWorkloads { default_namespace: own, references, reply });
            let me = ctx.address();
            self.tasks.keep(spawn_reporting(answer, NO_LIMIT, move |result| {
                // A watcher that ended answers nothing, and its monitor tells.
                if let Ok(Ok(resolutions)) = result {
                    me.do_send(Learned(Box::new(move |planner, ctx| {
                        planner.facts.resolutions = Some(resolutions);
                        planner.review(ctx);
                    })));
                }
            }));
        }
        self.watcher = Some(watcher);
        let reaching = reach::reach(self.access.clone(), client, self.wanted.spec.namespace.clone(), (self.wall)());
        self.find_out(
            reaching,
            |planner, reached, ctx| match reached {
                Ok(addresses) => {
                    planner.facts.api_server = Some(addresses);
                    planner.review(ctx);
                }
                Err(unreached) => planner.end(Err(unreached.error), ctx),
            },
            ctx,
        );
    }
}

impl Actor for Planner {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let spec = &self.wanted.spec;
        ctx.run_later(Duration::from_millis(spec.timeout_ms).min(PLAN_LIMIT), |planner, ctx| {
            let late = planner.facts.late(&planner.wanted);
            planner.end(Err(late), ctx);
        });
        ctx.run_interval(LOOK, Planner::review);
        let (access, image) = (self.access.clone(), spec.agent_image.clone());
        let (mode, namespace) = (spec.agent, Arc::<str>::from(spec.namespace.as_str()));
        let path = memory_path(&self.settings, &self.access, &spec.name, self.owner_uid);
        let (state_dir, uid, wall) = (self.settings.state_dir.clone(), self.owner_uid, self.wall);
        let own = async move {
            let read = blocking(move || {
                let now = u64::try_from(wall()).unwrap_or_default();
                let identity = Identity::load(&state_dir, uid).map_or_else(Identity::made_up, Ok);
                (identity, VipMemory::load(&path, now).unwrap_or_default())
            });
            let client = kube_client::client(&access).await.map_err(|error| reach::unusable(&error))?;
            let (identity, memory) = read.await.map_err(|error| reach::keyless(&error))?;
            let identity = identity.map_err(|error| reach::keyless(&error))?;
            let (fingerprint, first_port) = identity.fingerprint(&image);
            let plan = Plan { key: identity.public, fingerprint: fingerprint.into(), first_port, namespace, mode };
            Ok::<_, UserError>((client, plan, memory))
        };
        self.find_out(
            own,
            |planner, found, ctx| match found {
                Ok((client, plan, memory)) => {
                    (planner.facts.agents, planner.facts.memory) = (Some(plan), Some(memory));
                    planner.watch(client, ctx);
                }
                Err(error) => planner.end(Err(error), ctx),
            },
            ctx,
        );

        let (etc, device) = (self.settings.etc.clone(), self.wanted.device.clone());
        self.find_out(
            async move { host_now(&etc, &device).await },
            |planner, facts, ctx| match facts {
                Ok(facts) => {
                    planner.facts.host = Some(Arc::new(facts));
                    planner.review(ctx);
                }
                Err(error) => {
                    let message = format!("this host's network cannot be read: {error}");
                    planner.end(Err(UserError::new(Reason::DeviceFailed, message, "")), ctx);
                }
            },
            ctx,
        );

        self.find_out(
            blocking(tun::foresee),
            |planner, foreseen, ctx| {
                // A look that panicked says nothing of the device.
                planner.facts.device = Some(foreseen.unwrap_or(Ok(())).map_err(|error| chain(&error)));
                planner.review(ctx);
            },
            ctx,
        );

        let Settings { runtime_dir, etc, editor, .. } = &*self.settings;
        let host = HostResolver::new(etc, OsJournal::new(runtime_dir), editor.clone()).of(self.owner_uid);
        let mode = self.wanted.spec.dns;
        self.find_out(
            async move { host.foresee(mode).await },
            |planner, foreseen, ctx| {
                planner.facts.dns = Some(match foreseen {
                    Ok(attached) => (attached.backend.to_string(), attached.message),
                    Err(failed) => {
                        let hopeless = failed.outlook == Outlook::Hopeless;
                        planner.facts.dns_refused = hopeless.then(|| failed.message.clone());
                        ("off".to_owned(), failed.message)
                    }
                });
                planner.review(ctx);
            },
            ctx,
        );
    }
}

impl Handler<Learned> for Planner {
    type Result = ();
    fn handle(&mut self, Learned(learn): Learned, ctx: &mut Context<Self>) {
        falls::at_message::<Self>("Learned");
        learn(self, ctx);
    }
}

impl Handler<PodsChanged> for Planner {
    type Result = ();
    fn handle(&mut self, message: PodsChanged, ctx: &mut Context<Self>) {
        falls::at_message::<Self>("PodsChanged");
        self.facts.pods = Some(message.pods);
        self.review(ctx);
    }
}

impl Handler<ClusterInfoChanged> for Planner {
    type Result = ();
    fn handle(&mut self, message: ClusterInfoChanged, ctx: &mut Context<Self>) {
        falls::at_message::<Self>("ClusterInfoChanged");
        self.facts.info = Some(message.info);
        self.review(ctx);
    }
}

impl Handler<RightsChanged> for Planner {
    type Result = ();
    fn handle(&mut self, message: RightsChanged, ctx: &mut Context<Self>) {
        falls::at_message::<Self>("RightsChanged");
        self.facts.rights = Some(message.rights);
        self.review(ctx);
    }
}

impl Handler<WatchHealthChanged> for Planner {
    type Result = ();
    fn handle(&mut self, message: WatchHealthChanged, ctx: &mut Context<Self>) {
        falls::at_message::<Self>("WatchHealthChanged");
        self.facts.watch = Some(message.health);
        self.review(ctx);
    }
}

impl Handler<RecordsChanged> for Planner {
    type Result = ();
    // Names are not planned one by one.
    fn handle(&mut self, _: RecordsChanged, _: &mut Context<Self>) {}
}
