//! Which connections there are, which wait for the end of another, and what each request comes to. Pure.
//!
//! ```text
//!   Open ──▶ waits while a connection of its name or its cluster is being ended ──▶ Start | Found | Refuse
//!                └── withdrawn by Close │ given up by its asker │ its own time is over ──▶ Refuse, or nothing
//! ```
//!
//! `handle` stores the fact, then looks at every request that is not decided. Invariants: each request comes to one end;
//! no two connections have one name or one cluster; nothing is started once the daemon shuts down.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::cluster::{Cluster, changed, differences, same_cluster};
use super::messages::{Caller, not_found};
use crate::actors::shell::Core;
use crate::error::{Reason, UserError};
use crate::ids::{Millis, ReplyId};
use crate::spec::ConnectSpec;

/// A user who needs more connections at once than this is looping.
const SESSIONS_PER_USER: usize = 16;

/// Requests that wait for a connection to be over: for as long as its teardown takes, and no longer than their own time.
const HELD: usize = 64;

/// What goes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A connection is asked for.
    Open {
        /// The request.
        ask: ReplyId,
        /// Who asks.
        caller: Caller,
        /// What, with the agent's image filled in.
        spec: Box<ConnectSpec>,
        /// Where.
        cluster: Cluster,
    },
    /// Who asked went away.
    Abandoned(ReplyId),
    /// The end of a connection is asked for.
    Close {
        /// The request.
        ask: ReplyId,
        /// Who asks.
        caller: Caller,
        /// Which; `None` when the caller has only one.
        name: Option<String>,
    },
    /// What the connections show: these are being ended.
    Ending(BTreeSet<Arc<str>>),
    /// A connection is over.
    Ended(Arc<str>),
    /// End every connection, and begin none.
    Shutdown,
    /// Time has passed.
    Woke,
}

/// What the shell shall do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start the connection that this request asks for.
    Start(ReplyId),
    /// Answer with the connection of this name, and take the caller's credentials for it.
    Found(ReplyId, Arc<str>),
    /// Refuse a request.
    Refuse(ReplyId, UserError),
    /// Leave a request without an answer: the daemon is going, or its asker went.
    Forget(ReplyId),
    /// Have the connection of this name end, and answer when it has.
    Disconnect(ReplyId, Arc<str>),
    /// Answer a `Close` of this name: it only waited, and nothing of it is left.
    Withdrawn(ReplyId, Arc<str>),
    /// End this connection; nobody waits for that.
    End(Arc<str>),
    /// No connection is left, and no other will come.
    Empty,
}

/// A connection that was started and has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    spec: ConnectSpec,
    cluster: Cluster,
    owner_uid: u32,
    ending: bool,
}

/// A request that is not decided.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    ask: ReplyId,
    caller: Caller,
    spec: ConnectSpec,
    cluster: Cluster,
    /// Until when it waits. Its own time begins when it is first asked.
    until: Millis,
}

/// The core.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DaemonCore {
    sessions: BTreeMap<Arc<str>, Known>,
    /// In the order in which they came.
    held: Vec<Asked>,
    shutting_down: bool,
    told_empty: bool,
    effects: VecDeque<Effect>,
}

impl Core for DaemonCore {
    type Input = Input;
    type Effect = Effect;

    fn handle(&mut self, now: Millis, input: Input) {
        match input {
            Input::Open { ask, caller, spec, cluster } => {
                let until = now + Duration::from_millis(spec.timeout_ms);
                self.held.push(Asked { ask, caller, spec: *spec, cluster, until });
            }
            Input::Abandoned(ask) => {
                self.held.retain(|asked| asked.ask != ask);
                self.effects.push_back(Effect::Forget(ask));
            }
            Input::Close { ask, caller, name } => self.close(ask, caller, name.as_deref()),
            Input::Ending(names) => {
                self.sessions.iter_mut().for_each(|(name, known)| known.ending |= names.contains(name));
            }
            Input::Ended(name) => {
                self.sessions.remove(&name);
            }
            Input::Shutdown => {
                (self.shutting_down, self.told_empty) = (true, false);
                self.effects.extend(self.sessions.keys().cloned().map(Effect::End));
            }
            Input::Woke => {}
        }
        self.decide(now);
        if self.shutting_down && self.sessions.is_empty() && !std::mem::replace(&mut self.told_empty, true) {
            self.effects.push_back(Effect::Empty);
        }
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn poll_deadline(&self) -> Option<Millis> {
        self.held.iter().map(|asked| asked.until).min()
    }

    fn woke() -> Input {
        Input::Woke
    }
}

impl DaemonCore {
    /// A daemon without connections.
    pub fn new() -> DaemonCore {
        DaemonCore::default()
    }

    /// Gives the daemon a connection.
    #[cfg(test)]
    pub(super) fn hold(&mut self, name: &str, owner_uid: u32, spec: ConnectSpec, cluster: Cluster) {
        self.sessions.insert(name.into(), Known { spec, cluster, owner_uid, ending: false });
    }

    /// Requests that wait, by their names.
    pub fn waiting(&self) -> impl Iterator<Item = (ReplyId, &str)> {
        self.held.iter().map(|asked| (asked.ask, &*asked.spec.name))
    }

    /// Looks at every request in the order in which they came: what need not wait any more is decided.
    fn decide(&mut self, now: Millis) {
        for (place, asked) in std::mem::take(&mut self.held).into_iter().enumerate() {
            if self.shutting_down {
                self.effects.push_back(Effect::Forget(asked.ask));
            } else if place < HELD && self.waits_for_an_end(&asked) {
                if asked.until > now {
                    self.held.push(asked);
                } else {
                    let message = format!("connect {}: an earlier connection is still being ended", asked.spec.name);
                    let hint = "podway status shows it; podway connect again when it is gone";
                    let error = UserError::new(Reason::TimedOut, message, hint);
                    self.effects.push_back(Effect::Refuse(asked.ask, error));
                }
            } else {
                self.open(asked);
            }
        }
    }

    /// Whether a connection that is being ended has the name or the cluster that is asked for.
    fn waits_for_an_end(&self, asked: &Asked) -> bool {
        // A name that is taken is refused or found at once: no end elsewhere changes that.
        if self.sessions.get(asked.spec.name.as_str()).is_some_and(|known| !known.ending) {
            return false;
        }
        self.sessions.iter().any(|(name, known)| {
            let own_name = **name == *asked.spec.name && known.owner_uid == asked.caller.uid;
            known.ending && (own_name || same_cluster(&known.cluster, &asked.cluster))
        })
    }

    fn open(&mut self, asked: Asked) {
        let name: Arc<str> = asked.spec.name.as_str().into();
        let effect = match self.verdict(&name, &asked) {
            Ok(true) => Effect::Found(asked.ask, name),
            Ok(false) => {
                let Asked { ask, caller, spec, cluster, .. } = asked;
                self.sessions.insert(name, Known { spec, cluster, owner_uid: caller.uid, ending: false });
                Effect::Start(ask)
            }
            Err(error) => Effect::Refuse(asked.ask, error),
        };
        self.effects.push_back(effect);
    }

    /// Whether what is asked for is there; or why it cannot be.
    fn verdict(&self, name: &Arc<str>, asked: &Asked) -> Result<bool, UserError> {
        if let Some(known) = self.sessions.get(name) {
            return existing(known, name, asked).map(|()| true);
        }
        if let Some((other, known)) = self.sessions.iter().find(|(_, k)| same_cluster(&k.cluster, &asked.cluster)) {
            return Err(known.reaches_already(other, asked.caller));
        }
        if self.sessions.values().filter(|known| known.owner_uid == asked.caller.uid).count() >= SESSIONS_PER_USER {
            let message = format!("connect: {SESSIONS_PER_USER} connections are open already");
            return Err(UserError::new(Reason::LimitReached, message, "podway disconnect ends those not needed"));
        }
        Ok(false)
    }

    /// Whether connecting would make a connection that is not there; or why it would not.
    pub fn would_be_new(&self, caller: Caller, spec: &ConnectSpec, cluster: Cluster) -> Result<(), UserError> {
        let name: Arc<str> = spec.name.as_str().into();
        let asked = Asked { ask: ReplyId::default(), caller, spec: spec.clone(), cluster, until: Millis(0) };
        if !self.verdict(&name, &asked)? {
            return Ok(());
        }
        let message = format!("connection {name}: exists already and is the same: connecting would change nothing");
        Err(UserError::new(Reason::AlreadyConnected, message, format!("podway status {name} shows it")))
    }

    /// Forgets what waits by this name and the caller may see, and tells whoever asked for it; then ends what runs.
    fn close(&mut self, ask: ReplyId, caller: Caller, name: Option<&str>) {
        let name = match self.find(caller, name) {
            Ok(name) => name,
            Err(refusal) => return self.effects.push_back(Effect::Refuse(ask, refusal)),
        };
        let meant = |asked: &mut Asked| *asked.spec.name == *name && may_see(caller, asked.caller.uid);
        for asked in self.held.extract_if(.., meant) {
            let message = format!("connect {name}: withdrawn by podway disconnect");
            let error = UserError::new(Reason::Cancelled, message, "podway connect asks for it again");
            self.effects.push_back(Effect::Refuse(asked.ask, error));
        }
        let runs = self.sessions.get(&name).is_some_and(|known| may_see(caller, known.owner_uid));
        self.effects.push_back(if runs { Effect::Disconnect(ask, name) } else { Effect::Withdrawn(ask, name) });
    }

    /// The connection that a caller means, those that wait among them.
    fn find(&self, caller: Caller, name: Option<&str>) -> Result<Arc<str>, UserError> {
        let waiting = self.held.iter().filter(|asked| may_see(caller, asked.caller.uid));
        let running = self.sessions.iter().filter(|(_, known)| may_see(caller, known.owner_uid));
        let waiting = waiting.map(|asked| Arc::from(asked.spec.name.as_str()));
        let own: BTreeSet<Arc<str>> = running.map(|(name, _)| Arc::clone(name)).chain(waiting).collect();
        let own = Vec::from_iter(own);
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

    /// The connection that takes these credentials.
    ///
    /// # Errors
    ///
    /// There is none, it is another's, it only waits, or the credentials lead elsewhere.
    pub fn renewable(&self, caller: Caller, name: &str, cluster: &Cluster) -> Result<Arc<str>, UserError> {
        let (name, known) = self.known(caller, name)?;
        // Links and watches go on over what they were made with; another authority may mean another cluster.
        let changed = changed(&known.cluster, cluster);
        if changed.is_empty() {
            return Ok(name);
        }
        let message = format!("renew {name}: differs in {}", changed.join(", "));
        Err(UserError::new(Reason::BadRequest, message, format!("podway disconnect {name}, then connect again")))
    }

    /// The name of the connection that a caller means, where he may see it and it runs.
    ///
    /// # Errors
    ///
    /// There is none of that name that the caller may see, or it only waits for an earlier one to end.
    pub fn running(&self, caller: Caller, name: &str) -> Result<Arc<str>, UserError> {
        self.known(caller, name).map(|(name, _)| name)
    }

    fn known(&self, caller: Caller, name: &str) -> Result<(Arc<str>, &Known), UserError> {
        let name = self.find(caller, Some(name))?;
        match self.sessions.get(&name) {
            Some(known) if may_see(caller, known.owner_uid) => Ok((name, known)),
            _ => {
                let message = format!("connection {name}: waits for an earlier one to end");
                Err(UserError::new(Reason::NotConnected, message, "try again in a moment"))
            }
        }
    }
}

impl Known {
    /// Why there cannot be a second connection to the cluster of this one.
    fn reaches_already(&self, name: &str, caller: Caller) -> UserError {
        let (who, hint) = if may_see(caller, self.owner_uid) {
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
}

/// Whether a caller may see, and end, what this user asked for.
pub fn may_see(caller: Caller, owner_uid: u32) -> bool {
    caller.uid == 0 || caller.uid == owner_uid
}

/// Whether the connection whose name is taken is the one that is asked for; or why it is not.
fn existing(known: &Known, name: &Arc<str>, asked: &Asked) -> Result<(), UserError> {
    if known.owner_uid != asked.caller.uid {
        return Err(UserError::new(
            Reason::NotOwner,
            format!("connection {name}: belongs to another user"),
            "choose another --name",
        ));
    }
    if known.ending {
        return Err(UserError::new(
            Reason::AlreadyConnected,
            format!("connection {name}: is being ended"),
            "try again in a moment",
        ));
    }
    let differences = differences((&known.spec, &known.cluster), (&asked.spec, &asked.cluster));
    if differences.is_empty() {
        return Ok(());
    }
    let mut hint = format!("podway disconnect {name} first");
    if !known.cluster.same_server(&asked.cluster) {
        hint.push_str(", or choose another --name");
    }
    let message = format!("connection {name}: exists and differs in {}", differences.join(", "));
    Err(UserError::new(Reason::AlreadyConnected, message, hint))
}

#[cfg(test)]
mod tests;
