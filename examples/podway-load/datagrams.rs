//! UDP: questions to a name server, and datagrams at a pace.

use std::net::{SocketAddr, UdpSocket as StdSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::BytesMut;
use rustix::net::sockopt;
use serde_json::{Value, json};
use tokio::net::UdpSocket;

use super::figures;

/// Between two looks at how many are due: what is due then goes at once.
const STEP: Duration = Duration::from_micros(100);
/// Sent at once at most, where that is less than half a millisecond's: a network's card does not send more either. What was
/// due while this client was kept from running is left out.
const AT_ONCE: u64 = 32;
/// Bytes that may wait to be received.
const RECEIVES: usize = 8 << 20;
/// How long the last ones may take to come back.
const LAST: Duration = Duration::from_millis(500);

pub async fn dns(server: &str, name: &str, count: usize) -> Result<Value> {
    let server: SocketAddr = if server.parse::<std::net::IpAddr>().is_ok() {
        SocketAddr::new(server.parse()?, 53)
    } else {
        server.parse()?
    };
    let socket = UdpSocket::bind(any(server)).await?;
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
    let mut report = figures::quantiles(times)?;
    report["rcode"] = rcode.into();
    Ok(report)
}

fn any(to: SocketAddr) -> &'static str {
    if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }
}

/// `rate` datagrams a second to whoever sends them back, spread over `flows` sockets.
pub async fn paced(at: SocketAddr, rate: u64, size: usize, length: Duration, flows: usize) -> Result<Value> {
    ensure!(flows > 0 && rate > 0 && size > 0, "it takes one of each at least");
    let (done_tx, done) = tokio::sync::oneshot::channel();
    thread::spawn(move || done_tx.send(send_and_count(at, rate, size, length, flows)));
    done.await?
}

fn send_and_count(at: SocketAddr, rate: u64, size: usize, length: Duration, flows: usize) -> Result<Value> {
    let mut sockets = Vec::with_capacity(flows);
    for _ in 0..flows {
        let socket = StdSocket::bind(any(at))?;
        // What the receiver here does not take in time is not the path's loss.
        // Who may, has more than the host's limit.
        sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVES)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, RECEIVES))?;
        socket.connect(at)?;
        // The first one makes the way.
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut back = vec![0; size];
        socket.send(&back)?;
        socket.recv(&mut back).context("the first one did not come back")?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        sockets.push(Arc::new(socket));
    }
    let over = Arc::new(AtomicBool::new(false));
    let counters: Vec<_> = sockets
        .iter()
        .map(|socket| {
            let (socket, over) = (Arc::clone(socket), Arc::clone(&over));
            thread::spawn(move || {
                let (mut back, mut count) = (vec![0; size], 0u64);
                while !over.load(Ordering::Relaxed) {
                    count += u64::from(socket.recv(&mut back).is_ok());
                }
                count
            })
        })
        .collect();
    let (mut sent, mut refused, mut left_out) = (0u64, 0u64, 0u64);
    let datagram = vec![7; size];
    let most = AT_ONCE.max(rate / 2000);
    let began = Instant::now();
    while began.elapsed() < length {
        let due = (began.elapsed().as_secs_f64() * rate as f64) as u64;
        left_out += (due - sent - refused - left_out).saturating_sub(most);
        while sent + refused + left_out < due {
            let socket = &sockets[((sent + refused) % flows as u64) as usize];
            match socket.send(&datagram) {
                Ok(_) => sent += 1,
                Err(_) => refused += 1,
            }
        }
        thread::sleep(STEP);
    }
    let took = began.elapsed().as_secs_f64();
    thread::sleep(LAST);
    over.store(true, Ordering::Relaxed);
    let received: u64 = counters.into_iter().map(|counter| counter.join().unwrap_or_default()).sum();
    Ok(json!({
        "sent": sent, "refused": refused, "received": received, "lost": sent.saturating_sub(received), "seconds": took, "left_out": left_out,
        "sent_per_second": sent as f64 / took, "received_per_second": received as f64 / took,
    }))
}
