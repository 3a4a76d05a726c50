//! What the answer of a disconnect says.

use super::*;

/// Answers the teardown steps, each with what `left` says of it, and gives what `disconnect` was told in the end.
fn torn_down(core: &mut SessionCore, left: impl Fn(TeardownStep) -> Vec<String>) -> Option<Vec<String>> {
    let mut told = None;
    while let Some(effect) = core.poll_effect() {
        match effect {
            Effect::Teardown(step) => core.handle(Millis(2), Input::StepDone(step, left(step))),
            Effect::Answer(_, remains) => told = Some(remains.left),
            Effect::Start { .. }
            | Effect::Resolve(_)
            | Effect::Select(_)
            | Effect::Register(..)
            | Effect::DropChildren
            | Effect::Publish
            | Effect::End => {}
        }
    }
    told
}

#[test]
fn what_an_earlier_run_left_is_told_by_no_later_disconnect() {
    let spec = serde_json::json!({ "name": "demo", "namespace": "shop", "timeout_ms": 30_000 });
    let mut core = SessionCore::new(serde_json::from_value(spec).expect("a spec"), None);
    core.handle(Millis(0), Input::Begin);
    core.handle(Millis(1), Input::ChildExited(Child::Dns, Exit::Panicked("it fell".into())));
    let device = |step| match step == TeardownStep::CloseVif {
        true => vec!["device podway0".to_owned()],
        false => vec![],
    };
    assert_eq!(torn_down(&mut core, device), None);
    assert!(core.is_running());
    core.handle(Millis(1), Input::Disconnect { clean: true, reply: ReplyId(1) });
    let own = |step| match step == TeardownStep::RestoreDns {
        true => vec!["resolv.conf".to_owned()],
        false => vec![],
    };
    assert_eq!(torn_down(&mut core, own), Some(vec!["resolv.conf".to_owned()]));
}
