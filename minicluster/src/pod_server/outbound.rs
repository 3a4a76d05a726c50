//! What a pod itself reaches and resolves.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::http::Body;

/// The longest request.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest wait for a name server, each of two times.
const PER_QUESTION: Duration = Duration::from_secs(2);
/// The largest answer over UDP.
const LARGEST: usize = 4096;

/// How a pod resolves names: its resolv.conf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    /// Name servers, each asked when those before it are silent.
    pub servers: Vec<IpAddr>,
    /// Search domains.
    pub search: Vec<String>,
    /// Names with fewer dots are searched first.
    pub ndots: usize,
}

impl Resolver {
    /// As a file that resolvers read.
    pub fn resolv_conf(&self) -> String {
        let servers: String = self.servers.iter().map(|server| format!("nameserver {server}\n")).collect();
        let search = if self.search.is_empty() { String::new() } else { format!("search {}\n", self.search.join(" ")) };
        format!("{search}{servers}options ndots:{}\n", self.ndots)
    }

    /// The names that are asked for, in their order.
    fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(whole) = name.strip_suffix('.') {
            return vec![whole.to_owned()];
        }
        let searched = self.search.iter().map(|domain| format!("{name}.{domain}"));
        let own = std::iter::once(name.to_owned());
        if name.matches('.').count() >= self.ndots {
            own.chain(searched).collect()
        } else {
            searched.chain(own).collect()
        }
    }

    /// The addresses of a name, IPv4 first.
    pub async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        if let Ok(address) = name.parse() {
            return Ok(vec![address]);
        }
        let mut failure = None;
        for candidate in self.candidates(name) {
            let (v4, v6) = tokio::join!(self.ask(&candidate, RecordType::A), self.ask(&candidate, RecordType::AAAA));
            let mut found = Vec::new();
            for answer in [v4, v6] {
                match answer {
                    Ok(addresses) => found.extend(addresses),
                    Err(error) => failure = Some(error),
                }
            }
            if !found.is_empty() {
                return Ok(found);
            }
        }
        let why = failure.unwrap_or_else(|| "no such host".to_owned());
        Err(format!("lookup {name}: {why}"))
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Result<Vec<IpAddr>, String> {
        let mut name = Name::from_ascii(name).map_err(|error| error.to_string())?;
        name.set_fqdn(true);
        let mut message = Message::new(kind.into(), MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.queries.push(Query::query(name, kind));
        let question = message.to_vec().map_err(|error| error.to_string())?;
        let mut failure = "no name server".to_owned();
        for server in self.servers.iter().chain(&self.servers) {
            let asked = timeout(PER_QUESTION, exchange(SocketAddr::new(*server, 53), &question)).await;
            match asked.map_err(io::Error::from).and_then(|answer| answer) {
                Ok(answer) => return read(&answer),
                Err(error) => failure = format!("{server}: {error}"),
            }
        }
        Err(failure)
    }
}

async fn exchange(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; LARGEST];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if buffer[..length].get(..2) == question.get(..2) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "other records are passed over")]
fn read(answer: &[u8]) -> Result<Vec<IpAddr>, String> {
    let message = Message::from_vec(answer).map_err(|error| error.to_string())?;
    match message.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => {}
        code => return Err(format!("the server says {code}")),
    }
    let addresses = message.answers.iter().filter_map(|record| match &record.data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    });
    Ok(addresses.collect())
}

/// Gets a URL and passes on what came.
pub async fn fetch(resolver: &Resolver, url: &str) -> Result<Response<Body>, String> {
    timeout(PATIENCE, get(resolver, url)).await.map_err(|_| format!("Get {url:?}: no answer within {PATIENCE:?}"))?
}

async fn get(resolver: &Resolver, url: &str) -> Result<Response<Body>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("Get {url:?}: {error}");
    let uri: Uri = url.parse().map_err(|error: http::uri::InvalidUri| failed(&error))?;
    let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(failed(&"only http:// is fetched"));
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let port = authority.port_u16().unwrap_or(80);
    let mut stream = Err(failed(&"no address"));
    for address in resolver.lookup(host).await.map_err(|error| failed(&error))? {
        stream = TcpStream::connect((address, port)).await.map_err(|error| failed(&format!("dial {address}: {error}")));
        if stream.is_ok() {
            break;
        }
    }
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream?)).await.map_err(|error| failed(&error))?;
    // Ends with the exchange, or with the container.
    tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path).header(http::header::HOST, authority.as_str()).body(Empty::<Bytes>::new());
    let response =
        sender.send_request(request.map_err(|error| failed(&error))?).await.map_err(|error| failed(&error))?;
    let (parts, body) = response.into_parts();
    let mut answer = Response::new(body.map_err(io::Error::other).boxed());
    *answer.status_mut() = parts.status;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_searched_first_and_whole_ones_never() {
        let resolver = Resolver { servers: Vec::new(), search: vec!["demo.svc.x".into(), "svc.x".into()], ndots: 2 };
        assert_eq!(resolver.candidates("web"), ["web.demo.svc.x", "web.svc.x", "web"]);
        assert_eq!(resolver.candidates("a.b.c"), ["a.b.c", "a.b.c.demo.svc.x", "a.b.c.svc.x"]);
        assert_eq!(resolver.candidates("web."), ["web"]);
    }
}
