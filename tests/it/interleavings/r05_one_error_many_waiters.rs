//! One failure, several who wait: each hears of it, none takes it from another.

use std::time::Duration;

use podway::actors::client_list::core::{ClientListCore, DialOutcome, Effect, Input};
use podway::actors::client_list::messages::WaiterOutcome;
use podway::ids::{Attempt, Generation, Millis, WaiterId};

use crate::support::facts::{Agent, FINGERPRINT, KEY, all_rights, effects, pod, snapshot, target, via};

fn settled(effects: Vec<Effect>) -> Vec<(u64, WaiterOutcome)> {
    let settled = |effect| match effect {
        Effect::Settle { id, outcome } => Some((id.0, outcome)),
        _ => None,
    };
    effects.into_iter().filter_map(settled).collect()
}

#[test]
fn s47_readiness_error_reaches_all_readers() {
    let mut list = ClientListCore::new(KEY, FINGERPRINT);
    let mut now = Millis(0);
    let mut feed = |now, input| settled(effects(&mut list, now, input));
    let register = |id| Input::Register { id: WaiterId(id), target: target("web"), deadline: Millis(30_000) };
    feed(now, Input::Via(Generation(1), via(&["web"])));
    feed(now, Input::Rights(Generation(1), all_rights()));
    feed(now, Input::Pods(Generation(1), snapshot([pod("t", "web", Agent::Running)])));
    assert_eq!([feed(now, register(1)), feed(now, register(2)), feed(now, register(3))], [[], [], []]);

    let why = "pods/portforward is forbidden";
    let hopeless = WaiterOutcome::Hopeless { why: why.into() };
    let mut heard = Vec::new();
    for attempt in 1.. {
        // A refusal counts when it goes on.
        let outcome = DialOutcome::Forbidden(why.into());
        heard = feed(now, Input::DialFinished { pod: "t".into(), attempt: Attempt(attempt), outcome });
        if !heard.is_empty() {
            break;
        }
        now = now + Duration::from_millis(400);
        assert_eq!(feed(now, Input::Woke), []);
    }
    assert!(now < Millis(2_000), "{now:?}");
    assert_eq!(heard, [1, 2, 3].map(|id| (id, hopeless.clone())));
    assert_eq!(feed(now, register(4)), [(4, hopeless)], "whoever comes later hears it, too");
    assert_eq!(feed(now, Input::Woke), []);
}
