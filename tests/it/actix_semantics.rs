//! The facts about actix on which the shells rely. An upgrade that changes one fails here first.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, ThreadId};

use actix::{Actor, ActorContext as _, Addr, AsyncContext as _, Context, Handler, Recipient};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

/// What a [`Scribe`] saw.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Saw {
    Line(u32),
    Stopping,
    Stopped,
    Thread(ThreadId),
}

/// Writes down what happens to it.
struct Scribe {
    saw: Sender<Saw>,
}

impl Scribe {
    fn new() -> (Scribe, Receiver<Saw>) {
        let (saw, seen) = channel();
        (Scribe { saw }, seen)
    }

    fn note(&self, saw: Saw) {
        self.saw.send(saw).ok();
    }
}

impl Actor for Scribe {
    type Context = Context<Self>;

    fn stopping(&mut self, _: &mut Self::Context) -> actix::Running {
        self.note(Saw::Stopping);
        actix::Running::Stop
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.note(Saw::Stopped);
    }
}

struct Line(u32);
struct Fall;
struct End;
struct WhereAreYou;
/// Answered by a task of the pool, which then asks the scribe where it is.
struct Work(oneshot::Sender<ThreadId>);

macro_rules! told {
    ($($message:ty),*) => {$(
        impl actix::Message for $message {
            type Result = ();
        }
    )*};
}
told!(Line, Fall, End, WhereAreYou, Work);

impl Handler<Line> for Scribe {
    type Result = ();
    fn handle(&mut self, line: Line, _: &mut Self::Context) {
        self.note(Saw::Line(line.0));
    }
}

impl Handler<Fall> for Scribe {
    type Result = ();
    fn handle(&mut self, _: Fall, _: &mut Self::Context) {
        panic!("the scribe fell");
    }
}

impl Handler<End> for Scribe {
    type Result = ();
    fn handle(&mut self, _: End, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl Handler<WhereAreYou> for Scribe {
    type Result = ();
    fn handle(&mut self, _: WhereAreYou, _: &mut Self::Context) {
        self.note(Saw::Thread(thread::current().id()));
    }
}

impl Handler<Work> for Scribe {
    type Result = ();
    fn handle(&mut self, work: Work, ctx: &mut Self::Context) {
        let me = ctx.address();
        tokio::spawn(async move {
            me.do_send(WhereAreYou);
            work.0.send(thread::current().id()).ok();
        });
    }
}

/// A scribe in a context of its own, as every child is started.
fn started() -> (Addr<Scribe>, tokio::task::JoinHandle<()>, Receiver<Saw>) {
    let (scribe, seen) = Scribe::new();
    let context = Context::new();
    let address = context.address();
    (address, actix_rt::spawn(context.into_future(scribe)), seen)
}

fn lines(numbers: impl IntoIterator<Item = u32>) -> Vec<Saw> {
    numbers.into_iter().map(Saw::Line).collect()
}

#[tokio::test]
async fn do_send_ignores_capacity_and_keeps_the_order_of_one_sender() {
    LocalSet::new()
        .run_until(async {
            let (address, ended, seen) = started();
            let told: Recipient<Line> = address.clone().recipient();
            // Sixteen is a mailbox's capacity; nothing is handled before the first await.
            for number in 0..1000 {
                if number % 2 == 0 { address.do_send(Line(number)) } else { told.do_send(Line(number)) }
            }
            drop((address, told));
            ended.await.expect("it ends when nobody can reach it any more");
            let seen: Vec<Saw> = seen.try_iter().collect();
            assert_eq!(seen[..1000], lines(0..1000));
            assert_eq!(seen[1000..], [Saw::Stopping, Saw::Stopped]);
        })
        .await;
}

#[tokio::test]
async fn every_sender_s_order_is_kept_across_threads() {
    LocalSet::new()
        .run_until(async {
            let (address, ended, seen) = started();
            let senders: Vec<_> = (0..4)
                .map(|sender| {
                    let address = address.clone();
                    thread::spawn(move || (0..500).for_each(|n| address.do_send(Line(sender * 1000 + n))))
                })
                .collect();
            drop(address);
            ended.await.expect("it ends after the last sender");
            senders.into_iter().for_each(|sender| sender.join().expect("it sends"));
            let seen: Vec<Saw> = seen.try_iter().collect();
            for sender in 0..4 {
                let of_sender = |saw: &&Saw| matches!(saw, Saw::Line(line) if line / 1000 == sender);
                let of_sender: Vec<Saw> = seen.iter().filter(of_sender).cloned().collect();
                assert_eq!(of_sender, lines((0..500).map(|n| sender * 1000 + n)));
            }
        })
        .await;
}

#[tokio::test]
async fn a_panic_in_a_handler_ends_the_actor_drops_the_queue_and_shows_in_the_join_handle() {
    LocalSet::new()
        .run_until(async {
            let (address, ended, seen) = started();
            let (other, other_ended, seen_by_other) = started();
            address.do_send(Line(1));
            address.do_send(Fall);
            address.do_send(Line(2));
            let error = ended.await.expect_err("it panicked");
            assert!(error.is_panic(), "{error:?}");
            let payload = error.into_panic();
            assert_eq!(payload.downcast_ref::<&str>(), Some(&"the scribe fell"));
            // What is sent to it now vanishes, and its hooks ran although it panicked.
            assert!(!address.connected());
            address.do_send(Line(3));
            assert_eq!(seen.try_iter().collect::<Vec<_>>(), [Saw::Line(1), Saw::Stopping, Saw::Stopped]);
            // The thread and the others on it live on.
            other.do_send(Line(4));
            drop(other);
            other_ended.await.expect("it ends as it should");
            assert_eq!(seen_by_other.try_recv(), Ok(Saw::Line(4)));
        })
        .await;
}

#[tokio::test]
async fn stop_drops_what_is_behind_it_and_is_no_panic() {
    LocalSet::new()
        .run_until(async {
            let (address, ended, seen) = started();
            address.do_send(Line(1));
            address.do_send(End);
            address.do_send(Line(2));
            ended.await.expect("a stop is no panic");
            assert_eq!(seen.try_iter().collect::<Vec<_>>(), [Saw::Line(1), Saw::Stopping, Saw::Stopped]);
        })
        .await;
}

#[tokio::test]
async fn an_aborted_actor_is_told_apart_from_one_that_panicked() {
    LocalSet::new()
        .run_until(async {
            let (_address, ended, _seen) = started();
            ended.abort();
            let error = ended.await.expect_err("it was aborted");
            assert!(error.is_cancelled() && !error.is_panic(), "{error:?}");
        })
        .await;
}

#[tokio::test]
async fn messages_sent_before_the_actor_starts_wait_for_it() {
    LocalSet::new()
        .run_until(async {
            let (scribe, seen) = Scribe::new();
            let context = Context::<Scribe>::new();
            let address = context.address();
            address.do_send(Line(1));
            let ended = actix_rt::spawn(context.into_future(scribe));
            address.do_send(Line(2));
            drop(address);
            ended.await.expect("it ends");
            assert_eq!(seen.try_iter().take(2).collect::<Vec<_>>(), lines([1, 2]));
        })
        .await;
}

#[test]
fn on_a_multi_thread_runtime_handlers_run_on_the_main_thread_and_spawned_tasks_on_the_pool() {
    let system = actix_rt::System::with_tokio_rt(|| {
        Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
    });
    system.block_on(async {
        let (address, ended, seen) = started();
        let (reply, answer) = oneshot::channel();
        address.do_send(Work(reply));
        let worker = answer.await.expect("the task runs");
        let main = thread::current().id();
        assert_ne!(worker, main, "tasks use the pool");
        drop(address);
        ended.await.expect("it ends once the task has let go of it");
        let first = seen.try_iter().next();
        assert_eq!(first, Some(Saw::Thread(main)), "handlers stay where the actor was started");
    });
}
