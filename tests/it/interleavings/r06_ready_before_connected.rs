//! "Ready" was said because an entry existed. Here a link must have answered, and the table must name it.

use podway::actors::client_list::core::{ClientListCore, Effect, Input};
use podway::actors::client_list::messages::WaiterOutcome;
use podway::ids::{Attempt, Generation, Millis, WaiterId};

use crate::support::facts::{Agent, FINGERPRINT, KEY, connected, effects, pod, snapshot, target, via, workload};

#[test]
fn s12_settled_waiter_carries_the_handle() {
    let mut list = ClientListCore::new(KEY, FINGERPRINT);
    let mut feed = |input| effects(&mut list, Millis(0), input);
    let settles = |effect: &Effect| matches!(effect, Effect::Settle { .. });
    let pods = snapshot([pod("t", "web", Agent::Running)]);
    for input in [
        Input::Register { id: WaiterId(1), target: target("web"), deadline: Millis(30_000) },
        Input::Via(Generation(1), via(&["web"])),
        Input::Pods(Generation(1), pods.clone()),
        Input::Pods(Generation(2), pods),
    ] {
        let came = feed(input);
        assert!(!came.iter().any(settles), "nobody has reached the agent: {came:?}");
    }
    let outcome = connected();
    let came = feed(Input::DialFinished { pod: "t".into(), attempt: Attempt(1), outcome });
    let published = came.iter().position(|effect| match effect {
        Effect::Publish(table) => {
            table.workloads.get(&workload("web")).is_some_and(|links| links[0].pod.uid == "t".into())
        }
        _ => false,
    });
    let told = came.iter().position(|effect| {
        *effect == Effect::Settle { id: WaiterId(1), outcome: WaiterOutcome::Ready { pod: "t".into() } }
    });
    assert!(published.is_some() && published < told, "the table comes first: {came:?}");
}
