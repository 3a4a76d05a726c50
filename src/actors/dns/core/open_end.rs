//! An answer of another connection that ends at an alias out of its cluster.
//!
//! A connection beside the editor of the file knows no servers of the host, and programs that ask by the file do not follow
//! aliases themselves: the editor does it for them.

use bytes::Bytes;

use super::jobs::open_end;
use super::{Answer, Query, Question, TTL, Transport, limit_of};
use crate::net::dns_message::{build, build_query, parse_answer, parse_query};

/// What another connection answered, and where it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenEnd {
    query: Query,
    aliases: Answer,
    end: Question,
}

impl OpenEnd {
    /// Of this raw answer to a raw query; `None` where it needs no more, or nobody may be asked: a single label is no name
    /// of anybody else's.
    pub fn of(query: &[u8], answer: &[u8]) -> Option<OpenEnd> {
        let query = parse_query(query).ok()?;
        let aliases = parse_answer(answer, query.id, &query.question).ok()?;
        let (name, kind) = (&query.question.name, query.question.kind);
        let name = open_end(&aliases, name, kind).filter(|end| end.contains('.') && !kind.is_binding())?;
        Some(OpenEnd { query, aliases, end: Question { name, kind } })
    }

    /// The raw query for the name at the end.
    pub fn query(&self) -> Option<Bytes> {
        build_query(self.query.id, &self.end)
    }

    /// The raw answer to the first query, with what `rest` says of the end; `None` where that is no answer.
    pub fn closed(self, rest: &[u8], transport: Transport) -> Option<Bytes> {
        let mut whole = parse_answer(rest, self.query.id, &self.end).ok()?;
        whole.answers.splice(..0, self.aliases.answers);
        whole.cap_ttl(TTL);
        Some(build(&self.query, &whole, limit_of(transport)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::actors::dns::core::tests::{ip, text, upstream_answer};
    use crate::net::dns_message::{Code, Data, Kind, Limit, Record};

    fn asked(kind: Kind) -> Bytes {
        build_query(12, &Question { name: "out.shop.svc.cluster.local".into(), kind }).unwrap()
    }

    fn answered(query: &Bytes, target: &str, address: Option<&str>) -> Bytes {
        let query = parse_query(query).unwrap();
        let record = |name: &str, data| Record { name: Arc::from(name), ttl: 300, data };
        let alias = record(&query.question.name, Data::Cname(target.into()));
        let answers =
            [alias].into_iter().chain(address.map(|address| record(target, Data::from(ip(address))))).collect();
        build(&query, &Answer { answers, ..Answer::empty(Code::NoError) }, Limit::Tcp)
    }

    #[test]
    fn an_alias_without_another_word_is_asked_for_and_answered_whole() {
        let query = asked(Kind::A);
        let open = OpenEnd::of(&query, &answered(&query, "www.corp.example", None)).expect("it leads on");
        let rest = open.query().expect("a query");
        assert_eq!(&*parse_query(&rest).unwrap().question.name, "www.corp.example");
        let whole = open.clone().closed(&upstream_answer(&rest, Code::NoError, &["203.0.113.5"]), Transport::Udp);
        let alias = "out.shop.svc.cluster.local. CNAME www.corp.example.";
        assert_eq!(text(&whole.expect("an answer")), [alias, "www.corp.example. A 203.0.113.5"]);
        let gone = open.clone().closed(&upstream_answer(&rest, Code::NxDomain, &[]), Transport::Udp);
        assert_eq!(text(&gone.expect("an answer")), ["NXDomain", alias]);
        assert_eq!(open.closed(&upstream_answer(&rest, Code::ServFail, &[]), Transport::Udp), None);
    }

    #[test]
    fn what_is_answered_already_or_leads_to_a_single_label_is_left_as_it_is() {
        let query = asked(Kind::A);
        assert_eq!(OpenEnd::of(&query, &answered(&query, "www.corp.example", Some("203.0.113.5"))), None);
        assert_eq!(OpenEnd::of(&query, &answered(&query, "printer", None)), None);
        assert_eq!(OpenEnd::of(&query, &upstream_answer(&query, Code::NoError, &["10.43.0.9"])), None);
        assert_eq!(OpenEnd::of(&query, &upstream_answer(&query, Code::NxDomain, &[])), None);
        let query = asked(Kind::CNAME);
        assert_eq!(OpenEnd::of(&query, &answered(&query, "www.corp.example", None)), None, "that was asked for");
    }
}
