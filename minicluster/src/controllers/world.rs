//! The objects as a controller sees them: all at one revision.

use std::sync::Arc;

use serde_json::Value;

use crate::object;
use crate::resource::Resource;
use crate::store::{Key, Objects, Store};

/// All objects at one revision.
#[derive(Clone, Debug)]
pub struct World {
    revision: u64,
    objects: Objects,
}

impl World {
    /// What is in the store now.
    pub fn read(store: &Store) -> World {
        let (revision, objects) = store.objects();
        World { revision, objects }
    }

    /// The revision.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// All objects.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// One object.
    pub fn get(&self, resource: &'static Resource, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        self.objects.get(&Key::new(resource, namespace, name))
    }

    /// All objects of a kind.
    pub fn list(&self, resource: &'static Resource) -> impl Iterator<Item = &Arc<Value>> {
        self.from(resource, "").map(|(_, object)| object)
    }

    /// All objects of a kind in a namespace.
    pub fn list_in(&self, resource: &'static Resource, namespace: &str) -> impl Iterator<Item = &Arc<Value>> {
        self.from(resource, namespace).take_while(move |(key, _)| key.namespace == namespace).map(|(_, object)| object)
    }

    /// Objects of a kind that an object controls.
    pub fn controlled(&self, resource: &'static Resource, owner: &Value) -> impl Iterator<Item = &Arc<Value>> {
        let uid = object::uid(owner);
        self.list_in(resource, object::namespace(owner)).filter(move |child| object::is_controlled_by(child, uid))
    }

    fn from(&self, resource: &'static Resource, namespace: &str) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        let first = Key::new(resource, namespace, "");
        self.objects.range(first..).take_while(move |(key, _)| key.resource == resource)
    }
}
