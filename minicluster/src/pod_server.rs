//! Containers that are tasks of this process: each a thread in its pod's network namespace, with servers on it.
//!
//! To the network such a container is as real as any: its sockets live in the pod, and close when it is killed. A
//! stopped one (SIGSTOP) stands still, while the kernel goes on accepting for it.

mod http;
mod log;
mod outbound;
mod process;
mod streams;
mod udp;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

pub use log::Log;
pub use outbound::Resolver;
pub use process::{Process, Started};
pub use udp::UdpServer;

/// Who a server is, and where it listens.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// Name of the pod.
    pub pod: String,
    /// Its namespace.
    pub namespace: String,
    /// Its node.
    pub node: String,
    /// Where it listens.
    pub bind: Bind,
    /// How it resolves names.
    pub resolver: Resolver,
}

/// Which addresses a server takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Bind {
    /// All that its namespace has, and will have.
    #[default]
    All,
    /// These, and of loopback what is free: on the node, whose namespace is shared.
    Only(Vec<IpAddr>),
}

/// Ports of HTTP. Services have 80: their port is the pods' own.
pub const HTTP: [u16; 2] = [8080, 80];
/// TCP echo.
pub const ECHO: u16 = 9001;
/// TCP that sends until it is closed.
pub const SOURCE: u16 = 9002;
/// TCP that counts, and says how much it was at half-close.
pub const SINK: u16 = 9003;
/// UDP echo.
pub const ECHO_UDP: u16 = 9004;
/// TCP echo on loopback alone.
pub const LOOPBACK: u16 = 9005;
/// TCP that is accepted, then reset.
pub const RESET: u16 = 9006;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// A pause after an accept that failed, as it does when there are too many descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The sample server: serves on all its ports until it is ended. `Err` when one could not be had.
///
/// Runs on its container's thread.
pub async fn serve(identity: Identity, log: Log, started: Started) -> io::Result<()> {
    let identity = Arc::new(identity);
    let mut tasks = tokio::task::JoinSet::new();
    for port in HTTP {
        for listener in identity.bind.listen(port)? {
            tasks.spawn(accept(listener, log.clone(), http::Server::new(Arc::clone(&identity)).handler()));
        }
    }
    for listener in identity.bind.listen(ECHO)? {
        tasks.spawn(accept(listener, log.clone(), streams::echo));
    }
    for listener in identity.bind.listen(SOURCE)? {
        tasks.spawn(accept(listener, log.clone(), streams::source));
    }
    for listener in identity.bind.listen(SINK)? {
        tasks.spawn(accept(listener, log.clone(), streams::sink));
    }
    for listener in identity.bind.listen(RESET)? {
        tasks.spawn(accept(listener, log.clone(), streams::reset));
    }
    for listener in identity.bind.listen_on_loopback(LOOPBACK)? {
        tasks.spawn(accept(listener, log.clone(), streams::echo));
    }
    for server in UdpServer::bind(&identity.bind, ECHO_UDP)? {
        tasks.spawn(async move {
            server.serve(|datagram, _| Some(datagram.to_vec())).await;
        });
    }
    log.line(format_args!("{} serves", identity.pod));
    started.tell();
    while tasks.join_next().await.is_some() {}
    Ok(())
}

impl Bind {
    /// Listeners for a port.
    pub fn listen(&self, port: u16) -> io::Result<Vec<TcpListener>> {
        match self {
            Bind::All => Ok(vec![listen((Ipv6Addr::UNSPECIFIED, port).into())?]),
            Bind::Only(addresses) => {
                let own: io::Result<Vec<_>> = addresses.iter().map(|address| listen((*address, port).into())).collect();
                let mut all = own?;
                all.extend(LOCAL.into_iter().filter_map(|address| listen((address, port).into()).ok()));
                Ok(all)
            }
        }
    }

    fn listen_on_loopback(&self, port: u16) -> io::Result<Vec<TcpListener>> {
        match self {
            Bind::All => Ok(vec![listen((Ipv4Addr::LOCALHOST, port).into())?]),
            Bind::Only(_) => Ok(listen((Ipv4Addr::LOCALHOST, port).into()).into_iter().collect()),
        }
    }
}

const LOCAL: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// A listener. That of all IPv6 addresses takes IPv4 as well.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // A container that is started anew finds its connections of before.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into()).map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?;
    socket.listen(BACKLOG.cast_signed())?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// Serves each connection on a task of its own. They end with the container's runtime.
async fn accept<F, T>(listener: TcpListener, log: Log, serve: F)
where
    F: Fn(TcpStream) -> T,
    T: Future<Output = io::Result<()>> + Send + 'static,
{
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                stream.set_nodelay(true).ok();
                let served = serve(stream);
                // What goes wrong with one connection is known at its other end.
                tokio::spawn(async move { drop(served.await) });
            }
            Err(error) => {
                log.line(format_args!("accept: {error}"));
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// An address as IPv4 where it is one.
fn canonical(address: SocketAddr) -> impl fmt::Display {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests;
