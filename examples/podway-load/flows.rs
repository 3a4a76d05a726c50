//! Flows that move as much as they can.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::figures::{self, Moved};
use super::{BLOCK, connect};

/// A way that takes nothing for so long is full.
const FULL: Duration = Duration::from_millis(300);
/// What is put into a stalled one at most: more than all buffers on the way.
const MOST: u64 = 256 << 20;

/// Which way bytes go, and who counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Down,
    Up,
    Push,
}

impl FromStr for Way {
    type Err = Error;

    fn from_str(text: &str) -> Result<Way> {
        match text {
            "down" => Ok(Way::Down),
            "up" => Ok(Way::Up),
            "push" => Ok(Way::Push),
            _ => bail!("{text} is no way"),
        }
    }
}

pub async fn down(mut stream: TcpStream, length: Duration) -> Result<Moved> {
    let mut block = vec![0; BLOCK];
    let (began, mut bytes) = (Instant::now(), 0);
    while began.elapsed() < length {
        let n = stream.read(&mut block).await?;
        ensure!(n > 0, "the source ended");
        bytes += n as u64;
    }
    Ok(Moved::since(began, bytes))
}

/// Into a sink that tells its count after the end: what waits in buffers does not count as sent.
pub async fn up(mut stream: TcpStream, length: Duration) -> Result<Moved> {
    let began = Instant::now();
    let sent = push(&mut stream, length).await?.bytes;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let moved = Moved::since(began, answer.trim().parse()?);
    ensure!(sent == moved.bytes, "{sent} bytes were sent, {} arrived", moved.bytes);
    Ok(moved)
}

pub async fn push(stream: &mut TcpStream, length: Duration) -> Result<Moved> {
    let block = vec![7; BLOCK];
    let (began, mut bytes) = (Instant::now(), 0);
    while began.elapsed() < length {
        stream.write_all(&block).await?;
        bytes += BLOCK as u64;
    }
    Ok(Moved::since(began, bytes))
}

/// `count` flows at once, which begin when all are open. One more may stand still beside them.
pub async fn many(
    way: Way,
    at: SocketAddr,
    count: usize,
    length: Duration,
    stalled: Option<SocketAddr>,
) -> Result<Value> {
    let held = match stalled {
        Some(at) => Some(stall(at).await.context("the one that stalls")?),
        None => None,
    };
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        streams.push(connect(at).await?);
    }
    let mut tasks = JoinSet::new();
    for mut stream in streams {
        tasks.spawn(async move {
            match way {
                Way::Down => down(stream, length).await,
                Way::Up => up(stream, length).await,
                Way::Push => push(&mut stream, length).await,
            }
        });
    }
    let mut moved = Vec::with_capacity(count);
    while let Some(flow) = tasks.join_next().await {
        moved.push(flow??);
    }
    let mut answer = figures::together(&moved)?;
    if let Some((stream, bytes)) = held {
        answer["stalled_bytes"] = bytes.into();
        drop(stream);
    }
    Ok(answer)
}

/// A connection that takes nothing and is full, and what went in.
async fn stall(at: SocketAddr) -> Result<(TcpStream, u64)> {
    let mut stream = connect(at).await?;
    let block = vec![7; BLOCK];
    let mut bytes = 0;
    while bytes < MOST {
        match timeout(FULL, stream.write(&block)).await {
            Ok(written) => bytes += written? as u64,
            Err(_) => return Ok((stream, bytes)),
        }
    }
    bail!("{at} takes {bytes} bytes and more: it does not stall")
}
