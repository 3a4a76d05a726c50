//! One connection of the control socket: lines in, lines out, nothing decided.
//!
//! ```text
//! greet ──▶ read a line ──▶ Control ──▶ responses ──▶ write a line
//!   └─ wrong version, garbage, too long, half a line for too long ──▶ one error, close
//! ```
//!
//! The reader never waits for the writer, except through the number of unanswered requests.

use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, FramedWrite, LinesCodec, LinesCodecError};
use tokio_util::sync::CancellationToken;

use crate::actors::control::messages::RequestArrived;
use crate::actors::control::protocol::{Greeting, MAX_IN_FLIGHT, MAX_LINE, Request, Response};
use crate::actors::daemon::messages::Caller;
use crate::error::{Reason, UserError};

/// How long a peer may take for its first line, for the rest of a line, or to take one of ours.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long answers on their way are still written when Control stops.
const FLUSH: Duration = Duration::from_millis(100);
/// After so many times [`PATIENCE`] without a line and without an unanswered request a connection is closed.
const IDLE_ROUNDS: u32 = 24;
/// Responses that wait for the writer; a request that has more to say waits, and says its latest then.
const RESPONSES: usize = 16;

/// What a connection's task needs.
#[derive(Debug)]
pub struct Connection {
    /// The peer.
    pub caller: Caller,
    /// Control.
    pub control: Recipient<RequestArrived>,
    /// Bounds what Control has not taken yet, over all connections.
    pub places: Arc<Semaphore>,
    /// Cancelled when Control stops: answers on their way are still written.
    pub stopping: CancellationToken,
}

type Lines = FramedRead<OwnedReadHalf, LinesCodec>;

enum Next {
    Line(String),
    Refused(UserError),
    Closed,
}

impl Connection {
    /// Serves the peer until it closes, breaks the rules, or Control stops.
    pub async fn serve(self, stream: UnixStream) {
        let (read, write) = stream.into_split();
        let (responses, responses_rx) = mpsc::channel(RESPONSES);
        // What ends the writer (a peer that does not read) ends the reader too.
        let broken = self.stopping.child_token();
        let stopping = self.stopping.clone();
        let mut writer = tokio::spawn(write_all(write, responses_rx, broken.clone()));
        let lines = FramedRead::new(read, LinesCodec::new_with_max_length(MAX_LINE));
        self.read_all(lines, responses, &broken).await;
        let linger = if stopping.is_cancelled() { FLUSH } else { PATIENCE };
        if timeout(linger, &mut writer).await.is_err() {
            // Its receiver goes, and with it every request that still watches.
            writer.abort();
        }
    }

    async fn read_all(self, mut lines: Lines, responses: mpsc::Sender<Response>, broken: &CancellationToken) {
        let in_flight = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
        let greeted = match next_line(&mut lines, broken, || true).await {
            Next::Line(line) => Greeting::check(&line),
            Next::Refused(error) => Err(error),
            Next::Closed => return,
        };
        if let Err(error) = greeted {
            drop(responses.send(Response::error(None, error)).await);
            return;
        }
        loop {
            let unanswered = || in_flight.available_permits() < MAX_IN_FLIGHT;
            let line = match next_line(&mut lines, broken, || !unanswered()).await {
                Next::Line(line) => line,
                Next::Refused(error) => {
                    drop(responses.send(Response::error(None, error)).await);
                    return;
                }
                Next::Closed => return,
            };
            let request = match Request::parse(&line) {
                Ok(request) => request,
                Err(refusal) => {
                    let garbage = refusal.id.is_none();
                    drop(responses.send(Response::error(refusal.id, refusal.error)).await);
                    match garbage {
                        true => return,
                        false => continue,
                    }
                }
            };
            let Ok(permit) = Arc::clone(&in_flight).try_acquire_owned() else {
                drop(responses.send(Response::error(Some(request.id), too_many())).await);
                continue;
            };
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
            let responses = responses.clone();
            self.control.do_send(RequestArrived { caller: self.caller, request, responses, in_flight: permit, place });
        }
    }
}

fn too_many() -> UserError {
    UserError::new(
        Reason::LimitReached,
        format!("request: {MAX_IN_FLIGHT} requests of this connection are unanswered"),
        "wait for an answer, or open another connection",
    )
}

/// The next line. A half line may take [`PATIENCE`] at least, twice that at most; silence is bounded where `bored`.
async fn next_line(lines: &mut Lines, broken: &CancellationToken, bored: impl Fn() -> bool) -> Next {
    let mut half_line = false;
    let mut idle = 0;
    loop {
        let round = tokio::select! {
            () = broken.cancelled() => return Next::Closed,
            round = timeout(PATIENCE, lines.next()) => round,
        };
        match round {
            Ok(Some(Ok(line))) => return Next::Line(line),
            Ok(Some(Err(LinesCodecError::MaxLineLengthExceeded))) => {
                return refused(Reason::LimitReached, format!("request: a line is longer than {MAX_LINE} bytes"));
            }
            Ok(Some(Err(LinesCodecError::Io(error)))) if error.kind() == std::io::ErrorKind::InvalidData => {
                return refused(Reason::BadRequest, "request: not UTF-8");
            }
            Ok(Some(Err(LinesCodecError::Io(_))) | None) => return Next::Closed,
            Err(_) if !lines.read_buffer().is_empty() && half_line => {
                return refused(Reason::TimedOut, "request: half a line, and nothing more for too long");
            }
            Err(_) if !lines.read_buffer().is_empty() => half_line = true,
            Err(_) if bored() => {
                idle += 1;
                if idle >= IDLE_ROUNDS {
                    return Next::Closed;
                }
            }
            Err(_) => idle = 0,
        }
    }
}

fn refused(reason: Reason, message: impl Into<String>) -> Next {
    Next::Refused(UserError::new(reason, message, "see docs/control-protocol.md"))
}

async fn write_all(write: OwnedWriteHalf, mut responses: mpsc::Receiver<Response>, broken: CancellationToken) {
    let _ends_the_reader = broken.drop_guard();
    let mut lines = FramedWrite::new(write, LinesCodec::new());
    let Ok(greeting) = serde_json::to_string(&Greeting::OURS) else { return };
    if !write_line(&mut lines, greeting).await {
        return;
    }
    while let Some(response) = responses.recv().await {
        let Ok(line) = response.to_line() else { return };
        if !write_line(&mut lines, line).await {
            return;
        }
    }
}

async fn write_line(lines: &mut FramedWrite<OwnedWriteHalf, LinesCodec>, line: String) -> bool {
    matches!(timeout(PATIENCE, lines.send(line)).await, Ok(Ok(())))
}
