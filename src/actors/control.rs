//! Owns the control socket: who may come in, and how many at a time.
//!
//! ```text
//! accept loop ─ConnectionOpened▶ Control ─▶ connection task ─RequestArrived▶ Control ─▶ request task ─▶ Daemon
//! ```
//!
//! Framing and waiting happen in tasks on the pool; what they tell Control is bounded by [`PLACES`]. Control itself
//! never waits. A [`Stop`] ends the accept loop and all connections and is answered when both are over.

pub mod admission;
pub mod connection;
pub mod listener;
pub mod messages;
pub mod operations;
pub mod protocol;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext as _, Context, Handler, Recipient};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::actors::daemon::messages::Caller;
use crate::actors::falls;
use crate::actors::shell::{NO_LIMIT, Reply, Stop, spawn_reporting, stop};
use crate::error::UserError;
use admission::Admission;
use connection::{Connection, PATIENCE};
use listener::Listener;
use messages::{AcceptEnded, ConnectionClosed, ConnectionOpened, RequestArrived};
pub use operations::Edges;
use protocol::{Greeting, Response};

/// The most messages from tasks that Control has not taken yet.
pub const PLACES: usize = 64;
/// A pause after a failed accept: out of file descriptors, trying again at once would only burn time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The control socket's actor.
#[derive(Debug)]
pub struct Control {
    listener: Option<Listener>,
    edges: Edges,
    admission: Admission,
    places: Arc<Semaphore>,
    stopping: CancellationToken,
    accepting: bool,
    stopped: Vec<Reply<()>>,
}

impl Control {
    /// Serves `listener`, telling `edges`. Serving begins when the actor starts.
    pub fn new(listener: Listener, edges: Edges) -> Control {
        Control {
            listener: Some(listener),
            edges,
            admission: Admission::default(),
            places: Arc::new(Semaphore::new(PLACES)),
            stopping: CancellationToken::new(),
            accepting: false,
            stopped: Vec::new(),
        }
    }

    fn end_if_all_ended(&mut self, ctx: &mut Context<Control>) {
        if self.stopped.is_empty() || self.accepting || !self.admission.is_empty() {
            return;
        }
        for reply in self.stopped.drain(..) {
            reply.answer(());
        }
        stop(ctx);
    }
}

impl Actor for Control {
    type Context = Context<Control>;

    fn started(&mut self, ctx: &mut Context<Control>) {
        let Some(listener) = self.listener.take() else { return };
        self.accepting = true;
        let opened = ctx.address().recipient::<ConnectionOpened>();
        let ended = ctx.address().recipient::<AcceptEnded>();
        let accepting = accept_all(listener, opened, Arc::clone(&self.places), self.stopping.clone());
        spawn_reporting(accepting, NO_LIMIT, move |outcome| {
            let why = match outcome {
                Ok(Ok(())) => String::new(),
                Ok(Err(error)) => error.to_string(),
                Err(failed) => format!("{failed:?}"),
            };
            ended.do_send(AcceptEnded { why });
        });
    }
}

impl Handler<ConnectionOpened> for Control {
    type Result = ();

    fn handle(&mut self, message: ConnectionOpened, ctx: &mut Context<Control>) {
        falls::at_message::<Self>("ConnectionOpened");
        let ConnectionOpened { stream, caller, place } = message;
        drop(place);
        if let Err(error) = self.admission.enter(caller.uid) {
            debug!(uid = caller.uid, "control connection refused");
            tokio::spawn(refuse(stream, error));
            return;
        }
        let connection = Connection {
            caller,
            control: ctx.address().recipient(),
            places: Arc::clone(&self.places),
            stopping: self.stopping.clone(),
        };
        let closed = ctx.address().recipient::<ConnectionClosed>();
        spawn_reporting(connection.serve(stream), NO_LIMIT, move |_| {
            closed.do_send(ConnectionClosed { uid: caller.uid });
        });
    }
}

impl Handler<RequestArrived> for Control {
    type Result = ();

    fn handle(&mut self, message: RequestArrived, _ctx: &mut Context<Control>) {
        falls::at_message::<Self>("RequestArrived");
        let RequestArrived { caller, request, responses, in_flight, place } = message;
        drop(place);
        let id = request.id;
        let unanswered = responses.clone();
        let work = operations::carry_out(self.edges.clone(), caller, request, responses);
        spawn_reporting(work, NO_LIMIT, move |outcome| {
            if let Err(failed) = outcome {
                warn!(uid = caller.uid, ?failed, "request failed");
                drop(unanswered.try_send(Response::error(Some(id), bug())));
            }
            drop(in_flight);
        });
    }
}

fn bug() -> UserError {
    UserError::new(crate::error::Reason::Internal, "podwayd: the request failed", "see the daemon's log, and report it")
}

impl Handler<ConnectionClosed> for Control {
    type Result = ();

    fn handle(&mut self, message: ConnectionClosed, ctx: &mut Context<Control>) {
        falls::at_message::<Self>("ConnectionClosed");
        self.admission.leave(message.uid);
        self.end_if_all_ended(ctx);
    }
}

impl Handler<AcceptEnded> for Control {
    type Result = ();

    fn handle(&mut self, message: AcceptEnded, ctx: &mut Context<Control>) {
        falls::at_message::<Self>("AcceptEnded");
        self.accepting = false;
        if !message.why.is_empty() {
            warn!(why = message.why, "control socket is no longer served");
            // Without its socket the actor is of no use: its monitor starts another.
            self.stopping.cancel();
            stop(ctx);
        }
        self.end_if_all_ended(ctx);
    }
}

impl Handler<Stop> for Control {
    type Result = ();

    fn handle(&mut self, message: Stop, ctx: &mut Context<Control>) {
        falls::at_message::<Self>("Stop");
        self.stopping.cancel();
        self.stopped.push(message.reply);
        self.end_if_all_ended(ctx);
    }
}

/// Accepts until `stopping`; removes the socket's file then, if it is ours.
async fn accept_all(
    listener: Listener,
    opened: Recipient<ConnectionOpened>,
    places: Arc<Semaphore>,
    stopping: CancellationToken,
) -> io::Result<()> {
    listener.socket.set_nonblocking(true)?;
    let socket = UnixListener::from_std(listener.socket)?;
    while let Some(accepted) = stopping.run_until_cancelled(socket.accept()).await {
        let peer = accepted.and_then(|(stream, _)| Ok((stream.peer_cred()?, stream)));
        let (credentials, stream) = match peer {
            Ok(peer) => peer,
            Err(error) => {
                debug!(%error, "control connection not accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let caller = Caller { uid: credentials.uid(), gid: credentials.gid(), pid: credentials.pid() };
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
        opened.do_send(ConnectionOpened { stream, caller, place });
    }
    if let Some(file) = listener.file {
        drop(std::fs::remove_file(file));
    }
    Ok(())
}

/// Says why, within [`PATIENCE`].
async fn refuse(stream: UnixStream, error: UserError) {
    let greeting = serde_json::to_string(&Greeting::OURS).unwrap_or_default();
    let refusal = Response::error(None, error).to_line().unwrap_or_default();
    let text = format!("{greeting}\n{refusal}\n");
    let mut stream = stream;
    let write = tokio::io::AsyncWriteExt::write_all(&mut stream, text.as_bytes());
    drop(timeout(PATIENCE, write).await);
}

#[cfg(test)]
#[path = "control/socket_tests.rs"]
mod tests;
