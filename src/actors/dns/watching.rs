//! What is watched for the back end by which names are attached: one thing at a time.

use tokio::task::AbortHandle;

use crate::actors::shell::spawn;
use crate::net::resolver::Backend;

/// A task that watches for one back end; ends with this.
#[derive(Debug, Default)]
pub(super) struct Watching(Option<(Backend, AbortHandle)>);

impl Watching {
    /// Watches for `backend`, in place of what was watched for another. What is watched for it already goes on.
    pub(super) fn begin(&mut self, backend: Backend, work: impl Future<Output = ()> + Send + 'static) {
        if self.0.as_ref().is_none_or(|(of, task)| *of != backend || task.is_finished()) {
            self.end();
            self.0 = Some((backend, spawn(work).abort_handle()));
        }
    }

    /// Watches nothing any more.
    pub(super) fn end(&mut self) {
        if let Some((_, task)) = self.0.take() {
            task.abort();
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_watched_for_another_back_end_holds_up_nothing() {
        let (begun_tx, mut begun) = mpsc::unbounded_channel();
        let forever = move |name: &'static str| {
            let begun = begun_tx.clone();
            async move {
                begun.send(name).unwrap();
                std::future::pending::<()>().await;
            }
        };
        let mut watching = Watching::default();
        watching.begin(Backend::Beside, forever("editor"));
        assert_eq!(begun.recv().await, Some("editor"));
        watching.begin(Backend::Beside, forever("editor again"));
        watching.begin(Backend::Resolved, forever("resolved"));
        let next = tokio::time::timeout(std::time::Duration::from_secs(1), begun.recv()).await;
        assert_eq!(next, Ok(Some("resolved")), "the first one went on while it was the same");
        drop(watching);
        drop(forever);
        assert_eq!(begun.recv().await, None, "all have ended");
    }
}
