//! What controllers ask of pods, and how they make them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::conditions;
use super::wanted::Wanted;
use super::world::World;
use crate::names;
use crate::object::{self, text};
use crate::resource::PODS;
use crate::selector;
use crate::store::Key;
use crate::strategy;
use crate::time::Time;

/// Whether it ended.
pub fn is_over(pod: &Value) -> bool {
    ["Succeeded", "Failed"].contains(&text(pod, "/status/phase"))
}

/// Whether it counts as one of those that its controller wants: neither ended nor going.
pub fn is_active(pod: &Value) -> bool {
    !is_over(pod) && !object::is_going(pod)
}

/// Whether it serves.
pub fn is_ready(pod: &Value) -> bool {
    conditions::holds(pod, "Ready")
}

/// Whether it has been ready for that long; asks to be asked again when it will have been.
pub fn is_available(pod: &Value, min_ready_seconds: i64, now: Time, wanted: &mut Wanted) -> bool {
    if !is_ready(pod) {
        return false;
    }
    let Ok(seconds @ 1..) = u64::try_from(min_ready_seconds) else { return true };
    let since = conditions::find(pod, "Ready").and_then(|ready| Time::parse(text(ready, "/lastTransitionTime")));
    let Some(since) = since else { return false };
    let at = since.after(Duration::from_secs(seconds));
    if at > now {
        wanted.again_at(at);
    }
    at <= now
}

/// The pods that a workload has: those it controls and its selector matches. It takes those that nobody controls, and
/// leaves those that its selector no longer matches.
pub fn claim<'a>(world: &'a World, owner: &Value, wanted: &mut Wanted) -> Vec<&'a Arc<Value>> {
    let mut own = Vec::new();
    let uid = object::uid(owner);
    for pod in world.list_in(&PODS, object::namespace(owner)) {
        let matches = selector::matches(&owner["spec"]["selector"], &object::labels(pod));
        match object::controller(pod) {
            Some(reference) if text(reference, "/uid") == uid => {
                if matches || object::is_going(owner) {
                    own.push(pod);
                } else {
                    wanted.change(pod, |pod| {
                        object::items(pod, "/metadata/ownerReferences").retain(|owner| text(owner, "/uid") != uid);
                    });
                }
            }
            None if matches && !object::is_going(owner) && is_active(pod) => {
                wanted.change(pod, |pod| {
                    object::items(pod, "/metadata/ownerReferences").push(object::controller_reference(owner));
                });
            }
            Some(_) | None => (),
        }
    }
    own
}

/// A pod of a workload's template.
pub fn of_template(owner: &Value, name: &str) -> (Key, Value) {
    let template = &owner["spec"]["template"];
    let mut metadata = Map::new();
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template.pointer("/metadata").and_then(|metadata| metadata.get(field)) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    metadata.insert("ownerReferences".to_owned(), json!([object::controller_reference(owner)]));
    let pod = json!({"metadata": metadata, "spec": template["spec"]});
    (Key::new(&PODS, object::namespace(owner), name), pod)
}

/// A pod of a workload's template whose name nobody has: the `index`th that is made of this world.
pub fn of_template_with_suffix(world: &World, owner: &Value, index: usize) -> (Key, Value) {
    let prefix = format!("{}-", object::name(owner));
    let seed = [object::uid(owner), &world.revision().to_string(), &index.to_string()];
    let name = format!("{prefix}{}", names::suffix(&seed));
    let (key, mut pod) = of_template(owner, &name);
    pod["metadata"]["generateName"] = json!(prefix);
    (key, pod)
}

/// Why a workload's pod is refused, if so; in the same words as long as the reason is the same, whatever the name would be.
pub fn refusal(world: &World, owner: &Value, pod: &Value) -> Option<String> {
    let name = format!("{}-{}", object::name(owner), names::suffix(&[object::uid(owner)]));
    let key = Key::new(&PODS, object::namespace(owner), name);
    strategy::admit(&key, pod, world.objects()).err().map(|refusal| refusal.to_string())
}

/// In the order in which they are given up: what serves least goes first, then the newest.
pub fn by_worth(pods: &mut [&Arc<Value>]) {
    pods.sort_by_cached_key(|pod| {
        let deletion_cost = object::annotation(pod, "controller.kubernetes.io/pod-deletion-cost");
        (
            !text(pod, "/spec/nodeName").is_empty(),
            text(pod, "/status/phase") == "Running",
            is_ready(pod),
            deletion_cost.and_then(|cost| cost.parse::<i64>().ok()).unwrap_or(0),
            std::cmp::Reverse(created(pod)),
            object::name(pod).to_owned(),
        )
    });
}

fn created(pod: &Value) -> String {
    text(pod, "/metadata/creationTimestamp").to_owned()
}

/// A count of a spec or status.
pub fn count(object: &Value, path: &str) -> i64 {
    object::number(object, path).unwrap_or(0)
}

/// A status of counts, where zero counts are left out except for some.
pub fn counts(fields: &[(&str, i64)], always: &[&str]) -> Map<String, Value> {
    let kept = fields.iter().filter(|(name, number)| *number != 0 || always.contains(name));
    kept.map(|(name, number)| ((*name).to_owned(), json!(number))).collect()
}

/// A number that is given as itself or as a share of a total, as in `maxSurge`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounded {
    /// Up.
    Up,
    /// Down.
    Down,
}

/// Such a number.
pub fn share(value: Option<&Value>, total: i64, rounded: Rounded) -> i64 {
    let Some(value) = value else { return 0 };
    if let Some(number) = value.as_i64() {
        return number.max(0);
    }
    let percent = value.as_str().and_then(|text| text.strip_suffix('%')?.parse::<i64>().ok()).unwrap_or(0);
    let hundredths = percent.clamp(0, 10_000).saturating_mul(total.max(0));
    match rounded {
        Rounded::Up => hundredths.saturating_add(99) / 100,
        Rounded::Down => hundredths / 100,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_as_asked() {
        for (value, total, up, down) in [
            (json!("25%"), 2, 1, 0),
            (json!("25%"), 4, 1, 1),
            (json!("0%"), 4, 0, 0),
            (json!("100%"), 3, 3, 3),
            (json!(2), 1, 2, 2),
            (json!("x"), 9, 0, 0),
        ] {
            assert_eq!(share(Some(&value), total, Rounded::Up), up, "{value}");
            assert_eq!(share(Some(&value), total, Rounded::Down), down, "{value}");
        }
    }
}
