//! What podway changed on the host that outlives its process: written down before it is done, undone in reverse.
//!
//! The device, its routes and resolved's settings for it vanish with the process, so few things are ever written here.
//! The file is JSON in the runtime directory. Entries that this version does not know, of a newer one, are kept and
//! reported. Every undo works twice.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::net::resolver::resolv_conf::{ResolvConf, Restored};

const FILE: &str = "os-journal.json";

/// One change to the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Change {
    /// `resolv.conf` in this directory was replaced; the backup lies beside it.
    ResolvConf {
        /// The directory (`/etc`).
        directory: PathBuf,
    },
}

/// What came of undoing, in the user's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undone {
    /// What was put back.
    pub done: Vec<String>,
    /// What could not be; empty when the host is as it was.
    pub left: Vec<String>,
}

impl Undone {
    /// Adds what came of putting `resolv.conf` back.
    pub(crate) fn add(&mut self, resolv_conf: &ResolvConf) -> Result<(), String> {
        match resolv_conf.restore() {
            Ok(Restored::Exactly) => {
                self.done.push(format!("{} is as it was before podway", resolv_conf.path().display()))
            }
            Ok(Restored::KeptEdit(edit)) => self.done.push(format!(
                "{} is as it was before podway; what somebody made of podway's is in {}",
                resolv_conf.path().display(),
                edit.display()
            )),
            Ok(Restored::LeftToOther | Restored::Nothing) => {}
            Err(error) => return Err(error.to_string()),
        }
        Ok(())
    }
}

/// The journal in one runtime directory.
#[derive(Clone, Debug)]
pub struct OsJournal {
    directory: PathBuf,
}

impl OsJournal {
    /// The journal in `runtime_dir`; nothing is read or written yet.
    pub fn new(runtime_dir: impl Into<PathBuf>) -> OsJournal {
        OsJournal { directory: runtime_dir.into() }
    }

    /// Notes a change that is about to be made; returns when it is on disk. Noting it twice is noting it once.
    ///
    /// # Errors
    /// The file cannot be read or written. The change must then not be made.
    pub fn record(&self, change: &Change) -> io::Result<()> {
        let mut entries = self.read()?;
        let value = serde_json::to_value(change)?;
        if !entries.contains(&value) {
            entries.push(value);
            self.write(&entries)?;
        }
        Ok(())
    }

    /// Strikes out a change that was undone.
    ///
    /// # Errors
    /// The file cannot be read or written; the next start undoes the change again, which is harmless.
    pub fn forget(&self, change: &Change) -> io::Result<()> {
        let mut entries = self.read()?;
        let value = serde_json::to_value(change)?;
        if entries.contains(&value) {
            entries.retain(|entry| *entry != value);
            self.write(&entries)?;
        }
        Ok(())
    }

    /// Undoes everything noted, newest first, and strikes out what is undone. Used at start, at teardown and by
    /// `podwayd cleanup`.
    ///
    /// Blocks on the file system.
    pub fn undo_all(&self) -> Undone {
        let mut all = Undone::default();
        let entries = match self.read() {
            Ok(entries) => entries,
            Err(error) => {
                all.left.push(format!("{}: {error}", self.path().display()));
                return all;
            }
        };
        let mut kept = Vec::new();
        for entry in entries.iter().rev() {
            let undone = match serde_json::from_value::<Change>(entry.clone()) {
                Ok(Change::ResolvConf { directory }) => all.add(&ResolvConf::new(directory)),
                Err(_) => Err(format!("not known to this version of podway, left as it is: {entry}")),
            };
            if let Err(why) = undone {
                all.left.push(why);
                kept.insert(0, entry.clone());
            }
        }
        if kept.len() != entries.len()
            && let Err(error) = self.write(&kept)
        {
            all.left.push(format!("{}: {error}", self.path().display()));
        }
        all
    }

    /// Whether a change is noted that was not undone, as far as this user may know.
    pub fn notes_any(&self) -> bool {
        self.path().exists()
    }

    fn path(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    fn read(&self) -> io::Result<Vec<Value>> {
        match fs::read(self.path()) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn write(&self, entries: &[Value]) -> io::Result<()> {
        if entries.is_empty() {
            return match fs::remove_file(self.path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                Err(_) | Ok(()) => sync_directory(&self.directory),
            };
        }
        let temporary = self.directory.join(".os-journal.tmp");
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(entries)?)?;
        file.sync_all()?;
        fs::rename(&temporary, self.path())?;
        sync_directory(&self.directory)
    }
}

/// Makes renames and removals in a directory last.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Change, OsJournal, Undone};

    #[test]
    fn what_is_noted_is_undone_once_and_the_file_goes() {
        let runtime = tempfile::tempdir().unwrap();
        let etc = tempfile::tempdir().unwrap();
        let journal = OsJournal::new(runtime.path());
        let change = Change::ResolvConf { directory: etc.path().into() };
        journal.record(&change).unwrap();
        journal.record(&change).unwrap();
        assert_eq!(journal.read().unwrap().len(), 1);
        assert_eq!(journal.undo_all(), Undone::default());
        assert_eq!(journal.undo_all(), Undone::default());
        assert!(fs::read_dir(runtime.path()).unwrap().next().is_none());
    }

    #[test]
    fn entries_of_a_newer_version_are_kept_and_reported() {
        let runtime = tempfile::tempdir().unwrap();
        let file = runtime.path().join("os-journal.json");
        fs::write(&file, r#"[{"kind":"nft-table","name":"podway"}]"#).unwrap();
        let journal = OsJournal::new(runtime.path());
        let left = journal.undo_all().left;
        assert_eq!(left.len(), 1);
        assert!(left[0].contains("nft-table"));
        let change = Change::ResolvConf { directory: runtime.path().into() };
        journal.record(&change).unwrap();
        journal.forget(&change).unwrap();
        assert!(fs::read_to_string(&file).unwrap().contains("nft-table"));
    }

    #[test]
    fn a_damaged_journal_is_reported_and_nothing_is_noted_into_it() {
        let runtime = tempfile::tempdir().unwrap();
        fs::write(runtime.path().join("os-journal.json"), "{").unwrap();
        let journal = OsJournal::new(runtime.path());
        assert_eq!(journal.undo_all().left.len(), 1);
        assert!(journal.record(&Change::ResolvConf { directory: runtime.path().into() }).is_err());
    }
}
