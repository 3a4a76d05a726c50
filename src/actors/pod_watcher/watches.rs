//! The task of one watch: list in pages, follow, and report; it decides nothing but where to go on.
//!
//! Its own loop and not kube-runtime's `watcher`: that one says nothing when a broken watch is up again without an
//! event, and asks for objects with all their metadata.
#![expect(clippy::disallowed_methods, reason = "part of the shell: measures how long a watch lasted")]

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Request;
use serde::Deserialize;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::decode::{Names, Object};
use super::facts::{Event, Kind, Trouble, WatchId};
use crate::error::chain;
use crate::net::obstacle::Obstacle;

/// Objects of one page: the usual size, a few MiB of JSON.
const PAGE: u32 = 500;
/// How often a list is begun that is forgotten while it is read, before there is a pause.
const LISTS: usize = 2;
/// Length of one watch request in seconds. A dead connection is noticed after it and [`MARGIN`].
const WATCH_SECONDS: u32 = 30;
/// What a server may take beyond [`WATCH_SECONDS`] to end a watch.
const MARGIN: Duration = Duration::from_secs(5);
/// Limit for a page of a list.
const LIST_LIMIT: Duration = Duration::from_secs(30);
/// Limit for a watch's answer to begin.
const WATCH_LIMIT: Duration = Duration::from_secs(10);
/// A watch that ends sooner than this did not do its work: going on at once would be a busy loop.
const TOO_SHORT: Duration = Duration::from_secs(1);
/// Events that travel in one message.
const BATCH: usize = 512;
/// Messages that the actor has not handled yet; the watch is not read beyond.
const UNACKNOWLEDGED: usize = 4;

/// What the task tells.
pub enum Report {
    /// Events; the permit is to be dropped when they were handled.
    Events(Vec<Event>, OwnedSemaphorePermit),
    /// It failed and waits to be resumed.
    Failed(Trouble),
}

/// Runs a watch until its task is aborted.
pub async fn run(client: kube::Client, id: WatchId, resume: Arc<Notify>, tell: impl Fn(Report) + Send + Sync) {
    let mut feed = Feed {
        client,
        path: path(&id),
        kind: id.kind,
        tell,
        room: Arc::new(Semaphore::new(UNACKNOWLEDGED)),
        names: Names::default(),
    };
    let mut version = None;
    loop {
        let step = match version.take() {
            None => feed.list().await.map(Some),
            Some(at) => feed.follow(at).await.map_err(|(trouble, at)| {
                version = Some(at);
                trouble
            }),
        };
        match step {
            Ok(at) => version = at,
            Err(trouble) => {
                (feed.tell)(Report::Failed(trouble));
                resume.notified().await;
            }
        }
    }
}

fn path(id: &WatchId) -> String {
    let (group, plural) = (id.kind.group_path(), id.kind.plural());
    match &id.namespace {
        Some(namespace) => format!("{group}/namespaces/{namespace}/{plural}"),
        None => format!("{group}/{plural}"),
    }
}

struct Feed<F> {
    client: kube::Client,
    path: String,
    kind: Kind,
    tell: F,
    room: Arc<Semaphore>,
    names: Names,
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: PageMeta,
    items: Option<Vec<Object>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PageMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    more: Option<String>,
}

impl<F: Fn(Report) + Send + Sync> Feed<F> {
    /// Lists everything; returns where to go on.
    async fn list(&mut self) -> Result<String, Trouble> {
        for _ in 0..LISTS {
            if let Some(version) = self.pages().await? {
                return Ok(version);
            }
        }
        Err(Trouble::Down("the API server forgets a list while it is read".into()))
    }

    /// Lists everything, page after page; returns where to go on. `None` when the API server has forgotten the rest (410):
    /// pages are all of one moment, and it keeps some minutes.
    async fn pages(&mut self) -> Result<Option<String>, Trouble> {
        self.names.shrink();
        self.send(vec![Event::Init]).await;
        let mut more = None;
        loop {
            let goes_on = more.is_some();
            let params = ListParams { limit: Some(PAGE), continue_token: more, ..self.params() };
            let request = Request::new(&self.path).list(&params).map_err(|e| Trouble::Down(chain(&e)))?;
            let text = timeout(LIST_LIMIT, self.client.request_text(request)).await.map_err(|_| late("list"))?;
            let text = match text {
                Err(kube::Error::Api(status)) if goes_on && status.code == 410 => return Ok(None),
                text => text.map_err(|e| trouble(&e))?,
            };
            let page: Page = serde_json::from_str(&text).map_err(|e| Trouble::Down(e.to_string()))?;
            drop(text);
            let mut events: Vec<Event> = Vec::with_capacity(PAGE as usize + 1);
            for object in page.items.into_iter().flatten() {
                if let (key, Some(fact)) = object.entry(self.kind, &mut self.names) {
                    events.push(Event::InitApply(key, fact));
                }
            }
            more = page.metadata.more.filter(|token| !token.is_empty());
            if more.is_none() {
                events.push(Event::InitDone);
            }
            self.send(events).await;
            if more.is_none() {
                return Ok(Some(page.metadata.resource_version));
            }
        }
    }

    /// Follows changes from `at` until the watch ends; `None` means that a new list is due.
    async fn follow(&mut self, at: String) -> Result<Option<String>, (Trouble, String)> {
        let begun = Instant::now();
        let params = WatchParams {
            timeout: Some(WATCH_SECONDS),
            bookmarks: true,
            label_selector: self.params().label_selector,
            ..WatchParams::default()
        };
        let request = match Request::new(&self.path).watch(&params, &at) {
            Ok(request) => request,
            Err(error) => return Err((Trouble::Down(Obstacle::of(&error).words()), at)),
        };
        let stream = match timeout(WATCH_LIMIT, self.client.request_events::<Object>(request)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(kube::Error::Api(status))) if status.code == 410 => return Ok(None),
            Ok(Err(error)) => return Err((trouble(&error), at)),
            Err(_) => return Err((late("watch"), at)),
        };
        self.send(vec![Event::Alive]).await;
        let limit = Duration::from_secs(u64::from(WATCH_SECONDS)) + MARGIN;
        let mut stream = std::pin::pin!(stream.ready_chunks(BATCH));
        let mut at = at;
        let mut quiet = true;
        loop {
            let items = match timeout(limit, stream.next()).await {
                Ok(Some(items)) => items,
                Ok(None) if quiet && begun.elapsed() < TOO_SHORT => {
                    return Err((Trouble::Down("the API server ended the watch at once".into()), at));
                }
                Ok(None) => return Ok(Some(at)),
                Err(_) => return Err((Trouble::Down("the API server went silent".into()), at)),
            };
            quiet = false;
            let mut events = Vec::with_capacity(items.len());
            let mut end = None;
            for item in items {
                match self.item(item, &mut at, &mut events) {
                    Ok(()) => {}
                    Err(how) => {
                        end = Some(how);
                        break;
                    }
                }
            }
            if !events.is_empty() {
                self.send(events).await;
            }
            match end {
                Some(End::Relist) => return Ok(None),
                Some(End::Trouble(trouble)) => return Err((trouble, at)),
                None => {}
            }
        }
    }

    fn item(
        &mut self,
        item: Result<WatchEvent<Object>, kube::Error>,
        at: &mut String,
        events: &mut Vec<Event>,
    ) -> Result<(), End> {
        let mut seen = |object: &Object| {
            if !object.metadata.resource_version.is_empty() {
                at.clone_from(&object.metadata.resource_version);
            }
        };
        match item {
            Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                seen(&object);
                events.push(match object.entry(self.kind, &mut self.names) {
                    (key, Some(fact)) => Event::Apply(key, fact),
                    (key, None) => Event::Delete(key),
                });
            }
            Ok(WatchEvent::Deleted(object)) => {
                seen(&object);
                events.push(Event::Delete(object.key(&mut self.names)));
            }
            Ok(WatchEvent::Bookmark(bookmark)) => *at = bookmark.metadata.resource_version,
            Ok(WatchEvent::Error(status)) if status.code == 410 => return Err(End::Relist),
            Ok(WatchEvent::Error(status)) => return Err(End::Trouble(by_code(status.code, status.message))),
            Err(kube::Error::Api(status)) if status.code == 410 => return Err(End::Relist),
            Err(error) => return Err(End::Trouble(trouble(&error))),
        }
        Ok(())
    }

    fn params(&self) -> ListParams {
        match self.kind {
            Kind::Slices => ListParams::default().labels("kubernetes.io/service-name"),
            Kind::Pods | Kind::Services | Kind::Nodes | Kind::ServiceCidrs | Kind::Namespaces => ListParams::default(),
        }
    }

    async fn send(&self, events: Vec<Event>) {
        if let Ok(permit) = Arc::clone(&self.room).acquire_owned().await {
            (self.tell)(Report::Events(events, permit));
        }
    }
}

enum End {
    Relist,
    Trouble(Trouble),
}

fn late(what: &str) -> Trouble {
    Trouble::Down(format!("no answer to a {what} in time"))
}

fn trouble(error: &kube::Error) -> Trouble {
    if let kube::Error::Api(status) = error {
        return by_code(status.code, status.message.clone());
    }
    Trouble::Down(Obstacle::of(error).words())
}

fn by_code(code: u16, message: String) -> Trouble {
    match code {
        401 => Trouble::Unauthorized(message),
        403 => Trouble::Forbidden(message),
        404 => Trouble::Unknown(message),
        _ => Trouble::Down(message),
    }
}

#[cfg(test)]
mod tests;
