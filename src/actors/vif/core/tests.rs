#![allow(clippy::wildcard_enum_match_arm, clippy::allow_attributes, reason = "a test looks at what it is about")]
use super::*;

fn plan(addresses: &[&str], routes: &[&str]) -> RoutePlan {
    let set = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    RoutePlan { addresses: set(addresses), routes: set(routes) }
}

fn feed(core: &mut VifCore, now: u64, input: Input) -> Vec<Effect> {
    core.handle(Millis(now), input);
    std::iter::from_fn(|| core.poll_effect()).collect()
}

fn open() -> Input {
    Input::Open { device: "podway0".into(), mtu: 1400 }
}

fn applied(generation: u64) -> Input {
    Input::Applied { generation: Generation(generation), failed: BTreeMap::new() }
}

fn change(effects: &[Effect]) -> Option<&Change> {
    effects.iter().find_map(|effect| match effect {
        Effect::Apply(change) => Some(change),
        _ => None,
    })
}

fn up(core: &mut VifCore) {
    feed(core, 0, open());
    feed(core, 0, Input::Opened(Ok(7)));
}

#[test]
fn open_and_plan_in_both_orders_end_alike() {
    let wanted = Input::Plan(Generation(1), plan(&["10.9.0.1/32"], &["10.1.0.0/16"]));
    let mut first = VifCore::new();
    feed(&mut first, 0, open());
    feed(&mut first, 0, Input::Opened(Ok(7)));
    assert!(change(&feed(&mut first, 0, wanted.clone())).is_some());
    feed(&mut first, 0, applied(1));

    let mut second = VifCore::new();
    assert_eq!(feed(&mut second, 0, wanted), []);
    feed(&mut second, 0, open());
    assert!(change(&feed(&mut second, 0, Input::Opened(Ok(7)))).is_some());
    let told = feed(&mut second, 0, applied(1));
    assert!(matches!(&told[..], [Effect::Tell(_, VifState::Up { applied: Generation(1), .. })]), "{told:?}");
    assert_eq!(first.told.1, second.told.1);
}

#[test]
fn one_change_at_a_time_and_only_the_difference() {
    let mut core = VifCore::new();
    up(&mut core);
    feed(&mut core, 0, Input::Plan(Generation(1), plan(&[], &["10.1.0.0/16"])));
    assert_eq!(feed(&mut core, 0, Input::Plan(Generation(2), plan(&[], &["10.2.0.0/16"]))), []);
    assert_eq!(feed(&mut core, 0, Input::Plan(Generation(3), plan(&[], &["10.1.0.0/16", "10.3.0.0/16"]))), []);
    let effects = feed(&mut core, 0, applied(1));
    let next = change(&effects).unwrap();
    assert_eq!(next.generation, Generation(3));
    assert_eq!(next.add_routes, plan(&[], &["10.3.0.0/16"]).routes);
    assert!(next.remove_routes.is_empty());
    feed(&mut core, 0, applied(3));
    assert_eq!(feed(&mut core, 0, Input::Plan(Generation(2), RoutePlan::default())), []);
}

#[test]
fn what_failed_is_tried_again_later() {
    let mut core = VifCore::new();
    up(&mut core);
    feed(&mut core, 0, Input::Plan(Generation(1), plan(&[], &["10.1.0.0/16", "10.2.0.0/16"])));
    let failed = BTreeMap::from([("10.1.0.0/16".to_owned(), "no".to_owned())]);
    let failure = Input::Applied { generation: Generation(1), failed };
    let told = feed(&mut core, 0, failure.clone());
    assert!(
        matches!(&told[..], [Effect::Tell(_, VifState::Up { applied: Generation(0), failed, .. })] if failed.len() == 1)
    );
    assert_eq!(core.poll_deadline(), Some(Millis(1000)));
    assert_eq!(feed(&mut core, 999, Input::Woke), []);
    let effects = feed(&mut core, 1000, Input::Woke);
    assert_eq!(change(&effects).unwrap().add_routes, plan(&[], &["10.1.0.0/16"]).routes);
    feed(&mut core, 1000, failure);
    assert_eq!(core.poll_deadline(), Some(Millis(3000)));
    feed(&mut core, 3000, Input::Woke);
    let told = feed(&mut core, 3000, applied(1));
    assert!(matches!(&told[..], [Effect::Tell(_, VifState::Up { applied: Generation(1), .. })]));
    assert_eq!(core.poll_deadline(), None);
}

#[test]
fn a_failure_that_is_no_longer_wanted_is_forgotten() {
    let mut core = VifCore::new();
    up(&mut core);
    feed(&mut core, 0, Input::Plan(Generation(1), plan(&[], &["10.1.0.0/16"])));
    let failed = BTreeMap::from([("10.1.0.0/16".to_owned(), "no".to_owned())]);
    feed(&mut core, 0, Input::Applied { generation: Generation(1), failed });
    // It may be there all the same.
    let effects = feed(&mut core, 0, Input::Plan(Generation(2), RoutePlan::default()));
    assert_eq!(change(&effects).unwrap().remove_routes, plan(&[], &["10.1.0.0/16"]).routes);
    let told = feed(&mut core, 0, applied(2));
    assert!(
        matches!(&told[..], [Effect::Tell(_, VifState::Up { applied: Generation(2), failed, .. })] if failed.is_empty())
    );
    assert_eq!(core.poll_deadline(), None);
}

#[test]
fn a_device_that_goes_by_itself_is_a_failure() {
    let mut core = VifCore::new();
    up(&mut core);
    let told = feed(&mut core, 0, Input::DataPlaneEnded("deleted".into()));
    assert!(matches!(&told[..], [Effect::Tell(_, VifState::Failed { .. })]));
    assert_eq!(feed(&mut core, 0, Input::Plan(Generation(1), plan(&[], &["10.1.0.0/16"]))), []);
    assert_eq!(feed(&mut core, 0, Input::StopDataPlane(ReplyId(1))), [Effect::Answer(ReplyId(1))]);
    assert_eq!(feed(&mut core, 0, Input::Close(ReplyId(2)))[0], Effect::Close);
    assert_eq!(feed(&mut core, 0, Input::Closed), [Effect::Answer(ReplyId(2))]);
}

#[test]
fn a_device_that_cannot_be_made_is_a_failure() {
    let mut core = VifCore::new();
    assert_eq!(feed(&mut core, 0, open())[0], Effect::Open { device: "podway0".into(), mtu: 1400 });
    assert_eq!(feed(&mut core, 0, open()), []);
    let told = feed(&mut core, 0, Input::Opened(Err("no".into())));
    assert_eq!(told, [Effect::Tell(Generation(1), VifState::Failed { why: "no".into() })]);
}

#[test]
fn teardown_is_ordered_and_idempotent() {
    let mut core = VifCore::new();
    up(&mut core);
    assert_eq!(feed(&mut core, 0, Input::StopDataPlane(ReplyId(1))), [Effect::StopDataPlane]);
    assert_eq!(feed(&mut core, 0, Input::StopDataPlane(ReplyId(2))), []);
    assert_eq!(feed(&mut core, 0, Input::DataPlaneEnded("stopped".into())), []);
    let answers = feed(&mut core, 0, Input::DataPlaneStopped);
    assert_eq!(answers, [Effect::Answer(ReplyId(1)), Effect::Answer(ReplyId(2))]);
    assert_eq!(feed(&mut core, 0, Input::Close(ReplyId(3)))[0], Effect::Close);
    assert_eq!(feed(&mut core, 0, Input::Close(ReplyId(4))), []);
    let answers = feed(&mut core, 0, Input::Closed);
    assert_eq!(answers, [Effect::Answer(ReplyId(3)), Effect::Answer(ReplyId(4))]);
    assert_eq!(feed(&mut core, 0, Input::Close(ReplyId(5))), [Effect::Answer(ReplyId(5))]);
    assert_eq!(feed(&mut core, 0, Input::StopDataPlane(ReplyId(6))), [Effect::Answer(ReplyId(6))]);
}

#[test]
fn closing_waits_for_the_device_that_is_being_made_and_changed() {
    let mut core = VifCore::new();
    feed(&mut core, 0, Input::Plan(Generation(1), plan(&[], &["10.1.0.0/16"])));
    feed(&mut core, 0, open());
    assert_eq!(feed(&mut core, 0, Input::Close(ReplyId(1))), []);
    let effects = feed(&mut core, 0, Input::Opened(Ok(7)));
    assert_eq!(effects[0], Effect::StopDataPlane);
    assert!(change(&effects).is_none());
    assert!(feed(&mut core, 0, Input::DataPlaneStopped).contains(&Effect::Close));

    let mut never = VifCore::new();
    assert_eq!(feed(&mut never, 0, Input::Close(ReplyId(1))), [Effect::Answer(ReplyId(1))]);
    assert_eq!(feed(&mut never, 0, open()), []);
}

#[test]
fn an_ipv6_address_that_the_host_refuses_does_not_hold_the_plan_up() {
    let mut core = VifCore::new();
    up(&mut core);
    feed(&mut core, 0, Input::Plan(Generation(1), plan(&["10.9.0.1/32", "fd09::1/128"], &["10.1.0.0/16"])));
    let failed = BTreeMap::from([("fd09::1/128".to_owned(), "EACCES".to_owned())]);
    let told = feed(&mut core, 0, Input::Applied { generation: Generation(1), failed: failed.clone() });
    let [Effect::Tell(_, VifState::Up { applied, failed: shown, .. })] = &told[..] else { panic!("{told:?}") };
    assert_eq!((*applied, shown), (Generation(1), &failed));
    // What is tried again and fails again is no news.
    assert!(change(&feed(&mut core, 1000, Input::Woke)).is_some());
    assert_eq!(feed(&mut core, 1000, Input::Applied { generation: Generation(1), failed }), []);
    assert_eq!(core.poll_deadline(), Some(Millis(3000)));
}
