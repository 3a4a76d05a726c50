//! One failure, several who wait: each hears of it, none takes it from another.

use podway::actors::client_list::core::{ClientListCore, DialOutcome, Effect, Input};
use podway::actors::client_list::messages::WaiterOutcome;
use podway::ids::{Attempt, Generation, Millis, WaiterId};

use crate::support::facts::{Agent, FINGERPRINT, KEY, effects, pod, snapshot, target, via};

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
    let mut feed = |input| settled(effects(&mut list, Millis(0), input));
    let register = |id| Input::Register { id: WaiterId(id), target: target("web"), deadline: Millis(30_000) };
    feed(Input::Via(Generation(1), via(&["web"])));
    feed(Input::Pods(Generation(1), snapshot([pod("t", "web", Agent::Running)])));
    assert_eq!([feed(register(1)), feed(register(2)), feed(register(3))], [[], [], []]);

    let why = "pods/portforward is forbidden";
    let outcome = DialOutcome::Forbidden(why.into());
    let hopeless = WaiterOutcome::Hopeless { why: why.into() };
    let heard = feed(Input::DialFinished { pod: "t".into(), attempt: Attempt(1), outcome });
    assert_eq!(heard, [1, 2, 3].map(|id| (id, hopeless.clone())));
    assert_eq!(feed(register(4)), [(4, hopeless)], "whoever comes later hears it, too");
    assert_eq!(feed(Input::Woke), []);
}
