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
            | Effect::Ask(_)
            | Effect::Publish
            | Effect::End => {}
        }
    }
    told
}

fn begun(rules: &[&str]) -> SessionCore {
    let spec = serde_json::json!({ "name": "demo", "namespace": "shop", "timeout_ms": 30_000, "proxy_via": rules });
    let mut core = SessionCore::new(serde_json::from_value(spec).expect("a spec"), None);
    core.handle(Millis(0), Input::Begin);
    core
}

fn asks(core: &mut SessionCore) -> Vec<Ask> {
    let effects = std::iter::from_fn(|| core.poll_effect());
    let asks = effects.filter_map(|effect| match effect {
        Effect::Ask(ask) => Some(ask),
        Effect::Start { .. }
        | Effect::Resolve(_)
        | Effect::Select(_)
        | Effect::Register(..)
        | Effect::Teardown(_)
        | Effect::DropChildren
        | Effect::Publish
        | Effect::Answer(..)
        | Effect::End => None,
    });
    asks.collect()
}

#[test]
fn credentials_are_asked_for_when_due_and_at_a_refusal_but_not_while_it_ends() {
    let spec = serde_json::json!({ "name": "demo", "namespace": "shop", "timeout_ms": 30_000 });
    let spec: ConnectSpec = serde_json::from_value(spec).expect("a spec");
    let mut core = SessionCore::new(spec, Some(100)).lasting(Some(Duration::from_secs(1)), 0);
    core.handle(Millis(0), Input::Begin);
    core.handle(Millis(0), Input::KeeperCame(KeeperId(1)));
    assert_eq!((asks(&mut core), core.poll_deadline()), (vec![], Some(Millis(500))));
    let mut ending = core.clone();
    ending.handle(Millis(499), Input::Disconnect { clean: false, reply: ReplyId(1) });
    ending.handle(Millis(500), Input::Woke);
    assert_eq!(asks(&mut ending), []);
    core.handle(Millis(500), Input::Woke);
    let [ask] = asks(&mut core)[..] else { panic!("not asked") };
    // An answer that comes while it ends changes nothing but the end that is told.
    let mut ending = core.clone();
    ending.handle(Millis(501), Input::Disconnect { clean: false, reply: ReplyId(1) });
    let renewed = Input::Renewed { ask: Some(ask.id), expires_at: Some(101), lasts: Some(Duration::ZERO) };
    ending.handle(Millis(502), renewed);
    assert_eq!((asks(&mut ending), ending.is_running()), (vec![], false));
    let renewed = Input::Renewed { ask: Some(ask.id), expires_at: Some(200), lasts: Some(Duration::from_secs(99)) };
    core.handle(Millis(501), renewed);
    core.outcome = Some(ConnectOutcome::Ready);
    let refused = WatchHealth::Unauthorized { why: "expired".into() };
    core.handle(Millis(9_000), Input::Watch(Generation(2), refused.clone()));
    assert_eq!(asks(&mut core).len(), 1, "long before they end");
    core.handle(Millis(9_001), Input::Renewed { ask: None, expires_at: None, lasts: None });
    core.handle(Millis(99_000), Input::Watch(Generation(1), refused));
    assert_eq!(asks(&mut core), [], "an older fact says nothing of newer credentials");
}

#[test]
fn an_api_server_that_is_silent_is_told_as_a_step_once() {
    let mut core = begun(&[]);
    assert_eq!(core.poll_deadline(), Some(Millis(2000)));
    core.handle(Millis(1999), Input::Woke);
    assert!(core.steps.is_empty());
    core.handle(Millis(2000), Input::Woke);
    assert_eq!(core.steps.iter().map(|step| step.text.as_str()).collect::<Vec<_>>(), [SILENT]);
    assert_eq!(core.poll_deadline(), Some(Millis(30_000)));
    let mut answered = begun(&[]);
    answered.handle(Millis(1), Input::Reached(Ok([].into())));
    assert_eq!(answered.poll_deadline(), Some(Millis(30_000)));
}

#[test]
fn whoever_may_not_even_watch_pods_is_told_all_that_is_missing_whichever_answer_comes_first() {
    let resolved = || {
        let missing = Resolution::Forbidden { missing: "get deployments in shop".into() };
        Input::Resolved([("web".parse().expect("a reference"), missing)].into())
    };
    let rights = |rights: NamespaceRights| {
        let namespaces = [("shop".into(), rights)].into();
        Input::Rights(Generation(1), Arc::new(Rights { namespaces, ..Rights::default() }))
    };
    for inputs in [[resolved(), rights(NamespaceRights::default())], [rights(NamespaceRights::default()), resolved()]] {
        let mut core = begun(&["service=web"]);
        inputs.into_iter().for_each(|input| core.handle(Millis(1), input));
        let Some(ConnectOutcome::Failed(error)) = core.outcome() else { panic!("{:?}", core.outcome()) };
        assert!(
            error.message.contains("watch pods") && error.message.contains("pods/portforward"),
            "{}",
            error.message
        );
    }
    // With that right, the refused look-up is what is missing.
    let mut core = begun(&["service=web"]);
    core.handle(Millis(1), resolved());
    assert_eq!(core.outcome(), None, "rights may tell more");
    core.handle(Millis(1), rights(NamespaceRights { watch_pods: true, ..NamespaceRights::default() }));
    let Some(ConnectOutcome::Failed(error)) = core.outcome() else { panic!("{:?}", core.outcome()) };
    assert!(error.message.contains("get deployments in shop"), "{}", error.message);
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
