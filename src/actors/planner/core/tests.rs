use super::*;
use crate::cluster::{AgentContainer, ContainerState, NamespaceRights, PodFact, PodPhase, Resolution};
use crate::net::route_plan::HostRoute;
use crate::spec::DnsMode;
use crate::workload::WorkloadKind;

fn web() -> Workload {
    Workload::new("demo", WorkloadKind::Deployment, "web")
}

fn wanted(rules: &[&str]) -> Wanted {
    let spec = ConnectSpec {
        name: "kind".into(),
        context: "kind".into(),
        namespace: "demo".into(),
        proxy_via: rules.iter().map(|rule| rule.parse().expect("a rule")).collect(),
        also_proxy: Vec::new(),
        never_proxy: vec!["10.42.9.0/24".parse().expect("a range")],
        vnat: Vec::new(),
        allow_conflicting_subnets: Vec::new(),
        agent: AgentMode::Auto,
        agent_image: "podway-agent:test".into(),
        dns: DnsMode::Auto,
        timeout_ms: 1000,
    };
    let range = |text: &str| text.parse().expect("a range");
    let config = ProxyViaConfig { virtual_v4: range("246.246.0.0/16"), virtual_v6: range("fd00:1::/64") };
    Wanted { spec, server: "https://192.0.2.1:6443".into(), device: "podway0".into(), config }
}

fn pod(name: &str, agents: &[ContainerState]) -> PodFact {
    let agents = agents.iter().map(|state| AgentContainer {
        name: "podway-agent-1a2b3c4d-1".into(),
        image: "podway-agent:test".into(),
        port: 20_000,
        authorized_key: "key".into(),
        state: state.clone(),
    });
    PodFact {
        uid: name.into(),
        namespace: "demo".into(),
        name: name.into(),
        workload: web(),
        ips: Vec::new(),
        host_network: false,
        phase: PodPhase::Running,
        ready: true,
        terminating: false,
        agents: agents.collect(),
        own_pod_of: None,
        own_job: None,
    }
}

fn facts(rights: NamespaceRights, pods: &[PodFact], routes: &[(&str, &str)]) -> Facts {
    let range = |text: &str| text.parse().expect("a range");
    let info = ClusterInfo {
        service_cidrs: [range("10.43.0.0/16")].into(),
        pod_cidrs: [range("10.42.0.0/16")].into(),
        complete: true,
        ..ClusterInfo::default()
    };
    let route = |(destination, interface): &(&str, &str)| HostRoute {
        destination: range(destination),
        interface: (*interface).to_owned(),
        gateway: None,
    };
    let host = HostFacts { routes: routes.iter().map(route).collect(), ..HostFacts::default() };
    let pods = pods.iter().map(|pod| (pod.uid.clone(), Arc::new(pod.clone()))).collect();
    let found = Resolution::Found { workload: web(), replicas: Some(2) };
    Facts {
        agents: Some(placer::Plan {
            key: "key".into(),
            fingerprint: "1a2b3c4d".into(),
            first_port: 20_000,
            namespace: "demo".into(),
            mode: AgentMode::Auto,
        }),
        api_server: Some(["192.0.2.1".parse().expect("an address")].into()),
        resolutions: Some([("web".parse().expect("a workload"), found)].into()),
        info: Some(Arc::new(info)),
        pods: Some(Arc::new(PodSnapshot { pods, namespaces: None })),
        rights: Some(Arc::new(Rights { namespaces: [("demo".into(), rights)].into(), ..Rights::default() })),
        watch: Some(WatchHealth::Fresh),
        host: Some(Arc::new(host)),
        dns: Some(("systemd-resolved".into(), String::new())),
        dns_refused: None,
        device: Some(Ok(())),
        memory: Some(VipMemory::default()),
    }
}

fn plan(facts: &Facts, rules: &[&str]) -> ConnectPlan {
    facts.outcome(&wanted(rules)).expect("enough is known").expect("a plan")
}

fn agents(plan: &ConnectPlan) -> Vec<(&str, AgentAction, &str, &str)> {
    plan.agents.iter().map(|a| (a.workload.as_str(), a.action, a.pod.as_str(), a.placement.as_str())).collect()
}

#[test]
fn a_rule_is_planned_with_its_translation_its_routes_and_its_agents() {
    let facts = facts(
        NamespaceRights::ALL,
        &[pod("web-1", &[ContainerState::Running]), pod("web-2", &[])],
        &[("10.42.0.0/16", "wg0")],
    );
    let plan = plan(&facts, &["service=web"]);
    assert_eq!((plan.device.name.as_str(), plan.dns.servers.is_empty()), ("podway0", false));
    assert!(plan.device.routes.contains(&"246.246.0.0/16".to_owned()), "{:?}", plan.device);
    assert!(!plan.device.routes.iter().any(|route| route.starts_with("10.")), "both are translated: {:?}", plan.device);
    let range = |cidr: &str| plan.ranges.iter().find(|range| range.cidr == cidr).expect("planned").clone();
    assert_eq!(range("10.43.0.0/16").treatment, "via demo/deployment/web");
    assert_eq!(range("10.42.0.0/16").treatment, "translated");
    assert_eq!(range("10.42.0.0/16").note, "conflicts with 10.42.0.0/16 via wg0");
    assert_eq!(
        agents(&plan),
        [
            ("demo/deployment/web", AgentAction::Use, "demo/web-1", "ephemeral container"),
            ("demo/deployment/web", AgentAction::Place, "demo/web-2", "ephemeral container"),
            ("general", AgentAction::Place, "", "own pod"),
        ]
    );
    assert_eq!(plan.agents[1].image, "podway-agent:test");
    assert_eq!(plan.missing_rights, Vec::<String>::new());
}

#[test]
fn what_cannot_be_placed_and_the_rights_that_are_missing_are_said() {
    let few = NamespaceRights { create_pods: false, create_jobs: false, ..NamespaceRights::ALL };
    let plan = plan(&facts(few, &[pod("web-1", &[])], &[]), &["service=web"]);
    let refused: Vec<_> = plan.agents.iter().filter(|agent| agent.action == AgentAction::Refused).collect();
    assert!(matches!(refused[..], [agent] if agent.workload == WorkloadLine::GENERAL), "{refused:?}");
    assert_eq!(plan.missing_rights, ["create jobs.batch or pods in namespace demo".to_owned()]);
}

#[test]
fn what_would_fail_fails_with_the_error_of_connecting() {
    let pods = [pod("web-1", &[])];
    let refused = |rights, rules: &[&str]| {
        let outcome = facts(rights, &pods, &[]).outcome(&wanted(rules)).expect("enough is known");
        outcome.expect_err("connecting would fail")
    };
    let no_agents = NamespaceRights { ephemeral_containers: false, ..NamespaceRights::ALL };
    let error = refused(no_agents, &["service=web"]);
    assert_eq!(error.reason, Reason::Forbidden);
    assert!(
        error.message.starts_with("demo/deployment/web: ") && error.message.contains("ephemeralcontainers"),
        "{error}"
    );
    let no_way = NamespaceRights { port_forward: false, ..NamespaceRights::ALL };
    let error = refused(no_way, &["service=web"]);
    assert!(error.message.contains("missing right: create and get pods/portforward in namespace demo"), "{error}");
    let no_pods = NamespaceRights { create_pods: false, create_jobs: false, ..NamespaceRights::ALL };
    assert!(refused(no_pods, &[]).message.starts_with("podway's own pod: "));
    let no_device =
        Facts { device: Some(Err("/dev/net/tun is missing".into())), ..facts(NamespaceRights::ALL, &pods, &[]) };
    let error = no_device.outcome(&wanted(&[])).expect("known").expect_err("connecting would fail");
    assert_eq!((error.reason, &error), (Reason::DeviceFailed, &errors::device("/dev/net/tun is missing")));
}

#[test]
fn a_workload_without_a_pod_waits_for_one() {
    let plan = plan(&facts(NamespaceRights::ALL, &[], &[]), &["all=web"]);
    assert_eq!(agents(&plan), [("demo/deployment/web", AgentAction::Wait, "", "")]);
}

#[test]
fn without_rules_ranges_are_routed_but_for_what_is_left_alone() {
    let plan = plan(&facts(NamespaceRights::ALL, &[], &[]), &[]);
    let routes = &plan.device.routes;
    assert!(routes.contains(&"10.43.0.0/16".to_owned()), "{routes:?}");
    assert!(!routes.iter().any(|route| route.starts_with("10.42.9.")), "{routes:?}");
    assert_eq!(agents(&plan), [("general", AgentAction::Place, "", "own pod")]);
}

#[test]
fn no_plan_is_made_before_all_is_known_and_what_is_not_is_said() {
    let all = facts(NamespaceRights::ALL, &[], &[]);
    let wanted = wanted(&["service=web"]);
    for (without, said) in [
        (Facts { host: None, ..all.clone() }, "this host's routes"),
        (Facts { rights: None, ..all.clone() }, "your rights"),
        (Facts { resolutions: None, ..all.clone() }, "the workloads of --proxy-via"),
        (Facts { info: Some(Arc::default()), ..all.clone() }, "the cluster's ranges"),
        (Facts { dns: None, ..all.clone() }, "this host's resolver"),
        (Facts { device: None, ..all.clone() }, "this host's TUN driver"),
        (Facts { memory: None, ..all.clone() }, "podwayd's own files"),
    ] {
        assert_eq!(without.outcome(&wanted), None, "{said}");
        let late = without.late(&wanted);
        assert!(late.reason == Reason::TimedOut && late.message.ends_with(said), "{late}");
    }
}

#[test]
fn what_refuses_a_connection_refuses_its_plan() {
    let near = Resolution::NotFound { near: vec!["web".into()], namespace_missing: false };
    let none = Facts { resolutions: Some([("wbe".parse().expect("a workload"), near)].into()), ..Facts::default() };
    let error = none.outcome(&wanted(&["service=wbe"])).expect("known").expect_err("refused");
    assert_eq!((error.reason, error.hint.as_str()), (Reason::WorkloadNotFound, "did you mean web?"));
    let unattached = Facts { dns_refused: Some("it is a link; use --dns off".into()), ..Facts::default() };
    let asked = |dns| {
        let mut wanted = wanted(&[]);
        wanted.spec.dns = dns;
        unattached.outcome(&wanted)
    };
    assert_eq!(asked(DnsMode::File).expect("known").expect_err("refused").reason, Reason::DnsFailed);
    assert_eq!(asked(DnsMode::Auto), None, "auto goes without");
    let blind = Facts {
        rights: Some(Arc::new(Rights {
            namespaces: [("demo".into(), NamespaceRights::default())].into(),
            ..Rights::default()
        })),
        ..Facts::default()
    };
    assert_eq!(blind.outcome(&wanted(&[])).expect("known").expect_err("refused").reason, Reason::Forbidden);
}
