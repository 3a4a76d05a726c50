//! What the tunnel does on loopback, beside plain TCP: `cargo run --release -p podway-agent --example rate`.
//!
//! `rate flows`, `rate bulk` and `rate beside` print a part of it. `rate lines SECONDS ROUNDS` prints what has a bar as lines
//! of JSON, each beside plain TCP measured in turns with it (`benches/carrier`).
#![allow(clippy::expect_used, clippy::print_stdout, clippy::disallowed_methods, reason = "prints measured figures")]
#![allow(clippy::allow_attributes, reason = "see above")]

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use podway_agent::args::Serve;
use podway_agent::server::{Agent, FlowLimits};
use podway_tunnel::client::{Carrier, Config, Direction, Event, Line, TcpFlow};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const DIAL: Duration = Duration::from_secs(5);
const BULK: usize = 2 << 30;
const WINDOW: Duration = Duration::from_secs(3);
/// Bytes that move at a time.
const CHUNK: usize = 1 << 16;

/// Runs `work` on a runtime and a thread of its own, and gives the address that it reports.
fn on_a_thread<F, W>(work: W) -> SocketAddr
where
    W: FnOnce(std::sync::mpsc::Sender<SocketAddr>) -> F + Send + 'static,
    F: Future<Output = ()>,
{
    let (address_tx, address_rx) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(work(address_tx));
    });
    address_rx.recv().expect("an address")
}

/// The far end: `e` echoes, `d` sends without end, `u` swallows.
fn far_end() -> SocketAddr {
    on_a_thread(async |address_tx| {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        address_tx.send(listener.local_addr().expect("an address")).expect("told");
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("set");
            tokio::spawn(async move {
                let mut buffer = vec![0; 1 << 16];
                match stream.read_u8().await {
                    Ok(b'e') => {
                        while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                            if stream.write_all(&buffer[..length]).await.is_err() {
                                return;
                            }
                        }
                    }
                    Ok(b'd') => while stream.write_all(&buffer).await.is_ok() {},
                    _ => while let Ok(1..) = stream.read(&mut buffer).await {},
                }
            });
        }
    })
}

/// Passes bytes on, both ways, on a thread of its own.
fn relay(to: SocketAddr) -> SocketAddr {
    on_a_thread(async move |address_tx| {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        address_tx.send(listener.local_addr().expect("an address")).expect("told");
        loop {
            let (mut near, _) = listener.accept().await.expect("a connection");
            let mut far = TcpStream::connect(to).await.expect("connected");
            for stream in [&near, &far] {
                stream.set_nodelay(true).expect("set");
            }
            tokio::spawn(async move {
                drop(tokio::io::copy_bidirectional_with_sizes(&mut near, &mut far, CHUNK, CHUNK).await);
            });
        }
    })
}

fn agent(key: [u8; 32]) -> SocketAddr {
    on_a_thread(async move |address_tx| {
        let serve = Serve {
            listen: "127.0.0.1:0".parse().expect("an address"),
            authorized_key: key,
            pod_uid: "pod".into(),
            idle_exit: Duration::from_secs(3600),
            resolv_conf: "/nonexistent".into(),
        };
        let agent = Agent::bind(serve, FlowLimits::default()).await.expect("bound");
        address_tx.send(agent.address()).expect("told");
        agent.run(std::future::pending()).await;
    })
}

async fn send(flow: &mut TcpFlow, mut data: Bytes) {
    while !data.is_empty() {
        let room = poll_fn(|cx| flow.poll_send_ready(cx)).await.expect("open");
        flow.send(data.split_to(room.min(data.len()))).expect("open");
    }
}

async fn receive(flow: &mut TcpFlow, length: usize) {
    let mut left = length;
    while left > 0 {
        match poll_fn(|cx| flow.poll_event(cx)).await {
            Event::Data(data) => left = left.saturating_sub(data.len()),
            other @ (Event::Fin | Event::Reset) => panic!("{other:?}"),
        }
    }
}

async fn open(carrier: &Carrier, to: SocketAddr, mode: u8) -> TcpFlow {
    let mut flow = carrier.open_tcp(to, DIAL).await.expect("opened");
    send(&mut flow, Bytes::copy_from_slice(&[mode])).await;
    flow
}

/// New flows with one exchange each, `workers` at a time.
async fn flows(carrier: &Carrier, to: SocketAddr, workers: usize) {
    let carrier = carrier.clone();
    let exchange = move || {
        let carrier = carrier.clone();
        async move {
            let mut flow = open(&carrier, to, b'e').await;
            send(&mut flow, Bytes::from_static(&[7; 64])).await;
            receive(&mut flow, 64).await;
        }
    };
    println!("new flows, {workers:3} at a time: {:7.0} /s", exchanges(workers, exchange).await);
}

async fn plain_flows(to: SocketAddr, workers: usize) {
    let exchange = move || async move {
        let mut stream = TcpStream::connect(to).await.expect("connected");
        stream.write_all(&[b'e'; 65]).await.expect("sent");
        stream.read_exact(&mut [0; 64]).await.expect("received");
    };
    println!("  plain,   {workers:3} at a time: {:7.0} /s", exchanges(workers, exchange).await);
}

/// Makes one exchange after the other in each of `workers` tasks; how many a second.
async fn exchanges<F>(workers: usize, exchange: impl Fn() -> F + Clone + Send + 'static) -> f64
where
    F: Future<Output = ()> + Send,
{
    let began = Instant::now();
    let tasks: Vec<_> = (0..workers)
        .map(|_| {
            let exchange = exchange.clone();
            tokio::spawn(async move {
                let mut done = 0_u32;
                while began.elapsed() < WINDOW {
                    exchange().await;
                    done += 1;
                }
                done
            })
        })
        .collect();
    let mut done = 0;
    for task in tasks {
        done += task.await.expect("done");
    }
    f64::from(done) / began.elapsed().as_secs_f64()
}

async fn bulk(carrier: &Carrier, to: SocketAddr, mode: u8, until: impl Fn() -> bool) -> usize {
    let mut flow = open(carrier, to, mode).await;
    let chunk = Bytes::from(vec![0; CHUNK]);
    let mut moved = 0;
    while moved < BULK * 16 && !until() {
        if mode == b'd' {
            match poll_fn(|cx| flow.poll_event(cx)).await {
                Event::Data(data) => moved += data.len(),
                other @ (Event::Fin | Event::Reset) => panic!("{other:?}"),
            }
        } else {
            // Only credit comes from the far end; looking for room takes it.
            send(&mut flow, chunk.clone()).await;
            moved += chunk.len();
        }
    }
    moved
}

/// Seconds of processor that this process has used (proc_pid_stat(5): 14 and 15, in hundredths).
fn processor() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("read");
    let fields = stat.rsplit(')').next().expect("a name").split_whitespace().skip(11).take(2);
    fields.map(|ticks| ticks.parse::<f64>().expect("a number")).sum::<f64>() / 100.0
}

async fn plain_bulk(to: SocketAddr, mode: u8, until: impl Fn() -> bool) -> usize {
    let mut stream = TcpStream::connect(to).await.expect("connected");
    stream.set_nodelay(true).expect("set");
    stream.write_all(&[mode]).await.expect("sent");
    let (mut chunk, mut moved) = (vec![0; CHUNK], 0);
    while moved < BULK * 16 && !until() {
        if mode == b'd' {
            moved += stream.read(&mut chunk).await.expect("received");
        } else {
            stream.write_all(&chunk).await.expect("sent");
            moved += chunk.len();
        }
    }
    moved
}

/// Gbit/s, and Gbit for a second of processor: the second says more on a machine that others use too.
async fn together<F>(count: usize, flow: impl Fn(Instant) -> F) -> (f64, f64)
where
    F: Future<Output = usize> + Send + 'static,
{
    let began = Instant::now();
    let used = processor();
    let tasks: Vec<_> = (0..count).map(|_| tokio::spawn(flow(began))).collect();
    let mut moved = 0;
    for task in tasks {
        moved += task.await.expect("done");
    }
    let gigabits = moved as f64 * 8e-9;
    (gigabits / began.elapsed().as_secs_f64(), gigabits / (processor() - used))
}

async fn carried(carrier: &Carrier, to: SocketAddr, mode: u8, count: usize, window: Duration) -> (f64, f64) {
    together(count, |began| {
        let carrier = carrier.clone();
        async move { bulk(&carrier, to, mode, || began.elapsed() > window).await }
    })
    .await
}

async fn plain(to: SocketAddr, mode: u8, count: usize, window: Duration) -> (f64, f64) {
    together(count, |began| async move { plain_bulk(to, mode, || began.elapsed() > window).await }).await
}

async fn throughput(carrier: &Carrier, to: SocketAddr, mode: u8, count: usize) {
    let (gigabits, each) = carried(carrier, to, mode, count, WINDOW).await;
    let way = if mode == b'd' { "down" } else { "up  " };
    println!("{way} {count}: {gigabits:5.1} Gbit/s, {each:5.1} Gbit for a second of processor");
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What has a bar, in turns with plain TCP to the same far end, directly and through one relay: the agent is one, too.
async fn lines(carrier: &Carrier, far: SocketAddr, echo: SocketAddr, window: Duration, rounds: usize) {
    let relay = relay(far);
    for (mode, way, count) in [(b'u', "up", 1), (b'd', "down", 1), (b'u', "up", 8), (b'd', "down", 8)] {
        let (mut own, mut direct, mut relayed) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            direct.push(plain(far, mode, count, window).await.0);
            own.push(carried(carrier, far, mode, count, window).await.0);
            relayed.push(plain(relay, mode, count, window).await.0);
        }
        let (own, direct, relayed) = (median(own), median(direct), median(relayed));
        println!(
            r#"{{"bulk":"{way}","flows":{count},"gbit":{own:.2},"plain_gbit":{direct:.2},"relayed_gbit":{relayed:.2}}}"#
        );
    }
    for (mode, way, count) in [(b'u', "up", 0), (b'u', "up", 1), (b'd', "down", 1)] {
        let (plain50, plain99) = quantiles(plain_beside(relay, echo, mode, count).await);
        let (p50, p99) = quantiles(beside(carrier, far, echo, mode, count).await);
        println!(
            r#"{{"beside":"{way}","flows":{count},"p50_us":{p50},"p99_us":{p99},"plain_p50_us":{plain50},"plain_p99_us":{plain99}}}"#
        );
    }
}

/// The same over plain TCP: what this takes is the machine's.
async fn plain_beside(to: SocketAddr, echo: SocketAddr, mode: u8, count: usize) -> Vec<u128> {
    let over = Arc::new(AtomicBool::new(false));
    let bulks: Vec<_> = (0..count)
        .map(|_| {
            let over = Arc::clone(&over);
            tokio::spawn(async move { plain_bulk(to, mode, || over.load(Ordering::Relaxed)).await })
        })
        .collect();
    let times = relayed_turns(echo).await;
    over.store(true, Ordering::Relaxed);
    for bulk in bulks {
        bulk.await.expect("done");
    }
    times
}

/// Round trips of 64 bytes beside `count` bulk flows.
async fn beside(carrier: &Carrier, to: SocketAddr, echo: SocketAddr, mode: u8, count: usize) -> Vec<u128> {
    let over = Arc::new(AtomicBool::new(false));
    let bulks: Vec<_> = (0..count)
        .map(|_| {
            let (carrier, over) = (carrier.clone(), Arc::clone(&over));
            tokio::spawn(async move { bulk(&carrier, to, mode, || over.load(Ordering::Relaxed)).await })
        })
        .collect();
    let mut flow = open(carrier, echo, b'e').await;
    let exchange = async || {
        send(&mut flow, Bytes::from_static(&[7; 64])).await;
        receive(&mut flow, 64).await;
    };
    let times = round_trips(exchange).await;
    over.store(true, Ordering::Relaxed);
    for bulk in bulks {
        bulk.await.expect("done");
    }
    times
}

/// Round trips of 64 bytes over plain TCP through two relays: as many threads wake each other as in the tunnel, so what
/// this takes is the machine's.
async fn relayed_turns(echo: SocketAddr) -> Vec<u128> {
    let mut stream = TcpStream::connect(relay(relay(echo))).await.expect("connected");
    stream.set_nodelay(true).expect("set");
    stream.write_all(b"e").await.expect("sent");
    let exchange = async || {
        stream.write_all(&[7; 64]).await.expect("sent");
        stream.read_exact(&mut [0; 64]).await.expect("received");
    };
    round_trips(exchange).await
}

/// Makes one exchange after the other with pauses between, and gives the microseconds they took.
async fn round_trips(mut exchange: impl AsyncFnMut()) -> Vec<u128> {
    let mut times = Vec::new();
    let began = Instant::now();
    while began.elapsed() < WINDOW {
        let at = Instant::now();
        exchange().await;
        times.push(at.elapsed().as_micros());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    times
}

/// The middle and the tail.
fn quantiles(mut times: Vec<u128>) -> (u128, u128) {
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or(0);
    (at(50), at(99))
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
    let pair = Arc::new(Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("its pair"));
    let far = far_end();
    // On a thread of its own, so that what is measured is the tunnel.
    let echo = far_end();
    let agent = agent(pair.public_key().as_ref().try_into().expect("32 bytes"));
    let special = vec!["127.0.0.0/8".to_owned()];
    let budget = podway_tunnel::client::budget();
    let config = Config {
        pair,
        session_id: [7; 16],
        pod_uid: "pod".into(),
        special,
        budget,
        line: Some(Line::default()),
        bulk: None,
    };
    let stream = TcpStream::connect(agent).await.expect("connected");
    stream.set_nodelay(true).expect("set");
    let carrier = Carrier::connect(stream, &config).await.expect("welcome");
    // As a link has one: flows that move much leave the first.
    let mut for_bulk = Vec::new();
    for bulk in [Direction::Down, Direction::Up].map(Some) {
        let stream = TcpStream::connect(agent).await.expect("connected");
        stream.set_nodelay(true).expect("set");
        for_bulk.push(Carrier::connect(stream, &Config { bulk, ..config.clone() }).await.expect("welcome"));
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [what, seconds, rounds] = args.as_slice()
        && what == "lines"
    {
        let window = Duration::from_secs_f64(seconds.parse().expect("seconds"));
        return lines(&carrier, far, echo, window, rounds.parse().expect("rounds")).await;
    }
    let only = args.first();
    let wanted = |part: &str| only.is_none_or(|only| only == part);
    for workers in [1, 16, 128].into_iter().filter(|_| wanted("flows")) {
        flows(&carrier, far, workers).await;
        plain_flows(far, workers).await;
    }
    for (mode, count) in [(b'u', 1), (b'd', 1), (b'u', 8), (b'd', 8)].into_iter().filter(|_| wanted("bulk")) {
        throughput(&carrier, far, mode, count).await;
    }
    for (mode, count) in
        [(b'u', 0), (b'u', 1), (b'u', 8), (b'd', 1), (b'd', 8)].into_iter().filter(|_| wanted("beside"))
    {
        let (p50, p99) = quantiles(beside(&carrier, far, echo, mode, count).await);
        println!("64-byte round trip beside {count} {}: p50 {p50} us, p99 {p99} us", char::from(mode));
        if count == 0 {
            let (p50, p99) = quantiles(relayed_turns(echo).await);
            println!("  plain, through two relays:     p50 {p50} us, p99 {p99} us");
        }
    }
}
