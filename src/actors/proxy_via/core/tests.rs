//! Every order ends in the same facts; overlaps, late facts and loopback, one behaviour each.

use super::*;
use crate::net::route_plan::HostRoute;
use crate::net::views::{Destination, VipTable};
use crate::spec::ViaRule;
use crate::workload::WorkloadKind;

const SERVICE: &str = "10.96.0.9";

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn workload(namespace: &str, name: &str) -> Workload {
    Workload::new(namespace, WorkloadKind::Deployment, name)
}

fn select(rules: &[(&str, Workload)]) -> Input {
    let rule =
        |(range, workload): &(&str, Workload)| ViaRule { range: range.parse().unwrap(), workload: workload.clone() };
    Input::Select(SelectProxyVia {
        rules: rules.iter().map(rule).collect(),
        vnat: Vec::new(),
        also_proxy: Vec::new(),
        never_proxy: Vec::new(),
        allow_conflicting: Vec::new(),
        api_server: BTreeSet::from([ip("203.0.113.7")]),
    })
}

fn cluster(generation: u64, service: &[&str], pods: &[&str]) -> Input {
    let set = |texts: &[&str]| texts.iter().map(|text| cidr(text)).collect();
    let info = ClusterInfo {
        service_cidrs: set(service),
        pod_cidrs: set(pods),
        complete: true,
        domain: "cluster.local".into(),
        ..ClusterInfo::default()
    };
    Input::Cluster(Generation(generation), Arc::new(info))
}

fn host(generation: u64, routes: &[&str]) -> Input {
    let route = |text: &&str| HostRoute { destination: cidr(text), interface: "wg0".into(), gateway: None };
    let facts = HostFacts { routes: routes.iter().map(route).collect(), ..HostFacts::default() };
    Input::Host(Generation(generation), Arc::new(facts))
}

fn ask(id: u64, addresses: &[&str]) -> Input {
    let addresses = addresses.iter().map(|text| ip(text)).collect();
    Input::Allocate { reply: ReplyId(id), name: "web.demo.svc.cluster.local".into(), addresses }
}

fn core() -> ProxyViaCore {
    let config = ProxyViaConfig { virtual_v4: cidr("246.246.0.0/16"), virtual_v6: cidr("fd12:3456:789a:1::/64") };
    ProxyViaCore::new(config)
}

fn feed(core: &mut ProxyViaCore, input: Input) -> Vec<Effect> {
    core.handle(Millis(0), input);
    std::iter::from_fn(|| core.poll_effect()).collect()
}

/// The answer to one question, checked to come after a table that carries it.
fn answer(core: &mut ProxyViaCore, id: u64, addresses: &[&str]) -> Result<BTreeMap<IpAddr, IpAddr>, AllocateError> {
    let mut table = core.table.clone();
    for effect in feed(core, ask(id, addresses)) {
        match effect {
            Effect::Publish(new) => table = new,
            Effect::TellDns(told) => assert!(told.names.keys().all(|vip| table.vips.contains_key(vip))),
            Effect::Answer(_, answer) => {
                let table = VipTable::from(table);
                for (real, handed) in answer.iter().flatten() {
                    let Destination::Dial { address, .. } = table.lookup(*handed) else { panic!("{handed} unknown") };
                    assert_eq!(address, *real);
                }
                return answer;
            }
            Effect::TellVif(_) | Effect::TellWorkloads(..) | Effect::TellSession(_) => {}
        }
    }
    panic!("no answer");
}

fn permutations(items: Vec<Input>) -> Vec<Vec<Input>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for first in 0..items.len() {
        let mut rest = items.clone();
        let head = rest.remove(first);
        for mut tail in permutations(rest) {
            tail.insert(0, head.clone());
            all.push(tail);
        }
    }
    all
}

#[test]
fn every_order_ends_in_the_same_facts() {
    let rules = [("service", workload("demo", "web")), ("127.0.0.1/32", workload("demo", "web"))];
    let inputs = vec![
        select(&rules),
        cluster(1, &["10.96.0.0/12"], &["10.244.0.0/16"]),
        host(1, &["0.0.0.0/0", "192.168.1.0/24"]),
        ask(1, &[SERVICE, "10.244.0.7"]),
    ];
    let mut ends = BTreeSet::new();
    for order in permutations(inputs) {
        let mut core = core();
        for input in order {
            if let Input::Allocate { .. } = &input {
                let ready = core.is_ready();
                assert_eq!(answer(&mut core, 1, &[SERVICE, "10.244.0.7"]).is_ok(), ready);
            } else {
                feed(&mut core, input);
            }
        }
        let got = answer(&mut core, 2, &[SERVICE, "10.244.0.7"]).unwrap();
        assert_ne!(got[&ip(SERVICE)], ip(SERVICE));
        assert_eq!(got[&ip("10.244.0.7")], ip("10.244.0.7"));
        let told = TranslationChanged { generation: Generation(0), ..core.translation.clone() };
        let table = Table { generation: Generation(0), ..core.table.clone() };
        let state = ViaState { plan: Generation(0), ..core.via.state.clone() };
        assert_eq!(core.via.state.plan, core.plan.0);
        ends.insert((got, told, table, state, core.plan.1.clone(), core.workloads.1.clone()));
    }
    assert_eq!(ends.len(), 1);
}

#[test]
fn a_late_service_range_keeps_the_workload() {
    let mut core = core();
    let web = workload("demo", "web");
    let told = feed(&mut core, select(&[("service", web.clone())]));
    assert!(told.iter().any(|e| matches!(e, Effect::TellWorkloads(_, via) if via.workloads.contains(&web))));
    feed(&mut core, host(1, &[]));
    feed(&mut core, cluster(1, &[], &["10.244.0.0/16"]));
    let late = feed(&mut core, cluster(2, &["10.96.0.0/12"], &["10.244.0.0/16"]));
    assert!(!late.iter().any(|e| matches!(e, Effect::TellWorkloads(..))));
    assert!(core.workloads.1.workloads.contains(&web));
    assert_ne!(answer(&mut core, 1, &[SERVICE]).unwrap()[&ip(SERVICE)], ip(SERVICE));
}

#[test]
fn s55_repeated_facts_take_no_vip() {
    let mut core = core();
    feed(&mut core, select(&[("service", workload("demo", "web"))]));
    feed(&mut core, host(1, &[]));
    feed(&mut core, cluster(1, &["10.96.0.0/12"], &[]));
    let first = answer(&mut core, 1, &[SERVICE]).unwrap();
    assert!(feed(&mut core, cluster(2, &["10.96.0.0/12"], &[])).is_empty());
    assert_eq!(answer(&mut core, 2, &[SERVICE]).unwrap(), first);
    feed(&mut core, cluster(3, &["10.96.0.0/12", "10.200.0.0/16"], &[]));
    assert_eq!(core.table.vips.len(), 1);
    assert!(feed(&mut core, cluster(2, &[], &[])).is_empty());
}

#[test]
fn s52_overlap_is_decided_by_length_then_order() {
    let [wide, narrow, late] = ["wide", "narrow", "late"].map(|name| workload("demo", name));
    let rules = [("10.96.0.0/12", wide.clone()), ("10.96.0.0/24", narrow.clone()), ("service", late)];
    let mut core = core();
    feed(&mut core, select(&rules));
    feed(&mut core, host(1, &[]));
    feed(&mut core, cluster(1, &["10.96.0.0/12"], &[]));
    let got = answer(&mut core, 1, &["10.96.0.9", "10.97.0.9"]).unwrap();
    let target = |real: &str| core.table.vips[&got[&ip(real)]].target.clone();
    assert_eq!(target("10.96.0.9"), Target::Workload(narrow));
    assert_eq!(target("10.97.0.9"), Target::Workload(wide));
}

#[test]
fn s56_workload_in_another_namespace() {
    let db = workload("other", "db");
    let mut core = core();
    feed(&mut core, select(&[("127.0.0.1", db.clone())]));
    assert_eq!(core.workloads.1.special[&db], BTreeSet::from([cidr("127.0.0.1/32")]));
    feed(&mut core, cluster(1, &["10.96.0.0/12"], &[]));
    feed(&mut core, host(1, &[]));
    let (vip, real, of, name) = core.via.state.fixed[0].clone();
    assert_eq!((real, of, name.as_str()), (ip("127.0.0.1"), db.clone(), "127-0-0-1.db.other.podway"));
    assert_eq!(core.table.vips[&vip].target, Target::Workload(db));
    assert!(core.translation.namespaces.contains("other"));
    assert!(!core.plan.1.routes.iter().any(|route| route.contains(&real)));
}

#[test]
fn an_address_of_nowhere_fails_the_whole_answer() {
    let mut core = core();
    feed(&mut core, select(&[("service", workload("demo", "web"))]));
    feed(&mut core, host(1, &["246.246.0.0/24"]));
    feed(&mut core, cluster(1, &["10.96.0.0/12"], &[]));
    assert_eq!(answer(&mut core, 1, &[SERVICE, "192.0.2.1"]), Err(AllocateError::Foreign(ip("192.0.2.1"))));
    assert!(core.table.vips.is_empty());
    assert_eq!(core.table.virtual_ranges[0], cidr("247.246.0.0/16"));
    feed(&mut core, Input::Stop);
    assert_eq!(answer(&mut core, 2, &[SERVICE]), Err(AllocateError::NotReady));
}

#[test]
fn a_virtual_range_holds_nothing_that_the_host_needs() {
    let mut core = core();
    feed(&mut core, select(&[("service", workload("demo", "web"))]));
    feed(&mut core, cluster(1, &["10.96.0.0/12"], &[]));
    let facts = HostFacts { resolvers: BTreeSet::from([ip("246.246.0.53")]), ..HostFacts::default() };
    feed(&mut core, Input::Host(Generation(1), Arc::new(facts)));
    assert_eq!(core.table.virtual_ranges[0], cidr("247.246.0.0/16"));
    assert!(!core.plan.1.routes.iter().any(|route| route.contains(&ip("246.246.0.53"))));
}

#[test]
fn a_virtual_range_that_another_link_takes_over_is_replaced() {
    let mut core = core();
    feed(&mut core, select(&[("service", workload("demo", "web"))]));
    feed(&mut core, cluster(1, &["10.96.0.0/12"], &[]));
    feed(&mut core, host(1, &[]));
    let first = answer(&mut core, 1, &[SERVICE]).unwrap();
    // What is wider takes nothing away.
    feed(&mut core, host(2, &["240.0.0.0/4", "0.0.0.0/1", "128.0.0.0/1"]));
    assert_eq!(answer(&mut core, 2, &[SERVICE]).unwrap(), first);
    feed(&mut core, host(3, &["246.246.0.0/16"]));
    let second = answer(&mut core, 3, &[SERVICE]).unwrap();
    assert!(cidr("247.246.0.0/16").contains(&second[&ip(SERVICE)]));
    assert!(!core.plan.1.routes.contains(&cidr("246.246.0.0/16")));
    // Once moved, it stays.
    feed(&mut core, host(4, &[]));
    assert_eq!(answer(&mut core, 4, &[SERVICE]).unwrap(), second);
}

#[test]
fn s49_two_first_cluster_facts() {
    let mut core = core();
    feed(&mut core, select(&[("service", workload("demo", "web"))]));
    feed(&mut core, host(1, &[]));
    feed(&mut core, cluster(1, &["10.96.0.0/12"], &[]));
    assert_eq!(feed(&mut core, cluster(1, &["10.96.0.0/12"], &[])), []);
    assert_eq!(feed(&mut core, cluster(2, &["10.96.0.0/12"], &[])), []);
    assert!(answer(&mut core, 1, &[SERVICE]).is_ok());
}

/// Sessions on one host: cores whose plans meet in one table of routes, as the kernel keeps it.
struct Host {
    cores: Vec<ProxyViaCore>,
    own: Vec<crate::net::route::Own>,
    /// Destination to the session that has it.
    table: BTreeMap<Cidr, usize>,
}

impl Host {
    fn new(ranges: &[&str]) -> Host {
        let index = |n: usize| Some(u32::try_from(n).unwrap());
        let begun = |range: &&str| {
            let mut core = core();
            feed(&mut core, select(&[("127.0.0.1/32", workload("demo", "web"))]));
            feed(&mut core, cluster(1, &[range], &[]));
            core
        };
        let own = |n| crate::net::route::Own { index: index(n), refused: BTreeSet::new() };
        Host {
            cores: ranges.iter().map(begun).collect(),
            own: (0..ranges.len()).map(own).collect(),
            table: BTreeMap::new(),
        }
    }

    /// One session reads the host's network.
    fn read(&mut self, n: usize) {
        let minded = self.table.iter().filter(|(cidr, by)| {
            **by != n && self.own[n].minds_route(&format!("podway{by}"), u32::try_from(**by).unwrap(), cidr)
        });
        let routes =
            minded.map(|(cidr, by)| HostRoute { destination: *cidr, interface: format!("podway{by}"), gateway: None });
        let facts = Arc::new(HostFacts { routes: routes.collect(), ..HostFacts::default() });
        let generation = self.cores[n].host.0.next();
        feed(&mut self.cores[n], Input::Host(generation, facts));
    }

    /// One session carries its plan out.
    fn apply(&mut self, n: usize) {
        let plan = self.cores[n].plan.1.routes.clone();
        for cidr in &plan {
            if *self.table.entry(*cidr).or_insert(n) != n {
                self.own[n].refused.insert(*cidr);
            }
        }
        self.table.retain(|cidr, by| *by != n || plan.contains(cidr));
    }

    /// All read, then all apply: the order in which giving way could go on for ever. Whether anything changed.
    fn round(&mut self) -> bool {
        let state = |host: &Host| (host.table.clone(), host.own.clone());
        let before = state(self);
        let all = 0..self.cores.len();
        all.clone().for_each(|n| self.read(n));
        all.for_each(|n| self.apply(n));
        before != state(self)
    }
}

proptest::proptest! {
    #[test]
    fn sessions_on_one_host_come_to_rest_side_by_side(
        ranges in proptest::sample::subsequence(vec!["10.96.0.0/12", "10.96.0.0/16", "10.97.0.0/16", "10.0.0.0/8"], 2..=3),
        same in proptest::prelude::any::<bool>(),
        steps in proptest::collection::vec((0..3_usize, proptest::prelude::any::<bool>()), 0..40),
    ) {
        let ranges = if same { vec![ranges[0]; ranges.len()] } else { ranges };
        let mut host = Host::new(&ranges);
        for (n, reads) in steps {
            let n = n % ranges.len();
            if reads { host.read(n) } else { host.apply(n) }
        }
        let mut rounds = 0;
        while host.round() {
            rounds += 1;
            proptest::prop_assert!(rounds < 20, "no rest: {:?}", host.table);
        }
        let foreign = |n: usize, route: &Cidr| {
            host.table.iter().any(|(cidr, by)| *by != n && crate::net::cidr::overlaps(cidr, route))
        };
        for (n, core) in host.cores.iter().enumerate() {
            for route in &core.plan.1.routes {
                proptest::prop_assert_eq!(host.table.get(route), Some(&n), "{} of {:?}", route, host.table);
                proptest::prop_assert!(!foreign(n, route), "{} in {:?}", route, host.table);
            }
        }
        let virtuals: BTreeSet<Cidr> = host.cores.iter().map(|core| core.table.virtual_ranges[0]).collect();
        proptest::prop_assert_eq!(virtuals.len(), ranges.len());
    }
}

#[test]
fn addresses_outlive_the_connection() {
    let begun = |core: &mut ProxyViaCore, routes: &[&str]| {
        feed(core, select(&[("service", workload("demo", "web"))]));
        feed(core, cluster(1, &["10.96.0.0/12"], &[]));
        feed(core, host(1, routes));
    };
    let mut first = core();
    begun(&mut first, &["246.246.0.0/16"]);
    let got = answer(&mut first, 1, &[SERVICE, "10.96.0.10"]).unwrap();
    // The route that the first range clashed with is gone; the range of before is used all the same.
    let mut second = core().remembering(first.memory(7));
    begun(&mut second, &[]);
    assert_eq!(answer(&mut second, 1, &["10.96.0.10"]).unwrap()[&ip("10.96.0.10")], got[&ip("10.96.0.10")]);
    assert_eq!(answer(&mut second, 2, &[SERVICE]).unwrap()[&ip(SERVICE)], got[&ip(SERVICE)]);
    // Where the range of before is taken, the configured one is.
    let mut third = core().remembering(second.memory(8));
    begun(&mut third, &["247.246.9.0/24"]);
    assert_eq!(third.table.virtual_ranges[0], cidr("246.246.0.0/16"));
    // Another configuration starts afresh.
    let config = ProxyViaConfig { virtual_v4: cidr("10.200.0.0/16"), ..core().config };
    let mut fourth = ProxyViaCore::new(config).remembering(third.memory(9));
    begun(&mut fourth, &[]);
    assert_eq!(fourth.table.virtual_ranges[0], cidr("10.200.0.0/16"));
}
