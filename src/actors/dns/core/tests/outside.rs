//! Names of the cluster that lead out of it.

use super::*;

fn asked(bench: &mut Bench, name: &str, upstream: Upstream) -> (QuestionId, Bytes) {
    let effects = bench.ask(name, Kind::A);
    ask_of(&effects, upstream)
}

fn ask_of(effects: &[Effect], wanted: Upstream) -> (QuestionId, Bytes) {
    let [Effect::Ask { id, upstream, query, .. }] = effects else { panic!("{effects:?}") };
    assert_eq!(*upstream, wanted);
    (*id, query.clone())
}

fn name_of(query: &Bytes) -> String {
    parse_query(query).unwrap().question.name.to_string()
}

/// An answer of aliases, from the name asked for to the last one, which has these addresses.
fn chain(query: &Bytes, targets: &[&str], addresses: &[&str]) -> Option<Bytes> {
    let query = parse_query(query).unwrap();
    let mut owner = query.question.name.clone();
    let mut answers = Vec::new();
    for target in targets {
        answers.push(Record { name: owner, ttl: 300, data: Data::Cname((*target).into()) });
        owner = (*target).into();
    }
    answers.extend(addresses.iter().map(|a| Record { name: owner.clone(), ttl: 300, data: Data::from(ip(a)) }));
    Some(build(&query, &Answer { answers, ..Answer::empty(Code::NoError) }, Limit::Tcp))
}

/// ProxyVia finds each of these to be none of the cluster's, and hands out the others as they are.
fn translated(bench: &mut Bench, mut effects: Vec<Effect>, foreign: &[&str]) -> Vec<Effect> {
    let foreign: Vec<IpAddr> = foreign.iter().map(|address| ip(address)).collect();
    while let [Effect::Translate { id, addresses, .. }] = &effects[..] {
        let result = match addresses.iter().find(|address| foreign.contains(address)) {
            Some(address) => Err(AllocateError::Foreign(*address)),
            None => Ok(addresses.iter().map(|address| (*address, *address)).collect()),
        };
        effects = bench.feed(Input::Translated { id: *id, result: Some(result) });
    }
    effects
}

#[test]
fn an_alias_out_of_the_cluster_is_answered_whole_by_the_clusters_servers() {
    let mut bench = Bench::ready();
    let (id, query) = asked(&mut bench, "out.demo", Upstream::Outside);
    assert_eq!(name_of(&query), "www.corp.example");
    let answer = chain(&query, &["edge.cdn.example"], &["203.0.113.5", "10.42.0.5"]);
    let effects = bench.feed(Input::Answered { id, answer });
    let whole = [
        "out.demo. CNAME www.corp.example.",
        "www.corp.example. CNAME edge.cdn.example.",
        "edge.cdn.example. A 203.0.113.5",
        "edge.cdn.example. A 10.42.0.5",
    ];
    assert_eq!(reply_of(&translated(&mut bench, effects, &["203.0.113.5"])), whole);
    let effects = bench.ask("out.demo", Kind::A);
    assert_eq!(reply_of(&translated(&mut bench, effects, &["203.0.113.5"])), whole, "kept");
    let (id, query) = {
        let effects = bench.ask("out.demo", Kind::AAAA);
        ask_of(&effects, Upstream::Outside)
    };
    let gone = Some(upstream_answer(&query, Code::NxDomain, &[]));
    assert_eq!(
        reply_of(&bench.feed(Input::Answered { id, answer: gone })),
        ["NXDomain", "out.demo. CNAME www.corp.example."]
    );
}

#[test]
fn an_alias_of_the_clusters_servers_that_leads_out_is_answered_whole_and_followed_where_it_stops() {
    let mut bench = Bench::ready();
    let (id, query) = asked(&mut bench, "portal.site.example", Upstream::Cluster);
    let answer = chain(&query, &["www.vendor.example"], &["203.0.113.9"]);
    let effects = bench.feed(Input::Answered { id, answer });
    let whole = ["portal.site.example. CNAME www.vendor.example.", "www.vendor.example. A 203.0.113.9"];
    assert_eq!(reply_of(&translated(&mut bench, effects, &["203.0.113.9"])), whole);

    let (id, query) = asked(&mut bench, "short.site.example", Upstream::Cluster);
    let answer = chain(&query, &["www.vendor.example"], &[]);
    let (id, query) = ask_of(&bench.feed(Input::Answered { id, answer }), Upstream::Outside);
    assert_eq!(name_of(&query), "www.vendor.example");
    let effects = bench.feed(Input::Answered { id, answer: chain(&query, &[], &["203.0.113.9"]) });
    assert_eq!(
        reply_of(&translated(&mut bench, effects, &["203.0.113.9"])),
        ["short.site.example. CNAME www.vendor.example.", "www.vendor.example. A 203.0.113.9"]
    );

    // One that never ends is a failure.
    let (mut id, mut query) = asked(&mut bench, "endless.site.example", Upstream::Cluster);
    for hop in 0.. {
        assert!(hop <= 9, "still followed");
        let next = format!("hop-{hop}.site.example");
        let effects = bench.feed(Input::Answered { id, answer: chain(&query, &[&next], &[]) });
        if let [Effect::Reply { .. }] = effects[..] {
            assert_eq!(reply_of(&effects), ["ServFail"]);
            break;
        }
        (id, query) = ask_of(&effects, Upstream::Cluster);
    }
}

#[test]
fn a_name_out_of_the_cluster_leads_to_no_local_network() {
    for (address, kind) in
        [("192.168.1.1", Kind::A), ("127.0.0.1", Kind::A), ("169.254.169.254", Kind::A), ("fd00::1", Kind::AAAA)]
    {
        let mut bench = Bench::ready();
        let (id, query) = {
            let effects = bench.ask("out.demo", kind);
            ask_of(&effects, Upstream::Outside)
        };
        let effects = bench.feed(Input::Answered { id, answer: chain(&query, &[], &[address]) });
        let effects = translated(&mut bench, effects, &[address]);
        assert_eq!(
            reply_of(&effects),
            ["out.demo. CNAME www.corp.example."],
            "the client follows it by the host's own"
        );
    }
    // A name of the cluster is not made public by saying so.
    let mut bench = Bench::ready();
    let (id, query) = asked(&mut bench, "ledger.site.example", Upstream::Cluster);
    let effects = bench.feed(Input::Answered { id, answer: chain(&query, &[], &["203.0.113.9"]) });
    assert_eq!(reply_of(&translated(&mut bench, effects, &["203.0.113.9"])), ["ServFail"]);
}

#[test]
fn where_the_cluster_cannot_be_asked_for_it_the_client_follows_the_alias_itself() {
    let mut bench = Bench::ready();
    let (id, _) = asked(&mut bench, "out.demo", Upstream::Outside);
    let alone = ["out.demo. CNAME www.corp.example."];
    assert_eq!(reply_of(&bench.feed(Input::Answered { id, answer: None })), alone);
    asked(&mut bench, "out.demo", Upstream::Outside);
    assert_eq!(bench.pass(1999), []);
    assert_eq!(reply_of(&bench.pass(1)), alone);
}
