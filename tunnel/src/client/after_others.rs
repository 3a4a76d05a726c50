//! A connection's task runs after those that have something for it.

use std::pin::Pin;
use std::task::{Context, Poll};

/// Polls a future only after all tasks that are ready already. A scheduler that runs next whoever was woken last would have
/// the connection send what the first of many flows has to say, and wake everybody on the way for each of the others too.
pub(super) struct AfterOthers<F> {
    future: F,
    has_waited: bool,
}

impl<F> AfterOthers<F> {
    pub(super) fn new(future: F) -> AfterOthers<F> {
        AfterOthers { future, has_waited: false }
    }
}

impl<F: Future + Unpin> Future for AfterOthers<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.has_waited = !self.has_waited;
        if self.has_waited {
            // A task that wakes itself goes to the end of the queue.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.future).poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[test]
    fn it_runs_after_those_that_are_ready() {
        // One thread that runs next whoever was woken last.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("runtime");
        let (said, woken) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let connection = {
            let (said, woken) = (Arc::clone(&said), Arc::clone(&woken));
            runtime.spawn(async move {
                AfterOthers::new(Box::pin(woken.notified())).await;
                said.load(Ordering::SeqCst)
            })
        };
        let heard = runtime.block_on(async {
            tokio::spawn(async move {
                // Lets the connection begin to wait.
                for _ in 0..4 {
                    tokio::task::yield_now().await;
                }
                for _ in 0..5 {
                    let (said, woken) = (Arc::clone(&said), Arc::clone(&woken));
                    tokio::spawn(async move {
                        said.fetch_add(1, Ordering::SeqCst);
                        woken.notify_one();
                    });
                }
            });
            connection.await
        });
        assert_eq!(heard.expect("heard"), 5);
    }
}
