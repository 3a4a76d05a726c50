//! Readiness probes: the node asks the pod.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::launch::Probe;

/// The first pause after a probe that failed before any succeeded; it doubles up to the period.
const FIRST: Duration = Duration::from_millis(20);

/// Asks again and again, and tells when the verdict changes.
pub async fn repeat<F>(address: IpAddr, probe: &Probe, told: impl Fn(bool) -> F) -> Infallible
where
    F: Future<Output = ()>,
{
    let period = Duration::from_secs(probe.period.into());
    let (mut ready, mut failures, mut pause) = (false, 0, FIRST);
    loop {
        let patience = Duration::from_secs(probe.patience.into());
        let well = matches!(timeout(patience, ask(address, probe)).await, Ok(Ok(())));
        failures = if well { 0 } else { failures + 1 };
        if well != ready && (well || failures >= probe.failures) {
            ready = well;
            told(ready).await;
        }
        if well {
            pause = period;
        }
        sleep(pause).await;
        pause = (pause * 2).min(period);
    }
}

async fn ask(address: IpAddr, probe: &Probe) -> io::Result<()> {
    let to = SocketAddr::new(address, probe.port);
    let mut stream = TcpStream::connect(to).await?;
    let Some(path) = &probe.path else { return Ok(()) };
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: kube-probe/1.34\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    // The status is all that counts: `HTTP/1.1 200`.
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    match head[9] {
        b'2' | b'3' => Ok(()),
        _ => Err(io::Error::other("the answer is an error")),
    }
}
