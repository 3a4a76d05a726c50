//! Daemon: the root. Owns one Session for each named connection; sessions share nothing but who edits `resolv.conf`.
//!
//! Answers Control. A connect of a name that exists is idempotent when equal and refused with the difference when not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext as _, Context, Handler, Message};
use podway_tunnel::heap;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{error, info};

use self::cluster::Cluster;
use self::core::{DaemonCore, Effect, Input, may_see};
use self::messages::{
    Caller, CloseSession, Closed, ForgoCredentials, KeepCredentials, ListSessions, OpenSession, Opened, PlanSession,
    RenewCredentials, SessionEnded, SessionView, Shutdown,
};
use crate::actors::agent_placer::manifest::of_public_key;
use crate::actors::falls;
use crate::actors::planner::Planner;
use crate::actors::session::core::NOT_REMOVED;
use crate::actors::session::messages::{CredentialsForgone, CredentialsRenewed, Disconnect, Remains};
use crate::actors::session::{Ingredients, Session, Settings};
use crate::actors::shell::{Driven, Exit, Reply, Shell, drive, start_monitored, told};
use crate::error::{Reason, UserError};
use crate::identity::Identity;
use crate::ids::ReplyId;
use crate::logs::layer::session_span;
use crate::net::descriptors;
use crate::net::tun::link_exists;
use crate::places::{self, Notes, Place};
use crate::spec::ConnectSpec;
use crate::status::{Phase, SessionStatus};

pub mod cluster;
pub mod core;
pub mod messages;

/// Dry runs at once, of one user and in all.
const PLANS_PER_USER: usize = 4;
const PLANS: usize = 16;

/// When the memory of a connection is given back to the host after its end.
const GIVE_BACK_AFTER: Duration = Duration::from_secs(1);

/// The actor.
pub struct Daemon {
    driven: Driven<DaemonCore>,
    settings: Arc<Settings>,
    /// Where users have connections: a hint, for which nothing waits.
    notes: Notes,
    agent_image: String,
    wall: fn() -> i64,
    sessions: BTreeMap<Arc<str>, Running>,
    /// Requests that are not decided.
    asked: BTreeMap<ReplyId, Asked>,
    closes: BTreeMap<ReplyId, Closing>,
    next_reply: ReplyId,
    /// Whose dry runs are under way.
    plans: Vec<u32>,
    on_end: Option<Reply<()>>,
    when_empty: Vec<Reply<()>>,
}

/// A connection that is asked for.
struct Asked {
    open: OpenSession,
    /// The agent image that the user named.
    named_image: Option<String>,
    /// What it shows, from here on.
    status: watch::Sender<Arc<SessionStatus>>,
}

/// An end that is asked for.
struct Closing {
    clean: bool,
    uid: u32,
    reply: Reply<Result<Closed, UserError>>,
}

/// Credentials of a connection that is there are taken up within this time, or it is answered as it is.
const TAKEN_WITHIN: Duration = Duration::from_secs(1);

/// One connection.
struct Running {
    owner_uid: u32,
    place: Place,
    device: String,
    address: Addr<Session>,
    status: watch::Receiver<Arc<SessionStatus>>,
}

impl Daemon {
    /// A daemon without connections. `wall` gives seconds since 1970; `on_end` is answered if the daemon itself dies.
    pub fn new(settings: Settings, agent_image: String, wall: fn() -> i64, on_end: Reply<()>) -> Daemon {
        Daemon {
            driven: Driven::new(DaemonCore::new()),
            notes: Notes::new(&settings.state_dir),
            settings: Arc::new(settings),
            agent_image,
            wall,
            sessions: BTreeMap::new(),
            asked: BTreeMap::new(),
            closes: BTreeMap::new(),
            next_reply: ReplyId(0),
            plans: Vec::new(),
            on_end: Some(on_end),
            when_empty: Vec::new(),
        }
    }

    fn next_reply(&mut self) -> ReplyId {
        self.next_reply = self.next_reply.next();
        self.next_reply
    }

    /// Looks at what may have changed without a message: what connections show, and who still waits.
    fn look(&mut self, ctx: &mut Context<Self>) {
        let ending = self.sessions.iter().filter(|(_, running)| running.is_ending());
        let ending: BTreeSet<Arc<str>> = ending.map(|(name, _)| Arc::clone(name)).collect();
        // No longer waited for are those first: an end may let others go on.
        let gone = self.asked.iter().filter(|(_, asked)| asked.open.reply.is_closed());
        for ask in Vec::from_iter(gone.map(|(ask, _)| *ask)) {
            drive(self, Input::Abandoned(ask), ctx);
        }
        drive(self, Input::Ending(ending), ctx);
    }

    fn initial(&self, open: &OpenSession) -> SessionStatus {
        SessionStatus {
            name: open.spec.name.clone(),
            context: open.spec.context.clone(),
            server: open.access.shown_server(),
            namespace: open.spec.namespace.clone(),
            owner_uid: open.caller.uid,
            since: (self.wall)(),
            ..SessionStatus::default()
        }
    }

    fn start_session(&mut self, asked: Asked, ctx: &mut Context<Self>) {
        let Asked { open: OpenSession { caller, spec, access, reply }, named_image, status } = asked;
        let name: Arc<str> = spec.name.as_str().into();
        if let Some(error) = descriptors::too_few() {
            reply.answer(Err(error));
            // It was started as far as the core knows.
            return ctx.address().do_send(SessionEnded { name, exit: Exit::Stopped });
        }
        let place = place_of(&spec);
        self.notes.add(caller.uid, place.clone());
        let device = self.free_device(link_exists);
        let status_rx = status.subscribe();
        let span = session_span(&name, caller.uid);
        span.in_scope(|| info!(server = access.shown_server(), "connecting"));
        let session = Session::new(Ingredients {
            spec,
            named_image,
            access,
            owner_uid: caller.uid,
            settings: Arc::clone(&self.settings),
            device: device.clone(),
            status,
            wall: self.wall,
        });
        let (me, ended) = (ctx.address(), Arc::clone(&name));
        let context = Context::new();
        let address = context.address();
        span.in_scope(|| start_monitored(session, context, move |exit| me.do_send(SessionEnded { name: ended, exit })));
        let running = Running { owner_uid: caller.uid, place, device, address, status: status_rx };
        reply.answer(Ok(Opened { view: running.view(&name), existed: false }));
        self.sessions.insert(name, running);
    }

    /// Each plan watches a cluster for as long as it is made.
    fn too_many_plans(&self, uid: u32) -> Option<UserError> {
        let of_user = self.plans.iter().filter(|of| **of == uid).count();
        (of_user >= PLANS_PER_USER || self.plans.len() >= PLANS).then(|| {
            let message = format!("connect: {of_user} dry runs of yours are under way, of {} in all", self.plans.len());
            UserError::new(Reason::LimitReached, message, "wait for their end, then try again")
        })
    }

    fn refuse(&mut self, ask: ReplyId, refusal: UserError) {
        if let Some(asked) = self.asked.remove(&ask) {
            return asked.open.reply.answer(Err(refusal));
        }
        let Some(Closing { clean, uid, reply }) = self.closes.remove(&ask) else { return };
        if clean && refusal.reason == Reason::NotConnected {
            let state_dir = self.settings.state_dir.clone();
            drop(tokio::task::spawn_blocking(move || reply.answer(Err(by_hand(refusal, &state_dir, uid)))));
        } else {
            reply.answer(Err(refusal));
        }
    }

    fn disconnect(&mut self, ask: ReplyId, name: Arc<str>) {
        let (Some(Closing { clean, reply, .. }), Some(running)) = (self.closes.remove(&ask), self.sessions.get(&name))
        else {
            return;
        };
        let (remains, answer) = Reply::new();
        running.address.do_send(Disconnect { clean, reply: remains });
        let (notes, uid, place) = (self.notes.clone(), running.owner_uid, running.place.clone());
        let asked = notes.moment();
        tokio::spawn(async move {
            // A session that is no more answers nothing.
            let remains = answer.await.unwrap_or_else(|_| unasked(clean));
            if clean && remains.left.is_empty() {
                // A hint: where it cannot be written, more is told than is left.
                notes.remove(uid, place, asked);
            }
            reply.answer(Ok(Closed { name: name.to_string(), remains }));
        });
    }

    /// The first device that no connection has, nor this host for others (`exists`): another podwayd may have made it.
    fn free_device(&self, exists: fn(&str) -> bool) -> String {
        let taken: BTreeSet<&str> = self.sessions.values().map(|running| &*running.device).collect();
        let mut names = (0..u16::MAX).map(|number| format!("podway{number}"));
        names.find(|name| !taken.contains(&**name) && !exists(name)).unwrap_or_default()
    }

    /// Tells the connection of this name, where it runs.
    fn tell<M>(&self, name: &str, message: M)
    where
        M: Message<Result = ()> + Send + 'static,
        Session: Handler<M>,
    {
        if let Some(running) = self.sessions.get(name) {
            running.address.do_send(message);
        }
    }

    /// The connections that a caller may see, those that wait among them, by name.
    fn views(&self, caller: Caller) -> BTreeMap<Arc<str>, SessionView> {
        let running = self.sessions.iter().filter(|(_, running)| may_see(caller, running.owner_uid));
        let running = running.map(|(name, running)| running.view(name));
        let waiting =
            self.asked.values().filter(|asked| may_see(caller, asked.open.caller.uid) && !asked.open.reply.is_closed());
        // Of one that waits for an earlier one of its name, the earlier one is shown.
        let all = waiting.map(Asked::view).chain(running);
        all.map(|view| (Arc::clone(&view.name), view)).collect()
    }
}

impl Shell for Daemon {
    type Core = DaemonCore;

    fn driven(&mut self) -> &mut Driven<DaemonCore> {
        &mut self.driven
    }

    fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::Start(ask) => {
                if let Some(asked) = self.asked.remove(&ask) {
                    self.start_session(asked, ctx);
                }
            }
            Effect::Found(ask, name) => {
                let (Some(asked), Some(running)) = (self.asked.remove(&ask), self.sessions.get(&name)) else { return };
                // Connecting again is how a user renews credentials that have ended.
                let (taken, was_taken) = Reply::new();
                running.address.do_send(CredentialsRenewed { access: asked.open.access, ask: None, taken });
                let view = running.view(&name);
                tokio::spawn(async move {
                    // What is told of the former credentials is over then. A session that is going takes none.
                    let _ = timeout(TAKEN_WITHIN, was_taken).await;
                    asked.open.reply.answer(Ok(Opened { view, existed: true }));
                });
            }
            Effect::Refuse(ask, refusal) => self.refuse(ask, refusal),
            // Dropping a request answers it.
            Effect::Forget(ask) => drop(self.asked.remove(&ask)),
            Effect::Disconnect(ask, name) => self.disconnect(ask, name),
            Effect::Withdrawn(ask, name) => {
                if let Some(Closing { clean, reply, .. }) = self.closes.remove(&ask) {
                    reply.answer(Ok(Closed { name: name.to_string(), remains: unasked(clean) }));
                }
            }
            Effect::End(name) => {
                if let Some(running) = self.sessions.get(&name) {
                    let (reply, _) = Reply::new();
                    running.address.do_send(Disconnect { clean: false, reply });
                }
            }
            Effect::Empty => self.when_empty.drain(..).for_each(|reply| reply.answer(())),
        }
    }
}

impl Asked {
    fn view(&self) -> SessionView {
        let OpenSession { caller, spec, .. } = &self.open;
        SessionView { name: spec.name.as_str().into(), owner_uid: caller.uid, status: self.status.subscribe() }
    }
}

impl Running {
    fn is_ending(&self) -> bool {
        matches!(self.status.borrow().phase, Phase::Disconnecting | Phase::Disconnected)
    }

    fn view(&self, name: &Arc<str>) -> SessionView {
        SessionView { name: Arc::clone(name), owner_uid: self.owner_uid, status: self.status.clone() }
    }
}

/// What is left where no session was asked.
fn unasked(clean: bool) -> Remains {
    let left = clean.then(|| NOT_REMOVED.to_owned()).into_iter().collect();
    Remains { left, ..Remains::default() }
}

/// The refusal of a `--clean` without a connection, with how to remove what earlier ones of this user left. Blocks.
fn by_hand(refusal: UserError, state_dir: &Path, uid: u32) -> UserError {
    // Without a key pair there never was an agent.
    let Some(identity) = Identity::load(state_dir, uid) else { return refusal };
    let label = of_public_key(&identity.public);
    let places = places::load(state_dir, uid);
    let lines: Vec<String> = places.iter().map(|at| format!("{} delete jobs,pods -l {label}", at.kubectl())).collect();
    let hint = match lines.as_slice() {
        [] => format!("kubectl get jobs,pods -A -l {label} shows what is left of earlier connections, if anything is"),
        lines => {
            format!("{} removes what is left; so does to connect again and end that with --clean", lines.join("; "))
        }
    };
    UserError { hint, ..refusal }
}

fn place_of(spec: &ConnectSpec) -> Place {
    Place { context: spec.context.clone(), namespace: spec.namespace.clone() }
}

impl Actor for Daemon {
    type Context = Context<Self>;
}

impl Handler<OpenSession> for Daemon {
    type Result = ();
    fn handle(&mut self, mut open: OpenSession, ctx: &mut Context<Self>) {
        falls::at_message::<Self>("OpenSession");
        self.look(ctx);
        let status = watch::Sender::new(Arc::new(self.initial(&open)));
        let named_image = Some(open.spec.agent_image.clone()).filter(|image| !image.is_empty());
        open.spec.agent_image = named_image.clone().unwrap_or_else(|| self.agent_image.clone());
        let (ask, caller, spec, cluster) =
            (self.next_reply(), open.caller, Box::new(open.spec.clone()), Cluster::of(&open.access));
        self.asked.insert(ask, Asked { open, named_image, status });
        drive(self, Input::Open { ask, caller, spec, cluster }, ctx);
    }
}

impl Handler<PlanSession> for Daemon {
    type Result = ();
    fn handle(&mut self, mut message: PlanSession, ctx: &mut Context<Self>) {
        falls::at_message::<Self>("PlanSession");
        if message.spec.agent_image.is_empty() {
            message.spec.agent_image.clone_from(&self.agent_image);
        }
        self.look(ctx);
        let cluster = Cluster::of(&message.access);
        if let Err(refusal) = self.driven.core.would_be_new(message.caller, &message.spec, cluster) {
            return message.reply.answer(Err(refusal));
        }
        let uid = message.caller.uid;
        if let Some(refusal) = self.too_many_plans(uid).or_else(descriptors::too_few) {
            return message.reply.answer(Err(refusal));
        }
        let span = session_span(&message.spec.name, uid);
        let planner = Planner::new(message, self.free_device(link_exists), Arc::clone(&self.settings), self.wall);
        self.plans.push(uid);
        let me = ctx.address();
        // One that panics answers nothing, which its asker is told.
        span.in_scope(|| start_monitored(planner, Context::new(), move |_| me.do_send(PlanEnded { uid })));
    }
}

/// A planner → Daemon. It has ended.
struct PlanEnded {
    uid: u32,
}

told!(PlanEnded);

impl Handler<PlanEnded> for Daemon {
    type Result = ();
    fn handle(&mut self, PlanEnded { uid }: PlanEnded, _: &mut Context<Self>) {
        falls::at_message::<Self>("PlanEnded");
        if let Some(at) = self.plans.iter().position(|of| *of == uid) {
            self.plans.swap_remove(at);
        }
    }
}

impl Handler<CloseSession> for Daemon {
    type Result = ();
    fn handle(&mut self, message: CloseSession, ctx: &mut Context<Self>) {
        falls::at_message::<Self>("CloseSession");
        self.look(ctx);
        let CloseSession { caller, name, clean, reply } = message;
        let ask = self.next_reply();
        self.closes.insert(ask, Closing { clean, uid: caller.uid, reply });
        drive(self, Input::Close { ask, caller, name }, ctx);
    }
}

impl Handler<ListSessions> for Daemon {
    type Result = ();
    fn handle(&mut self, message: ListSessions, _: &mut Context<Self>) {
        falls::at_message::<Self>("ListSessions");
        message.reply.answer(self.views(message.caller).into_values().collect());
    }
}

impl Handler<RenewCredentials> for Daemon {
    type Result = ();
    fn handle(&mut self, message: RenewCredentials, _: &mut Context<Self>) {
        falls::at_message::<Self>("RenewCredentials");
        let RenewCredentials { caller, name, access, ask, reply } = message;
        let found = self.driven.core.renewable(caller, &name, &Cluster::of(&access));
        let (taken, _) = Reply::new();
        reply.answer(found.map(|name| self.tell(&name, CredentialsRenewed { access, ask, taken })));
    }
}

impl Handler<ForgoCredentials> for Daemon {
    type Result = ();
    fn handle(&mut self, message: ForgoCredentials, _: &mut Context<Self>) {
        falls::at_message::<Self>("ForgoCredentials");
        let ForgoCredentials { caller, name, ask, why, reply } = message;
        let found = self.driven.core.running(caller, &name);
        reply.answer(found.map(|name| self.tell(&name, CredentialsForgone { ask, why })));
    }
}

impl Handler<KeepCredentials> for Daemon {
    type Result = ();
    fn handle(&mut self, message: KeepCredentials, _: &mut Context<Self>) {
        falls::at_message::<Self>("KeepCredentials");
        let KeepCredentials { caller, name, keeper, reply } = message;
        let found = self.driven.core.running(caller, &name);
        reply.answer(found.map(|name| self.tell(&name, keeper)));
    }
}

impl Handler<SessionEnded> for Daemon {
    type Result = ();
    fn handle(&mut self, message: SessionEnded, ctx: &mut Context<Self>) {
        falls::at_message::<Self>("SessionEnded");
        self.look(ctx);
        let over = self.sessions.remove(&message.name);
        if let Exit::Panicked(why) = &message.exit {
            let owner_uid = over.as_ref().map(|running| running.owner_uid);
            error!(session = %message.name, uid = owner_uid, why, "a session panicked");
            // Its children are without a parent: let systemd start the daemon anew.
            if let Some(on_end) = self.on_end.take() {
                on_end.answer(());
            }
        }
        // Its data plane, which did so in pauses, is no more; its tasks go a little later than its actors.
        tokio::spawn(async {
            tokio::time::sleep(GIVE_BACK_AFTER).await;
            drop(tokio::task::spawn_blocking(heap::give_back));
        });
        drive(self, Input::Ended(message.name), ctx);
    }
}

impl Handler<Shutdown> for Daemon {
    type Result = ();
    fn handle(&mut self, message: Shutdown, ctx: &mut Context<Self>) {
        self.when_empty.push(message.reply);
        drive(self, Input::Shutdown, ctx);
    }
}

#[cfg(test)]
mod tests;
