//! What the tests of controllers stand on: a store, made-up nodes, a time that the test sets.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::wanted::{Wanted, apply};
use super::world::World;
use super::{all, fake_kubelet};
use crate::object;
use crate::resource::{NAMESPACES, NODES, PODS, Resource, SERVICE_CIDRS};
use crate::store::{Key, Store};
use crate::strategy::{self, Deletion, Part};
use crate::time::Time;

/// More rounds than any test needs.
const ROUNDS: usize = 400;

pub struct Bed {
    pub store: Store,
    pub now: Time,
}

impl Bed {
    /// With a namespace `demo` and so many nodes that are ready.
    pub fn new(nodes: usize) -> Bed {
        let bed = Bed { store: Store::new(|| "2026-01-01T00:00:00Z".to_owned()), now: now() };
        bed.create(&NAMESPACES, "", "demo", json!({}));
        bed.create(&NAMESPACES, "", "default", json!({}));
        bed.create(&SERVICE_CIDRS, "", "kubernetes", json!({"spec": {"cidrs": ["10.43.0.0/16", "fd43::/112"]}}));
        for number in 1..=nodes {
            bed.node(&format!("node{number}"));
        }
        bed
    }

    pub fn node(&self, name: &str) {
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        self.create(&NODES, "", name, ready);
    }

    pub fn create(&self, resource: &'static Resource, namespace: &str, name: &str, object: Value) -> Arc<Value> {
        strategy::create(&self.store, &Key::new(resource, namespace, name), object).unwrap()
    }

    pub fn update(&self, resource: &'static Resource, name: &str, change: impl FnOnce(&mut Value)) {
        let key = Key::new(resource, if resource.namespaced { "demo" } else { "" }, name);
        strategy::update(&self.store, &key, None, Part::All, change).unwrap();
    }

    pub fn delete(&self, resource: &'static Resource, name: &str, how: &Deletion) {
        let key = Key::new(resource, if resource.namespaced { "demo" } else { "" }, name);
        strategy::delete(&self.store, &key, how, self.now).unwrap();
    }

    /// An object in `demo`, or of the cluster.
    pub fn get(&self, resource: &'static Resource, name: &str) -> Option<Arc<Value>> {
        self.store.get(&Key::new(resource, if resource.namespaced { "demo" } else { "" }, name))
    }

    pub fn list(&self, resource: &'static Resource) -> Vec<Arc<Value>> {
        self.store.list(resource, None).1
    }

    pub fn names(&self, resource: &'static Resource) -> Vec<String> {
        self.list(resource).iter().map(|object| object::name(object).to_owned()).collect()
    }

    /// Pods that neither ended nor are going.
    pub fn active(&self) -> usize {
        self.list(&PODS).iter().filter(|pod| super::pods::is_active(pod)).count()
    }

    /// Messages of events for a reason.
    pub fn events(&self, reason: &str) -> Vec<String> {
        let events = self.list(&crate::resource::EVENTS);
        events
            .iter()
            .filter(|event| event["reason"] == reason)
            .map(|event| object::text(event, "/message").to_owned())
            .collect()
    }

    /// One round of all controllers and a kubelet. Returns whether anything was wanted.
    pub fn round(&self, wanted: fn(&World, Time) -> Wanted) -> bool {
        let wanted = wanted(&World::read(&self.store), self.now);
        let any = !wanted.writes.is_empty();
        let refused = apply(&self.store, wanted.writes, self.now);
        assert!(refused.is_empty(), "{refused:?}");
        any
    }

    /// Rounds until nothing is wanted; `check` after each.
    pub fn settle_with(&self, wanted: fn(&World, Time) -> Wanted, mut check: impl FnMut(&Bed)) {
        for _ in 0..ROUNDS {
            if !self.round(wanted) {
                return;
            }
            check(self);
        }
        panic!("never true: {:#?}", wanted(&World::read(&self.store), self.now).writes);
    }

    /// Rounds of controllers and a fake kubelet until nothing is wanted.
    pub fn settle(&self) {
        self.settle_with(with_kubelet, |_| ());
    }

    pub fn pass(&mut self, seconds: u64) {
        self.now = self.now.after(Duration::from_secs(seconds));
    }

    /// When the controllers want to be asked again.
    pub fn again(&self) -> Option<Time> {
        all(&World::read(&self.store), self.now).again
    }
}

pub fn now() -> Time {
    Time::from_millis(1_800_000_000_000)
}

/// All controllers, and a kubelet that starts pods at once.
pub fn with_kubelet(world: &World, now: Time) -> Wanted {
    let mut wanted = all(world, now);
    fake_kubelet::wanted(world, now, &mut wanted);
    wanted
}

/// A workload of so many replicas whose pods have the label `app`.
pub fn workload(app: &str, replicas: u32) -> Value {
    json!({"spec": {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": app}},
        "template": {"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "main", "image": "x:1"}]}},
    }})
}
