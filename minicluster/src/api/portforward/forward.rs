//! One connection into a pod, as containerd makes and ends it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::super::Kubelet;
use super::Pod;

/// How long the other direction goes on when one is over.
const GRACE: Duration = Duration::from_secs(1);
/// Bytes of a message.
const MESSAGE: usize = 64 << 10;

/// How bytes go to the client.
pub struct Outbound {
    /// Where messages go.
    pub messages: mpsc::Sender<Bytes>,
    /// What each message begins with.
    pub prefix: Vec<u8>,
    /// Completes a message, prefix and all.
    pub seal: fn(&mut [u8]),
}

/// Forwards until one direction is over and the other had its second.
///
/// # Errors
/// What the client reads on the error channel.
pub async fn forward(
    kubelet: &Arc<dyn Kubelet>,
    pod: &Pod,
    port: u16,
    inbound: &mut mpsc::Receiver<Bytes>,
    outbound: &Outbound,
) -> Result<(), String> {
    let told = |why: String| {
        // The sandbox has an identifier and a namespace of its own there.
        let sandbox: String = pod.uid.chars().filter(|c| *c != '-').collect();
        let namespace = format!("/var/run/netns/cni-{}", pod.uid);
        format!(
            "error forwarding port {port} to pod {sandbox}, uid : failed to execute portforward in network namespace \
             {namespace:?}: {}",
            why.replace("{sandbox}", &sandbox)
        )
    };
    let socket = match kubelet.dial(&pod.uid, port).await {
        Ok(socket) => socket,
        Err(error) => {
            let why = cause(&error);
            return Err(told(format!(
                "failed to connect to localhost:{port} inside namespace \"{{sandbox}}\", IPv4: dial tcp4 \
                 127.0.0.1:{port}: connect: {why} IPv6 dial tcp6: address localhost: no suitable address found "
            )));
        }
    };
    copy(socket, port, inbound, outbound).await.map_err(told)
}

async fn copy(
    socket: TcpStream,
    port: u16,
    inbound: &mut mpsc::Receiver<Bytes>,
    outbound: &Outbound,
) -> Result<(), String> {
    // Without it small messages wait for each other.
    drop(socket.set_nodelay(true));
    let own = socket.local_addr().map_or(0, |address| address.port());
    let failed = |what: &'static str| {
        move |error: io::Error| format!("{what} tcp4 127.0.0.1:{own}->127.0.0.1:{port}: {what}: {}", cause(&error))
    };
    let (read, write) = socket.into_split();
    let mut from_pod = std::pin::pin!(async { from_pod(read, outbound).await.map_err(failed("read")) });
    let mut to_pod = std::pin::pin!(async { to_pod(write, inbound).await.map_err(failed("write")) });
    tokio::select! {
        first = &mut from_pod => {
            let second = timeout(GRACE, to_pod).await.unwrap_or(Ok(()));
            first.and(second)
        }
        first = &mut to_pod => {
            let second = timeout(GRACE, from_pod).await.unwrap_or(Ok(()));
            first.and(second)
        }
    }
}

async fn from_pod(mut read: OwnedReadHalf, outbound: &Outbound) -> io::Result<()> {
    loop {
        let mut message = BytesMut::with_capacity(MESSAGE);
        message.extend_from_slice(&outbound.prefix);
        let room = MESSAGE - outbound.prefix.len();
        if read.read_buf(&mut (&mut message).limit(room)).await? == 0 {
            return Ok(());
        }
        (outbound.seal)(&mut message);
        if outbound.messages.send(message.freeze()).await.is_err() {
            return Ok(());
        }
    }
}

async fn to_pod(mut write: OwnedWriteHalf, inbound: &mut mpsc::Receiver<Bytes>) -> io::Result<()> {
    while let Some(bytes) = inbound.recv().await {
        write.write_all(&bytes).await?;
    }
    // The pod hears no end before both directions have one.
    write.forget();
    Ok(())
}

/// An error in the words of the C library, which Go has as well.
fn cause(error: &io::Error) -> String {
    const WORDS: [(io::ErrorKind, &str); 4] = [
        (io::ErrorKind::ConnectionRefused, "connection refused"),
        (io::ErrorKind::ConnectionReset, "connection reset by peer"),
        (io::ErrorKind::TimedOut, "connection timed out"),
        (io::ErrorKind::BrokenPipe, "broken pipe"),
    ];
    let known = WORDS.into_iter().find(|(kind, _)| *kind == error.kind());
    known.map_or_else(|| error.to_string(), |(_, words)| words.to_owned())
}
