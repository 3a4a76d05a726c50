//! What controllers want written.

use std::sync::Arc;

use serde_json::Value;

use crate::events::{self, Note};
use crate::object;
use crate::store::{Key, Store};
use crate::strategy::{self, Deletion, Part, Refusal};
use crate::time::Time;

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// A new object.
    Create {
        /// Its name.
        key: Key,
        /// It.
        object: Value,
    },
    /// An object in another form.
    Change {
        /// Its name.
        key: Key,
        /// The version that was looked at: a newer one is looked at anew.
        version: String,
        /// What it should be.
        object: Value,
    },
    /// No such object.
    Delete {
        /// Its name.
        key: Key,
        /// How; names the UID.
        how: Deletion,
    },
    /// Something to tell people.
    Event(Note),
}

/// What controllers want, and when they want to be asked again though nothing changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// The writes, in order.
    pub writes: Vec<Write>,
    /// The earliest moment.
    pub again: Option<Time>,
}

impl Wanted {
    /// Wants a new object.
    pub fn create(&mut self, key: Key, object: Value) {
        self.writes.push(Write::Create { key, object });
    }

    /// Wants an object changed; nothing if `change` leaves it as it is. Returns whether that differs.
    pub fn change(&mut self, object: &Arc<Value>, change: impl FnOnce(&mut Value)) -> bool {
        let mut after = Value::clone(object);
        change(&mut after);
        let Some(key) = object::key(object).filter(|_| after != **object) else { return false };
        let version = object::version(object).to_owned();
        self.writes.push(Write::Change { key, version, object: after });
        true
    }

    /// Wants an object deleted, unless it is going already.
    pub fn delete(&mut self, object: &Value, how: Deletion) {
        if !object::is_going(object) {
            self.delete_even_if_going(object, how);
        }
    }

    /// Wants an object deleted, though it may be going.
    pub fn delete_even_if_going(&mut self, object: &Value, how: Deletion) {
        let Some(key) = object::key(object) else { return };
        let how = Deletion { uid: Some(object::uid(object).to_owned()), ..how };
        self.writes.push(Write::Delete { key, how });
    }

    /// Wants people told, along with another write that ends the reason for it.
    pub fn note(&mut self, note: Note) {
        self.writes.push(Write::Event(note));
    }

    /// Wants to be asked again at that moment.
    pub fn again_at(&mut self, at: Time) {
        self.again = Some(self.again.map_or(at, |earlier| earlier.min(at)));
    }
}

/// Makes the writes. Those that rest on what is no longer so are left out: who wanted them will look again.
/// Returns those that were refused for another reason.
pub fn apply(store: &Store, writes: Vec<Write>, now: Time) -> Vec<(Key, Refusal)> {
    let mut refused = Vec::new();
    for write in writes {
        let (key, refusal) = match write {
            Write::Create { key, object } => {
                let made = strategy::create(store, &key, object).err();
                (key, made)
            }
            Write::Change { key, version, object } => {
                let made = strategy::update(store, &key, Some(&version), Part::All, |before| *before = object).err();
                (key, made)
            }
            Write::Delete { key, how } => {
                let made = strategy::delete(store, &key, &how, now).err();
                (key, made)
            }
            Write::Event(note) => {
                events::record(store, &note, now);
                continue;
            }
        };
        match refusal {
            None | Some(Refusal::Store(_)) => (),
            Some(refusal) => refused.push((key, refusal)),
        }
    }
    refused
}
