//! Where a user has had connections: what is told to whoever wants what they left to go, when no connection is there to ask.
//!
//! A short list for each user in the daemon's state directory. It is a hint: where it is lost or damaged, less is told.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// Places that are remembered of a user; the oldest is forgotten first.
const MOST: usize = 8;
/// The longest file that is read, in bytes.
const LONGEST: u64 = 64 << 10;

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

    #[test]
    fn a_line_for_a_shell_names_the_context_where_there_is_one() {
        assert_eq!(place("", "demo").kubectl(), "kubectl -n demo");
        assert_eq!(place("arn:aws:eks:x/y", "demo").kubectl(), "kubectl --context arn:aws:eks:x/y -n demo");
        assert_eq!(place("it's", "demo").kubectl(), r"kubectl --context 'it'\''s' -n demo");
    }
}
