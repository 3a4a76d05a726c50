//! What is missing until a condition holds.

use serde_json::Value;

use crate::control::{Condition, Name};
use crate::controllers::conditions;
use crate::controllers::pods::{count, is_active, is_ready};
use crate::controllers::world::World;
use crate::manifests::SAMPLE_NAMESPACES;
use crate::object::{self, text};
use crate::resource::{DAEMON_SETS, DEPLOYMENTS, JOBS, PODS, REPLICA_SETS, Resource, STATEFUL_SETS};
use crate::store::Key;

/// What is missing, in words; `None` when it holds.
pub fn missing(condition: &Condition, world: &World) -> Option<String> {
    match condition {
        Condition::Ready { name } => match find(name, world) {
            Ok(Some(object)) => not_ready(&name.kind, object).map(|why| said(name, &why)),
            Ok(None) => Some(said(name, "not found")),
            Err(why) => Some(why),
        },
        Condition::Gone { name } => match find(name, world) {
            Ok(Some(_)) => Some(said(name, "is there")),
            Ok(None) => None,
            Err(why) => Some(why),
        },
        Condition::SamplesReady => samples(world),
    }
}

fn said(name: &Name, why: &str) -> String {
    format!("{} {}/{}: {why}", name.kind, name.namespace, name.name)
}

fn find<'a>(name: &Name, world: &'a World) -> Result<Option<&'a Value>, String> {
    let key = super::key(name).map_err(|error| error.to_string())?;
    Ok(world.objects().get(&key).map(|object| &**object))
}

/// All workloads of the samples' namespaces, and the pods that no workload has.
fn samples(world: &World) -> Option<String> {
    let kinds: [&'static Resource; 4] = [&DEPLOYMENTS, &STATEFUL_SETS, &DAEMON_SETS, &PODS];
    let all = SAMPLE_NAMESPACES.into_iter().flat_map(|namespace| kinds.map(|kind| (namespace, kind)));
    let mut missing = all.flat_map(|(namespace, kind)| {
        world.list_in(kind, namespace).filter_map(move |object| {
            let why =
                not_ready(kind.plural, object).filter(|_| kind != &PODS || object::controller(object).is_none())?;
            Some(format!("{} {namespace}/{}: {why}", kind.plural, object::name(object)))
        })
    });
    let there = Key::new(&DEPLOYMENTS, SAMPLE_NAMESPACES[0], "web");
    if world.objects().contains_key(&there) { missing.next() } else { Some("there are no samples".to_owned()) }
}

/// Why an object is not ready: what `kubectl rollout status` and `kubectl wait` look at.
fn not_ready(kind: &str, object: &Value) -> Option<String> {
    let status = |field: &str| count(object, &format!("/status/{field}"));
    let observed = status("observedGeneration") >= count(object, "/metadata/generation");
    let replicas = count(object, "/spec/replicas");
    let compare = |fields: &[&str], wanted: i64| {
        let wrong = fields.iter().find(|field| status(field) != wanted);
        wrong.map(|field| format!("{} {field} instead of {wanted}", status(field)))
    };
    let unobserved = (!observed).then(|| "its controller has not seen its newest form".to_owned());
    let counts = if kind == DEPLOYMENTS.plural {
        compare(&["updatedReplicas", "replicas", "availableReplicas"], replicas)
    } else if kind == STATEFUL_SETS.plural {
        let all = compare(&["updatedReplicas", "replicas", "readyReplicas", "availableReplicas"], replicas);
        let over = text(object, "/status/currentRevision") == text(object, "/status/updateRevision");
        all.or_else(|| (!over).then(|| "its rollout goes on".to_owned()))
    } else if kind == DAEMON_SETS.plural {
        compare(&["updatedNumberScheduled", "numberAvailable"], status("desiredNumberScheduled"))
    } else if kind == REPLICA_SETS.plural {
        compare(&["replicas", "availableReplicas"], replicas)
    } else if kind == PODS.plural {
        return (!is_ready(object) || !is_active(object)).then(|| "it is not ready".to_owned());
    } else if kind == JOBS.plural {
        return (!conditions::holds(object, "Complete")).then(|| "it is not complete".to_owned());
    } else {
        return None;
    };
    unobserved.or(counts)
}
