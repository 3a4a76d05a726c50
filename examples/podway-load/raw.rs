//! One port of a pod over one WebSocket, made with the client library's own.
//!
//! A binary message is a channel's number and its bytes; each channel begins with the port's number; channel 0 is data,
//! channel 1 errors.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use futures_util::{SinkExt as _, Stream, StreamExt as _};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{self, Message};

use super::figures::{self, Moved};
use super::{ECHO, secs};

/// The largest message that an API server forwards in one piece without a copy of its own.
pub const FRAME: usize = 64 * 1024;

/// How long what buffers on the way hold may take to arrive.
const DRAINED: Duration = Duration::from_secs(30);

type Socket = tokio_tungstenite::WebSocketStream<hyper_util::rt::TokioIo<hyper::upgrade::Upgraded>>;

/// A port of a pod, and who asks for it.
#[derive(Clone)]
pub struct Pod {
    client: kube::Client,
    namespace: Arc<str>,
    pod: Arc<str>,
    port: u16,
}

/// One such WebSocket, or the half of it that is read.
pub struct Raw<S = Socket> {
    pub socket: S,
    /// Channels that have said their port.
    heads: u8,
}

pub async fn measure(what: &str, args: &[&str]) -> Result<Value> {
    Ok(match (what, args) {
        ("raw-down", [ns, pod, port, seconds]) => {
            Pod::new(ns, pod, port).await?.open().await?.down(secs(seconds)?).await?.value()
        }
        ("raw-up", [ns, pod, port, seconds]) => {
            Pod::new(ns, pod, port).await?.open().await?.up(secs(seconds)?).await?.value()
        }
        ("raw-flows", [way, ns, pod, port, count, seconds]) => {
            flows(way, &Pod::new(ns, pod, port).await?, count.parse()?, secs(seconds)?).await?
        }
        ("raw-conns", [ns, pod, port, seconds, parallel]) => {
            connections(&Pod::new(ns, pod, port).await?, secs(seconds)?, parallel.parse()?).await?
        }
        ("raw-echo", [ns, pod, port, count]) => {
            let times = Pod::new(ns, pod, port).await?.open().await?.echo(count.parse()?).await?;
            figures::quantiles(times)?
        }
        ("raw-beside", [ns, pod, echo, bulk, count, turns]) => {
            let (echo, bulk) = (Pod::new(ns, pod, echo).await?, Pod::new(ns, pod, bulk).await?);
            beside(&echo, &bulk, count.parse()?, turns.parse()?).await?
        }
        _ => bail!("usage: the first lines of examples/podway-load/main.rs"),
    })
}

async fn flows(way: &str, pod: &Pod, count: usize, length: Duration) -> Result<Value> {
    let mut open = Vec::with_capacity(count);
    for _ in 0..count {
        open.push(pod.open().await?);
    }
    let mut tasks = JoinSet::new();
    for raw in open {
        match way {
            "down" => tasks.spawn(raw.down(length)),
            "up" => tasks.spawn(raw.up(length)),
            _ => bail!("{way} is no way"),
        };
    }
    let mut moved = Vec::with_capacity(count);
    while let Some(flow) = tasks.join_next().await {
        moved.push(flow??);
    }
    figures::together(&moved)
}

async fn connections(pod: &Pod, length: Duration, parallel: usize) -> Result<Value> {
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..parallel {
        let pod = pod.clone();
        tasks.spawn(async move {
            let (mut done, mut failed) = (0u64, 0u64);
            while began.elapsed() < length {
                match async { pod.open().await?.echo(1).await }.await {
                    Ok(_) => done += 1,
                    Err(_) => failed += 1,
                }
            }
            (done, failed)
        });
    }
    let (mut done, mut failed) = (0, 0);
    while let Some(task) = tasks.join_next().await {
        let (own, lost) = task?;
        done += own;
        failed += lost;
    }
    let each_second = done as f64 / began.elapsed().as_secs_f64();
    Ok(json!({ "done": done, "failed": failed, "per_second": each_second }))
}

async fn beside(echo: &Pod, bulk: &Pod, flows: usize, count: usize) -> Result<Value> {
    let (over, moved) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut bulks = JoinSet::new();
    for _ in 0..flows {
        let mut raw = bulk.open().await?;
        let (over, moved) = (Arc::clone(&over), Arc::clone(&moved));
        bulks.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                moved.fetch_add(raw.next().await?.len() as u64, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    let echo = echo.open().await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (began, before) = (Instant::now(), moved.load(Ordering::Relaxed));
    let times = echo.echo(count).await?;
    let load = Moved::since(began, moved.load(Ordering::Relaxed) - before);
    over.store(true, Ordering::Relaxed);
    while let Some(bulk) = bulks.join_next().await {
        bulk?.context("a flow beside")?;
    }
    let mut answer = figures::quantiles(times)?;
    answer["beside_mbit"] = load.mbit().into();
    Ok(answer)
}

impl Pod {
    pub async fn new(namespace: &str, pod: &str, port: &str) -> Result<Pod> {
        // Another provider in the graph would make the choice ambiguous; an earlier one is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = kube::Client::try_default().await?;
        Ok(Pod { client, namespace: namespace.into(), pod: pod.into(), port: port.parse()? })
    }

    pub async fn open(&self) -> Result<Raw> {
        let request = kube::core::Request::new(format!("/api/v1/namespaces/{}/pods", self.namespace));
        let request = request.portforward(&self.pod, &[self.port])?;
        Ok(Raw::of(self.client.connect(request).await?.into_stream()))
    }
}

impl<S> Raw<S> {
    pub fn of(socket: S) -> Raw<S> {
        Raw { socket, heads: 0 }
    }
}

impl<S: Stream<Item = tungstenite::Result<Message>> + Unpin> Raw<S> {
    /// The next bytes of the data channel.
    pub async fn next(&mut self) -> Result<Bytes> {
        loop {
            let message = self.socket.next().await.context("the port-forward ended")??;
            let Message::Binary(mut bytes) = message else { continue };
            ensure!(!bytes.is_empty(), "an empty message");
            let channel = bytes.split_to(1)[0];
            if self.heads < 2 {
                self.heads += 1; // the port's number, once on each channel
                continue;
            }
            ensure!(channel == 0, "error channel: {}", String::from_utf8_lossy(&bytes));
            return Ok(bytes);
        }
    }
}

impl Raw {
    async fn down(mut self, length: Duration) -> Result<Moved> {
        let (began, mut bytes) = (Instant::now(), 0);
        while began.elapsed() < length {
            bytes += self.next().await?.len() as u64;
        }
        Ok(Moved::since(began, bytes))
    }

    /// A port-forward has no half-close, so no sink can answer. But the container runtime answers a ping (RFC 6455, section
    /// 5.5.2), when it has taken all that came before: what buffers on the way hold is not counted before it has arrived.
    async fn up(mut self, length: Duration) -> Result<Moved> {
        let message = message(FRAME);
        let (began, mut bytes) = (Instant::now(), 0);
        while began.elapsed() < length {
            self.socket.send(Message::Binary(message.clone())).await?;
            bytes += FRAME as u64;
        }
        self.socket.send(Message::Ping(Bytes::from_static(b"all"))).await?;
        let answered = async {
            loop {
                match self.socket.next().await.context("the port-forward ended")?? {
                    Message::Pong(_) => return Ok(()),
                    Message::Close(_) => bail!("the port-forward ended"),
                    Message::Binary(_) | Message::Text(_) | Message::Ping(_) | Message::Frame(_) => {}
                }
            }
        };
        timeout(DRAINED, answered).await.context("the runtime answers no ping")??;
        Ok(Moved::since(began, bytes))
    }

    async fn echo(mut self, count: usize) -> Result<Vec<Duration>> {
        let message = message(ECHO);
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let began = Instant::now();
            self.socket.send(Message::Binary(message.clone())).await?;
            let mut got = 0;
            while got < ECHO {
                got += self.next().await?.len();
            }
            times.push(began.elapsed());
        }
        Ok(times)
    }
}

/// So many bytes of data.
fn message(length: usize) -> Bytes {
    let mut message = vec![7; length + 1];
    message[0] = 0;
    message.into()
}
