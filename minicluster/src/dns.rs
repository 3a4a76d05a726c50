//! The name servers, on the node: that of the LAN, and that of the cluster, which knows the LAN's names and the site's
//! too. Addresses and aliases; other records are answered empty, and addresses have no names. What is longer than who asks over
//! UDP takes is cut, and whole over TCP.

use std::io;
use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::controllers::world::World;
use crate::kubelet::launch::DOMAIN;
use crate::net::{API, LAN_DNS, LEDGER, Pair, WORKSTATION};
use crate::object::{label, list, text};
use crate::pod_server::{Bind, UdpServer};
use crate::resource::{ENDPOINT_SLICES, SERVICES};
use crate::store::Store;

/// The port of name servers.
const PORT: u16 = 53;
/// How long an answer may be kept, in seconds: as the cluster DNS of kubeadm.
const TTL: u32 = 30;
/// The longest answer over UDP to who does not say another (RFC 1035 section 4.2.1).
const SHORT: u16 = 512;
/// Aliases of aliases that are followed.
const ALIASES: usize = 8;

const LAN_NAMES: [(&str, Pair); 2] = [("node.corp.example", API), ("workstation.corp.example", WORKSTATION)];
const SITE_NAMES: [(&str, Pair); 2] = [("ledger.site.example", LEDGER), ("www.vendor.example", LEDGER)];

/// Serves names as long as it is polled. The calling process has to be in the node's network.
///
/// # Errors
/// When a socket cannot be had.
pub fn serve(store: &Store) -> io::Result<impl Future<Output = ()> + Send + use<>> {
    let (sockets, listeners) = (UdpServer::bind(&Bind::All, PORT)?, Bind::All.listen(PORT)?);
    let store = store.clone();
    Ok(async move {
        let mut tasks = JoinSet::new();
        for socket in sockets {
            let store = store.clone();
            tasks.spawn(async move { socket.serve(|question, at| answer(&store, at, question, Over::Udp)).await });
        }
        for listener in listeners {
            tasks.spawn(accept(listener, store.clone()));
        }
        while tasks.join_next().await.is_some() {}
    })
}

async fn accept(listener: TcpListener, store: Store) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(exchange(stream, store.clone()))),
            Err(error) => tracing::debug!(%error, "a name server accepts nobody"),
        }
    }
}

/// Questions and answers, each with its length before it (RFC 1035 section 4.2.2).
async fn exchange(mut stream: TcpStream, store: Store) -> io::Result<()> {
    let at = stream.local_addr()?.ip().to_canonical();
    loop {
        let mut question = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut question).await?;
        let Some(answer) = answer(&store, Some(at), &question, Over::Tcp) else { return Ok(()) };
        stream.write_u16(u16::try_from(answer.len()).map_err(io::Error::other)?).await?;
        stream.write_all(&answer).await?;
    }
}

/// What is asked over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    Udp,
    Tcp,
}

fn answer(store: &Store, at: Option<IpAddr>, question: &[u8], over: Over) -> Option<Vec<u8>> {
    let of_lan = at.is_some_and(|at| at == IpAddr::from(LAN_DNS.v4) || at == IpAddr::from(LAN_DNS.v6));
    let world = World::read(store);
    reply(&Names(if of_lan { None } else { Some(&world) }), question, over)
}

/// The names that a server knows: with a cluster, that and the site's too.
struct Names<'a>(Option<&'a World>);

/// What a name stands for.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    Addresses(Vec<IpAddr>),
    Alias(String),
}

/// The answer to a question; none to what is none.
fn reply(names: &Names<'_>, question: &[u8], over: Over) -> Option<Vec<u8>> {
    let mut message = Message::from_vec(question).ok().filter(|m| m.metadata.message_type == MessageType::Query)?;
    let query = message.queries.first()?.clone();
    let (mut name, kind) = (query.name().to_lowercase(), query.query_type());
    let takes = message.edns.as_ref().map_or(SHORT, |edns| edns.max_payload().max(SHORT));
    message = message.into_response();
    message.metadata.recursion_available = true;
    message.metadata.response_code = ResponseCode::ServFail;
    for _ in 0..=ALIASES {
        let (code, meaning) = match names.find(name.to_ascii().trim_end_matches('.')) {
            Some(meaning) => (ResponseCode::NoError, meaning),
            None => (ResponseCode::NXDomain, Meaning::Addresses(Vec::new())),
        };
        let record = |data| Record::from_rdata(name.clone(), TTL, data);
        match meaning {
            Meaning::Addresses(addresses) => {
                message.metadata.response_code = code;
                let data = addresses.into_iter().map(|address| match address {
                    IpAddr::V4(address) => RData::A(A(address)),
                    IpAddr::V6(address) => RData::AAAA(AAAA(address)),
                });
                message.answers.extend(data.filter(|data| data.record_type() == kind).map(record));
                break;
            }
            Meaning::Alias(target) => {
                let target = Name::from_ascii(format!("{}.", target.trim_end_matches('.'))).ok()?;
                message.answers.push(record(RData::CNAME(CNAME(target.clone()))));
                if kind == RecordType::CNAME {
                    message.metadata.response_code = code;
                    break;
                }
                name = target;
            }
        }
    }
    let whole = message.to_vec().ok()?;
    if over == Over::Tcp || whole.len() <= usize::from(takes) {
        return Some(whole);
    }
    message.answers.clear();
    message.metadata.truncation = true;
    message.to_vec().ok()
}

impl Names<'_> {
    fn find(&self, name: &str) -> Option<Meaning> {
        let site = if self.0.is_some() { &SITE_NAMES[..] } else { &[] };
        if let Some((_, pair)) = LAN_NAMES.iter().chain(site).find(|(known, _)| *known == name) {
            return Some(Meaning::Addresses(vec![pair.v4.into(), pair.v6.into()]));
        }
        let of_service = name.strip_suffix(DOMAIN)?.strip_suffix(".svc.")?;
        let labels: Vec<&str> = of_service.split('.').collect();
        match labels.as_slice() {
            [service, namespace] => self.service(namespace, service),
            [host, service, namespace] => {
                let addresses = self.endpoints(namespace, service, |endpoint| text(endpoint, "/hostname") == *host);
                (!addresses.is_empty()).then_some(Meaning::Addresses(addresses))
            }
            _ => None,
        }
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Meaning> {
        let service = self.0?.get(&SERVICES, namespace, name)?;
        if text(service, "/spec/type") == "ExternalName" {
            return Some(Meaning::Alias(text(service, "/spec/externalName").to_owned()));
        }
        Some(Meaning::Addresses(match text(service, "/spec/clusterIP") {
            "None" => self.endpoints(namespace, name, |_| true),
            _ => parsed(list(service, "/spec/clusterIPs")).collect(),
        }))
    }

    /// Addresses of a service's endpoints that are ready.
    fn endpoints(&self, namespace: &str, service: &str, wanted: impl Fn(&Value) -> bool) -> Vec<IpAddr> {
        let slices = self.0.into_iter().flat_map(|world| world.list_in(&ENDPOINT_SLICES, namespace));
        let own = slices.filter(|slice| label(slice, "kubernetes.io/service-name") == Some(service));
        let endpoints = own.flat_map(|slice| list(slice, "/endpoints"));
        let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false && wanted(endpoint));
        ready.flat_map(|endpoint| parsed(list(endpoint, "/addresses"))).collect()
    }
}

fn parsed(addresses: &[Value]) -> impl Iterator<Item = IpAddr> {
    addresses.iter().filter_map(|address| address.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::testing::Bed;
    use hickory_proto::op::{OpCode, Query};
    use serde_json::json;

    fn bed() -> Bed {
        let bed = Bed::new(0);
        let spec = json!({"clusterIP": "10.43.0.80", "clusterIPs": ["10.43.0.80", "fd43::80"]});
        bed.create(&SERVICES, "demo", "web", json!({"spec": spec}));
        bed.create(&SERVICES, "demo", "db", json!({"spec": {"clusterIP": "None"}}));
        for (name, target) in [("alias", "web.demo.svc.cluster.local"), ("loop", "loop.demo.svc.cluster.local")] {
            let spec = json!({"type": "ExternalName", "externalName": target});
            bed.create(&SERVICES, "demo", name, json!({"spec": spec}));
        }
        let endpoint = |address: &str, ready: bool, host: &str| json!({"addresses": [address], "conditions": {"ready": ready}, "hostname": host});
        let endpoints = [endpoint("10.42.0.2", true, "db-0"), endpoint("10.42.0.3", false, "db-1")];
        let labels = json!({"labels": {"kubernetes.io/service-name": "db"}});
        bed.create(&ENDPOINT_SLICES, "demo", "db-1", json!({"metadata": labels, "endpoints": endpoints}));
        bed
    }

    fn ask(names: &Names<'_>, kind: RecordType, name: &str) -> String {
        let mut question = Message::new(7, MessageType::Query, OpCode::Query);
        question.queries.push(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), kind));
        let answer = Message::from_vec(&reply(names, &question.to_vec().unwrap(), Over::Tcp).unwrap()).unwrap();
        assert_eq!((answer.metadata.id, answer.metadata.message_type), (7, MessageType::Response));
        let records = answer.answers.iter().map(|record| record.data.to_string());
        records.chain([answer.metadata.response_code.to_string()]).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_clusters_server_knows_services_their_pods_aliases_the_lan_and_the_site() {
        let world = World::read(&bed().store);
        let names = Names(Some(&world));
        for (kind, name, said) in [
            (RecordType::A, "web.demo.svc.cluster.local", "10.43.0.80 No Error"),
            (RecordType::AAAA, "WEB.demo.svc.cluster.local", "fd43::80 No Error"),
            (RecordType::TXT, "web.demo.svc.cluster.local", "No Error"),
            (RecordType::A, "db.demo.svc.cluster.local", "10.42.0.2 No Error"),
            (RecordType::A, "db-0.db.demo.svc.cluster.local", "10.42.0.2 No Error"),
            (RecordType::A, "db-1.db.demo.svc.cluster.local", "Non-Existent Domain"),
            (RecordType::A, "alias.demo.svc.cluster.local", "web.demo.svc.cluster.local. 10.43.0.80 No Error"),
            (RecordType::CNAME, "alias.demo.svc.cluster.local", "web.demo.svc.cluster.local. No Error"),
            (RecordType::A, "none.demo.svc.cluster.local", "Non-Existent Domain"),
            (RecordType::A, "ledger.site.example", "198.51.100.10 No Error"),
            (RecordType::A, "node.corp.example", "192.0.2.1 No Error"),
            (RecordType::A, "web.demo", "Non-Existent Domain"),
        ] {
            assert_eq!(ask(&names, kind, name), said, "{name}");
        }
        assert!(ask(&names, RecordType::A, "loop.demo.svc.cluster.local").ends_with("Server Failure"));
    }

    #[test]
    fn the_lans_server_knows_nothing_of_the_cluster() {
        for (name, said) in [
            ("node.corp.example", "192.0.2.1 No Error"),
            ("ledger.site.example", "Non-Existent Domain"),
            ("www.vendor.example", "Non-Existent Domain"),
            ("web.demo.svc.cluster.local", "Non-Existent Domain"),
        ] {
            assert_eq!(ask(&Names(None), RecordType::A, name), said, "{name}");
        }
    }

    #[test]
    fn what_is_too_long_is_cut_over_udp_and_whole_over_tcp() {
        let bed = bed();
        let many: Vec<_> = (0..60_u8).map(|n| json!({"addresses": [format!("10.42.1.{n}")]})).collect();
        let labels = json!({"labels": {"kubernetes.io/service-name": "db"}});
        bed.create(&ENDPOINT_SLICES, "demo", "db-2", json!({"metadata": labels, "endpoints": many}));
        let world = World::read(&bed.store);
        let asked = |over, takes: Option<u16>| {
            let mut question = Message::new(7, MessageType::Query, OpCode::Query);
            question.queries.push(Query::query(Name::from_ascii("db.demo.svc.cluster.local.").unwrap(), RecordType::A));
            question.edns = takes.map(|takes| {
                let mut edns = hickory_proto::op::Edns::new();
                edns.set_max_payload(takes);
                edns
            });
            let answer = reply(&Names(Some(&world)), &question.to_vec().unwrap(), over).unwrap();
            let message = Message::from_vec(&answer).unwrap();
            (message.metadata.truncation, message.answers.len())
        };
        assert_eq!(asked(Over::Udp, None), (true, 0));
        assert_eq!(asked(Over::Udp, Some(600)), (true, 0));
        assert_eq!(asked(Over::Udp, Some(4096)), (false, 61));
        assert_eq!(asked(Over::Tcp, None), (false, 61));
    }

    #[test]
    fn what_is_no_question_has_no_answer() {
        assert_eq!(reply(&Names(None), b"nonsense", Over::Udp), None);
        let answer = Message::new(7, MessageType::Response, OpCode::Query).to_vec().unwrap();
        assert_eq!(reply(&Names(None), &answer, Over::Udp), None);
    }
}
