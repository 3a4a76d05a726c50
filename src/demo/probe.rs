//! `podway-probe`: a plain client, as any program is one. It resolves names as the C library does and opens sockets; it
//! is here to measure a connection from outside, and stands in for curl where there is none.
//!
//! `podway-probe get HOST[:PORT]` prints the body of `http://HOST/` and the address that it asked; `podway-probe measure HOST` prints [`Measured`] as
//! one line of JSON.
#![expect(clippy::disallowed_methods, reason = "a measuring program reads the clock")]

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Ports of the cluster's sample servers.
use podway_minicluster::pod_server::{ECHO, SINK, SOURCE};

/// How long a connection may say nothing.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a round trip.
const MESSAGE: usize = 64;
/// Round trips before those that count: the way gets warm.
const WARM_UP: usize = 20;
/// Most round trips that are counted, and the longest time they take.
const ROUNDS: usize = 1000;
const ROUNDS_LIMIT: Duration = Duration::from_millis(300);
/// How long one flow runs each way, after what the warm-up may take.
const FLOW: Duration = Duration::from_millis(300);
const FLOW_WARM_UP: Duration = Duration::from_millis(100);
/// Bytes at a time.
const BLOCK: usize = 256 * 1024;
/// The longest answer that is read.
const LONGEST: u64 = 1024 * 1024;

/// What was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Round trips that were counted.
    pub rounds: usize,
    /// Median, in microseconds.
    pub p50_us: u64,
    /// The 99th percentile, in microseconds.
    pub p99_us: u64,
    /// One flow from the pod, in bytes a second.
    pub down: u64,
    /// One flow to the pod, in bytes a second that the pod has counted.
    pub up: u64,
}

/// Runs it; `args` begin with its name.
pub fn run(args: &[OsString]) -> ExitCode {
    let words: Vec<&str> = args.iter().skip(1).filter_map(|arg| arg.to_str()).collect();
    let done = match words.as_slice() {
        ["get", host] => get(host).and_then(|body| io::stdout().write_all(body.as_bytes())),
        ["measure", host] => measure(host)
            .and_then(|measured| Ok(serde_json::to_string(&measured)?))
            .and_then(|line| writeln!(io::stdout(), "{line}")),
        _ => {
            eprintln!("error: podway-probe: get HOST[:PORT], or measure HOST");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: podway-probe: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The body of `http://HOST/`, then the address that the name stood for.
fn get(host: &str) -> io::Result<String> {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) => (name, port.parse().map_err(io::Error::other)?),
        None => (host, 80),
    };
    let mut stream = connect(name, port)?;
    let asked = stream.peer_addr()?.ip();
    write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(LONGEST).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or_default();
    match status.split(' ').nth(1) {
        Some("200") => Ok(format!("{}\n{asked}\n", body.trim_end())),
        Some(_) | None => Err(io::Error::other(format!("http://{host}/ answered {status:?}"))),
    }
}

fn measure(host: &str) -> io::Result<Measured> {
    let rounds = round_trips(host)?;
    Ok(Measured {
        rounds: rounds.len(),
        p50_us: percentile(&rounds, 50),
        p99_us: percentile(&rounds, 99),
        down: down(host)?,
        up: up(host)?,
    })
}

/// A connection by name, which the standard library asks getaddrinfo for; by IPv4 where there is a choice, as the
/// report's requests are.
fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{host}:{port}: {error}"));
    let mut all: Vec<_> = (host, port).to_socket_addrs().map_err(named)?.collect();
    all.sort_by_key(|address| !address.is_ipv4());
    let stream = TcpStream::connect(all.as_slice()).map_err(named)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Times of round trips in microseconds, in order of size.
fn round_trips(host: &str) -> io::Result<Vec<u64>> {
    let mut stream = connect(host, ECHO)?;
    let (message, mut answer) = ([0x5a_u8; MESSAGE], [0_u8; MESSAGE]);
    let mut times = Vec::with_capacity(ROUNDS);
    let began = Instant::now();
    for round in 0..WARM_UP + ROUNDS {
        let sent = Instant::now();
        stream.write_all(&message)?;
        stream.read_exact(&mut answer)?;
        if answer != message {
            return Err(io::Error::other(format!("{host}:{ECHO}: the echo is not what was sent")));
        }
        if round >= WARM_UP {
            times.push(u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX));
            if began.elapsed() > ROUNDS_LIMIT {
                break;
            }
        }
    }
    times.sort_unstable();
    Ok(times)
}

/// The value that so many percent do not exceed; 0 of none. `sorted` is in order.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).copied().unwrap_or(0)
}

fn down(host: &str) -> io::Result<u64> {
    let mut stream = connect(host, SOURCE)?;
    let mut block = vec![0; BLOCK];
    let mut pass = |limit: Duration| -> io::Result<u64> {
        let (began, mut count) = (Instant::now(), 0_u64);
        while began.elapsed() < limit {
            match stream.read(&mut block)? {
                0 => return Err(io::Error::other(format!("{host}:{SOURCE}: it ended"))),
                length => count += length as u64,
            }
        }
        Ok(rate(count, began.elapsed()))
    };
    pass(FLOW_WARM_UP)?;
    pass(FLOW)
}

/// Counted by the pod: what is still on the way when it stops was not carried.
fn up(host: &str) -> io::Result<u64> {
    let mut stream = connect(host, SINK)?;
    let block = vec![0x5a; BLOCK];
    let began = Instant::now();
    let mut sent = 0;
    while began.elapsed() < FLOW {
        sent += stream.write(&block)? as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut said = String::new();
    stream.take(64).read_to_string(&mut said)?;
    let took = began.elapsed();
    match said.trim().parse::<u64>() {
        Ok(counted) if counted == sent => Ok(rate(counted, took)),
        Ok(_) | Err(_) => Err(io::Error::other(format!("{host}:{SINK}: it counted {said:?} of {sent} bytes"))),
    }
}

/// Bytes a second.
fn rate(bytes: u64, time: Duration) -> u64 {
    let rate = u128::from(bytes) * 1_000_000 / time.as_micros().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let sorted: Vec<u64> = (1..=200).collect();
        assert_eq!((percentile(&sorted, 50), percentile(&sorted, 99)), (100, 198));
        assert_eq!((percentile(&[7], 50), percentile(&[7], 99), percentile(&[], 50)), (7, 7, 0));
    }

    #[test]
    fn rates_are_bytes_a_second() {
        assert_eq!(rate(1_000, Duration::from_millis(500)), 2_000);
        assert_eq!(rate(1, Duration::ZERO), 1_000_000);
    }

    #[test]
    fn a_body_is_read_from_a_plain_server_and_an_error_is_one() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listening");
        let address = listener.local_addr().expect("an address").to_string();
        let server = std::thread::spawn(move || {
            for answer in ["HTTP/1.1 200 OK\r\nA: b\r\n\r\n{}\n", "HTTP/1.1 503 No\r\n\r\n"] {
                let (mut stream, _) = listener.accept().expect("a connection");
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).expect("a request");
                    request.push(byte[0]);
                }
                assert!(request.starts_with(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:"));
                stream.write_all(answer.as_bytes()).expect("answered");
            }
        });
        assert_eq!(get(&address).expect("a body"), "{}\n127.0.0.1\n");
        assert!(get(&address).expect_err("an error").to_string().contains("503"));
        server.join().expect("served");
    }
}
