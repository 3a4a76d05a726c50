//! What one request does: tells Daemon, waits for its reply, and turns a session's status into responses.
//!
//! Runs on the pool, one task a request. It waits for nothing without end except what it was asked to watch: when
//! Daemon drops a reply, that is an answer too.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use crate::actors::control::protocol::{
    ClosedSession, Connected, Disconnected, Ended, Event, LogTold, Op, Planned, Renewed, Request, Response, Sessions,
    Settings, VERSION, Version,
};
use crate::actors::daemon::messages::{
    Caller, CloseSession, Closed, ForgoCredentials, KeepCredentials, ListSessions, OpenSession, Opened, PlanSession,
    RenewCredentials, SessionView, not_found,
};
use crate::actors::session::messages::{Asking, KeeperCame, Remains};
use crate::actors::shell::Reply;
use crate::config::layers::Setting;
use crate::error::{Reason, UserError};
use crate::ids::AskId;
use crate::logs::{Level, LogRing};
use crate::spec::{ClusterAccess, ConnectSpec};
use crate::status::{ConnectOutcome, Phase, SessionStatus};

/// How long the answer of a connect that failed waits until what it began is taken back.
const TAKEN_BACK: Duration = Duration::from_secs(2);

/// Whom Control tells: Daemon.
#[derive(Clone, Debug)]
pub struct Edges {
    /// Make a connection.
    pub open: Recipient<OpenSession>,
    /// Say what making one would change.
    pub plan: Recipient<PlanSession>,
    /// End one.
    pub close: Recipient<CloseSession>,
    /// The connections.
    pub list: Recipient<ListSessions>,
    /// Fresh credentials.
    pub renew: Recipient<RenewCredentials>,
    /// No fresh credentials.
    pub forgo: Recipient<ForgoCredentials>,
    /// Who keeps credentials.
    pub keep: Recipient<KeepCredentials>,
    /// What was logged.
    pub logs: LogRing,
    /// The daemon's settings.
    pub settings: Arc<[Setting]>,
}

/// Where the responses to one request go.
#[derive(Debug)]
struct Answers {
    id: u64,
    tx: mpsc::Sender<Response>,
}

/// The peer is gone: nobody is left to answer.
struct PeerGone;

impl Answers {
    async fn event(&self, event: Event) -> Result<(), PeerGone> {
        self.tx.send(Response::event(self.id, event)).await.map_err(|_| PeerGone)
    }
}

/// Carries one request out and answers it. Dropping the future gives the request up; a connection being made stays.
pub async fn carry_out(edges: Edges, caller: Caller, request: Request, responses: mpsc::Sender<Response>) {
    let answers = Answers { id: request.id, tx: responses };
    let peer = answers.tx.clone();
    // These are long, and easily asked for: one is made only once there is room for it.
    let room = if matches!(request.op, Op::Status { .. }) {
        let Ok(room) = peer.reserve().await else { return };
        Some(room)
    } else {
        None
    };
    let response = tokio::select! {
        biased;
        // A watched session may be silent for hours: the peer's end must not go unnoticed.
        () = peer.closed() => return,
        response = answer(&edges, caller, request.op, &answers) => response,
    };
    match (response, room) {
        (Ok(response), Some(room)) => room.send(response),
        (Ok(response), None) => drop(answers.tx.send(response).await),
        (Err(PeerGone), _) => {}
    }
}

async fn answer(edges: &Edges, caller: Caller, op: Op, answers: &Answers) -> Result<Response, PeerGone> {
    let id = answers.id;
    let result = match op {
        Op::Connect { spec, access } => return connect(edges, caller, *spec, *access, answers).await,
        Op::Plan { spec, access } => {
            let (reply, answer_rx) = Reply::new();
            edges.plan.do_send(PlanSession { caller, spec: *spec, access: *access, reply });
            flat(answer_rx).await.map(|plan| Response::result(id, &Planned { plan }))
        }
        Op::Logs { level, follow } => return logs(&edges.logs, caller, level, follow, answers).await,
        Op::Watch { name } => return watch_one(edges, caller, name, answers).await,
        Op::Disconnect { name, clean, all } => disconnect(edges, caller, name, clean, all)
            .await
            .map(|closed| Response::result(id, &Disconnected { closed })),
        Op::Status { name } => {
            status(edges, caller, name).await.map(|sessions| Response::result(id, &Sessions { sessions }))
        }
        Op::Renew { name, access, ask } => {
            let (reply, answer_rx) = Reply::new();
            let (renewed, ask) = (name.clone(), ask.map(AskId));
            edges.renew.do_send(RenewCredentials { caller, name: renewed, access: *access, ask, reply });
            flat(answer_rx).await.map(|()| Response::result(id, &Renewed { name }))
        }
        Op::Forgo { name, ask, why } => {
            let (reply, answer_rx) = Reply::new();
            edges.forgo.do_send(ForgoCredentials { caller, name: name.clone(), ask: AskId(ask), why, reply });
            flat(answer_rx).await.map(|()| Response::result(id, &Renewed { name }))
        }
        Op::Keep { name } => return keep(edges, caller, name, answers).await,
        Op::Config => Ok(Response::result(id, &Settings { settings: edges.settings.to_vec() })),
        Op::Version => {
            let version = env!("CARGO_PKG_VERSION").to_owned();
            Ok(Response::result(id, &Version { version, protocol: VERSION }))
        }
    };
    Ok(result.unwrap_or_else(|error| Response::error(Some(id), error)))
}

async fn connect(
    edges: &Edges,
    caller: Caller,
    spec: ConnectSpec,
    access: ClusterAccess,
    answers: &Answers,
) -> Result<Response, PeerGone> {
    let patience = Duration::from_millis(spec.timeout_ms);
    let (reply, answer_rx) = Reply::new();
    edges.open.do_send(OpenSession { caller, spec, access, reply });
    let Opened { mut view, existed } = match flat(answer_rx).await {
        Ok(opened) => opened,
        Err(error) => return Ok(Response::error(Some(answers.id), error)),
    };
    // A connection keeps the time of the connect that made it; one that finds it has a time of its own.
    let (mut patience, mut late) = (pin!(sleep(patience)), false);
    let first = Arc::clone(&view.status.borrow());
    let already = existed && first.outcome.is_some();
    // The steps of an earlier connect are no news.
    let mut told = if already { first.steps.len() } else { 0 };
    loop {
        let status = Arc::clone(&view.status.borrow_and_update());
        let steps = status.steps.get(told..).unwrap_or_default().to_vec();
        told = status.steps.len();
        if !steps.is_empty() {
            answers.event(Event::Progress { steps }).await?;
        }
        let outcome = if existed { found(&status, late) } else { status.outcome.as_ref() };
        match outcome {
            Some(ConnectOutcome::Failed(error)) => {
                let error = error.clone();
                // What it began is taken back by then, or its end is no longer waited for.
                let ended = view.status.wait_for(|status| status.phase == Phase::Disconnected);
                drop(timeout(TAKEN_BACK, ended).await);
                return Ok(Response::error(Some(answers.id), error));
            }
            Some(
                outcome @ (ConnectOutcome::Ready | ConnectOutcome::Degraded { .. } | ConnectOutcome::TimedOut { .. }),
            ) => {
                let result = Connected { outcome: outcome.clone(), already, status: (*status).clone() };
                return Ok(Response::result(answers.id, &result));
            }
            None => {}
        }
        tokio::select! {
            changed = view.status.changed() => if changed.is_err() {
                return Ok(Response::error(Some(answers.id), withdrawn(&view.name)));
            },
            () = &mut patience, if existed && !late => late = true,
        }
    }
}

/// How a connect ends that found its connection there: by its state now, for which it waits until it is `late`.
fn found(status: &SessionStatus, late: bool) -> Option<&ConnectOutcome> {
    match (&status.outcome, &status.standing) {
        (Some(failed @ ConnectOutcome::Failed(_)), _) => Some(failed),
        (_, Some(ConnectOutcome::TimedOut { .. })) if !late => None,
        (_, standing) => standing.as_ref(),
    }
}

fn withdrawn(name: &str) -> UserError {
    UserError::new(Reason::Cancelled, format!("connect {name}: the connection was ended before it was ready"), "")
}

async fn watch_one(
    edges: &Edges,
    caller: Caller,
    name: Option<String>,
    answers: &Answers,
) -> Result<Response, PeerGone> {
    let view = match list(edges, caller).await.and_then(|views| the_one(views, name.as_deref())) {
        Ok(view) => view,
        Err(error) => return Ok(Response::error(Some(answers.id), error)),
    };
    let name = view.name.as_ref().to_owned();
    forward(view.status, answers).await?;
    Ok(Response::result(answers.id, &Ended { name }))
}

/// Every status while the peer keeps up, the latest when it does not.
async fn forward(mut status: watch::Receiver<Arc<SessionStatus>>, answers: &Answers) -> Result<(), PeerGone> {
    loop {
        let latest = SessionStatus::clone(&status.borrow_and_update());
        answers.event(Event::Status { status: Box::new(latest) }).await?;
        if status.changed().await.is_err() {
            return Ok(());
        }
    }
}

/// Asks the peer for credentials whenever the connection wants some, until one of the two is gone.
async fn keep(edges: &Edges, caller: Caller, name: String, answers: &Answers) -> Result<Response, PeerGone> {
    let (asking, mut wanted) = watch::channel(Asking::Nothing);
    // It is held as long as this goes on: the peer's end drops it.
    let (_held, gone) = oneshot::channel();
    let (reply, answer_rx) = Reply::new();
    edges.keep.do_send(KeepCredentials { caller, name: name.clone(), keeper: KeeperCame { asking, gone }, reply });
    if let Err(error) = flat(answer_rx).await {
        return Ok(Response::error(Some(answers.id), error));
    }
    loop {
        // A connection that is over drops its end; what it said last does not matter then.
        if wanted.changed().await.is_err() {
            return Ok(Response::result(answers.id, &Ended { name }));
        }
        let asking = *wanted.borrow_and_update();
        match asking {
            Asking::Nothing => {}
            Asking::Wanted(ask) => {
                let within_ms = u64::try_from(ask.within.as_millis()).unwrap_or(u64::MAX);
                answers.event(Event::CredentialsWanted { ask: ask.id.0, within_ms }).await?;
            }
            Asking::Replaced => {
                let message = format!(
                    "connection {name}: another keeper took this one's place, or the user gave other credentials"
                );
                return Ok(Response::error(Some(answers.id), UserError::new(Reason::Cancelled, message, "")));
            }
        }
    }
}

/// What was logged so far, and then what is logged, until the peer has enough.
async fn logs(
    ring: &LogRing,
    caller: Caller,
    level: Level,
    follow: bool,
    answers: &Answers,
) -> Result<Response, PeerGone> {
    let mut newest = ring.newest();
    let mut told = 0;
    loop {
        let upto = *newest.borrow_and_update();
        while told < upto {
            let page = ring.after(told, caller.uid, level);
            told = page.upto;
            if !page.lines.is_empty() || page.missed {
                let lines = page.lines;
                answers.event(Event::Log { lines, missed: page.missed }).await?;
            }
        }
        if !follow {
            return Ok(Response::result(answers.id, &LogTold { upto: told }));
        }
        // It ends with the peer: whoever answers keeps the ring, and the ring the other end of this.
        drop(newest.changed().await);
    }
}

async fn disconnect(
    edges: &Edges,
    caller: Caller,
    name: Option<String>,
    clean: bool,
    all: bool,
) -> Result<Vec<ClosedSession>, UserError> {
    let names = match all {
        true => list(edges, caller).await?.into_iter().map(|view| Some(view.name.as_ref().to_owned())).collect(),
        false => vec![name],
    };
    // All at once: one slow teardown does not hold up the others.
    let waiting: Vec<_> = names
        .into_iter()
        .map(|name| {
            let (reply, answer_rx) = Reply::new();
            edges.close.do_send(CloseSession { caller, name, clean, reply });
            answer_rx
        })
        .collect();
    let mut closed = Vec::new();
    for answer_rx in waiting {
        let Closed { name, remains: Remains { left, agents } } = flat(answer_rx).await?;
        closed.push(ClosedSession { name, left, agents });
    }
    Ok(closed)
}

async fn status(edges: &Edges, caller: Caller, name: Option<String>) -> Result<Vec<SessionStatus>, UserError> {
    let views = list(edges, caller).await?;
    let views = match name {
        Some(name) => vec![the_one(views, Some(&name))?],
        None => views,
    };
    Ok(views.iter().map(|view| SessionStatus::clone(&view.status.borrow())).collect())
}

async fn list(edges: &Edges, caller: Caller) -> Result<Vec<SessionView>, UserError> {
    let (reply, answer_rx) = Reply::new();
    edges.list.do_send(ListSessions { caller, reply });
    answer_rx.await.map_err(|_| stopping())
}

fn the_one(views: Vec<SessionView>, name: Option<&str>) -> Result<SessionView, UserError> {
    let names: Vec<String> = views.iter().map(|view| view.name.as_ref().to_owned()).collect();
    let mut fitting = views.into_iter().filter(|view| name.is_none_or(|name| *view.name == *name));
    match (fitting.next(), fitting.next(), name) {
        (Some(view), None, _) => Ok(view),
        (Some(_), Some(_), _) => Err(UserError::new(
            Reason::BadRequest,
            format!("connection: there are several: {}", names.join(", ")),
            "name one of them",
        )),
        (None, _, name) => Err(not_found(name, !names.is_empty())),
    }
}

async fn flat<T>(answer_rx: oneshot::Receiver<Result<T, UserError>>) -> Result<T, UserError> {
    answer_rx.await.unwrap_or_else(|_| Err(stopping()))
}

fn stopping() -> UserError {
    UserError::new(Reason::Cancelled, "podwayd: it is stopping", "start it again: systemctl start podwayd")
}
