//! Echo requests by the kernel's ping sockets (icmp(7), IPPROTO_ICMP datagrams): no capability is needed, only a group
//! within `net.ipv4.ping_group_range`. The kernel chooses the identifier and hands over the answers to it.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket as StdSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use podway_tunnel::frames::Failure;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::tcp::failure;

/// Type, code, checksum, identifier, sequence number (RFC 792, RFC 4443).
const HEADER: usize = 8;

/// Whether this pod may send echo requests.
pub fn is_possible() -> bool {
    open(Domain::IPV4).is_ok()
}

/// Sends one echo request and waits for its answer. Cancel safe.
///
/// # Errors
/// What the kernel said, or that nothing came within `limit`.
pub async fn echo(to: IpAddr, sequence: u16, payload: &[u8], limit: Duration) -> Result<Vec<u8>, Failure> {
    let (domain, request, reply) = match to {
        IpAddr::V4(_) => (Domain::IPV4, 8, 0),
        IpAddr::V6(_) => (Domain::IPV6, 128, 129),
    };
    let answered = async {
        let socket = open(domain)?;
        socket.connect(&SocketAddr::new(to, 0).into())?;
        let socket = UdpSocket::from_std(StdSocket::from(OwnedFd::from(socket)))?;
        // The kernel writes identifier and checksum.
        let header = [&[request, 0, 0, 0, 0, 0][..], &sequence.to_be_bytes()].concat();
        socket.send(&[&header, payload].concat()).await?;
        let mut buffer = vec![0; HEADER + payload.len() + 1];
        loop {
            let length = socket.recv(&mut buffer).await?;
            let is_ours = buffer.first() == Some(&reply) && buffer.get(6..HEADER) == Some(&sequence.to_be_bytes());
            if let (true, Some(came)) = (is_ours, buffer.get(HEADER..length)) {
                return Ok(came.to_vec());
            }
        }
    };
    match timeout(limit, answered).await {
        Ok(came) => came.map_err(|error: io::Error| failure(&error)),
        Err(_) => Err(Failure::TimedOut),
    }
}

fn open(domain: Domain) -> io::Result<Socket> {
    let protocol = if domain == Domain::IPV6 { Protocol::ICMPV6 } else { Protocol::ICMPV4 };
    let socket = Socket::new(domain, Type::DGRAM, Some(protocol))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
