use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query as WireQuery, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::{Answer, Code, Data, Kind, Limit, Malformed, Question, Record, Unanswerable};
use super::{build, build_query, failure, parse_answer, parse_query};

fn question(name: &str, kind: Kind) -> Question {
    Question { name: name.into(), kind }
}

fn wire(name: &str, kind: RecordType, edns: Option<(u16, u8)>) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.queries.push(WireQuery::query(Name::from_ascii(name).unwrap(), kind));
    message.edns = edns.map(|(size, version)| {
        let mut edns = Edns::new();
        edns.set_max_payload(size).set_version(version);
        edns
    });
    message.to_vec().unwrap()
}

fn answer_of(records: Vec<Record>) -> Answer {
    Answer { authoritative: true, answers: records, ..Answer::empty(Code::NoError) }
}

fn address(name: &str, address: &str) -> Record {
    Record { name: name.into(), ttl: 5, data: address.parse::<IpAddr>().unwrap().into() }
}

fn refused(bytes: &[u8]) -> Option<Message> {
    let Err(Unanswerable(answer)) = parse_query(bytes) else { panic!("taken") };
    answer.map(|bytes| Message::from_vec(&bytes).unwrap())
}

#[test]
fn the_clients_spelling_and_edns_are_echoed() {
    let query = parse_query(&wire("WeB.Demo.svc.", RecordType::A, Some((1232, 0)))).unwrap();
    assert_eq!(query.question, question("web.demo.svc", Kind::A));
    let built = build(&query, &answer_of(vec![address("web.demo.svc", "10.43.0.9")]), Limit::Udp);
    let message = Message::from_vec(&built).unwrap();
    assert_eq!(message.queries[0].name.to_ascii(), "WeB.Demo.svc.");
    assert_eq!(message.answers[0].name.to_ascii(), "WeB.Demo.svc.");
    assert!(message.edns.is_some());
    assert!(message.metadata.authoritative && message.metadata.recursion_available);
    assert_eq!(message.metadata.id, 7);
    let plain = parse_query(&wire("a.", RecordType::A, None)).unwrap();
    assert!(Message::from_vec(&failure(&plain, Code::ServFail)).unwrap().edns.is_none());
}

#[test]
fn an_answer_larger_than_the_client_takes_is_truncated_over_udp_only() {
    let records: Vec<Record> = (0..100).map(|n| address("h.demo.svc", &format!("10.42.0.{n}"))).collect();
    for (edns, cut) in [(None, true), (Some((1232, 0)), true), (Some((4096, 0)), false)] {
        let query = parse_query(&wire("h.demo.svc.", RecordType::A, edns)).unwrap();
        let udp = build(&query, &answer_of(records.clone()), Limit::Udp);
        let message = Message::from_vec(&udp).unwrap();
        assert!(udp.len() <= edns.map_or(512, |(size, _)| usize::from(size)));
        assert_eq!(message.metadata.truncation, cut);
        let tcp = Message::from_vec(&build(&query, &answer_of(records.clone()), Limit::Tcp)).unwrap();
        assert_eq!((tcp.answers.len(), tcp.metadata.truncation), (100, false));
    }
}

#[test]
fn additional_records_go_before_the_answer_is_truncated() {
    let query = parse_query(&wire("h.demo.svc.", RecordType::SRV, None)).unwrap();
    let target = Data::Srv { priority: 0, weight: 100, port: 80, target: "h.demo.svc.cluster.local".into() };
    let mut answer = answer_of(vec![Record { name: "h.demo.svc".into(), ttl: 5, data: target }]);
    answer.additional = (0..100).map(|n| address("h.demo.svc.cluster.local", &format!("10.42.0.{n}"))).collect();
    let message = Message::from_vec(&build(&query, &answer, Limit::Udp)).unwrap();
    assert_eq!((message.answers.len(), message.additionals.len()), (1, 0));
    assert!(!message.metadata.truncation);
}

#[test]
fn nonsense_is_answered_by_its_kind() {
    assert_eq!(refused(&[]), None);
    assert_eq!(refused(&[1, 2, 3]), None);
    let mut response = wire("a.", RecordType::A, None);
    response[2] |= 0x80;
    assert_eq!(refused(&response), None);

    let good = wire("a.", RecordType::A, None);
    assert_eq!(refused(&good[..14]).unwrap().metadata.response_code, ResponseCode::FormErr);
    let mut none = good.clone();
    none[5] = 0;
    assert_eq!(refused(&none[..12]).unwrap().metadata.response_code, ResponseCode::FormErr);
    let mut status = good.clone();
    status[2] |= 0x10;
    assert_eq!(refused(&status).unwrap().metadata.response_code, ResponseCode::NotImp);
    assert_eq!(refused(&wire("a.", RecordType::ANY, None)).unwrap().metadata.response_code, ResponseCode::NotImp);
    assert_eq!(refused(&wire("a.", RecordType::AXFR, None)).unwrap().metadata.response_code, ResponseCode::NotImp);
    let bad_version = refused(&wire("a.", RecordType::A, Some((1232, 1)))).unwrap();
    assert_eq!(bad_version.edns.unwrap().rcode_high(), 1);
    let mut message = Message::from_vec(&good).unwrap();
    message.queries[0].query_class = DNSClass::CH;
    assert_eq!(refused(&message.to_vec().unwrap()).unwrap().metadata.response_code, ResponseCode::Refused);
}

#[test]
fn an_upstreams_answer_must_fit_the_question() {
    let asked = question("db.site.example", Kind::A);
    let sent = parse_query(&build_query(9, &asked).unwrap()).unwrap();
    let good = build(&sent, &answer_of(vec![address("db.site.example", "198.51.100.10")]), Limit::Tcp);
    assert_eq!(parse_answer(&good, 9, &asked).unwrap().addresses(), ["198.51.100.10".parse::<IpAddr>().unwrap()]);
    assert_eq!(parse_answer(&good, 8, &asked), Err(Malformed::Mismatch));
    assert_eq!(parse_answer(&good, 9, &question("other.example", Kind::A)), Err(Malformed::Mismatch));
    assert_eq!(parse_answer(&failure(&sent, Code::Refused), 9, &asked), Err(Malformed::Failed));
    assert_eq!(parse_answer(&failure(&sent, Code::ServFail), 9, &asked), Err(Malformed::Failed));
    assert_eq!(parse_answer(&good[..20], 9, &asked), Err(Malformed::Unreadable));
    let many = answer_of((0..200).map(|n| address("db.site.example", &format!("10.0.0.{n}"))).collect());
    let cut = build(&parse_query(&wire("db.site.example.", RecordType::A, None)).unwrap(), &many, Limit::Udp);
    assert_eq!(parse_answer(&cut, 7, &asked), Err(Malformed::Truncated));
}

#[test]
fn an_answer_is_wholly_translated_or_a_failure() {
    let real = |n: u8| IpAddr::from([10, 43, 0, n]);
    let vip = |n: u8| IpAddr::from([246, 246, 1, n]);
    let answer = answer_of(vec![address("a", "10.43.0.1"), address("a", "10.43.0.2")]);
    let whole: BTreeMap<IpAddr, IpAddr> = [(real(1), vip(1)), (real(2), vip(2))].into();
    assert_eq!(answer.clone().translate(&whole).unwrap().addresses(), [vip(1), vip(2)]);
    let half: BTreeMap<IpAddr, IpAddr> = [(real(1), vip(1))].into();
    assert_eq!(answer.clone().translate(&half), Err(real(2)));
    let other_family: BTreeMap<IpAddr, IpAddr> = [(real(1), vip(1)), (real(2), "fd00::1".parse().unwrap())].into();
    assert_eq!(answer.translate(&other_family), Err(real(2)));
}

/// A part of a name: a label, whose length may lie, a pointer anywhere, or the end.
fn part() -> impl proptest::strategy::Strategy<Value = Vec<u8>> {
    use proptest::prelude::*;
    let label = proptest::collection::vec(b'a'..=b'z', 1..64)
        .prop_map(|label| [&[u8::try_from(label.len()).unwrap()][..], &label].concat());
    let lie =
        (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..5)).prop_map(|(n, rest)| [&[n][..], &rest].concat());
    let pointer = (0..90_u16).prop_map(|to| (0xc000 | to).to_be_bytes().to_vec());
    prop_oneof![5 => label, 1 => lie, 3 => pointer, 2 => Just(vec![0])]
}

/// A message of names that point at each other, at themselves and beyond, with counts that lie.
fn entangled() -> impl proptest::strategy::Strategy<Value = Vec<u8>> {
    use proptest::prelude::*;
    let count = || prop_oneof![4 => 0..3_u16, 1 => any::<u16>()];
    let kind = prop_oneof![Just(1_u16), Just(5), Just(12), Just(33), Just(41), Just(6), any::<u16>()];
    let class = prop_oneof![4 => Just(1_u16), 1 => any::<u16>()];
    let record =
        (proptest::collection::vec(part(), 1..6), kind, class, any::<u32>(), proptest::collection::vec(part(), 0..3));
    let record = record.prop_map(|(name, kind, class, ttl, data)| {
        let (name, data) = (name.concat(), data.concat());
        let length = u16::try_from(data.len()).unwrap();
        [&name[..], &kind.to_be_bytes(), &class.to_be_bytes(), &ttl.to_be_bytes(), &length.to_be_bytes(), &data]
            .concat()
    });
    let header = (any::<u8>(), any::<u8>(), [count(), count(), count(), count()]);
    (header, proptest::collection::vec(part(), 1..6), proptest::collection::vec(record, 0..4)).prop_map(
        |((flags, code, counts), name, records)| {
            let counts: Vec<u8> = counts.iter().flat_map(|count| count.to_be_bytes()).collect();
            [&[0, 1, flags & 0x87, code][..], &counts, &name.concat(), &[0, 1, 0, 1], &records.concat()].concat()
        },
    )
}

proptest! {
    #![proptest_config(proptest::test_runner::Config {
        cases: 2000, failure_persistence: None, ..Default::default()
    })]

    #[test]
    fn names_that_point_anywhere_end(bytes in entangled()) {
        drop(parse_answer(&bytes, 1, &question("web.demo.svc", Kind::A)));
        if let Ok(query) = parse_query(&bytes) {
            prop_assert!(query.question.name.len() <= 1024, "{} bytes of a name", query.question.name.len());
            let told = build(&query, &answer_of(vec![address(&query.question.name, "10.0.0.2")]), Limit::Udp);
            prop_assert!(Message::from_vec(&told).is_ok());
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let asked = question("web.demo.svc", Kind::A);
        drop(parse_answer(&bytes, 1, &asked));
        match parse_query(&bytes) {
            Ok(query) => prop_assert!(!failure(&query, Code::ServFail).is_empty()),
            Err(Unanswerable(Some(answer))) => prop_assert_eq!(&answer[..2], &bytes[..2]),
            Err(Unanswerable(None)) => {}
        }
    }

    #[test]
    fn no_damage_to_a_good_message_makes_it_panic(at in 0usize..60, value in any::<u8>(), cut in 0usize..80) {
        let mut bytes = wire("web.demo.svc.cluster.local.", RecordType::SRV, Some((1232, 0)));
        let index = at % bytes.len();
        bytes[index] = value;
        bytes.truncate(cut.max(1));
        if let Ok(query) = parse_query(&bytes) {
            let answer = answer_of(vec![address("x", "10.0.0.1"), address(&query.question.name, "10.0.0.2")]);
            let built: Bytes = build(&query, &answer, Limit::Udp);
            prop_assert!(built.len() <= 4096);
            prop_assert!(Message::from_vec(&built).is_ok());
        }
    }
}

#[test]
fn a_name_of_any_bytes_is_asked_as_it_is() {
    for label in [&b"s\xffc"[..], b"\0", b"a b", b"a.b", b"\\", b"377", b"\\377", b"*", b"_sip", "\u{e9}".as_bytes()] {
        let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, u8::try_from(label.len()).unwrap()];
        query.extend_from_slice(label);
        query.extend_from_slice(&[3, b'c', b'o', b'm', 0, 0, 1, 0, 1]);
        let question = parse_query(&query).unwrap().question;
        let asked = build_query(7, &question).unwrap();
        assert_eq!(asked[12..query.len()], query[12..], "{}", question.name);
    }
}
