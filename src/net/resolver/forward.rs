//! Asking the host's previous name servers, for names that are not the cluster's.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

const PORT: u16 = 53;
/// How long one server has before the next is asked.
const PER_SERVER: Duration = Duration::from_millis(1500);

/// How long all other connections of this daemon have together. Each answers from what it watches, or asks in its cluster.
const PER_CONNECTION: Duration = Duration::from_millis(1000);

/// What other connections say to a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beside {
    /// One of them knows the name: its raw answer.
    Knows(Bytes),
    /// None of their clusters has it.
    Denies,
    /// One of them could not tell, and none of the others knows it.
    Fails,
}

/// Asks the name servers of other connections for a name that ours does not have, all at once; of those that know it the
/// first in order counts. Cancel safe.
pub async fn ask_beside(servers: &[IpAddr], query: &Bytes, over_tcp: bool) -> Beside {
    ask_beside_at(&at_port(servers), query, over_tcp).await
}

async fn ask_beside_at(servers: &[SocketAddr], query: &Bytes, over_tcp: bool) -> Beside {
    let ask = |server: &SocketAddr| tokio::time::timeout(PER_CONNECTION, ask_one(*server, query, over_tcp));
    let mut answers: FuturesOrdered<_> = servers.iter().map(ask).collect();
    let mut failed = false;
    while let Some(answer) = answers.next().await {
        let answer = answer.ok().and_then(Result::ok);
        match answer.as_ref().and_then(|answer| answer.get(3)).map(|flags| flags & 0x0f) {
            Some(0) => return Beside::Knows(answer.unwrap_or_default()),
            // It is not there, or no name of that cluster.
            Some(3 | 5) => {}
            Some(_) | None => failed = true,
        }
    }
    if failed { Beside::Fails } else { Beside::Denies }
}

/// Passes one raw query on, to each server in turn, and returns the first raw answer with the query's own id; `None`
/// when no server answers. As programs do, it takes an answer that the server cannot or will not answer only where no other
/// server has a better one.
///
/// The id on the way is random and the source port the kernel's, so that answers cannot be guessed; one that is not to
/// the same question is ignored. Cancel safe.
pub async fn forward(servers: &[IpAddr], query: &Bytes, over_tcp: bool) -> Option<Bytes> {
    first_of(&at_port(servers), |server| ask_one(server, query, over_tcp)).await
}

/// The same for whoever cannot ask again over TCP: an answer that was cut short is asked for whole. Cancel safe.
pub async fn forward_whole(servers: &[IpAddr], query: &Bytes) -> Option<Bytes> {
    first_of(&at_port(servers), |server| ask_whole(server, query)).await
}

fn at_port(servers: &[IpAddr]) -> Vec<SocketAddr> {
    servers.iter().map(|server| SocketAddr::new(*server, PORT)).collect()
}

async fn first_of<F>(servers: &[SocketAddr], ask: impl Fn(SocketAddr) -> F) -> Option<Bytes>
where
    F: Future<Output = std::io::Result<Bytes>>,
{
    let mut unable = None;
    for server in servers {
        let Ok(Ok(answer)) = tokio::time::timeout(PER_SERVER, ask(*server)).await else { continue };
        match answer.get(3).map(|flags| flags & 0x0f) {
            // SERVFAIL, NOTIMP, REFUSED.
            Some(2 | 4 | 5) => unable = unable.or(Some(answer)),
            Some(_) | None => return Some(answer),
        }
    }
    unable
}

async fn ask_whole(server: SocketAddr, query: &[u8]) -> std::io::Result<Bytes> {
    let answer = by_udp(server, query).await?;
    let cut = answer.get(2).is_some_and(|flags| flags & 0x02 != 0);
    if cut { by_tcp(server, query).await } else { Ok(answer) }
}

async fn ask_one(server: SocketAddr, query: &[u8], over_tcp: bool) -> std::io::Result<Bytes> {
    if over_tcp { by_tcp(server, query).await } else { by_udp(server, query).await }
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
    use tokio::net::TcpListener;

    use super::*;
    use crate::net::dns_message::{Answer, Code, Kind, Limit, Question, build, build_query, failure, parse_query};

    fn query(id: u16, name: &str) -> Bytes {
        build_query(id, &Question { name: name.into(), kind: Kind::A }).unwrap()
    }

    #[test]
    fn only_an_answer_to_the_same_question_is_taken() {
        let sent = query(7, "www.corp.example");
        let answer = failure(&parse_query(&sent).unwrap(), Code::NxDomain);
        assert!(answers(&sent, &answer));
        assert!(answers(&sent, &[0, 7, 0x81, 0x82, 0, 0, 0, 0, 0, 0, 0, 0]));
        assert!(!answers(&query(7, "www.corp.exbmple"), &answer));
        assert!(!answers(&query(8, "www.corp.example"), &answer));
        assert!(!answers(&sent, &sent));
        assert!(!answers(&sent, &answer[..11]));
        assert!(!answers(&sent, &answer[..20]));
    }

    /// A name server at an address of this host that answers so over UDP, and with no error over TCP. Says nothing where
    /// there is no answer.
    async fn server(address: &str, over_udp: Option<(Code, bool)>) -> SocketAddr {
        let tcp = TcpListener::bind((address, 0)).await.unwrap();
        let at = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(at).await.unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            loop {
                let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
                let Some((code, cut)) = over_udp else { continue };
                let mut answer = failure(&parse_query(&buffer[..length]).unwrap(), code).to_vec();
                answer[2] |= if cut { 0x02 } else { 0 };
                udp.send_to(&answer, from).await.unwrap();
            }
        });
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let mut query = vec![0; stream.read_u16().await.unwrap().into()];
                stream.read_exact(&mut query).await.unwrap();
                let whole = build(&parse_query(&query).unwrap(), &Answer::empty(Code::NoError), Limit::Tcp);
                stream.write_u16(whole.len().try_into().unwrap()).await.unwrap();
                stream.write_all(&whole).await.unwrap();
            }
        });
        at
    }

    fn code(answer: Option<Bytes>) -> Option<u8> {
        answer.map(|answer| answer[3] & 0x0f)
    }

    #[tokio::test]
    async fn servers_of_both_families_are_asked_until_one_answers_and_one_that_cannot_is_believed_last() {
        let query = query(7, "www.corp.example");
        let ask = async |servers: &[SocketAddr]| code(first_of(servers, |server| by_udp(server, &query)).await);
        let denies = Some((Code::NxDomain, false));
        let (silent, good, good6) =
            (server("127.0.0.1", None).await, server("127.0.0.1", denies).await, server("::1", denies).await);
        let unable = server("127.0.0.1", Some((Code::ServFail, false))).await;
        let unwilling = server("127.0.0.1", Some((Code::Refused, false))).await;
        // Nobody is there: told at once.
        let gone = "[::1]:1".parse().unwrap();
        for servers in [[gone, silent, good6], [unable, gone, good], [unwilling, gone, good6]] {
            assert_eq!(ask(&servers).await, Some(3), "{servers:?}");
        }
        assert_eq!(ask(&[unable, unwilling]).await, Some(2));
        assert_eq!(ask(&[gone]).await, None);
        assert_eq!(ask(&[]).await, None);
    }

    #[tokio::test]
    async fn what_was_cut_short_is_asked_for_over_tcp_for_who_cannot_ask_again() {
        let query = query(7, "www.corp.example");
        let cut = [server("127.0.0.1", Some((Code::NoError, true))).await];
        let whole = first_of(&cut, |server| ask_whole(server, &query)).await.unwrap();
        assert_eq!((whole[2] & 0x02, &whole[..2]), (0, &query[..2]));
        let as_it_came = first_of(&cut, |server| ask_one(server, &query, false)).await.unwrap();
        assert_eq!(as_it_came[2] & 0x02, 0x02, "programs ask again themselves");
    }

    #[tokio::test]
    async fn silent_connections_delay_a_name_once_however_many_they_are() {
        let query = query(7, "www.corp.example");
        let mut servers = Vec::new();
        for _ in 0..5 {
            servers.push(server("127.0.0.1", None).await);
        }
        servers.push(server("127.0.0.1", Some((Code::NoError, false))).await);
        let asked = ask_beside_at(&servers, &query, false);
        let answer = tokio::time::timeout(PER_CONNECTION * 2, asked).await;
        assert!(matches!(answer, Ok(Beside::Knows(_))), "one after another: {answer:?}");
    }

    #[tokio::test]
    async fn other_connections_are_asked_in_order_and_one_that_cannot_tell_keeps_a_denial_back() {
        let query = query(7, "web.demo.svc.cluster.local");
        let [knows, denies, refuses, fails] = [Code::NoError, Code::NxDomain, Code::Refused, Code::ServFail]
            .map(|code| server("127.0.0.1", Some((code, false))));
        let [knows, denies, refuses, fails] = [knows.await, denies.await, refuses.await, fails.await];
        let ask = async |servers: &[SocketAddr]| ask_beside_at(servers, &query, false).await;
        assert!(matches!(ask(&[denies, refuses, fails, knows]).await, Beside::Knows(_)));
        assert_eq!(ask(&[denies, refuses]).await, Beside::Denies);
        assert_eq!(ask(&[fails, denies]).await, Beside::Fails);
        assert_eq!(ask(&[]).await, Beside::Denies);
    }
}
