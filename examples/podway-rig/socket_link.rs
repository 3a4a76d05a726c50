//! A link without a carrier: each flow is a socket of its own, to the same port of one address.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf as _, Bytes, BytesMut};
use podway::net::agent::{AgentLink, FlowEnded, FlowEvent, OpenError, TcpFlow, UdpEnded, UdpFlow};
use tokio::io::ReadBuf;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::BLOCK;

/// Bytes that may wait in front of a full socket.
const ROOM: usize = 256 * 1024;

#[derive(Debug)]
pub struct SocketLink {
    pub to: IpAddr,
    pub datagrams_to: IpAddr,
}

#[async_trait]
impl AgentLink for SocketLink {
    async fn open_tcp(&self, to: SocketAddr, dial_timeout: Duration) -> Result<Box<dyn TcpFlow>, OpenError> {
        let dialled = timeout(dial_timeout, TcpStream::connect((self.to, to.port()))).await;
        let stream = dialled.map_err(|_| OpenError::TimedOut)?.map_err(why)?;
        stream.set_nodelay(true).map_err(why)?;
        let (waits, block) = (VecDeque::new(), BytesMut::new());
        Ok(Box::new(Flow { stream, waits, waiting: 0, fin: Fin::No, block, over: false, waker: None }))
    }

    async fn open_udp(&self, to: SocketAddr, _: Duration) -> Result<Box<dyn UdpFlow>, OpenError> {
        let any: IpAddr = if self.datagrams_to.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
        let socket = UdpSocket::bind((any, 0)).await.map_err(why)?;
        super::much_room(&socket).map_err(why)?;
        socket.connect((self.datagrams_to, to.port())).await.map_err(why)?;
        // Before that is known, nothing is sent.
        socket.writable().await.map_err(why)?;
        Ok(Box::new(Association { socket, block: vec![0; BLOCK] }))
    }

    async fn dns(&self, _: Bytes, _: Duration) -> Result<Bytes, OpenError> {
        Err(OpenError::Refused)
    }

    async fn echo(&self, _: IpAddr, _: u16, _: Bytes, _: Duration) -> Result<Bytes, OpenError> {
        Err(OpenError::Forbidden)
    }

    fn is_alive(&self) -> bool {
        true
    }
}

fn why(error: io::Error) -> OpenError {
    if error.kind() == io::ErrorKind::ConnectionRefused { OpenError::Refused } else { OpenError::HostUnreachable }
}

/// Whether our direction is to be closed, or is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fin {
    No,
    Asked,
    Sent,
}

struct Flow {
    stream: TcpStream,
    /// What the socket did not take yet.
    waits: VecDeque<Bytes>,
    waiting: usize,
    fin: Fin,
    block: BytesMut,
    /// The far side has ended.
    over: bool,
    /// Who polls: sending is no poll, so that what it leaves behind asks for one.
    waker: Option<Waker>,
}

impl Flow {
    /// Writes what waits; ready when nothing does.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
        while let Some(first) = self.waits.front_mut() {
            match self.stream.try_write(first) {
                Ok(length) => {
                    self.waiting -= length;
                    first.advance(length);
                    if first.is_empty() {
                        self.waits.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.stream.poll_write_ready(cx))?,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        if self.fin == Fin::Asked {
            self.fin = Fin::Sent;
            rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Write)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl TcpFlow for Flow {
    fn poll_send_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, FlowEnded>> {
        if let Poll::Ready(Err(_)) = self.poll_flush(cx) {
            return Poll::Ready(Err(FlowEnded));
        }
        match ROOM - self.waiting.min(ROOM) {
            0 => Poll::Pending,
            room => Poll::Ready(Ok(room)),
        }
    }

    fn send(&mut self, mut data: Bytes) -> Result<(), FlowEnded> {
        if self.waits.is_empty() {
            match self.stream.try_write(&data) {
                Ok(length) => data.advance(length),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(FlowEnded),
            }
        }
        if !data.is_empty() {
            self.waiting += data.len();
            self.waits.push_back(data);
            self.waker.iter().for_each(Waker::wake_by_ref);
        }
        Ok(())
    }

    fn send_fin(&mut self) {
        self.fin = Fin::Asked;
        // Else with what waits, when the socket takes that.
        if self.waits.is_empty() {
            self.fin = Fin::Sent;
            rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Write).ok();
        }
    }

    fn send_reset(&mut self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).ok();
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<FlowEvent> {
        if let Poll::Ready(Err(_)) = self.poll_flush(cx) {
            return Poll::Ready(FlowEvent::Reset);
        }
        if self.over {
            return Poll::Pending;
        }
        loop {
            self.block.reserve(BLOCK);
            match self.stream.try_read_buf(&mut self.block) {
                Ok(0) => {
                    self.over = true;
                    return Poll::Ready(FlowEvent::Fin);
                }
                Ok(_) => return Poll::Ready(FlowEvent::Data(self.block.split().freeze())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if ready!(self.stream.poll_read_ready(cx)).is_err() {
                        return Poll::Ready(FlowEvent::Reset);
                    }
                }
                Err(_) => {
                    self.over = true;
                    return Poll::Ready(FlowEvent::Reset);
                }
            }
        }
    }

    fn poll_arrivals(&mut self, cx: &mut Context<'_>) {
        // What the socket did not take still has to go.
        let _ = self.poll_flush(cx).is_ready();
    }
}

struct Association {
    socket: UdpSocket,
    block: Vec<u8>,
}

impl UdpFlow for Association {
    fn send(&mut self, datagram: Bytes) -> bool {
        self.socket.try_send(&datagram).is_ok()
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, UdpEnded>> {
        let mut buffer = ReadBuf::new(&mut self.block);
        match ready!(self.socket.poll_recv(cx, &mut buffer)) {
            Ok(()) => Poll::Ready(Ok(Bytes::copy_from_slice(buffer.filled()))),
            Err(_) => Poll::Ready(Err(UdpEnded::Refused)),
        }
    }
}
