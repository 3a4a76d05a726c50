//! Small exchanges, one after the other: there and back.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use super::{BLOCK, CONNECT, ECHO, connect, figures};

/// Exchanges beside a load that is too heavy are not waited for longer.
const LONGEST: Duration = Duration::from_secs(20);
/// How long the load has to flow before anything is measured beside it.
const WARM: Duration = Duration::from_millis(300);

pub async fn echo(at: SocketAddr, count: usize) -> Result<Value> {
    let mut stream = connect(at).await?;
    let mut back = [0; ECHO];
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        stream.write_all(&[7; ECHO]).await?;
        stream.read_exact(&mut back).await?;
        times.push(began.elapsed());
    }
    figures::quantiles(times)
}

/// Exchanges beside `flows` flows down. On a thread of their own, so that this client's other work is not what is measured.
pub async fn beside(echo: SocketAddr, bulk: SocketAddr, flows: usize, count: usize) -> Result<Value> {
    let (over, moved) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut bulks = JoinSet::new();
    for _ in 0..flows {
        let mut stream = connect(bulk).await?;
        let (over, moved) = (Arc::clone(&over), Arc::clone(&moved));
        bulks.spawn(async move {
            let mut block = vec![0; BLOCK];
            while !over.load(Ordering::Relaxed) {
                let n = stream.read(&mut block).await?;
                ensure!(n > 0, "the source ended");
                moved.fetch_add(n as u64, Ordering::Relaxed);
            }
            Ok(())
        });
    }
    tokio::time::sleep(WARM).await;
    let (done_tx, done) = tokio::sync::oneshot::channel();
    let (began, before) = (Instant::now(), moved.load(Ordering::Relaxed));
    std::thread::spawn(move || done_tx.send(exchanges(echo, count)));
    let times = done.await??;
    let load = figures::Moved::since(began, moved.load(Ordering::Relaxed) - before);
    over.store(true, Ordering::Relaxed);
    while let Some(bulk) = bulks.join_next().await {
        bulk?.context("a flow beside")?;
    }
    ensure!(flows == 0 || load.bytes > 0, "nothing flowed beside");
    let mut answer = figures::quantiles(times)?;
    answer["beside_mbit"] = load.mbit().into();
    Ok(answer)
}

fn exchanges(at: SocketAddr, count: usize) -> Result<Vec<Duration>> {
    let mut stream = std::net::TcpStream::connect_timeout(&at, CONNECT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(CONNECT))?;
    let mut back = [0; ECHO];
    let mut times = Vec::with_capacity(count);
    let start = Instant::now();
    while times.len() < count && start.elapsed() < LONGEST {
        let began = Instant::now();
        stream.write_all(&[7; ECHO])?;
        stream.read_exact(&mut back)?;
        times.push(began.elapsed());
    }
    Ok(times)
}

pub fn loopback(count: usize) -> Result<Value> {
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
    figures::quantiles(times)
}
