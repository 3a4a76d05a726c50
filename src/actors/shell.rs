//! What every shell shares: driving a core, monitored start, tasks that always report back, replies.
#![expect(clippy::disallowed_methods, reason = "shells read the clock, spawn and touch actix; cores do not")]

use std::collections::VecDeque;
use std::fmt::Debug;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::{Actor, ActorContext as _, AsyncContext as _, Context, SpawnHandle};
use ring::rand::SecureRandom as _;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use tracing::{Instrument as _, Span};

use crate::actors::{falls, late};
use crate::ids::Millis;

/// A pure machine: inputs and a time in, effects out.
pub trait Core {
    /// What goes in.
    type Input: Debug;
    /// What it asks the shell to do.
    type Effect;

    /// Stores the fact and recomputes what should be true. Never fails, never blocks.
    fn handle(&mut self, now: Millis, input: Self::Input);
    /// The next effect; the shell drains to `None` after every `handle`.
    fn poll_effect(&mut self) -> Option<Self::Effect>;
    /// The next time [`Core::woke`] is wanted.
    fn poll_deadline(&self) -> Option<Millis>;
    /// The input that says "time has passed".
    fn woke() -> Self::Input;
}

/// A core with the one timer that its shell arms for it.
#[derive(Debug)]
pub struct Driven<C: Core> {
    /// The core.
    pub core: C,
    alarm: Option<(Millis, SpawnHandle)>,
    /// What it is given later, as a test asked ([`late`]).
    late: VecDeque<C::Input>,
}

impl<C: Core> Driven<C> {
    /// A core that has not been driven yet.
    pub fn new(core: C) -> Self {
        Driven { core, alarm: None, late: VecDeque::new() }
    }
}

/// An actor that carries effects out for a core.
pub trait Shell: Actor<Context = Context<Self>> {
    /// Its core.
    type Core: Core;
    /// The core with its timer.
    fn driven(&mut self) -> &mut Driven<Self::Core>;
    /// Carries one effect out. Never awaits: tells, completes a reply, or spawns a task that reports back.
    fn perform(&mut self, effect: <Self::Core as Core>::Effect, ctx: &mut Context<Self>);
}

/// Feeds one input to the shell's core, carries out what comes of it, and re-arms the timer.
pub fn drive<S: Shell>(shell: &mut S, input: <S::Core as Core>::Input, ctx: &mut Context<S>) {
    match late::next() {
        None => feed(shell, input, ctx),
        Some(by) => {
            let waiting = &mut shell.driven().late;
            waiting.push_back(input);
            if waiting.len() == 1 {
                feed_later(by, ctx);
            }
        }
    }
}

fn feed_later<S: Shell>(by: Duration, ctx: &mut Context<S>) {
    ctx.run_later(by, |shell, ctx| {
        let Some(input) = shell.driven().late.pop_front() else { return };
        feed(shell, input, ctx);
        if !shell.driven().late.is_empty() {
            feed_later(late::next().unwrap_or_default(), ctx);
        }
    });
}

fn feed<S: Shell>(shell: &mut S, input: <S::Core as Core>::Input, ctx: &mut Context<S>) {
    falls::at_input::<S>(&input);
    let now = now();
    shell.driven().core.handle(now, input);
    while let Some(effect) = shell.driven().core.poll_effect() {
        shell.perform(effect, ctx);
    }
    let wanted = shell.driven().core.poll_deadline();
    let armed = shell.driven().alarm;
    if wanted == armed.map(|(at, _)| at) {
        return;
    }
    if let Some((_, handle)) = armed {
        ctx.cancel_future(handle);
    }
    shell.driven().alarm = wanted.map(|at| {
        let handle = ctx.run_later(at.since(now), |shell, ctx| {
            shell.driven().alarm = None;
            drive(shell, S::Core::woke(), ctx);
        });
        (at, handle)
    });
}

/// Milliseconds since the first call in this process (tokio's clock, so paused time works).
pub fn now() -> Millis {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed();
    Millis(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

/// A random byte, which spreads pauses.
pub fn jitter() -> u8 {
    let mut byte = [0];
    match ring::rand::SystemRandom::new().fill(&mut byte) {
        Ok(()) => byte[0],
        // Then the pauses are merely all alike.
        Err(_) => u8::MAX / 2,
    }
}

/// How an actor ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It stopped.
    Stopped,
    /// A handler panicked; what the panic said.
    Panicked(String),
}

/// Starts an actor in a context of its own and tells `on_exit` when it ended, and how; a panic is told like any other
/// end.
///
/// It keeps the span in which it is started, and so do the actors and tasks that it starts.
///
/// Must be called on the thread of the System. `actix::Supervisor` notices no panic, so this takes its place.
pub fn start_monitored<A>(actor: A, context: Context<A>, on_exit: impl FnOnce(Exit) + 'static)
where
    A: Actor<Context = Context<A>>,
{
    let join = actix_rt::spawn(context.into_future(actor).instrument(Span::current()));
    let watch = async move {
        on_exit(match join.await {
            Ok(()) => Exit::Stopped,
            Err(error) => exit_of(error),
        });
    };
    actix_rt::spawn(watch.instrument(Span::current()));
}

fn exit_of(error: tokio::task::JoinError) -> Exit {
    match error.try_into_panic() {
        Ok(payload) => Exit::Panicked(panic_text(payload.as_ref())),
        Err(_) => Exit::Stopped,
    }
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

/// Why a task gave no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskFailed {
    /// It panicked; what the panic said.
    Panicked(String),
    /// It took longer than its limit.
    TimedOut,
    /// Its runtime is shutting down.
    Aborted,
}

/// For [`spawn_reporting`]: work that ends by itself or with its owner, and has no time of its own.
pub const NO_LIMIT: Duration = Duration::from_secs(u32::MAX as u64);

/// Runs `work` on the pool, for at most `limit`, and always calls `report` with what came of it: also after a panic.
///
/// Both keep the span in which this is called. Returns a handle that aborts it; `report` is then called with [`TaskFailed::Aborted`].
pub fn spawn_reporting<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
    limit: Duration,
    report: impl FnOnce(Result<T, TaskFailed>) + Send + 'static,
) -> tokio::task::AbortHandle {
    let task = spawn(async move { tokio::time::timeout(limit, work).await });
    let abort = task.abort_handle();
    spawn(async move {
        report(match task.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_)) => Err(TaskFailed::TimedOut),
            Err(error) => Err(match exit_of(error) {
                Exit::Panicked(text) => TaskFailed::Panicked(text),
                Exit::Stopped => TaskFailed::Aborted,
            }),
        });
    });
    abort
}

/// Runs `work` on the pool, in the span in which this is called.
pub fn spawn<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
    tokio::spawn(work.instrument(Span::current()))
}

/// Runs `work` on a thread on which it may block, in the span in which this is called.
pub fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> tokio::task::JoinHandle<T> {
    let span = Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work))
}

/// Tasks that end with their owner, however it ends: a panic of an actor drops it, and them with it.
#[derive(Debug, Default)]
pub struct Tasks(Vec<tokio::task::AbortHandle>);

impl Tasks {
    /// Ends this task with the owner, if it has not ended before.
    pub fn keep(&mut self, task: tokio::task::AbortHandle) {
        // Looking through them only when there is no room costs little for each.
        if self.0.len() == self.0.capacity() {
            self.0.retain(|task| !task.is_finished());
        }
        self.0.push(task);
    }

    /// Ends them all.
    pub fn end(&mut self) {
        for task in self.0.drain(..) {
            task.abort();
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.end();
    }
}

/// Work that may outlast its session. The end of the process waits for it, for a while.
#[derive(Clone, Debug)]
pub struct LateWork(Arc<watch::Sender<()>>);

impl Default for LateWork {
    fn default() -> Self {
        LateWork(Arc::new(watch::Sender::new(())))
    }
}

impl LateWork {
    /// Begins one; it is over when what this gives is dropped.
    pub fn begin(&self) -> watch::Receiver<()> {
        self.0.subscribe()
    }

    /// Waits until all of it is over.
    ///
    /// Cancel safe.
    pub async fn over(&self) {
        self.0.closed().await;
    }
}

/// Where one answer goes. Dropping it tells the asker that there will be none.
#[derive(Debug)]
pub struct Reply<T>(oneshot::Sender<T>);

impl<T> Reply<T> {
    /// A reply and the receiver of its answer.
    pub fn new() -> (Reply<T>, oneshot::Receiver<T>) {
        let (tx, rx) = oneshot::channel();
        (Reply(tx), rx)
    }

    /// Answers. An asker that went away is no error: the work is done all the same.
    pub fn answer(self, value: T) {
        drop(self.0.send(value));
    }

    /// Whether the asker went away.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// Asks an actor to stop: finish what it owns, answer, end. Answered once everything it owned is gone.
#[derive(Debug)]
pub struct Stop {
    /// Answered when done.
    pub reply: Reply<()>,
}

/// Declares messages that are told, never asked.
macro_rules! told {
    ($($message:ty),* $(,)?) => {$(
        impl actix::Message for $message { type Result = (); }
    )*};
}
pub(crate) use told;

told!(Stop);

/// Stops the actor of `ctx` after the current message.
pub fn stop<A: Actor<Context = Context<A>>>(ctx: &mut Context<A>) {
    ctx.stop();
}

/// Declares handlers of messages that only feed the core: `Message: Into<Input>`.
macro_rules! drives {
    ($actor:ty, $($message:ty),* $(,)?) => {$(
        impl actix::Handler<$message> for $actor {
            type Result = ();
            fn handle(&mut self, message: $message, ctx: &mut actix::Context<Self>) {
                $crate::actors::shell::drive(self, message.into(), ctx);
            }
        }
    )*};
}
pub(crate) use drives;
