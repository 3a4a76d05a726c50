use std::time::Duration;

use super::*;
use crate::actors::dns::messages::DnsState;
use crate::ids::Attempt;
use crate::net::resolver::{AttachFailed, Attached, Backend, LinkPlan, Outlook};

fn mode(mode: DnsMode) -> Input {
    let Input::Configured(configure) = configured() else { panic!() };
    Input::Configured(Configure { mode, ..configure })
}

fn device(generation: u64, up: bool) -> Input {
    let state = VifState::Up {
        ifindex: 7,
        name: "podway0".into(),
        applied: Generation(0),
        routes: vec!["246.246.0.0/16".into()],
        failed: BTreeMap::new(),
    };
    Input::Device(VifChanged { generation: Generation(generation), state: if up { state } else { VifState::Down } })
}

fn attach_of(effects: &[Effect]) -> (Attempt, LinkPlan) {
    let [Effect::Attach { attempt, plan, .. }] = effects else { panic!("{effects:?}") };
    (*attempt, plan.clone())
}

fn done(attempt: Attempt, backend: Backend, repaired: bool) -> Input {
    Input::Attached {
        attempt,
        result: Ok(Attached { backend, repaired, message: String::new(), domains: Some(vec!["corp.example".into()]) }),
    }
}

fn up(how: DnsMode) -> (Bench, Attempt, LinkPlan) {
    let mut bench = Bench::ready();
    bench.feed(mode(how));
    let (attempt, plan) = attach_of(&bench.feed(device(1, true)));
    (bench, attempt, plan)
}

#[test]
fn the_link_gets_the_search_domain_and_the_routed_ones() {
    let (_, _, plan) = up(DnsMode::Auto);
    assert_eq!(plan.servers, [ip("246.246.0.2")]);
    assert_eq!(plan.search, ["demo.svc.cluster.local"]);
    assert_eq!(plan.routing[..4], ["cluster.local", "svc", "podway", "site.example"]);
    for wanted in ["demo", "other", "246.246.in-addr.arpa", "43.10.in-addr.arpa"] {
        assert!(plan.routing.iter().any(|domain| domain == wanted), "{wanted}");
    }
    assert!(!plan.routing.iter().any(|domain| domain == "dev"), "a public top-level domain is never claimed");
}

#[test]
fn the_zone_of_virtual_addresses_is_that_of_the_range_in_use() {
    let zones = |range: &str, server: &str| -> Vec<String> {
        let mut bench = Bench::ready();
        let mut translation = translation_of(2, true, &[]);
        translation.virtual_ranges = vec![range.parse().unwrap()];
        translation.dns_addresses = vec![ip(server)];
        bench.feed(Input::Translation(translation));
        bench.feed(mode(DnsMode::Auto));
        let Input::Device(mut device) = device(1, true) else { panic!() };
        if let VifState::Up { routes, .. } = &mut device.state {
            *routes = vec![range.into()];
        }
        let (_, plan) = attach_of(&bench.feed(Input::Device(device)));
        plan.routing
            .into_iter()
            .filter(|domain| domain.ends_with("246.in-addr.arpa") || domain.contains("198.in-addr.arpa"))
            .collect()
    };
    assert_eq!(zones("246.246.0.0/16", "246.246.0.2"), ["246.246.in-addr.arpa"]);
    assert_eq!(zones("198.18.0.0/16", "198.18.0.2"), ["18.198.in-addr.arpa"]);
    // No one zone is as large as that range.
    assert_eq!(zones("198.18.4.0/22", "198.18.4.2"), ["4.18.198.in-addr.arpa"]);
}

#[test]
fn no_more_than_64_domains_are_set_and_hidden_ranges_stay_the_hosts() {
    let mut bench = Bench::ready();
    bench.feed(Input::Translation(translation_of(2, true, &["10.43.0.0/16"])));
    let Input::Records(_, known) = records(true) else { panic!() };
    let mut known = (*known).clone();
    known.known_namespaces = (0..200).map(|n| format!("team-{n}").into()).collect();
    bench.feed(Input::Records(Generation(2), Arc::new(known)));
    bench.feed(mode(DnsMode::Auto));
    let (_, plan) = attach_of(&bench.feed(device(1, true)));
    assert_eq!(plan.routing.len() + plan.search.len(), 64);
    assert!(plan.routing.iter().any(|d| d == "demo") && !plan.routing.iter().any(|d| d == "43.10.in-addr.arpa"));
}

#[test]
fn a_failure_is_tried_again_after_a_pause_and_a_hopeless_one_is_not() {
    let (mut bench, attempt, _) = up(DnsMode::Resolved);
    let failed = |outlook| Err(AttachFailed { message: "no".into(), outlook, file: false });
    assert_eq!(bench.feed(Input::Attached { attempt, result: failed(Outlook::Open) }), []);
    assert_eq!(bench.pass(999), []);
    let (again, _) = attach_of(&bench.pass(1));
    assert_eq!(bench.feed(Input::Attached { attempt, result: failed(Outlook::Hopeless) }), [], "of a former try");
    bench.feed(Input::Attached { attempt: again, result: failed(Outlook::Hopeless) });
    assert_eq!((bench.core.poll_deadline(), bench.pass(100_000)), (None, vec![]));
}

#[test]
fn what_is_hopeless_is_looked_at_again_while_names_of_the_host_come_here() {
    let (mut bench, attempt, _) = up(DnsMode::File);
    bench.feed(done(attempt, Backend::File, false));
    let (attempt, _) = attach_of(&bench.pass(5000));
    let failed = AttachFailed { message: "the backup is gone".into(), outlook: Outlook::Hopeless, file: true };
    bench.feed(Input::Attached { attempt, result: Err(failed) });
    assert!(forwards(&mut bench));
    attach_of(&bench.pass(5000));
}

#[test]
fn domains_of_the_host_that_cannot_be_read_stay_as_they_were() {
    let (mut bench, attempt, _) = up(DnsMode::File);
    bench.feed(done(attempt, Backend::File, false));
    let (attempt, _) = attach_of(&bench.pass(5000));
    let result = Ok(Attached { backend: Backend::File, repaired: false, message: String::new(), domains: None });
    bench.feed(Input::Attached { attempt, result });
    let effects = bench.ask("out.demo", Kind::A);
    assert!(matches!(&effects[..], [Effect::Ask { upstream: Upstream::Host, .. }]), "{effects:?}");
}

/// The last state that is told after this input.
fn told(bench: &mut Bench, input: Input) -> DnsState {
    bench.core.handle(bench.now, input);
    let effects = std::iter::from_fn(|| bench.core.poll_effect());
    effects.filter_map(|effect| if let Effect::Report(state) = effect { Some(state) } else { None }).last().unwrap()
}

#[test]
fn where_nothing_can_be_attached_names_are_off_and_not_ready_until_the_host_changes() {
    for (outlook, pause) in [(Outlook::Hopeless, 60_000), (Outlook::Taken, 5_000)] {
        let (mut bench, attempt, _) = up(DnsMode::Auto);
        let failed = AttachFailed { message: "nobody asks us".into(), outlook, file: false };
        let state = told(&mut bench, Input::Attached { attempt, result: Err(failed) });
        assert_eq!((state.backend.as_str(), state.ready, state.outlook), ("off", false, outlook));
        assert_eq!((state.message.as_str(), state.server.as_str()), ("nobody asks us", "246.246.0.2"));
        assert_eq!(state.domains, [""; 0]);
        assert_eq!(bench.pass(pause - 1), []);
        let (attempt, _) = attach_of(&bench.pass(1));
        let state = told(&mut bench, done(attempt, Backend::File, false));
        assert_eq!((state.backend.as_str(), state.ready, state.outlook), ("/etc/resolv.conf", true, Outlook::Open));
    }
}

#[test]
fn names_that_are_off_because_the_user_wants_it_are_as_wanted() {
    let mut bench = Bench::ready();
    bench.feed(mode(DnsMode::Off));
    let state = told(&mut bench, device(1, true));
    assert_eq!((state.backend.as_str(), state.ready, state.message.as_str()), ("off", true, ""));
}

#[test]
fn settings_are_checked_and_put_back_when_the_resolver_starts_anew() {
    let (mut bench, attempt, plan) = up(DnsMode::Auto);
    assert_eq!(bench.feed(done(attempt, Backend::Resolved, false)), []);
    let (attempt, again) = attach_of(&bench.feed(Input::ResolverChanged));
    assert_eq!(plan, again);
    bench.feed(done(attempt, Backend::Resolved, false));
    assert_eq!(bench.pass(59_999), []);
    attach_of(&bench.pass(1));
}

#[test]
fn a_file_that_something_keeps_overwriting_is_not_ready_until_it_stays_and_put_back_ever_more_rarely() {
    let (mut bench, mut attempt, _) = up(DnsMode::File);
    for _ in 0..9 {
        assert_eq!(bench.feed(done(attempt, Backend::File, true)), []);
        attempt = attach_of(&bench.pass(5000)).0;
    }
    for pause in [5_000, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000] {
        bench.core.handle(bench.now, done(attempt, Backend::File, true));
        let reported = std::iter::from_fn(|| bench.core.poll_effect()).last();
        if let Some(Effect::Report(state)) = reported {
            assert_eq!((state.ready, state.outlook), (false, Outlook::Overwritten));
            assert!(state.message.contains("keeps overwriting /etc/resolv.conf"), "{}", state.message);
        } else {
            assert!(pause > 5_000, "it is told the first time, and no more after that");
        }
        assert_eq!(bench.pass(pause - 1), []);
        attempt = attach_of(&bench.pass(1)).0;
    }
    // That it stays for a while is no reason to believe it.
    assert_eq!(bench.feed(done(attempt, Backend::File, false)), []);
    attempt = attach_of(&bench.pass(300_000)).0;
    let state = told(&mut bench, done(attempt, Backend::File, false));
    assert_eq!((state.ready, state.outlook, state.message.as_str()), (true, Outlook::Open, ""));
    // From the beginning.
    attempt = attach_of(&bench.pass(5000)).0;
    assert_eq!(bench.feed(done(attempt, Backend::File, true)), []);
    attach_of(&bench.pass(5000));
}

/// Lets a program overwrite the file every `period`, `times` times; gives what was told last, and when first that the
/// file is overwritten.
fn overwritten_every(period: Duration, times: u32) -> (DnsState, Option<Duration>) {
    let (mut bench, mut attempt, _) = up(DnsMode::File);
    let (begun, mut written, mut state, mut first) = (bench.now, 0, DnsState::default(), None);
    while written < times {
        let passed = bench.now.since(begun);
        let repaired = passed >= period * (written + 1);
        if repaired {
            written = u32::try_from(passed.as_millis() / period.as_millis()).unwrap();
        }
        bench.core.handle(bench.now, done(attempt, Backend::File, repaired));
        for effect in std::iter::from_fn(|| bench.core.poll_effect()) {
            if let Effect::Report(told) = effect {
                assert!(first.is_none() || told.outlook == Outlook::Overwritten, "withdrawn after {passed:?}");
                if told.outlook == Outlook::Overwritten {
                    first.get_or_insert(passed);
                }
                state = told;
            }
        }
        let pause = bench.core.poll_deadline().unwrap().since(bench.now);
        attempt = attach_of(&bench.pass(u64::try_from(pause.as_millis()).unwrap())).0;
    }
    (state, first)
}

#[test]
fn a_file_that_is_overwritten_less_often_than_it_is_looked_at_is_not_ready_either() {
    let (state, first) = overwritten_every(Duration::from_secs(15), 1000);
    assert_eq!((state.ready, state.outlook), (false, Outlook::Overwritten));
    assert_eq!(first, Some(Duration::from_secs(150)), "at the tenth time");
}

#[test]
fn a_file_that_is_rewritten_once_an_hour_is_put_back_and_ready() {
    let (state, first) = overwritten_every(Duration::from_secs(3600), 100);
    assert_eq!((state.ready, state.outlook, first), (true, Outlook::Open, None));
}

#[test]
fn other_settings_of_ours_in_an_overwritten_file_do_not_make_it_stay() {
    let (mut bench, mut attempt, _) = up(DnsMode::File);
    for _ in 0..9 {
        assert_eq!(bench.feed(done(attempt, Backend::File, true)), []);
        attempt = attach_of(&bench.pass(5000)).0;
    }
    assert_eq!(told(&mut bench, done(attempt, Backend::File, true)).outlook, Outlook::Overwritten);
    let (attempt, _) = attach_of(&bench.feed(Input::Translation(translation_of(2, true, &["10.43.0.0/16"]))));
    bench.core.handle(bench.now, done(attempt, Backend::File, false));
    let reported = std::iter::from_fn(|| bench.core.poll_effect()).last();
    assert!(
        !matches!(&reported, Some(Effect::Report(state)) if state.outlook != Outlook::Overwritten),
        "nothing else is told: {reported:?}"
    );
}

#[test]
fn by_the_file_other_names_are_passed_on_and_external_names_are_followed_by_the_hosts_servers() {
    let (mut bench, attempt, _) = up(DnsMode::File);
    bench.feed(done(attempt, Backend::File, false));
    for name in ["www.example.com", "api.dev", "printer"] {
        let effects = bench.ask(name, Kind::A);
        assert!(matches!(&effects[..], [Effect::Forward { .. }]), "{effects:?}");
    }
    assert_eq!(bench.answer("web", Kind::A), ["web. A 10.43.0.9"]);
    // What this cluster does not have, another connection's may: the host asks nobody after us.
    let effects = bench.ask("missing.demo", Kind::A);
    let [Effect::Deny { denial, failure, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((&text(denial)[0], &text(failure)[0]), (&"NXDomain".to_owned(), &"ServFail".to_owned()));
    let empty = bench.answer("web.demo", Kind::TXT);
    assert!(empty.len() == 1 && empty[0].starts_with("authority "), "a name that is there is not denied: {empty:?}");
    let effects = bench.ask("out.demo", Kind::A);
    let [Effect::Ask { id, upstream: Upstream::Host, query, .. }] = &effects[..] else { panic!("{effects:?}") };
    let answer = Some(upstream_answer(query, Code::NoError, &["203.0.113.5"]));
    assert_eq!(
        reply_of(&bench.feed(Input::Answered { id: *id, answer })),
        ["out.demo. CNAME www.corp.example.", "www.corp.example. A 203.0.113.5",]
    );
}

#[test]
fn an_answer_that_comes_when_somebody_else_is_asked_already_is_of_no_use() {
    let (mut bench, attempt, _) = up(DnsMode::File);
    bench.feed(done(attempt, Backend::File, false));
    let asked = |effects: &[Effect], wanted| {
        let [Effect::Ask { id, upstream, query, .. }] = effects else { panic!("{effects:?}") };
        assert_eq!(*upstream, wanted);
        (*id, query.clone())
    };
    let (id, query) = asked(&bench.ask("portal.site.example", Kind::A), Upstream::Cluster);
    let query = parse_query(&query).unwrap();
    let alias = Record { name: query.question.name.clone(), ttl: 300, data: Data::Cname("www.vendor.example".into()) };
    let answer = Answer { answers: vec![alias], ..Answer::empty(Code::NoError) };
    let effects = bench.feed(Input::Answered { id, answer: Some(build(&query, &answer, Limit::Tcp)) });
    let (late, query) = asked(&effects, Upstream::Outside);
    let (id, _) = asked(&bench.pass(2000), Upstream::Host);
    assert_eq!(bench.feed(Input::Answered { id: late, answer: None }), [], "the host's servers may still answer");
    let raw = |address| Some(upstream_answer(&query, Code::NoError, &[address]));
    assert_eq!(bench.feed(Input::Answered { id: late, answer: raw("192.168.1.1") }), [], "that is not the host's word");
    assert_eq!(
        reply_of(&bench.feed(Input::Answered { id, answer: raw("203.0.113.9") })),
        ["portal.site.example. CNAME www.vendor.example.", "www.vendor.example. A 203.0.113.9"]
    );
}

fn forwards(bench: &mut Bench) -> bool {
    matches!(&bench.ask("www.example.com", Kind::A)[..], [Effect::Forward { .. }])
}

#[test]
fn names_of_the_host_are_passed_on_while_the_file_may_be_ours() {
    let (mut bench, attempt, _) = up(DnsMode::Auto);
    bench.feed(done(attempt, Backend::File, false));
    for file in [true, true, false] {
        let (attempt, _) = attach_of(&bench.pass(300_000));
        assert!(forwards(&mut bench), "while it is looked at");
        let failed = AttachFailed { message: "late".into(), outlook: Outlook::Open, file };
        bench.feed(Input::Attached { attempt, result: Err(failed) });
        assert_eq!(forwards(&mut bench), file);
    }
}

#[test]
fn a_connection_beside_the_editor_passes_nothing_on_while_it_looks() {
    let (mut bench, attempt, _) = up(DnsMode::File);
    assert!(forwards(&mut bench), "the file may be ours before we hear of it");
    bench.feed(done(attempt, Backend::Beside, false));
    attach_of(&bench.pass(5000));
    assert!(!forwards(&mut bench), "the editor asks us: that would go round in a circle");
}

#[test]
fn an_edit_that_takes_us_out_of_the_file_is_not_ready_and_is_looked_at_again() {
    let (mut bench, attempt, _) = up(DnsMode::File);
    let failed = AttachFailed { message: "put it back".into(), outlook: Outlook::Edited, file: true };
    let state = told(&mut bench, Input::Attached { attempt, result: Err(failed) });
    assert_eq!((state.ready, state.outlook, state.message.as_str()), (false, Outlook::Edited, "put it back"));
    assert!(forwards(&mut bench), "as the second server");
    let (attempt, _) = attach_of(&bench.pass(5000));
    assert!(told(&mut bench, done(attempt, Backend::File, false)).ready);
}

#[test]
fn that_a_file_was_overwritten_does_not_hide_that_it_was_edited() {
    let (mut bench, attempt, _) = up(DnsMode::File);
    let (attempt, message) = {
        bench.feed(done(attempt, Backend::File, true));
        (attach_of(&bench.pass(5000)).0, "somebody edited it".to_owned())
    };
    let result = Ok(Attached { backend: Backend::File, repaired: false, message, domains: None });
    let state = told(&mut bench, Input::Attached { attempt, result });
    let both = state.message.contains("something else wrote") && state.message.ends_with("; somebody edited it");
    assert!(both, "{}", state.message);
}

#[test]
fn what_the_own_clusters_servers_do_not_answer_another_connection_may() {
    let (mut bench, attempt, _) = up(DnsMode::File);
    bench.feed(done(attempt, Backend::File, false));
    let codes = |effects: &[Effect]| {
        let [Effect::Deny { denial, failure, .. }] = effects else { panic!("{effects:?}") };
        assert_eq!((&text(denial)[0], &text(failure)[0]), (&"ServFail".to_owned(), &"ServFail".to_owned()));
    };
    let asked = |bench: &mut Bench| {
        let effects = bench.ask("ledger.site.example", Kind::A);
        let [Effect::Ask { id, query, limit, .. }] = &effects[..] else { panic!("{effects:?}") };
        assert_eq!(*limit, Duration::from_secs(3), "the others have a second after it");
        (*id, query.clone())
    };
    let (id, query) = asked(&mut bench);
    codes(&bench.feed(Input::Answered { id, answer: Some(upstream_answer(&query, Code::ServFail, &[])) }));
    let (id, _) = asked(&mut bench);
    codes(&bench.feed(Input::Answered { id, answer: None }));
    asked(&mut bench);
    codes(&bench.pass(3000));
    // What is ours and cannot be told is not another's.
    let (id, query) = asked(&mut bench);
    let answer = Some(upstream_answer(&query, Code::NoError, &["192.168.1.1"]));
    let effects = bench.feed(Input::Answered { id, answer });
    let [Effect::Translate { id, .. }] = effects[..] else { panic!("{effects:?}") };
    let foreign = Some(Err(AllocateError::Foreign(ip("192.168.1.1"))));
    assert_eq!(reply_of(&bench.feed(Input::Translated { id, result: foreign })), ["ServFail"]);
}

#[test]
fn restore_waits_for_a_try_in_progress_undoes_it_and_nothing_is_attached_after() {
    let (mut bench, attempt, _) = up(DnsMode::File);
    assert_eq!(bench.feed(Input::Restore(ReplyId(90))), []);
    let effects = bench.feed(done(attempt, Backend::File, false));
    let [Effect::Detach { attempt }] = effects[..] else { panic!("{effects:?}") };
    assert_eq!(bench.feed(Input::Restore(ReplyId(91))), []);
    let answered = |id| Effect::AnswerRestore { id: ReplyId(id), left: vec![] };
    assert_eq!(bench.feed(Input::Restored { attempt, left: vec![] }), [answered(90), answered(91)]);
    assert_eq!(bench.feed(device(2, true)), []);
    assert_eq!(bench.feed(Input::Restore(ReplyId(92))), [answered(92)]);
}

#[test]
fn a_device_that_goes_gives_the_host_back_and_one_that_returns_attaches_again() {
    let (mut bench, attempt, _) = up(DnsMode::File);
    bench.feed(done(attempt, Backend::File, false));
    let effects = bench.feed(device(2, false));
    let [Effect::Detach { attempt }] = effects[..] else { panic!("{effects:?}") };
    assert_eq!(bench.feed(Input::Restored { attempt, left: vec![] }), []);
    attach_of(&bench.feed(device(3, true)));
}

#[test]
fn without_attachment_the_answers_are_there_all_the_same() {
    let mut bench = Bench::ready();
    assert_eq!(bench.feed(device(1, true)), []);
    assert_eq!(bench.answer("web", Kind::A), ["web. A 10.43.0.9"]);
    assert_eq!(bench.feed(Input::Restore(ReplyId(90))), [Effect::AnswerRestore { id: ReplyId(90), left: vec![] }]);
}

#[test]
fn the_namespaces_in_sight_are_told_where_they_are_not_all() {
    let mut bench = Bench::ready();
    let Input::Records(_, known) = records(true) else { panic!() };
    let mut known = (*known).clone();
    known.namespaces = Some(["demo".into()].into());
    bench.core.handle(bench.now, Input::Records(Generation(2), Arc::new(known)));
    let reports = std::iter::from_fn(|| bench.core.poll_effect());
    let told = reports.filter_map(|effect| if let Effect::Report(state) = effect { state.only } else { None }).last();
    assert_eq!(told, Some(vec!["demo".to_owned()]));
}

#[test]
fn a_resolver_that_changes_before_there_is_a_plan_or_where_names_are_off_wakes_nobody() {
    let mut bench = Bench::empty();
    for input in [configured(), device(1, true), Input::ResolverChanged] {
        bench.feed(input);
    }
    assert_eq!(bench.core.poll_deadline(), None, "the domain is not known");
    let (mut bench, ..) = up(DnsMode::Auto);
    bench.feed(mode(DnsMode::Off));
    bench.feed(Input::ResolverChanged);
    assert_eq!(bench.core.poll_deadline(), None, "names are off");
}
