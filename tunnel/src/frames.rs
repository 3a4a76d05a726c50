//! The messages of `proto/tunnel.proto`. A test compares the two.

use bytes::Bytes;

/// One frame of the `Hello` call.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HelloFrame {
    /// The frame; `None` for one that is newer than we are, which is skipped.
    #[prost(oneof = "hello_frame::Frame", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9")]
    pub frame: Option<hello_frame::Frame>,
}

/// Frames of `Hello`.
pub mod hello_frame {
    /// Which frame.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Frame {
        /// Client's first.
        #[prost(message, tag = "1")]
        ClientHello(super::ClientHello),
        /// Agent's answer.
        #[prost(message, tag = "2")]
        Challenge(super::Challenge),
        /// Client's proof.
        #[prost(message, tag = "3")]
        Proof(super::Proof),
        /// Agent's yes.
        #[prost(message, tag = "4")]
        Welcome(super::Welcome),
        /// Agent's no.
        #[prost(message, tag = "5")]
        Denied(super::Denied),
        /// Heartbeat.
        #[prost(message, tag = "6")]
        Ping(super::Ping),
        /// Its answer.
        #[prost(message, tag = "7")]
        Pong(super::Pong),
        /// The agent was asked to end.
        #[prost(message, tag = "8")]
        Draining(super::Draining),
        /// Counters of the agent.
        #[prost(message, tag = "9")]
        Stats(super::Stats),
    }
}

/// Client's first frame.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ClientHello {
    /// Oldest protocol spoken.
    #[prost(uint32, tag = "1")]
    pub protocol_min: u32,
    /// Newest protocol spoken.
    #[prost(uint32, tag = "2")]
    pub protocol_max: u32,
    /// Optional features: [`RESUME`], [`BULK`].
    #[prost(string, repeated, tag = "3")]
    pub features: Vec<String>,
    /// 16 random bytes.
    #[prost(bytes = "bytes", tag = "4")]
    pub session_id: Bytes,
    /// Ed25519, 32 bytes.
    #[prost(bytes = "bytes", tag = "5")]
    pub public_key: Bytes,
}

/// The feature of a client whose flows may outlive their carriers.
pub const RESUME: &str = "resume";
/// A carrier for flows that move much, which come to it from another by [`Resume`]: their windows may be larger.
pub const BULK: &str = "bulk";

/// What the client has to sign.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Challenge {
    /// 32 random bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub nonce: Bytes,
    /// Version of the agent, for people.
    #[prost(string, tag = "2")]
    pub agent_version: String,
    /// UID of the pod the agent lives in.
    #[prost(string, tag = "3")]
    pub pod_uid: String,
    /// The protocol chosen.
    #[prost(uint32, tag = "4")]
    pub protocol: u32,
}

/// The signature, and what is asked under it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Proof {
    /// Ed25519 over [`crate::handshake::signed_bytes`].
    #[prost(bytes = "bytes", tag = "1")]
    pub signature: Bytes,
    /// Prefixes beyond the usual that the agent may dial for this session.
    #[prost(string, repeated, tag = "2")]
    pub allowed_special: Vec<String>,
}

/// The carrier may be used.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Welcome {
    /// Limits.
    #[prost(message, optional, tag = "1")]
    pub limits: Option<Limits>,
    /// `search` of the pod's resolv.conf.
    #[prost(string, repeated, tag = "2")]
    pub search: Vec<String>,
    /// `nameserver`s of the pod's resolv.conf.
    #[prost(string, repeated, tag = "3")]
    pub nameservers: Vec<String>,
    /// The pod has an IPv4 address.
    #[prost(bool, tag = "4")]
    pub ipv4: bool,
    /// The pod has an IPv6 address.
    #[prost(bool, tag = "5")]
    pub ipv6: bool,
    /// The pod may send ICMP echo.
    #[prost(bool, tag = "6")]
    pub icmp: bool,
    /// 16 random bytes of this run of the agent, told to authenticated clients only: flows go on with no other.
    #[prost(bytes = "bytes", tag = "7")]
    pub run: Bytes,
}

/// Limits of the agent.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Limits {
    /// Flows of one session.
    #[prost(uint32, tag = "1")]
    pub flows: u32,
    /// Bytes buffered for one session.
    #[prost(uint64, tag = "2")]
    pub buffer_bytes: u64,
    /// Longest dial.
    #[prost(uint32, tag = "3")]
    pub dial_timeout_ms: u32,
    /// UDP associations end after this long without a datagram, where `Open` says nothing else.
    #[prost(uint32, tag = "4")]
    pub udp_idle_ms: u32,
    /// How long a flow outlives its carrier; 0 where `Resume` is not served.
    #[prost(uint32, tag = "5")]
    pub resume_window_ms: u32,
}

/// The carrier may not be used.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Denied {
    /// Why.
    #[prost(string, tag = "1")]
    pub reason: String,
    /// The lowest version that the agent speaks, where none is common; else 0.
    #[prost(uint32, tag = "2")]
    pub protocol_min: u32,
    /// The highest one; else 0.
    #[prost(uint32, tag = "3")]
    pub protocol_max: u32,
    /// The agent takes another key.
    #[prost(bool, tag = "4")]
    pub wrong_key: bool,
}

/// Heartbeat.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Ping {
    /// Given back in the pong.
    #[prost(uint64, tag = "1")]
    pub id: u64,
}

/// Answer to a ping.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Pong {
    /// That of the ping.
    #[prost(uint64, tag = "1")]
    pub id: u64,
}

/// The agent was asked to end: no new flows.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Draining {}

/// Counters of the agent.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Stats {
    /// Flows open.
    #[prost(uint32, tag = "1")]
    pub flows: u32,
    /// Bytes buffered.
    #[prost(uint64, tag = "2")]
    pub buffered_bytes: u64,
    /// Flows refused since the start.
    #[prost(uint64, tag = "3")]
    pub refused: u64,
}

/// One frame of a `Flow` call.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FlowFrame {
    /// The frame; `None` for one that is newer than we are, which is skipped.
    #[prost(oneof = "flow_frame::Frame", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12")]
    pub frame: Option<flow_frame::Frame>,
}

/// Frames of `Flow`.
pub mod flow_frame {
    /// Which frame.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Frame {
        /// Dial.
        #[prost(message, tag = "1")]
        Open(super::Open),
        /// Dialled.
        #[prost(message, tag = "2")]
        Opened(super::Opened),
        /// Not dialled.
        #[prost(message, tag = "3")]
        Failed(super::Failed),
        /// Go on with a flow whose carrier died.
        #[prost(message, tag = "4")]
        Resume(super::Resume),
        /// Going on.
        #[prost(message, tag = "5")]
        Resumed(super::Resumed),
        /// One more carrier for a flow.
        #[prost(message, tag = "6")]
        Attach(super::Attach),
        /// Bytes, or one datagram.
        #[prost(message, tag = "7")]
        Data(super::Data),
        /// Credit.
        #[prost(message, tag = "8")]
        Ack(super::Ack),
        /// Half-close of the sender's direction.
        #[prost(message, tag = "9")]
        Fin(super::Fin),
        /// Both directions, at once.
        #[prost(message, tag = "10")]
        Reset(super::Reset),
        /// Credit, asked back.
        #[prost(message, tag = "11")]
        Recall(super::Recall),
        /// Credit, given back.
        #[prost(message, tag = "12")]
        Yielded(super::Yielded),
    }
}

/// Transport of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Protocol {
    /// A connection.
    Tcp = 0,
    /// An association.
    Udp = 1,
}

/// Why a flow was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Failure {
    /// None of the others.
    Unspecified = 0,
    /// ECONNREFUSED.
    Refused = 1,
    /// EHOSTUNREACH.
    HostUnreachable = 2,
    /// ENETUNREACH.
    NetUnreachable = 3,
    /// No answer in time.
    TimedOut = 4,
    /// An address that the agent does not dial.
    Forbidden = 5,
    /// The limit of flows.
    Limit = 6,
    /// `Resume` of a flow the agent does not hold.
    UnknownFlow = 7,
}

/// Dial.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Open {
    /// 16 random bytes, used once.
    #[prost(bytes = "bytes", tag = "1")]
    pub flow_id: Bytes,
    /// Transport.
    #[prost(enumeration = "Protocol", tag = "2")]
    pub protocol: i32,
    /// 4 or 16 bytes.
    #[prost(bytes = "bytes", tag = "3")]
    pub address: Bytes,
    /// Port.
    #[prost(uint32, tag = "4")]
    pub port: u32,
    /// Longest dial; 0 is the agent's own limit.
    #[prost(uint32, tag = "5")]
    pub dial_timeout_ms: u32,
    /// The highest offset that the agent may send before the first `Ack`.
    #[prost(uint64, tag = "6")]
    pub limit: u64,
    /// How long an association lives without a datagram, at most [`crate::UDP_IDLE_MOST`]; 0 is the agent's own limit.
    #[prost(uint32, tag = "7")]
    pub udp_idle_ms: u32,
}

/// Dialled.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Opened {
    /// The agent's end, for people.
    #[prost(string, tag = "1")]
    pub local_address: String,
    /// The highest offset that the client may send before the first `Ack`.
    #[prost(uint64, tag = "2")]
    pub limit: u64,
}

/// Not dialled.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Failed {
    /// Why.
    #[prost(enumeration = "Failure", tag = "1")]
    pub failure: i32,
}

/// Go on with a flow whose carrier died.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Resume {
    /// Which.
    #[prost(bytes = "bytes", tag = "1")]
    pub flow_id: Bytes,
    /// Bytes that this side has, and one more once it has the `Fin`.
    #[prost(uint64, tag = "2")]
    pub received: u64,
}

/// Going on.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Resumed {
    /// Bytes that this side has, and one more once it has the `Fin`.
    #[prost(uint64, tag = "1")]
    pub received: u64,
}

/// One more carrier for a flow.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Attach {
    /// Which.
    #[prost(bytes = "bytes", tag = "1")]
    pub flow_id: Bytes,
    /// Bytes that this side has, and one more once it has the `Fin`.
    #[prost(uint64, tag = "2")]
    pub received: u64,
}

/// TCP: the bytes from `offset` on. UDP: exactly one datagram.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Data {
    /// Offset of the first byte in its direction.
    #[prost(uint64, tag = "1")]
    pub offset: u64,
    /// The bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub bytes: Bytes,
}

/// What is here, and credit.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Ack {
    /// Bytes that this side has so far, and one more once it has the `Fin`.
    #[prost(uint64, tag = "1")]
    pub received: u64,
    /// The highest offset that may be sent; one that is not higher than before says nothing new.
    #[prost(uint64, tag = "2")]
    pub limit: u64,
}

/// Half-close.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Fin {}

/// The reason of a [`Reset`] that means something to a program: the far side of an association said that nobody listens.
pub const REFUSED: &str = "refused";

/// The reason of a [`Reset`] of a flow whose peer broke its credit.
pub const CREDIT_BROKEN: &str = "more was sent than was granted";

/// The end of both directions.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Reset {
    /// Why, for people; [`REFUSED`] for programs too.
    #[prost(string, tag = "1")]
    pub reason: String,
}

/// The receiver would like back what it granted beyond `limit`. Who does not know this frame keeps it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Recall {
    /// An offset.
    #[prost(uint64, tag = "1")]
    pub limit: u64,
}

/// The sender's answer, after all that it sent before: it will not send beyond `limit` without a new `Ack`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Yielded {
    /// That of the recall, or what was sent already.
    #[prost(uint64, tag = "1")]
    pub limit: u64,
}

/// A raw DNS message (RFC 1035).
#[derive(Clone, PartialEq, prost::Message)]
pub struct DnsQuery {
    /// The message.
    #[prost(bytes = "bytes", tag = "1")]
    pub message: Bytes,
    /// How long the agent may take.
    #[prost(uint32, tag = "2")]
    pub timeout_ms: u32,
}

/// The raw answer; empty when no server answered.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DnsAnswer {
    /// The message.
    #[prost(bytes = "bytes", tag = "1")]
    pub message: Bytes,
}

/// One echo request (RFC 792, RFC 4443); its identifier is the agent's.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EchoRequest {
    /// 4 or 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub address: Bytes,
    /// Its sequence number, 16 bits.
    #[prost(uint32, tag = "2")]
    pub sequence: u32,
    /// What is sent, and comes back.
    #[prost(bytes = "bytes", tag = "3")]
    pub payload: Bytes,
    /// How long the agent may wait.
    #[prost(uint32, tag = "4")]
    pub timeout_ms: u32,
}

/// What came of it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EchoReply {
    /// Whether the address answered.
    #[prost(bool, tag = "1")]
    pub answered: bool,
    /// Why not.
    #[prost(enumeration = "Failure", tag = "2")]
    pub failure: i32,
    /// What came back.
    #[prost(bytes = "bytes", tag = "3")]
    pub payload: Bytes,
}
