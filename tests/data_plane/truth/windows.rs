//! Bytes through windows that close, are tiny, or are used a byte at a time: none is lost, doubled, or out of its place.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size, socket_recv_buffer_size};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{direct, podway, through};
use crate::UDP_IDLE;
use crate::real::{MTU, in_namespace};

/// A connection that takes longer stands still, however busy the machine is.
const STALL: Duration = Duration::from_secs(100);
/// How long a reader looks elsewhere: longer than a kernel waits before it asks about a closed window, several times.
const ELSEWHERE: Duration = Duration::from_secs(2);
/// More than all buffers on the way take.
const MUCH: usize = 6_000_000;
/// What kernels need some seconds for where a window is tiny.
const LITTLE: usize = 60_000;

/// How an end reads and writes.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// As fast as it can.
    Plain,
    /// With the smallest buffers that a kernel gives.
    Tiny,
    /// Reads a little, looks elsewhere, and reads the rest.
    Pauses,
    /// Writes each byte by itself, at once.
    Bytes,
}

fn data(length: usize, with: u32) -> Vec<u8> {
    (0..u32::try_from(length).unwrap()).map(|i| ((i ^ with).wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

fn shape(socket: &TcpSocket, manner: Manner) {
    if let Manner::Tiny = manner {
        set_socket_recv_buffer_size(socket.as_fd(), 1).unwrap();
        set_socket_send_buffer_size(socket.as_fd(), 1).unwrap();
        assert!(socket_recv_buffer_size(socket.as_fd()).unwrap() < 4096);
    }
    socket.set_nodelay(matches!(manner, Manner::Bytes)).unwrap();
}

/// Writes and reads at a time, both to the end; fails where what comes is not what was to come.
async fn end(stream: TcpStream, manner: Manner, writes: Vec<u8>, reads: Vec<u8>, what: String) {
    let (mut read, mut write) = stream.into_split();
    let writer = tokio::spawn(async move {
        match manner {
            Manner::Bytes => {
                for byte in writes {
                    write.write_all(&[byte]).await.unwrap();
                }
            }
            Manner::Plain | Manner::Tiny | Manner::Pauses => write.write_all(&writes).await.unwrap(),
        }
        write.shutdown().await.unwrap();
    });
    let mut came = Vec::with_capacity(reads.len());
    if let Manner::Pauses = manner {
        let mut first = vec![0; 1000];
        read.read_exact(&mut first).await.unwrap();
        came.extend(first);
        sleep(ELSEWHERE).await;
    }
    read.read_to_end(&mut came).await.unwrap();
    writer.await.unwrap();
    let same = came.iter().zip(&reads).take_while(|(one, other)| one == other).count();
    assert!(came == reads, "{what}: {} bytes of {}, as they should be up to {same}", came.len(), reads.len());
}

/// A connection whose ends do this; one way has so many bytes, and the other.
async fn connection(way: super::Way, [near, far]: [Manner; 2], [up, down]: [usize; 2]) {
    let any = std::net::SocketAddr::new(way.listens, 0);
    let new = || if any.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
    let (client, server) = (new(), new());
    shape(&client, near);
    // What a listener has, those have that it accepts.
    shape(&server, far);
    server.bind(any).unwrap();
    let listener: TcpListener = server.listen(4).unwrap();
    let to = std::net::SocketAddr::new(way.dials, listener.local_addr().unwrap().port());
    let (client, accepted) = tokio::join!(client.connect(to), listener.accept());
    let (client, (server, _)) = (client.unwrap(), accepted.unwrap());
    server.set_nodelay(matches!(far, Manner::Bytes)).unwrap();
    let (up, down) = (data(up, 1), data(down, 2));
    let what = |end: &str| format!("{near:?} to {far:?} by {to}, the {end}");
    let both = async {
        let near = tokio::spawn(end(client, near, up.clone(), down.clone(), what("client")));
        let far = tokio::spawn(end(server, far, down, up, what("server")));
        near.await.unwrap();
        far.await.unwrap();
    };
    let began = Instant::now();
    let done = timeout(STALL, both).await.is_ok();
    println!("{}: {:?}", what("ends"), began.elapsed());
    assert!(done, "stalled: {}", what("one of the ends"));
}

#[test]
fn no_byte_is_lost_doubled_or_moved_whatever_the_windows_do() {
    use Manner::{Bytes, Pauses, Plain, Tiny};
    in_namespace(|| async {
        let _world = podway(MTU, UDP_IDLE).await;
        let mut running = JoinSet::new();
        for way in [direct(false, 0), through(false), through(true)] {
            for (manners, lengths) in [
                ([Plain, Pauses], [MUCH, 1000]),
                ([Pauses, Plain], [1000, MUCH]),
                ([Pauses, Pauses], [MUCH, MUCH]),
                ([Plain, Tiny], [LITTLE, 1000]),
                ([Tiny, Plain], [1000, LITTLE]),
                ([Tiny, Tiny], [LITTLE / 4, LITTLE / 4]),
                ([Bytes, Plain], [LITTLE / 4, 1000]),
                ([Plain, Bytes], [1000, LITTLE / 4]),
                ([Bytes, Bytes], [LITTLE / 8, LITTLE / 8]),
                ([Bytes, Tiny], [LITTLE / 8, 1000]),
                ([Tiny, Bytes], [1000, LITTLE / 8]),
                // A window that closes upon single bytes.
                ([Bytes, Pauses], [LITTLE / 4, 1000]),
            ] {
                running.spawn(connection(way, manners, lengths));
            }
        }
        while let Some(ended) = running.join_next().await {
            ended.unwrap();
        }
    });
}
