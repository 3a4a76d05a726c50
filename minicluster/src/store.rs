//! The objects of the cluster, their versions, and the history that watches read. No IO.
//!
//! Each change has a number, the cluster's revision, which is the object's `resourceVersion`. History is bounded:
//! whoever asks for what is older is told so, and lists anew (410 Gone of the Kubernetes API).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::resource::Resource;
use crate::time::Time;

/// Changes that are remembered.
const HISTORY: usize = 4096;

/// The name of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Kind.
    pub resource: &'static Resource,
    /// Namespace; empty for what lives in none.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// An object's name.
    pub fn new(resource: &'static Resource, namespace: impl Into<String>, name: impl Into<String>) -> Key {
        Key { resource, namespace: namespace.into(), name: name.into() }
    }
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// It differs.
    Modified,
    /// It is gone.
    Deleted,
}

/// One change.
#[derive(Clone, Debug)]
pub struct Event {
    /// The cluster's revision after it.
    pub revision: u64,
    /// Whose.
    pub key: Key,
    /// What.
    pub change: Change,
    /// The object after the change; its last state, with the revision of its end, where it is gone.
    pub object: Arc<Value>,
    /// The object before the change.
    pub previous: Option<Arc<Value>>,
}

/// The objects by their names.
pub type Objects = BTreeMap<Key, Arc<Value>>;

/// What becomes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays.
    Stays,
    /// It is removed.
    Goes,
}

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is one of that name.
    #[error("already exists")]
    AlreadyExists,
    /// There is none.
    #[error("not found")]
    NotFound,
    /// It was changed since the version that was named.
    #[error("the object has been modified; please apply your changes to the latest version and try again")]
    Conflict,
}

/// The revision that was asked for is older than the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} ({oldest})")]
pub struct Expired {
    /// What was asked for.
    pub asked: u64,
    /// The oldest that is known.
    pub oldest: u64,
}

/// The objects. A clone is another handle to the same ones.
#[derive(Clone, Debug)]
pub struct Store(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    revision: watch::Sender<u64>,
    /// Seconds since 1970, as RFC 3339.
    clock: fn() -> String,
}

#[derive(Debug)]
struct State {
    revision: u64,
    objects: Objects,
    history: VecDeque<Event>,
    /// The newest revision that is forgotten.
    compacted: u64,
    uids: u64,
}

impl Store {
    /// A store without objects. `clock` gives the time as RFC 3339.
    pub fn new(clock: fn() -> String) -> Store {
        let (revision, _) = watch::channel(1);
        let state = State { revision: 1, objects: BTreeMap::new(), history: VecDeque::new(), compacted: 0, uids: 0 };
        Store(Arc::new(Shared { state: Mutex::new(state), revision, clock }))
    }

    // A panic elsewhere while holding it cannot leave it half changed: changes are made in one step.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time, by the clock of the store.
    pub fn now(&self) -> Time {
        Time::parse(&(self.0.clock)()).unwrap_or_default()
    }

    /// The cluster's revision, latest wins. Whoever acts on objects reads them anew when it changes.
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.0.revision.subscribe()
    }

    /// One object.
    pub fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.state().objects.get(key).cloned()
    }

    /// All objects of a kind, of one namespace or of all, in the order of their names, and the revision they stand at.
    pub fn list(&self, resource: &'static Resource, namespace: Option<&str>) -> (u64, Vec<Arc<Value>>) {
        let state = self.state();
        let wanted = |key: &Key| key.resource == resource && namespace.is_none_or(|wanted| wanted == key.namespace);
        let objects = state.objects.iter().filter(|(key, _)| wanted(key)).map(|(_, object)| Arc::clone(object));
        (state.revision, objects.collect())
    }

    /// Changes of a kind after a revision, oldest first.
    pub fn since(&self, resource: &'static Resource, revision: u64) -> Result<Vec<Event>, Expired> {
        let state = self.state();
        if revision < state.compacted {
            return Err(Expired { asked: revision, oldest: state.compacted });
        }
        let newer = state.history.iter().rev().take_while(|event| event.revision > revision);
        let mut events: Vec<Event> = newer.filter(|event| event.key.resource == resource).cloned().collect();
        events.reverse();
        Ok(events)
    }

    /// Forgets all history, as a cluster does with what is old: watches that are behind end with [`Expired`].
    pub fn compact(&self) {
        let mut state = self.state();
        state.compacted = state.revision;
        state.history.clear();
    }

    /// All objects, and the revision they stand at.
    pub fn objects(&self) -> (u64, Objects) {
        let state = self.state();
        (state.revision, state.objects.clone())
    }

    /// Adds an object; gives it its UID, time and version.
    pub fn create(&self, key: &Key, object: Value) -> Result<Arc<Value>, StoreError> {
        self.create_with(key, |_, _| Ok(object))
    }

    /// Adds an object that depends on the others, or on its UID, all in one step; `make` may refuse.
    pub fn create_with<E: From<StoreError>>(
        &self,
        key: &Key,
        make: impl FnOnce(&Objects, &str) -> Result<Value, E>,
    ) -> Result<Arc<Value>, E> {
        let mut state = self.state();
        if state.objects.contains_key(key) {
            return Err(StoreError::AlreadyExists.into());
        }
        let uid = format!("00000000-0000-4000-8000-{:012x}", state.uids + 1);
        let mut object = make(&state.objects, &uid)?;
        state.uids += 1;
        if !object.is_object() {
            object = json!({});
        }
        object["apiVersion"] = json!(key.resource.api_version());
        object["kind"] = json!(key.resource.kind);
        if !object["metadata"].is_object() {
            object["metadata"] = json!({});
        }
        let metadata = &mut object["metadata"];
        metadata["name"] = json!(key.name);
        if key.resource.namespaced {
            metadata["namespace"] = json!(key.namespace);
        }
        metadata["uid"] = json!(uid);
        metadata["creationTimestamp"] = json!((self.0.clock)());
        Ok(self.commit(&mut state, key, Change::Added, object))
    }

    /// Changes an object in one step. Nothing happens, and no version passes, if `change` leaves it as it was.
    /// With `version`, only if that is the object's.
    pub fn update(
        &self,
        key: &Key,
        version: Option<&str>,
        change: impl FnOnce(&mut Value),
    ) -> Result<Arc<Value>, StoreError> {
        let changed = self.update_with(key, version, |object, _| {
            change(object);
            Ok::<_, StoreError>(Fate::Stays)
        });
        changed.map(|(object, _)| object)
    }

    /// Changes or removes an object in one step, which may depend on the others; `change` may refuse.
    pub fn update_with<E: From<StoreError>>(
        &self,
        key: &Key,
        version: Option<&str>,
        change: impl FnOnce(&mut Value, &Objects) -> Result<Fate, E>,
    ) -> Result<(Arc<Value>, Fate), E> {
        let mut state = self.state();
        let before = state.objects.get(key).cloned().ok_or(StoreError::NotFound)?;
        if version.is_some_and(|version| before["metadata"]["resourceVersion"] != version) {
            return Err(StoreError::Conflict.into());
        }
        let mut after = Value::clone(&before);
        let fate = change(&mut after, &state.objects)?;
        let object = match fate {
            Fate::Stays if after == *before => before,
            Fate::Stays => self.commit(&mut state, key, Change::Modified, after),
            Fate::Goes => self.commit(&mut state, key, Change::Deleted, after),
        };
        Ok((object, fate))
    }

    /// Removes an object at once.
    pub fn remove(&self, key: &Key) -> Result<Arc<Value>, StoreError> {
        let mut state = self.state();
        let last = state.objects.get(key).cloned().ok_or(StoreError::NotFound)?;
        Ok(self.commit(&mut state, key, Change::Deleted, Value::clone(&last)))
    }

    fn commit(&self, state: &mut State, key: &Key, change: Change, mut object: Value) -> Arc<Value> {
        state.revision += 1;
        object["metadata"]["resourceVersion"] = json!(state.revision.to_string());
        let object = Arc::new(object);
        let previous = match change {
            Change::Added | Change::Modified => state.objects.insert(key.clone(), Arc::clone(&object)),
            Change::Deleted => state.objects.remove(key),
        };
        let event = Event { revision: state.revision, key: key.clone(), change, object: Arc::clone(&object), previous };
        state.history.push_back(event);
        if state.history.len() > HISTORY {
            state.compacted = state.history.pop_front().map_or(state.compacted, |event| event.revision);
        }
        self.0.revision.send_replace(state.revision);
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{PODS, SERVICES};

    fn store() -> Store {
        Store::new(|| "2026-01-01T00:00:00Z".to_owned())
    }

    #[test]
    fn a_watch_sees_each_change_once_and_in_order() {
        let store = store();
        let key = Key::new(&PODS, "demo", "a");
        let (begin, none) = store.list(&PODS, None);
        assert!(none.is_empty());
        store.create(&key, json!({"spec": {"x": 1}})).unwrap();
        store.create(&Key::new(&SERVICES, "demo", "a"), json!({})).unwrap();
        store.update(&key, None, |pod| pod["spec"]["x"] = json!(2)).unwrap();
        store.update(&key, None, |_| ()).unwrap();
        store.remove(&key).unwrap();
        let events = store.since(&PODS, begin).unwrap();
        let seen: Vec<_> = events.iter().map(|event| (event.change, event.object["spec"]["x"].clone())).collect();
        assert_eq!(seen, [(Change::Added, json!(1)), (Change::Modified, json!(2)), (Change::Deleted, json!(2))]);
        assert!(store.since(&PODS, events[2].revision).unwrap().is_empty());
    }

    #[test]
    fn what_is_older_than_the_history_is_expired() {
        let store = store();
        let key = Key::new(&PODS, "demo", "a");
        store.create(&key, json!({})).unwrap();
        for n in 0..=HISTORY {
            store.update(&key, None, |pod| pod["spec"] = json!(n)).unwrap();
        }
        assert!(store.since(&PODS, 1).is_err());
        let (now, _) = store.list(&PODS, None);
        assert!(store.since(&PODS, now - 1).is_ok());
        store.compact();
        assert!(store.since(&PODS, now - 1).is_err());
        assert!(store.since(&PODS, now).is_ok());
    }

    #[test]
    fn an_update_of_an_old_version_conflicts() {
        let store = store();
        let key = Key::new(&PODS, "demo", "a");
        let first = store.create(&key, json!({})).unwrap();
        let version = first["metadata"]["resourceVersion"].as_str().unwrap();
        store.update(&key, Some(version), |pod| pod["spec"] = json!(1)).unwrap();
        assert_eq!(store.update(&key, Some(version), |pod| pod["spec"] = json!(2)), Err(StoreError::Conflict));
        assert_eq!(store.create(&key, json!({})), Err(StoreError::AlreadyExists));
    }
}
