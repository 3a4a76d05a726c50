//! Namespaces that are to go: all that is in them goes first.

use std::sync::Arc;

use serde_json::{Value, json};

use super::conditions::{self, Condition};
use super::wanted::Wanted;
use super::world::World;
use crate::object;
use crate::resource::{EVENTS, NAMESPACES};
use crate::strategy::{Deletion, Propagation};
use crate::time::Time;

/// What is wanted of namespaces.
pub fn wanted(world: &World, now: Time, wanted: &mut Wanted) {
    for namespace in world.list(&NAMESPACES).filter(|namespace| object::is_going(namespace)) {
        empty(world, namespace, now, wanted);
    }
}

fn empty(world: &World, namespace: &Arc<Value>, now: Time, wanted: &mut Wanted) {
    let name = object::name(namespace);
    let mut left: Vec<String> = Vec::new();
    for (key, object) in world.objects().iter().filter(|(key, _)| key.namespace == name) {
        let background = Deletion { propagation: Some(Propagation::Background), ..Deletion::default() };
        wanted.delete(object, background);
        if key.resource != &EVENTS {
            left.push(key.resource.plural.to_owned());
        }
    }
    let rest = world.objects().keys().any(|key| key.namespace == name);
    left.dedup();
    wanted.change(namespace, |namespace| {
        let message = format!("Some resources are remaining: {}", left.join(", "));
        let (reason, message) = if left.is_empty() {
            ("ContentRemoved", "All content successfully removed")
        } else {
            ("SomeResourcesRemain", &*message)
        };
        let condition = Condition { kind: "NamespaceContentRemaining", holds: !left.is_empty(), reason, message };
        conditions::set(namespace, condition, None, now);
        if !rest {
            namespace["spec"]["finalizers"] = json!([]);
        }
    });
}

#[cfg(test)]
mod tests;
