//! Controllers: what makes objects true. Each is a pure function from the objects, all at one revision, to the writes that
//! bring the cluster nearer to what they say; nothing is wanted once they are true. [`run`] is the shell: it asks all of
//! them again after each change, and when a deadline of theirs comes.

pub mod conditions;
mod daemon_sets;
mod deployments;
mod endpoint_slices;
pub mod fake_kubelet;
mod garbage;
mod jobs;
mod namespaces;
mod nodes;
pub mod pods;
mod replica_sets;
pub mod scheduler;
mod stateful_sets;
pub mod wanted;
pub mod world;

use std::future::pending;

use self::wanted::Wanted;
use self::world::World;
use crate::store::Store;
use crate::time::Time;

/// What all controllers want.
pub fn all(world: &World, now: Time) -> Wanted {
    let mut wanted = Wanted::default();
    deployments::wanted(world, now, &mut wanted);
    replica_sets::wanted(world, now, &mut wanted);
    stateful_sets::wanted(world, now, &mut wanted);
    daemon_sets::wanted(world, now, &mut wanted);
    jobs::wanted(world, now, &mut wanted);
    scheduler::wanted(world, now, &mut wanted);
    nodes::wanted(world, now, &mut wanted);
    endpoint_slices::wanted(world, now, &mut wanted);
    garbage::wanted(world, &mut wanted);
    namespaces::wanted(world, now, &mut wanted);
    wanted
}

/// Runs controllers on the store until it is dropped; `all` is [`all`], or that and more. Cancel safe.
pub async fn run(store: Store, clock: fn() -> Time, all: fn(&World, Time) -> Wanted) {
    let mut revisions = store.revisions();
    loop {
        revisions.borrow_and_update();
        let now = clock();
        let wanted = all(&World::read(&store), now);
        for (key, refusal) in wanted::apply(&store, wanted.writes, now) {
            tracing::debug!(?key, %refusal, "the cluster refuses what a controller wants");
        }
        let again = async {
            match wanted.again {
                Some(at) => tokio::time::sleep(now.until(at)).await,
                None => pending().await,
            }
        };
        tokio::select! {
            changed = revisions.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = again => (),
        }
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
