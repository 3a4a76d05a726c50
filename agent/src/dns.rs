//! Raw DNS messages to the pod's name servers: UDP first, TCP when the answer was cut, the next server when one is
//! silent (RFC 1035, RFC 7766).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// A server that has not answered by then is passed over.
const PER_SERVER: Duration = Duration::from_millis(1500);
/// Header bytes of a message; byte 2 holds the TC bit.
const HEADER: usize = 12;

/// What a resolv.conf says (resolv.conf(5)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// `nameserver` lines.
    pub nameservers: Vec<IpAddr>,
    /// The last `search` line.
    pub search: Vec<String>,
}

impl ResolvConf {
    /// Reads one; what is not understood is skipped.
    pub fn parse(text: &str) -> ResolvConf {
        let mut conf = ResolvConf::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    conf.nameservers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()))
                }
                Some("search") => conf.search = words.map(ToOwned::to_owned).collect(),
                _ => {}
            }
        }
        conf
    }
}

/// Asks the servers in turn. `None` when none answered within `limit`.
pub async fn ask(servers: &[SocketAddr], query: &[u8], limit: Duration) -> Option<Vec<u8>> {
    if query.len() < HEADER {
        return None;
    }
    timeout(limit, async {
        for server in servers {
            if let Ok(Ok(answer)) = timeout(PER_SERVER, ask_one(*server, query)).await {
                return Some(answer);
            }
        }
        None
    })
    .await
    .ok()
    .flatten()
}

async fn ask_one(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let local: SocketAddr = match server {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; 65_535];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let Some(answer) = buffer.get(..length) else { continue };
        if answer.len() < HEADER || answer.get(..2) != query.get(..2) {
            continue;
        }
        let truncated = answer.get(2).is_some_and(|flags| flags & 0x02 != 0);
        if truncated {
            return ask_over_tcp(server, query).await;
        }
        return Ok(answer.to_vec());
    }
}

async fn ask_over_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], query].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn a_resolv_conf_reads() {
        let conf = ResolvConf::parse(
            "# x\nnameserver 10.43.0.10\nsearch demo.svc.cluster.local svc.cluster.local\nnameserver ::1\noptions ndots:5\nnameserver nonsense\n",
        );
        assert_eq!(conf.nameservers.len(), 2);
        assert_eq!(conf.search.first().map(String::as_str), Some("demo.svc.cluster.local"));
    }

    #[tokio::test]
    async fn a_cut_answer_is_asked_for_over_tcp_and_a_silent_server_passed_over() {
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = tcp.local_addr().expect("an address");
        let udp = UdpSocket::bind(address).await.expect("the same port");
        let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let query = [7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            let (length, from) = udp.recv_from(&mut buffer).await.expect("a query");
            buffer[2] |= 0x82;
            udp.send_to(&buffer[..length], from).await.expect("sent");
            let (mut stream, _) = tcp.accept().await.expect("a connection");
            let length = stream.read_u16().await.expect("a length");
            let mut whole = vec![0; length.into()];
            stream.read_exact(&mut whole).await.expect("the query");
            whole.extend_from_slice(b"long answer");
            stream.write_u16(u16::try_from(whole.len()).expect("short")).await.expect("sent");
            stream.write_all(&whole).await.expect("sent");
        });
        let servers = [silent.local_addr().expect("an address"), address];
        let answer = ask(&servers, &query, Duration::from_secs(10)).await.expect("an answer");
        assert!(answer.ends_with(b"long answer"));
    }
}
