//! Another host: a thread in a network namespace of its own, which does what it is told there.

use std::sync::mpsc;
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, unshare};

use super::real::ip;

type Task = Box<dyn FnOnce() + Send>;

pub(crate) struct Elsewhere {
    tasks: Option<mpsc::Sender<Task>>,
    thread: Option<JoinHandle<()>>,
    /// By which devices can be given to its namespace.
    id: i32,
}

impl Elsewhere {
    pub(crate) fn new() -> Elsewhere {
        let (tasks, given) = mpsc::channel::<Task>();
        let (id_tx, id) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ip("link set lo up");
            id_tx.send(nix::unistd::gettid().as_raw()).unwrap();
            given.into_iter().for_each(|task| task());
        });
        Elsewhere { tasks: Some(tasks), thread: Some(thread), id: id.recv().unwrap() }
    }

    /// Joins it to the namespace of whoever calls by a wire: `here` and `there` are the ends' names.
    pub(crate) fn joined(self, here: &str, there: &str) -> Elsewhere {
        ip(&format!("link add {here} type veth peer name {there} netns {}", self.id));
        self
    }

    /// Joins it to another one in the same way.
    pub(crate) fn joins(&self, here: &str, other: &Elsewhere, there: &str) {
        let command = format!("link add {here} type veth peer name {there} netns {}", other.id);
        self.does(move || ip(&command));
    }

    /// Lets it pass on what is for others.
    pub(crate) fn routes(&self) {
        self.does(routes);
    }

    /// Does it there, and returns what came of it.
    pub(crate) fn does<T: Send + 'static>(&self, task: impl FnOnce() -> T + Send + 'static) -> T {
        let (done_tx, done) = mpsc::channel();
        let task = Box::new(move || drop(done_tx.send(task())));
        self.tasks.as_ref().unwrap().send(task).unwrap();
        done.recv().expect("it was done there")
    }

    /// Runs these `ip` commands there.
    pub(crate) fn ip(&self, commands: &'static [&'static str]) {
        self.does(|| commands.iter().for_each(|command| ip(command)));
    }
}

/// Lets the host of whoever calls pass on what is for others.
pub(crate) fn routes() {
    for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/net/{setting}"), "1").unwrap();
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        self.tasks.take();
        // A panic there was told here already.
        drop(self.thread.take().map(JoinHandle::join));
    }
}
