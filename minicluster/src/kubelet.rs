//! The kubelets of all nodes: make what pods say true, and say what is true of them.
//!
//! [`core`] decides; here the machine is told: network namespaces, sample servers on threads, agents as processes. All
//! nodes are one network namespace; each has addresses and a range of its own.

mod agent;
pub mod container;
pub mod core;
mod dial;
pub mod launch;
mod machine;
mod probe;
pub mod proxy;
pub mod status;

use std::future::pending;
use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::mpsc;

use self::core::{Core, Fact};
use self::machine::Machine;
use crate::api::{self, Boxed};
use crate::cluster::Runtime;
use crate::control::{Signal, Target};
use crate::controllers::wanted;
use crate::controllers::world::World;
use crate::net::NodeNet;
use crate::sandbox::Program;
use crate::store::Store;
use crate::time::Time;

/// Facts that wait to be read. What tells them waits when there are more.
const FACTS: usize = 256;

/// What kubelets need.
#[derive(Clone, Debug)]
pub struct Options {
    /// The objects.
    pub store: Store,
    /// The network.
    pub node: NodeNet,
    /// How the agent is started; a container's arguments follow.
    pub agent: Program,
    /// The time.
    pub clock: fn() -> Time,
}

/// The kubelets. A clone is another handle. They end, with their pods, when the future of [`Kubelet::new`] is dropped.
#[derive(Clone, Debug)]
pub struct Kubelet(Arc<Machine>);

impl Kubelet {
    /// Kubelets, and the future that is their work.
    pub fn new(options: Options) -> (Kubelet, impl Future<Output = ()> + Send) {
        let (tell, facts) = mpsc::channel(FACTS);
        let machine = Arc::new(Machine::new(options.node, options.agent, tell));
        let work = run(options.store, options.clock, Arc::clone(&machine), facts);
        (Kubelet(machine), work)
    }
}

impl Runtime for Kubelet {
    fn signal(&self, pod_uid: &str, target: Target, signal: Signal) -> io::Result<()> {
        self.0.signal(pod_uid, target, signal)
    }
}

impl api::Kubelet for Kubelet {
    fn dial<'a>(&'a self, pod_uid: &'a str, port: u16) -> Boxed<'a, io::Result<TcpStream>> {
        Box::pin(async move { dial::localhost(&self.0.namespace(pod_uid)?, pod_uid, port).await })
    }

    fn logs<'a>(&'a self, pod_uid: &'a str, container: &'a str) -> Boxed<'a, io::Result<Vec<u8>>> {
        Box::pin(async move { self.0.log(pod_uid, container) })
    }
}

async fn run(store: Store, clock: fn() -> Time, machine: Arc<Machine>, mut facts: mpsc::Receiver<Fact>) {
    let _end = EndWith(Arc::clone(&machine));
    let proxy = proxy::run(store.clone(), machine.node().clone(), machine.networks());
    let kubelet = async {
        let mut core = Core::default();
        let mut revisions = store.revisions();
        loop {
            while let Ok(fact) = facts.try_recv() {
                core.learn(fact, clock());
            }
            revisions.borrow_and_update();
            let now = clock();
            let outcome = core.look(&World::read(&store), now);
            for effect in outcome.effects {
                machine.apply(effect);
            }
            for (key, refusal) in wanted::apply(&store, outcome.wanted.writes, now) {
                tracing::debug!(?key, %refusal, "the cluster refuses what a kubelet writes");
            }
            let again = async {
                match outcome.wanted.again {
                    Some(at) => tokio::time::sleep(now.until(at)).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                fact = facts.recv() => match fact {
                    Some(fact) => core.learn(fact, clock()),
                    None => return,
                },
                changed = revisions.changed() => if changed.is_err() {
                    return;
                },
                () = again => {}
            }
        }
    };
    tokio::select! {
        () = kubelet => {}
        () = proxy => {}
    }
}

/// Ends all pods when the work ends, however it does.
struct EndWith(Arc<Machine>);

impl Drop for EndWith {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[cfg(test)]
mod tests;
