//! Network namespaces, which live as long as something in them or a handle does.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace. A clone is another handle to the same one; it goes when all handles, sockets and threads in it
/// are gone.
#[derive(Clone, Debug)]
pub struct NetNs(Arc<File>);

impl NetNs {
    /// One that the kernel shows as a file.
    pub fn open(path: impl AsRef<Path>) -> io::Result<NetNs> {
        Ok(NetNs(Arc::new(File::open(path)?)))
    }

    /// That of the calling thread.
    pub fn current() -> io::Result<NetNs> {
        NetNs::open("/proc/thread-self/ns/net")
    }

    /// Moves the calling thread into a new one, with loopback down. What the thread starts is in it too.
    pub fn unshare() -> io::Result<NetNs> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        NetNs::current()
    }

    /// A new one.
    pub fn create() -> io::Result<NetNs> {
        on_a_thread(NetNs::unshare)?
    }

    /// Moves the calling thread into it.
    pub fn enter(&self) -> io::Result<()> {
        Ok(setns(&*self.0, CloneFlags::CLONE_NEWNET)?)
    }

    /// Runs `work` in it, on a thread of its own. Sockets made there stay there. Blocks: for short work.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        on_a_thread(|| self.enter().and_then(|()| work()))?
    }

    /// The open file, for the kernel.
    pub(super) fn file(&self) -> &File {
        &self.0
    }
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, work)?;
        thread.join().map_err(|_| io::Error::other("a thread in a network namespace panicked"))
    })
}
