//! New connections, and such as do nothing.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{ECHO, connect, figures};

/// An exchange that takes longer has failed.
const EXCHANGE: Duration = Duration::from_secs(10);
/// What is too long for a small request.
const LONG: Duration = Duration::from_millis(100);
/// The largest answer that is read.
const LARGEST: usize = 1 << 20;
/// Connections that are opened at once.
const OPENING: usize = 64;

/// New connections with one small exchange each, so many at a time.
pub async fn rate(at: SocketAddr, length: Duration, parallel: usize) -> Result<Value> {
    let (times, failed, took) =
        again_and_again(length, parallel, move || async move { exchange(at).await.map(drop) }).await?;
    let each_second = times.len() as f64 / took.as_secs_f64();
    Ok(json!({ "done": times.len(), "failed": failed, "per_second": each_second }))
}

/// HTTP requests, each on a connection of its own.
pub async fn http(at: SocketAddr, host: &str, length: Duration, parallel: usize) -> Result<Value> {
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: podway-load\r\nConnection: close\r\n\r\n");
    let ask = move || {
        let request = request.clone();
        async move { answered(at, &request).await }
    };
    let (times, failed, took) = again_and_again(length, parallel, ask).await?;
    let (done, long) = (times.len(), times.iter().filter(|time| **time > LONG).count());
    let mut answer = if times.is_empty() { json!({}) } else { figures::quantiles(times)? };
    answer["done"] = done.into();
    answer["failed"] = failed.into();
    answer["per_second"] = (done as f64 / took.as_secs_f64()).into();
    answer["over_100ms"] = long.into();
    Ok(answer)
}

/// `parallel` tasks that each do `work` until `length` is over: how long each took, how many failed, and the whole time.
async fn again_and_again<F>(
    length: Duration,
    parallel: usize,
    work: impl Fn() -> F + Clone + Send + 'static,
) -> Result<(Vec<Duration>, u64, Duration)>
where
    F: Future<Output = Result<()>> + Send,
{
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..parallel {
        let work = work.clone();
        tasks.spawn(async move {
            let (mut times, mut failed) = (Vec::new(), 0u64);
            while began.elapsed() < length {
                let at = Instant::now();
                match timeout(EXCHANGE, work()).await {
                    Ok(Ok(())) => times.push(at.elapsed()),
                    Ok(Err(_)) | Err(_) => failed += 1,
                }
            }
            (times, failed)
        });
    }
    let (mut times, mut failed) = (Vec::new(), 0);
    while let Some(task) = tasks.join_next().await {
        let (own, lost) = task?;
        times.extend(own);
        failed += lost;
    }
    Ok((times, failed, began.elapsed()))
}

async fn exchange(at: SocketAddr) -> Result<TcpStream> {
    let mut stream = connect(at).await?;
    let mut back = [0; ECHO];
    stream.write_all(&[7; ECHO]).await?;
    stream.read_exact(&mut back).await?;
    Ok(stream)
}

async fn answered(at: SocketAddr, request: &str) -> Result<()> {
    let mut stream = connect(at).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut got = Vec::with_capacity(4096);
    // A forwarder may not pass the end on: the head says where it is.
    while !is_whole(&got) {
        ensure!(got.len() < LARGEST, "the answer has no end");
        if stream.read_buf(&mut got).await? == 0 {
            break;
        }
    }
    let line = got.split(|byte| *byte == b'\r').next().unwrap_or_default();
    ensure!(line.starts_with(b"HTTP/1.") && line.get(8..12) == Some(b" 200"), "{}", String::from_utf8_lossy(line));
    Ok(())
}

/// Whether an answer has as many bytes as its head says. Never, where that says nothing: then the end is the end.
fn is_whole(got: &[u8]) -> bool {
    let Some(end) = got.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(got.get(..end).unwrap_or_default()).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    length.is_some_and(|length| got.len() >= end + 4 + length)
}

/// Says when `count` connections are open that did one exchange each, and holds them until `length` is over or the
/// standard input ends.
pub async fn idle(at: SocketAddr, count: usize, length: Duration) -> Result<()> {
    many_descriptors(count as u64 + 256)?;
    let began = Instant::now();
    let (mut open, mut failed, mut why) = (Vec::with_capacity(count), 0u64, None);
    let mut tasks = JoinSet::new();
    let mut left = count;
    while left > 0 || !tasks.is_empty() {
        while left > 0 && tasks.len() < OPENING {
            left -= 1;
            tasks.spawn(async move { timeout(EXCHANGE, exchange(at)).await.context("no answer")? });
        }
        match tasks.join_next().await {
            Some(Ok(Ok(stream))) => open.push(stream),
            Some(Ok(Err(error))) => {
                failed += 1;
                why.get_or_insert(format!("{error:#}"));
            }
            Some(Err(error)) => return Err(error.into()),
            None => {}
        }
    }
    println!(
        "{}",
        json!({ "open": open.len(), "failed": failed, "first_error": why, "seconds": began.elapsed().as_secs_f64() })
    );
    let told = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()));
    timeout(length, told).await.ok();
    Ok(())
}

fn many_descriptors(count: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < count {
        setrlimit(Resource::RLIMIT_NOFILE, count, hard.max(count)).context("more open files than are allowed")?;
    }
    Ok(())
}
