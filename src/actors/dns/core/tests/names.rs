use super::*;

const DENIED: [&str; 1] = ["authority cluster.local. SOA"];
const UNKNOWN: [&str; 2] = ["NXDomain", "authority cluster.local. SOA"];

#[test]
fn a_service_is_answered_under_every_form_of_its_name() {
    let mut bench = Bench::ready();
    for name in ["web.demo.svc.cluster.local", "web.demo.svc", "web.demo", "web"] {
        assert_eq!(bench.answer(name, Kind::A), [format!("{name}. A 10.43.0.9")]);
        assert_eq!(bench.answer(name, Kind::AAAA), [format!("{name}. AAAA fd43::9")]);
        assert_eq!(bench.answer(name, Kind::TXT), DENIED);
        assert_eq!(bench.answer(name, Kind::HTTPS), DENIED);
    }
    assert_eq!(bench.answer("api.other", Kind::A), ["api.other. A 10.43.0.20"]);
    assert_eq!(bench.answer("api.other", Kind::AAAA), DENIED);
}

#[test]
fn what_does_not_exist_is_denied_and_what_is_between_names_is_empty() {
    let mut bench = Bench::ready();
    for name in [
        "nope.demo.svc.cluster.local",
        "web.nope.svc.cluster.local",
        "nope",
        "nope.demo",
        "empty.demo",
        "a.b.c.web.demo",
        "x.web.demo",
        "nope.cluster.local",
        "nope.svc.cluster.local",
        "10-9-9-9.demo.pod.cluster.local",
    ] {
        assert_eq!(bench.answer(name, Kind::A), UNKNOWN, "{name}");
    }
    for name in ["cluster.local", "svc.cluster.local", "pod.cluster.local", "demo.svc.cluster.local", "svc"] {
        assert_eq!(bench.answer(name, Kind::A), DENIED, "{name}");
    }
}

#[test]
fn a_headless_service_is_its_endpoints() {
    let mut bench = Bench::ready();
    assert_eq!(bench.answer("db.demo", Kind::A), ["db.demo. A 10.42.0.7", "db.demo. A 10.42.0.8"]);
    assert_eq!(
        bench.answer("db-0.db.demo.svc.cluster.local", Kind::A),
        ["db-0.db.demo.svc.cluster.local. A 10.42.0.7"]
    );
    assert_eq!(bench.answer("10-42-0-8.db.demo", Kind::A), ["10-42-0-8.db.demo. A 10.42.0.8"]);
    assert_eq!(bench.answer("10-42-0-5.web.demo", Kind::A), ["10-42-0-5.web.demo. A 10.42.0.5"]);
    assert_eq!(
        bench.answer("10-42-0-5.demo.pod.cluster.local", Kind::A),
        ["10-42-0-5.demo.pod.cluster.local. A 10.42.0.5"]
    );
}

#[test]
fn ports_are_located_with_the_addresses_of_their_targets() {
    let mut bench = Bench::ready();
    assert_eq!(
        bench.answer("_http._tcp.web.demo.svc.cluster.local", Kind::SRV),
        [
            "_http._tcp.web.demo.svc.cluster.local. SRV 0 50 80 web.demo.svc.cluster.local.",
            "additional web.demo.svc.cluster.local. A 10.43.0.9",
            "additional web.demo.svc.cluster.local. AAAA fd43::9",
        ]
    );
    assert_eq!(
        bench.answer("_pg._tcp.db.demo.svc.cluster.local", Kind::SRV),
        [
            "_pg._tcp.db.demo.svc.cluster.local. SRV 0 50 5432 db-0.db.demo.svc.cluster.local.",
            "_pg._tcp.db.demo.svc.cluster.local. SRV 0 50 5432 10-42-0-8.db.demo.svc.cluster.local.",
            "additional db-0.db.demo.svc.cluster.local. A 10.42.0.7",
            "additional 10-42-0-8.db.demo.svc.cluster.local. A 10.42.0.8",
        ]
    );
    assert_eq!(bench.answer("_nope._tcp.web.demo.svc.cluster.local", Kind::SRV), UNKNOWN);
}

#[test]
fn external_names_are_kept_as_aliases_and_followed_inside_the_cluster() {
    let mut bench = Bench::ready();
    assert_eq!(bench.answer("out.demo", Kind::CNAME), ["out.demo. CNAME www.corp.example."]);
    assert_eq!(bench.answer("inner", Kind::CNAME), ["inner. CNAME api.other.svc.cluster.local."]);
    assert_eq!(
        bench.answer("inner", Kind::A),
        ["inner. CNAME api.other.svc.cluster.local.", "api.other.svc.cluster.local. A 10.43.0.20",]
    );
    assert_eq!(bench.answer("loop.demo", Kind::A), ["ServFail"]);
    let effects = bench.ask("ledger.demo", Kind::A);
    let [Effect::Ask { id, upstream: Upstream::Cluster, query, .. }] = &effects[..] else { panic!("{effects:?}") };
    let answer = Some(upstream_answer(query, Code::NoError, &["10.42.9.9"]));
    assert_eq!(
        reply_of(&bench.feed(Input::Answered { id: *id, answer })),
        ["ledger.demo. CNAME ledger.site.example.", "ledger.site.example. A 10.42.9.9",]
    );
}

#[test]
fn addresses_have_names() {
    let mut bench = Bench::ready();
    let arpa = "in-addr.arpa";
    let mut name = |reversed: &str| bench.answer(&format!("{reversed}.{arpa}"), Kind::PTR).join(" ");
    assert_eq!(name("9.0.43.10"), "9.0.43.10.in-addr.arpa. PTR web.demo.svc.cluster.local.");
    assert_eq!(name("7.0.42.10"), "7.0.42.10.in-addr.arpa. PTR db-0.db.demo.svc.cluster.local.");
    assert_eq!(name("5.0.42.10"), "5.0.42.10.in-addr.arpa. PTR 10-42-0-5.demo.pod.cluster.local.");
    assert_eq!(name("9.1.246.246"), "9.1.246.246.in-addr.arpa. PTR web.demo.svc.cluster.local.");
    assert_eq!(name("99.0.42.10"), "NXDomain authority in-addr.arpa. SOA");
    assert_eq!(name("1.1.168.192"), "Refused");
    let v6 = "9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.3.4.d.f.ip6.arpa";
    assert_eq!(bench.answer(v6, Kind::PTR), [format!("{v6}. PTR web.demo.svc.cluster.local.")]);
}

#[test]
fn the_apex_and_podways_own_names_are_answered() {
    let mut bench = Bench::ready();
    assert_eq!(bench.answer("cluster.local", Kind::SOA), ["cluster.local. SOA"]);
    assert_eq!(bench.answer("cluster.local", Kind::NS), ["cluster.local. NS ns.dns.cluster.local."]);
    assert_eq!(bench.answer("ns.dns.cluster.local", Kind::A), ["ns.dns.cluster.local. A 10.43.0.10"]);
    assert_eq!(bench.answer("dns-version.cluster.local", Kind::TXT), ["dns-version.cluster.local. TXT 1.1.0"]);
    let effects = bench.ask("127-0-0-1.web.demo.podway", Kind::A);
    assert!(matches!(&effects[..], [Effect::Reply { .. }]), "{effects:?}");
    assert_eq!(reply_of(&effects), ["127-0-0-1.web.demo.podway. A 246.246.1.0"]);
    assert_eq!(bench.answer("web.demo.podway", Kind::A), ["authority podway. SOA"]);
    assert_eq!(bench.answer("x.podway", Kind::A), ["NXDomain", "authority podway. SOA"]);
}

#[test]
fn other_names_are_refused_and_a_namespace_named_like_a_public_domain_takes_none() {
    let mut bench = Bench::ready();
    for name in ["www.example.com", "api.dev", "localhost", "", "printer.local"] {
        assert_eq!(bench.answer(name, Kind::A), ["Refused"], "{name}");
    }
    assert_eq!(bench.answer("api.dev.svc", Kind::A), ["api.dev.svc. A 10.43.0.20"]);
}

#[test]
fn a_namespace_out_of_sight_is_asked_by_the_full_name_and_answered_by_the_one_asked() {
    let mut bench = Bench::ready();
    let Input::Records(_, known) = records(true) else { panic!() };
    let mut known = (*known).clone();
    known.namespaces = Some(["demo".into()].into());
    bench.feed(Input::Records(Generation(2), Arc::new(known)));
    let effects = bench.ask("api.other", Kind::A);
    let [Effect::Ask { id, query, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(&*parse_query(query).unwrap().question.name, "api.other.svc.cluster.local");
    let answer = Some(upstream_answer(query, Code::NoError, &["10.43.0.20"]));
    assert_eq!(reply_of(&bench.feed(Input::Answered { id: *id, answer })), ["api.other. A 10.43.0.20"]);
    assert_eq!(bench.answer("api.other.svc.cluster.local", Kind::A), ["api.other.svc.cluster.local. A 10.43.0.20"]);
}
