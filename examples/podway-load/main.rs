//! The load client of the benchmark: one measurement a call, one line of JSON as the answer.
//!
//! ```text
//! podway-load down|up ADDR:PORT SECONDS            one flow, bytes a second
//! podway-load flows down|up|push ADDR:PORT N SECONDS [STALLED]   N flows at once, the slowest's share of the mean
//! podway-load conns ADDR:PORT SECONDS PARALLEL     new connections a second, 64 bytes there and back on each
//! podway-load http ADDR:PORT HOST SECONDS PARALLEL requests a second, a new connection each; how many took over 100 ms
//! podway-load idle ADDR:PORT N SECONDS             N connections with one exchange each, then held, at most so long
//! podway-load echo ADDR:PORT COUNT                 64 bytes there and back on one connection: p50, p99
//! podway-load beside ECHO:PORT BULK:PORT N COUNT   the same beside N flows down
//! podway-load udp ADDR:PORT RATE SIZE SECONDS FLOWS   datagrams that come back, at a pace
//! podway-load dns SERVER NAME COUNT                A queries over UDP, one at a time: p50, p99
//! podway-load loopback COUNT                       64 bytes there and back over UDP between two threads: what a turn costs here
//! podway-load raw-down|raw-up NS POD PORT SECONDS  the same flow over one port-forward WebSocket and nothing else
//! podway-load raw-flows down|up NS POD PORT N SECONDS    over N of them
//! podway-load raw-conns NS POD PORT SECONDS PARALLEL     one of them for each connection
//! podway-load raw-echo NS POD PORT COUNT
//! podway-load raw-beside NS POD ECHO BULK N COUNT
//! podway-load forward down|push|echo NS POD PORT SECONDS|COUNT   through a listener that copies to one for each connection
//! podway-load forward flows down|push NS POD PORT N SECONDS
//! podway-load forward conns NS POD PORT SECONDS PARALLEL
//! podway-load forward http NS POD PORT HOST SECONDS PARALLEL
//! podway-load forward beside NS POD ECHO BULK N COUNT
//! ```
//!
//! STALLED is the address of one more connection, which takes nothing and is filled until nothing more goes in. `push`
//! counts what the socket took: a port-forward has no half-close, so no sink can answer. `idle` answers when all are open,
//! and ends when its standard input does. The raw variants and `forward` are baselines, made with the client library's own
//! WebSocket and not with podway's.

#![expect(clippy::print_stdout, reason = "the answer goes to stdout")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

mod connections;
mod datagrams;
mod figures;
mod flows;
mod forward;
mod raw;
mod turns;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// Nothing that is measured takes so long.
const LIMIT: Duration = Duration::from_secs(110);
/// A connection that takes longer stands for none.
const CONNECT: Duration = Duration::from_secs(10);
/// Bytes of a small exchange.
const ECHO: usize = 64;
/// Bytes of a large one.
const BLOCK: usize = 64 * 1024;

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let answer = timeout(LIMIT, measure(&args)).await.context("it took too long")??;
    if let Some(answer) = answer {
        println!("{answer}");
    }
    // Threads that still wait for an answer end with the process.
    std::process::exit(0);
}

/// The answer; none where it has been printed.
async fn measure(args: &[&str]) -> Result<Option<Value>> {
    Ok(Some(match args {
        ["down", at, seconds] => flows::down(connect(address(at).await?).await?, secs(seconds)?).await?.value(),
        ["up", at, seconds] => flows::up(connect(address(at).await?).await?, secs(seconds)?).await?.value(),
        ["push", at, seconds] => flows::push(&mut connect(address(at).await?).await?, secs(seconds)?).await?.value(),
        ["flows", way, at, count, seconds, stalled @ ..] => {
            let stalled = match stalled {
                [] => None,
                [at] => Some(address(at).await?),
                [..] => bail!("at most one that stalls"),
            };
            flows::many(way.parse()?, address(at).await?, count.parse()?, secs(seconds)?, stalled).await?
        }
        ["conns", at, seconds, parallel] => {
            connections::rate(address(at).await?, secs(seconds)?, parallel.parse()?).await?
        }
        ["http", at, host, seconds, parallel] => {
            connections::http(address(at).await?, host, secs(seconds)?, parallel.parse()?).await?
        }
        ["idle", at, count, seconds] => {
            connections::idle(address(at).await?, count.parse()?, secs(seconds)?).await?;
            return Ok(None);
        }
        ["echo", at, count] => turns::echo(address(at).await?, count.parse()?).await?,
        ["beside", echo, bulk, flows, count] => {
            turns::beside(address(echo).await?, address(bulk).await?, flows.parse()?, count.parse()?).await?
        }
        ["udp", at, rate, size, seconds, flows] => {
            datagrams::paced(address(at).await?, rate.parse()?, size.parse()?, secs(seconds)?, flows.parse()?).await?
        }
        ["dns", server, name, count] => datagrams::dns(server, name, count.parse()?).await?,
        ["loopback", count] => turns::loopback(count.parse()?)?,
        [first, rest @ ..] if first.starts_with("raw-") => raw::measure(first, rest).await?,
        ["forward", rest @ ..] => {
            forward::measure(rest).await?;
            return Ok(None);
        }
        _ => bail!("usage: the first lines of examples/podway-load/main.rs"),
    }))
}

fn secs(text: &str) -> Result<Duration> {
    Ok(Duration::try_from_secs_f64(text.parse()?)?)
}

async fn address(text: &str) -> Result<SocketAddr> {
    lookup_host(text).await?.next().with_context(|| format!("{text} has no address"))
}

async fn connect(at: SocketAddr) -> Result<TcpStream> {
    let connecting = timeout(CONNECT, TcpStream::connect(at));
    let stream =
        connecting.await.context("no answer").and_then(|s| Ok(s?)).with_context(|| format!("connect to {at}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
