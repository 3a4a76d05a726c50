//! What must never be routed, whatever is asked for.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

prop_compose! {
    fn range()(bits in any::<u16>(), prefix in 6..=32_u8) -> Cidr {
        let address = Ipv4Addr::from_bits(0x0a00_0000 | u32::from(bits) << 4);
        Cidr::new(address.into(), prefix).unwrap().trunc()
    }
}

fn address() -> impl Strategy<Value = IpAddr> {
    any::<u16>().prop_map(|bits| Ipv4Addr::from_bits(0x0a00_0000 | u32::from(bits) << 4).into())
}

fn ranges() -> impl Strategy<Value = BTreeSet<Cidr>> {
    prop::collection::btree_set(range(), 0..4)
}

fn addresses() -> impl Strategy<Value = BTreeSet<IpAddr>> {
    prop::collection::btree_set(address(), 0..4)
}

proptest! {
    #[test]
    fn api_server_gateways_and_resolvers_are_never_routed(
        service in ranges(), pods in ranges(), also in ranges(), never in ranges(), allow in ranges(),
        api_server in addresses(), gateways in addresses(), resolvers in addresses(), routes in ranges(),
        links in ranges(), virtual_range in range(),
    ) {
        let route = |destination| HostRoute { destination, interface: "wg0".into(), gateway: None };
        let host = HostFacts {
            routes: routes.into_iter().map(route).collect(),
            gateways: gateways.clone(),
            resolvers: resolvers.clone(),
            addresses: links.clone(),
            ipv6: Ipv6::On,
        };
        let (also, never, allow) = (Vec::from_iter(also), Vec::from_iter(never), Vec::from_iter(allow));
        let wanted = Wanted {
            rules: &[], vnat: &[], also: &also, never: &never, allow: &allow,
            api_server: &api_server, service: &service, pods: &pods, host: &host,
        };
        let decisions = wanted.decide();
        let routes = plan(&decisions, &[virtual_range], &[]).routes;
        for address in api_server.iter().chain(&gateways).chain(&resolvers) {
            prop_assert!(!routes.iter().any(|route| route.contains(address)), "{address} in {routes:?}");
        }
        for link in &links {
            prop_assert!(!routes.iter().any(|route| route.contains(&link.addr())), "{link} in {routes:?}");
            let allowed = allow.iter().any(|range| covers(range, link));
            prop_assert!(allowed || !decisions.routed.iter().any(|route| overlaps(route, link)), "{link}");
        }
        let free = plan(&decisions, &[cidr("246.246.0.0/16")], &[]).routes;
        prop_assert!(free.iter().any(|route| covers(route, &cidr("246.246.0.0/16"))));
    }
}

fn decide(also: &[&str], never: &[&str], allow: &[&str], route: &str) -> Decisions {
    let list = |texts: &[&str]| texts.iter().map(|text| cidr(text)).collect::<Vec<_>>();
    let route = HostRoute { destination: cidr(route), interface: "wg0".into(), gateway: None };
    let none = BTreeSet::new();
    Wanted {
        rules: &[],
        vnat: &[],
        also: &list(also),
        never: &list(never),
        allow: &list(allow),
        api_server: &BTreeSet::new(),
        service: &none,
        pods: &none,
        host: &HostFacts { routes: BTreeSet::from([route]), ..HostFacts::default() },
    }
    .decide()
}

#[test]
fn a_clash_is_translated_unless_allowed() {
    let clash = decide(&["10.96.0.0/12"], &[], &[], "10.0.0.0/8");
    let conflict = Some("10.0.0.0/8 via wg0".to_owned());
    assert_eq!(clash.ranges[0].treatment, Treatment::Translated { target: Target::General, conflict });
    assert!(clash.routed.is_empty());
    let allowed = decide(&["10.96.0.0/12"], &[], &["10.96.0.0/12"], "10.0.0.0/8");
    assert_eq!(allowed.routed, BTreeSet::from([cidr("10.96.0.0/12")]));
    assert_eq!(decide(&["10.96.0.0/12"], &[], &[], "0.0.0.0/0").ranges[0].treatment, Treatment::Routed);
}

#[test]
fn a_smaller_also_proxy_wins_over_never_proxy() {
    let both = decide(&["10.0.0.0/16", "10.0.1.0/25"], &["10.0.1.0/24"], &[], "0.0.0.0/0");
    assert!(both.routed.iter().any(|route| covers(route, &cidr("10.0.1.0/25"))));
    assert!(!both.routed.iter().any(|route| overlaps(route, &cidr("10.0.1.128/25"))));
}

#[test]
fn what_never_proxy_takes_out_of_a_range_is_shown() {
    let shown = |never: &[&str]| -> Vec<String> {
        let ranges = decide(&["10.96.0.0/12"], never, &[], "192.168.0.0/24").ranges;
        ranges.iter().filter(|range| range.source == "never").map(|range| range.cidr.to_string()).collect()
    };
    assert_eq!(shown(&["10.96.5.0/24", "10.97.0.1/32"]), ["10.96.5.0/24", "10.97.0.1/32"]);
    // All of it is told of the range itself; elsewhere there is nothing to leave out.
    assert_eq!(shown(&["10.96.0.0/12"]), [""; 0]);
    assert_eq!(shown(&["10.0.0.0/8", "172.16.0.0/12"]), [""; 0]);
}

#[test]
fn loopback_of_two_workloads_is_no_clash() {
    let rule = |name: &str| ViaRule {
        range: "127.0.0.1/32".parse().unwrap(),
        workload: Workload::new("demo", crate::workload::WorkloadKind::Deployment, name),
    };
    let (host, none) = (HostFacts::default(), BTreeSet::new());
    let rules = [rule("web"), rule("db")];
    let wanted = Wanted {
        rules: &rules,
        vnat: &[],
        also: &[],
        never: &[],
        allow: &[],
        api_server: &BTreeSet::new(),
        service: &none,
        pods: &none,
        host: &host,
    };
    let targets: Vec<Treatment> = wanted.decide().ranges.into_iter().map(|range| range.treatment).collect();
    let through = |name: &str| Treatment::Translated { target: Target::Workload(rule(name).workload), conflict: None };
    assert_eq!(targets, [through("web"), through("db")]);
}

#[test]
fn default_loopback_and_multicast_are_excluded() {
    for text in ["0.0.0.0/0", "127.0.0.1/32", "169.254.169.254/32", "224.0.0.0/8", "::1/128", "fe80::/64"] {
        let decisions = decide(&[text], &[], &[], "192.168.0.0/24");
        assert!(matches!(decisions.ranges[0].treatment, Treatment::Excluded { .. }), "{text}");
        assert!(decisions.routed.is_empty(), "{text}");
    }
}

#[test]
fn the_halves_of_a_default_route_clash_with_nothing() {
    for half in ["0.0.0.0/1", "128.0.0.0/1"] {
        let decisions = decide(&["10.96.0.0/12", "172.20.0.0/16", "192.168.7.0/24"], &[], &[], half);
        assert!(decisions.ranges.iter().all(|range| range.treatment == Treatment::Routed), "{half}");
        let asked = decide(&[half], &[], &[], "192.168.0.0/24");
        assert!(matches!(asked.ranges[0].treatment, Treatment::Excluded { .. }));
    }
    assert!(is_default(&cidr("2000::/3")) && !is_default(&cidr("fd00::/8")));
}

#[test]
fn never_proxy_also_keeps_its_part_of_a_range_that_clashes() {
    let clash = decide(&["10.96.0.0/12"], &["10.96.5.0/24"], &[], "10.0.0.0/8");
    let place = |text: &str| clash.place(text.parse().unwrap());
    assert_eq!(place("10.96.5.1"), Place::Plain);
    assert_eq!(place("10.96.6.1"), Place::Translated(Target::General));
    assert_eq!(place("10.0.0.1"), Place::Foreign);
}

#[test]
fn never_proxy_inside_the_range_of_a_rule_wins_when_it_is_longer() {
    let rule = ViaRule {
        range: "10.96.0.0/16".parse().unwrap(),
        workload: Workload::new("demo", crate::workload::WorkloadKind::Deployment, "web"),
    };
    let (host, none) = (HostFacts::default(), BTreeSet::new());
    let never = [cidr("10.96.5.0/24"), cidr("10.0.0.0/8")];
    let service = BTreeSet::from([cidr("10.96.0.0/12")]);
    let wanted = Wanted {
        rules: std::slice::from_ref(&rule),
        vnat: &[],
        also: &[],
        never: &never,
        allow: &[],
        api_server: &BTreeSet::new(),
        service: &service,
        pods: &none,
        host: &host,
    };
    let decisions = wanted.decide();
    assert_eq!(decisions.place("10.96.5.1".parse().unwrap()), Place::Plain);
    let target = Target::Workload(rule.workload.clone());
    assert_eq!(decisions.place("10.96.6.1".parse().unwrap()), Place::Translated(target));
    assert!(!decisions.routed.iter().any(|route| overlaps(route, &never[0])), "{:?}", decisions.routed);
}
