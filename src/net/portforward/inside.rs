//! What the messages of a port-forward's WebSocket carry. Pure.
//!
//! - [`channels`]: each message belongs to a channel. The API server and the kubelet pass on what comes, and the container
//!   runtime takes it apart.
//! - [`spdy`]: the messages are pieces of a SPDY connection, which the API server unwraps. The runtime then has less to do with
//!   each byte that comes to it, and the API server more.

mod channels;
mod spdy;

use tokio::io::ReadBuf;

use self::channels::Channels;
use self::spdy::Spdy;
use super::frames::Step;

/// Most text that is kept of what the other end says about errors, in bytes.
const ERROR_TEXT: usize = 4096;

/// The protocol in the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `v4.channel.k8s.io`.
    Channels,
    /// `SPDY/3.1+portforward.k8s.io`.
    Spdy,
}

impl Protocol {
    /// What stands in front of a message's data.
    pub fn head(self) -> &'static [u8] {
        match self {
            Protocol::Channels => &channels::HEAD,
            Protocol::Spdy => &spdy::HEAD,
        }
    }

    /// Most bytes of one message that is sent, its head among them.
    pub fn message(self) -> usize {
        match self {
            Protocol::Channels => channels::MESSAGE,
            Protocol::Spdy => spdy::MESSAGE,
        }
    }

    /// Completes the head of a message of data.
    pub fn seal(self, message: &mut [u8]) {
        match self {
            Protocol::Channels => {}
            Protocol::Spdy => spdy::seal(message),
        }
    }

    /// What has to be said first, if anything has.
    pub fn hello(self, port: u16) -> Vec<u8> {
        match self {
            Protocol::Channels => Vec::new(),
            Protocol::Spdy => spdy::hello(port),
        }
    }
}

/// Where the payload of messages is taken apart.
#[derive(Debug)]
pub enum Inside {
    Channels(Channels),
    Spdy(Spdy),
}

impl Inside {
    /// At the first byte.
    pub fn new(protocol: Protocol) -> Inside {
        match protocol {
            Protocol::Channels => Inside::Channels(Channels::default()),
            Protocol::Spdy => Inside::Spdy(Spdy::default()),
        }
    }

    /// A message begins.
    pub fn message_begins(&mut self) {
        match self {
            Inside::Channels(channels) => channels.message_begins(),
            Inside::Spdy(_) => {}
        }
    }

    /// How many bytes come next that are nothing but data, if they are in the same message.
    pub fn data_ahead(&self) -> u64 {
        match self {
            Inside::Channels(channels) => channels.data_ahead(),
            Inside::Spdy(spdy) => spdy.data_ahead(),
        }
    }

    /// So many of [`Inside::data_ahead`] were taken by somebody else.
    pub fn passed(&mut self, count: u64) {
        match self {
            Inside::Channels(_) => {}
            Inside::Spdy(spdy) => spdy.passed(count),
        }
    }

    /// Takes some bytes of payload, at least one, and says how many and what they were. `ends` tells whether the message ends
    /// with them. Neither `bytes` is empty nor `into` full.
    pub fn take(&mut self, bytes: &[u8], into: &mut ReadBuf<'_>, ends: bool) -> (usize, Option<Step>) {
        match self {
            Inside::Channels(channels) => channels.take(bytes, into, ends),
            Inside::Spdy(spdy) => spdy.take(bytes, into),
        }
    }

    /// Whether the other end has said that nothing more comes.
    pub fn is_over(&self) -> bool {
        match self {
            Inside::Channels(_) => false,
            Inside::Spdy(spdy) => spdy.is_over(),
        }
    }

    /// What the other end said about errors so far.
    pub fn error_text(&self) -> Option<String> {
        let text = match self {
            Inside::Channels(channels) => &channels.error,
            Inside::Spdy(spdy) => &spdy.error,
        };
        (!text.0.is_empty()).then(|| String::from_utf8_lossy(&text.0).trim().to_owned())
    }
}

/// Text of which no more is kept than a person reads.
#[derive(Debug, Default)]
struct Text(Vec<u8>);

impl Text {
    fn push(&mut self, bytes: &[u8]) {
        let room = ERROR_TEXT.saturating_sub(self.0.len()).min(bytes.len());
        self.0.extend_from_slice(bytes.get(..room).unwrap_or_default());
    }
}

/// Hands on as many of `bytes` as there is room for.
fn hand_on(bytes: &[u8], into: &mut ReadBuf<'_>) -> (usize, Option<Step>) {
    let part = bytes.get(..into.remaining().min(bytes.len())).unwrap_or_default();
    into.put_slice(part);
    (part.len(), Some(Step::Data(part.len())))
}
