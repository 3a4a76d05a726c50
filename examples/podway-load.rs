//! The load client of `tests/cluster/numbers`: one measurement a call, one line of JSON as the answer.
//!
//! ```text
//! podway-load down|up ADDR:PORT SECONDS           one flow, bytes a second
//! podway-load conns ADDR:PORT SECONDS PARALLEL    new connections a second, 64 bytes there and back on each
//! podway-load echo ADDR:PORT COUNT                64 bytes there and back on one connection: p50, p99
//! podway-load dns SERVER NAME COUNT               A queries over UDP, one at a time: p50, p99
//! podway-load loopback COUNT                      64 bytes there and back over UDP between two threads: what a turn costs here
//! podway-load raw-down|raw-up NS POD PORT SECONDS the same flow over one port-forward WebSocket and nothing else
//! podway-load raw-echo NS POD PORT COUNT
//! podway-load forward down|push|echo NS POD PORT SECONDS|COUNT    a flow through a listener that copies to such a one
//! ```
//!
//! `push` counts what the socket took: a port-forward has no half-close, so no sink can answer. The raw variants and
//! `forward` are baselines, made with the client library's own WebSocket and not with podway's.

#![expect(clippy::print_stdout, reason = "the answer goes to stdout")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, Stream, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket, lookup_host};
use tokio_tungstenite::tungstenite::{self, Message};

const ECHO: usize = 64;
const BLOCK: usize = 64 * 1024;
/// The largest message that an API server forwards in one piece without a copy of its own.
const FRAME: usize = 64 * 1024;

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let answer = match args.as_slice() {
        ["down", at, seconds] => down(address(at).await?, secs(seconds)?).await?,
        ["up", at, seconds] => up(address(at).await?, secs(seconds)?).await?,
        ["push", at, seconds] => push(&mut connect(address(at).await?).await?, secs(seconds)?).await?,
        ["conns", at, seconds, parallel] => connections(address(at).await?, secs(seconds)?, parallel.parse()?).await?,
        ["echo", at, count] => echo(address(at).await?, count.parse()?).await?,
        ["dns", server, name, count] => dns(server, name, count.parse()?).await?,
        ["loopback", count] => loopback(count.parse()?)?,
        ["raw-down", ns, pod, port, seconds] => Raw::open(ns, pod, port).await?.down(secs(seconds)?).await?,
        ["raw-up", ns, pod, port, seconds] => Raw::open(ns, pod, port).await?.up(secs(seconds)?).await?,
        ["raw-echo", ns, pod, port, count] => Raw::open(ns, pod, port).await?.echo(count.parse()?).await?,
        ["forward", what, ns, pod, port, much] => {
            let raw = Raw::open(ns, pod, port).await?;
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let own = std::env::current_exe()?;
            let (at, much) = (listener.local_addr()?.to_string(), much.to_string());
            // A process of its own, as any client of a forwarder is one.
            let client = tokio::process::Command::new(own).args([what, at.as_str(), &much]).spawn()?;
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            return raw.copy(stream, client).await;
        }
        _ => bail!("usage: the first lines of examples/podway-load.rs"),
    };
    println!("{answer}");
    Ok(())
}

fn secs(text: &str) -> Result<Duration> {
    Ok(Duration::from_secs_f64(text.parse()?))
}

async fn address(text: &str) -> Result<SocketAddr> {
    lookup_host(text).await?.next().with_context(|| format!("{text} has no address"))
}

async fn connect(at: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(at).await.with_context(|| format!("connect to {at}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn rate(bytes: u64, took: Duration) -> serde_json::Value {
    let mbit = bytes as f64 * 8.0 / took.as_secs_f64() / 1e6;
    serde_json::json!({ "bytes": bytes, "seconds": took.as_secs_f64(), "mbit": mbit })
}

fn quantiles(mut times: Vec<Duration>) -> Result<serde_json::Value> {
    times.sort();
    let at = |q: f64| times.get((times.len() as f64 * q) as usize).map(Duration::as_secs_f64);
    let (Some(p50), Some(p99)) = (at(0.5), at(0.99)) else { bail!("nothing was measured") };
    Ok(serde_json::json!({ "count": times.len(), "p50_ms": p50 * 1e3, "p99_ms": p99 * 1e3 }))
}

async fn down(at: SocketAddr, length: Duration) -> Result<serde_json::Value> {
    let mut stream = connect(at).await?;
    let mut block = vec![0; BLOCK];
    let (began, mut bytes) = (Instant::now(), 0);
    while began.elapsed() < length {
        let n = stream.read(&mut block).await?;
        ensure!(n > 0, "the source ended");
        bytes += n as u64;
    }
    Ok(rate(bytes, began.elapsed()))
}

/// Into a sink that tells its count after the end: what waits in buffers does not count as sent.
async fn up(at: SocketAddr, length: Duration) -> Result<serde_json::Value> {
    let mut stream = connect(at).await?;
    let began = Instant::now();
    let bytes = push(&mut stream, length).await?["bytes"].as_u64();
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let took = began.elapsed();
    let arrived = answer.trim().parse::<u64>()?;
    ensure!(bytes == Some(arrived), "{bytes:?} bytes were sent, {arrived} arrived");
    Ok(rate(arrived, took))
}

async fn push(stream: &mut TcpStream, length: Duration) -> Result<serde_json::Value> {
    let block = vec![7; BLOCK];
    let (began, mut bytes) = (Instant::now(), 0);
    while began.elapsed() < length {
        stream.write_all(&block).await?;
        bytes += BLOCK as u64;
    }
    Ok(rate(bytes, began.elapsed()))
}

async fn connections(at: SocketAddr, length: Duration, parallel: usize) -> Result<serde_json::Value> {
    let began = Instant::now();
    let tasks: Vec<_> = (0..parallel)
        .map(|_| {
            tokio::spawn(async move {
                let (mut done, mut failed) = (0u64, 0u64);
                while began.elapsed() < length {
                    match exchange(at).await {
                        Ok(()) => done += 1,
                        Err(_) => failed += 1,
                    }
                }
                (done, failed)
            })
        })
        .collect();
    let (mut done, mut failed) = (0, 0);
    for task in tasks {
        let (d, f) = task.await?;
        done += d;
        failed += f;
    }
    let each_second = done as f64 / began.elapsed().as_secs_f64();
    Ok(serde_json::json!({ "done": done, "failed": failed, "per_second": each_second }))
}

async fn exchange(at: SocketAddr) -> Result<()> {
    let mut stream = connect(at).await?;
    let mut back = [0; ECHO];
    stream.write_all(&[7; ECHO]).await?;
    stream.read_exact(&mut back).await?;
    Ok(())
}

async fn echo(at: SocketAddr, count: usize) -> Result<serde_json::Value> {
    let mut stream = connect(at).await?;
    let mut back = [0; ECHO];
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        stream.write_all(&[7; ECHO]).await?;
        stream.read_exact(&mut back).await?;
        times.push(began.elapsed());
    }
    quantiles(times)
}

async fn dns(server: &str, name: &str, count: usize) -> Result<serde_json::Value> {
    let server: SocketAddr = if server.parse::<std::net::IpAddr>().is_ok() {
        SocketAddr::new(server.parse()?, 53)
    } else {
        server.parse()?
    };
    let socket = UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).await?;
    socket.connect(server).await?;
    let mut query = BytesMut::from(&[0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..]);
    for label in name.trim_end_matches('.').split('.') {
        query.extend_from_slice(&[u8::try_from(label.len())?]);
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    let mut answer = [0; 4096];
    let mut times = Vec::with_capacity(count);
    let mut rcode = 0;
    for id in 0..count {
        query[..2].copy_from_slice(&(id as u16).to_be_bytes());
        let began = Instant::now();
        socket.send(&query).await?;
        let n = tokio::time::timeout(Duration::from_secs(5), socket.recv(&mut answer)).await.context("no answer")??;
        times.push(began.elapsed());
        ensure!(n >= 12 && answer[..2] == query[..2], "not the answer to the question");
        rcode = answer[3] & 15;
    }
    let mut report = quantiles(times)?;
    report["rcode"] = rcode.into();
    Ok(report)
}

fn loopback(count: usize) -> Result<serde_json::Value> {
    let (near, far) = (std::net::UdpSocket::bind("127.0.0.1:0")?, std::net::UdpSocket::bind("127.0.0.1:0")?);
    near.connect(far.local_addr()?)?;
    far.connect(near.local_addr()?)?;
    let limit = Some(Duration::from_secs(5));
    near.set_read_timeout(limit)?;
    far.set_read_timeout(limit)?;
    std::thread::spawn(move || {
        let mut back = [0; ECHO];
        while far.recv(&mut back).is_ok_and(|_| far.send(&back).is_ok()) {}
    });
    let mut back = [0; ECHO];
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        near.send(&[7; ECHO])?;
        near.recv(&mut back)?;
        times.push(began.elapsed());
    }
    quantiles(times)
}

/// One port of a pod over one WebSocket: a binary message is a channel's number and its bytes; each channel begins
/// with the port's number; channel 0 is data, channel 1 errors.
struct Raw<S> {
    socket: S,
}

type Socket = tokio_tungstenite::WebSocketStream<hyper_util::rt::TokioIo<hyper::upgrade::Upgraded>>;

impl<S: Stream<Item = tungstenite::Result<Message>> + Unpin> Raw<S> {
    /// The next bytes of the data channel.
    async fn next(&mut self, heads: &mut u8) -> Result<Bytes> {
        loop {
            let message = self.socket.next().await.context("the port-forward ended")??;
            let Message::Binary(mut bytes) = message else { continue };
            ensure!(!bytes.is_empty(), "an empty message");
            let channel = bytes.split_to(1)[0];
            if *heads < 2 {
                *heads += 1; // the port's number, once on each channel
                continue;
            }
            ensure!(channel == 0, "error channel: {}", String::from_utf8_lossy(&bytes));
            return Ok(bytes);
        }
    }
}

impl Raw<Socket> {
    async fn open(namespace: &str, pod: &str, port: &str) -> Result<Self> {
        // Another provider in the graph would make the choice ambiguous; an earlier one is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = kube::Client::try_default().await?;
        let request = kube::core::Request::new(format!("/api/v1/namespaces/{namespace}/pods"));
        let request = request.portforward(pod, &[port.parse()?])?;
        Ok(Raw { socket: client.connect(request).await?.into_stream() })
    }

    async fn down(mut self, length: Duration) -> Result<serde_json::Value> {
        let mut heads = 0;
        let (began, mut bytes) = (Instant::now(), 0);
        while began.elapsed() < length {
            bytes += self.next(&mut heads).await?.len() as u64;
        }
        Ok(rate(bytes, began.elapsed()))
    }

    /// What the socket took counts as sent (a port-forward has no half-close, so no sink can answer): a little in the
    /// baseline's favour.
    async fn up(mut self, length: Duration) -> Result<serde_json::Value> {
        let mut message = vec![7; FRAME + 1];
        message[0] = 0;
        let message = Bytes::from(message);
        let (began, mut bytes) = (Instant::now(), 0);
        while began.elapsed() < length {
            self.socket.send(Message::Binary(message.clone())).await?;
            bytes += FRAME as u64;
        }
        Ok(rate(bytes, began.elapsed()))
    }

    /// Copies both ways until the client ends, which prints the answer.
    async fn copy(self, stream: TcpStream, mut client: tokio::process::Child) -> Result<()> {
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
            let mut from_pod = Raw { socket: from_pod };
            let mut heads = 0;
            loop {
                to_client.write_all(&from_pod.next(&mut heads).await?).await?;
            }
            #[expect(unreachable_code, reason = "it names the type of the error")]
            anyhow::Ok(())
        };
        // It resets what it has not read: how it ended is told by itself.
        let copied = async { drop(tokio::join!(up, down)) };
        let ended = tokio::select! {
            ended = client.wait() => ended,
            () = copied => client.wait().await,
        };
        ensure!(ended?.success(), "the client failed");
        Ok(())
    }

    async fn echo(mut self, count: usize) -> Result<serde_json::Value> {
        let mut message = vec![7; ECHO + 1];
        message[0] = 0;
        let message = Bytes::from(message);
        let mut heads = 0;
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let began = Instant::now();
            self.socket.send(Message::Binary(message.clone())).await?;
            let mut got = 0;
            while got < ECHO {
                got += self.next(&mut heads).await?.len();
            }
            times.push(began.elapsed());
        }
        quantiles(times)
    }
}
