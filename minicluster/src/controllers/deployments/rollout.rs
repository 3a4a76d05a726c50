//! How many replicas each ReplicaSet of a Deployment should have now. The steps of the real controller: first the new one
//! grows as far as `maxSurge` allows, then old ones shrink as far as `maxUnavailable` allows.

use std::sync::Arc;

use serde_json::Value;

use super::View;
use crate::controllers::pods::{self, Rounded, count, share};
use crate::controllers::wanted::Wanted;
use crate::controllers::world::World;
use crate::object::{says, text};
use crate::resource::PODS;
use crate::time::Time;

/// Replicas that should change.
pub struct Scale<'a> {
    /// Of the new ReplicaSet, if that should exist.
    pub new: Option<i64>,
    /// Of old ones.
    pub old: Vec<(&'a Arc<Value>, i64)>,
}

/// The next step.
pub fn scale<'a>(world: &World, view: &View<'a>, now: Time, wanted: &mut Wanted) -> Scale<'a> {
    let unchanged = Scale { new: view.new.map(|set| count(set, "/spec/replicas")), old: Vec::new() };
    if says(view.deployment, "/spec/paused") {
        return resized_while_paused(view, unchanged);
    }
    if text(view.deployment, "/spec/strategy/type") == "Recreate" {
        return recreate(world, view, unchanged);
    }
    let new = grown(view);
    if view.new.is_none_or(|set| count(set, "/spec/replicas") != new) {
        return Scale { new: Some(new), ..unchanged };
    }
    Scale { old: shrunk(world, view, now, wanted), ..unchanged }
}

/// `maxSurge` as a number; none when all pods are replaced at once.
pub fn max_surge(deployment: &Value) -> i64 {
    share(deployment.pointer("/spec/strategy/rollingUpdate/maxSurge"), replicas(deployment), Rounded::Up)
}

/// `maxUnavailable` as a number: at least one where nothing may surge.
pub fn max_unavailable(deployment: &Value) -> i64 {
    let replicas = replicas(deployment);
    let wanted = deployment.pointer("/spec/strategy/rollingUpdate/maxUnavailable");
    let most = share(wanted, replicas, Rounded::Down);
    let most = if most == 0 && max_surge(deployment) == 0 { 1 } else { most };
    if text(deployment, "/spec/strategy/type") == "RollingUpdate" { most.min(replicas) } else { 0 }
}

fn replicas(deployment: &Value) -> i64 {
    count(deployment, "/spec/replicas")
}

fn total(sets: &[&Arc<Value>]) -> i64 {
    sets.iter().map(|set| count(set, "/spec/replicas")).sum()
}

/// Paused: no rollout, but replicas follow where there is just one ReplicaSet to follow with.
fn resized_while_paused<'a>(view: &View<'a>, unchanged: Scale<'a>) -> Scale<'a> {
    let replicas = replicas(view.deployment);
    let used: Vec<_> = view.old.iter().filter(|set| count(set, "/spec/replicas") > 0).collect();
    match (view.new, used.as_slice()) {
        (Some(_), []) => Scale { new: Some(replicas), ..unchanged },
        (Some(new), [old]) if count(new, "/spec/replicas") == 0 => Scale { old: vec![(old, replicas)], ..unchanged },
        (None, [old]) => Scale { old: vec![(old, replicas)], ..unchanged },
        (Some(_) | None, _) => unchanged,
    }
}

/// Recreate: nothing new before all that is old is gone.
fn recreate<'a>(world: &World, view: &View<'a>, unchanged: Scale<'a>) -> Scale<'a> {
    let used = view.old.iter().filter(|set| count(set, "/spec/replicas") > 0);
    let old: Vec<_> = used.map(|set| (*set, 0)).collect();
    if !old.is_empty() {
        return Scale { old, ..unchanged };
    }
    let still_there = |set: &&Arc<Value>| world.controlled(&PODS, set).any(|pod| !pods::is_over(pod));
    if view.old.iter().any(still_there) {
        return unchanged;
    }
    Scale { new: Some(replicas(view.deployment)), ..unchanged }
}

/// How far the new one may grow; what it has too many goes at once.
fn grown(view: &View<'_>) -> i64 {
    let replicas = replicas(view.deployment);
    let now = view.new.map_or(0, |set| count(set, "/spec/replicas"));
    if now > replicas {
        return replicas;
    }
    let room = replicas + max_surge(view.deployment) - total(&view.old) - now;
    now + room.max(0).min(replicas - now)
}

/// How far the old ones may shrink: pods that do not serve first.
fn shrunk<'a>(world: &World, view: &View<'a>, now: Time, wanted: &mut Wanted) -> Vec<(&'a Arc<Value>, i64)> {
    let min_ready = count(view.deployment, "/spec/minReadySeconds");
    let mut available = |set: &Arc<Value>| {
        let serving = world.controlled(&PODS, set).filter(|pod| pods::is_active(pod));
        let serving = serving.filter(|pod| pods::is_available(pod, min_ready, now, wanted)).count();
        // Of what is given up already none counts.
        i64::try_from(serving).unwrap_or(i64::MAX).min(count(set, "/spec/replicas"))
    };
    let of_new = view.new.map_or(0, &mut available);
    let mut old: Vec<_> = view.old.iter().map(|set| (*set, count(set, "/spec/replicas"), available(set))).collect();
    let least = replicas(view.deployment) - max_unavailable(view.deployment);
    let new = view.new.map_or(0, |set| count(set, "/spec/replicas"));
    let mut may_go = total(&view.old) + new - least - (new - of_new);
    for (_, replicas, available) in &mut old {
        let idle = (*replicas - *available).min(may_go).max(0);
        *replicas -= idle;
        may_go -= idle;
    }
    let serving: i64 = of_new + old.iter().map(|(_, _, available)| available).sum::<i64>();
    let mut spare = (serving - least).max(0).min(may_go.max(0));
    for (_, replicas, available) in &mut old {
        let goes = (*available).min(*replicas).min(spare);
        *replicas -= goes;
        spare -= goes;
    }
    let changed = old.into_iter().filter(|(set, replicas, _)| count(set, "/spec/replicas") != *replicas);
    changed.map(|(set, replicas, _)| (set, replicas)).collect()
}
