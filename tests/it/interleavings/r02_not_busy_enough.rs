//! An agent that only `--proxy-via` uses was judged idle and hung up. Here what is selected is busy.

use podway::actors::client_list::core::{ClientListCore, Effect, Input};
use podway::actors::shell::Core as _;
use podway::ids::{Generation, Millis};

use crate::support::facts::{Agent, FINGERPRINT, KEY, connected, effects, pod, snapshot, via};

#[test]
fn a_selected_workload_without_waiters_and_flows_keeps_its_link() {
    let mut list = ClientListCore::new(KEY, FINGERPRINT);
    effects(&mut list, Millis(0), Input::Via(Generation(1), via(&["web"])));
    let pods = snapshot([pod("t", "web", Agent::Running)]);
    let dialled = effects(&mut list, Millis(0), Input::Pods(Generation(1), pods.clone()));
    let attempt = dialled.iter().find_map(|effect| match effect {
        Effect::Dial { attempt, .. } => Some(*attempt),
        _ => None,
    });
    let attempt = attempt.expect("it is dialled without a waiter");
    let outcome = connected();
    effects(&mut list, Millis(0), Input::DialFinished { pod: "t".into(), attempt, outcome });

    assert_eq!(list.poll_deadline(), None, "nothing will end it");
    let hour = Millis(3_600_000);
    for input in [Input::Woke, Input::Pods(Generation(2), pods), Input::Via(Generation(2), via(&["web", "db"]))] {
        let ended = effects(&mut list, hour, input);
        assert!(!ended.iter().any(|effect| matches!(effect, Effect::HangUp { .. })), "{ended:?}");
    }
    let ended = effects(&mut list, hour, Input::Via(Generation(3), via(&["db"])));
    assert!(ended.iter().any(|effect| matches!(effect, Effect::HangUp { .. })), "nobody wants it any more");
}
