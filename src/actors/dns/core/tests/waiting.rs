use super::*;

fn ask_of(effects: &[Effect]) -> (QuestionId, Bytes) {
    let [Effect::Ask { id, query, .. }] = effects else { panic!("{effects:?}") };
    (*id, query.clone())
}

fn translate_of(effects: &[Effect]) -> (LookupId, Vec<IpAddr>) {
    let [Effect::Translate { id, addresses, .. }] = effects else { panic!("{effects:?}") };
    (*id, addresses.clone())
}

fn handed_out(id: LookupId, pairs: &[(&str, &str)]) -> Input {
    Input::Translated { id, result: Some(Ok(pairs.iter().map(|(real, vip)| (ip(real), ip(vip))).collect())) }
}

#[test]
fn s54_dns_waits_for_ranges() {
    // The question before the facts, in every order of them, and after: the same answer, never the real address.
    let facts = || [configured(), info(), records(true), translation(&["10.43.0.0/16"])];
    for first in 0..4 {
        for question_at in 0..=4 {
            let mut bench = Bench::empty();
            let mut effects = Vec::new();
            for step in 0..=4 {
                if step == question_at {
                    effects.extend(bench.ask("web.demo.svc.cluster.local", Kind::A));
                }
                if step < 4 {
                    effects.extend(bench.feed(facts()[(first + step) % 4].clone()));
                }
            }
            if question_at == 0 && matches!(&effects[..], [Effect::Reply { .. }]) {
                panic!("answered before anything was known");
            }
            let (id, addresses) = translate_of(&effects);
            assert_eq!(addresses, [ip("10.43.0.9")]);
            let effects = bench.feed(handed_out(id, &[("10.43.0.9", "246.246.1.9")]));
            assert_eq!(reply_of(&effects), ["web.demo.svc.cluster.local. A 246.246.1.9"]);
        }
    }
}

#[test]
fn a_question_waits_for_facts_no_longer_than_two_seconds_and_is_never_denied() {
    let mut bench = Bench::empty();
    for input in [configured(), info(), records(false), translation(&[])] {
        bench.feed(input);
    }
    assert_eq!(bench.ask("nope.demo.svc.cluster.local", Kind::A), []);
    assert_eq!(bench.core.poll_deadline(), Some(Millis(3000)));
    assert_eq!(bench.pass(1999), []);
    assert_eq!(reply_of(&bench.pass(1)), ["ServFail"]);
    assert_eq!(bench.core.poll_deadline(), None);
}

#[test]
fn answers_wait_while_translation_is_not_ready_and_denials_do_not() {
    let mut bench = Bench::ready();
    bench.feed(Input::Translation(translation_of(2, false, &[])));
    assert_eq!(bench.answer("nope", Kind::A)[0], "NXDomain");
    assert_eq!(bench.ask("web", Kind::A), []);
    assert_eq!(reply_of(&bench.feed(Input::Translation(translation_of(3, true, &[])))), ["web. A 10.43.0.9"]);
}

#[test]
fn r10_vip_before_table() {
    // The address leaves only after ProxyVia, which publishes its table before it replies.
    let mut bench = Bench::ready();
    bench.feed(Input::Translation(translation_of(2, true, &["10.42.0.0/16"])));
    let (id, addresses) = translate_of(&bench.ask("db.demo", Kind::A));
    assert_eq!(addresses, [ip("10.42.0.7"), ip("10.42.0.8")]);
    let effects = bench.feed(handed_out(id, &[("10.42.0.7", "246.246.1.1"), ("10.42.0.8", "246.246.1.2")]));
    assert_eq!(reply_of(&effects), ["db.demo. A 246.246.1.1", "db.demo. A 246.246.1.2"]);
    assert_eq!(bench.feed(handed_out(id, &[])), [], "a second reply is stale");
}

#[test]
fn a_partial_or_failed_translation_fails_the_whole_answer() {
    for result in [
        Some(Ok([(ip("10.42.0.7"), ip("246.246.1.1"))].into())),
        Some(Err(AllocateError::Exhausted)),
        Some(Err(AllocateError::Foreign(ip("10.42.0.8")))),
        None,
    ] {
        let mut bench = Bench::ready();
        bench.feed(Input::Translation(translation_of(2, true, &["10.42.0.0/16"])));
        let (id, _) = translate_of(&bench.ask("db.demo", Kind::A));
        assert_eq!(reply_of(&bench.feed(Input::Translated { id, result })), ["ServFail"]);
    }
}

#[test]
fn a_translation_that_is_not_ready_is_asked_again_when_something_changes() {
    let mut bench = Bench::ready();
    bench.feed(Input::Translation(translation_of(2, true, &["10.43.0.0/16"])));
    let (id, _) = translate_of(&bench.ask("web", Kind::A));
    assert_eq!(bench.feed(Input::Translated { id, result: Some(Err(AllocateError::NotReady)) }), []);
    let (again, _) = translate_of(&bench.feed(Input::Translation(translation_of(3, true, &["10.43.0.0/16"]))));
    assert_eq!(id, again);
    bench.feed(Input::Translated { id, result: Some(Err(AllocateError::NotReady)) });
    assert_eq!(reply_of(&bench.pass(2000)), ["ServFail"]);
}

#[test]
fn an_address_that_is_not_certainly_the_clusters_goes_through_proxy_via() {
    let mut bench = Bench::ready();
    let (id, addresses) = translate_of(&bench.ask("stray.demo", Kind::A));
    assert_eq!(addresses, [ip("192.168.1.1")]);
    let foreign = Some(Err(AllocateError::Foreign(addresses[0])));
    assert_eq!(reply_of(&bench.feed(Input::Translated { id, result: foreign })), ["ServFail"]);

    let (id, query) = ask_of(&bench.ask("ledger.site.example", Kind::A));
    let answer = Some(upstream_answer(&query, Code::NoError, &["198.51.100.10"]));
    let (id, _) = translate_of(&bench.feed(Input::Answered { id, answer }));
    let effects = bench.feed(handed_out(id, &[("198.51.100.10", "198.51.100.10")]));
    assert_eq!(reply_of(&effects), ["ledger.site.example. A 198.51.100.10"]);
}

#[test]
fn s62_identical_questions_both_answered() {
    let mut bench = Bench::ready();
    let (id, query) = ask_of(&bench.ask("ledger.site.example", Kind::A));
    assert_eq!(bench.ask("ledger.site.example", Kind::A), []);
    let other = bench.ask("ledger.site.example", Kind::AAAA);
    assert!(matches!(&other[..], [Effect::Ask { .. }]), "another type is another question");
    let answer = Some(upstream_answer(&query, Code::NoError, &["10.42.3.3"]));
    let effects = bench.feed(Input::Answered { id, answer });
    let ids: Vec<ReplyId> =
        effects.iter().filter_map(|e| if let Effect::Reply { id, .. } = e { Some(*id) } else { None }).collect();
    assert_eq!((ids, effects.len()), (vec![ReplyId(1), ReplyId(2)], 2));
}

#[test]
fn what_an_upstream_said_is_kept_for_five_seconds_denials_too() {
    for (code, addresses) in [(Code::NoError, &["10.42.3.3"][..]), (Code::NxDomain, &[])] {
        let mut bench = Bench::ready();
        let (id, query) = ask_of(&bench.ask("ledger.site.example", Kind::A));
        let first = bench.feed(Input::Answered { id, answer: Some(upstream_answer(&query, code, addresses)) });
        bench.pass(4999);
        assert_eq!(bench.answer("ledger.site.example", Kind::A), reply_of(&first));
        bench.pass(1);
        ask_of(&bench.ask("ledger.site.example", Kind::A));
    }
}

#[test]
fn a_cluster_that_cannot_be_asked_is_a_failure_and_is_not_kept() {
    let mut bench = Bench::ready();
    let (id, _) = ask_of(&bench.ask("ledger.site.example", Kind::A));
    assert_eq!(reply_of(&bench.feed(Input::Answered { id, answer: None })), ["ServFail"]);
    let (id, query) = ask_of(&bench.ask("ledger.site.example", Kind::A));
    let failed = Some(upstream_answer(&query, Code::ServFail, &[]));
    assert_eq!(reply_of(&bench.feed(Input::Answered { id, answer: failed })), ["ServFail"]);
    ask_of(&bench.ask("ledger.site.example", Kind::A));
    assert_eq!(reply_of(&bench.pass(4000)), ["ServFail"]);
    let late = Some(upstream_answer(&query, Code::NoError, &["10.42.3.3"]));
    assert_eq!(bench.feed(Input::Answered { id, answer: late }), []);
}

#[test]
fn questions_in_progress_are_bounded() {
    let mut bench = Bench::ready();
    for n in 0..1024 {
        ask_of(&bench.ask(&format!("h{n}.site.example"), Kind::A));
    }
    assert_eq!(reply_of(&bench.ask("one-more.site.example", Kind::A)), ["ServFail"]);
    assert_eq!(bench.answer("web", Kind::A), ["web. A 10.43.0.9"], "what is known is answered all the same");
    for _ in 0..255 {
        assert_eq!(bench.ask("h0.site.example", Kind::A), []);
    }
    assert_eq!(reply_of(&bench.ask("h0.site.example", Kind::A)), ["ServFail"]);
    assert_eq!(bench.pass(4000).len(), 1024 + 255);
}

#[test]
fn an_older_fact_is_dropped() {
    let mut bench = Bench::ready();
    bench.feed(Input::Translation(translation_of(5, true, &[])));
    bench.feed(Input::Translation(translation_of(4, true, &["10.43.0.0/16"])));
    assert_eq!(bench.answer("web", Kind::A), ["web. A 10.43.0.9"]);
}
