//! Carries a program out over one way, and tells what its two sides saw.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use rustix::net::sockopt::{set_socket_recv_buffer_size_force, set_socket_send_buffer_size_force};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::program::{Call, Door, Program, Script};

/// How long a side waits for the other's calls.
const MOMENT: Duration = Duration::from_millis(15);
/// No program takes so long.
const STALL: Duration = Duration::from_secs(10);
/// Buffers of a network that holds more.
const ROOMY: usize = 8 << 20;

/// Where a client dials, and where the server then listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) dials: IpAddr,
    pub(crate) listens: IpAddr,
    /// Whether the client, and the server, has more buffers than its script says.
    pub(crate) roomy: [bool; 2],
}

/// How something went on one side; an error by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Went {
    Connected,
    Fine,
    /// There is no more to read.
    Eof,
    /// A read after a call that failed, and no error: how much is left then is a matter of chance.
    Rest,
    Failed(i32),
    /// What was read is not what was written.
    Wrong,
    Stalled,
}

/// What one side saw: how each call went, reads in a row as one, and bytes read by then.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Seen(pub(crate) Vec<(Went, usize)>);

impl Seen {
    pub(crate) fn went(&self) -> Vec<Went> {
        self.0.iter().map(|(went, _)| *went).collect()
    }

    pub(crate) fn read(&self) -> impl Iterator<Item = usize> {
        self.0.iter().map(|(_, read)| *read)
    }
}

/// What the client and the server write: each byte is known by its place.
fn bytes(client: bool) -> &'static [u8] {
    static ALL: OnceLock<Vec<u8>> = OnceLock::new();
    let all = ALL.get_or_init(|| (0..2_100_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect());
    &all[if client { 0 } else { 7919 }..]
}

/// Both sides' numbers of calls made.
struct Calls {
    hiccup: Option<Hiccup>,
    own: watch::Sender<usize>,
    other: watch::Receiver<usize>,
}

impl Calls {
    async fn other_has_made(&mut self, calls: usize) {
        drop(timeout(MOMENT, self.other.wait_for(|made| *made >= calls)).await);
    }
}

/// Where a side is kept from going on: nobody knows when the kernel lets a program run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hiccup {
    /// The call. The number behind the last is that of the client's connect, in the middle.
    pub(crate) call: usize,
    /// Before which piece of those that it writes.
    pub(crate) piece: usize,
    /// How long.
    pub(crate) pause: Duration,
}

pub(crate) async fn run(program: &Arc<Program>, way: Way, hiccups: [Option<Hiccup>; 2]) -> [Seen; 2] {
    let (client_tx, client_rx) = watch::channel(0);
    let (server_tx, server_rx) = watch::channel(0);
    let client = Calls { hiccup: hiccups[0], own: client_tx, other: server_rx };
    let server = Calls { hiccup: hiccups[1], own: server_tx, other: client_rx };
    let socket = socket(program, way.roomy[1], &program.server).unwrap();
    socket.bind(SocketAddr::new(way.listens, 0)).unwrap();
    let to = SocketAddr::new(way.dials, socket.local_addr().unwrap().port());
    // One that is only bound refuses, and keeps its port from others meanwhile.
    let held =
        if program.door == Door::Closed { Held::Bound(socket) } else { Held::Listens(socket.listen(4).unwrap()) };
    // Tasks of their own, as they are programs of their own.
    let client = tokio::spawn(client_side(Arc::clone(program), way, to, client));
    let server = tokio::spawn(server_side(Arc::clone(program), held, server));
    [client.await.unwrap(), server.await.unwrap()]
}

/// What the server holds before it accepts.
enum Held {
    #[expect(dead_code, reason = "it is held")]
    Bound(TcpSocket),
    Listens(TcpListener),
}

fn socket(program: &Program, roomy: bool, script: &Script) -> io::Result<TcpSocket> {
    let socket = if program.v6 { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
    let size = |asked: Option<usize>| if roomy { Some(ROOMY) } else { asked };
    if let Some(size) = size(script.receives) {
        set_socket_recv_buffer_size_force(socket.as_fd(), size)?;
    }
    if let Some(size) = size(script.sends) {
        set_socket_send_buffer_size_force(socket.as_fd(), size)?;
    }
    Ok(socket)
}

async fn client_side(program: Arc<Program>, way: Way, to: SocketAddr, calls: Calls) -> Seen {
    let mut seen = Seen::default();
    let mut connect = std::pin::pin!(socket(&program, way.roomy[0], &program.client).unwrap().connect(to));
    if let Some(Hiccup { pause, .. }) = calls.hiccup.filter(|hiccup| hiccup.call == program.client.calls.len()) {
        let begun = poll_fn(|cx| Poll::Ready(connect.as_mut().poll(cx).is_pending()));
        if begun.await {
            sleep(pause).await;
        }
    }
    match timeout(STALL, connect).await {
        Ok(Ok(stream)) => {
            seen.0.push((Went::Connected, 0));
            play(stream, &program.client, true, calls, seen).await
        }
        Ok(Err(error)) => {
            seen.0.push((failed(&error), 0));
            seen
        }
        Err(_) => {
            seen.0.push((Went::Stalled, 0));
            seen
        }
    }
}

async fn server_side(program: Arc<Program>, held: Held, mut calls: Calls) -> Seen {
    let waits = match program.door {
        Door::Closed => usize::MAX,
        Door::Accepts => 0,
        Door::Late(made) | Door::Never(made) => made,
    };
    calls.other_has_made(waits).await;
    let listener = match (held, program.door) {
        (Held::Listens(listener), Door::Accepts | Door::Late(_)) => listener,
        (Held::Listens(_) | Held::Bound(_), _) => return Seen::default(),
    };
    match timeout(STALL, listener.accept()).await {
        Ok(Ok((stream, _))) => play(stream, &program.server, false, calls, Seen::default()).await,
        Ok(Err(error)) => Seen(vec![(failed(&error), 0)]),
        Err(_) => Seen(vec![(Went::Stalled, 0)]),
    }
}

fn failed(error: &io::Error) -> Went {
    Went::Failed(error.raw_os_error().unwrap_or(0))
}

/// Makes the calls of one side.
async fn play(mut stream: TcpStream, script: &Script, client: bool, mut calls: Calls, mut seen: Seen) -> Seen {
    let (writes, reads) = (bytes(client), bytes(!client));
    let (mut written, mut read, mut failed_before, mut read_before) = (0, 0, false, false);
    let mut buffer = vec![0; 1 << 20];
    for (made, call) in script.calls.iter().enumerate() {
        let hiccup = calls.hiccup.filter(|hiccup| hiccup.call == made);
        if let (Some(Hiccup { pause, .. }), false) = (hiccup, matches!(call, Call::Write { .. })) {
            sleep(pause).await;
        }
        let went = match *call {
            Call::Write { length, chunk } => {
                let all = &writes[written..written + length];
                written += length;
                let write = async {
                    let pieces = all.len().div_ceil(chunk);
                    for (piece, part) in all.chunks(chunk).enumerate() {
                        if let Some(Hiccup { pause, .. }) = hiccup.filter(|hiccup| hiccup.piece % pieces == piece) {
                            sleep(pause).await;
                        }
                        stream.write_all(part).await?;
                    }
                    Ok::<_, io::Error>(())
                };
                outcome(timeout(STALL, write).await)
            }
            Call::Read { length, step } => {
                let until = read + length;
                timeout(STALL, take(&mut stream, reads, &mut read, until, &mut buffer[..step.min(1 << 20)]))
                    .await
                    .unwrap_or(Went::Stalled)
            }
            Call::ReadToEnd { step } => {
                timeout(STALL, take(&mut stream, reads, &mut read, usize::MAX, &mut buffer[..step.min(1 << 20)]))
                    .await
                    .unwrap_or(Went::Stalled)
            }
            Call::Shutdown => outcome(timeout(STALL, stream.shutdown()).await),
            Call::Wait { calls: others } => {
                calls.other_has_made(others).await;
                Went::Fine
            }
            Call::Reset => outcome(Ok(stream.set_zero_linger())),
            Call::Close => Went::Fine,
        };
        let reads = matches!(call, Call::Read { .. } | Call::ReadToEnd { .. });
        let went = if reads && failed_before && matches!(went, Went::Fine | Went::Eof) { Went::Rest } else { went };
        failed_before |= matches!(went, Went::Failed(_));
        // Which of several reads in a row hears of a reset is a matter of chance: they are one.
        match seen.0.last_mut().filter(|_| reads && read_before) {
            Some((Went::Failed(_), _)) if went == Went::Rest => {}
            Some(last @ (Went::Fine | Went::Eof | Went::Rest, _)) => *last = (went, read),
            Some(_) | None => seen.0.push((went, read)),
        }
        read_before = reads;
        if matches!(went, Went::Wrong | Went::Stalled) {
            break;
        }
        if matches!(call, Call::Close | Call::Reset) {
            break;
        }
        calls.own.send_replace(made + 1);
    }
    drop(stream);
    calls.own.send_replace(usize::MAX);
    seen
}

fn outcome(done: Result<io::Result<()>, tokio::time::error::Elapsed>) -> Went {
    match done {
        Ok(Ok(())) => Went::Fine,
        Ok(Err(error)) => failed(&error),
        Err(_) => Went::Stalled,
    }
}

async fn take(stream: &mut TcpStream, reads: &[u8], read: &mut usize, until: usize, buffer: &mut [u8]) -> Went {
    while *read < until {
        let most = buffer.len().min(until - *read);
        match stream.read(&mut buffer[..most]).await {
            Ok(0) => return Went::Eof,
            Ok(length) if reads.get(*read..*read + length) != Some(&buffer[..length]) => return Went::Wrong,
            Ok(length) => *read += length,
            Err(error) => return failed(&error),
        }
    }
    Went::Fine
}
