//! What one would write by hand: a listener that copies each connection to a port-forward WebSocket of its own, with a
//! client in front that is a process of its own, as any client of a forwarder is one.

use std::net::SocketAddr;

use anyhow::{Result, bail, ensure};
use bytes::BytesMut;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use super::raw::{FRAME, Pod, Raw};

/// Runs the client, which prints the answer.
pub async fn measure(args: &[&str]) -> Result<()> {
    let mut forwarders = JoinSet::new();
    let words: Vec<String> = match *args {
        ["flows", way, ns, pod, port, count, seconds] => {
            let at = start(ns, pod, port, &mut forwarders).await?.to_string();
            ["flows", way, &at, count, seconds].map(str::to_owned).into()
        }
        ["conns", ns, pod, port, seconds, parallel] => {
            let at = start(ns, pod, port, &mut forwarders).await?.to_string();
            ["conns", &at, seconds, parallel].map(str::to_owned).into()
        }
        ["http", ns, pod, port, host, seconds, parallel] => {
            let at = start(ns, pod, port, &mut forwarders).await?.to_string();
            ["http", &at, host, seconds, parallel].map(str::to_owned).into()
        }
        ["beside", ns, pod, echo, bulk, flows, count] => {
            let echo = start(ns, pod, echo, &mut forwarders).await?.to_string();
            let bulk = start(ns, pod, bulk, &mut forwarders).await?.to_string();
            ["beside", &echo, &bulk, flows, count].map(str::to_owned).into()
        }
        [what @ ("down" | "push" | "echo"), ns, pod, port, much] => {
            let at = start(ns, pod, port, &mut forwarders).await?.to_string();
            [what, &at, much].map(str::to_owned).into()
        }
        _ => bail!("usage: the first lines of examples/podway-load/main.rs"),
    };
    let own = std::env::current_exe()?;
    let mut client = tokio::process::Command::new(own).args(words).kill_on_drop(true).spawn()?;
    ensure!(client.wait().await?.success(), "the client failed");
    Ok(())
}

async fn start(ns: &str, pod: &str, port: &str, forwarders: &mut JoinSet<Result<()>>) -> Result<SocketAddr> {
    let pod = Pod::new(ns, pod, port).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let at = listener.local_addr()?;
    forwarders.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let pod = pod.clone();
            // How one ended is told by the client.
            tokio::spawn(async move { pod.open().await?.copy(stream).await });
        }
    });
    Ok(at)
}

impl Raw {
    /// Copies both ways until either side ends: a port-forward has no half-close.
    async fn copy(self, stream: TcpStream) -> Result<()> {
        let (mut from_client, mut to_client) = stream.into_split();
        let (mut to_pod, from_pod) = self.socket.split();
        let up = async move {
            loop {
                let mut message = BytesMut::with_capacity(FRAME + 1);
                message.extend_from_slice(&[0]);
                if from_client.read_buf(&mut message).await? == 0 {
                    return anyhow::Ok(());
                }
                to_pod.send(Message::Binary(message.freeze())).await?;
            }
        };
        let down = async move {
            let mut from_pod = Raw::of(from_pod);
            loop {
                to_client.write_all(&from_pod.next().await?).await?;
            }
            #[expect(unreachable_code, reason = "it names the type of the error")]
            anyhow::Ok(())
        };
        tokio::select! {
            ended = up => ended,
            ended = down => ended,
        }
    }
}
