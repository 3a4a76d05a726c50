//! Who of the connections of one daemon edits `resolv.conf`, and who is beside it.
//!
//! Only the editor passes names on, to those beside it and to the host's former servers; those answer or refuse. So no
//! name goes round in a circle.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::watch;

const TAKEN: &str =
    "another connection is about to replace resolv.conf, or cannot; end that one, or connect with --dns off";

const APART: &str = "a connection of another user has replaced resolv.conf, and what one asks is not told to the other's \
                     cluster; wait for its end, or connect with --dns off";

/// Who may edit `resolv.conf`: one connection of those that share this. A program asks the servers of that file in turn
/// and believes the first answer, so the editor alone is named there; what it has no answer for it passes on to those beside
/// it.
#[derive(Clone, Debug, Default)]
pub struct FileEditor {
    /// What the editor did; gone with it, so that nobody needs to give it back.
    by: Arc<Mutex<Weak<Mutex<Done>>>>,
    /// All that came, in that order: those of a connection that is gone are gone too. As many as there are connections.
    known: Arc<Mutex<Vec<Weak<Mutex<Done>>>>>,
    /// Counts how often an editor gave the file back.
    pub(super) given_back: Arc<watch::Sender<u64>>,
    /// Held while the file, its backup, the journal and what is known of them are changed: by threads that may block, and no
    /// longer than that.
    pub(super) writing: Arc<Mutex<()>>,
}

/// How far another connection is with the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Other {
    /// It is to edit the file, and has not yet, or is not asked by it.
    Begins,
    /// The host asks it by the file.
    Edits,
    /// It is another user's: the names of two users' clusters stay apart.
    Apart,
}

impl Other {
    pub(super) fn in_the_way(self) -> &'static str {
        match self {
            Other::Begins | Other::Edits => TAKEN,
            Other::Apart => APART,
        }
    }
}

/// What was done to the host in this run. What it says of the file changes only under [`FileEditor::writing`].
#[derive(Clone, Debug, Default)]
pub(super) struct Done {
    /// Whose connection it is.
    pub owner: u32,
    pub link: Option<u32>,
    /// Whether the file is ours to change.
    pub file: bool,
    /// Whether it was changed, so that names of the host may come to us.
    pub replaced: bool,
    /// Whether the host asks us first by it.
    pub asked: bool,
    /// Where we are asked.
    pub servers: Vec<IpAddr>,
    /// The same, where another connection edits the file.
    pub beside: Vec<IpAddr>,
    pub upstream: Vec<IpAddr>,
    /// Edits of somebody else that were moved aside.
    pub kept: Vec<PathBuf>,
    /// How many detachings were before the last attaching began.
    pub begun: u64,
}

impl Done {
    /// Notes an edit that was moved aside, once.
    pub(super) fn keep(&mut self, path: PathBuf) {
        if !self.kept.contains(&path) {
            self.kept.push(path);
        }
    }
}

impl FileEditor {
    /// Makes `done` the editor.
    ///
    /// # Errors
    /// Another is.
    pub(super) fn take(&self, done: &Arc<Mutex<Done>>) -> Result<(), Other> {
        let mut by = locked(&self.by);
        if let Some(other) = of_another(&by, done) {
            return Err(other);
        }
        *by = Arc::downgrade(done);
        let mut done = locked(done);
        done.file = true;
        done.beside.clear();
        Ok(())
    }

    /// How far another than `done` is, where one edits the file.
    pub(super) fn other(&self, done: &Arc<Mutex<Done>>) -> Option<Other> {
        of_another(&locked(&self.by), done)
    }

    /// Notes where a connection is asked, which nobody may take for a server of the host.
    pub(super) fn know(&self, done: &Arc<Mutex<Done>>, servers: &[IpAddr]) {
        locked(done).servers = servers.to_vec();
        let mut known = locked(&self.known);
        known.retain(|other| other.strong_count() > 0);
        if !known.iter().any(|other| other.as_ptr() == Arc::as_ptr(done)) {
            known.push(Arc::downgrade(done));
        }
    }

    /// A server of each connection of the same user beside this one; none where this one does not edit the file.
    pub(super) fn beside(&self, done: &Arc<Mutex<Done>>) -> Vec<IpAddr> {
        if !self.is_editor(done) {
            return Vec::new();
        }
        let owner = locked(done).owner;
        let others = self.all().into_iter().filter(|other| !Arc::ptr_eq(other, done) && locked(other).owner == owner);
        others.filter_map(|other| locked(&other).beside.first().copied()).collect()
    }

    /// The servers that the host used before; none where this connection does not edit the file, and none of ours.
    pub(super) fn upstream(&self, done: &Arc<Mutex<Done>>) -> Vec<IpAddr> {
        if !self.is_editor(done) {
            return Vec::new();
        }
        let ours: Vec<IpAddr> = self.all().iter().flat_map(|of| locked(of).servers.clone()).collect();
        let upstream = locked(done).upstream.clone();
        upstream.into_iter().filter(|server| !ours.contains(server)).collect()
    }

    fn all(&self) -> Vec<Arc<Mutex<Done>>> {
        locked(&self.known).iter().filter_map(Weak::upgrade).collect()
    }

    fn is_editor(&self, done: &Arc<Mutex<Done>>) -> bool {
        locked(&self.by).as_ptr() == Arc::as_ptr(done) && locked(done).file
    }
}

fn of_another(by: &Weak<Mutex<Done>>, done: &Arc<Mutex<Done>>) -> Option<Other> {
    let other = by.upgrade().filter(|other| !Arc::ptr_eq(other, done))?;
    let owner = locked(done).owner;
    let other = locked(&other);
    match (other.file, other.asked) {
        (false, _) => None,
        (true, _) if other.owner != owner => Some(Other::Apart),
        (true, false) => Some(Other::Begins),
        (true, true) => Some(Other::Edits),
    }
}

/// What it guards is whole between any two statements.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
