//! Port-forwards over a WebSocket: `v4.channel.k8s.io`, or SPDY in messages.
//!
//! With channels each message begins with the number of a channel: twice the place of the port for its bytes, one more for its errors.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, Request};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

use super::super::Kubelet;
use super::super::answer::{self, Answer};
use super::super::respond::Call;
use super::super::serve::Connection;
use super::super::status::Status;
use super::forward::{Outbound, forward};
use super::{Pod, spdy};
use crate::faults::link::LinkStream;

/// Channels in messages.
const CHANNELS: &str = "v4.channel.k8s.io";
/// SPDY in messages.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// Messages under way between the parts of a port-forward, in each direction.
const UNDER_WAY: usize = 8;
/// Most ports of one request: channels have one byte.
const PORTS: usize = 127;

/// The protocol inside the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Channels, named or not.
    Channels(&'static str),
    /// SPDY.
    Tunnel,
}

impl Protocol {
    /// The one to speak of those offered; without an offer channels, unnamed.
    pub fn choose(headers: &HeaderMap) -> Option<Protocol> {
        let offers = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
        let offers: Vec<&str> = offers.flat_map(|value| value.split(',')).map(str::trim).collect();
        if offers.is_empty() {
            Some(Protocol::Channels(""))
        } else if offers.contains(&TUNNEL) {
            Some(Protocol::Tunnel)
        } else {
            offers.contains(&CHANNELS).then_some(Protocol::Channels(CHANNELS))
        }
    }

    fn name(self) -> &'static str {
        match self {
            Protocol::Channels(name) => name,
            Protocol::Tunnel => TUNNEL,
        }
    }
}

/// Agrees and forwards.
///
/// # Errors
/// 400 where the request lacks a key.
pub fn answer(
    call: &Call<'_>,
    connection: &Arc<Connection>,
    mut request: Request<Incoming>,
    pod: Pod,
    protocol: Protocol,
    ports: Vec<u16>,
) -> Result<Answer, Status> {
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY) else {
        return Err(Status::bad_request("missing Sec-WebSocket-Key"));
    };
    let accept = derive_accept_key(key.as_bytes());
    let mut answer = answer::switching("websocket");
    let headers = answer.headers_mut();
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if !protocol.name().is_empty() {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol.name()));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let kubelet = Arc::clone(&call.shared.kubelet);
    connection.then(async move {
        match upgrade.await {
            Ok(upgraded) => serve(upgraded, kubelet, pod, protocol, ports).await,
            Err(error) => tracing::debug!(%error, "no WebSocket"),
        }
    });
    Ok(answer)
}

/// Which ports are asked for.
///
/// # Errors
/// 400 where one is no number.
pub fn ports<'a>(values: impl Iterator<Item = &'a str>) -> Result<Vec<u16>, Status> {
    let mut ports = Vec::new();
    for text in values.flat_map(|value| value.split(',')) {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let port = text.parse().map_err(|_| {
            let why = if digits { "value out of range" } else { "invalid syntax" };
            Status::bad_request(format!("cannot convert to []int32: strconv.ParseUint: parsing {text:?}: {why}"))
        });
        ports.push(port?);
    }
    Ok(ports)
}

/// What is wrong with the ports, if anything is.
pub fn lacks(ports: &[u16]) -> Option<String> {
    match ports {
        [] => Some("query parameter \"port\" is required".to_owned()),
        ports if ports.contains(&0) => Some("port \"0\" must be > 0".to_owned()),
        ports if ports.len() > PORTS => Some("too many ports".to_owned()),
        _ => None,
    }
}

async fn serve(upgraded: Upgraded, kubelet: Arc<dyn Kubelet>, pod: Pod, protocol: Protocol, ports: Vec<u16>) {
    match upgraded.downcast::<TokioIo<TlsStream<LinkStream>>>() {
        Ok(parts) => {
            let (socket, read) = (parts.io.into_inner(), parts.read_buf.to_vec());
            let socket = WebSocketStream::from_partially_read(socket, read, Role::Server, None).await;
            speak(socket, kubelet, pod, protocol, ports).await;
        }
        Err(upgraded) => {
            let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
            speak(socket, kubelet, pod, protocol, ports).await;
        }
    }
}

async fn speak<S: AsyncRead + AsyncWrite + Unpin>(
    socket: WebSocketStream<S>,
    kubelet: Arc<dyn Kubelet>,
    pod: Pod,
    protocol: Protocol,
    ports: Vec<u16>,
) {
    match protocol {
        Protocol::Channels(_) => run(socket, &kubelet, &pod, &ports).await,
        Protocol::Tunnel => tunnel(socket, kubelet, pod).await,
    }
}

/// SPDY in messages.
async fn tunnel<S: AsyncRead + AsyncWrite + Unpin>(socket: WebSocketStream<S>, kubelet: Arc<dyn Kubelet>, pod: Pod) {
    let (mut sink, stream) = socket.split();
    let (out, mut outbound) = mpsc::channel::<Bytes>(UNDER_WAY);
    let chunks =
        stream.take_while(|message| std::future::ready(message.is_ok())).filter_map(async |message| match message {
            Ok(Message::Binary(bytes)) => Some(bytes),
            Ok(_) | Err(_) => None,
        });
    // It owns the receiver: who sends to a client that is gone fails.
    let to_client = async move {
        while let Some(message) = outbound.recv().await {
            if sink.send(Message::Binary(message)).await.is_err() {
                return;
            }
        }
        drop(sink.send(goodbye()).await);
    };
    tokio::join!(spdy::serve(chunks, out, kubelet, pod), to_client);
}

fn goodbye() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))
}

/// Forwards all ports over a WebSocket until all are over, or the client is.
async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    socket: WebSocketStream<S>,
    kubelet: &Arc<dyn Kubelet>,
    pod: &Pod,
    ports: &[u16],
) {
    let (mut sink, mut stream) = socket.split();
    let (messages, mut outbound) = mpsc::channel::<Bytes>(UNDER_WAY);
    let mut inbound = Vec::new();
    let mut forwards = FuturesUnordered::new();
    for (at, port) in ports.iter().enumerate() {
        let (bytes, mut received) = mpsc::channel::<Bytes>(UNDER_WAY);
        inbound.push(bytes);
        let channel = u8::try_from(at * 2).unwrap_or(u8::MAX - 1);
        let outbound = Outbound { messages: messages.clone(), prefix: vec![channel], seal: |_| () };
        let errors = messages.clone();
        let [low, high] = port.to_le_bytes();
        let (port, kubelet) = (*port, Arc::clone(kubelet));
        forwards.push(async move {
            for channel in [channel, channel + 1] {
                drop(errors.send(Bytes::from(vec![channel, low, high])).await);
            }
            if let Err(why) = forward(&kubelet, pod, port, &mut received, &outbound).await {
                let mut message = vec![channel + 1];
                message.extend_from_slice(why.as_bytes());
                drop(errors.send(Bytes::from(message)).await);
            }
        });
    }
    drop(messages);
    let all = async { while forwards.next().await.is_some() {} };
    let to_client = async {
        while let Some(message) = outbound.recv().await {
            sink.feed(Message::Binary(message)).await?;
            while let Ok(message) = outbound.try_recv() {
                sink.feed(Message::Binary(message)).await?;
            }
            sink.flush().await?;
        }
        // All ports are over.
        sink.send(goodbye()).await
    };
    let from_client = async {
        while let Some(Ok(message)) = stream.next().await {
            // Pings and goodbyes are answered when the next message is asked for.
            let Message::Binary(mut bytes) = message else { continue };
            if bytes.is_empty() {
                continue;
            }
            let channel = bytes.split_to(1)[0];
            let port = if channel % 2 == 0 { inbound.get(usize::from(channel / 2)) } else { None };
            if let Some(port) = port {
                // A port that is over takes nothing more.
                drop(port.send(bytes).await);
            }
        }
        // The pods hear that nothing more comes.
        inbound.clear();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        // The ports end first, then what they said is sent, then the client's side does not matter any more.
        (_, sent) = async { tokio::join!(all, to_client) } => {
            if let Err(error) = sent {
                tracing::debug!(%error, "a port-forward broke off");
            }
        }
        () = from_client => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_protocol_is_chosen() {
        let of = |offers: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for offer in offers {
                headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(offer));
            }
            Protocol::choose(&headers)
        };
        assert_eq!(of(&["v5.channel.k8s.io, v4.channel.k8s.io"]), Some(Protocol::Channels(CHANNELS)));
        assert_eq!(of(&["v5.channel.k8s.io", "v4.channel.k8s.io"]), Some(Protocol::Channels(CHANNELS)));
        assert_eq!(of(&["v5.channel.k8s.io"]), None);
        assert_eq!(of(&[TUNNEL]), Some(Protocol::Tunnel));
        assert_eq!(of(&[]), Some(Protocol::Channels("")));
    }

    #[test]
    fn ports_are_numbers_above_zero() {
        let of = |values: &[&str]| ports(values.iter().copied()).map_err(|status| status.message);
        assert_eq!(of(&["80,81", "82"]), Ok(vec![80, 81, 82]));
        for bad in [&[""][..], &["x"], &["65536"], &["80,"]] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
        assert!(lacks(&[]).is_some() && lacks(&[80, 0]).is_some() && lacks(&[80]).is_none());
    }
}
