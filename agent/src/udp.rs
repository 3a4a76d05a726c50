//! One UDP association: a connected socket, one datagram a frame, ended by silence or by the far side's refusal.
#![expect(clippy::disallowed_methods, reason = "the idle time is measured with the clock")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use podway_tunnel::MAX_DATA;
use podway_tunnel::frames::{FlowFrame, Opened, REFUSED, Reset, flow_frame};
use podway_tunnel::wire::{Reader, Writer};
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};

use crate::server::Shared;
use crate::tcp::{failure, refuse};

/// Datagrams that are passed on before anything else is looked at.
const AT_ONCE: usize = 32;

/// Serves one association until it is over, by silence after `idle`.
pub async fn serve(to: SocketAddr, idle: Duration, mut reader: Reader, mut writer: Writer, shared: Arc<Shared>) {
    let local: SocketAddr = match to {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let connected = async {
        let socket = UdpSocket::bind(local).await?;
        // Where that is refused, only datagrams that are too long for their path are lost.
        drop(let_routers_cut(&socket, to));
        socket.connect(to).await?;
        Ok(socket)
    };
    let socket = match connected.await {
        Ok(socket) => socket,
        Err(error) => return refuse(&mut writer, failure(&error), &shared),
    };
    if writer.send_flow(flow_frame::Frame::Opened(Opened::default())).is_err() {
        return;
    }
    let mut buffer = vec![0; MAX_DATA];
    let mut idle_at = Instant::now() + idle;
    let reason = loop {
        tokio::select! {
            frame = reader.next::<FlowFrame>() => match frame {
                Some(Ok(frame)) => match frame.frame {
                    Some(flow_frame::Frame::Data(data)) => {
                        idle_at = Instant::now() + idle;
                        // A full socket drops it, as a network does; a refusal of an earlier one ends the association.
                        if let Err(error) = socket.try_send(&data.bytes)
                            && error.kind() == io::ErrorKind::ConnectionRefused
                        {
                            break REFUSED;
                        }
                    }
                    Some(flow_frame::Frame::Reset(_) | flow_frame::Frame::Fin(_)) => return writer.finish_ok(),
                    _ => {}
                },
                Some(Err(_)) | None => return writer.finish_ok(),
            },
            received = socket.recv(&mut buffer) => {
                match received.and_then(|length| pass_on(&socket, length, &mut buffer, &mut writer)) {
                    Ok(true) => idle_at = Instant::now() + idle,
                    Ok(false) => return,
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => break REFUSED,
                    Err(_) => break "the socket failed",
                }
                // The socket may stay readable for ever.
                tokio::task::consume_budget().await;
            }
            () = sleep_until(idle_at) => break "idle",
        }
    };
    drop(writer.send_flow(flow_frame::Frame::Reset(Reset { reason: reason.to_owned() })));
    writer.finish_ok();
}

/// Lets each part of the way cut what is too long for it (IPv4) or say so to the kernel alone (IPv6): the program that sent it
/// is not here to be told, and an error would end its association.
///
/// # Errors
///
/// Those of the socket.
fn let_routers_cut(socket: &UdpSocket, to: SocketAddr) -> io::Result<()> {
    match to {
        SocketAddr::V4(_) => sockopt::set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::DONT)?,
        SocketAddr::V6(_) => sockopt::set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::DONT)?,
    }
    Ok(())
}

/// Passes a datagram on, and some of those behind it; false once nobody hears it.
///
/// # Errors
///
/// Those of the socket.
fn pass_on(socket: &UdpSocket, mut length: usize, buffer: &mut [u8], writer: &mut Writer) -> io::Result<bool> {
    let mut cx = Context::from_waker(Waker::noop());
    for turn in 1.. {
        let datagram = buffer.get(..length).unwrap_or_default();
        match writer.poll_room(&mut cx) {
            Poll::Ready(Ok(_)) if writer.send_data(0, Bytes::copy_from_slice(datagram)).is_ok() => {}
            // Congested: dropped, as a network does.
            Poll::Pending => {}
            Poll::Ready(_) => return Ok(false),
        }
        if turn == AT_ONCE {
            break;
        }
        length = match socket.try_recv(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            received => received?,
        };
    }
    Ok(true)
}
