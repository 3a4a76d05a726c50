//! The command's side of the control socket.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_util::codec::{Framed, LinesCodec};

use crate::actors::control::protocol::{Body, Event, Greeting, Op, Request, Response, read_result};
use crate::error::{Reason, UserError};
use crate::net::os_journal::OsJournal;
use crate::net::resolver::host;

/// Where the socket is when nothing else is said.
pub const DEFAULT_SOCKET: &str = "/run/podway/podway.sock";
/// A status document is at most this long; the daemon is trusted, its bugs are not.
const MAX_RESPONSE: usize = 16 * 1024 * 1024;

/// How long the daemon may take for its greeting, which waits for nothing there.
const GREETING: Duration = Duration::from_secs(5);
/// How long it may take for an answer that it has at once.
const ANSWER: Duration = Duration::from_secs(10);
/// How long the end of connections may take: each step of it has a limit of seconds.
const END: Duration = Duration::from_secs(60);

/// A connection to the daemon, with one request at a time.
#[derive(Debug)]
pub struct ControlClient {
    lines: Framed<UnixStream, LinesCodec>,
    last_id: u64,
    /// How long the next line may take; none where it may never come.
    patience: Option<Duration>,
}

/// How long each line of the answer may take. A connect waits for an earlier one to end, and then for its own time.
fn patience(op: &Op) -> Option<Duration> {
    match op {
        Op::Status { .. } | Op::Config | Op::Version | Op::Renew { .. } | Op::Forgo { .. } => Some(ANSWER),
        Op::Logs { follow, .. } => (!follow).then_some(ANSWER),
        Op::Disconnect { .. } => Some(END),
        Op::Connect { spec, .. } | Op::Plan { spec, .. } => {
            Some(Duration::from_millis(spec.timeout_ms).saturating_mul(2).saturating_add(END))
        }
        Op::Watch { .. } | Op::Keep { .. } => None,
    }
}

/// Why the daemon could not be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// No daemon, or no way to it (exit 3).
    NoDaemon(UserError),
    /// The daemon, or the way to it, refused.
    Refused(UserError),
}

impl From<UserError> for ClientError {
    fn from(error: UserError) -> ClientError {
        ClientError::Refused(error)
    }
}

impl ControlClient {
    /// Connects and exchanges versions. The server must be root or this user: credentials will be sent.
    ///
    /// # Errors
    ///
    /// [`ClientError::NoDaemon`] when nobody listens, nobody answers, or the socket is closed to this user; else what
    /// refused.
    pub async fn open(path: &Path) -> Result<ControlClient, ClientError> {
        let stream = UnixStream::connect(path).await.map_err(|error| no_connection(path, &error))?;
        let server = stream.peer_cred().map_err(|error| broken(&error))?.uid();
        if server != 0 && server != nix::unistd::geteuid().as_raw() {
            return Err(ClientError::Refused(UserError::new(
                Reason::NotOwner,
                format!("podwayd at {}: it runs as uid {server}, not as root", path.display()),
                "do not use this socket; start the daemon as root: sudo podwayd",
            )));
        }
        let lines = Framed::new(stream, LinesCodec::new_with_max_length(MAX_RESPONSE));
        let mut client = ControlClient { lines, last_id: 0, patience: Some(GREETING) };
        let greeting = serde_json::to_string(&Greeting::OURS).map_err(|error| broken(&error.into()))?;
        client.send(greeting).await?;
        Greeting::check(&client.line().await?)?;
        Ok(client)
    }

    /// Sends one request. Its responses come from [`ControlClient::next`].
    ///
    /// # Errors
    ///
    /// When the daemon is gone.
    pub async fn send_request(&mut self, op: Op) -> Result<(), ClientError> {
        self.last_id += 1;
        self.patience = patience(&op);
        let request = Request { id: self.last_id, op };
        let line = request.to_line().map_err(|error| broken(&error.into()))?;
        self.send(line).await
    }

    /// The next event of the latest request, or its result. Cancel safe.
    ///
    /// # Errors
    ///
    /// The daemon's error for the request, or that it is gone.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Next<T>, ClientError> {
        loop {
            let line = self.line().await?;
            let response: Response = serde_json::from_str(&line).map_err(|error| broken(&error.into()))?;
            if response.id.is_some_and(|id| id != self.last_id) {
                continue;
            }
            return match response.body {
                Body::Event(event) => Ok(Next::Event(event)),
                Body::Result { result } => Ok(Next::Result(read_result(result)?)),
                Body::Error { error } => Err(ClientError::Refused(error)),
            };
        }
    }

    /// One request and its result; events are passed over.
    ///
    /// # Errors
    ///
    /// As [`ControlClient::next`].
    pub async fn ask<T: DeserializeOwned>(&mut self, op: Op) -> Result<T, ClientError> {
        self.send_request(op).await?;
        loop {
            match self.next().await? {
                Next::Event(_) => {}
                Next::Result(result) => return Ok(result),
            }
        }
    }

    async fn send(&mut self, line: String) -> Result<(), ClientError> {
        // It need not take the line either.
        match timeout(ANSWER, self.lines.send(line)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(broken(&io::Error::other(error))),
            Err(_) => Err(silent(ANSWER)),
        }
    }

    async fn line(&mut self) -> Result<String, ClientError> {
        let next = match self.patience {
            Some(patience) => timeout(patience, self.lines.next()).await.map_err(|_| silent(patience))?,
            None => self.lines.next().await,
        };
        match next {
            Some(Ok(line)) => Ok(line),
            Some(Err(error)) => Err(broken(&io::Error::other(error))),
            None => Err(broken(&io::Error::from(io::ErrorKind::UnexpectedEof))),
        }
    }
}

/// What came next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next<T> {
    /// An event; more follows.
    Event(Event),
    /// The end.
    Result(T),
}

fn no_connection(path: &Path, error: &io::Error) -> ClientError {
    let hint = match error.kind() == io::ErrorKind::PermissionDenied {
        true => who_may(std::fs::metadata(path).ok().map(|file| (file.gid(), file.mode()))),
        false => start_it(still_asked(path)),
    };
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the standard library adds kinds; those not named say themselves"
    )]
    let cause = match error.kind() {
        io::ErrorKind::NotFound => "there is no such socket, so it does not run, or serves another one".to_owned(),
        io::ErrorKind::ConnectionRefused => "nobody serves that socket".to_owned(),
        io::ErrorKind::PermissionDenied => "you may not use that socket (permission denied)".to_owned(),
        _ => error.to_string(),
    };
    let what = format!("podwayd at {}: {cause}", path.display());
    ClientError::NoDaemon(UserError::new(Reason::DaemonUnreachable, what, hint))
}

/// Whether the host's names are asked of the daemon with this socket, running or gone. Blocks on the file system.
pub fn still_asked(socket: &Path) -> bool {
    let devices = nix::net::if_::if_nameindex();
    let is_ours = |name: &std::ffi::CStr| name.to_bytes().starts_with(b"podway");
    let gone = devices.is_ok_and(|devices| !devices.iter().any(|device| is_ours(device.name())));
    still_asked_by(socket, Path::new("/etc"), gone)
}

/// Of a daemon elsewhere is known what its journal says, which lies beside its socket; where all devices are `gone`, so is
/// whoever had the names.
fn still_asked_by(socket: &Path, etc: &Path, gone: bool) -> bool {
    let journal = || socket.parent().is_some_and(|runtime| OsJournal::new(runtime).notes_any());
    host::is_ours(etc) && (gone || socket == Path::new(DEFAULT_SOCKET) || journal())
}

/// How there will be a daemon; `resolv_conf` says whether one that died still has the host's names.
fn start_it(resolv_conf: bool) -> String {
    let start = "start the daemon: sudo systemctl start podwayd, or by hand: sudo podwayd";
    match resolv_conf {
        true => format!(
            "/etc/resolv.conf still asks a podwayd that is gone, so no name is found; {start}; or only put the file back: \
             sudo podwayd cleanup"
        ),
        false => start.to_owned(),
    }
}

/// What lets a user in who may not use the socket; its group and mode are not known where its directory is closed too.
fn who_may(socket: Option<(u32, u32)>) -> String {
    let join = "sudo usermod -aG podway $USER, then log in again";
    match socket {
        Some((gid, mode)) if gid == 0 || mode & 0o060 != 0o060 => {
            format!(
                "it serves its owner alone: stop it and run `sudo podwayd` as yourself, or make the group: sudo groupadd -r podway; {join}"
            )
        }
        Some(_) | None => format!("join the socket's group: {join}"),
    }
}

fn silent(patience: Duration) -> ClientError {
    ClientError::NoDaemon(UserError::new(
        Reason::DaemonUnreachable,
        format!("podwayd: it runs and has said nothing for {} s", patience.as_secs()),
        "it is stopped, or hangs: let it go on if somebody stopped it; else sudo systemctl restart podwayd, or by hand end it \
         and start it again: that ends all connections, and puts the host right",
    ))
}

fn broken(error: &io::Error) -> ClientError {
    ClientError::NoDaemon(UserError::new(
        Reason::DaemonUnreachable,
        format!("podwayd: the connection to it ended: {error}"),
        "see its log: journalctl -u podwayd",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_says_nothing_is_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        // Takes connections, as the kernel does for one that is stopped.
        let Err(ClientError::NoDaemon(error)) = ControlClient::open(&path).await else { panic!("it answered") };
        assert_eq!(error.message, "podwayd: it runs and has said nothing for 5 s");
        drop(listener.accept().await.unwrap());

        let serve = async {
            let mut lines = Framed::new(listener.accept().await.unwrap().0, LinesCodec::new());
            lines.send(serde_json::to_string(&Greeting::OURS).unwrap()).await.unwrap();
            lines
        };
        let (client, held) = tokio::join!(ControlClient::open(&path), serve);
        let asked = client.unwrap().ask::<serde_json::Value>(Op::Version).await;
        assert!(matches!(asked, Err(ClientError::NoDaemon(error)) if error.message.ends_with("for 10 s")));
        drop(held);
    }

    #[test]
    fn a_daemon_that_died_with_the_hosts_names_is_told_of() {
        let (etc, runtime) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let socket = runtime.path().join("podway.sock");
        let conf = etc.path().join("resolv.conf");
        let both = || [Path::new(DEFAULT_SOCKET), &socket].map(|socket| still_asked_by(socket, etc.path(), false));
        std::fs::write(&conf, "nameserver 192.0.2.53\n").unwrap();
        assert_eq!(both(), [false, false]);
        std::fs::write(&conf, "# podway-temporary-resolv-conf: x\nnameserver 246.246.0.2\n").unwrap();
        assert_eq!(both(), [true, false], "it may be another one's");
        assert!(still_asked_by(&socket, etc.path(), true), "nobody has a device");
        std::fs::write(runtime.path().join("os-journal.json"), "[]").unwrap();
        assert_eq!(both(), [true, true]);
        std::fs::remove_file(&conf).unwrap();
        nix::unistd::mkfifo(&conf, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(both(), [false, false], "nothing waits for a FIFO");
        assert!(start_it(true).contains("still asks") && start_it(true).contains("sudo podwayd cleanup"));
        assert!(!start_it(false).contains("resolv.conf"));
    }

    #[test]
    fn a_closed_socket_says_how_to_get_in() {
        assert!(who_may(Some((977, 0o140_660))).starts_with("join the socket's group: sudo usermod -aG podway"));
        assert!(who_may(Some((0, 0o140_600))).contains("run `sudo podwayd` as yourself"));
        assert!(who_may(None).contains("sudo usermod -aG podway $USER"));
        let error = no_connection(Path::new("/s"), &io::Error::from(io::ErrorKind::PermissionDenied));
        let ClientError::NoDaemon(error) = error else { panic!("another kind: {error:?}") };
        assert_eq!(error.reason, Reason::DaemonUnreachable);
    }
}
