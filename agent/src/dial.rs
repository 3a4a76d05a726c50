//! Dials, and what becomes of a connection that was reset before its dial had heard of it.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;

/// EINPROGRESS of connect(2), which has no kind of its own yet.
const IN_PROGRESS: i32 = 115;

/// A connection that the far end accepted.
#[derive(Debug)]
pub struct Dialled {
    /// Its socket. What the far end sent can be read, also after a reset.
    pub socket: TcpStream,
    /// Set where the far end has reset it since.
    pub reset: Option<Deaf>,
}

/// The far end takes nothing any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deaf {
    /// What the kernel said.
    pub reason: String,
    /// It had finished its direction before that.
    pub after_fin: bool,
}

impl Deaf {
    /// What an error of connect(2) or write(2) says of a connection that was there: EPIPE where the far end's FIN had come
    /// before its reset.
    pub fn new(error: &io::Error) -> Deaf {
        Deaf { reason: error.to_string(), after_fin: error.kind() == io::ErrorKind::BrokenPipe }
    }
}

/// Dials. Unlike [`TcpStream::connect`] it keeps a connection that was accepted, written to and reset at once: an RST that
/// answers a SYN is told apart from that as a refusal. Cancel safe.
///
/// # Errors
///
/// There is no connection, and was none.
pub async fn dial(to: SocketAddr) -> io::Result<Dialled> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&to.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(IN_PROGRESS) => {}
        Err(error) => return Err(error),
    }
    let socket = TcpStream::from_std(socket.into())?;
    socket.writable().await?;
    match socket.take_error()? {
        Some(error) if !is_reset(&error) => Err(error),
        reset => Ok(Dialled { socket, reset: reset.as_ref().map(Deaf::new) }),
    }
}

fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}
