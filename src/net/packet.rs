//! Checked views of packets, and the packets we write ourselves.
//!
//! Nothing here panics, whatever the bytes. Parts of packets are put together elsewhere (`fragments`); IPv6 extension headers
//! are not carried.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    IpAddress, IpProtocol, IpRepr, Ipv4Packet, Ipv6Packet, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket,
    UdpRepr,
};

/// Hop limit of packets we write.
const HOP_LIMIT: u8 = 64;

/// The hop limit of what programs here send to the device, by its routes. Whoever sends through this host has less, whatever
/// it chose (RFC 5082).
pub const FULL_HOPS: u8 = 255;

/// How much of a packet an ICMP error quotes: with both headers it stays within 576 bytes (RFC 1812 section 4.3.2.3).
const QUOTE_V4: usize = 548;

/// The same for ICMPv6, within 1280 bytes (RFC 4443 section 3.1).
const QUOTE_V6: usize = 1232;

/// What a flow is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The program's side.
    pub local: SocketAddr,
    /// What it speaks to.
    pub remote: SocketAddr,
}

/// The protocols that are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A packet from the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View<'a> {
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it goes.
    pub destination: IpAddr,
    /// How many hops it may still go.
    pub hops: u8,
    /// What it carries.
    pub body: Body<'a>,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// A TCP segment.
    Tcp {
        /// Source port.
        from: u16,
        /// Destination port.
        to: u16,
        /// Its flags.
        flags: TcpFlags,
    },
    /// A UDP datagram.
    Udp {
        /// Source port.
        from: u16,
        /// Destination port.
        to: u16,
        /// What is in it.
        payload: &'a [u8],
    },
    /// An ICMP or ICMPv6 echo request.
    Echo {
        /// Its sequence number.
        sequence: u16,
        /// What is to come back.
        payload: &'a [u8],
    },
}

/// The flags that decide what a segment is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags {
    /// Opens a connection.
    pub syn: bool,
    /// Acknowledges.
    pub ack: bool,
    /// Ends a connection at once.
    pub rst: bool,
    /// The sender will send nothing more.
    pub fin: bool,
}

impl TcpFlags {
    /// Whether this is the first segment of a connection.
    pub fn opens(self) -> bool {
        self.syn && !self.ack && !self.rst && !self.fin
    }
}

/// Why a packet is not carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Uncarried {
    /// It is not what its headers say.
    #[error("malformed")]
    Malformed,
    /// A part of a packet.
    #[error("fragment")]
    Fragment,
    /// Neither TCP, UDP nor an echo request.
    #[error("protocol not carried")]
    Protocol,
}

impl<'a> View<'a> {
    /// Reads a packet.
    pub fn parse(packet: &'a [u8]) -> Result<Self, Uncarried> {
        let (source, destination, hops, protocol, payload) = match packet.first().map(|b| b >> 4) {
            Some(4) => {
                let ip = Ipv4Packet::new_checked(packet).map_err(|_| Uncarried::Malformed)?;
                if ip.more_frags() || ip.frag_offset() != 0 {
                    return Err(Uncarried::Fragment);
                }
                (IpAddr::V4(ip.src_addr()), IpAddr::V4(ip.dst_addr()), ip.hop_limit(), ip.next_header(), ip.payload())
            }
            Some(6) => {
                let ip = Ipv6Packet::new_checked(packet).map_err(|_| Uncarried::Malformed)?;
                if ip.next_header() == IpProtocol::Ipv6Frag {
                    return Err(Uncarried::Fragment);
                }
                (IpAddr::V6(ip.src_addr()), IpAddr::V6(ip.dst_addr()), ip.hop_limit(), ip.next_header(), ip.payload())
            }
            Some(_) | None => return Err(Uncarried::Malformed),
        };
        let body = if protocol == IpProtocol::Tcp {
            let tcp = TcpPacket::new_checked(payload).map_err(|_| Uncarried::Malformed)?;
            let flags = TcpFlags { syn: tcp.syn(), ack: tcp.ack(), rst: tcp.rst(), fin: tcp.fin() };
            Body::Tcp { from: tcp.src_port(), to: tcp.dst_port(), flags }
        } else if protocol == IpProtocol::Udp {
            let udp = UdpPacket::new_checked(payload).map_err(|_| Uncarried::Malformed)?;
            Body::Udp { from: udp.src_port(), to: udp.dst_port(), payload: udp.payload() }
        } else {
            let request = match (source, protocol) {
                (IpAddr::V4(_), IpProtocol::Icmp) => 8,
                (IpAddr::V6(_), IpProtocol::Icmpv6) => 128,
                _ => return Err(Uncarried::Protocol),
            };
            match payload {
                [kind, 0, _, _, _, _, high, low, payload @ ..] if *kind == request => {
                    Body::Echo { sequence: u16::from_be_bytes([*high, *low]), payload }
                }
                [_, _, _, _, _, _, _, _, ..] => return Err(Uncarried::Protocol),
                _ => return Err(Uncarried::Malformed),
            }
        };
        Ok(Self { source, destination, hops, body })
    }

    /// What its flow is known by; `None` for an echo request, which has none.
    pub fn key(&self) -> Option<FlowKey> {
        let (protocol, from, to) = match self.body {
            Body::Tcp { from, to, .. } => (Protocol::Tcp, from, to),
            Body::Udp { from, to, .. } => (Protocol::Udp, from, to),
            Body::Echo { .. } => return None,
        };
        let (local, remote) = (SocketAddr::new(self.source, from), SocketAddr::new(self.destination, to));
        Some(FlowKey { protocol, local, remote })
    }
}

/// The flags of a TCP packet; none at all when it is none.
pub fn tcp_flags(packet: &[u8]) -> TcpFlags {
    match View::parse(packet) {
        Ok(View { body: Body::Tcp { flags, .. }, .. }) => flags,
        Ok(View { body: Body::Udp { .. } | Body::Echo { .. }, .. }) | Err(_) => TcpFlags::default(),
    }
}

/// What an ICMP error says (RFC 792, RFC 4443).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// No way to the network.
    Net,
    /// No way to the host.
    Host,
    /// Nobody listens on the port.
    Port,
    /// Forbidden by whoever runs the network.
    Admin,
}

/// Writes the ICMP or ICMPv6 error that answers `packet`, in the name of its destination. `None` when it is no packet.
pub fn unreachable(packet: &[u8], why: Unreachable) -> Option<Vec<u8>> {
    let view = View::parse(packet).ok()?;
    error(view.source, view.destination, packet, why)
}

/// What an ICMP error has to have of a packet, without the rest of it.
#[derive(Clone, Debug)]
pub struct Quote {
    source: IpAddr,
    destination: IpAddr,
    head: Bytes,
}

impl Quote {
    /// Of this packet; `None` when it is none.
    pub fn of(packet: &[u8]) -> Option<Quote> {
        let View { source, destination, .. } = View::parse(packet).ok()?;
        // Its own bytes: a slice would keep what the packet came in.
        let head = Bytes::copy_from_slice(quoted(source, packet));
        Some(Quote { source, destination, head })
    }

    /// As [`unreachable()`] of the packet.
    pub fn unreachable(&self, why: Unreachable) -> Option<Vec<u8>> {
        error(self.source, self.destination, &self.head, why)
    }
}

/// As much as an error to that host quotes.
fn quoted(to: IpAddr, packet: &[u8]) -> &[u8] {
    let most = if to.is_ipv4() { QUOTE_V4 } else { QUOTE_V6 };
    &packet[..packet.len().min(most)]
}

/// The error that answers a packet, or its head.
fn error(source: IpAddr, destination: IpAddr, packet: &[u8], why: Unreachable) -> Option<Vec<u8>> {
    let (protocol, kind, code) = match (source, why) {
        (IpAddr::V4(_), Unreachable::Net) => (IpProtocol::Icmp, 3, 0),
        (IpAddr::V4(_), Unreachable::Host) => (IpProtocol::Icmp, 3, 1),
        (IpAddr::V4(_), Unreachable::Port) => (IpProtocol::Icmp, 3, 3),
        (IpAddr::V4(_), Unreachable::Admin) => (IpProtocol::Icmp, 3, 13),
        (IpAddr::V6(_), Unreachable::Net) => (IpProtocol::Icmpv6, 1, 0),
        (IpAddr::V6(_), Unreachable::Host) => (IpProtocol::Icmpv6, 1, 3),
        (IpAddr::V6(_), Unreachable::Port) => (IpProtocol::Icmpv6, 1, 4),
        (IpAddr::V6(_), Unreachable::Admin) => (IpProtocol::Icmpv6, 1, 1),
    };
    icmp(destination, source, protocol, [kind, code], [0; 4], quoted(source, packet))
}

/// Writes the answer to an echo request; its payload is what came back. `None` when `request` is none.
pub fn echo_reply(request: &[u8], payload: &[u8]) -> Option<Vec<u8>> {
    let view = View::parse(request).ok()?;
    let (whole, protocol, kind) = match view.source {
        IpAddr::V4(_) => (Ipv4Packet::new_checked(request).ok()?.payload(), IpProtocol::Icmp, 0),
        IpAddr::V6(_) => (Ipv6Packet::new_checked(request).ok()?.payload(), IpProtocol::Icmpv6, 129),
    };
    let (Body::Echo { .. }, Some(id)) = (view.body, whole.get(4..8)) else { return None };
    icmp(view.destination, view.source, protocol, [kind, 0], id.try_into().ok()?, payload)
}

/// Writes an ICMP or ICMPv6 message: type and code, what follows the checksum, the rest.
fn icmp(
    from: IpAddr,
    to: IpAddr,
    protocol: IpProtocol,
    [kind, code]: [u8; 2],
    words: [u8; 4],
    rest: &[u8],
) -> Option<Vec<u8>> {
    if 8 + rest.len() > longest(from) {
        return None;
    }
    let (mut bytes, start) = ip_packet(from, to, protocol, 8 + rest.len());
    let icmp = bytes.get_mut(start..)?;
    icmp[0] = kind;
    icmp[1] = code;
    icmp[4..8].copy_from_slice(&words);
    icmp[8..].copy_from_slice(rest);
    let pseudo = pseudo_header(from, to, protocol.into(), icmp.len());
    let sum = checksum(&[&pseudo, icmp]);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    Some(bytes)
}

/// Whether the checksum of what follows the IP header is right, of the protocols that are carried. Others are not looked at.
pub(crate) fn is_whole(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> bool {
    let is_summed = if protocol == u8::from(IpProtocol::Udp) {
        // A sum of zero says that there is none (RFC 768).
        payload.get(6..8).is_some_and(|sum| sum != [0, 0])
    } else {
        [IpProtocol::Tcp, IpProtocol::Icmp, IpProtocol::Icmpv6].contains(&IpProtocol::from(protocol))
    };
    !is_summed || checksum(&[&pseudo_header(from, to, protocol, payload.len()), payload]) == 0
}

/// What a checksum covers besides the message; nothing for ICMP (RFC 792).
fn pseudo_header(from: IpAddr, to: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let length = u32::try_from(length).unwrap_or(0);
    let tail = [length.to_be_bytes(), [0, 0, 0, protocol]].concat();
    match (from, to) {
        (IpAddr::V4(_), _) if protocol == u8::from(IpProtocol::Icmp) => Vec::new(),
        (IpAddr::V4(from), IpAddr::V4(to)) => [from.octets().as_slice(), &to.octets(), &tail].concat(),
        (IpAddr::V6(from), IpAddr::V6(to)) => [from.octets().as_slice(), &to.octets(), &tail].concat(),
        (IpAddr::V4(_) | IpAddr::V6(_), IpAddr::V4(_) | IpAddr::V6(_)) => Vec::new(),
    }
}

/// Writes the reset that answers a TCP segment to a connection that is not there (RFC 9293 section 3.10.7.1). `None` when
/// it is no TCP segment, or itself a reset.
pub fn reset(packet: &[u8]) -> Option<Vec<u8>> {
    let view = View::parse(packet).ok()?;
    let payload = match view.source {
        IpAddr::V4(_) => Ipv4Packet::new_checked(packet).ok()?.payload(),
        IpAddr::V6(_) => Ipv6Packet::new_checked(packet).ok()?.payload(),
    };
    let Body::Tcp { from, to, flags } = view.body else {
        return None;
    };
    if flags.rst {
        return None;
    }
    let segment = TcpPacket::new_checked(payload).ok()?;
    let (sequence, acknowledged) = if flags.ack {
        (segment.ack_number(), None)
    } else {
        (TcpSeqNumber(0), Some(segment.seq_number() + segment.segment_len()))
    };
    let answer = TcpRepr {
        src_port: to,
        dst_port: from,
        control: TcpControl::Rst,
        seq_number: sequence,
        ack_number: acknowledged,
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let (mut bytes, start) = ip_packet(view.destination, view.source, IpProtocol::Tcp, answer.buffer_len());
    let (source, destination) = (IpAddress::from(view.destination), IpAddress::from(view.source));
    let mut tcp = TcpPacket::new_unchecked(bytes.get_mut(start..)?);
    answer.emit(&mut tcp, &source, &destination, &ChecksumCapabilities::default());
    Some(bytes)
}

/// Writes a datagram, whatever the device's MTU: that is for what comes from the device, and a kernel takes any packet. `None`
/// when the families differ or it is longer than a packet can be.
pub fn datagram(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Option<Vec<u8>> {
    if from.is_ipv4() != to.is_ipv4() || 8 + payload.len() > longest(from.ip()) {
        return None;
    }
    let (mut bytes, start) = ip_packet(from.ip(), to.ip(), IpProtocol::Udp, 8 + payload.len());
    let (source, destination) = (IpAddress::from(from.ip()), IpAddress::from(to.ip()));
    let repr = UdpRepr { src_port: from.port(), dst_port: to.port() };
    let mut udp = UdpPacket::new_unchecked(bytes.get_mut(start..)?);
    let write = |body: &mut [u8]| body.copy_from_slice(payload);
    repr.emit(&mut udp, &source, &destination, payload.len(), write, &ChecksumCapabilities::default());
    Some(bytes)
}

/// The most that a packet of its family carries: the length of IPv6 does not count the header.
fn longest(from: IpAddr) -> usize {
    usize::from(u16::MAX) - if from.is_ipv4() { 20 } else { 0 }
}

/// A zeroed packet with its IP header written, and where its payload starts. Both addresses are of one family.
fn ip_packet(from: IpAddr, to: IpAddr, protocol: IpProtocol, length: usize) -> (Vec<u8>, usize) {
    let repr = IpRepr::new(from.into(), to.into(), protocol, length, HOP_LIMIT);
    let start = repr.header_len();
    let mut bytes = vec![0; start + length];
    repr.emit(&mut bytes, &ChecksumCapabilities::default());
    (bytes, start)
}

/// The internet checksum (RFC 1071) of the parts one after the other; each but the last of even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for part in parts {
        for pair in part.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u64::from(u16::from_be_bytes([pair[0], low]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}
