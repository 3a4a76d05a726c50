//! What the answer of a disconnect says.

use super::*;
use crate::error::Reason;
use crate::status::{RenewalLine, SessionStatus};

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
            | Effect::Reach
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
        | Effect::Reach
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

/// The API server gave no answer, as one that is away or one that refuses for good.
fn unreached(outlook: reaching::Outlook, what: &str) -> Input {
    let error = UserError::new(Reason::ClusterUnreachable, format!("API server https://a: {what}"), "");
    Input::Reached(Err(Unreached { error, outlook }))
}

/// How often the API server was asked again.
fn asked_again(core: &mut SessionCore) -> usize {
    std::iter::from_fn(|| core.poll_effect()).filter(|effect| *effect == Effect::Reach).count()
}

#[test]
fn an_api_server_that_gives_no_answer_while_connect_waits_fails_it_at_once() {
    let mut core = begun(&[]);
    core.handle(Millis(9), unreached(reaching::Outlook::MayPass, "nobody listens there"));
    assert!(matches!(core.outcome(), Some(ConnectOutcome::Failed(_))), "{:?}", core.outcome());
}

#[test]
fn a_connect_that_was_said_to_go_on_goes_on_until_the_api_server_answers() {
    let mut core = begun(&[]);
    core.handle(Millis(30_000), Input::Woke);
    assert!(matches!(core.outcome(), Some(ConnectOutcome::TimedOut { .. })));
    let mut now = Millis(31_000);
    for times in 0..500 {
        core.handle(now, unreached(reaching::Outlook::MayPass, "no answer came from that address"));
        assert!(core.is_running(), "given up after {times}");
        assert_eq!(asked_again(&mut core), 0, "not without a pause");
        let status = core.status(&SessionStatus::default(), now, 100, 0);
        let line = status.api_server.expect("it is shown");
        assert!(line.message.contains("no answer came") && line.next_try.is_some_and(|next| next > 99), "{line:?}");
        let watch = status.conditions.iter().find(|c| c.r#type == "WatchReady").expect("a condition");
        assert_eq!((watch.status.as_str(), watch.reason.as_str()), ("False", "Unreached"));
        now = core.poll_deadline().expect("there is a next time");
        core.handle(now, Input::Woke);
        assert_eq!(asked_again(&mut core), 1);
    }
    core.handle(now, Input::Reached(Ok([].into())));
    assert_eq!(core.poll_deadline(), None, "nothing is asked any more");
    let selected = std::iter::from_fn(|| core.poll_effect()).any(|effect| matches!(effect, Effect::Select(_)));
    assert!(selected && core.status(&SessionStatus::default(), now, 0, 0).api_server.is_none());
}

#[test]
fn a_refusal_for_good_and_a_disconnect_end_what_goes_on() {
    let late = || {
        let mut core = begun(&[]);
        core.handle(Millis(30_000), Input::Woke);
        core.handle(Millis(31_000), unreached(reaching::Outlook::MayPass, "no answer came from that address"));
        core
    };
    let mut core = late();
    core.handle(Millis(40_000), unreached(reaching::Outlook::Definite, "its certificate has ended"));
    let Some(ConnectOutcome::Failed(error)) = core.outcome() else { panic!("{:?}", core.outcome()) };
    assert!(error.message.contains("certificate"), "{error}");
    let mut core = late();
    core.handle(Millis(40_000), Input::Disconnect { clean: false, reply: ReplyId(1) });
    core.handle(Millis(99_000), Input::Woke);
    assert_eq!((asked_again(&mut core), core.is_running()), (0, false));
}

#[test]
fn what_refuses_a_connect_refuses_it_also_when_it_is_found_out_after_its_time() {
    let nothing = || Resolution::NotFound { near: vec![], namespace_missing: false };
    let resolved = || Input::Resolved([("web".parse().expect("a reference"), nothing())].into());
    let mut core = begun(&["service=web"]);
    core.handle(Millis(30_000), Input::Woke);
    core.handle(Millis(31_000), Input::Reached(Ok([].into())));
    assert!(core.is_running());
    core.handle(Millis(31_000), resolved());
    let Some(ConnectOutcome::Failed(error)) = core.outcome() else { panic!("{:?}", core.outcome()) };
    assert_eq!(error.reason, Reason::WorkloadNotFound);
    // A right that goes later ends no connection that had it.
    let rights = |generation, watch_pods| {
        let namespaces = [("shop".into(), NamespaceRights { watch_pods, ..NamespaceRights::default() })].into();
        Input::Rights(Generation(generation), Arc::new(Rights { namespaces, ..Rights::default() }))
    };
    let mut core = begun(&[]);
    core.handle(Millis(30_000), Input::Woke);
    core.handle(Millis(31_000), Input::Reached(Ok([].into())));
    core.handle(Millis(31_000), rights(1, true));
    core.handle(Millis(99_000), rights(2, false));
    assert!(core.is_running());
}

#[test]
fn a_connection_that_is_made_anew_while_the_api_server_is_away_waits_for_it() {
    let mut core = begun(&[]);
    core.outcome = Some(ConnectOutcome::Ready);
    core.handle(Millis(50_000), Input::ChildExited(Child::Dns, Exit::Panicked("it fell".into())));
    assert_eq!(torn_down(&mut core, |_| vec![]), None);
    core.handle(Millis(60_000), unreached(reaching::Outlook::MayPass, "nobody listens there"));
    assert!(core.is_running());
    // The watches have found it meanwhile.
    core.handle(Millis(60_100), Input::Watch(Generation(1), WatchHealth::Fresh));
    assert!(core.poll_deadline().is_some_and(|next| next <= Millis(60_350)), "{:?}", core.poll_deadline());
}

/// All that is asked now: of the API server, and of the keeper.
fn asked(core: &mut SessionCore) -> (usize, usize) {
    let effects: Vec<Effect> = std::iter::from_fn(|| core.poll_effect()).collect();
    let count = |of: fn(&Effect) -> bool| effects.iter().filter(|effect| of(effect)).count();
    (count(|effect| *effect == Effect::Reach), count(|effect| matches!(effect, Effect::Ask(_))))
}

fn renewed() -> Input {
    Input::Renewed { ask: None, expires_at: None, lasts: None }
}

#[test]
fn credentials_that_ended_while_the_network_was_away_are_renewed_and_the_connection_goes_on() {
    let mut core = begun(&[]);
    core.handle(Millis(0), Input::KeeperCame(KeeperId(1)));
    core.handle(Millis(30_000), Input::Woke);
    asked(&mut core);
    core.handle(Millis(31_000), unreached(reaching::Outlook::Refused, "the token ended"));
    assert!(core.is_running());
    assert_eq!(asked(&mut core), (0, 1), "the keeper has others");
    core.handle(Millis(31_100), renewed());
    assert!(core.poll_deadline().is_some_and(|next| next <= Millis(31_350)), "{:?}", core.poll_deadline());
    core.handle(Millis(31_350), Input::Woke);
    assert_eq!(asked(&mut core), (1, 0));
    core.handle(Millis(31_400), Input::Reached(Ok([].into())));
    let credentials = core.status(&SessionStatus::default(), Millis(31_400), 0, 0).credentials;
    assert_eq!(credentials.map(|line| line.renewal), Some(RenewalLine::Automatic));
}

#[test]
fn a_refusal_of_credentials_that_were_replaced_meanwhile_says_nothing() {
    let refused = || unreached(reaching::Outlook::Refused, "it does not take the token");
    for late in [false, true] {
        let mut core = begun(&[]);
        let now = if late { 30_000 } else { 1000 };
        core.handle(Millis(now), Input::Woke);
        asked(&mut core);
        core.handle(Millis(now + 1), renewed());
        core.handle(Millis(now + 2), refused());
        assert!(core.is_running());
        assert_eq!(asked(&mut core), (1, 0), "with those, at once");
        core.handle(Millis(now + 3), refused());
        assert_eq!(asked(&mut core).0, 0);
        assert_eq!(core.is_running(), late, "before it was said that it goes on, that fails it");
    }
    // Those that are there when it is asked are not replaced.
    let mut core = begun(&[]);
    core.handle(Millis(30_000), Input::Woke);
    core.handle(Millis(31_000), unreached(reaching::Outlook::MayPass, "nobody listens there"));
    core.handle(Millis(31_001), renewed());
    core.handle(Millis(31_251), Input::Woke);
    asked(&mut core);
    core.handle(Millis(31_252), refused());
    assert_eq!(asked(&mut core).0, 0, "after a pause only");
}

#[test]
fn a_connection_that_worked_shows_that_it_needs_a_login_and_goes_on_also_when_it_is_made_anew() {
    let mut core = begun(&[]);
    core.outcome = Some(ConnectOutcome::Ready);
    core.handle(Millis(50_000), Input::ChildExited(Child::Dns, Exit::Panicked("it fell".into())));
    assert_eq!(torn_down(&mut core, |_| vec![]), None);
    core.handle(Millis(60_000), unreached(reaching::Outlook::Refused, "the token ended"));
    assert!(core.is_running());
    let status = core.status(&SessionStatus::default(), Millis(60_000), 0, 0);
    assert_eq!(status.credentials.map(|line| line.renewal), Some(RenewalLine::NeedsLogin));
    assert!(status.api_server.is_some_and(|line| line.message.contains("the token ended")));
    // Nor do the watches end one that was said to go on.
    let mut core = begun(&[]);
    core.handle(Millis(30_000), Input::Woke);
    core.handle(Millis(31_000), Input::Reached(Ok([].into())));
    core.handle(Millis(31_001), Input::Watch(Generation(1), WatchHealth::Unauthorized { why: "expired".into() }));
    assert!(core.is_running());
}

#[test]
fn names_that_cannot_be_attached_as_wanted_refuse_a_connect_also_after_its_time() {
    let late = || {
        let spec = serde_json::json!({ "name": "demo", "namespace": "shop", "timeout_ms": 30_000, "dns": "file" });
        let mut core = SessionCore::new(serde_json::from_value(spec).expect("a spec"), None);
        core.handle(Millis(0), Input::Begin);
        core.handle(Millis(30_000), Input::Woke);
        core.handle(Millis(31_000), Input::Reached(Ok([].into())));
        let rights = NamespaceRights { watch_pods: true, ..NamespaceRights::default() };
        let namespaces = [("shop".into(), rights)].into();
        core.handle(Millis(31_000), Input::Rights(Generation(1), Arc::new(Rights { namespaces, ..Rights::default() })));
        core.handle(Millis(31_000), Input::Dns(Generation(1), DnsState::default()));
        assert!(core.is_running());
        core
    };
    let message = "resolv.conf is a symbolic link".to_owned();
    let hopeless = DnsState { message, outlook: Outlook::Hopeless, ..DnsState::default() };
    let mut core = late();
    core.handle(Millis(32_000), Input::Dns(Generation(2), hopeless.clone()));
    let Some(ConnectOutcome::Failed(error)) = core.outcome() else { panic!("{:?}", core.outcome()) };
    assert!(error.message.contains("symbolic link"), "{error}");
    let mut core = late();
    core.handle(Millis(32_000), Input::Dns(Generation(2), DnsState { ready: true, ..DnsState::default() }));
    core.handle(Millis(99_000), Input::Dns(Generation(3), hopeless));
    assert!(core.is_running(), "what was attached and is lost later ends nothing");
}

#[test]
fn a_step_that_takes_too_long_is_told_in_words() {
    let mut core = begun(&[]);
    core.handle(Millis(1), Input::Disconnect { clean: false, reply: ReplyId(1) });
    core.handle(Millis(1), Input::StepDone(TeardownStep::StopPlacer, vec![]));
    core.handle(Millis(1501), Input::Woke);
    let left = torn_down(&mut core, |_| vec![]).expect("an answer");
    assert_eq!(left, ["giving the host's resolver back took too long"]);
}
