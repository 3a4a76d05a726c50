//! Garbage collection: what an object owns goes after it, before it, or not, as its deletion says.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::wanted::Wanted;
use super::world::World;
use crate::object::{self, items, list, says, text};
use crate::strategy::{Deletion, Propagation};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// What the collector wants.
pub fn wanted(world: &World, wanted: &mut Wanted) {
    let mut dependents: BTreeMap<&str, Vec<&Arc<Value>>> = BTreeMap::new();
    for object in world.objects().values() {
        let owners = list(object, "/metadata/ownerReferences");
        for owner in owners {
            dependents.entry(text(owner, "/uid")).or_default().push(object);
        }
        if !owners.is_empty() {
            follow(world, object, owners, wanted);
        }
    }
    for owner in world.objects().values().filter(|object| object::is_going(object)) {
        let own = dependents.get(object::uid(owner)).map_or(&[][..], Vec::as_slice);
        if object::has_finalizer(owner, ORPHAN) {
            orphan(owner, own, wanted);
        } else if object::has_finalizer(owner, FOREGROUND) {
            foreground(owner, own, wanted);
        }
    }
}

/// The owner that a reference means, if it is there.
fn owner<'a>(world: &'a World, object: &Value, reference: &Value) -> Option<&'a Arc<Value>> {
    let resource = object::kind(text(reference, "/apiVersion"), text(reference, "/kind"))?;
    let namespace = if resource.namespaced { object::namespace(object) } else { "" };
    let owner = world.get(resource, namespace, text(reference, "/name"))?;
    (object::uid(owner) == text(reference, "/uid")).then_some(owner)
}

/// Deletes an object whose owners are all gone, or all going in the foreground; strikes out those that are gone if others
/// stay.
fn follow(world: &World, object: &Arc<Value>, owners: &[Value], wanted: &mut Wanted) {
    let found: Vec<_> = owners.iter().map(|reference| (reference, owner(world, object, reference))).collect();
    let stays = |owner: &Value| !(object::is_going(owner) && object::has_finalizer(owner, FOREGROUND));
    if found.iter().any(|(_, owner)| owner.is_some_and(|owner| stays(owner))) {
        let gone: Vec<_> =
            found.iter().filter(|(_, owner)| owner.is_none()).map(|(reference, _)| text(reference, "/uid")).collect();
        if !gone.is_empty() {
            wanted.change(object, |object| {
                items(object, "/metadata/ownerReferences").retain(|reference| !gone.contains(&text(reference, "/uid")));
            });
        }
        return;
    }
    let foreground = found.iter().any(|(_, owner)| owner.is_some());
    let propagation = if foreground { Propagation::Foreground } else { Propagation::Background };
    wanted.delete(object, Deletion { propagation: Some(propagation), ..Deletion::default() });
}

/// Lets go of an owner when all that blocks it is gone.
fn foreground(owner: &Arc<Value>, own: &[&Arc<Value>], wanted: &mut Wanted) {
    let uid = object::uid(owner);
    let blocks = |object: &Value| {
        let references = list(object, "/metadata/ownerReferences").iter();
        references.filter(|reference| text(reference, "/uid") == uid).any(|own| says(own, "/blockOwnerDeletion"))
    };
    if !own.iter().any(|object| blocks(object)) {
        let_go(owner, FOREGROUND, wanted);
    }
}

/// Strikes the owner out of what it owns, then lets go of it.
fn orphan(owner: &Arc<Value>, own: &[&Arc<Value>], wanted: &mut Wanted) {
    for object in own {
        wanted.change(object, |object| {
            let references = items(object, "/metadata/ownerReferences");
            references.retain(|reference| text(reference, "/uid") != object::uid(owner));
        });
    }
    if own.is_empty() {
        let_go(owner, ORPHAN, wanted);
    }
}

fn let_go(owner: &Arc<Value>, finalizer: &str, wanted: &mut Wanted) {
    wanted.change(owner, |owner| items(owner, "/metadata/finalizers").retain(|held| held != finalizer));
}

#[cfg(test)]
mod tests;
