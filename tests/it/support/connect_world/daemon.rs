//! Daemon, the users before it, and Session after it.

use podway::actors::daemon::cluster::Cluster;
use podway::actors::daemon::core::{Effect, Input};
use podway::actors::daemon::messages::Caller;
use podway::actors::session::core::{self as session, SessionCore};
use podway::ids::ReplyId;
use podway::status::Phase;

use super::{ConnectWorld, Daemon, DaemonCore, Held, Letter, Session, driven, say};
use crate::support::mutants::{self, Mutant};
use crate::support::story::short;

const CALLER: Caller = Caller { uid: 1000, gid: 1000, pid: None };

fn cluster() -> Cluster {
    let access = serde_json::from_value(serde_json::json!({ "server": "https://192.0.2.1:6443" }));
    Cluster::of(&access.expect("an access"))
}

impl ConnectWorld {
    fn next_request(&mut self) -> ReplyId {
        let number = self.seen.requests.len() + self.seen.asked.len();
        ReplyId(10 + u64::try_from(number).expect("few"))
    }

    /// A user connects, by Daemon where there is one.
    pub(super) fn user_connects(&mut self) {
        if self.daemon.is_some() {
            let ask = self.next_request();
            self.seen.requests.insert(ask);
            let spec = Box::new(self.setup.spec.clone());
            self.tell_daemon(Input::Open { ask, caller: CALLER, spec, cluster: cluster() });
        }
    }

    pub(super) fn user_disconnects(&mut self) {
        let ask = self.next_request();
        if self.daemon.is_some() {
            self.seen.requests.insert(ask);
            self.tell_daemon(Input::Close { ask, caller: CALLER, name: None });
        } else {
            self.seen.asked.insert(ask);
            self.session(session::Input::Disconnect { clean: false, reply: ask });
        }
    }

    pub(super) fn quit(&mut self) {
        if self.daemon.is_some() {
            self.tell_daemon(Input::Shutdown);
        }
    }

    /// What connections show is known to Daemon before anything else is.
    fn tell_daemon(&mut self, input: Input) {
        let phase = self.session.phase();
        let ending = self.seen.started > 0 && matches!(phase, Phase::Disconnecting | Phase::Disconnected);
        let ending = if ending && self.mutant != Some(Mutant::EndUnseen) { vec!["default".into()] } else { Vec::new() };
        self.daemon(Input::Ending(ending.into_iter().collect()));
        self.daemon(input);
    }

    pub(super) fn daemon(&mut self, input: Input) {
        let now = self.now;
        let Some(core) = &mut self.daemon else { return };
        for effect in driven(core, now, input) {
            say(|| format!("Daemon: {}", short(&effect)));
            match effect {
                Effect::Start(ask) => {
                    self.served(ask);
                    self.starts();
                }
                Effect::Found(ask, _) => {
                    self.served(ask);
                    if self.session.phase() == Phase::Disconnecting || self.seen.ended == self.seen.started {
                        self.fault("found_lives", "a connection that is being ended was handed out");
                    }
                }
                Effect::Refuse(ask, _) | Effect::Forget(ask) | Effect::Withdrawn(ask, _) => self.served(ask),
                Effect::Disconnect(ask, _) => {
                    let reply = session::Input::Disconnect { clean: false, reply: ask };
                    self.seen.asked.insert(ask);
                    if self.seen.ended == self.seen.started {
                        // A session that is no more answers nothing: Daemon does, in its place.
                        self.answered(ask);
                    } else {
                        self.send(Daemon, Session, Letter::Session(reply));
                    }
                }
                Effect::End(_) => {
                    let ask = self.next_request();
                    self.seen.asked.insert(ask);
                    let disconnect = session::Input::Disconnect { clean: false, reply: ask };
                    self.send(Daemon, Session, Letter::Session(disconnect));
                }
                Effect::Empty => {
                    if self.seen.started != self.seen.ended {
                        self.fault("empty_is_empty", "Daemon said that no connection is left");
                    }
                }
            }
        }
    }

    fn served(&mut self, ask: ReplyId) {
        if self.seen.served.contains(&ask) || !self.seen.requests.contains(&ask) {
            self.fault("one_answer_per_request", &format!("request {ask} was answered again"));
        }
        self.seen.served.push(ask);
    }

    /// Session answered a disconnect.
    pub(super) fn answered(&mut self, reply: ReplyId) {
        if self.seen.answered.contains(&reply) {
            self.fault("one_answer_per_request", &format!("disconnect {reply} was answered again"));
        }
        self.seen.answered.push(reply);
        if self.seen.requests.contains(&reply) {
            self.served(reply);
        }
    }

    /// A session begins.
    fn starts(&mut self) {
        if self.seen.started != self.seen.ended {
            self.fault("one_session_per_cluster", "a second one was started");
        }
        self.seen.started += 1;
        self.session = Held::new(SessionCore::new(self.setup.spec.clone(), None));
        self.session(session::Input::Begin);
    }

    pub(super) fn session(&mut self, input: session::Input) {
        let now = self.now;
        let before = self.session.outcome().cloned();
        let came = mutants::session(self.mutant, driven(&mut self.session, now, input));
        if before.is_none() && self.session.outcome() == Some(&podway::status::ConnectOutcome::Ready) {
            self.ready_means_it_works();
        }
        for effect in came {
            if effect != session::Effect::Publish {
                say(|| format!("Session: {}", short(&effect)));
            }
            self.session_wants(effect);
        }
    }

    /// The session's actor is gone; Daemon hears of it.
    pub(super) fn session_ended(&mut self) {
        self.seen.ended += 1;
        self.drop_children();
        // Whoever asks a session that is no more is answered by Daemon.
        for letter in self.queues.remove(&(Daemon, Session)).into_iter().flatten() {
            if let Letter::Session(session::Input::Disconnect { reply, .. }) = &*letter {
                self.answered(*reply);
            }
        }
        self.queues.retain(|(_, to), _| *to != Session);
        if self.daemon.is_some() {
            self.placements_end();
            self.send(Session, Daemon, Letter::Daemon(Input::Ended("default".into())));
        }
    }

    /// The process dies with all its actors, and is started again. What the host forgets with it is gone; the resolver's
    /// settings are undone by the journal at the start.
    pub(super) fn crashes(&mut self) {
        let gone: Vec<ReplyId> = self.seen.asked.iter().filter(|r| !self.seen.answered.contains(r)).copied().collect();
        self.seen.answered.extend(gone);
        let gone: Vec<_> = self.seen.requests.iter().filter(|r| !self.seen.served.contains(r)).copied().collect();
        self.seen.served.extend(gone);
        self.seen.registered.clear();
        self.seen.settled.clear();
        self.queues.clear();
        self.drop_children();
        self.placements_end();
        self.seen.links.clear();
        self.seen.dialled.clear();
        (self.seen.device, self.seen.attached) = (false, false);
        self.seen.on_device.clear();
        self.seen.ended = self.seen.started;
        self.session = Held::new(SessionCore::new(self.setup.spec.clone(), None));
        if let Some(core) = &mut self.daemon {
            *core = Held::new(DaemonCore::new());
        }
    }
}
