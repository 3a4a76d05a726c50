//! The tunnel between `podwayd` and `podway-agent`.
//!
//! - [`frames`]: the messages; `proto/tunnel.proto` is their other form.
//! - [`handshake`]: who may use an agent.
//! - [`credit`]: how much of a flow may be under way. Pure.
//! - [`resume`]: what is kept of what was sent, so that a flow outlives its carrier. Pure.
//! - [`acks`], [`resend`]: when the peer is told what is here, and what goes out again.
//! - [`queue`]: what arrived and waits. Pure.
//! - [`review`]: when a flow gives back what it does not use.
//! - [`round_trip`]: how long the way is. Pure.
//! - [`unhurried`]: frames that nobody waits for.
//! - [`words`]: what a flow says about credit.
//! - [`wire`]: gRPC messages on HTTP/2 streams.
//! - [`client`]: the workstation's end.

pub mod acks;
pub mod assembly;
pub mod client;
pub mod credit;
pub mod frames;
pub mod handshake;
pub mod heap;
pub mod queue;
pub mod resend;
pub mod rest;
pub mod resume;
pub mod review;
pub mod round_trip;
pub mod unhurried;
pub mod wire;
pub mod words;

use std::ops::RangeInclusive;
use std::time::Duration;

/// The protocol version that this crate speaks.
pub const PROTOCOL: u32 = 1;
/// All of them, the lowest and the highest: what each side tells in `Hello`.
pub const PROTOCOLS: RangeInclusive<u32> = PROTOCOL..=PROTOCOL;
/// Flows of one session.
pub const MAX_FLOWS: u32 = 16_384;
/// Special prefixes that a session may ask for.
pub const MAX_SPECIAL: usize = 64;
/// Bytes of all flows that an agent may have granted or hold.
pub const AGENT_BUFFERS: u64 = 32 << 20;
/// Bytes of all flows of a session that the workstation may have granted or hold.
pub const WORKSTATION_BUFFERS: u64 = 32 << 20;
/// Bytes in one `Data` frame.
pub const MAX_DATA: usize = 64 * 1024;
/// Bytes of a stream that are sent in one: with all headers they fill four TLS records and two reads of a port-forward's
/// relays. A few more bytes would cost a record and a read of their own.
pub const STREAM_DATA: usize = MAX_DATA - 64;
/// A message longer than this is an error of its stream.
pub const MAX_MESSAGE: usize = 128 * 1024;
/// The longest silence that a UDP association may ask for: the agent keeps a socket for it meanwhile.
pub const UDP_IDLE_MOST: Duration = Duration::from_secs(2 * 3600);
/// How long a flow outlives its carrier.
pub const RESUME_WINDOW: Duration = Duration::from_secs(180);
/// A ping is sent this often.
pub const HEARTBEAT: Duration = Duration::from_millis(2500);
/// A carrier on which no byte came for this long is dead.
pub const SILENCE: Duration = Duration::from_millis(7500);

/// Path of the `Hello` call.
pub const HELLO_PATH: &str = "/podway.tunnel.v1.Tunnel/Hello";
/// Path of the `Flow` call.
pub const FLOW_PATH: &str = "/podway.tunnel.v1.Tunnel/Flow";
/// Path of the `Dns` call.
pub const DNS_PATH: &str = "/podway.tunnel.v1.Tunnel/Dns";
/// Path of the `Echo` call.
pub const ECHO_PATH: &str = "/podway.tunnel.v1.Tunnel/Echo";
/// Bytes in an echo request: with its header the most that an IPv6 packet carries. IPv4 takes 20 fewer.
pub const MAX_ECHO: usize = 65_527;

/// HTTP/2 windows are fixed and never the limit: each flow's own credit is. A smaller connection window would let
/// stalled flows stop all others.
pub const STREAM_WINDOW: u32 = 32 << 20;
/// See [`STREAM_WINDOW`].
pub const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
/// Largest HTTP/2 frame: a whole `Data` frame with its headers.
pub const FRAME_SIZE: u32 = (MAX_DATA + 1024) as u32;
/// Bytes of one flow that wait in front of the carrier: what bounds how long a bulk flow delays an interactive one. Four pieces
/// and the headers of three, which take 18 bytes each until an offset takes more, and not so much that something is left, which
/// would go as a tiny piece.
pub const SEND_BUFFER: usize = 4 * STREAM_DATA + 56;

pub use handshake::{decode_key, encode_key};
