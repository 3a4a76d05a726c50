//! A connection to a pod's own `localhost`, for port-forwards.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::{TcpSocket, TcpStream};

use crate::net::NetNs;

/// Connects, over IPv4 first. Whoever listens on the pod's loopback, or on all its addresses, is reached. Cancel safe.
///
/// # Errors
/// In the words of a kubelet with containerd.
pub async fn localhost(namespace: &NetNs, uid: &str, port: u16) -> io::Result<TcpStream> {
    let v4 = match dial(namespace, (Ipv4Addr::LOCALHOST, port).into()).await {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    let v6 = match dial(namespace, (Ipv6Addr::LOCALHOST, port).into()).await {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    let (v4, v6) = (reason(&v4), reason(&v6));
    let text = format!(
        "failed to execute portforward in network namespace \"/var/run/netns/cni-{uid}\": failed to connect to \
         localhost:{port} inside namespace \"{uid}\", IPv4: dial tcp4 127.0.0.1:{port}: connect: {v4} IPv6: dial tcp6 \
         [::1]:{port}: connect: {v6} "
    );
    Err(io::Error::new(io::ErrorKind::ConnectionRefused, text))
}

/// As the system's own messages, without the number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

async fn dial(namespace: &NetNs, to: SocketAddr) -> io::Result<TcpStream> {
    let namespace = namespace.clone();
    // A socket belongs to the namespace it was made in, whoever connects it.
    let made = move || namespace.run(|| if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() });
    let socket = tokio::task::spawn_blocking(made).await.map_err(io::Error::other)??;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
