//! A pod's port as a byte stream, through the API server's port-forward.
//!
//! ```text
//! open ── upgrade to a WebSocket ──▶ bytes ──▶ Close or end of stream
//!                                     └──▶ error channel's text ──▶ io::Error
//! ```
//!
//! Not kube's `Portforwarder`: it cuts uploads into messages of 4 KiB and shows a refusal as a plain end. Over channels a
//! port-forward knows no half-close, and the far end's close arrives about a second late; over SPDY bytes just before an end may be
//! lost with it (moby/spdystream lets go of what it has queued). So what runs on top must carry its own end. Nothing pings
//! here; that too is for what runs on top, and over SPDY the API server tells of a kubelet that is gone only when something is
//! sent to it.

mod frames;
mod inside;

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use kube::core::Request;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf, Take};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use self::frames::{Decoder, Encoder, Reply, Step, push_control};
use self::inside::Protocol;
use crate::error::chain;
use crate::net::obstacle::Obstacle;

/// Masks fetched from the system at once.
const MASKS: usize = 64;
/// Bytes of control frames that wait for the socket; more pings than that go unanswered.
const CONTROL_QUEUE: usize = 4096;

/// How an API server begins to say that it does not reach a node.
const BACKEND: &str = "error dialing backend: ";

/// Why a port cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortForwardError {
    /// The user may not: both get and create on pods/portforward are needed.
    #[error("forbidden: {0}")]
    Forbidden(String),
    /// The credentials are not taken.
    #[error("unauthorized: {0}")]
    Unauthorized(String),
    /// The pod is gone.
    #[error("not found: {0}")]
    NotFound(String),
    /// The pod's node answered on the error channel, as a rule because nothing listens on the port.
    #[error("refused: {0}")]
    Refused(String),
    /// The API server does not reach the kubelet of the pod's node.
    #[error("its node does not answer: {0}")]
    Node(String),
    /// The API server cannot be reached.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// Anything else, in the API server's words.
    #[error("{0}")]
    Other(String),
}

/// Opens a port-forward to `port` of a pod. Says nothing about whether something listens there: that shows at the
/// first read, as an error of kind [`io::ErrorKind::ConnectionRefused`] and in [`PortForwardStream::fault`].
///
/// # Errors
/// What the API server answered, by cause.
///
/// Cancel safe: dropping it closes the connection. Has no limit of its own beyond that of connecting.
pub async fn open(
    client: &kube::Client,
    namespace: &str,
    pod: &str,
    port: u16,
) -> Result<PortForwardStream, PortForwardError> {
    let other = |error: &dyn std::error::Error| PortForwardError::Other(chain(error));
    let request = Request::new(format!("/api/v1/namespaces/{namespace}/pods"));
    let request = request.portforward(pod, &[port]).map_err(|e| other(&e))?;
    let connection = client.connect(request).await.map_err(|e| classify(&e))?;
    PortForwardStream::over(connection.into_stream().into_inner(), Protocol::Channels, port).map_err(|e| other(&e))
}

/// The WebSocket protocol whose messages are pieces of a SPDY connection (Kubernetes 1.31 and later).
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// The same through a protocol that costs the container runtime less for what is sent, and the API server more.
///
/// # Errors
/// Where it cannot be had; [`open`] may.
///
/// Cancel safe: dropping it closes the connection. Has no limit of its own beyond that of connecting.
pub async fn open_tunnelled(
    client: &kube::Client,
    namespace: &str,
    pod: &str,
    port: u16,
) -> Result<PortForwardStream, PortForwardError> {
    let other = |error: &dyn std::error::Error| PortForwardError::Other(chain(error));
    let key = generate_key();
    // The port is named in the tunnel. Who knows no tunnels misses it here, and says so at once.
    let request = http::Request::get(format!("/api/v1/namespaces/{namespace}/pods/{pod}/portforward"))
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, &key)
        .header(SEC_WEBSOCKET_PROTOCOL, TUNNEL)
        .body(kube::client::Body::empty())
        .map_err(|error| other(&error))?;
    let answer = client.send(request).await.map_err(|error| classify(&error))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(PortForwardError::Other(answer.status().to_string()));
    }
    // RFC 6455, section 4.1.
    let accept = derive_accept_key(key.as_bytes());
    let wanted = [
        (CONNECTION, "Upgrade"),
        (UPGRADE, "websocket"),
        (SEC_WEBSOCKET_ACCEPT, accept.as_str()),
        (SEC_WEBSOCKET_PROTOCOL, TUNNEL),
    ];
    if let Some((name, _)) = wanted.iter().find(|(name, value)| !says(answer.headers(), name, value)) {
        return Err(PortForwardError::Other(format!("the answer has another {name}")));
    }
    let socket = TokioIo::new(hyper::upgrade::on(answer).await.map_err(|error| other(&error))?);
    PortForwardStream::over(socket, Protocol::Spdy, port).map_err(|error| other(&error))
}

fn says(headers: &HeaderMap, name: &http::HeaderName, value: &str) -> bool {
    let found = headers.get(name).and_then(|found| found.to_str().ok());
    let exact = *name == SEC_WEBSOCKET_ACCEPT || *name == SEC_WEBSOCKET_PROTOCOL;
    found.is_some_and(|found| if exact { found == value } else { found.eq_ignore_ascii_case(value) })
}

fn classify(error: &kube::Error) -> PortForwardError {
    let text = Obstacle::of(error).words();
    if let kube::Error::Api(status) = error {
        return match status.code {
            401 => PortForwardError::Unauthorized(status.message.clone()),
            403 => PortForwardError::Forbidden(status.message.clone()),
            404 => PortForwardError::NotFound(status.message.clone()),
            502..=504 => PortForwardError::Unreachable(status.message.clone()),
            500 if status.message.contains(BACKEND) => {
                let cause = status.message.split_once(BACKEND).map_or("", |(_, cause)| cause);
                PortForwardError::Node(cause.to_owned())
            }
            _ => PortForwardError::Other(status.message.clone()),
        };
    }
    if matches!(error, kube::Error::Service(_) | kube::Error::HyperError(_)) {
        PortForwardError::Unreachable(text)
    } else {
        PortForwardError::Other(text)
    }
}

/// What ended a stream, to be asked by whoever sees only a protocol's error on top of it.
#[derive(Clone, Debug, Default)]
pub struct Fault(Arc<OnceLock<PortForwardError>>);

impl Fault {
    /// The error channel's or the connection's last word, once there is one.
    pub fn get(&self) -> Option<&PortForwardError> {
        self.0.get()
    }

    fn refused(&self, text: String) -> io::Error {
        io::Error::new(io::ErrorKind::ConnectionRefused, self.0.get_or_init(|| PortForwardError::Refused(text)).clone())
    }

    fn broken(&self, why: &str) -> io::Error {
        io::Error::new(
            io::ErrorKind::InvalidData,
            self.0.get_or_init(|| PortForwardError::Other(why.to_owned())).clone(),
        )
    }
}

/// One connection to a pod's port.
///
/// Written bytes gather until a flush or a full message, as with any buffered writer. Shutting down ends both
/// directions, because the protocol has no half-close.
#[derive(Debug)]
pub struct PortForwardStream<S = TokioIo<Upgraded>> {
    /// Limited while it is read past the decoder.
    socket: Take<S>,
    decoder: Decoder,
    encoder: Encoder,
    /// The sealed frame that is being written, from `sent` on.
    out: Vec<u8>,
    sent: usize,
    control: Vec<u8>,
    masks: Masks,
    fault: Fault,
    read_over: bool,
    closing: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> PortForwardStream<S> {
    /// Speaks the protocol over an upgraded connection. What it has to say first goes out with the first flush.
    fn over(socket: S, protocol: Protocol, port: u16) -> io::Result<PortForwardStream<S>> {
        let (mut control, mut masks, hello) = (Vec::new(), Masks::new()?, protocol.hello(port));
        if !hello.is_empty() {
            push_control(&mut control, Reply::Message, &hello, masks.next()?);
        }
        Ok(PortForwardStream {
            socket: socket.take(u64::MAX),
            decoder: Decoder::new(protocol),
            encoder: Encoder::new(protocol),
            out: Vec::new(),
            sent: 0,
            control,
            masks,
            fault: Fault::default(),
            read_over: false,
            closing: false,
        })
    }

    /// Where the cause of the stream's end can be read later.
    pub fn fault(&self) -> Fault {
        self.fault.clone()
    }

    /// Writes the frame at hand to the socket.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.out.get(self.sent..)
            && !rest.is_empty()
        {
            let count = ready!(Pin::new(self.socket.get_mut()).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += count;
        }
        Poll::Ready(Ok(()))
    }

    /// Hands everything gathered so far to the socket.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_drain(cx))?;
            if !self.control.is_empty() {
                self.out.clear();
                std::mem::swap(&mut self.out, &mut self.control);
                self.sent = 0;
            } else if !self.encoder.is_empty() {
                let mask = self.masks.next()?;
                self.sent = self.encoder.seal(&mut self.out, mask);
            } else {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn ended(&mut self) -> io::Result<()> {
        self.read_over = true;
        match self.decoder.error_text() {
            Some(text) => Err(self.fault.refused(text)),
            None => Ok(()),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for PortForwardStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.read_over || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            match this.decoder.step(buf) {
                Step::Data(_) => return Poll::Ready(Ok(())),
                Step::Asked(reply, payload) => {
                    if this.control.len() < CONTROL_QUEUE {
                        let mask = this.masks.next()?;
                        push_control(&mut this.control, reply, &payload, mask);
                    }
                    // While a write is under way the socket must keep waking the writer, not the reader; it goes on with
                    // the answer itself. Pending is fine: so does the next flush.
                    if this.sent >= this.out.len()
                        && let Poll::Ready(Err(error)) = this.poll_send(cx)
                    {
                        return Poll::Ready(Err(error));
                    }
                }
                Step::ErrorText | Step::Closed => return Poll::Ready(this.ended()),
                Step::Broken(why) => {
                    this.read_over = true;
                    return Poll::Ready(Err(this.fault.broken(why)));
                }
                Step::Need => {
                    if let Some(ahead) = this.decoder.data_ahead() {
                        let before = buf.filled().len();
                        this.socket.set_limit(ahead);
                        ready!(Pin::new(&mut this.socket).poll_read(cx, buf))?;
                        let count = buf.filled().len() - before;
                        this.decoder.passed(count);
                        return Poll::Ready(if count == 0 { this.ended() } else { Ok(()) });
                    }
                    let mut space = ReadBuf::new(this.decoder.space());
                    this.socket.set_limit(u64::MAX);
                    ready!(Pin::new(&mut this.socket).poll_read(cx, &mut space))?;
                    let count = space.filled().len();
                    if count == 0 {
                        return Poll::Ready(this.ended());
                    }
                    this.decoder.filled(count);
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for PortForwardStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.closing {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if this.encoder.is_full() {
            ready!(this.poll_drain(cx))?;
            let mask = this.masks.next()?;
            this.sent = this.encoder.seal(&mut this.out, mask);
        }
        let taken = this.encoder.push(buf);
        if this.encoder.is_full()
            && let Poll::Ready(Err(error)) = this.poll_send(cx)
        {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(this.socket.get_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closing {
            ready!(this.poll_send(cx))?;
            let mask = this.masks.next()?;
            // 1000: normal closure (RFC 6455, 7.4.1).
            push_control(&mut this.control, Reply::Close, &1000_u16.to_be_bytes(), mask);
            this.closing = true;
        }
        ready!(this.poll_send(cx))?;
        Pin::new(this.socket.get_mut()).poll_shutdown(cx)
    }
}

/// Masks from the system's random numbers: RFC 6455 wants them unpredictable.
#[derive(Debug)]
struct Masks {
    source: SystemRandom,
    bytes: [u8; MASKS * 4],
    used: usize,
}

impl Masks {
    fn new() -> io::Result<Masks> {
        let mut masks = Masks { source: SystemRandom::new(), bytes: [0; MASKS * 4], used: 0 };
        masks.refill()?;
        Ok(masks)
    }

    fn refill(&mut self) -> io::Result<()> {
        self.used = 0;
        self.source.fill(&mut self.bytes).map_err(|_| io::Error::other("the system has no random numbers"))
    }

    fn next(&mut self) -> io::Result<[u8; 4]> {
        if self.used == MASKS {
            self.refill()?;
        }
        let (masks, _) = self.bytes.as_chunks::<4>();
        let mask = masks.get(self.used).copied();
        self.used += 1;
        mask.ok_or_else(|| io::Error::other("no mask"))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use futures_util::{SinkExt as _, StreamExt as _};

    use super::*;

    type Ends = (PortForwardStream<tokio::io::DuplexStream>, WebSocketStream<tokio::io::DuplexStream>);

    async fn ends() -> Ends {
        let mut ends = ends_of(Protocol::Channels).await;
        for channel in [0, 1] {
            ends.1.send(Message::binary(vec![channel, 0x1f, 0x90])).await.expect("port frame");
        }
        ends
    }

    async fn ends_of(protocol: Protocol) -> Ends {
        let (near, far) = tokio::io::duplex(100_000);
        let server = WebSocketStream::from_raw_socket(far, Role::Server, None).await;
        (PortForwardStream::over(near, protocol, 8080).expect("random numbers"), server)
    }

    #[tokio::test]
    async fn a_tunnel_opens_its_streams_first_carries_bytes_and_answers_pings() {
        const PING: [u8; 12] = [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 2];
        let (stream, mut server) = ends_of(Protocol::Spdy).await;
        let sent: Vec<u8> = (0..200_000_u32).map(|n| (n % 253) as u8).collect();
        let expected = sent.clone();
        let far = tokio::spawn(async move {
            let hello = server.next().await.expect("a message").expect("a frame");
            assert_eq!(hello, Message::binary(Protocol::Spdy.hello(8080)));
            // Answers, which nobody waits for, and a question.
            server.send(Message::binary(vec![0x80, 3, 0, 2, 0, 0, 0, 5, 0, 0, 0, 1, 9])).await.expect("sent");
            server.send(Message::binary(PING.to_vec())).await.expect("sent");
            let (mut got, mut answers) = (Vec::new(), 0);
            while got.len() < expected.len() || answers == 0 {
                let Some(Ok(Message::Binary(message))) = server.next().await else { break };
                if message[0] == 0x80 {
                    assert_eq!(message[..], PING);
                    answers += 1;
                    continue;
                }
                let (head, bytes) = message.split_at(8);
                assert_eq!(head[..5], [0, 0, 0, 3, 0]);
                let length = u32::from_be_bytes([0, head[5], head[6], head[7]]);
                assert_eq!(usize::try_from(length).expect("short"), bytes.len(), "a message is one frame");
                // Back in two messages that are no frames by themselves.
                let (first, second) = message.split_at(message.len() / 2);
                server.send(Message::binary(first.to_vec())).await.expect("sent");
                server.send(Message::binary(second.to_vec())).await.expect("sent");
                got.extend_from_slice(bytes);
            }
            assert!(got == expected, "{} bytes arrived", got.len());
            server.send(Message::binary(vec![0, 0, 0, 3, 1, 0, 0, 0])).await.expect("sent");
            server.send(Message::binary(b"\0\0\0\x01\x01\0\0\x04late".to_vec())).await.expect("sent");
        });
        let fault = stream.fault();
        let (mut read, mut write) = tokio::io::split(stream);
        let writing = tokio::spawn(async move {
            write.write_all(&sent).await.expect("written");
            write.flush().await.expect("flushed");
            (write, sent)
        });
        let mut back = vec![0; 200_000];
        read.read_exact(&mut back).await.expect("read");
        let (_write, sent) = writing.await.expect("wrote");
        assert!(back == sent, "the echo differs");
        let error = read.read_u8().await.expect_err("what came after the end");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(fault.get(), Some(&PortForwardError::Refused("late".to_owned())));
        far.await.expect("the server is content");
    }

    #[tokio::test]
    async fn a_real_websocket_server_understands_and_is_understood() {
        let (mut stream, mut server) = ends().await;
        let sent: Vec<u8> = (0..500_000_u32).map(|n| (n % 253) as u8).collect();
        let far = tokio::spawn(async move {
            let mut got = Vec::new();
            while let Some(Ok(Message::Binary(message))) = server.next().await {
                assert_eq!(message[0], 0);
                server.send(Message::binary(message.clone())).await.expect("echo");
                got.extend_from_slice(&message[1..]);
            }
            got
        });
        let (mut read, mut write) = tokio::io::split(&mut stream);
        let mut back = vec![0; sent.len()];
        let (wrote, got) = tokio::join!(
            async {
                write.write_all(&sent).await?;
                write.flush().await
            },
            read.read_exact(&mut back)
        );
        wrote.expect("written");
        got.expect("read");
        assert!(back == sent, "the echo differs");
        stream.shutdown().await.expect("closed");
        drop(stream);
        assert!(far.await.expect("server") == sent, "the server got something else");
    }

    #[tokio::test]
    async fn a_refusal_is_an_error_and_stays_readable() {
        let (mut stream, mut server) = ends().await;
        let fault = stream.fault();
        server.send(Message::binary(b"\x01dial tcp4 127.0.0.1:1: connection refused".to_vec())).await.expect("sent");
        let error = stream.read_u8().await.expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(matches!(fault.get(), Some(PortForwardError::Refused(text)) if text.contains("connection refused")));
        assert_eq!(stream.read(&mut [0; 8]).await.expect("end"), 0);
    }

    #[tokio::test]
    async fn a_ping_is_answered_and_a_close_is_the_end() {
        let (mut stream, mut server) = ends().await;
        server.send(Message::Ping(b"x".to_vec().into())).await.expect("ping");
        server.send(Message::binary(b"\x00a".to_vec())).await.expect("data");
        assert_eq!(stream.read_u8().await.expect("data"), b'a');
        assert_eq!(server.next().await.expect("pong").expect("frame"), Message::Pong(b"x".to_vec().into()));
        server.close(None).await.expect("close");
        assert_eq!(stream.read(&mut [0; 8]).await.expect("end"), 0);
        assert!(stream.fault().get().is_none());
    }

    #[tokio::test]
    async fn small_writes_travel_as_one_message() {
        let (mut stream, mut server) = ends().await;
        for byte in b"hello" {
            stream.write_all(&[*byte]).await.expect("write");
        }
        stream.flush().await.expect("flush");
        assert_eq!(server.next().await.expect("message").expect("frame"), Message::binary(b"\x00hello".to_vec()));
    }
}
