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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;

    /// What the far end does in the time between its answer and the moment that the dial hears of it.
    async fn dialled(far: impl AsyncFnOnce(TcpStream)) -> Dialled {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let mut dial = std::pin::pin!(dial(address));
        let begun = std::future::poll_fn(|cx| std::task::Poll::Ready(dial.as_mut().poll(cx).is_pending()));
        assert!(begun.await);
        far(listener.accept().await.expect("accepted").0).await;
        dial.await.expect("a connection that was accepted is one")
    }

    #[tokio::test]
    async fn what_came_before_a_reset_at_once_can_be_read() {
        for finishes in [false, true] {
            let Dialled { mut socket, reset } = dialled(async |far: TcpStream| {
                far.try_write(b"last words").expect("written");
                if finishes {
                    socket2::SockRef::from(&far).shutdown(std::net::Shutdown::Write).expect("finished");
                }
                far.set_zero_linger().expect("set");
            })
            .await;
            assert_eq!(reset.expect("a reset").after_fin, finishes);
            let mut read = Vec::new();
            socket.read_to_end(&mut read).await.expect("the error was told");
            assert_eq!(read, b"last words");
        }
        assert_eq!(dialled(async |far| drop(far.into_std())).await.reset, None);
    }

    #[tokio::test]
    async fn who_is_refused_has_no_connection() {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("bound");
        let refused = dial(socket.local_addr().expect("an address")).await.expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
