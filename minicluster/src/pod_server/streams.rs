//! What is served on plain TCP.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Bytes at a time.
const BUFFER: usize = 64 * 1024;

/// The period of what is sent: a lost or doubled block shows by its offset.
const PERIOD: usize = 251;

/// Bytes that repeat with a period of 251: a whole number of periods.
pub fn pattern() -> Vec<u8> {
    (0..PERIOD * 256).map(|n| u8::try_from(n % PERIOD).unwrap_or(0)).collect()
}

/// Sends back what comes, and closes its side when the other does.
pub async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let (mut read, mut write) = stream.split();
    tokio::io::copy(&mut read, &mut write).await?;
    write.shutdown().await
}

/// Sends until the other side closes.
pub async fn source(mut stream: TcpStream) -> io::Result<()> {
    let pattern = pattern();
    loop {
        stream.write_all(&pattern).await?;
    }
}

/// Counts what comes, and says how much it was.
pub async fn sink(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut count: u64 = 0;
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            length => count += u64::try_from(length).unwrap_or(0),
        }
    }
    stream.write_all(format!("{count}\n").as_bytes()).await?;
    stream.shutdown().await
}

/// Resets.
pub async fn reset(stream: TcpStream) -> io::Result<()> {
    // Closing with a lifetime of zero sends RST.
    let socket = socket2::Socket::from(stream.into_std()?);
    socket.set_linger(Some(Duration::ZERO))
}
