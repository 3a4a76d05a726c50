//! Rules of faults, as data.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::link::Mode;

/// Whom a rule is about: all that is given has to be so; nothing given means everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Matcher {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verb: Option<String>,
    /// `pods`, or `pods/portforward` with its subresource; or a path like `/version`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Name of the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The protocols that a WebSocket is asked for, as they are in the header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
}

/// Who asks for what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// Verb.
    pub verb: String,
    /// Resource and subresource, or path.
    pub resource: String,
    /// Namespace, empty for none.
    pub namespace: String,
    /// Name, empty for none.
    pub name: String,
    /// User.
    pub user: String,
    /// Protocols of a WebSocket, empty for none.
    pub protocol: String,
}

impl Matcher {
    /// Everybody.
    pub fn all() -> Matcher {
        Matcher::default()
    }

    /// Requests of that verb for that resource.
    pub fn of(verb: &str, resource: &str) -> Matcher {
        Matcher { verb: Some(verb.to_owned()), resource: Some(resource.to_owned()), ..Matcher::default() }
    }

    /// Port-forwards, however they are asked for.
    pub fn portforward() -> Matcher {
        Matcher { resource: Some("pods/portforward".to_owned()), ..Matcher::default() }
    }

    /// Whether it is about somebody; a connection that asked for nothing yet is nobody.
    pub fn matches(&self, who: Option<&Who>) -> bool {
        let Some(who) = who else { return *self == Matcher::default() };
        let is = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
        is(&self.verb, &who.verb)
            && is(&self.resource, &who.resource)
            && is(&self.namespace, &who.namespace)
            && is(&self.name, &who.name)
            && is(&self.user, &who.user)
            && is(&self.protocol, &who.protocol)
    }
}

/// To what a fault happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// To single requests.
    Request,
    /// To connections, as long as the rule is in force.
    Connection,
    /// To watches, as long as the rule is in force.
    Watch,
}

/// Directions of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Both.
    #[default]
    Both,
    /// From clients.
    ToServer,
    /// From the server.
    ToClient,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum Fault {
    /// A request is looked at later.
    Delay {
        /// By how much.
        millis: u64,
    },
    /// A request is answered with that, and nothing is done.
    Refuse {
        /// HTTP status code: 403, 410, 429, 500 and so on.
        code: u16,
        /// What it says; a usual text where none is given.
        #[serde(default)]
        message: Option<String>,
        /// Seconds of a `Retry-After`.
        #[serde(default)]
        retry_after: Option<u32>,
    },
    /// A request is not looked at while the rule is in force.
    Hang,
    /// The connection of a request ends before anything is done.
    DropBefore,
    /// The connection of a request ends after everything was done, without an answer.
    DropAfter,
    /// A connection ends.
    Cut {
        /// By RST instead of FIN.
        #[serde(default)]
        reset: bool,
    },
    /// All connections end by RST, and new ones are refused while the rule is in force: the server is not there. It is
    /// about nobody in particular.
    Away,
    /// Nothing passes a connection while the rule is in force; nothing of it is lost.
    BlackHole {
        /// In which direction.
        #[serde(default)]
        way: Way,
    },
    /// A connection is long or thin.
    Link {
        /// Added to the way of each byte, in each direction.
        #[serde(default)]
        delay_millis: u64,
        /// At most that many bytes a second in each direction; none given means no limit.
        #[serde(default)]
        bytes_per_second: Option<u64>,
    },
    /// A watch sends each event twice.
    DuplicateEvents,
    /// A watch sends each two events in the wrong order.
    SwapEvents,
    /// A watch loses that many events and then says 410 Gone.
    LoseEvents {
        /// How many.
        count: u32,
    },
    /// A watch says 410 Gone as an event at once.
    Gone,
    /// A watch ends, in order, after that many events.
    EndAfter {
        /// How many.
        count: u32,
    },
}

impl Fault {
    /// To what it happens.
    pub(super) fn scope(&self) -> Scope {
        match self {
            Fault::Delay { .. } | Fault::Refuse { .. } | Fault::Hang | Fault::DropBefore | Fault::DropAfter => {
                Scope::Request
            }
            Fault::Cut { .. } | Fault::Away | Fault::BlackHole { .. } | Fault::Link { .. } => Scope::Connection,
            Fault::DuplicateEvents
            | Fault::SwapEvents
            | Fault::LoseEvents { .. }
            | Fault::Gone
            | Fault::EndAfter { .. } => Scope::Watch,
        }
    }

    /// What it makes of a connection.
    pub(super) fn mode(&self) -> Option<Mode> {
        match self {
            Fault::Cut { reset } => Some(Mode::Cut { reset: *reset }),
            Fault::Away => Some(Mode::Cut { reset: true }),
            Fault::BlackHole { way } => Some(Mode::BlackHole(*way)),
            Fault::Link { delay_millis, bytes_per_second } => {
                let delay = Duration::from_millis(*delay_millis);
                Some(Mode::Shaped { delay, bytes_per_second: bytes_per_second.filter(|bytes| *bytes > 0) })
            }
            Fault::Delay { .. }
            | Fault::Refuse { .. }
            | Fault::Hang
            | Fault::DropBefore
            | Fault::DropAfter
            | Fault::DuplicateEvents
            | Fault::SwapEvents
            | Fault::LoseEvents { .. }
            | Fault::Gone
            | Fault::EndAfter { .. } => None,
        }
    }
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Whom it is about.
    #[serde(default)]
    pub on: Matcher,
    /// What happens.
    #[serde(flatten)]
    pub fault: Fault,
    /// To how many requests, connections or watches; until withdrawn where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
}

impl Rule {
    /// Until withdrawn.
    pub fn always(on: Matcher, fault: Fault) -> Rule {
        Rule { on, fault, times: None }
    }

    /// To that many requests, connections or watches.
    pub fn times(times: u32, on: Matcher, fault: Fault) -> Rule {
        Rule { on, fault, times: Some(times) }
    }
}

/// What can be said from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Command {
    /// Set a rule.
    Set {
        /// It.
        rule: Rule,
    },
    /// End a rule.
    Withdraw {
        /// Its number.
        id: u64,
    },
    /// End all rules.
    Clear,
    /// Cut the connections that are there now.
    Cut {
        /// Whose.
        #[serde(default)]
        on: Matcher,
        /// By RST instead of FIN.
        #[serde(default)]
        reset: bool,
    },
    /// Count the requests that came so far.
    Requests {
        /// Whose; of verb and resource alone.
        #[serde(default)]
        on: Matcher,
    },
    /// Count the connections that are there now.
    Connections {
        /// Whose.
        #[serde(default)]
        on: Matcher,
    },
}
