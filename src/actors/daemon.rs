//! Daemon: the root. Owns one Session for each named connection; sessions share nothing but who edits `resolv.conf`.
//!
//! Answers Control. A connect of a name that exists is idempotent when equal and refused with the difference when not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext as _, Context, Handler};
use tokio::sync::watch;
use tracing::{error, info};

use self::messages::{
    Caller, CloseSession, Closed, ForgoCredentials, KeepCredentials, ListSessions, OpenSession, Opened, PlanSession,
    RenewCredentials, SessionEnded, SessionView, Shutdown, not_found,
};
use crate::actors::agent_placer::manifest::of_public_key;
use crate::actors::planner::Planner;
use crate::actors::session::core::NOT_REMOVED;
use crate::actors::session::messages::{CredentialsForgone, CredentialsRenewed, Disconnect, Remains};
use crate::actors::session::{Ingredients, Session, Settings};
use crate::actors::shell::{Exit, Reply, start_monitored};
use crate::error::{Reason, UserError};
use crate::identity::Identity;
use crate::logs::layer::session_span;
use crate::net::descriptors;
use crate::net::tun::link_exists;
use crate::spec::{ClusterAccess, ConnectSpec};
use crate::status::{Phase, SessionStatus};

pub mod messages;

/// A user who needs more connections at once than this is looping.
const SESSIONS_PER_USER: usize = 16;

/// Requests that wait for a connection to be over: for as long as its teardown takes, and no longer than their own time.
const HELD: usize = 64;

/// The actor.
pub struct Daemon {
    settings: Arc<Settings>,
    agent_image: String,
    wall: fn() -> i64,
    sessions: BTreeMap<Arc<str>, Running>,
    /// Requests for what a connection that is being ended still has; looked at again whenever one is over.
    held: Vec<Asked>,
    /// Tells requests that were held apart.
    held_ever: u64,
    on_end: Option<Reply<()>>,
    when_empty: Vec<Reply<()>>,
}

/// A connection that is asked for.
struct Asked {
    /// Its number, once it is held.
    held: Option<u64>,
    open: OpenSession,
    /// What it shows, from here on.
    status: watch::Sender<Arc<SessionStatus>>,
}

/// One connection.
struct Running {
    spec: ConnectSpec,
    cluster: Cluster,
    owner_uid: u32,
    device: String,
    address: Addr<Session>,
    status: watch::Receiver<Arc<SessionStatus>>,
}

impl Daemon {
    /// A daemon without connections. `wall` gives seconds since 1970; `on_end` is answered if the daemon itself dies.
    pub fn new(settings: Settings, agent_image: String, wall: fn() -> i64, on_end: Reply<()>) -> Daemon {
        Daemon {
            settings: Arc::new(settings),
            agent_image,
            wall,
            sessions: BTreeMap::new(),
            held: Vec::new(),
            held_ever: 0,
            on_end: Some(on_end),
            when_empty: Vec::new(),
        }
    }

    /// Whether a connection that is being ended has the name or the cluster that is asked for.
    fn waits_for_an_end(&self, asked: &OpenSession) -> bool {
        // A name that is taken is refused or found at once: no end elsewhere changes that.
        if self.sessions.get(asked.spec.name.as_str()).is_some_and(|running| !running.is_ending()) {
            return false;
        }
        let cluster = Cluster::of(&asked.access);
        self.sessions.iter().any(|(name, running)| {
            let own_name = **name == *asked.spec.name && running.owner_uid == asked.caller.uid;
            running.is_ending() && (own_name || same_cluster(&running.cluster, &cluster))
        })
    }

    /// What a caller asked for that waits; not what its asker gave up.
    fn waiting(&self, caller: Caller) -> impl Iterator<Item = &Asked> {
        self.held.iter().filter(move |asked| asked.visible_to(caller) && !asked.open.reply.is_closed())
    }

    /// Forgets what waits by this name and the caller may see; tells whoever asked for it.
    fn withdraw(&mut self, caller: Caller, name: &str) {
        let meant = |asked: &mut Asked| asked.open.spec.name == name && asked.visible_to(caller);
        for asked in self.held.extract_if(.., meant) {
            let message = format!("connect {name}: withdrawn by podway disconnect");
            let hint = "podway connect asks for it again";
            asked.open.reply.answer(Err(UserError::new(Reason::Cancelled, message, hint)));
        }
    }

    fn asked(&self, open: OpenSession) -> Asked {
        let initial = SessionStatus {
            name: open.spec.name.clone(),
            context: open.spec.context.clone(),
            server: open.access.server.clone(),
            namespace: open.spec.namespace.clone(),
            owner_uid: open.caller.uid,
            since: (self.wall)(),
            ..SessionStatus::default()
        };
        Asked { held: None, open, status: watch::Sender::new(Arc::new(initial)) }
    }

    /// Keeps a request until what is in its way has ended. Its own time begins when it is first asked, and ends it.
    fn hold(&mut self, mut asked: Asked, ctx: &mut Context<Self>) {
        if asked.held.is_none() {
            self.held_ever += 1;
            let number = self.held_ever;
            asked.held = Some(number);
            ctx.run_later(Duration::from_millis(asked.open.spec.timeout_ms), move |me, _| me.give_up(number));
        }
        self.held.push(asked);
    }

    /// Answers a request whose time is over before it was opened.
    fn give_up(&mut self, number: u64) {
        for asked in self.held.extract_if(.., |asked| asked.held == Some(number)) {
            let name = &asked.open.spec.name;
            let message = format!("connect {name}: an earlier connection is still being ended");
            let hint = "podway status shows it; podway connect again when it is gone";
            asked.open.reply.answer(Err(UserError::new(Reason::TimedOut, message, hint)));
        }
    }

    fn open(&mut self, asked: Asked, ctx: &mut Context<Self>) {
        if self.held.len() < HELD && self.waits_for_an_end(&asked.open) {
            return self.hold(asked, ctx);
        }
        let Asked { open: OpenSession { caller, mut spec, access, reply }, status, .. } = asked;
        let named_image = Some(spec.agent_image.clone()).filter(|image| !image.is_empty());
        spec.agent_image = named_image.clone().unwrap_or_else(|| self.agent_image.clone());
        let name: Arc<str> = spec.name.as_str().into();
        if let Some(running) = self.sessions.get(&name) {
            let found = existing(running, &name, caller, &spec, &Cluster::of(&access));
            if found.is_ok() {
                // Connecting again is how a user renews credentials that have ended.
                running.address.do_send(CredentialsRenewed { access, ask: None });
            }
            return reply.answer(found.map(|view| Opened { view, existed: true }));
        }
        let same = self.sessions.iter().find(|(_, running)| same_cluster(&running.cluster, &Cluster::of(&access)));
        if let Some((other, running)) = same {
            return reply.answer(Err(running.reaches_already(other, caller)));
        }
        if self.sessions.values().filter(|s| s.owner_uid == caller.uid).count() >= SESSIONS_PER_USER {
            let message = format!("connect: {SESSIONS_PER_USER} connections are open already");
            reply.answer(Err(UserError::new(Reason::LimitReached, message, "podway disconnect ends those not needed")));
            return;
        }
        if let Some(error) = descriptors::too_few() {
            return reply.answer(Err(error));
        }
        let device = self.free_device(link_exists);
        let status_rx = status.subscribe();
        let span = session_span(&name, caller.uid);
        span.in_scope(|| info!(server = access.server, "connecting"));
        let cluster = Cluster::of(&access);
        let session = Session::new(Ingredients {
            spec: spec.clone(),
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
        let running = Running { spec, cluster, owner_uid: caller.uid, device, address, status: status_rx };
        reply.answer(Ok(Opened { view: running.view(&name), existed: false }));
        self.sessions.insert(name, running);
    }

    /// Whether connecting would make a connection that is not there.
    fn would_be_new(&self, asked: &PlanSession) -> Result<(), UserError> {
        let PlanSession { caller, spec, access, .. } = asked;
        let (name, cluster): (Arc<str>, _) = (spec.name.as_str().into(), Cluster::of(access));
        if let Some(running) = self.sessions.get(&name) {
            existing(running, &name, *caller, spec, &cluster)?;
            let message = format!("connection {name}: exists already and is the same: connecting would change nothing");
            return Err(UserError::new(Reason::AlreadyConnected, message, format!("podway status {name} shows it")));
        }
        match self.sessions.iter().find(|(_, running)| same_cluster(&running.cluster, &cluster)) {
            Some((other, running)) => Err(running.reaches_already(other, *caller)),
            None => Ok(()),
        }
    }

    /// The first device that no connection has, nor this host for others (`exists`): another podwayd may have made it.
    fn free_device(&self, exists: fn(&str) -> bool) -> String {
        let taken: BTreeSet<&str> = self.sessions.values().map(|running| &*running.device).collect();
        let mut names = (0..u16::MAX).map(|number| format!("podway{number}"));
        names.find(|name| !taken.contains(&**name) && !exists(name)).unwrap_or_default()
    }

    /// The connections that a caller may see, those that wait among them, by name.
    fn views(&self, caller: Caller) -> BTreeMap<Arc<str>, SessionView> {
        let running = self.sessions.iter().filter(|(_, running)| running.visible_to(caller));
        let running = running.map(|(name, running)| running.view(name));
        // Of one that waits for an earlier one of its name, the earlier one is shown.
        let all = self.waiting(caller).map(Asked::view).chain(running);
        all.map(|view| (Arc::clone(&view.name), view)).collect()
    }

    /// The connection that a caller means.
    fn find(&self, caller: Caller, name: Option<&str>) -> Result<Arc<str>, UserError> {
        let own: Vec<Arc<str>> = self.views(caller).into_keys().collect();
        match (name, own.as_slice()) {
            (None, []) => Err(not_found(None, false)),
            (None, [one]) => Ok(Arc::clone(one)),
            (None, several) => Err(UserError::new(
                Reason::BadRequest,
                "there are several connections",
                format!("name one of {}, or say --all", several.join(", ")),
            )),
            (Some(name), own) => match own.iter().find(|own| ***own == *name) {
                Some(own) => Ok(Arc::clone(own)),
                None if self.sessions.contains_key(name) => Err(UserError::new(
                    Reason::NotOwner,
                    format!("connection {name}: belongs to another user"),
                    format!("its owner or root may: sudo podway disconnect {name}"),
                )),
                None => Err(not_found(Some(name), !own.is_empty())),
            },
        }
    }

    /// The connection of that name, where the caller may see it and it is there.
    fn running(&self, caller: Caller, name: &str) -> Result<&Running, UserError> {
        let name = self.find(caller, Some(name))?;
        self.sessions.get(&name).filter(|running| running.visible_to(caller)).ok_or_else(|| {
            let message = format!("connection {name}: waits for an earlier one to end");
            UserError::new(Reason::NotConnected, message, "try again in a moment")
        })
    }

    fn answer_if_empty(&mut self) {
        if self.sessions.is_empty() {
            for reply in self.when_empty.drain(..) {
                reply.answer(());
            }
        }
    }
}

/// What tells clusters apart before one is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cluster {
    server: String,
    /// What its certificate is asked for by name, and what a router before several clusters chooses by.
    server_name: Option<String>,
    proxy: Option<String>,
    authority: Option<String>,
}

impl Cluster {
    fn of(access: &ClusterAccess) -> Cluster {
        let authority = access.certificate_authority_data.as_ref().map(|pem| pem.trim().to_owned());
        let host = || access.server.parse::<http::Uri>().ok()?.host().map(str::to_owned);
        let server_name = access.tls_server_name.clone().or_else(host).map(|name| name.to_ascii_lowercase());
        Cluster { server: access.server.clone(), server_name, proxy: access.proxy_url.clone(), authority }
    }

    fn same_url(&self, other: &Cluster) -> bool {
        let url = |cluster: &Cluster| cluster.server.trim_end_matches('/').to_ascii_lowercase();
        url(self) == url(other)
    }

    fn same_server(&self, other: &Cluster) -> bool {
        self.same_url(other) && self.server_name == other.server_name
    }
}

/// Whether two connections would reach one cluster: one URL and one name in TLS, reached the same way, with no two
/// certificates to the contrary (a URL of this host can lead to one cluster today and to another tomorrow).
///
/// Two URLs of one cluster count as two: what tells clusters apart (the UID of `kube-system`) takes rights that podway
/// does without, and an authority may have signed for several.
fn same_cluster(a: &Cluster, b: &Cluster) -> bool {
    changed(a, b).is_empty()
}

/// In what the ways to two clusters differ, in words.
fn changed(a: &Cluster, b: &Cluster) -> Vec<&'static str> {
    let contrary = a.authority.is_some() && b.authority.is_some() && a.authority != b.authority;
    let pairs = [
        (!a.same_server(b), if a.same_url(b) { "the server's name in TLS" } else { "the API server" }),
        (a.proxy != b.proxy, "the proxy"),
        (contrary, "the certificate authority"),
    ];
    pairs.into_iter().filter_map(|(differs, part)| differs.then_some(part)).collect()
}

impl Asked {
    fn view(&self) -> SessionView {
        let OpenSession { caller, spec, .. } = &self.open;
        SessionView { name: spec.name.as_str().into(), owner_uid: caller.uid, status: self.status.subscribe() }
    }

    fn visible_to(&self, caller: Caller) -> bool {
        may_see(caller, self.open.caller.uid)
    }
}

impl Running {
    fn is_ending(&self) -> bool {
        matches!(self.status.borrow().phase, Phase::Disconnecting | Phase::Disconnected)
    }

    /// Why there cannot be a second connection to the cluster of this one.
    fn reaches_already(&self, name: &str, caller: Caller) -> UserError {
        let (who, hint) = if self.visible_to(caller) {
            let hint = format!("use that connection, or podway disconnect {name} first");
            (format!("connection {name:?}"), hint)
        } else {
            (
                "a connection of another user".to_owned(),
                "ask that user to end it, or end it as root: sudo podway status shows it".to_owned(),
            )
        };
        UserError::new(Reason::AlreadyConnected, format!("connect: {who} already reaches this cluster"), hint)
    }

    fn view(&self, name: &Arc<str>) -> SessionView {
        SessionView { name: Arc::clone(name), owner_uid: self.owner_uid, status: self.status.clone() }
    }

    fn visible_to(&self, caller: Caller) -> bool {
        may_see(caller, self.owner_uid)
    }
}

fn may_see(caller: Caller, owner_uid: u32) -> bool {
    caller.uid == 0 || caller.uid == owner_uid
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
    let hint = format!(
        "kubectl -n NAMESPACE delete jobs,pods -l {} removes what is left; so does to connect again and end that with --clean",
        of_public_key(&identity.public)
    );
    UserError { hint, ..refusal }
}

/// The answer to a connect whose name is taken.
fn existing(
    running: &Running,
    name: &Arc<str>,
    caller: Caller,
    spec: &ConnectSpec,
    cluster: &Cluster,
) -> Result<SessionView, UserError> {
    if running.owner_uid != caller.uid {
        return Err(UserError::new(
            Reason::NotOwner,
            format!("connection {name}: belongs to another user"),
            "choose another --name",
        ));
    }
    if running.is_ending() {
        return Err(UserError::new(
            Reason::AlreadyConnected,
            format!("connection {name}: is being ended"),
            "try again in a moment",
        ));
    }
    let differences = differences((&running.spec, &running.cluster), (spec, cluster));
    if differences.is_empty() {
        return Ok(running.view(name));
    }
    let mut hint = format!("podway disconnect {name} first");
    if !running.cluster.same_server(cluster) {
        hint.push_str(", or choose another --name");
    }
    let message = format!("connection {name}: exists and differs in {}", differences.join(", "));
    Err(UserError::new(Reason::AlreadyConnected, message, hint))
}

/// In what two connections differ: the way to the cluster, and flags as users spell them. The time limit is no part of it.
fn differences((a, at): (&ConnectSpec, &Cluster), (b, bt): (&ConnectSpec, &Cluster)) -> Vec<&'static str> {
    let pairs = [
        (a.namespace != b.namespace, "--namespace"),
        (a.proxy_via != b.proxy_via, "--proxy-via"),
        (a.also_proxy != b.also_proxy, "--also-proxy"),
        (a.never_proxy != b.never_proxy, "--never-proxy"),
        (a.vnat != b.vnat, "--vnat"),
        (a.allow_conflicting_subnets != b.allow_conflicting_subnets, "--allow-conflicting-subnets"),
        (a.agent != b.agent, "--agent"),
        (a.agent_image != b.agent_image, "--agent-image"),
        (a.dns != b.dns, "--dns"),
    ];
    let flags = pairs.into_iter().filter_map(|(differs, flag)| differs.then_some(flag));
    changed(at, bt).into_iter().chain(flags).collect()
}

impl Actor for Daemon {
    type Context = Context<Self>;
}

impl Handler<OpenSession> for Daemon {
    type Result = ();
    fn handle(&mut self, message: OpenSession, ctx: &mut Context<Self>) {
        self.open(self.asked(message), ctx);
    }
}

impl Handler<PlanSession> for Daemon {
    type Result = ();
    fn handle(&mut self, mut message: PlanSession, _: &mut Context<Self>) {
        if message.spec.agent_image.is_empty() {
            message.spec.agent_image.clone_from(&self.agent_image);
        }
        if let Err(refusal) = self.would_be_new(&message) {
            return message.reply.answer(Err(refusal));
        }
        let span = session_span(&message.spec.name, message.caller.uid);
        let planner = Planner::new(message, self.free_device(link_exists), Arc::clone(&self.settings), self.wall);
        // One that panics answers nothing, which its asker is told.
        span.in_scope(|| start_monitored(planner, Context::new(), |_| ()));
    }
}

impl Handler<CloseSession> for Daemon {
    type Result = ();
    fn handle(&mut self, message: CloseSession, _: &mut Context<Self>) {
        let CloseSession { caller, name, clean, reply } = message;
        let name = match self.find(caller, name.as_deref()) {
            Ok(name) => name,
            Err(refusal) if clean && refusal.reason == Reason::NotConnected => {
                let (state_dir, uid) = (self.settings.state_dir.clone(), caller.uid);
                drop(tokio::task::spawn_blocking(move || reply.answer(Err(by_hand(refusal, &state_dir, uid)))));
                return;
            }
            Err(refusal) => return reply.answer(Err(refusal)),
        };
        self.withdraw(caller, &name);
        let Some(running) = self.sessions.get(&name).filter(|running| running.visible_to(caller)) else {
            // It only waited: nothing of it is left.
            return reply.answer(Ok(Closed { name: name.to_string(), remains: unasked(clean) }));
        };
        let (remains, answer) = Reply::new();
        running.address.do_send(Disconnect { clean, reply: remains });
        tokio::spawn(async move {
            // A session that is no more answers nothing.
            let remains = answer.await.unwrap_or_else(|_| unasked(clean));
            reply.answer(Ok(Closed { name: name.to_string(), remains }));
        });
    }
}

impl Handler<ListSessions> for Daemon {
    type Result = ();
    fn handle(&mut self, message: ListSessions, _: &mut Context<Self>) {
        message.reply.answer(self.views(message.caller).into_values().collect());
    }
}

impl Handler<RenewCredentials> for Daemon {
    type Result = ();
    fn handle(&mut self, message: RenewCredentials, _: &mut Context<Self>) {
        let RenewCredentials { caller, name, access, ask, reply } = message;
        let found = self.running(caller, &name).and_then(|running| {
            // Links and watches go on over what they were made with; another authority may mean another cluster.
            let changed = changed(&running.cluster, &Cluster::of(&access));
            if !changed.is_empty() {
                let message = format!("renew {name}: differs in {}", changed.join(", "));
                let hint = format!("podway disconnect {name}, then connect again");
                return Err(UserError::new(Reason::BadRequest, message, hint));
            }
            running.address.do_send(CredentialsRenewed { access, ask });
            Ok(())
        });
        reply.answer(found);
    }
}

impl Handler<ForgoCredentials> for Daemon {
    type Result = ();
    fn handle(&mut self, message: ForgoCredentials, _: &mut Context<Self>) {
        let ForgoCredentials { caller, name, ask, why, reply } = message;
        let told = self.running(caller, &name).map(|running| {
            running.address.do_send(CredentialsForgone { ask, why });
        });
        reply.answer(told);
    }
}

impl Handler<KeepCredentials> for Daemon {
    type Result = ();
    fn handle(&mut self, message: KeepCredentials, _: &mut Context<Self>) {
        let KeepCredentials { caller, name, keeper, reply } = message;
        let told = self.running(caller, &name).map(|running| running.address.do_send(keeper));
        reply.answer(told);
    }
}

impl Handler<SessionEnded> for Daemon {
    type Result = ();
    fn handle(&mut self, message: SessionEnded, ctx: &mut Context<Self>) {
        let over = self.sessions.remove(&message.name);
        // A daemon that shuts down opens nothing any more; dropping a request answers it.
        let held = std::mem::take(&mut self.held);
        if self.when_empty.is_empty() {
            held.into_iter().filter(|asked| !asked.open.reply.is_closed()).for_each(|asked| self.open(asked, ctx));
        }
        if let Exit::Panicked(why) = &message.exit {
            let owner_uid = over.as_ref().map(|running| running.owner_uid);
            error!(session = %message.name, uid = owner_uid, why, "a session panicked");
            // Its children are without a parent: let systemd start the daemon anew.
            if let Some(on_end) = self.on_end.take() {
                on_end.answer(());
            }
        }
        self.answer_if_empty();
    }
}

impl Handler<Shutdown> for Daemon {
    type Result = ();
    fn handle(&mut self, message: Shutdown, _: &mut Context<Self>) {
        for running in self.sessions.values() {
            let (reply, _) = Reply::new();
            running.address.do_send(Disconnect { clean: false, reply });
        }
        self.when_empty.push(message.reply);
        self.answer_if_empty();
    }
}

#[cfg(test)]
mod tests;
