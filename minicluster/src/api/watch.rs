//! Watches: what changed since a version, as lines of JSON, until their time is over.
#![expect(clippy::disallowed_methods, reason = "a shell: watches end, and say how far they are, by the clock")]

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::answer::{self, Answer};
use super::negotiation::Form;
use super::options::{ListOptions, Version};
use super::read;
use super::request::Query;
use super::respond::Call;
use super::status::Status;
use super::table;
use crate::faults::{Fault, Faults, Who};
use crate::resource::Resource;
use crate::store::{Change, Event, Expired, Store};
use crate::time::Time;

/// How long a watch lasts that names no time; Kubernetes takes between this and the double.
const USUAL: Duration = Duration::from_secs(1800);
/// Time between two bookmarks.
const BOOKMARKS: Duration = Duration::from_secs(60);
/// The last bookmark comes that long before the end.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);
/// Bytes of events that are sent as one chunk.
const CHUNK: usize = 64 << 10;
/// How long an event waits for the next one, to be sent after it on purpose.
const SWAP: Duration = Duration::from_millis(200);

/// A watch.
pub fn answer(call: &Call<'_>) -> Result<Answer, Status> {
    let options = ListOptions::read(&call.info.query, call.resource, true)?;
    let store = call.shared.store.clone();
    let begun = Instant::now();
    let lasts = options.timeout.map_or(USUAL, Duration::from_secs);
    let faults = call.shared.faults.clone();
    let mut watch = Watch {
        lines: Lines { resource: call.resource, form: call.form, query: call.info.query.clone(), headed: false },
        namespace: read::namespace(call).map(str::to_owned),
        position: 0,
        revisions: store.revisions(),
        ends: begun + lasts,
        bookmark: options.bookmarks.then(|| next_bookmark(begun, begun + lasts)),
        ready: VecDeque::new(),
        over: false,
        meddler: Meddler::new(&faults, call.who.clone()),
        store,
        options,
    };
    watch.begin();
    let chunks = stream::unfold(watch, |mut watch| async move {
        let chunk = watch.next().await?;
        Some((chunk, watch))
    });
    Ok(answer::stream("application/json", chunks))
}

struct Watch {
    store: Store,
    namespace: Option<String>,
    options: ListOptions,
    lines: Lines,
    /// The revision up to which everything was told.
    position: u64,
    revisions: watch::Receiver<u64>,
    ends: Instant,
    bookmark: Option<Instant>,
    ready: VecDeque<Vec<u8>>,
    over: bool,
    meddler: Meddler,
}

impl Watch {
    /// What comes before all changes.
    fn begin(&mut self) {
        if let (Version::From(revision) | Version::Exactly(revision), false) =
            (self.options.version, self.options.initial_events)
        {
            self.position = revision;
            return;
        }
        let (revision, objects) = self.store.list(self.lines.resource, self.namespace.as_deref());
        self.position = revision;
        for object in objects.iter().filter(|object| self.options.matches(object)) {
            let line = self.lines.event("ADDED", object, self.store.now());
            self.ready.push_back(line);
        }
        if self.options.initial_events && self.options.bookmarks {
            let line = self.lines.bookmark(revision, true);
            self.ready.push_back(line);
        }
    }

    /// The next chunk; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(chunk) = self.take() {
                return Some(chunk);
            }
            if self.over {
                return None;
            }
            if self.look() {
                continue;
            }
            let wakes = self.bookmark.map_or(self.ends, |bookmark| bookmark.min(self.ends));
            let wakes = self.meddler.wakes().map_or(wakes, |then| then.min(wakes));
            let changed = tokio::select! {
                changed = self.revisions.changed() => changed.is_ok(),
                changed = self.meddler.changes.changed() => changed.is_ok(),
                () = sleep_until(wakes) => true,
            };
            let now = Instant::now();
            if !changed || now >= self.ends {
                return None;
            }
            if self.bookmark.is_some_and(|bookmark| now >= bookmark) {
                // Nothing may be passed over by it.
                self.look();
                let line = self.lines.bookmark(self.position, false);
                self.ready.push_back(line);
                self.bookmark = Some(next_bookmark(now, self.ends));
            }
        }
    }

    /// Ready lines as one chunk.
    fn take(&mut self) -> Option<Bytes> {
        let mut chunk = self.ready.pop_front()?;
        while chunk.len() < CHUNK
            && let Some(line) = self.ready.pop_front()
        {
            chunk.extend(line);
        }
        Some(Bytes::from(chunk))
    }

    /// Looks for changes; says whether there is something to send, or the end.
    fn look(&mut self) -> bool {
        let now = *self.revisions.borrow_and_update();
        let seen = match self.store.since(self.lines.resource, self.position) {
            Ok(events) => {
                // Those that came after the look at the revision are told now as well.
                self.position = events.last().map_or(now, |event| event.revision.max(now)).max(self.position);
                let told = events.iter().filter_map(|event| told(&self.options, self.namespace.as_deref(), event));
                told.collect()
            }
            Err(Expired { asked, oldest }) => {
                let status = Status::expired(format!("too old resource version: {asked} ({oldest})"));
                self.ready.push_back(line("ERROR", &status.body()));
                self.over = true;
                return true;
            }
        };
        let Meddled { events, gone, over } = self.meddler.meddle(seen, Instant::now());
        for (kind, object) in events {
            let line = self.lines.event(kind, &object, self.store.now());
            self.ready.push_back(line);
        }
        if gone {
            let status = Status::expired(format!("too old resource version: {} ({now})", self.position));
            self.ready.push_back(line("ERROR", &status.body()));
        }
        self.over |= gone || over;
        self.over || !self.ready.is_empty()
    }
}

fn next_bookmark(now: Instant, ends: Instant) -> Instant {
    let last = ends.checked_sub(LAST_BOOKMARK).unwrap_or(ends);
    // Only one comes right before the end.
    if now >= last { ends + BOOKMARKS } else { last.min(now + BOOKMARKS) }
}

/// What a watch tells of a change: an object comes into its sight, changes there, leaves it. Nothing of what it selects
/// not.
fn told(options: &ListOptions, namespace: Option<&str>, event: &Event) -> Option<(&'static str, Value)> {
    if namespace.is_some_and(|namespace| namespace != event.key.namespace) {
        return None;
    }
    let now = event.change != Change::Deleted && options.matches(&event.object);
    let before = event.previous.as_deref().filter(|before| options.matches(before));
    match (before, now) {
        (None, false) => None,
        (None, true) => Some(("ADDED", Value::clone(&event.object))),
        (Some(_), true) => Some(("MODIFIED", Value::clone(&event.object))),
        (Some(before), false) => {
            let mut last = before.clone();
            last["metadata"]["resourceVersion"] = json!(event.revision.to_string());
            Some(("DELETED", last))
        }
    }
}

/// Events as lines, in the form that was asked for.
struct Lines {
    resource: &'static Resource,
    form: Form,
    query: Query,
    /// Whether a table's columns were told; the first event of a watch tells them.
    headed: bool,
}

impl Lines {
    fn event(&mut self, kind: &str, object: &Value, now: Time) -> Vec<u8> {
        match self.form {
            Form::Object => line(kind, object),
            Form::Metadata => line(kind, &read::partial(object)),
            Form::Table => {
                let mut table = table::one(self.resource, object, &self.query, now);
                if self.headed {
                    table["columnDefinitions"] = Value::Null;
                }
                self.headed = true;
                line(kind, &table)
            }
        }
    }

    fn bookmark(&mut self, revision: u64, initial_end: bool) -> Vec<u8> {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = json!({
            "kind": self.resource.kind, "apiVersion": self.resource.api_version(), "metadata": metadata,
        });
        match self.form {
            Form::Object => line("BOOKMARK", &object),
            Form::Metadata => line("BOOKMARK", &read::partial(&object)),
            Form::Table => {
                let table = json!({
                    "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": null,
                    "rows": [],
                });
                line("BOOKMARK", &table)
            }
        }
    }
}

/// One event, framed.
fn line(kind: &str, object: &Value) -> Vec<u8> {
    let mut line = format!("{{\"type\":\"{kind}\",\"object\":").into_bytes();
    // A value that was parsed or built from values can be written.
    drop(serde_json::to_writer(&mut line, object));
    line.extend_from_slice(b"}\n");
    line
}

type Told = (&'static str, Value);

/// What becomes of a watch's events when faults are in force.
struct Meddler {
    faults: Faults,
    changes: watch::Receiver<u64>,
    id: u64,
    who: Who,
    lost: u32,
    sent: u32,
    held: Option<(Told, Instant)>,
}

struct Meddled {
    events: Vec<Told>,
    /// Whether 410 follows.
    gone: bool,
    /// Whether the watch ends.
    over: bool,
}

impl Meddler {
    fn new(faults: &Faults, who: Who) -> Meddler {
        let (changes, id) = (faults.changes(), faults.watching());
        Meddler { faults: faults.clone(), changes, id, who, lost: 0, sent: 0, held: None }
    }

    /// When an event that is held back has to go.
    fn wakes(&self) -> Option<Instant> {
        self.held.as_ref().map(|(_, since)| *since + SWAP)
    }

    fn meddle(&mut self, events: Vec<Told>, now: Instant) -> Meddled {
        self.changes.mark_unchanged();
        let mut meddled = Meddled { events, gone: false, over: false };
        let mut swaps = false;
        for fault in self.faults.watched(self.id, &self.who) {
            match fault {
                Fault::DuplicateEvents => {
                    meddled.events = meddled.events.into_iter().flat_map(|event| [event.clone(), event]).collect();
                }
                Fault::SwapEvents => {
                    swaps = true;
                    meddled.events = self.swap(meddled.events, now);
                }
                Fault::LoseEvents { count } => {
                    let lost = meddled.events.len().min(usize::try_from(count.saturating_sub(self.lost)).unwrap_or(0));
                    self.lost = self.lost.saturating_add(u32::try_from(lost).unwrap_or(u32::MAX));
                    meddled.gone = self.lost >= count;
                    meddled.events.clear();
                }
                Fault::Gone => {
                    meddled.gone = true;
                    meddled.events.clear();
                }
                Fault::EndAfter { count } => {
                    meddled.events.truncate(usize::try_from(count.saturating_sub(self.sent)).unwrap_or(usize::MAX));
                    let sent = u32::try_from(meddled.events.len()).unwrap_or(u32::MAX);
                    meddled.over = self.sent.saturating_add(sent) >= count;
                }
                Fault::Delay { .. }
                | Fault::Refuse { .. }
                | Fault::Hang
                | Fault::DropBefore
                | Fault::DropAfter
                | Fault::Cut { .. }
                | Fault::Away
                | Fault::BlackHole { .. }
                | Fault::Link { .. } => {}
            }
        }
        if !swaps && let Some((held, _)) = self.held.take() {
            meddled.events.insert(0, held);
        }
        self.sent = self.sent.saturating_add(u32::try_from(meddled.events.len()).unwrap_or(u32::MAX));
        meddled
    }

    /// Each two events in the wrong order.
    fn swap(&mut self, events: Vec<Told>, now: Instant) -> Vec<Told> {
        let mut out = Vec::new();
        for event in events {
            match self.held.take() {
                Some((earlier, _)) => out.extend([event, earlier]),
                None => self.held = Some((event, now)),
            }
        }
        if let Some((earlier, since)) = self.held.take() {
            if now >= since + SWAP {
                out.push(earlier);
            } else {
                self.held = Some((earlier, since));
            }
        }
        out
    }
}
