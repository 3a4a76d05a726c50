//! A dial that takes its time holds up nobody else.

use podway::actors::client_list::core::{ClientListCore, Effect, Input};
use podway::ids::{Attempt, Generation, Millis, WaiterId};
use podway::workload::PodUid;

use crate::support::facts::{Agent, FINGERPRINT, KEY, connected, effects, pod, snapshot, target, via};

fn dialled(effects: &[Effect]) -> Vec<(PodUid, Attempt)> {
    let dialled = |effect: &Effect| match effect {
        Effect::Dial { pod, attempt, .. } => Some((pod.uid.clone(), *attempt)),
        _ => None,
    };
    effects.iter().filter_map(dialled).collect()
}

#[test]
fn s28_update_loop_never_dials() {
    let mut list = ClientListCore::new(KEY, FINGERPRINT);
    let mut feed = |input| effects(&mut list, Millis(0), input);
    feed(Input::Via(Generation(1), via(&["slow", "web"])));
    let slow = || pod("s", "slow", Agent::Running);
    assert_eq!(dialled(&feed(Input::Pods(Generation(1), snapshot([slow()])))), [("s".into(), Attempt(1))]);

    // The dial of `s` never ends.
    feed(Input::Register { id: WaiterId(1), target: target("web"), deadline: Millis(30_000) });
    let both = snapshot([slow(), pod("t", "web", Agent::Running)]);
    assert_eq!(dialled(&feed(Input::Pods(Generation(2), both))), [("t".into(), Attempt(2))]);
    let outcome = connected();
    let came = feed(Input::DialFinished { pod: "t".into(), attempt: Attempt(2), outcome });
    assert!(came.iter().any(|effect| matches!(effect, Effect::Settle { .. })), "{came:?}");
}
