//! Bytes to questions and answers, and back. No input makes it panic.

use std::str::FromStr as _;
use std::sync::Arc;

use bytes::Bytes;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query as WireQuery, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record as WireRecord, RecordType};

use super::{Answer, Code, Data, Kind, Question, Record};

/// Size of the header (RFC 1035 section 4.1.1).
const HEADER: usize = 12;
/// What a client without EDNS takes over UDP (RFC 1035 section 4.2.1).
const PLAIN_UDP: u16 = 512;
/// The largest answer we send over UDP, and what we offer (the common buffer size of resolvers).
const LARGEST_UDP: u16 = 4096;
/// The largest message over TCP.
const LARGEST_TCP: usize = 65_535;

/// A query that can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Its id, echoed.
    pub id: u16,
    /// What is asked.
    pub question: Question,
    /// The name as the client spelled it, echoed.
    asked: Name,
    recursion_desired: bool,
    checking_disabled: bool,
    /// What the client's EDNS says: the size it takes over UDP, and its DO bit.
    edns: Option<(u16, bool)>,
}

/// Why a query is not answered from a zone: the message that says so, or nothing where an answer would be wrong (a
/// message that is itself an answer, or too short to have an id).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unanswerable(pub Option<Bytes>);

/// An upstream's answer that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It does not parse.
    #[error("the answer does not parse")]
    Unreadable,
    /// It answers something else.
    #[error("the answer is to another question")]
    Mismatch,
    /// It is not whole.
    #[error("the answer is truncated")]
    Truncated,
    /// The upstream failed or refused.
    #[error("the server answered with an error")]
    Failed,
}

/// How large an answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// What the client takes over UDP; what does not fit is truncated, with the TC bit.
    Udp,
    /// What TCP takes.
    Tcp,
}

/// Reads a query.
///
/// # Errors
/// FORMERR for what does not parse or does not hold exactly one question, NOTIMP for other opcodes and ANY, BADVERS for
/// other EDNS versions (RFC 6891 section 6.1.3), REFUSED for other classes; silence for answers.
pub fn parse_query(bytes: &[u8]) -> Result<Query, Unanswerable> {
    let [id_high, id_low, flags, ..] = *bytes else { return Err(Unanswerable(None)) };
    if bytes.len() < HEADER || flags & 0x80 != 0 {
        return Err(Unanswerable(None));
    }
    let bare = |code: u8| {
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&[id_high, id_low, 0x80 | (flags & 0x79), 0x80 | code]);
        Unanswerable(Some(Bytes::copy_from_slice(&header)))
    };
    if flags & 0x78 != 0 {
        return Err(bare(4));
    }
    let Ok(message) = Message::from_vec(bytes) else { return Err(bare(1)) };
    let [question] = &message.queries[..] else { return Err(bare(1)) };
    let query = Query {
        id: message.metadata.id,
        question: Question { name: text(&question.name), kind: Kind(question.query_type.into()) },
        asked: question.name.clone(),
        recursion_desired: message.metadata.recursion_desired,
        checking_disabled: message.metadata.checking_disabled,
        edns: message.edns.as_ref().map(|edns| (edns.max_payload(), edns.flags().dnssec_ok)),
    };
    let refuse = |code| Unanswerable(Some(failure(&query, code)));
    if message.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
        let mut answer = frame(&query, ResponseCode::BADVERS, false);
        answer.edns = answer.edns.map(|mut edns| {
            edns.set_rcode_high(ResponseCode::BADVERS.high());
            edns
        });
        return Err(answer.to_vec().map_or_else(|_| bare(1), |bytes| Unanswerable(Some(bytes.into()))));
    }
    if question.query_class != DNSClass::IN {
        return Err(refuse(Code::Refused));
    }
    // 249 to 255: TKEY, TSIG, zone transfers, MAILB, MAILA, ANY.
    if (249..=255).contains(&query.question.kind.0) || query.question.kind.0 == 41 {
        return Err(refuse(Code::NotImp));
    }
    Ok(query)
}

/// A message without records that says `code`.
pub fn failure(query: &Query, code: Code) -> Bytes {
    build(query, &Answer::empty(code), Limit::Tcp)
}

/// Puts an answer into a message for the client that asked.
///
/// An answer that cannot be written becomes SERVFAIL. Over UDP additional records are left out first; if it is still too
/// large, the records go and TC is set, so that the client asks again over TCP.
pub fn build(query: &Query, answer: &Answer, limit: Limit) -> Bytes {
    let limit = match limit {
        Limit::Tcp => LARGEST_TCP,
        Limit::Udp => usize::from(query.edns.map_or(PLAIN_UDP, |(size, _)| size).clamp(PLAIN_UDP, LARGEST_UDP)),
    };
    let mut message = frame(query, code_out(answer.code), answer.authoritative);
    let written = (|| {
        message.answers = wire_records(query, &answer.answers)?;
        message.authorities = wire_records(query, &answer.authority)?;
        message.additionals = wire_records(query, &answer.additional)?;
        message.to_vec().ok()
    })();
    match written {
        Some(bytes) if bytes.len() <= limit => return bytes.into(),
        Some(_) => {}
        None => return frame(query, ResponseCode::ServFail, false).to_vec().unwrap_or_default().into(),
    }
    message.additionals.clear();
    let shorter = message.to_vec().unwrap_or_default();
    if !shorter.is_empty() && shorter.len() <= limit {
        return shorter.into();
    }
    message.answers.clear();
    message.authorities.clear();
    message.metadata.truncation = true;
    message.to_vec().unwrap_or_default().into()
}

/// A query to an upstream. `None` for a name that cannot be written.
pub fn build_query(id: u16, question: &Question) -> Option<Bytes> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.queries.push(WireQuery::query(wire_name(&question.name)?, RecordType::from(question.kind.0)));
    let mut edns = Edns::new();
    edns.set_max_payload(LARGEST_UDP);
    message.edns = Some(edns);
    message.to_vec().ok().map(Bytes::from)
}

/// Reads an upstream's answer to `question`, which was sent with `id`. Only NOERROR and NXDOMAIN are answers. Service
/// bindings are dropped, because their address hints would not be translated.
///
/// # Errors
/// See [`Malformed`].
pub fn parse_answer(bytes: &[u8], id: u16, question: &Question) -> Result<Answer, Malformed> {
    let message = Message::from_vec(bytes).map_err(|_| Malformed::Unreadable)?;
    if message.metadata.id != id || message.metadata.message_type != MessageType::Response {
        return Err(Malformed::Mismatch);
    }
    let same = |q: &WireQuery| text(&q.name) == question.name && u16::from(q.query_type) == question.kind.0;
    if !message.queries.iter().all(same) {
        return Err(Malformed::Mismatch);
    }
    if message.metadata.truncation {
        return Err(Malformed::Truncated);
    }
    let code = if message.metadata.response_code == ResponseCode::NoError {
        Code::NoError
    } else if message.metadata.response_code == ResponseCode::NXDomain {
        Code::NxDomain
    } else {
        return Err(Malformed::Failed);
    };
    let records = |records: &[WireRecord]| records.iter().filter_map(read_record).collect::<Vec<_>>();
    Ok(Answer {
        code,
        authoritative: false,
        answers: records(&message.answers),
        authority: records(&message.authorities).into_iter().filter(|r| matches!(r.data, Data::Soa { .. })).collect(),
        additional: Vec::new(),
    })
}

fn frame(query: &Query, code: ResponseCode, authoritative: bool) -> Message {
    let mut message = Message::new(query.id, MessageType::Response, OpCode::Query);
    message.metadata.authoritative = authoritative;
    message.metadata.recursion_desired = query.recursion_desired;
    message.metadata.recursion_available = true;
    message.metadata.checking_disabled = query.checking_disabled;
    message.metadata.response_code = code;
    message.queries.push(WireQuery::query(query.asked.clone(), RecordType::from(query.question.kind.0)));
    message.edns = query.edns.map(|(_, dnssec_ok)| {
        let mut edns = Edns::new();
        edns.set_max_payload(LARGEST_UDP).set_dnssec_ok(dnssec_ok);
        edns
    });
    message
}

fn code_out(code: Code) -> ResponseCode {
    match code {
        Code::NoError => ResponseCode::NoError,
        Code::FormErr => ResponseCode::FormErr,
        Code::ServFail => ResponseCode::ServFail,
        Code::NxDomain => ResponseCode::NXDomain,
        Code::NotImp => ResponseCode::NotImp,
        Code::Refused => ResponseCode::Refused,
    }
}

fn wire_records(query: &Query, records: &[Record]) -> Option<Vec<WireRecord>> {
    let one = |record: &Record| {
        let owner = if record.name == query.question.name { query.asked.clone() } else { wire_name(&record.name)? };
        Some(WireRecord::from_rdata(owner, record.ttl, wire_data(&record.data)?))
    };
    records.iter().map(one).collect()
}

fn wire_data(data: &Data) -> Option<RData> {
    Some(match data {
        Data::A(a) => RData::A(A(*a)),
        Data::Aaaa(a) => RData::AAAA(AAAA(*a)),
        Data::Cname(name) => RData::CNAME(CNAME(wire_name(name)?)),
        Data::Ptr(name) => RData::PTR(PTR(wire_name(name)?)),
        Data::Ns(name) => RData::NS(NS(wire_name(name)?)),
        Data::Txt(text) => RData::TXT(TXT::new(vec![text.to_string()])),
        Data::Srv { priority, weight, port, target } => {
            RData::SRV(SRV::new(*priority, *weight, *port, wire_name(target)?))
        }
        Data::Soa { primary, mailbox, serial, minimum } => {
            RData::SOA(SOA::new(wire_name(primary)?, wire_name(mailbox)?, *serial, 7200, 1800, 86_400, *minimum))
        }
        Data::Other(rdata) => (**rdata).clone(),
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "hickory adds types; each is passed on as it came")]
fn read_record(record: &WireRecord) -> Option<Record> {
    if record.dns_class != DNSClass::IN {
        return None;
    }
    let data = match &record.data {
        RData::A(a) => Data::A(a.0),
        RData::AAAA(a) => Data::Aaaa(a.0),
        RData::CNAME(name) => Data::Cname(text(&name.0)),
        RData::PTR(name) => Data::Ptr(text(&name.0)),
        RData::NS(name) => Data::Ns(text(&name.0)),
        RData::SRV(srv) => {
            Data::Srv { priority: srv.priority, weight: srv.weight, port: srv.port, target: text(&srv.target) }
        }
        RData::SOA(soa) => {
            Data::Soa { primary: text(&soa.mname), mailbox: text(&soa.rname), serial: soa.serial, minimum: soa.minimum }
        }
        RData::HTTPS(_) | RData::SVCB(_) | RData::OPT(_) | RData::TSIG(_) => return None,
        other => Data::Other(Box::new(other.clone())),
    };
    Some(Record { name: text(&record.name), ttl: record.ttl, data })
}

/// Lower case, without the final dot.
fn text(name: &Name) -> Arc<str> {
    let mut text = name.to_ascii();
    text.make_ascii_lowercase();
    if text.ends_with('.') && !text.ends_with("\\.") {
        text.pop();
    }
    text.into()
}

/// The other way round. Read by its bytes: whoever reads text makes another name of what is not ASCII.
fn wire_name(text: &str) -> Option<Name> {
    if !text.is_ascii() {
        let mut name = Name::from_str(text).ok()?;
        name.set_fqdn(true);
        return Some(name);
    }
    let (mut labels, mut label) = (Vec::new(), Vec::new());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        match (byte, after) {
            // As `text` writes them: three octal digits, or what the backslash stands before.
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                label.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            (b'\\', [escaped, after @ ..]) => {
                label.push(*escaped);
                rest = after;
            }
            (b'.', _) => labels.push(std::mem::take(&mut label)),
            (byte, _) => label.push(*byte),
        }
    }
    if !label.is_empty() {
        labels.push(label);
    }
    let mut name = Name::from_labels(labels).ok()?;
    name.set_fqdn(true);
    Some(name)
}
