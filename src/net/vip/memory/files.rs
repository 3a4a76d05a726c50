//! How many memories lie in a directory: what nobody can use any more goes, and a user's oldest beyond a number and a
//! size.

use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::KEPT;

/// Files that a user has at most. Twice as many as connections.
const MOST_FILES: usize = 32;
/// Bytes that a user's files have at most.
const MOST_BYTES: u64 = 32 << 20;

/// One memory, or what a writer that was killed left of one.
#[derive(Debug)]
struct Found {
    path: PathBuf,
    modified: u64,
    length: u64,
}

/// Removes from the directory of `path`, which was just written, what is older than a day, and what its user has too
/// much of; never `path`. `now` is in seconds since 1970.
///
/// # Errors
///
/// The directory cannot be read, or a file not be removed; the others are nevertheless.
pub fn tidy(path: &Path, now: u64) -> io::Result<()> {
    let Some(directory) = path.parent() else { return Ok(()) };
    let (mut others, mut result) = (Vec::new(), Ok(()));
    for entry in fs::read_dir(directory)? {
        let Some(found) = found(&entry?)? else { continue };
        if found.path == path {
            continue;
        }
        if now.saturating_sub(found.modified) > KEPT {
            result = result.and(remove(&found.path));
        } else if owner(&found.path) == owner(path) {
            others.push(found);
        }
    }
    // Those of one second by name, so that it is always the same that go.
    others.sort_by(|a, b| b.modified.cmp(&a.modified).then_with(|| a.path.cmp(&b.path)));
    let (mut files, mut bytes) = (1, fs::metadata(path)?.len());
    for other in others {
        files += 1;
        bytes += other.length;
        if files > MOST_FILES || bytes > MOST_BYTES {
            result = result.and(remove(&other.path));
        }
    }
    result
}

/// Nothing where another connection has renamed or removed it since it was listed, and for what is no file.
fn found(entry: &DirEntry) -> io::Result<Option<Found>> {
    let metadata = match entry.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata?,
    };
    if !metadata.is_file() {
        return Ok(None);
    }
    let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Ok(Some(Found { path: entry.path(), modified, length: metadata.len() }))
}

/// Another connection may have been quicker.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Err(_) | Ok(()) => Ok(()),
    }
}

/// Whose a file is: the number before the dash.
fn owner(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.split_once('-').map(|(owner, _)| owner)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::Duration;

    use super::*;

    const NOW: u64 = 2_000_000_000;

    fn write(directory: &Path, name: &str, age: u64, length: u64) -> PathBuf {
        let path = directory.join(name);
        let file = File::create(&path).unwrap();
        file.set_len(length).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(NOW - age)).unwrap();
        path
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_another_connection_renames_meanwhile_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let temporary = write(directory.path(), "1000-a.new", 0, 9);
        let entry = fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap();
        fs::rename(&temporary, temporary.with_extension("json")).unwrap();
        assert!(found(&entry).unwrap().is_none());
    }

    #[test]
    fn what_is_older_than_a_day_goes_whoevers_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let own = write(directory.path(), "1000-a.json", 2 * KEPT, 9);
        write(directory.path(), "1000-b.json", KEPT, 9);
        write(directory.path(), "1000-c.json", KEPT + 1, 9);
        write(directory.path(), "1001-d.json", KEPT + 1, 9);
        write(directory.path(), "1001-d.new", KEPT + 1, 9);
        write(directory.path(), "1001-e.new", 5, 9);
        tidy(&own, NOW).unwrap();
        assert_eq!(names(directory.path()), ["1000-a.json", "1000-b.json", "1001-e.new"]);
        // A clock that was set back makes nothing old.
        tidy(&own, 5).unwrap();
        assert_eq!(names(directory.path()).len(), 3);
    }

    #[test]
    fn a_user_has_so_many_files_and_bytes_and_others_have_theirs() {
        let directory = tempfile::tempdir().unwrap();
        let own = write(directory.path(), "1000-own.json", 100, 9);
        for n in 0..40 {
            write(directory.path(), &format!("1000-{n:02}.json"), n, 9);
            write(directory.path(), &format!("1001-{n:02}.json"), n, 9);
        }
        tidy(&own, NOW).unwrap();
        let left = names(directory.path());
        let of = |user: &str| left.iter().filter(|name| name.starts_with(user)).count();
        assert_eq!((of("1000-"), of("1001-")), (MOST_FILES, 40));
        assert!(left.contains(&"1000-30.json".to_owned()) && !left.contains(&"1000-31.json".to_owned()), "{left:?}");

        write(directory.path(), "1000-00.json", 0, MOST_BYTES / 2);
        write(directory.path(), "1000-01.json", 1, MOST_BYTES / 2);
        tidy(&own, NOW).unwrap();
        let left = names(directory.path()).into_iter().filter(|name| name.starts_with("1000-")).collect::<Vec<_>>();
        assert_eq!(left, ["1000-00.json", "1000-own.json"]);
    }
}
