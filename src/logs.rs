//! The daemon's latest log lines, for `podway logs`: kept in memory, so that they can be read without a right to the
//! host's journal, and wherever the log itself goes.
//!
//! - [`layer`]: takes each line that is logged, and finds out whom it concerns.
//! - here: what is kept, at most [`LINES`] and [`BYTES`], and who may read what.
//!
//! Whoever reads sees what concerns their own connections, and what concerns nobody's. What cannot be told is for root.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::timestamp;

pub mod layer;

/// The most lines that are kept.
pub const LINES: usize = 2048;
/// The most bytes that all of them take, about: what else the daemon takes when idle is many times that.
pub const BYTES: usize = 512 * 1024;
/// The most bytes of one message or value; the rest is cut off.
pub const LONGEST: usize = 2048;
/// The most lines that are read at a time.
pub const PAGE: usize = 64;

/// How much a line matters, most first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Broken.
    Error,
    /// Strange, but it goes on.
    Warn,
    /// What a user would notice.
    Info,
    /// Decisions.
    Debug,
    /// Everything.
    #[default]
    Trace,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Milliseconds since 1970; RFC 3339 in JSON.
    #[serde(with = "timestamp::text_of_millis")]
    pub time: i64,
    /// How much it matters.
    pub level: Level,
    /// Which part of the daemon says it.
    pub target: String,
    /// The connection that it concerns.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session: Option<String>,
    /// A constant sentence.
    pub message: String,
    /// What it is about, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub fields: BTreeMap<String, String>,
}

/// Whom a line concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// A user.
    User(u32),
    /// The host, and so everybody.
    Nobodys,
    /// Not known: somebody, perhaps.
    Unknown,
}

impl Whose {
    /// Whether a user may read it.
    pub fn may_be_read_by(self, uid: u32) -> bool {
        match self {
            Whose::User(owner) => uid == 0 || uid == owner,
            Whose::Nobodys => true,
            Whose::Unknown => uid == 0,
        }
    }
}

/// What is kept. Clones are the same one.
#[derive(Clone, Debug)]
pub struct LogRing(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ring: Mutex<Ring>,
    newest: watch::Sender<u64>,
}

#[derive(Debug)]
struct Ring {
    kept: VecDeque<Kept>,
    /// The lines as JSON, one after another, in one allocation: many small ones that stay would each keep a page of the heap
    /// in use that all else has left.
    texts: VecDeque<u8>,
    /// The number of the newest line; the first one is 1.
    newest: u64,
}

#[derive(Debug)]
struct Kept {
    number: u64,
    whose: Whose,
    level: Level,
    length: usize,
}

impl Ring {
    fn new() -> Ring {
        Ring { kept: VecDeque::with_capacity(LINES), texts: VecDeque::with_capacity(BYTES), newest: 0 }
    }

    fn keep(&mut self, whose: Whose, level: Level, text: &str) {
        let length = text.len();
        while self.kept.len() >= LINES || self.texts.len() + length > BYTES {
            let Some(oldest) = self.kept.pop_front() else { return };
            self.texts.drain(..oldest.length);
        }
        self.newest += 1;
        self.texts.extend(text.as_bytes());
        self.kept.push_back(Kept { number: self.newest, whose, level, length });
    }

    /// What is kept, and where its text is.
    fn all(&self) -> impl Iterator<Item = (&Kept, std::ops::Range<usize>)> {
        self.kept.iter().scan(0, |begin, kept| {
            let text = *begin..*begin + kept.length;
            *begin = text.end;
            Some((kept, text))
        })
    }

    fn text(&self, at: std::ops::Range<usize>) -> Vec<u8> {
        self.texts.range(at).copied().collect()
    }
}

/// Some lines in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Those that the reader may see.
    pub lines: Vec<LogLine>,
    /// The number of the last one that was looked at.
    pub upto: u64,
    /// Whether lines between the last page and this one are gone.
    pub missed: bool,
}

impl Default for LogRing {
    fn default() -> Self {
        LogRing(Arc::new(Inner { ring: Mutex::new(Ring::new()), newest: watch::Sender::new(0) }))
    }
}

impl LogRing {
    /// Keeps a line, and forgets the oldest ones that there is no more room for.
    pub fn keep(&self, whose: Whose, line: LogLine) {
        // Strings and numbers can always be written.
        let Ok(text) = serde_json::to_string(&line) else { return };
        let newest = {
            let mut ring = self.ring();
            ring.keep(whose, line.level, &text);
            ring.newest
        };
        self.0.newest.send_replace(newest);
    }

    /// The lines after the number `after` that a user may see, at least as important as `level`; at most [`PAGE`].
    pub fn after(&self, after: u64, uid: u32, level: Level) -> Page {
        let (mut page, texts) = self.texts(after, uid, level);
        page.lines = texts.iter().filter_map(|text| serde_json::from_slice(text).ok()).collect();
        page
    }

    /// The same without its lines, and their texts: whoever logs does not wait while they are read.
    fn texts(&self, after: u64, uid: u32, level: Level) -> (Page, Vec<Vec<u8>>) {
        let ring = self.ring();
        let oldest = ring.kept.front().map_or(ring.newest + 1, |kept| kept.number);
        let mut page = Page { lines: Vec::new(), upto: after, missed: after > 0 && oldest > after + 1 };
        let mut texts = Vec::new();
        for (kept, at) in ring.all().filter(|(kept, _)| kept.number > after) {
            page.upto = kept.number;
            if kept.whose.may_be_read_by(uid) && kept.level <= level {
                texts.push(ring.text(at));
            }
            if texts.len() == PAGE {
                return (page, texts);
            }
        }
        // Also where the newest lines are gone already.
        page.upto = ring.newest;
        (page, texts)
    }

    /// Tells the number of the newest line whenever there is another.
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.0.newest.subscribe()
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Whoever panicked with it held whole lines.
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str, level: Level) -> LogLine {
        LogLine {
            time: 1_795_399_260_123,
            level,
            target: "podway::x".to_owned(),
            session: None,
            message: message.to_owned(),
            fields: BTreeMap::new(),
        }
    }

    fn read(ring: &LogRing, uid: u32, level: Level) -> Vec<String> {
        ring.after(0, uid, level).lines.iter().map(|line| line.message.clone()).collect()
    }

    #[test]
    fn everybody_reads_their_own_lines_and_nobodys_and_root_reads_all() {
        let ring = LogRing::default();
        for (whose, message) in [
            (Whose::User(1000), "ann"),
            (Whose::User(1001), "ben"),
            (Whose::Nobodys, "host"),
            (Whose::Unknown, "somebody"),
        ] {
            ring.keep(whose, line(message, Level::Info));
        }
        assert_eq!(read(&ring, 1000, Level::Trace), ["ann", "host"]);
        assert_eq!(read(&ring, 1001, Level::Trace), ["ben", "host"]);
        assert_eq!(read(&ring, 7, Level::Trace), ["host"]);
        assert_eq!(read(&ring, 0, Level::Trace), ["ann", "ben", "host", "somebody"]);
    }

    #[test]
    fn a_level_leaves_out_what_matters_less() {
        let ring = LogRing::default();
        for level in [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace] {
            ring.keep(Whose::Nobodys, line(&format!("{level:?}"), level));
        }
        assert_eq!(read(&ring, 7, Level::Warn), ["Error", "Warn"]);
        assert_eq!(read(&ring, 7, Level::Trace).len(), 5);
    }

    #[test]
    fn what_is_kept_has_a_bound_in_lines_and_in_bytes_and_whoever_reads_on_learns_what_is_gone() {
        let ring = LogRing::default();
        for number in 0..LINES + 10 {
            ring.keep(Whose::Nobodys, line(&number.to_string(), Level::Info));
        }
        assert_eq!(ring.ring().kept.len(), LINES);
        let first = ring.after(0, 7, Level::Trace);
        assert_eq!((first.lines[0].message.as_str(), first.lines.len(), first.missed), ("10", PAGE, false));
        assert!(ring.after(5, 7, Level::Trace).missed);
        assert!(!ring.after(first.upto, 7, Level::Trace).missed);
        let long = "x".repeat(LONGEST);
        for _ in 0..1000 {
            ring.keep(Whose::Nobodys, line(&long, Level::Info));
        }
        let ring = ring.ring();
        let (lines, bytes) = (ring.kept.len(), ring.texts.len());
        assert!(bytes <= BYTES && lines > BYTES / (2 * LONGEST), "{lines} in {bytes}");
        assert_eq!(bytes, ring.kept.iter().map(|kept| kept.length).sum::<usize>());
        // What there is room for is there from the beginning.
        assert_eq!((ring.texts.capacity(), ring.kept.capacity()), (BYTES, LINES));
    }

    #[test]
    fn a_line_is_read_as_it_was_logged() {
        let ring = LogRing::default();
        let fields = BTreeMap::from([("pod".to_owned(), "a \"b\"\u{1}".to_owned()), ("n".to_owned(), "1".to_owned())]);
        let logged = LogLine { session: Some("demo".to_owned()), fields, ..line("ready", Level::Debug) };
        ring.keep(Whose::Nobodys, logged.clone());
        assert_eq!(ring.after(0, 7, Level::Trace).lines, [logged]);
    }

    #[test]
    fn pages_follow_each_other_until_the_newest() {
        let ring = LogRing::default();
        let newest = ring.newest();
        for number in 0..PAGE + 3 {
            ring.keep(Whose::Nobodys, line(&number.to_string(), Level::Info));
            ring.keep(Whose::User(1000), line("another's", Level::Info));
        }
        let first = ring.after(0, 7, Level::Trace);
        let second = ring.after(first.upto, 7, Level::Trace);
        assert_eq!((first.lines.len(), second.lines.len()), (PAGE, 3));
        assert_eq!((second.upto, *newest.borrow()), (2 * (PAGE as u64 + 3), 2 * (PAGE as u64 + 3)));
        assert_eq!(ring.after(second.upto, 7, Level::Trace), Page { upto: second.upto, ..Page::default() });
    }
}
