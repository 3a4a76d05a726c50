//! Every record type and every rule of answering, through `handle` and effects.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;

use super::{DnsCore, Effect, Input, LookupId, QuestionId, Upstream};
use crate::actors::dns::messages::{Configure, Transport};
use crate::actors::proxy_via::messages::{AllocateError, TranslationChanged};
use crate::actors::shell::Core as _;
use crate::actors::vif::messages::{VifChanged, VifState};
use crate::cluster::{ClusterInfo, ClusterRecords, EndpointRecord, ServicePort, ServiceRecord};
use crate::ids::{Generation, Millis, ReplyId};
use crate::net::dns_message::{Answer, Code, Data, Kind, Limit, Question, Record, build, build_query, parse_query};
use crate::spec::DnsMode;

mod attaching;
mod names;
mod outside;
mod waiting;

pub(super) struct Bench {
    pub core: DnsCore,
    pub now: Millis,
    next: u64,
}

impl Bench {
    /// A core that knows nothing.
    pub fn empty() -> Bench {
        Bench { core: DnsCore::default(), now: Millis(1000), next: 0 }
    }

    /// A core that knows everything, with nothing translated.
    pub fn ready() -> Bench {
        let mut bench = Bench::empty();
        for input in [configured(), info(), records(true), translation(&[])] {
            bench.feed(input);
        }
        bench
    }

    /// Feeds one input; reports are left out of the effects.
    pub fn feed(&mut self, input: Input) -> Vec<Effect> {
        self.core.handle(self.now, input);
        let mut effects = Vec::new();
        while let Some(effect) = self.core.poll_effect() {
            if !matches!(effect, Effect::Report(_)) {
                effects.push(effect);
            }
        }
        effects
    }

    pub fn ask(&mut self, name: &str, kind: Kind) -> Vec<Effect> {
        self.next += 1;
        // The id turns the addresses; a multiple of 12 leaves any few of them in order.
        let query = build_query(12, &Question { name: name.into(), kind }).unwrap();
        self.feed(Input::Asked { id: ReplyId(self.next), query, transport: Transport::Tcp })
    }

    /// Asks, expects the answer in the same step, and gives it as text.
    pub fn answer(&mut self, name: &str, kind: Kind) -> Vec<String> {
        let effects = self.ask(name, kind);
        let [Effect::Reply { answer: Some(raw), .. }] = &effects[..] else { panic!("{name}: {effects:?}") };
        text(raw)
    }

    pub fn pass(&mut self, millis: u64) -> Vec<Effect> {
        self.now = Millis(self.now.0 + millis);
        self.feed(Input::Woke)
    }
}

/// The code unless it is NOERROR, then each record as `SECTION OWNER TYPE DATA`.
pub(super) fn text(raw: &Bytes) -> Vec<String> {
    let message = Message::from_vec(raw).unwrap();
    let mut lines = Vec::new();
    if message.metadata.response_code != ResponseCode::NoError {
        lines.push(format!("{:?}", message.metadata.response_code));
    }
    for (section, records) in
        [("", &message.answers), ("authority ", &message.authorities), ("additional ", &message.additionals)]
    {
        for r in records {
            assert_eq!(r.ttl, 5);
            let data = if r.record_type() == RecordType::SOA { String::new() } else { format!(" {}", r.data) };
            lines.push(format!("{section}{} {}{data}", r.name, r.record_type()));
        }
    }
    lines
}

pub(super) fn reply_of(effects: &[Effect]) -> Vec<String> {
    let [Effect::Reply { answer: Some(raw), .. }] = effects else { panic!("{effects:?}") };
    text(raw)
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn configured() -> Input {
    Input::Configured(Configure {
        mode: DnsMode::Off,
        namespace: "demo".into(),
        include_suffixes: vec![".site.example".into()],
    })
}

pub(super) fn info() -> Input {
    Input::Info(
        Generation(1),
        Arc::new(ClusterInfo {
            service_cidrs: ["10.43.0.0/16", "fd43::/112"].map(|c| c.parse().unwrap()).into(),
            pod_cidrs: ["10.42.0.0/16".parse().unwrap()].into(),
            dns_ips: [ip("10.43.0.10")].into(),
            domain: "cluster.local".into(),
            complete: true,
        }),
    )
}

pub(super) fn translation(translated: &[&str]) -> Input {
    Input::Translation(translation_of(1, true, translated))
}

pub(super) fn translation_of(generation: u64, ready: bool, translated: &[&str]) -> TranslationChanged {
    let names: BTreeMap<IpAddr, Arc<str>> = [
        (ip("246.246.1.9"), "web.demo.svc.cluster.local".into()),
        (ip("246.246.1.0"), "127-0-0-1.web.demo.podway".into()),
    ]
    .into();
    TranslationChanged {
        generation: Generation(generation),
        translated: translated.iter().map(|c| c.parse().unwrap()).collect(),
        virtual_ranges: vec!["246.246.0.0/16".parse().unwrap()],
        dns_addresses: vec![ip("246.246.0.2")],
        names: Arc::new(names),
        namespaces: BTreeSet::new(),
        ready,
    }
}

fn endpoint(address: &str, hostname: Option<&str>) -> EndpointRecord {
    EndpointRecord {
        ip: ip(address),
        hostname: hostname.map(Into::into),
        pod: None,
        ports: [("pg".into(), "tcp".into(), 5432)].into(),
    }
}

pub(super) fn records(complete: bool) -> Input {
    let web = ServiceRecord {
        cluster_ips: vec![ip("10.43.0.9"), ip("fd43::9")],
        ports: vec![ServicePort { name: "http".into(), protocol: "tcp".into(), port: 80 }],
        endpoints: vec![endpoint("10.42.0.5", None)],
        ..ServiceRecord::default()
    };
    let db = ServiceRecord {
        headless: true,
        endpoints: vec![endpoint("10.42.0.7", Some("db-0")), endpoint("10.42.0.8", None)],
        ..ServiceRecord::default()
    };
    let empty = ServiceRecord { headless: true, ..ServiceRecord::default() };
    let stray = ServiceRecord { headless: true, endpoints: vec![endpoint("192.168.1.1", None)], ..empty.clone() };
    let external = |name: &str| ServiceRecord { external_name: Some(name.into()), ..ServiceRecord::default() };
    let api = ServiceRecord { cluster_ips: vec![ip("10.43.0.20")], ..ServiceRecord::default() };
    let services = [
        ("demo", "web", web),
        ("demo", "db", db),
        ("demo", "empty", empty),
        ("demo", "stray", stray),
        ("demo", "out", external("www.corp.example")),
        ("demo", "inner", external("api.other.svc.cluster.local")),
        ("demo", "loop", external("loop.demo.svc.cluster.local")),
        ("demo", "ledger", external("ledger.site.example")),
        ("other", "api", api.clone()),
        ("dev", "api", api),
    ];
    let services = services.into_iter().map(|(of, name, s)| ((of.into(), name.into()), Arc::new(s))).collect();
    Input::Records(
        Generation(1),
        Arc::new(ClusterRecords {
            services,
            pods: [(ip("10.42.0.5"), ("demo".into(), "web-1".into()))].into(),
            namespaces: None,
            known_namespaces: ["demo", "other", "dev"].map(Into::into).into(),
            complete,
        }),
    )
}

pub(super) fn upstream_answer(query: &Bytes, code: Code, addresses: &[&str]) -> Bytes {
    let query = parse_query(query).unwrap();
    let name = query.question.name.clone();
    let answers = addresses.iter().map(|a| Record { name: name.clone(), ttl: 300, data: Data::from(ip(a)) }).collect();
    build(&query, &Answer { answers, ..Answer::empty(code) }, Limit::Tcp)
}
