//! The control socket's language: JSON objects, one a line.
//!
//! ```text
//! both ways   {"podway":1}                                   the first line
//! client      {"id":1,"op":"connect","spec":{…},"access":{…}}
//! daemon      {"id":1,"event":"progress","steps":[…]}        any number
//! daemon      {"id":1,"result":{…}}  or  {"id":1,"error":{"reason":"…","message":"…","hint":"…"}}
//! ```
//!
//! Requests with unknown or repeated fields are refused; responses may grow fields. An error without an `id` is about
//! the connection and is the last line on it. No error repeats a value of `access`.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::config::layers::Setting;
use crate::error::{Reason, UserError};
use crate::logs::{Level, LogLine};
use crate::plan::ConnectPlan;
use crate::spec::{ClusterAccess, ConnectSpec};
use crate::status::{ConnectOutcome, SessionStatus, Step};

/// The version of this protocol.
pub const VERSION: u32 = 1;
/// The most bytes in a line, without its end.
pub const MAX_LINE: usize = 256 * 1024;
/// The most requests of one connection that may be unanswered at a time.
pub const MAX_IN_FLIGHT: usize = 64;

/// The first line each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Greeting {
    /// Version of the protocol.
    pub podway: u32,
}

impl Greeting {
    /// This side's greeting.
    pub const OURS: Greeting = Greeting { podway: VERSION };

    /// Reads the other side's greeting.
    ///
    /// # Errors
    ///
    /// What to tell the other side when the versions do not meet, or the line is no greeting.
    pub fn check(line: &str) -> Result<(), UserError> {
        let Ok(theirs) = serde_json::from_str::<Greeting>(line) else {
            return Err(UserError::new(
                Reason::BadRequest,
                "control socket: the first line is not {\"podway\":1}",
                "see docs/control-protocol.md",
            ));
        };
        if theirs == Greeting::OURS {
            return Ok(());
        }
        Err(UserError::new(
            Reason::UnsupportedVersion,
            format!("control socket: protocol {} was offered, {VERSION} is spoken here", theirs.podway),
            "install the same version of podway and podwayd, then restart the daemon",
        ))
    }
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Request {
    /// Chosen by the client, unique among its unanswered requests.
    pub id: u64,
    /// What is asked.
    #[serde(flatten)]
    pub op: Op,
}

/// What a client can ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Op {
    /// Make a connection. Progress events, then [`Connected`].
    Connect {
        /// What.
        spec: Box<ConnectSpec>,
        /// How to reach the cluster.
        access: Box<ClusterAccess>,
    },
    /// What making a connection would change; nothing is changed. [`Planned`].
    Plan {
        /// What.
        spec: Box<ConnectSpec>,
        /// How to reach the cluster.
        access: Box<ClusterAccess>,
    },
    /// End connections. [`Disconnected`].
    Disconnect {
        /// Which; the only one when absent.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Whether our own pod goes too.
        clean: bool,
        /// Every connection of the caller; `name` is then absent.
        all: bool,
    },
    /// The state of connections, at once. [`Sessions`].
    Status {
        /// Which; all of the caller when absent.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// The state of one connection, now and at each change (latest wins). Status events, then [`Ended`].
    Watch {
        /// Which; the only one when absent.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// Fresh credentials for a connection. [`Renewed`].
    Renew {
        /// Which.
        name: String,
        /// How to reach the cluster.
        access: Box<ClusterAccess>,
        /// The question of [`Op::Keep`] that it answers.
        #[serde(skip_serializing_if = "Option::is_none")]
        ask: Option<u64>,
    },
    /// Keep the credentials of a connection: be asked for new ones, by events, which [`Op::Renew`] or [`Op::Forgo`]
    /// answers. In place of whoever keeps them already. [`Ended`].
    Keep {
        /// Which.
        name: String,
    },
    /// Say that there are no new credentials. [`Renewed`].
    Forgo {
        /// Which.
        name: String,
        /// The question.
        ask: u64,
        /// Why, for people; nothing secret.
        why: String,
    },
    /// What the daemon logged that concerns the caller, or nobody. Log events, then [`LogTold`].
    Logs {
        /// Nothing that matters less.
        level: Level,
        /// Whether to go on with what is logged from now on; there is no result then.
        follow: bool,
    },
    /// The daemon's settings, and where each comes from. [`Settings`].
    Config,
    /// The daemon's version. [`Version`].
    Version,
}

/// Why a line was refused, and the request it belonged to as far as that could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The request.
    pub id: Option<u64>,
    /// What to answer.
    pub error: UserError,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'a> {
    id: u64,
    op: String,
    #[serde(borrow)]
    spec: Option<&'a RawValue>,
    #[serde(borrow)]
    access: Option<&'a RawValue>,
    name: Option<String>,
    clean: Option<bool>,
    all: Option<bool>,
    ask: Option<u64>,
    why: Option<String>,
    level: Option<Level>,
    follow: Option<bool>,
}

#[derive(Deserialize)]
struct OnlyId {
    id: u64,
}

impl Request {
    /// Reads one line.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] that says what is wrong with the line, without any value of `access`.
    pub fn parse(line: &str) -> Result<Request, Refusal> {
        let wire: Wire<'_> = serde_json::from_str(line).map_err(|error| Refusal {
            id: serde_json::from_str::<OnlyId>(line).ok().map(|only| only.id),
            error: bad_request(format!("request: {}", harmless(&error))),
        })?;
        let id = wire.id;
        match wire.into_op() {
            Ok(op) => Ok(Request { id, op }),
            Err(error) => Err(Refusal { id: Some(id), error }),
        }
    }

    /// The request as a line, without its end. It holds the credentials: not for logs.
    ///
    /// # Errors
    ///
    /// When a value cannot be written as JSON; no request of this program has such a value.
    pub fn to_line(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }
}

impl Wire<'_> {
    fn into_op(mut self) -> Result<Op, UserError> {
        let op = match self.op.as_str() {
            "connect" => Op::Connect { spec: Box::new(self.spec()?), access: Box::new(self.access()?) },
            "plan" => Op::Plan { spec: Box::new(self.spec()?), access: Box::new(self.access()?) },
            "disconnect" => {
                let (name, all) = (self.name.take(), self.all.take().unwrap_or_default());
                if all && name.is_some() {
                    return Err(bad_request("request disconnect: name and all exclude each other"));
                }
                Op::Disconnect { name, clean: self.clean.take().unwrap_or_default(), all }
            }
            "status" => Op::Status { name: self.name.take() },
            "watch" => Op::Watch { name: self.name.take() },
            "renew" => {
                let name = self.name.take().ok_or_else(|| self.missing("name"))?;
                Op::Renew { name, access: Box::new(self.access()?), ask: self.ask.take() }
            }
            "keep" => Op::Keep { name: self.name.take().ok_or_else(|| self.missing("name"))? },
            "forgo" => Op::Forgo {
                name: self.name.take().ok_or_else(|| self.missing("name"))?,
                ask: self.ask.take().ok_or_else(|| self.missing("ask"))?,
                why: self.why.take().ok_or_else(|| self.missing("why"))?,
            },
            "logs" => Op::Logs {
                level: self.level.take().unwrap_or_default(),
                follow: self.follow.take().unwrap_or_default(),
            },
            "config" => Op::Config,
            "version" => Op::Version,
            unknown => {
                return Err(bad_request(format!(
                    "request: unknown op {:?}, expected connect, plan, disconnect, status, watch, renew, keep, forgo, logs, config or version",
                    shortened(unknown)
                )));
            }
        };
        match self.left_over() {
            None => Ok(op),
            Some(field) => Err(bad_request(format!("request {}: field {field} does not belong here", self.op))),
        }
    }

    fn spec(&mut self) -> Result<ConnectSpec, UserError> {
        let raw = self.spec.take().ok_or_else(|| self.missing("spec"))?;
        // The spec holds no secret, and its messages say which rule is wrong.
        let spec: ConnectSpec = serde_json::from_str(raw.get())
            .map_err(|error| bad_request(format!("request {}: spec: {}", self.op, shortened(&error.to_string()))))?;
        spec.check()?;
        Ok(spec)
    }

    fn access(&mut self) -> Result<ClusterAccess, UserError> {
        let raw = self.access.take().ok_or_else(|| self.missing("access"))?;
        serde_json::from_str(raw.get())
            .map_err(|error| bad_request(format!("request {}: access: {}", self.op, place_of(&error))))
    }

    fn missing(&self, field: &str) -> UserError {
        bad_request(format!("request {}: field {field} is missing", self.op))
    }

    fn left_over(&self) -> Option<&'static str> {
        [
            (self.spec.is_some(), "spec"),
            (self.access.is_some(), "access"),
            (self.name.is_some(), "name"),
            (self.clean.is_some(), "clean"),
            (self.all.is_some(), "all"),
            (self.ask.is_some(), "ask"),
            (self.why.is_some(), "why"),
            (self.level.is_some(), "level"),
            (self.follow.is_some(), "follow"),
        ]
        .into_iter()
        .find_map(|(left, field)| left.then_some(field))
    }
}

fn bad_request(message: impl Into<String>) -> UserError {
    UserError::new(Reason::BadRequest, message, "see docs/control-protocol.md")
}

/// What serde says, unless it would quote a value: `invalid type: string "…"` may quote a credential.
fn harmless(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match ["unknown field", "missing field", "duplicate field"].iter().any(|start| text.starts_with(start)) {
        true => shortened(&text),
        false => place_of(error),
    }
}

fn place_of(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Io | serde_json::error::Category::Syntax => "not JSON",
        serde_json::error::Category::Eof => "ends too early",
        serde_json::error::Category::Data => "a field is unknown, missing or of the wrong type",
    };
    format!("{what} (column {})", error.column())
}

fn shortened(text: &str) -> String {
    const LONGEST: usize = 300;
    text.chars().take(LONGEST).collect()
}

/// One line from the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// The request it belongs to; absent when it is about the connection.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<u64>,
    /// What it says.
    #[serde(flatten)]
    pub body: Body,
}

/// What a line from the daemon says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Body {
    /// More will follow.
    Event(Event),
    /// The end: done.
    Result {
        /// What came of it: the type that the [`Op`] names.
        result: Value,
    },
    /// The end: not done.
    Error {
        /// Why.
        error: UserError,
    },
}

/// Something on the way to the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// Steps of connect since the last event.
    Progress {
        /// The steps.
        steps: Vec<Step>,
    },
    /// The state of a watched connection.
    Status {
        /// The state.
        status: Box<SessionStatus>,
    },
    /// New credentials are wanted of who keeps them.
    #[serde(rename = "credentials_wanted")]
    CredentialsWanted {
        /// The question, which the answer names.
        ask: u64,
        /// How long the answer may take, in milliseconds.
        within_ms: u64,
    },
    /// Lines of the log since the last event, oldest first.
    Log {
        /// The lines.
        lines: Vec<LogLine>,
        /// Whether there were others in between, which are gone.
        #[serde(skip_serializing_if = "std::ops::Not::not", default)]
        missed: bool,
    },
}

impl Response {
    /// An event.
    pub fn event(id: u64, event: Event) -> Response {
        Response { id: Some(id), body: Body::Event(event) }
    }

    /// A result.
    pub fn result(id: u64, result: &impl Serialize) -> Response {
        match serde_json::to_value(result) {
            Ok(result) => Response { id: Some(id), body: Body::Result { result } },
            Err(error) => Response::error(
                Some(id),
                UserError::new(Reason::Internal, format!("answer: {error}"), "please report this"),
            ),
        }
    }

    /// An error; without an id it is about the connection.
    pub fn error(id: Option<u64>, error: UserError) -> Response {
        Response { id, body: Body::Error { error } }
    }

    /// The response as a line, without its end.
    ///
    /// # Errors
    ///
    /// When a value cannot be written as JSON; no response of this program has such a value.
    pub fn to_line(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }
}

/// Reads the result of a request as the type that its [`Op`] names.
///
/// # Errors
///
/// [`Reason::Internal`] when the daemon answered with something else.
pub fn read_result<T: DeserializeOwned>(result: Value) -> Result<T, UserError> {
    serde_json::from_value(result).map_err(|error| {
        UserError::new(
            Reason::Internal,
            format!("control socket: the answer cannot be read: {error}"),
            "install the same version of podway and podwayd, then restart the daemon",
        )
    })
}

/// Result of `connect`. A connection that cannot work is answered with an error instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connected {
    /// How it ended.
    #[serde(flatten)]
    pub outcome: ConnectOutcome,
    /// Whether an earlier `connect` had ended with this connection.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub already: bool,
    /// The connection.
    pub status: SessionStatus,
}

/// Result of `plan`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// What would change.
    pub plan: Box<ConnectPlan>,
}

/// Result of `disconnect`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disconnected {
    /// What ended.
    pub closed: Vec<ClosedSession>,
}

/// A connection that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedSession {
    /// Name.
    pub name: String,
    /// What was left behind, with the cause.
    pub left: Vec<String>,
    /// What became of its agents in the cluster, a sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub agents: Vec<String>,
}

/// Result of `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// The connections by name.
    pub sessions: Vec<SessionStatus>,
}

/// Result of `watch` and `keep`: the connection is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Name.
    pub name: String,
}

/// Result of `renew` and `forgo`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed {
    /// Name.
    pub name: String,
}

/// Result of `logs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogTold {
    /// The number of the last line that was looked at.
    pub upto: u64,
}

/// Result of `config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The settings, none of them secret.
    pub settings: Vec<Setting>,
}

/// Result of `version`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The daemon's version.
    pub version: String,
    /// The protocol's.
    pub protocol: u32,
}

#[cfg(test)]
#[path = "protocol_tests.rs"]
mod tests;
