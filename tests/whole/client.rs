//! What programs on the workstation do: plain clients of the sample servers and of name servers.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use podway::demo::seen::Answer;
use ring::digest::{Context, SHA256};

use crate::workstation::{Kind, Workstation};

/// Bytes at a time.
const BLOCK: usize = 256 * 1024;
/// The period of the bytes that sample servers send.
const PERIOD: usize = 251;

/// A digest of bytes, and how many they are.
pub type Sum = (Vec<u8>, usize);

/// What a name server answered.
#[derive(Debug)]
pub struct Told {
    pub code: ResponseCode,
    /// The data of each record, as zone files have it.
    pub records: Vec<String>,
    /// The addresses among it.
    pub addresses: Vec<IpAddr>,
    pub bytes: usize,
    /// Whether it says that it is not whole.
    pub cut: bool,
    pub took: Duration,
}

/// What a name server is asked over.
#[derive(Clone, Copy, Debug)]
pub enum Over {
    Udp,
    Tcp,
}

impl Workstation {
    /// A connection to the first address of a name.
    pub fn reach(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let address = self.lookup(host)?.into_iter().next().ok_or(io::ErrorKind::NotFound)?;
        self.connect(SocketAddr::new(address, port))
    }

    /// The body of `http://HOST:PORT/PATH`.
    pub fn get(&self, host: &str, port: u16, path: &str) -> io::Result<Vec<u8>> {
        let mut stream = self.reach(host, port)?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        let body = answer.split_off(end + 4);
        match String::from_utf8_lossy(&answer).split(' ').nth(1) {
            Some("200") => Ok(body),
            _ => Err(io::Error::other(String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned())),
        }
    }

    /// Who answers at port 80, and whom it saw.
    pub fn who(&self, host: &str) -> io::Result<Answer> {
        self.who_at(host, 80)
    }

    pub fn who_at(&self, host: &str, port: u16) -> io::Result<Answer> {
        Ok(serde_json::from_slice(&self.get(host, port, "/")?)?)
    }

    /// How many of so many datagrams of different sizes come back.
    pub fn echo_datagrams(&self, host: &str, port: u16, count: usize) -> io::Result<usize> {
        let address = self.lookup(host)?.into_iter().next().ok_or(io::ErrorKind::NotFound)?;
        let socket = self.datagrams(SocketAddr::new(address, port))?;
        let mut back = 0;
        let mut buffer = vec![0; 2048];
        for number in 0..count {
            let sent = [number.to_string().as_bytes(), &pattern(number * 37 % 1300)].concat();
            socket.send(&sent)?;
            let length = socket.recv(&mut buffer)?;
            back += usize::from(buffer[..length] == sent);
        }
        Ok(back)
    }

    /// Sends bytes while reading all that comes back, and ends its own direction after them.
    pub fn exchange(&self, host: &str, port: u16, count: usize) -> io::Result<Sum> {
        exchange(self.reach(host, port)?, count)
    }

    /// Asks for an echo by ICMP; returns what came back, which is what was sent.
    ///
    /// # Errors
    /// `WouldBlock` when nothing comes within `limit`.
    pub fn ping(&self, host: IpAddr, limit: Duration) -> io::Result<Vec<u8>> {
        let (kind, request) = if host.is_ipv4() { (Kind::Ping4, 8) } else { (Kind::Ping6, 128) };
        let socket = UdpSocket::from(self.socket(kind));
        socket.set_read_timeout(Some(limit))?;
        // The kernel fills in the identifier and the sum (icmp(7)).
        let sent = [&[request, 0, 0, 0, 0, 0, 0, 1], &b"podway"[..]].concat();
        socket.send_to(&sent, SocketAddr::new(host, 0))?;
        let mut answer = vec![0; 64];
        let length = socket.recv(&mut answer)?;
        answer.truncate(length);
        Ok(answer.split_off(8))
    }

    /// Asks a name server there.
    pub fn query(&self, server: IpAddr, over: Over, kind: RecordType, name: &str) -> io::Result<Told> {
        self.query_with(server, over, kind, name, None)
    }

    /// The same with the size that it says to take over UDP.
    pub fn query_with(
        &self,
        server: IpAddr,
        over: Over,
        kind: RecordType,
        name: &str,
        takes: Option<u16>,
    ) -> io::Result<Told> {
        let mut question = Message::new(7, MessageType::Query, OpCode::Query);
        question.metadata.recursion_desired = true;
        let mut asked = Name::from_ascii(name).map_err(io::Error::other)?;
        asked.set_fqdn(true);
        question.queries.push(Query::query(asked, kind));
        question.edns = takes.map(|takes| {
            let mut edns = Edns::new();
            edns.set_max_payload(takes);
            edns
        });
        let question = question.to_vec().map_err(io::Error::other)?;
        let to = SocketAddr::new(server, 53);
        let began = Instant::now();
        let mut answer = vec![0; 65_535];
        match over {
            Over::Udp => {
                let socket = self.datagrams(to)?;
                socket.send(&question)?;
                let length = socket.recv(&mut answer)?;
                answer.truncate(length);
            }
            Over::Tcp => {
                let mut stream = self.connect(to)?;
                stream.write_all(&u16::try_from(question.len()).map_err(io::Error::other)?.to_be_bytes())?;
                stream.write_all(&question)?;
                let mut length = [0; 2];
                stream.read_exact(&mut length)?;
                answer.truncate(u16::from_be_bytes(length).into());
                stream.read_exact(&mut answer)?;
            }
        }
        let took = began.elapsed();
        let message = Message::from_vec(&answer).map_err(io::Error::other)?;
        let addresses = message.answers.iter().filter_map(|record| match &record.data {
            RData::A(address) => Some(IpAddr::from(address.0)),
            RData::AAAA(address) => Some(IpAddr::from(address.0)),
            _ => None,
        });
        Ok(Told {
            code: message.metadata.response_code,
            records: message.answers.iter().map(|record| record.data.to_string()).collect(),
            addresses: addresses.collect(),
            bytes: answer.len(),
            cut: message.metadata.truncation,
            took,
        })
    }
}

/// The digest of so many bytes as sample servers send them.
pub fn sum(count: usize) -> Sum {
    let mut context = Context::new(&SHA256);
    let block = pattern(PERIOD * 1000);
    let mut left = count;
    while left > 0 {
        let length = left.min(block.len());
        context.update(&block[..length]);
        left -= length;
    }
    (context.finish().as_ref().to_vec(), count)
}

/// Sends bytes while reading all that comes back, and ends its own direction after them.
pub fn exchange(mut stream: TcpStream, count: usize) -> io::Result<Sum> {
    let mut writing = stream.try_clone()?;
    std::thread::scope(|scope| {
        let sending = scope.spawn(move || {
            let block = pattern(PERIOD * 1000);
            let mut left = count;
            while left > 0 {
                let length = left.min(block.len());
                writing.write_all(&block[..length])?;
                left -= length;
            }
            writing.shutdown(Shutdown::Write)
        });
        let sum = rest(&mut stream);
        sending.join().unwrap()?;
        sum
    })
}

/// Reads to the end.
pub fn rest(stream: &mut TcpStream) -> io::Result<Sum> {
    let (mut context, mut count, mut block) = (Context::new(&SHA256), 0, vec![0; BLOCK]);
    loop {
        match stream.read(&mut block)? {
            0 => return Ok((context.finish().as_ref().to_vec(), count)),
            length => {
                context.update(&block[..length]);
                count += length;
            }
        }
    }
}

fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|n| u8::try_from(n % PERIOD).unwrap()).collect()
}

/// The name that stands for an address in reverse zones.
pub fn reverse(address: IpAddr) -> String {
    Name::from(address).to_string()
}
