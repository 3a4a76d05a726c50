//! A container's thread: its life as that of a process.

use std::future::Future;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use crate::net::NetNs;

/// Exit code of what SIGKILL ended, as shells count.
pub const KILLED: i32 = 137;

/// A container that runs as a thread. Dropping the handle does not end it.
#[derive(Clone, Debug)]
pub struct Process(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Tells the runtime that the state differs.
    changed: Notify,
    /// Wakes the thread that stands still.
    go_on: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    /// SIGTERM came.
    terminated: bool,
    killed: bool,
}

/// With which a container says that it serves. Dropped without a word when it ends before.
#[derive(Debug)]
pub struct Started(oneshot::Sender<()>);

impl Started {
    /// Says so.
    pub fn tell(self) {
        // Who asked may be gone.
        self.0.send(()).ok();
    }
}

/// Why a container's thread ended other than by a signal.
type Main = Box<dyn FnOnce(Started) -> std::pin::Pin<Box<dyn Future<Output = i32>>> + Send>;

impl Process {
    /// Starts `main` on a thread in `namespace`, with a runtime of its own: the sockets it makes are the pod's.
    ///
    /// The first receiver resolves when it serves, the second with its exit code.
    pub fn start<F, T>(
        name: &str,
        namespace: &NetNs,
        main: F,
    ) -> io::Result<(Process, oneshot::Receiver<()>, oneshot::Receiver<i32>)>
    where
        F: FnOnce(Started) -> T + Send + 'static,
        T: Future<Output = i32> + 'static,
    {
        let process = Process(Arc::default());
        let ((started_tx, started), (ended_tx, ended)) = (oneshot::channel(), oneshot::channel());
        let (shared, namespace) = (Arc::clone(&process.0), namespace.clone());
        let main: Main = Box::new(|started| Box::pin(main(started)));
        // Names of threads are cut at 15 bytes by the kernel.
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let code = run(&shared, &namespace, main, Started(started_tx)).unwrap_or(1);
            ended_tx.send(code).ok();
        })?;
        Ok((process, started, ended))
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.state());
        self.0.changed.notify_one();
        self.0.go_on.notify_all();
    }

    /// As SIGKILL: all its sockets close.
    pub fn kill(&self) {
        self.change(|state| state.killed = true);
    }

    /// As SIGTERM, which these containers obey at once, though not while they are stopped.
    pub fn terminate(&self) {
        self.change(|state| state.terminated = true);
    }

    /// As SIGSTOP: it stands still.
    pub fn stop(&self) {
        self.change(|state| state.stopped = true);
    }

    /// As SIGCONT.
    pub fn go_on(&self) {
        self.change(|state| state.stopped = false);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stands still as long as it is stopped; the exit code if it has to end.
    fn obey(&self) -> Option<i32> {
        let mut state = self.state();
        while state.stopped && !state.killed {
            // Blocks all tasks of this container, which is the point.
            state = self.go_on.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.killed { Some(KILLED) } else { state.terminated.then_some(0) }
    }
}

fn run(shared: &Shared, namespace: &NetNs, main: Main, started: Started) -> io::Result<i32> {
    namespace.enter()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(async {
        let mut main = main(started);
        loop {
            tokio::select! {
                biased;
                () = shared.changed.notified() => if let Some(code) = shared.obey() {
                    return code;
                },
                code = &mut main => return code,
            }
        }
    });
    // Nothing of it may block: it ends at once, as a process would.
    runtime.shutdown_background();
    Ok(code)
}
