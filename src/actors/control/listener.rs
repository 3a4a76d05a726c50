//! Where the control socket comes from: systemd, or a path of our own.
//!
//! Only a dead daemon's socket file is ever removed: one that answers is somebody's, anything else is no socket.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid};

/// A listening control socket.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub socket: net::UnixListener,
    /// The file that goes when the daemon stops; none when systemd made it.
    pub file: Option<PathBuf>,
}

/// Whose the socket's file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Mode.
    pub mode: u32,
}

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another daemon serves it.
    #[error("{}: a podwayd serves it already", .0.display())]
    InUse(PathBuf),
    /// The path is taken.
    #[error("{}: something that is no socket is there", .0.display())]
    NotASocket(PathBuf),
    /// The operating system refused.
    #[error("{}: {doing}", path.display())]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// systemd passed something else.
    #[error("systemd's first file descriptor is no listening Unix socket")]
    Activation(#[source] io::Error),
}

impl Owner {
    /// Group `podway` where it exists, else the user who called sudo (`sudo_uid` is SUDO_UID), else only ourselves.
    pub fn by_hand(podway_gid: Option<u32>, sudo_uid: Option<u32>) -> Owner {
        match (podway_gid, sudo_uid) {
            (Some(gid), _) => Owner { uid: None, gid: Some(gid), mode: 0o660 },
            (None, uid) => Owner { uid, gid: None, mode: 0o600 },
        }
    }

    /// [`Owner::by_hand`] for this host and this process's environment.
    pub fn of_this_host() -> Owner {
        let group = Group::from_name("podway").ok().flatten().map(|group| group.gid.as_raw());
        let sudo_uid = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok());
        Owner::by_hand(group, sudo_uid)
    }
}

/// The socket that systemd passed, if it passed one. To be called once, before any thread starts.
///
/// # Errors
///
/// [`ListenError::Activation`] when what was passed is no Unix socket.
pub fn from_systemd() -> Result<Option<Listener>, ListenError> {
    let socket = listenfd::ListenFd::from_env().take_unix_listener(0).map_err(ListenError::Activation)?;
    Ok(socket.map(|socket| Listener { socket, file: None }))
}

/// Listens at `path`, replacing a dead daemon's socket. The directory must exist.
///
/// The socket gets its name only once its owner and mode are right.
///
/// # Errors
///
/// When a live daemon serves `path`, something else is there, or the operating system refuses.
pub fn bind(path: &Path, owner: Owner) -> Result<Listener, ListenError> {
    let failed = |doing: &'static str| {
        let path = path.to_owned();
        move |source: io::Error| ListenError::Io { path, doing, source }
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("looking what is there")(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(ListenError::NotASocket(path.to_owned())),
        Ok(_) => match net::UnixStream::connect(path) {
            Ok(_) => return Err(ListenError::InUse(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(failed("removing a dead daemon's socket"))?;
            }
            Err(error) => return Err(failed("asking who serves it")(error)),
        },
    }
    let mut unnamed = path.as_os_str().to_owned();
    unnamed.push(format!(".{}", std::process::id()));
    let unnamed = PathBuf::from(unnamed);
    let socket = net::UnixListener::bind(&unnamed).map_err(failed("listening"))?;
    let named = dress(&unnamed, owner).and_then(|()| fs::rename(&unnamed, path));
    if let Err(error) = named {
        drop(fs::remove_file(&unnamed));
        return Err(failed("setting owner and mode")(error));
    }
    Ok(Listener { socket, file: Some(path.to_owned()) })
}

fn dress(path: &Path, owner: Owner) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    let now = fs::metadata(path)?;
    let uid = owner.uid.filter(|uid| *uid != now.uid()).map(Uid::from_raw);
    let gid = owner.gid.filter(|gid| *gid != now.gid()).map(Gid::from_raw);
    if uid.is_some() || gid.is_some() {
        match nix::unistd::chown(path, uid, gid) {
            // In a user namespace in which they are nobody: only ourselves then.
            Err(Errno::EINVAL) => return Ok(()),
            changed => changed?,
        }
    }
    fs::set_permissions(path, fs::Permissions::from_mode(owner.mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Owner = Owner { uid: None, gid: None, mode: 0o600 };

    #[test]
    fn the_group_comes_before_the_user_of_sudo() {
        assert_eq!(Owner::by_hand(Some(7), Some(1000)), Owner { uid: None, gid: Some(7), mode: 0o660 });
        assert_eq!(Owner::by_hand(None, Some(1000)), Owner { uid: Some(1000), gid: None, mode: 0o600 });
        assert_eq!(Owner::by_hand(None, None), OURS);
    }

    #[test]
    fn a_live_daemon_is_left_alone_and_a_dead_one_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("podway.sock");
        let first = bind(&path, OURS).expect("a socket");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert!(matches!(bind(&path, OURS), Err(ListenError::InUse(_))));
        drop(first);
        bind(&path, OURS).expect("the dead one is replaced");
    }

    #[test]
    fn what_is_no_socket_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("podway.sock");
        fs::write(&path, "precious").expect("written");
        assert!(matches!(bind(&path, OURS), Err(ListenError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).expect("there"), "precious");
    }
}
