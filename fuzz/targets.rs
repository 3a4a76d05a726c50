//! What is done with nonsense: plain functions, for a fuzzer and for the tests that replay `tests/corpora`. None may panic,
//! and what is read has to be what is written again.

use std::net::IpAddr;

use bytes::{Buf as _, Bytes};
use podway::net::dns_message::{
    Answer, Code, Kind, Limit, Question, build, build_query, failure, parse_answer, parse_query,
};
use podway::net::packet::{Unreachable, View, echo_reply, reset, tcp_flags, unreachable};
use podway_tunnel::assembly::Assembly;
use podway_tunnel::frames::{FlowFrame, HelloFrame};
use prost::Message;

/// A packet from the device.
pub fn packets(data: &[u8]) {
    let view = View::parse(data).ok();
    let _ = tcp_flags(data);
    let whys = [Unreachable::Net, Unreachable::Host, Unreachable::Port, Unreachable::Admin];
    let errors = whys.map(|why| unreachable(data, why));
    for answer in errors.iter().chain([&reset(data)]).flatten() {
        answers(view, answer);
        assert!(answer.len() <= 1280);
        assert_eq!(reset(answer), None, "a reset, or an error, is answered with a reset");
    }
    if let Some(answer) = echo_reply(data, b"payload") {
        answers(view, &answer);
    }
}

/// Goes from where the packet went to where it came from.
fn answers(view: Option<View<'_>>, answer: &[u8]) {
    let View { source, destination, .. } = view.expect("only what can be read is answered");
    let addresses = match (source, destination) {
        (IpAddr::V4(to), IpAddr::V4(from)) => (12, [from.octets(), to.octets()].concat()),
        (IpAddr::V6(to), IpAddr::V6(from)) => (8, [from.octets(), to.octets()].concat()),
        (IpAddr::V4(_) | IpAddr::V6(_), IpAddr::V4(_) | IpAddr::V6(_)) => panic!("two families"),
    };
    assert!(answer[addresses.0..].starts_with(&addresses.1));
}

/// A stream of the tunnel: the first byte says how it is cut into chunks.
pub fn frames(data: &[u8]) {
    let Some((&size, data)) = data.split_first() else { return };
    let mut assembly = Assembly::default();
    for chunk in data.chunks(usize::from(size).max(1)) {
        assembly.push(Bytes::copy_from_slice(chunk));
        loop {
            let message = match assembly.take() {
                Ok(Some(mut message)) => message.copy_to_bytes(message.remaining()),
                Ok(None) => break,
                Err(_) => return,
            };
            is_kept::<FlowFrame>(&message);
            is_kept::<HelloFrame>(&message);
        }
    }
}

/// What could be read is the same when it was written and is read again.
fn is_kept<M: Message + Default + PartialEq + std::fmt::Debug>(message: &[u8]) {
    if let Ok(read) = M::decode(message) {
        assert_eq!(M::decode(read.encode_to_vec().as_slice()).as_ref(), Ok(&read));
    }
}

/// A DNS message: a query from a program, and an answer from a server.
pub fn dns(data: &[u8]) {
    match parse_query(data) {
        Ok(query) => {
            for answer in [failure(&query, Code::ServFail), build(&query, &Answer::empty(Code::NoError), Limit::Udp)] {
                assert!(answer.len() >= 12 && answer.starts_with(&query.id.to_be_bytes()));
            }
            if let Some(asked) = build_query(query.id, &query.question) {
                let again = parse_query(&asked).expect("a query of ours is one");
                assert_eq!(again.question, query.question);
            }
        }
        Err(unanswerable) => {
            if let Some(answer) = unanswerable.0 {
                assert_eq!(parse_query(&answer).map_err(|e| e.0), Err(None), "an answer is not answered");
            }
        }
    }
    let question = Question { name: "web.demo.svc.cluster.local".into(), kind: Kind(1) };
    let id = data.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
    if let Ok(mut answer) = parse_answer(data, id, &question) {
        answer.cap_ttl(30);
        answer.rotate(1);
        let query = build_query(7, &question).expect("a query");
        let query = parse_query(&query).expect("a query of ours is one");
        let longest = build(&query, &answer, Limit::Udp);
        assert!(longest.len() <= 512, "longer than who asks without EDNS takes: {}", longest.len());
    }
}
