//! `/etc/resolv.conf` replaced for the time of a connection, and put back exactly.
//!
//! The backup is on disk before the file changes, and says by itself what to do: recovery needs nothing else. After each
//! step the host is in one of these states, and [`ResolvConf::restore`] ends in the first:
//!
//! ```text
//!   theirs ──▶ theirs + backup ──▶ ours + backup ──▶ theirs + backup ──▶ theirs
//! ```
//!
//! What somebody else wrote meanwhile stays: only a file with our marker, or one that we left half written, is replaced.
//! One with our marker that somebody else edited stays while it is ours, and is kept beside when it has to go; so is what
//! may be either.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::unistd::{AccessFlags, access};
use nix::unistd::{Gid, Uid, fchown};

use super::LinkPlan;
use crate::digest::{hex, sha256};
use crate::net::os_journal::sync_directory;

mod text;

use text::{half_written, is_whole, render};
pub(super) use text::{is_marked, search_domains, servers};

const FILE: &str = "resolv.conf";
const BACKUP: &str = "resolv.conf.podway-backup";
/// What somebody else made of ours; the next ones have a number.
const EDITED: &str = "resolv.conf.podway-edited";
/// How many of these are kept. One more takes the place of the last.
const MOST_EDITED: usize = 8;
const TEMPORARY: &str = ".resolv.conf.podway-tmp";
/// In the first line of a backup.
const BACKUP_MARKER: &str = "# podway-backup 1";
/// What a resolv.conf may be at most, in bytes; glibc reads far less.
const LARGEST: u64 = 1 << 20;

/// Why the file could not be replaced or put back.
#[derive(Debug, thiserror::Error)]
pub enum ResolvConfError {
    /// It is a link, which something else manages.
    #[error(
        "{0} is a symbolic link or no regular file: something else manages it; connect with --dns auto or --dns off"
    )]
    NotRegular(PathBuf),
    /// It has our marker, but the backup is gone.
    #[error("{0} was written by podway, but its backup is gone; write the file anew")]
    NoBackup(PathBuf),
    /// The backup cannot be read.
    #[error("{0} is damaged; look into it for the former resolv.conf, then remove it")]
    Damaged(PathBuf),
    /// It is not wanted any more.
    #[error("resolv.conf was to be put back meanwhile")]
    Withdrawn,
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What came of replacing the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is ours now, or has new contents.
    Written,
    /// The same, and what somebody else had made of ours is kept in this file.
    Kept(PathBuf),
    /// It was already as wanted.
    Unchanged,
    /// Somebody else had overwritten ours; theirs is the backup now.
    Repaired,
    /// Somebody else edited ours, and it was left so.
    Edited,
    /// The same, so that ours is not the first server that programs ask.
    Unasked,
}

/// What came of putting the file back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restored {
    /// Nothing of ours was there.
    Nothing,
    /// It is as it was before.
    Exactly,
    /// Somebody else had overwritten ours; that stays.
    LeftToOther,
    /// It is as it was before, and what somebody else had made of ours is kept in this file.
    KeptEdit(PathBuf),
}

/// The points after which a kill leaves different traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    BackedUp,
    Prepared,
    Replaced,
    BackupRemoved,
}

/// `resolv.conf` in one directory.
#[derive(Clone, Debug)]
pub struct ResolvConf {
    directory: PathBuf,
    rename: fn(&Path, &Path) -> io::Result<()>,
    /// Tests stop here, as a kill would.
    after: fn(Step) -> io::Result<()>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Contents {
    bytes: Vec<u8>,
    mode: u32,
    uid: u32,
    gid: u32,
}

/// What was there before: nothing, or contents.
type Original = Option<Contents>;

/// What a backup says.
struct Backup {
    original: Original,
    /// Digests of what we wrote last, and of what was ours then.
    ours: [String; 2],
}

impl Backup {
    /// Whether somebody else edited a file of ours. What a kill cut short looks the same.
    fn is_edited(&self, current: &Contents) -> bool {
        is_marked(&current.bytes) && !self.ours.contains(&digest(&current.bytes))
    }

    /// Whether it is the start of the original, which we may have left so, or somebody else who is still at it.
    fn is_cut(&self, current: &Contents) -> bool {
        let original = self.original.as_ref().map(|original| original.bytes.as_slice());
        half_written(&current.bytes, original) && !half_written(&current.bytes, None)
    }

    /// What has to be kept beside before the file is written over.
    fn to_keep<'a>(&self, current: &'a Original) -> Option<&'a Contents> {
        current.as_ref().filter(|current| self.is_edited(current) || self.is_cut(current))
    }

    /// Whether that is nothing to come back to.
    fn is_nothing(&self, current: &Original) -> bool {
        let original = self.original.as_ref().map(|original| original.bytes.as_slice());
        current.as_ref().is_none_or(|current| half_written(&current.bytes, original))
    }
}

impl ResolvConf {
    /// The one in `directory` (`/etc`); nothing is read or written yet.
    pub fn new(directory: impl Into<PathBuf>) -> ResolvConf {
        ResolvConf { directory: directory.into(), rename: |from, to| fs::rename(from, to), after: |_| Ok(()) }
    }

    /// Whether the file could be replaced: regular or absent, in a directory where files can be made.
    pub fn replaceable(&self) -> Result<(), ResolvConfError> {
        self.read()?;
        let probe = self.at(".resolv.conf.podway-probe");
        File::options().write(true).create(true).truncate(true).mode(0o600).open(&probe).map_err(io_at(&probe))?;
        fs::remove_file(&probe).map_err(io_at(&probe))
    }

    /// As [`ResolvConf::replaceable`], as far as can be told without a change.
    pub fn seems_replaceable(&self) -> Result<(), ResolvConfError> {
        self.read()?;
        let writable = access(&self.directory, AccessFlags::W_OK);
        writable.map_err(|error| io_at(&self.directory)(error.into()))
    }

    /// Makes the file name our servers, after writing the backup. Blocks on the file system.
    ///
    /// # Errors
    /// See [`ResolvConfError`]; the file is then as it was, or [`ResolvConf::restore`] makes it so.
    pub fn apply(&self, plan: &LinkPlan) -> Result<Applied, ResolvConfError> {
        let current = self.read()?;
        let ours = current.as_ref().is_some_and(is_ours);
        let backup = self.read_backup()?;
        let to_keep = backup.as_ref().and_then(|backup| backup.to_keep(&current));
        let last = backup.as_ref().map(|backup| backup.ours[0].clone()).unwrap_or_default();
        let (original, applied) = match backup {
            None if ours => return Err(ResolvConfError::NoBackup(self.at(FILE))),
            None => (current.clone(), Applied::Written),
            Some(backup) if ours => (backup.original, Applied::Written),
            Some(backup) if backup.is_nothing(&current) => (backup.original, Applied::Repaired),
            Some(_) => (current.clone(), Applied::Repaired),
        };
        let wanted = Contents {
            bytes: render(plan, original.as_ref().map(|original| original.bytes.as_slice())),
            mode: original.as_ref().map_or(0o644, |o| o.mode),
            uid: original.as_ref().map_or(0, |o| o.uid),
            gid: original.as_ref().map_or(0, |o| o.gid),
        };
        if ours && current.as_ref().is_some_and(|current| current.bytes == wanted.bytes) {
            return Ok(Applied::Unchanged);
        }
        let mut applied = applied;
        // What is only the start of ours was cut short.
        if let Some(text) = to_keep.filter(|text| !wanted.bytes.starts_with(&text.bytes)) {
            // What was wanted is in it, unless that is something else by now.
            if ours && last == digest(&wanted.bytes) {
                let asked = servers(&text.bytes).first().is_some_and(|first| plan.servers.contains(first));
                return Ok(if asked { Applied::Edited } else { Applied::Unasked });
            }
            let kept = self.keep(text)?;
            if ours {
                applied = Applied::Kept(kept);
            }
        }
        let before = current.as_ref().filter(|_| ours).map(|current| digest(&current.bytes)).unwrap_or_default();
        self.write_backup(original.as_ref(), &wanted.bytes, &before)?;
        self.step(Step::BackedUp)?;
        let owned = original.is_some();
        self.write(FILE, &wanted, owned)?;
        self.step(Step::Replaced)?;
        Ok(applied)
    }

    /// Keeps what somebody else wrote beside the file, and what was kept before as well. Returns where.
    fn keep(&self, text: &Contents) -> Result<PathBuf, ResolvConfError> {
        let numbered = (2..=MOST_EDITED).map(|number| format!("{EDITED}-{number}"));
        let mut last = EDITED.to_owned();
        for name in std::iter::once(EDITED.to_owned()).chain(numbered) {
            last = name;
            match self.read_file(&last) {
                Ok(Some(kept)) if kept.bytes == text.bytes => return Ok(self.at(&last)),
                Ok(None) => break,
                Ok(Some(_)) | Err(_) => {}
            }
        }
        self.write(&last, text, false)?;
        Ok(self.at(&last))
    }

    /// A digest of what somebody else wrote in the place of ours, and whether that has an end; `None` where nobody did.
    pub fn foreign(&self) -> Option<(String, bool)> {
        let current = self.read().ok().flatten().filter(|current| !is_ours(current))?;
        self.read_backup().ok().flatten()?;
        Some((digest(&current.bytes), is_whole(&current.bytes)))
    }

    /// Whether the file is ours, edited or not.
    ///
    /// # Errors
    /// It cannot be told.
    pub fn is_ours(&self) -> Result<bool, ResolvConfError> {
        match self.read() {
            Ok(current) => Ok(current.as_ref().is_some_and(is_ours)),
            Err(ResolvConfError::NotRegular(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Puts the file back as it was, contents, mode and owner, if it is ours; twice is harmless. Needs nothing but the
    /// backup, so it is also what a start does. Blocks on the file system.
    ///
    /// # Errors
    /// See [`ResolvConfError`]; the backup is then still there.
    pub fn restore(&self) -> Result<Restored, ResolvConfError> {
        let _ = fs::remove_file(self.at(TEMPORARY));
        let Some(backup) = self.read_backup()? else {
            return match self.read() {
                Ok(Some(current)) if is_ours(&current) => Err(ResolvConfError::NoBackup(self.at(FILE))),
                Ok(_) | Err(ResolvConfError::NotRegular(_)) => Ok(Restored::Nothing),
                Err(error) => Err(error),
            };
        };
        let current = match self.read() {
            Ok(current) => current,
            Err(ResolvConfError::NotRegular(_)) => {
                self.remove_backup()?;
                return Ok(Restored::LeftToOther);
            }
            Err(error) => return Err(error),
        };
        let result = if current == backup.original {
            Restored::Exactly
        } else if backup.is_nothing(&current) || current.as_ref().is_some_and(is_ours) {
            let kept = backup.to_keep(&current).map(|text| self.keep(text)).transpose()?;
            let original = &backup.original;
            match original {
                Some(original) => self.write(FILE, original, true)?,
                None => {
                    fs::remove_file(self.at(FILE)).map_err(io_at(&self.at(FILE)))?;
                    sync_directory(&self.directory).map_err(io_at(&self.directory))?;
                }
            }
            self.step(Step::Replaced)?;
            kept.map_or(Restored::Exactly, Restored::KeptEdit)
        } else {
            Restored::LeftToOther
        };
        self.remove_backup()?;
        self.step(Step::BackupRemoved)?;
        Ok(result)
    }

    /// Servers that the file named before us, or names now if it is not ours; `None` where that cannot be read.
    pub fn previous_servers(&self) -> Option<Vec<IpAddr>> {
        self.previous().map(|text| servers(&text))
    }

    /// The same for search domains.
    pub fn previous_domains(&self) -> Option<Vec<String>> {
        self.previous().map(|text| search_domains(&text))
    }

    fn previous(&self) -> Option<Vec<u8>> {
        let original = match self.read_backup() {
            Ok(Some(backup)) => backup.original,
            Ok(None) | Err(_) => match self.read().ok()? {
                // Ours says nothing of what was before it.
                Some(current) if is_ours(&current) => return None,
                current => current,
            },
        };
        Some(original.map(|contents| contents.bytes).unwrap_or_default())
    }

    /// The file itself.
    pub fn path(&self) -> PathBuf {
        self.at(FILE)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn step(&self, step: Step) -> Result<(), ResolvConfError> {
        (self.after)(step).map_err(io_at(&self.directory))
    }

    fn read(&self) -> Result<Original, ResolvConfError> {
        self.read_file(FILE)
    }

    fn read_file(&self, name: &str) -> Result<Original, ResolvConfError> {
        let path = self.at(name);
        // Without O_NONBLOCK a FIFO in its place would block us for ever.
        let opened = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err(ResolvConfError::NotRegular(path)),
            Err(error) => return Err(io_at(&path)(error)),
        };
        let metadata = file.metadata().map_err(io_at(&path))?;
        if !metadata.is_file() || metadata.len() > LARGEST {
            return Err(ResolvConfError::NotRegular(path));
        }
        let mut bytes = Vec::new();
        file.take(LARGEST).read_to_end(&mut bytes).map_err(io_at(&path))?;
        Ok(Some(Contents { bytes, mode: metadata.mode() & 0o7777, uid: metadata.uid(), gid: metadata.gid() }))
    }

    /// The backup, if there is one.
    fn read_backup(&self) -> Result<Option<Backup>, ResolvConfError> {
        let Some(backup) = self.read_file(BACKUP)? else { return Ok(None) };
        let damaged = || ResolvConfError::Damaged(self.at(BACKUP));
        let end = backup.bytes.iter().position(|b| *b == b'\n').ok_or_else(damaged)?;
        let head = std::str::from_utf8(&backup.bytes[..end]).map_err(|_| damaged())?;
        let fields = head.strip_prefix(BACKUP_MARKER).ok_or_else(damaged)?;
        let field = |name: &str| fields.split(' ').find_map(|f| f.strip_prefix(name)).ok_or_else(damaged);
        let number = |text: &str, radix| u32::from_str_radix(text, radix).map_err(|_| damaged());
        // One of an earlier version has no word of the second.
        let ours = ["written=", "before="].map(|name| field(name).unwrap_or_default().to_owned());
        if field("existed=")? == "no" {
            return Ok(Some(Backup { original: None, ours }));
        }
        let bytes = backup.bytes[end + 1..].to_vec();
        if field("original=")? != digest(&bytes) {
            return Err(damaged());
        }
        let (mode, uid, gid) = (number(field("mode=")?, 8)?, number(field("uid=")?, 10)?, number(field("gid=")?, 10)?);
        Ok(Some(Backup { original: Some(Contents { bytes, mode, uid, gid }), ours }))
    }

    fn write_backup(&self, original: Option<&Contents>, written: &[u8], before: &str) -> Result<(), ResolvConfError> {
        let written = digest(written);
        let head = match original {
            None => format!("{BACKUP_MARKER} existed=no written={written} before={before}\n"),
            Some(o) => format!(
                "{BACKUP_MARKER} existed=yes written={written} before={before} original={} mode={:o} uid={} gid={}\n",
                digest(&o.bytes),
                o.mode,
                o.uid,
                o.gid
            ),
        };
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(original.map_or(&[], |o| &o.bytes));
        self.write(BACKUP, &Contents { bytes, mode: 0o644, uid: 0, gid: 0 }, false)
    }

    fn remove_backup(&self) -> Result<(), ResolvConfError> {
        let path = self.at(BACKUP);
        fs::remove_file(&path).map_err(io_at(&path))?;
        sync_directory(&self.directory).map_err(io_at(&self.directory))
    }

    /// Replaces a file in one step; in place where it is a mount of its own (containers).
    fn write(&self, name: &str, contents: &Contents, keep_owner: bool) -> Result<(), ResolvConfError> {
        let (path, temporary) = (self.at(name), self.at(TEMPORARY));
        let _ = fs::remove_file(&temporary);
        let fill = |file: &mut File| {
            file.write_all(&contents.bytes)?;
            set_owner_and_mode(file, contents, keep_owner)?;
            file.sync_all()
        };
        let prepared = File::options().write(true).create_new(true).mode(0o600).open(&temporary);
        prepared.and_then(|mut file| fill(&mut file)).map_err(io_at(&temporary))?;
        if name == FILE {
            self.step(Step::Prepared)?;
        }
        match (self.rename)(&temporary, &path) {
            Ok(()) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EXDEV)) => {
                let open = File::options().write(true).truncate(true).custom_flags(libc::O_NOFOLLOW).open(&path);
                open.and_then(|mut file| fill(&mut file)).map_err(io_at(&path))?;
                let _ = fs::remove_file(&temporary);
            }
            Err(error) => return Err(io_at(&path)(error)),
        }
        sync_directory(&self.directory).map_err(io_at(&self.directory))
    }
}

fn is_ours(contents: &Contents) -> bool {
    is_marked(&contents.bytes)
}

/// Reads a file of `/etc` through links, without waiting for anybody: what is no regular file is an error.
pub(super) fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    // Without O_NONBLOCK a FIFO in its place would block us for ever.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn set_owner_and_mode(file: &File, contents: &Contents, keep_owner: bool) -> io::Result<()> {
    let now = file.metadata()?;
    if keep_owner && (now.uid(), now.gid()) != (contents.uid, contents.gid) {
        fchown(file.as_fd(), Some(Uid::from_raw(contents.uid)), Some(Gid::from_raw(contents.gid)))?;
    }
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(contents.mode))
}

fn digest(bytes: &[u8]) -> String {
    hex(&sha256(bytes))
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> ResolvConfError + use<> {
    let path = path.to_owned();
    move |source| ResolvConfError::Io { path, source }
}

#[cfg(test)]
mod tests;
