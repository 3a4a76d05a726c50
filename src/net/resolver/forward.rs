//! Asking the host's previous name servers, for names that are not the cluster's.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

const PORT: u16 = 53;
/// How long one server has before the next is asked.
const PER_SERVER: Duration = Duration::from_millis(1500);

/// Passes one raw query on, to each server in turn, and returns the first raw answer with the query's own id; `None`
/// when no server answers.
///
/// The id on the way is random and the source port the kernel's, so that answers cannot be guessed; one that is not to
/// the same question is ignored. Cancel safe.
pub async fn forward(servers: &[IpAddr], query: &Bytes, over_tcp: bool) -> Option<Bytes> {
    for server in servers {
        let server = SocketAddr::new(*server, PORT);
        let asked = async { if over_tcp { by_tcp(server, query).await } else { by_udp(server, query).await } };
        if let Ok(Ok(answer)) = tokio::time::timeout(PER_SERVER, asked).await {
            return Some(answer);
        }
    }
    None
}

async fn by_udp(server: SocketAddr, query: &[u8]) -> std::io::Result<Bytes> {
    let any: IpAddr = if server.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let sent = with_random_id(query)?;
    socket.send(&sent).await?;
    let mut buffer = vec![0; 65_535];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if answers(&sent, &buffer[..length]) {
            return Ok(with_id_of(query, &buffer[..length]));
        }
    }
}

async fn by_tcp(server: SocketAddr, query: &[u8]) -> std::io::Result<Bytes> {
    let mut stream = TcpStream::connect(server).await?;
    let sent = with_random_id(query)?;
    let length = u16::try_from(sent.len()).map_err(std::io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(&sent);
    stream.write_all(&framed).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    if answers(&sent, &answer) { Ok(with_id_of(query, &answer)) } else { Err(std::io::ErrorKind::InvalidData.into()) }
}

fn with_random_id(query: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut sent = query.to_vec();
    let id = sent.get_mut(..2).ok_or(std::io::ErrorKind::InvalidInput)?;
    SystemRandom::new().fill(id).map_err(|_| std::io::Error::other("no randomness"))?;
    Ok(sent)
}

fn with_id_of(query: &[u8], answer: &[u8]) -> Bytes {
    let mut answer = answer.to_vec();
    if let (Some(to), Some(from)) = (answer.get_mut(..2), query.get(..2)) {
        to.copy_from_slice(from);
    }
    answer.into()
}

/// Whether it has the id and, byte by byte but for case, the question that was sent.
fn answers(sent: &[u8], answer: &[u8]) -> bool {
    let end = question_end(sent).unwrap_or(12);
    let same = |range: std::ops::Range<usize>| match (sent.get(range.clone()), answer.get(range)) {
        (Some(sent), Some(answer)) => sent.eq_ignore_ascii_case(answer),
        (Some(_) | None, _) => false,
    };
    let is_answer = answer.get(2).is_some_and(|flags| flags & 0x80 != 0);
    // Errors may come without the question.
    let bare = answer.len() == 12 && answer[3] & 0x0f != 0;
    answer.len() >= 12 && is_answer && sent[..2] == answer[..2] && (bare || same(12..end))
}

fn question_end(query: &[u8]) -> Option<usize> {
    let mut at = 12;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1 + length;
        if length == 0 {
            return (at + 4 <= query.len()).then_some(at + 4);
        }
        if length > 63 {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::answers;
    use crate::net::dns_message::{Code, Kind, Question, build_query, failure, parse_query};

    #[test]
    fn only_an_answer_to_the_same_question_is_taken() {
        let query = build_query(7, &Question { name: "www.corp.example".into(), kind: Kind::A }).unwrap();
        let answer = failure(&parse_query(&query).unwrap(), Code::NxDomain);
        assert!(answers(&query, &answer));
        assert!(answers(&query, &[0, 7, 0x81, 0x82, 0, 0, 0, 0, 0, 0, 0, 0]));
        let other = build_query(7, &Question { name: "www.corp.exbmple".into(), kind: Kind::A }).unwrap();
        assert!(!answers(&other, &answer));
        let other_id = build_query(8, &Question { name: "www.corp.example".into(), kind: Kind::A }).unwrap();
        assert!(!answers(&other_id, &answer));
        assert!(!answers(&query, &query));
        assert!(!answers(&query, &answer[..11]));
        assert!(!answers(&query, &answer[..20]));
    }
}
