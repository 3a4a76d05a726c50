//! UDP that answers from the address it was asked at: a pod has those of its services too.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd as _;

use nix::libc::{in_pktinfo, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use tokio::io::Interest;

use super::{Bind, LOCAL};

/// The largest datagram.
const LARGEST: usize = 65_536;

/// One socket.
#[derive(Debug)]
pub struct UdpServer(tokio::net::UdpSocket);

/// At which address of ours a datagram came.
#[derive(Clone, Copy, Debug)]
enum At {
    V4(in_pktinfo),
    V6(in6_pktinfo),
}

impl At {
    fn address(self) -> IpAddr {
        match self {
            At::V4(info) => Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into(),
            At::V6(info) => Ipv6Addr::from(info.ipi6_addr.s6_addr).into(),
        }
    }
}

impl UdpServer {
    /// Sockets for a port.
    pub fn bind(bind: &Bind, port: u16) -> io::Result<Vec<UdpServer>> {
        match bind {
            Bind::All => [Ipv4Addr::UNSPECIFIED.into(), IpAddr::from(Ipv6Addr::UNSPECIFIED)]
                .into_iter()
                .map(|address| UdpServer::on((address, port).into()))
                .collect(),
            Bind::Only(addresses) => {
                let own: io::Result<Vec<_>> =
                    addresses.iter().map(|address| UdpServer::on((*address, port).into())).collect();
                let mut all = own?;
                all.extend(LOCAL.into_iter().filter_map(|address| UdpServer::on((address, port).into()).ok()));
                Ok(all)
            }
        }
    }

    fn on(address: SocketAddr) -> io::Result<UdpServer> {
        use socket2::{Domain, Protocol, Socket, Type};
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        }
        socket.bind(&address.into()).map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?;
        socket.set_nonblocking(true)?;
        Ok(UdpServer(tokio::net::UdpSocket::from_std(UdpSocket::from(socket))?))
    }

    /// Answers each datagram with what `answer` makes of it and of the address it was sent to.
    pub async fn serve(&self, mut answer: impl FnMut(&[u8], Option<IpAddr>) -> Option<Vec<u8>>) {
        let mut buffer = vec![0; LARGEST];
        loop {
            // What is wrong with one datagram, as an earlier one that was refused, says nothing of the next.
            let Ok((length, from, at)) = self.receive(&mut buffer).await else {
                tokio::task::yield_now().await;
                continue;
            };
            if let Some(reply) = answer(&buffer[..length], at.map(At::address)) {
                self.send(&reply, from, at).await.ok();
            }
        }
    }

    async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr, Option<At>)> {
        self.0
            .async_io(Interest::READABLE, || {
                let mut space = nix::cmsg_space!(in6_pktinfo, in_pktinfo);
                let mut parts = [IoSliceMut::new(buffer)];
                let message =
                    recvmsg::<SockaddrStorage>(self.0.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty())?;
                let from = message.address.as_ref().and_then(address).ok_or_else(|| io::Error::other("no sender"))?;
                #[expect(clippy::wildcard_enum_match_arm, reason = "only these were asked for")]
                let at = message.cmsgs()?.find_map(|control| match control {
                    ControlMessageOwned::Ipv4PacketInfo(info) => Some(At::V4(info)),
                    ControlMessageOwned::Ipv6PacketInfo(info) => Some(At::V6(info)),
                    _ => None,
                });
                Ok((message.bytes, from, at))
            })
            .await
    }

    async fn send(&self, data: &[u8], to: SocketAddr, at: Option<At>) -> io::Result<()> {
        let to = SockaddrStorage::from(to);
        self.0
            .async_io(Interest::WRITABLE, || {
                let parts = [IoSlice::new(data)];
                // Routes decide over which device.
                let sent = match at {
                    Some(At::V4(info)) => {
                        let info = in_pktinfo { ipi_ifindex: 0, ..info };
                        let control = [ControlMessage::Ipv4PacketInfo(&info)];
                        sendmsg(self.0.as_raw_fd(), &parts, &control, MsgFlags::empty(), Some(&to))
                    }
                    Some(At::V6(info)) => {
                        let info = in6_pktinfo { ipi6_ifindex: 0, ..info };
                        let control = [ControlMessage::Ipv6PacketInfo(&info)];
                        sendmsg(self.0.as_raw_fd(), &parts, &control, MsgFlags::empty(), Some(&to))
                    }
                    None => sendmsg(self.0.as_raw_fd(), &parts, &[], MsgFlags::empty(), Some(&to)),
                };
                Ok(sent.map(drop)?)
            })
            .await
    }
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|address| SocketAddr::from(SocketAddrV4::from(*address)));
    v4.or_else(|| storage.as_sockaddr_in6().map(|address| SocketAddr::from(SocketAddrV6::from(*address))))
}
