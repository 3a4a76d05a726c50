//! DNS messages as podway handles them: one question, and an answer of plain records.
//!
//! Names are lower-case text without the final dot; the spelling a client used is kept beside the question and echoed.
//! Parsing and building (RFC 1035, EDNS of RFC 6891) is in `wire`; here is what is done to an answer between the two.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use hickory_proto::rr::RData;

mod wire;

pub use wire::{Limit, Malformed, Query, Unanswerable, build, build_query, failure, parse_answer, parse_query};

/// A record type by its number (RFC 1035 section 3.2.2 and later).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind(pub u16);

impl Kind {
    /// IPv4 address.
    pub const A: Kind = Kind(1);
    /// Name server.
    pub const NS: Kind = Kind(2);
    /// Alias.
    pub const CNAME: Kind = Kind(5);
    /// Start of authority.
    pub const SOA: Kind = Kind(6);
    /// Name of an address.
    pub const PTR: Kind = Kind(12);
    /// Text.
    pub const TXT: Kind = Kind(16);
    /// IPv6 address (RFC 3596).
    pub const AAAA: Kind = Kind(28);
    /// Service location (RFC 2782).
    pub const SRV: Kind = Kind(33);
    /// Service binding (RFC 9460).
    pub const SVCB: Kind = Kind(64);
    /// Service binding for HTTPS (RFC 9460).
    pub const HTTPS: Kind = Kind(65);
    /// Everything there is (answered with NOTIMP: RFC 8482).
    pub const ANY: Kind = Kind(255);

    /// Whether it asks for addresses.
    pub fn is_address(self) -> bool {
        self == Kind::A || self == Kind::AAAA
    }

    /// Whether its records may carry address hints, which nothing translates.
    pub fn is_binding(self) -> bool {
        self == Kind::SVCB || self == Kind::HTTPS
    }
}

/// What is asked: one name, one type, class IN.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    /// Lower case, without the final dot; empty for the root.
    pub name: Arc<str>,
    /// The type.
    pub kind: Kind,
}

/// How an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// The name exists; with no records of the type this is NODATA (RFC 2308 section 2.2).
    NoError,
    /// The message cannot be understood.
    FormErr,
    /// No answer could be had. Says nothing about the name.
    ServFail,
    /// The name does not exist.
    NxDomain,
    /// That kind of query is not answered here.
    NotImp,
    /// That name is not answered here.
    Refused,
}

/// One record of class IN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its owner.
    pub name: Arc<str>,
    /// How long it may be kept, in seconds.
    pub ttl: u32,
    /// What it says.
    pub data: Data,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// IPv4 address.
    A(Ipv4Addr),
    /// IPv6 address.
    Aaaa(Ipv6Addr),
    /// Alias.
    Cname(Arc<str>),
    /// Name of an address.
    Ptr(Arc<str>),
    /// Name server.
    Ns(Arc<str>),
    /// Text, one string.
    Txt(Arc<str>),
    /// Service location.
    Srv {
        /// Lower is preferred.
        priority: u16,
        /// Share among equals.
        weight: u16,
        /// Port.
        port: u16,
        /// Host.
        target: Arc<str>,
    },
    /// Start of authority.
    Soa {
        /// Primary server.
        primary: Arc<str>,
        /// Mailbox, as a name.
        mailbox: Arc<str>,
        /// Version of the zone.
        serial: u32,
        /// How long a denial may be kept, in seconds (RFC 2308 section 4).
        minimum: u32,
    },
    /// Anything else, passed on as it came.
    Other(Box<RData>),
}

impl Data {
    /// The address in an A or AAAA record.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Data::A(a) => Some(IpAddr::V4(*a)),
            Data::Aaaa(a) => Some(IpAddr::V6(*a)),
            Data::Cname(_)
            | Data::Ptr(_)
            | Data::Ns(_)
            | Data::Txt(_)
            | Data::Srv { .. }
            | Data::Soa { .. }
            | Data::Other(_) => None,
        }
    }
}

impl From<IpAddr> for Data {
    fn from(address: IpAddr) -> Data {
        match address {
            IpAddr::V4(a) => Data::A(a),
            IpAddr::V6(a) => Data::Aaaa(a),
        }
    }
}

/// An answer before it is put into a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// How it ends.
    pub code: Code,
    /// Whether it comes from our own knowledge of the cluster.
    pub authoritative: bool,
    /// Answers.
    pub answers: Vec<Record>,
    /// The SOA of a denial, or nothing.
    pub authority: Vec<Record>,
    /// Addresses of SRV targets.
    pub additional: Vec<Record>,
}

impl Answer {
    /// An answer without records.
    pub fn empty(code: Code) -> Answer {
        Answer { code, authoritative: false, answers: Vec::new(), authority: Vec::new(), additional: Vec::new() }
    }

    /// Every address in it, each once, in order.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let mut seen = std::collections::BTreeSet::new();
        self.answers
            .iter()
            .chain(&self.additional)
            .filter_map(|r| r.data.address())
            .filter(|a| seen.insert(*a))
            .collect()
    }

    /// Replaces every address by the one handed out for it.
    ///
    /// # Errors
    /// The first address that `handed_out` does not know, or that would change its family: an answer is either wholly
    /// translated or a failure.
    pub fn translate(mut self, handed_out: &BTreeMap<IpAddr, IpAddr>) -> Result<Answer, IpAddr> {
        for record in self.answers.iter_mut().chain(&mut self.additional) {
            let Some(real) = record.data.address() else { continue };
            let given = handed_out.get(&real).copied().filter(|given| given.is_ipv4() == real.is_ipv4());
            record.data = Data::from(given.ok_or(real)?);
        }
        let mut seen: Vec<Record> = Vec::with_capacity(self.answers.len());
        for record in self.answers {
            if !seen.contains(&record) {
                seen.push(record);
            }
        }
        self.answers = seen;
        Ok(self)
    }

    /// Lowers every TTL to at most `seconds`.
    pub fn cap_ttl(&mut self, seconds: u32) {
        for record in self.answers.iter_mut().chain(&mut self.authority).chain(&mut self.additional) {
            record.ttl = record.ttl.min(seconds);
            if let Data::Soa { minimum, .. } = &mut record.data {
                *minimum = (*minimum).min(seconds);
            }
        }
    }

    /// Gives every record owned by `from` to `to`, which is how one name is answered under another spelling.
    pub fn rename(&mut self, from: &str, to: &Arc<str>) {
        for record in self.answers.iter_mut().filter(|r| &*r.name == from) {
            record.name = to.clone();
        }
    }

    /// Turns the address records by `steps`, so that clients that take the first one spread.
    pub fn rotate(&mut self, steps: usize) {
        let Some(first) = self.answers.iter().position(|r| r.data.address().is_some()) else { return };
        let addresses = &mut self.answers[first..];
        if addresses.iter().all(|r| r.data.address().is_some()) {
            addresses.rotate_left(steps % addresses.len());
        }
    }
}

#[cfg(test)]
mod tests;
