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
fn repeated_facts_take_no_new_address_and_tell_nothing() {
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
fn the_longest_prefix_wins_then_the_declared_order() {
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
fn loopback_of_a_workload_in_another_namespace_has_its_name() {
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
fn loopback_that_rules_name_several_times_is_shown_once() {
    let (web, db) = (workload("demo", "web"), workload("demo", "db"));
    let mut core = core();
    feed(&mut core, select(&[("127.0.0.1", web.clone()), ("127.0.0.1", db.clone()), ("127.0.0.1", web.clone())]));
    feed(&mut core, cluster(1, &["10.96.0.0/12"], &[]));
    feed(&mut core, host(1, &[]));
    let of: Vec<Workload> = core.via.state.fixed.iter().map(|(_, _, of, _)| of.clone()).collect();
    assert_eq!(of, [web, db]);
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
fn what_the_host_tells_of_our_own_doing_changes_nothing() {
    let ours = ["246.246.0.2", "fd12:3456:789a:1::2"];
    let facts = |resolvers: &[&str], routes: &[&str]| {
        let Input::Host(_, facts) = host(1, routes) else { panic!() };
        HostFacts { resolvers: resolvers.iter().map(|text| ip(text)).collect(), ..(*facts).clone() }
    };
    // Our DNS address in resolv.conf, beside the one of before or alone, with and without another's routes, also wide ones.
    let echoes = [
        facts(&ours, &["0.0.0.0/0"]),
        facts(&["192.168.1.1", ours[0], ours[1]], &["0.0.0.0/0", "240.0.0.0/4"]),
        facts(&["192.168.1.1"], &["0.0.0.0/0", "172.30.0.0/16"]),
        facts(&[ours[0], "247.246.0.2"], &["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1"]),
    ];
    let echoes = echoes.map(|facts| Input::Host(Generation(0), Arc::new(facts)));
    for order in permutations(echoes.to_vec()) {
        let mut core = core();
        feed(&mut core, host(1, &["0.0.0.0/0"]));
        feed(&mut core, select(&[("service", workload("demo", "web"))]));
        feed(&mut core, cluster(1, &["10.96.0.0/12"], &[]));
        let mut generation = Generation(1);
        // The second round is what comes when the kernel's messages were told one by one.
        for echo in order.iter().chain(&order) {
            let Input::Host(_, facts) = echo else { panic!() };
            generation = generation.next();
            assert_eq!(feed(&mut core, Input::Host(generation, Arc::clone(facts))), []);
        }
    }
}

#[test]
fn a_virtual_range_is_left_only_for_a_clash_and_never_taken_again() {
    for used in [false, true] {
        let mut core = core();
        feed(&mut core, host(1, &["246.0.0.0/8"]));
        feed(&mut core, select(&[("service", workload("demo", "web"))]));
        feed(&mut core, cluster(1, &["10.96.0.0/12"], &[]));
        let mut at = |generation, routes: &[&str]| {
            feed(&mut core, host(generation, routes));
            if used {
                assert!(answer(&mut core, generation, &[SERVICE]).is_ok());
            }
            assert!(core.plan.1.routes.contains(&core.table.virtual_ranges[0]));
            core.table.virtual_ranges[0].to_string()
        };
        assert_eq!(at(2, &["246.0.0.0/8"]), "247.246.0.0/16");
        assert_eq!(at(3, &[]), "247.246.0.0/16");
        // What is wider takes no packet away from it.
        assert_eq!(at(4, &["240.0.0.0/4"]), "247.246.0.0/16");
        assert_eq!(at(5, &["247.246.9.0/24"]), "246.246.0.0/16");
        assert_eq!(at(6, &[]), "246.246.0.0/16");
        assert_eq!(at(7, &["246.246.0.0/16"]), "245.246.0.0/16");
        let rest = ["245.246.0.0/17", "241.246.0.0/16", "198.18.0.0/15"];
        for generation in 8..20 {
            assert_eq!(at(generation, &rest), "245.246.0.0/16", "none is left, so it stays");
        }
    }
    let mut core = core();
    feed(&mut core, host(1, &[]));
    feed(&mut core, select(&[("service", workload("demo", "web"))]));
    feed(&mut core, cluster(1, &["246.0.0.0/8"], &[]));
    assert_eq!(core.table.virtual_ranges[0], cidr("247.246.0.0/16"), "real addresses are no virtual ones");
}

#[test]
fn a_host_without_ipv6_gets_a_plan_without() {
    let mut core = core();
    feed(&mut core, select(&[("fd00:96::/64", workload("demo", "web"))]));
    feed(&mut core, cluster(1, &["10.96.0.0/12", "fd00:97::/112"], &[]));
    let facts = |ipv6| Arc::new(HostFacts { ipv6, ..HostFacts::default() });
    feed(&mut core, Input::Host(Generation(1), facts(Ipv6::Off)));
    assert!(core.is_ready() && core.via.state.ipv6 == Ipv6::Off);
    let RoutePlan { addresses, routes } = &core.plan.1;
    assert!(addresses.iter().chain(routes).all(|cidr| matches!(cidr, Cidr::V4(_))), "{:?}", core.plan.1);
    assert_eq!(routes.len(), 2);
    let off = Treatment::Excluded { why: "IPv6 is off on this host".to_owned() };
    assert_eq!(core.via.state.ranges.iter().filter(|range| range.treatment == off).count(), 2);
    feed(&mut core, Input::Host(Generation(2), facts(Ipv6::On)));
    assert_eq!(core.plan.1.addresses.len(), 2);
}

#[test]
fn ipv6_loopback_of_a_pod_is_there_when_the_host_has_ipv6_and_not_before() {
    let mut core = core();
    feed(&mut core, select(&[("::1", workload("demo", "web")), ("127.0.0.1", workload("demo", "web"))]));
    feed(&mut core, cluster(1, &["10.96.0.0/12"], &[]));
    let mut on = |generation, ipv6| {
        let facts = HostFacts { ipv6, ..HostFacts::default() };
        feed(&mut core, Input::Host(Generation(generation), Arc::new(facts)));
        assert!(core.is_ready());
        let has = |address: &IpAddr| address.is_ipv6();
        let fixed = core.via.state.fixed.iter().any(|(vip, ..)| has(vip));
        let told = [core.table.vips.keys().any(has), core.translation.names.keys().any(has), fixed];
        assert_eq!(core.via.state.fixed.len(), 1 + usize::from(fixed), "that of IPv4 stays");
        assert_eq!(core.workloads.1.workloads.len(), 1);
        told
    };
    assert_eq!(on(1, Ipv6::Off), [false; 3]);
    assert_eq!(on(2, Ipv6::On), [true; 3]);
    assert_eq!(on(3, Ipv6::Off), [false; 3]);
}

#[test]
fn addresses_outlive_the_connection() {
    let begun = |mut core: ProxyViaCore, memory: VipMemory, routes: &[&str]| {
        core = core.awaiting_memory();
        feed(&mut core, select(&[("service", workload("demo", "web"))]));
        feed(&mut core, cluster(1, &["10.96.0.0/12"], &[]));
        feed(&mut core, host(1, routes));
        assert!(core.table.virtual_ranges.is_empty(), "nothing is chosen before it is known what was");
        assert_eq!(answer(&mut core, 0, &[SERVICE]), Err(AllocateError::NotReady));
        feed(&mut core, Input::Remember(memory));
        core
    };
    let mut first = begun(core(), VipMemory::default(), &["246.246.0.0/16"]);
    let got = answer(&mut first, 1, &[SERVICE, "10.96.0.10"]).unwrap();
    // The route that the first range clashed with is gone; the range of before is used all the same.
    let mut second = begun(core(), first.memory(7).unwrap(), &[]);
    assert_eq!(answer(&mut second, 1, &["10.96.0.10"]).unwrap()[&ip("10.96.0.10")], got[&ip("10.96.0.10")]);
    assert_eq!(answer(&mut second, 2, &[SERVICE]).unwrap()[&ip(SERVICE)], got[&ip(SERVICE)]);
    let of_second = second.memory(8).unwrap();

    // What came to nothing leaves all as it was: without what is remembered, without facts, without a name.
    assert_eq!(core().awaiting_memory().memory(9), None);
    let mut nothing = core().awaiting_memory();
    feed(&mut nothing, Input::Remember(of_second.clone()));
    assert_eq!(nothing.memory(9), None);
    // Where the range of before is taken, the configured one is.
    let mut third = begun(core(), of_second, &["247.246.9.0/24"]);
    assert_eq!(third.table.virtual_ranges[0], cidr("246.246.0.0/16"));
    assert_eq!(third.memory(9), None);
    answer(&mut third, 1, &[SERVICE]).unwrap();
    // Another configuration starts afresh.
    let config = ProxyViaConfig { virtual_v4: cidr("10.200.0.0/16"), ..core().config };
    let mut fourth = begun(ProxyViaCore::new(config), third.memory(9).unwrap(), &[]);
    assert_eq!(fourth.table.virtual_ranges[0], cidr("10.200.0.0/16"));
    answer(&mut fourth, 1, &[SERVICE]).unwrap();
    // None of these made it forget what the second had; it has its range again where no other is free.
    let taken = ["246.246.0.0/16", "245.246.0.0/16", "241.246.0.0/16", "198.18.0.0/15"];
    let mut fifth = begun(core(), fourth.memory(10).unwrap(), &taken);
    assert_eq!(answer(&mut fifth, 1, &[SERVICE, "10.96.0.10"]).unwrap(), got);
}

#[test]
fn an_address_is_given_to_something_else_only_after_its_last_flow() {
    let config = ProxyViaConfig { virtual_v4: cidr("10.200.0.0/23"), ..core().config };
    let mut core = ProxyViaCore::new(config);
    feed(&mut core, select(&[("service", workload("demo", "web"))]));
    feed(&mut core, cluster(1, &["10.96.0.0/12"], &[]));
    feed(&mut core, host(1, &[]));
    let real = |n: u32| IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a60_0000 + n));
    let at = |core: &mut ProxyViaCore, now: u64, n: u32| {
        let (reply, name) = (ReplyId(u64::from(n)), "x".into());
        core.handle(Millis(now), Input::Allocate { reply, name, addresses: vec![real(n)] });
        let effects: Vec<Effect> = std::iter::from_fn(|| core.poll_effect()).collect();
        effects.into_iter().find_map(|effect| match effect {
            Effect::Answer(_, answer) => Some(answer.map(|given| given[&real(n)])),
            Effect::Publish(_) | Effect::TellVif(_) | Effect::TellWorkloads(..) | Effect::TellDns(_) => None,
            Effect::TellSession(_) => None,
        })
    };
    let given: Vec<IpAddr> = (0..256).map(|n| at(&mut core, 0, n).unwrap().unwrap()).collect();
    let quarantine = u64::try_from(vip::QUARANTINE.as_millis()).unwrap();
    let exhausted = Some(Err(AllocateError::Exhausted));
    assert_eq!(at(&mut core, 2 * quarantine, 300), exhausted, "flows are not known");
    core.handle(Millis(1), Input::InUse(given.iter().copied().collect()));
    assert_eq!(at(&mut core, 2 * quarantine, 300), exhausted, "flows use them all");
    core.handle(Millis(2 * quarantine), Input::InUse(given[1..].iter().copied().collect()));
    assert_eq!(at(&mut core, 3 * quarantine - 1, 300), exhausted, "the quarantine begins with the end of the flow");
    assert_eq!(at(&mut core, 3 * quarantine, 300), Some(Ok(given[0])));
}

#[test]
fn a_virtual_range_holds_nothing_that_the_host_needs() {
    let needed = ip("246.246.0.53");
    let facts = [
        HostFacts { resolvers: BTreeSet::from([needed]), ..HostFacts::default() },
        HostFacts { gateways: BTreeSet::from([needed]), ..HostFacts::default() },
        HostFacts { addresses: BTreeSet::from([cidr("246.246.0.53/32")]), ..HostFacts::default() },
    ];
    for facts in facts {
        let mut core = core();
        feed(&mut core, select(&[("service", workload("demo", "web"))]));
        feed(&mut core, cluster(1, &["10.96.0.0/12"], &[]));
        feed(&mut core, Input::Host(Generation(1), Arc::new(facts)));
        assert_eq!(core.table.virtual_ranges[0], cidr("247.246.0.0/16"));
        assert!(!core.plan.1.routes.iter().any(|route| route.contains(&needed)));
    }
    let mut core = core();
    let Input::Select(selection) = select(&[]) else { panic!() };
    feed(&mut core, Input::Select(SelectProxyVia { api_server: BTreeSet::from([needed]), ..selection }));
    feed(&mut core, host(1, &["128.0.0.0/1", "0.0.0.0/1"]));
    assert_eq!(core.table.virtual_ranges[0], cidr("247.246.0.0/16"));
}
