//! Where a user has had connections: what is told to whoever wants what they left to go, when no connection is there to ask.
//!
//! A short list for each user in the daemon's state directory. It is a hint: where it is lost or damaged, less is told.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// Places that are remembered of a user; the oldest is forgotten first.
const MOST: usize = 8;
/// The longest file that is read, in bytes.
const LONGEST: u64 = 64 << 10;
/// The longest names that are remembered, in bytes: so many places fit into a file, however their names are escaped.
const LONGEST_CONTEXT: usize = 1024;
const LONGEST_NAMESPACE: usize = 253;
/// Changes that wait to be written; the oldest is dropped first.
const MOST_WAITING: usize = 64;

/// One namespace of one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The context of the user's kubeconfig; empty where there was none.
    pub context: String,
    /// The namespace.
    pub namespace: String,
}

impl Place {
    /// The beginning of a command line that asks kubectl there.
    pub fn kubectl(&self) -> String {
        match self.context.as_str() {
            "" => format!("kubectl -n {}", quoted(&self.namespace)),
            context => format!("kubectl --context {} -n {}", quoted(context), quoted(&self.namespace)),
        }
    }
}

/// Notes changes in the order in which they come, and writes them so: one thread at a time, which whoever notes does not
/// wait for.
#[derive(Clone, Debug)]
pub struct Notes {
    state_dir: PathBuf,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    changes: VecDeque<(u32, Change)>,
    /// Counts what was noted.
    noted: u64,
    /// What was added lately, and when: as many as may wait.
    added: VecDeque<(u64, u32, Place)>,
    /// Whether a thread writes.
    writing: bool,
}

/// What there is to note of one place.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Add(Place),
    Remove(Place),
}

/// A moment: what was noted before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(u64);

impl Notes {
    /// Notes for the files in `state_dir`; nothing is read or written yet.
    pub fn new(state_dir: impl Into<PathBuf>) -> Notes {
        Notes { state_dir: state_dir.into(), waiting: Arc::default() }
    }

    /// Remembers a place of `uid`. Needs a tokio runtime.
    pub fn add(&self, uid: u32, place: Place) {
        if place.context.len() > LONGEST_CONTEXT || place.namespace.len() > LONGEST_NAMESPACE {
            return tracing::debug!("a place with so long a name is not noted");
        }
        let mut waiting = self.waiting();
        let noted = waiting.noted;
        waiting.added.retain(|(_, of, known)| (*of, known) != (uid, &place));
        waiting.added.push_back((noted, uid, place.clone()));
        if waiting.added.len() > MOST_WAITING {
            waiting.added.pop_front();
        }
        self.note(waiting, uid, Change::Add(place));
    }

    /// Now, for [`Notes::remove`].
    pub fn moment(&self) -> Moment {
        Moment(self.waiting().noted)
    }

    /// Forgets a place of `uid` of which nothing was left, unless it was added again since. Needs a tokio runtime.
    pub fn remove(&self, uid: u32, place: Place, since: Moment) {
        let waiting = self.waiting();
        if !waiting.added.iter().any(|(at, of, known)| *at >= since.0 && *of == uid && *known == place) {
            self.note(waiting, uid, Change::Remove(place));
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, mut waiting: MutexGuard<'_, Waiting>, uid: u32, change: Change) {
        waiting.noted += 1;
        waiting.changes.push_back((uid, change));
        if waiting.changes.len() > MOST_WAITING {
            waiting.changes.pop_front();
        }
        if !std::mem::replace(&mut waiting.writing, true) {
            let notes = self.clone();
            drop(tokio::task::spawn_blocking(move || notes.write_all()));
        }
    }

    fn write_all(&self) {
        loop {
            let mut waiting = self.waiting();
            let Some((uid, change)) = waiting.changes.pop_front() else {
                waiting.writing = false;
                return;
            };
            drop(waiting);
            let written = match change {
                Change::Add(place) => add(&self.state_dir, uid, place),
                Change::Remove(place) => remove(&self.state_dir, uid, place),
            };
            if let Err(error) = written {
                tracing::debug!(%error, "where a user has connections was not noted");
            }
        }
    }
}

/// The places of `uid`, the latest first. Blocks.
pub fn load(state_dir: &Path, uid: u32) -> Vec<Place> {
    let mut text = Vec::new();
    let read = fs::File::open(path_of(state_dir, uid)).and_then(|file| file.take(LONGEST).read_to_end(&mut text));
    let places = read.ok().and_then(|_| serde_json::from_slice::<Vec<Place>>(&text).ok());
    places.unwrap_or_default()
}

/// Remembers one more. Blocks.
///
/// # Errors
/// What the file system says.
pub fn add(state_dir: &Path, uid: u32, place: Place) -> io::Result<()> {
    change(state_dir, uid, |places| {
        places.retain(|known| *known != place);
        places.insert(0, place);
        places.truncate(MOST);
    })
}

/// Forgets one, of which nothing is left. Blocks.
///
/// # Errors
/// What the file system says.
pub fn remove(state_dir: &Path, uid: u32, place: Place) -> io::Result<()> {
    change(state_dir, uid, |places| places.retain(|known| *known != place))
}

fn change(state_dir: &Path, uid: u32, change: impl FnOnce(&mut Vec<Place>)) -> io::Result<()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let before = load(state_dir, uid);
    let mut places = before.clone();
    change(&mut places);
    if places == before {
        return Ok(());
    }
    let path = path_of(state_dir, uid);
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    let temporary = path.with_extension("new");
    fs::write(&temporary, serde_json::to_vec(&places)?)?;
    fs::rename(&temporary, path)
}

fn path_of(state_dir: &Path, uid: u32) -> PathBuf {
    state_dir.join("places").join(format!("{uid}.json"))
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(context: &str, namespace: &str) -> Place {
        Place { context: context.into(), namespace: namespace.into() }
    }

    #[test]
    fn the_latest_places_of_each_user_are_known() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path(), 7), []);
        for number in 0..10 {
            add(dir.path(), 7, place("kind", &format!("n{number}"))).unwrap();
        }
        add(dir.path(), 7, place("kind", "n5")).unwrap();
        let namespaces: Vec<String> = load(dir.path(), 7).into_iter().map(|place| place.namespace).collect();
        assert_eq!(namespaces, ["n5", "n9", "n8", "n7", "n6", "n4", "n3", "n2"]);
        assert_eq!(load(dir.path(), 8), []);
        remove(dir.path(), 7, place("kind", "n5")).unwrap();
        assert_eq!(load(dir.path(), 7)[0], place("kind", "n9"));
        fs::write(path_of(dir.path(), 7), "[[[").unwrap();
        assert_eq!(load(dir.path(), 7), [], "what is damaged is not known");
        add(dir.path(), 7, place("", "demo")).unwrap();
        assert_eq!(load(dir.path(), 7), [place("", "demo")]);
    }

    #[tokio::test]
    async fn what_is_noted_is_written_in_that_order_by_one_thread_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let notes = Notes::new(dir.path());
        let written = async || {
            while notes.waiting().writing {
                tokio::task::yield_now().await;
            }
            load(dir.path(), 7).into_iter().map(|place| place.namespace).collect::<Vec<_>>()
        };
        for round in 0..50 {
            let before = notes.moment();
            notes.add(7, place("kind", "kept"));
            let after = notes.moment();
            notes.add(7, place("kind", "gone"));
            notes.remove(7, place("kind", "gone"), notes.moment());
            notes.remove(7, place("kind", "kept"), before);
            assert_eq!(written().await, ["kept"], "round {round}: it was added after the end that removes it");
            notes.remove(7, place("kind", "kept"), after);
            assert_eq!(written().await, [""; 0], "round {round}");
        }
        notes.add(7, place("kind", "demo"));
        for (context, namespace) in [("x".repeat(100_000), "demo".to_owned()), (String::new(), "y".repeat(100_000))] {
            notes.add(7, place(&context, &namespace));
        }
        assert_eq!(written().await, ["demo"], "what is too long makes nothing else forgotten");
        for number in 0..8 {
            notes.add(7, place(&"\u{1}".repeat(LONGEST_CONTEXT), &format!("{}{number}", "\u{1}".repeat(252))));
        }
        assert_eq!(written().await.len(), MOST, "the longest are read back");
    }

    #[test]
    fn a_line_for_a_shell_names_the_context_where_there_is_one() {
        assert_eq!(place("", "demo").kubectl(), "kubectl -n demo");
        assert_eq!(place("arn:aws:eks:x/y", "demo").kubectl(), "kubectl --context arn:aws:eks:x/y -n demo");
        assert_eq!(place("it's", "demo").kubectl(), r"kubectl --context 'it'\''s' -n demo");
    }
}
