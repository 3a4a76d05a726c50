//! The workstation from inside, for a test that is outside: a process there makes sockets and passes them on, looks names
//! up as programs do, and reads files.
//!
//! That process is this very program, started anew for [`serve`]. A thread of the test could enter the namespaces
//! itself only as root: nobody else's thread may change its user namespace.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use podway::net::cidr::Cidr;
use podway_minicluster::handle::Handle;
use podway_minicluster::net::{ETH0, Hop, NetError, Netlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Protocol, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, ipproto, recvmsg, sendmsg, socket_with, socketpair,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The longest answer: lists of files are.
const LONGEST: usize = 128 * 1024;
/// How long an answer may take: names have their own, shorter limit.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a socket may say nothing, unless a test says otherwise.
pub const SILENCE: Duration = Duration::from_secs(10);
/// The variable that says that this program is to serve.
const SERVES: &str = "PODWAY_WHOLE_SERVES";

/// What the process there is asked for.
#[derive(Debug, Serialize, Deserialize)]
enum Request {
    /// A socket.
    Socket(Kind),
    /// A connection to a socket in the file system.
    Unix(String),
    /// The addresses of a name.
    Lookup(String),
    /// The text of a file.
    Read(String),
    /// Makes that the text of a file.
    Write(String, String),
    /// Removes a file.
    Remove(String),
    /// Names in a directory.
    List(String),
    /// Command lines of the processes in its network.
    Processes,
    /// Where a text is in what others can read of each of them.
    Secrets(String),
    /// The files below a directory that hold a text.
    FilesWith(String, String),
    /// The directories in which those are that have that in their command lines.
    Directories(String),
    /// Ends by SIGTERM whoever of them has that in its command line.
    End(String),
    /// Routes a range through a router on the LAN; takes that route away again where there is none.
    Route { range: Cidr, router: Option<IpAddr> },
}

/// Kinds of sockets.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Kind {
    Tcp4,
    Tcp6,
    Udp4,
    Udp6,
    /// Echo requests by ICMP, which everybody may send who is in `net.ipv4.ping_group_range`.
    Ping4,
    Ping6,
    /// What tells of devices, addresses, routes and rules.
    Route,
    /// Packets as they are, whole with their headers.
    Raw4,
    Raw6,
}

impl Kind {
    fn tcp(to: IpAddr) -> Kind {
        if to.is_ipv4() { Kind::Tcp4 } else { Kind::Tcp6 }
    }

    fn udp(to: IpAddr) -> Kind {
        if to.is_ipv4() { Kind::Udp4 } else { Kind::Udp6 }
    }

    fn open(self) -> io::Result<OwnedFd> {
        let (v4, v6, route) = (AddressFamily::INET, AddressFamily::INET6, AddressFamily::NETLINK);
        let (family, kind, protocol): (_, _, Option<Protocol>) = match self {
            Kind::Tcp4 => (v4, SocketType::STREAM, None),
            Kind::Tcp6 => (v6, SocketType::STREAM, None),
            Kind::Udp4 => (v4, SocketType::DGRAM, None),
            Kind::Udp6 => (v6, SocketType::DGRAM, None),
            Kind::Ping4 => (v4, SocketType::DGRAM, Some(ipproto::ICMP)),
            Kind::Ping6 => (v6, SocketType::DGRAM, Some(ipproto::ICMPV6)),
            Kind::Route => (route, SocketType::RAW, None),
            Kind::Raw4 => (v4, SocketType::RAW, Some(ipproto::RAW)),
            Kind::Raw6 => (v6, SocketType::RAW, Some(ipproto::RAW)),
        };
        Ok(socket_with(family, kind, SocketFlags::CLOEXEC, protocol)?)
    }
}

/// The way to that process. One question at a time.
pub struct Workstation {
    way: Mutex<Option<OwnedFd>>,
    process: Child,
}

impl Workstation {
    pub fn start(cluster: &Handle, program: &Path) -> Workstation {
        let (near, far) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        set_socket_timeout(&near, Timeout::Recv, Some(PATIENCE)).unwrap();
        let mut command = cluster.command([program]);
        command.args(["workstation::serve", "--exact", "--ignored", "--nocapture"]);
        command.env_clear().env(SERVES, "1").stdin(Stdio::from(far)).stdout(Stdio::null());
        Workstation { way: Mutex::new(Some(near)), process: command.spawn().unwrap() }
    }

    fn ask(&self, request: &Request) -> io::Result<(Value, Option<OwnedFd>)> {
        let way = self.way.lock().unwrap();
        let way = way.as_ref().unwrap();
        let question = serde_json::to_vec(request)?;
        sendmsg(way, &[IoSlice::new(&question)], &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)?;
        let (mut answer, fd) = receive(way)?;
        match answer.get("error").and_then(Value::as_str) {
            Some(error) => Err(io::Error::other(format!("{request:?}: {error}"))),
            None => Ok((answer["ok"].take(), fd)),
        }
    }

    fn value<T: serde::de::DeserializeOwned>(&self, request: &Request) -> io::Result<T> {
        Ok(serde_json::from_value(self.ask(request)?.0)?)
    }

    /// A socket there, which gives up after [`SILENCE`].
    pub fn socket(&self, kind: Kind) -> OwnedFd {
        let socket = self.ask(&Request::Socket(kind)).unwrap().1.unwrap();
        for timeout in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&socket, timeout, Some(SILENCE)).unwrap();
        }
        socket
    }

    /// The addresses of a name, as the C library finds them there.
    pub fn lookup(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        match name.parse() {
            Ok(address) => Ok(vec![address]),
            Err(_) => self.value(&Request::Lookup(name.to_owned())),
        }
    }

    /// A TCP connection from there.
    ///
    /// # Errors
    /// As the kernel says; `WouldBlock` and `InProgress` after [`SILENCE`].
    pub fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.socket(Kind::tcp(to.ip()));
        rustix::net::connect(&socket, &to)?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A socket there that takes TCP connections to its own loopback, and its port.
    pub fn listen(&self) -> io::Result<(TcpListener, u16)> {
        let socket = self.ask(&Request::Socket(Kind::Tcp4))?.1.unwrap();
        rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0)))?;
        rustix::net::listen(&socket, 64)?;
        let listener = TcpListener::from(socket);
        let port = listener.local_addr()?.port();
        Ok((listener, port))
    }

    /// A connection to a socket in the file system there.
    pub fn unix(&self, path: &str) -> io::Result<UnixStream> {
        let stream = UnixStream::from(self.ask(&Request::Unix(path.to_owned()))?.1.unwrap());
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        Ok(stream)
    }

    /// The same, which gives up after so long, and whose silence then is that long too.
    #[allow(dead_code, reason = "the tests of faults ask for it")]
    pub fn connect_within(&self, to: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
        let socket = self.socket(Kind::tcp(to.ip()));
        for timeout in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&socket, timeout, Some(limit))?;
        }
        rustix::net::connect(&socket, &to)?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A UDP socket there that speaks with one other.
    pub fn datagrams(&self, to: SocketAddr) -> io::Result<UdpSocket> {
        let socket = self.socket(Kind::udp(to.ip()));
        rustix::net::connect(&socket, &to)?;
        Ok(UdpSocket::from(socket))
    }

    pub fn read(&self, path: &str) -> String {
        self.value(&Request::Read(path.to_owned())).unwrap()
    }

    pub fn write(&self, path: &str, text: &str) {
        self.value::<()>(&Request::Write(path.to_owned(), text.to_owned())).unwrap();
    }

    pub fn remove(&self, path: &str) {
        self.value::<()>(&Request::Remove(path.to_owned())).unwrap();
    }

    /// Names in a directory; none where there is no such directory.
    pub fn list(&self, path: &str) -> BTreeSet<String> {
        self.value(&Request::List(path.to_owned())).unwrap()
    }

    /// Routes a range through a router on the LAN, in place of what was there. `None` takes that route away.
    pub fn route(&self, range: &str, router: Option<IpAddr>) {
        let range = range.parse().unwrap();
        self.value::<()>(&Request::Route { range, router }).unwrap();
    }

    /// Command lines of all processes in the workstation's network, but for the one that answers.
    pub fn processes(&self) -> Vec<String> {
        self.value(&Request::Processes).unwrap()
    }

    /// Each of them with where that text is in its arguments and its environment, and `core` where it has credentials and
    /// may leave a core file.
    pub fn secrets(&self, text: &str) -> Vec<(String, Vec<String>)> {
        let found: Vec<(String, Vec<String>)> = self.value(&Request::Secrets(text.to_owned())).unwrap();
        for name in ["podwayd", "podway-keeper"] {
            assert!(found.iter().any(|(words, _)| words.contains(name)), "{found:?}");
        }
        found
    }

    /// The files below a directory that hold that text.
    pub fn files_with(&self, directory: &str, text: &str) -> Vec<String> {
        self.value(&Request::FilesWith(directory.to_owned(), text.to_owned())).unwrap()
    }

    /// The directories in which the processes are that have that in their command lines.
    pub fn directories(&self, words: &str) -> Vec<PathBuf> {
        self.value(&Request::Directories(words.to_owned())).unwrap()
    }

    /// Ends by SIGTERM the processes with that in their command lines.
    pub fn end_processes(&self, words: &str) {
        self.value::<()>(&Request::End(words.to_owned())).unwrap();
    }
}

impl Drop for Workstation {
    fn drop(&mut self) {
        // The end of the way is the process's end.
        self.way.lock().unwrap().take();
        self.process.wait().ok();
    }
}

/// Not a test: what [`Workstation::start`] starts on the workstation.
#[test]
#[ignore = "the tests start it themselves"]
fn serve() {
    serves();
}

/// Serves, where this program was started for that; says whether it was.
pub fn serves() -> bool {
    if std::env::var_os(SERVES).is_none() {
        return false;
    }
    let way = rustix::stdio::stdin();
    while let Ok((question, _)) = receive(way) {
        let request: Request = serde_json::from_value(question).unwrap();
        let (text, socket) = match answer(request) {
            Ok((value, socket)) => (serde_json::json!({ "ok": value }), socket),
            Err(error) => (serde_json::json!({ "error": error.to_string() }), None),
        };
        if reply(way, &serde_json::to_vec(&text).unwrap(), socket.as_ref()).is_err() {
            break;
        }
    }
    true
}

fn answer(request: Request) -> io::Result<(Value, Option<OwnedFd>)> {
    let value = match request {
        Request::Socket(kind) => return Ok((Value::Null, Some(kind.open()?))),
        Request::Unix(path) => return Ok((Value::Null, Some(UnixStream::connect(path)?.into()))),
        Request::Lookup(name) => {
            let found: BTreeSet<IpAddr> = (name.as_str(), 0).to_socket_addrs()?.map(|address| address.ip()).collect();
            serde_json::to_value(found)?
        }
        Request::Read(path) => fs::read_to_string(path)?.into(),
        Request::Write(path, text) => fs::write(path, text).map(|()| Value::Null)?,
        Request::Remove(path) => fs::remove_file(path).map(|()| Value::Null)?,
        Request::List(path) => {
            let names = fs::read_dir(path).into_iter().flatten().flatten();
            names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        }
        Request::Processes => processes()?.iter().map(|path| words(path)).collect::<Vec<_>>().into(),
        Request::Secrets(text) => {
            let found = processes()?.into_iter().map(|path| {
                let holds = |file: &&str| contains(&fs::read(path.join(file)).unwrap_or_default(), &text);
                let mut found: Vec<&str> = ["cmdline", "environ"].into_iter().filter(holds).collect();
                let (words, limits) = (words(&path), fs::read_to_string(path.join("limits")).unwrap_or_default());
                let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size"));
                let core = core.is_none_or(|limits| limits.split_whitespace().next() != Some("0"));
                let has_credentials = ["podwayd", "podway-keeper"].map(|name| format!(" as {name} "));
                if core
                    && has_credentials.iter().any(|name| words.split_once(name).is_some_and(|(b, _)| !b.contains(' ')))
                {
                    found.push("core");
                }
                (words, found)
            });
            serde_json::to_value(found.collect::<Vec<_>>())?
        }
        Request::FilesWith(directory, text) => {
            let mut found = Vec::new();
            files_with(Path::new(&directory), &text, &mut found)?;
            found.into()
        }
        Request::Directories(wanted) => {
            let those = processes()?.into_iter().filter(|path| words(path).contains(&wanted));
            serde_json::to_value(those.map(|path| fs::read_link(path.join("cwd"))).collect::<io::Result<Vec<_>>>()?)?
        }
        Request::End(wanted) => {
            for path in processes()?.into_iter().filter(|path| words(path).contains(&wanted)) {
                let pid = path.file_name().and_then(|name| name.to_str()?.parse().ok());
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.unwrap()), nix::sys::signal::Signal::SIGTERM)?;
            }
            Value::Null
        }
        Request::Route { range, router } => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(route(range, router)).map_err(io::Error::other)?;
            Value::Null
        }
    };
    Ok((value, None))
}

async fn route(range: Cidr, router: Option<IpAddr>) -> Result<(), NetError> {
    let netlink = Netlink::here()?;
    match router {
        None => netlink.no_route(range.addr(), range.prefix_len()).await,
        Some(router) => {
            let hop = Hop { index: ETH0, via: Some(router) };
            netlink.route(range.addr(), range.prefix_len(), &[hop], None).await
        }
    }
}

/// Where `/proc` tells of them.
fn processes() -> io::Result<Vec<PathBuf>> {
    let own = fs::read_link("/proc/self/ns/net")?;
    let others = fs::read_dir("/proc")?.flatten().map(|entry| entry.path()).filter(|process| {
        let is_own = process.file_name().is_some_and(|name| *name == *std::process::id().to_string());
        !is_own && fs::read_link(process.join("ns/net")).is_ok_and(|namespace| namespace == own)
    });
    let numbered =
        others.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().parse::<u32>().is_ok()));
    Ok(numbered.collect())
}

fn words(process: &Path) -> String {
    fs::read_to_string(process.join("cmdline")).unwrap_or_default().replace('\0', " ")
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

fn files_with(directory: &Path, text: &str, found: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files_with(&entry.path(), text, found)?;
        } else if entry.file_type()?.is_file() && contains(&fs::read(entry.path())?, text) {
            found.push(entry.path().display().to_string());
        }
    }
    Ok(())
}

fn reply(way: BorrowedFd<'_>, text: &[u8], socket: Option<&OwnedFd>) -> io::Result<()> {
    use std::os::fd::AsFd as _;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let sockets: Vec<BorrowedFd<'_>> = socket.map(OwnedFd::as_fd).into_iter().collect();
    if !sockets.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&sockets));
    }
    sendmsg(way, &[IoSlice::new(text)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive(way: impl std::os::fd::AsFd) -> io::Result<(Value, Option<OwnedFd>)> {
    let mut bytes = vec![0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(way, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if message.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let sockets = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
        _ => None,
    });
    Ok((serde_json::from_slice(&bytes[..message.bytes])?, sockets))
}
