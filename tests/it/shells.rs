//! The shell's frame under paused time: effects are drained, one timer is armed, every end is told.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{Actor, AsyncContext as _, Context, Handler};
use podway::actors::shell::{Core, Driven, Exit, Shell, TaskFailed, drive, spawn_reporting, start_monitored};
use podway::ids::Millis;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

/// Rings at each whole second until it has rung three times.
#[derive(Debug, Default)]
struct Bell {
    rings: u32,
    next: Option<Millis>,
    effects: Vec<u32>,
}

#[derive(Debug)]
enum Input {
    Start,
    Woke,
}

impl Core for Bell {
    type Input = Input;
    type Effect = u32;

    fn handle(&mut self, now: Millis, input: Input) {
        match input {
            Input::Start => {}
            Input::Woke => {
                self.rings += 1;
                self.effects.push(self.rings);
            }
        }
        self.next = (self.rings < 3).then(|| now + Duration::from_secs(1));
    }

    fn poll_effect(&mut self) -> Option<u32> {
        self.effects.pop()
    }

    fn poll_deadline(&self) -> Option<Millis> {
        self.next
    }

    fn woke() -> Input {
        Input::Woke
    }
}

struct Tower {
    driven: Driven<Bell>,
    heard: Arc<Mutex<Vec<u32>>>,
}

impl Actor for Tower {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        drive(self, Input::Start, ctx);
    }
}

impl Shell for Tower {
    type Core = Bell;

    fn driven(&mut self) -> &mut Driven<Bell> {
        &mut self.driven
    }

    fn perform(&mut self, effect: u32, _: &mut Context<Self>) {
        self.heard.lock().expect("unpoisoned").push(effect);
    }
}

struct Fall;

impl actix::Message for Fall {
    type Result = ();
}

impl Handler<Fall> for Tower {
    type Result = ();
    fn handle(&mut self, _: Fall, _: &mut Context<Self>) {
        panic!("the tower fell");
    }
}

fn tower() -> (Tower, Arc<Mutex<Vec<u32>>>) {
    let heard = Arc::default();
    (Tower { driven: Driven::new(Bell::default()), heard: Arc::clone(&heard) }, heard)
}

#[tokio::test(start_paused = true)]
async fn one_timer_follows_the_core_s_deadline() {
    LocalSet::new()
        .run_until(async {
            let (tower, heard) = tower();
            let context = Context::new();
            let address = context.address();
            start_monitored(tower, context, |_| ());
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(*heard.lock().expect("unpoisoned"), [1, 2, 3]);
            drop(address);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_handler_is_told_with_its_words() {
    LocalSet::new()
        .run_until(async {
            let (told, exit) = oneshot::channel();
            let told = Rc::new(RefCell::new(Some(told)));
            let context = Context::new();
            let address = context.address();
            start_monitored(tower().0, context, move |exit| {
                let told = told.borrow_mut().take().expect("told once");
                drop(told.send(exit));
            });
            address.do_send(Fall);
            assert_eq!(exit.await, Ok(Exit::Panicked("the tower fell".to_owned())));
        })
        .await;
}

async fn report_of(work: impl Future<Output = u8> + Send + 'static) -> Result<u8, TaskFailed> {
    let (told, report) = oneshot::channel();
    spawn_reporting(work, Duration::from_secs(5), move |result| drop(told.send(result)));
    report.await.expect("every task reports")
}

#[tokio::test(start_paused = true)]
async fn every_task_reports_back_also_after_a_panic_and_a_hang() {
    assert_eq!(report_of(async { 7 }).await, Ok(7));
    assert_eq!(report_of(async { panic!("a bug") }).await, Err(TaskFailed::Panicked("a bug".to_owned())));
    assert_eq!(report_of(std::future::pending()).await, Err(TaskFailed::TimedOut));
}

#[tokio::test(start_paused = true)]
async fn an_aborted_task_reports_that() {
    let (told, report) = oneshot::channel();
    let handle = spawn_reporting(std::future::pending::<u8>(), Duration::from_secs(5), move |result| {
        drop(told.send(result));
    });
    handle.abort();
    assert_eq!(report.await.expect("told"), Err(TaskFailed::Aborted));
}
