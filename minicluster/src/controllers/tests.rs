use std::time::Duration;

use serde_json::json;

use super::run;
use super::testing::{Bed, now, with_kubelet, workload};
use crate::object::number;
use crate::resource::{DEPLOYMENTS, JOBS, PODS};

#[tokio::test(start_paused = true)]
async fn the_shell_makes_objects_true_after_each_change() {
    let bed = Bed::new(1);
    let runs = tokio::spawn(run(bed.store.clone(), now, with_kubelet));
    bed.create(&DEPLOYMENTS, "demo", "web", workload("web", 2));
    let mut revisions = bed.store.revisions();
    let ready = |count: i64| {
        let web = bed.get(&DEPLOYMENTS, "web").unwrap();
        number(&web, "/status/readyReplicas").unwrap_or(0) == count
            && bed.list(&PODS).len() == usize::try_from(count).unwrap()
    };
    let limit = Duration::from_secs(5);
    tokio::time::timeout(limit, revisions.wait_for(|_| ready(2))).await.unwrap().unwrap();
    bed.update(&DEPLOYMENTS, "web", |web| web["spec"]["replicas"] = json!(0));
    tokio::time::timeout(limit, revisions.wait_for(|_| ready(0))).await.unwrap().unwrap();
    runs.abort();
}

#[tokio::test(start_paused = true)]
async fn the_shell_wakes_for_a_deadline_though_nothing_changes() {
    // The wall clock stands still under a paused runtime: one that follows the runtime's.
    fn clock() -> crate::time::Time {
        thread_local!(static START: tokio::time::Instant = tokio_now());
        now().after(tokio_now() - START.with(|start| *start))
    }
    #[expect(clippy::disallowed_methods, reason = "the test's clock follows the runtime's paused one")]
    fn tokio_now() -> tokio::time::Instant {
        tokio::time::Instant::now()
    }
    clock();
    let bed = Bed::new(1);
    let template = json!({
        "metadata": {"annotations": {"test/succeeds": ""}}, "spec": {"containers": [{"name": "main"}]},
    });
    let spec = json!({"template": template, "ttlSecondsAfterFinished": 3600});
    bed.create(&JOBS, "demo", "once", json!({"spec": spec}));
    let runs = tokio::spawn(run(bed.store.clone(), clock, with_kubelet));
    let mut revisions = bed.store.revisions();
    let gone = revisions.wait_for(|_| bed.list(&JOBS).is_empty());
    tokio::time::timeout(Duration::from_secs(3700), gone).await.unwrap().unwrap();
    runs.abort();
}
