//! What becomes of the tasks when the actor panics.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler};
use tokio::task::LocalSet;

use super::*;
use crate::actors::shell::{Reply, start_monitored};

/// Hears everything and says nothing.
struct Sink;

impl Actor for Sink {
    type Context = Context<Self>;
}

macro_rules! hears {
    ($($message:ty),*) => {$(
        impl Handler<$message> for Sink {
            type Result = ();
            fn handle(&mut self, _: $message, _: &mut Context<Self>) {}
        }
    )*};
}
hears!(PodsChanged, ClusterInfoChanged, RecordsChanged, RightsChanged, WatchHealthChanged);

struct Fall;

impl Message for Fall {
    type Result = ();
}

impl Handler<Fall> for PodWatcher {
    type Result = ();
    fn handle(&mut self, _: Fall, _: &mut Context<Self>) {
        panic!("it fell");
    }
}

/// A client whose requests never end; each holds `open`.
fn mute(open: &Arc<()>) -> kube::Client {
    let open = Arc::downgrade(open);
    let never = move |_: http::Request<kube::client::Body>| {
        let open = open.upgrade();
        async move {
            std::future::pending::<()>().await;
            drop(open);
            Err::<http::Response<kube::client::Body>, _>(tower::BoxError::from("never"))
        }
    };
    kube::Client::new(tower::service_fn(never), "demo")
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), wait).await.is_ok(), "{what}");
}

#[tokio::test(start_paused = true)]
async fn watches_and_questions_end_with_an_actor_that_panics() {
    LocalSet::new()
        .run_until(async {
            let open = Arc::new(());
            let sink = Sink.start();
            let edges = Edges {
                client_list: sink.clone().recipient(),
                agent_placer: sink.clone().recipient(),
                info: Vec::new(),
                records: sink.clone().recipient(),
                rights: Vec::new(),
                health: sink.recipient(),
            };
            let context = Context::new();
            let watcher = context.address();
            start_monitored(PodWatcher::new(mute(&open), edges), context, |_| ());
            watcher.do_send(Watch { namespaces: BTreeSet::from(["demo".into()]) });
            let (reply, answer) = Reply::new();
            let references = BTreeSet::from(["deployment/web".parse().expect("a reference")]);
            watcher.do_send(ResolveWorkloads { default_namespace: "demo".into(), references, reply });
            // Six watches, eight questions for rights, one look-up.
            until("all ask", || Arc::strong_count(&open) == 16).await;
            watcher.do_send(Fall);
            until("none asks any more", || Arc::strong_count(&open) == 1).await;
            assert!(answer.await.is_err(), "nobody answers");
        })
        .await;
}
