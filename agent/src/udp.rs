//! One UDP association: a connected socket, one datagram a frame, ended by silence or by the far side's refusal.
#![expect(clippy::disallowed_methods, reason = "the idle time is measured with the clock")]

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use podway_tunnel::MAX_DATA;
use podway_tunnel::frames::{FlowFrame, Opened, REFUSED, Reset, flow_frame};
use podway_tunnel::wire::{Reader, Writer};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};

use crate::server::Shared;
use crate::tcp::{failure, refuse};

/// Serves one association until it is over.
pub async fn serve(to: SocketAddr, mut reader: Reader, mut writer: Writer, shared: Arc<Shared>) {
    let local: SocketAddr = match to {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let connected = async {
        let socket = UdpSocket::bind(local).await?;
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
    let mut idle_at = Instant::now() + shared.limits.udp_idle;
    let reason = loop {
        tokio::select! {
            frame = reader.next::<FlowFrame>() => match frame {
                Some(Ok(frame)) => match frame.frame {
                    Some(flow_frame::Frame::Data(data)) => {
                        idle_at = Instant::now() + shared.limits.udp_idle;
                        // A full socket drops it, as a network does; a refusal of an earlier one ends the association.
                        if let Err(error) = socket.try_send(&data.bytes)
                            && error.kind() == std::io::ErrorKind::ConnectionRefused
                        {
                            break REFUSED;
                        }
                    }
                    Some(flow_frame::Frame::Reset(_) | flow_frame::Frame::Fin(_)) => return writer.finish_ok(),
                    _ => {}
                },
                Some(Err(_)) | None => return writer.finish_ok(),
            },
            received = socket.recv(&mut buffer) => match received {
                Ok(length) => {
                    idle_at = Instant::now() + shared.limits.udp_idle;
                    let Some(datagram) = buffer.get(..length) else { continue };
                    let room = std::future::poll_fn(|cx| std::task::Poll::Ready(writer.poll_room(cx))).await;
                    match room {
                        std::task::Poll::Ready(Ok(_)) => {
                            if writer.send_data(0, Bytes::copy_from_slice(datagram)).is_err() {
                                return;
                            }
                        }
                        // Congested: dropped, as a network does.
                        std::task::Poll::Pending => {}
                        std::task::Poll::Ready(Err(_)) => return,
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => break REFUSED,
                Err(_) => break "the socket failed",
            },
            () = sleep_until(idle_at) => break "idle",
        }
    };
    drop(writer.send_flow(flow_frame::Frame::Reset(Reset { reason: reason.to_owned() })));
    writer.finish_ok();
}
