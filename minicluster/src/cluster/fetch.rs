//! What a pod serves, asked from inside it: the way of a port-forward, without an API server.

use std::io;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The most that is read of an answer.
const MOST: u64 = 1 << 20;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks for a path over HTTP, and answers with `code` and `body`.
///
/// # Errors
/// When no answer comes in time, or what comes is none.
pub async fn get(stream: TcpStream, path: &str) -> io::Result<Value> {
    let answer = tokio::time::timeout(PATIENCE, exchange(stream, path)).await;
    parse(&answer.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {PATIENCE:?}")))??)
}

async fn exchange(mut stream: TcpStream, path: &str) -> io::Result<Vec<u8>> {
    // Under the old version of HTTP an answer is not cut in chunks, and ends with its connection.
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer).await?;
    Ok(answer)
}

fn parse(answer: &[u8]) -> io::Result<Value> {
    let text = String::from_utf8_lossy(answer);
    let parts = text.split_once("\r\n\r\n").and_then(|(head, body)| {
        let code: u16 = head.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
        Some(json!({"code": code, "body": body}))
    });
    parts.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_code_and_a_body() {
        let answer = parse(b"HTTP/1.0 404 Not Found\r\nx: y\r\n\r\nno\r\n\r\n").unwrap();
        assert_eq!(answer, json!({"code": 404, "body": "no\r\n\r\n"}));
        for odd in ["", "HTTP/1.1", "HTTP/1.é\r\n\r\n", "SSH-2.0\r\n\r\n", "HTTP/1.0 abc\r\n\r\n"] {
            assert!(parse(odd.as_bytes()).is_err(), "{odd}");
        }
    }
}
