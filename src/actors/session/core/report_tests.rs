use std::time::Duration;

use serde_json::json;

use super::*;
use crate::actors::client_list::messages::{LinkStatus, WaiterOutcome};
use crate::actors::dns::messages::DnsState;
use crate::actors::proxy_via::messages::{Treatment, ViaState};
use crate::actors::session::core::{Effect, Input, TeardownStep, errors};
use crate::actors::session::messages::Remains;
use crate::actors::shell::Core as _;
use crate::cluster::Resolution;
use crate::ids::{AskId, Generation, KeeperId, ReplyId, WaiterId};
use crate::workload::{PodUid, Workload, WorkloadKind};

fn running() -> SessionCore {
    running_with(DnsMode::Auto)
}

fn running_with(dns: DnsMode) -> SessionCore {
    let spec = json!({ "name": "demo", "context": "kind", "namespace": "shop", "timeout_ms": 30_000, "dns": dns });
    let spec = serde_json::from_value(spec).expect("a spec");
    let mut core = SessionCore::new(spec, None);
    core.handle(Millis(0), Input::Begin);
    core
}

fn status(core: &SessionCore) -> SessionStatus {
    core.status(&SessionStatus::default(), Millis(0), 0, 0)
}

#[test]
fn a_connection_that_is_being_ended_lacks_nothing_else() {
    let mut core = running();
    assert_eq!(status(&core).conditions[0].reason, "NotYet");
    core.handle(Millis(1), Input::Disconnect { clean: false, reply: ReplyId(0) });
    let ready = status(&core).conditions.remove(0);
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "Disconnecting"));
    assert_eq!(ready.message, "the connection is being ended");
}

#[test]
fn a_resolver_file_that_works_is_a_step_and_no_warning() {
    let mut core = running();
    let dns =
        DnsState { backend: "/etc/resolv.conf".into(), ready: true, message: REPLACED.into(), ..DnsState::default() };
    core.handle(Millis(1), Input::Dns(Generation(1), dns));
    let status = status(&core);
    assert_eq!(status.notices(), Vec::<&str>::new());
    let step = status.steps.iter().find(|step| step.text.starts_with("names")).expect("a step");
    assert!(step.text.ends_with("/etc/resolv.conf; the former file comes back at disconnect"), "{}", step.text);
}

#[test]
fn who_renews_credentials_is_told_where_they_end_and_why_it_fails() {
    let mut core = running();
    assert_eq!(status(&core).credentials, None, "no end is known, and nobody keeps them");
    core.handle(Millis(1), Input::Renewed { ask: None, expires_at: Some(50), lasts: Some(Duration::from_secs(10)) });
    let renewal = |core: &SessionCore| status(core).credentials.map(|line| line.renewal);
    assert_eq!(renewal(&core), Some(RenewalLine::ByHand));
    core.handle(Millis(1), Input::KeeperCame(KeeperId(1)));
    assert_eq!((renewal(&core), status(&core).warnings.len()), (Some(RenewalLine::Automatic), 0));
    core.handle(Millis(5001), Input::Woke);
    core.handle(Millis(5002), Input::NotRenewed(Some(AskId(1)), "no login".into()));
    let failing = status(&core);
    assert_eq!(renewal(&core), Some(RenewalLine::Failing));
    assert_eq!(failing.warnings, ["the credentials are not renewed: no login; log in, then podway connect again"]);
    let ended = core.status(&SessionStatus::default(), Millis(0), 50, 0).warnings;
    let told = "the credentials have ended and are not renewed: no login; log in, then podway connect again";
    assert_eq!(ended, [told]);
    core.outcome = Some(ConnectOutcome::Ready);
    core.handle(Millis(5003), Input::Watch(Generation(1), WatchHealth::Unauthorized { why: "expired".into() }));
    let watch = status(&core).conditions.into_iter().find(|c| c.r#type == "WatchReady").expect("a condition");
    assert_eq!((watch.reason.as_str(), watch.message.as_str()), ("NeedsLogin", "expired; not renewed: no login"));
    assert_eq!(renewal(&core), Some(RenewalLine::NeedsLogin));
}

#[test]
fn single_addresses_are_one_step() {
    let line = |cidr: &str| RangeLine {
        cidr: cidr.into(),
        source: "service".into(),
        treatment: "routed".into(),
        note: String::new(),
    };
    assert_eq!(range_step(&line("10.0.0.1/32")), range_step(&line("10.0.0.2/32")));
    assert_eq!(range_step(&line("10.0.0.0/16")), "service 10.0.0.0/16: routed");
}

#[test]
fn a_missing_right_names_the_command_that_prints_the_rule() {
    let spec = json!({"name": "demo", "namespace": "shop", "timeout_ms": 1000});
    let spec = serde_json::from_value(spec).expect("a spec");
    let error = errors::forbidden(crate::cluster::NamespaceRights::default(), &spec);
    assert!(error.hint.contains("podway rbac -n shop --user NAME"), "{}", error.hint);
    let error = errors::target(&Target::General, "shop", "missing right: create pods");
    assert!(error.hint.contains("podway rbac -n shop --user NAME"), "{}", error.hint);
}

#[test]
fn names_that_are_not_seen_for_want_of_a_right_are_a_warning_with_the_command() {
    let mut core = running();
    assert_eq!(status(&core).warnings, Vec::<String>::new());
    let unseen = [("endpointslices", "shop".into())].into();
    let rights = crate::cluster::Rights { unseen, ..Default::default() };
    core.handle(Millis(1), Input::Rights(Generation(1), std::sync::Arc::new(rights)));
    let warnings = status(&core).warnings;
    assert!(warnings[0].contains("endpointslices in namespace shop") && warnings[0].contains("podway rbac -n shop"));
}

#[test]
fn an_agent_that_is_not_reached_is_told_while_connect_waits() {
    let mut core = all_but_an_exit();
    let failed = LinkStatus {
        pod: "u".into(),
        pod_name: "shop/podway-agent-1".into(),
        placement: Placement::OwnPod,
        image: "".into(),
        version: "".into(),
        state: LinkState::Failed { why: "its node does not answer".into() },
    };
    let state = TargetState { pods: 1, running: 1, links: vec![failed], hopeless: None };
    core.handle(Millis(2), Input::Links(Generation(9), [(Target::General, state.clone())].into()));
    let step = |core: &SessionCore| status(core).steps.into_iter().find(|step| step.mark == Mark::Warn);
    assert_eq!(step(&core), None, "one that has just started does not listen yet");
    core.handle(Millis(1002), Input::Links(Generation(10), [(Target::General, state)].into()));
    let step = step(&core).expect("a step");
    assert_eq!(step.text, "podway's own pod: pod shop/podway-agent-1: its node does not answer");
}

#[test]
fn more_loopback_ranges_than_an_agent_serves_are_refused_with_what_to_do() {
    // Two names of one workload.
    let names = ["web", "deployment/web"];
    let outcome = |rules: usize| {
        let rules: Vec<String> = (0..rules).map(|n| format!("127.0.1.{n}={}", names[n % 2])).collect();
        let spec = json!({ "name": "demo", "namespace": "shop", "timeout_ms": 30_000, "proxy_via": rules });
        let mut core = SessionCore::new(serde_json::from_value(spec).expect("a spec"), None);
        core.handle(Millis(0), Input::Begin);
        core.handle(Millis(1), Input::Reached(Ok([].into())));
        let workload = Workload::new("shop", WorkloadKind::Deployment, "web");
        let found = Resolution::Found { workload, replicas: Some(1) };
        let resolutions = names.map(|name| (name.parse().expect("a name"), found.clone()));
        core.handle(Millis(2), Input::Resolved(resolutions.into()));
        core.outcome().cloned()
    };
    assert_eq!(outcome(64), None);
    let Some(ConnectOutcome::Failed(error)) = outcome(65) else { panic!("it goes on") };
    assert!(error.message.contains("65 loopback ranges") && error.message.contains("at most 64"), "{error:?}");
    assert!(error.hint.contains("wider ranges"), "{error:?}");
}

/// A plain connection for which all but its way into the cluster is there.
fn all_but_an_exit() -> SessionCore {
    let mut core = running();
    let via = ViaState { ready: true, ..ViaState::default() };
    let up = VifState::Up {
        name: "podway0".into(),
        ifindex: 7,
        routes: Default::default(),
        applied: via.plan,
        failed: Default::default(),
    };
    core.handle(Millis(1), Input::Reached(Ok([].into())));
    core.handle(Millis(1), Input::Watch(Generation(1), WatchHealth::Fresh));
    core.handle(Millis(1), Input::Via(Generation(1), via));
    core.handle(Millis(1), Input::Vif(Generation(1), up));
    let dns = DnsState { ready: true, ..DnsState::default() };
    core.handle(Millis(1), Input::Dns(Generation(1), dns));
    core
}

/// The same, with the way into the cluster.
fn with_exit(mut core: SessionCore) -> SessionCore {
    let (id, _) = asked(&mut core);
    let state = TargetState { pods: 1, running: 1, links: vec![working_link()], hopeless: None };
    core.handle(Millis(2), Input::Links(Generation(1), [(Target::General, state)].into()));
    core.handle(Millis(2), Input::Settled(id, WaiterOutcome::Ready { pod: PodUid("u".into()) }));
    core
}

fn working_link() -> LinkStatus {
    LinkStatus {
        pod: PodUid("u".into()),
        pod_name: "shop/podway-agent".into(),
        placement: Placement::OwnPod,
        image: "podway-agent:0.1.0".into(),
        version: "0.1.0".into(),
        state: LinkState::Ready,
    }
}

fn asked(core: &mut SessionCore) -> (WaiterId, Target) {
    let effects = std::iter::from_fn(|| core.poll_effect());
    let mut waits = effects.filter_map(|effect| {
        let Effect::Register(id, target, _) = effect else { return None };
        Some((id, target))
    });
    waits.next().expect("a waiter")
}

#[test]
fn a_plain_connection_is_ready_with_its_way_into_the_cluster_and_not_before() {
    let mut core = all_but_an_exit();
    assert_eq!(core.outcome(), None);
    let (id, target) = asked(&mut core);
    assert_eq!((id, target), (WaiterId(0), Target::General));
    core.handle(Millis(30_000), Input::Woke);
    let missing = vec!["our own pod is being made".to_owned()];
    assert_eq!(core.outcome(), Some(&ConnectOutcome::TimedOut { missing }));
    let core = with_exit(all_but_an_exit());
    assert_eq!(core.outcome(), Some(&ConnectOutcome::Ready));
    let status = status(&core);
    assert_eq!((&*status.workloads[0].workload, &*status.workloads[0].links[0].version), ("general", "0.1.0"));
    let step = status.steps.last().expect("a step");
    assert_eq!(step.text, "everything through podway's own pod shop/podway-agent");
}

#[test]
fn where_a_connection_stands_is_told_whatever_its_connect_said() {
    let standing = |core: &SessionCore| status(core).standing.expect("it is told");
    let mut late = all_but_an_exit();
    late.handle(Millis(30_000), Input::Woke);
    let missing = |core: &SessionCore| {
        let ConnectOutcome::TimedOut { missing } = standing(core) else { panic!("it is ready") };
        missing
    };
    assert_eq!(Some(standing(&late)).as_ref(), late.outcome());
    let mut core = with_exit(late);
    assert!(matches!(core.outcome(), Some(ConnectOutcome::TimedOut { .. })));
    assert_eq!(standing(&core), ConnectOutcome::Ready);
    core.handle(Millis(30_002), Input::Watch(Generation(2), WatchHealth::Stale { why: "no answer".into() }));
    assert_eq!(missing(&core), ["no answer; it is asked again"]);
    core.handle(Millis(30_003), Input::Disconnect { clean: false, reply: ReplyId(0) });
    assert_eq!(missing(&core), ["the connection is being ended"]);
}

/// What `disconnect` tells of a plain connection with its own pod and two agents beside workloads.
fn remains(clean: bool, left: &[&str]) -> Remains {
    let mut core = with_exit(all_but_an_exit());
    let link = |pod: &str, state: LinkState| LinkStatus {
        pod: PodUid(pod.into()),
        pod_name: pod.into(),
        placement: Placement::Ephemeral,
        version: "".into(),
        image: "".into(),
        state,
    };
    let own = LinkStatus { placement: Placement::OwnPod, ..link("other/own", LinkState::Ready) };
    let (none, dialing) = (link("x/c", LinkState::NoAgent), link("shop/b", LinkState::Dialing));
    let links = vec![link("shop/a", LinkState::Ready), dialing, none, own];
    let mut targets = core.facts.links.1.clone();
    let web = Target::Workload(Workload::new("shop", WorkloadKind::Deployment, "web"));
    targets.insert(web, TargetState { pods: 3, running: 3, links, hopeless: None });
    core.handle(Millis(3), Input::Links(Generation(2), targets));
    core.handle(Millis(4), Input::Disconnect { clean, reply: ReplyId(9) });
    // As the links are hung up, they are told to be gone.
    core.handle(Millis(5), Input::Links(Generation(3), Default::default()));
    loop {
        let effect = core.poll_effect().expect("an answer");
        if let Effect::Answer(ReplyId(9), remains) = effect {
            return remains;
        }
        if let Effect::Teardown(step) = effect {
            let left = left.iter().filter(|_| step == TeardownStep::RemoveAgents);
            core.handle(Millis(6), Input::StepDone(step, left.map(|left| (*left).to_owned()).collect()));
        }
    }
}

#[test]
fn a_disconnect_says_which_agents_stay_and_which_were_removed() {
    let containers = "left in shop: ephemeral containers in 2 pods, which go with their pods; the agents in them end by \
                      themselves in 8 hours";
    let own = "left in shop: podway's own pod, which ends by itself in 10 minutes (with --clean, at once)";
    let others = "left in other: podway's own pod of another connection, which ends by itself 10 minutes after its last \
                  use";
    assert_eq!(remains(false, &[]).agents, [containers, others, own]);
    assert_eq!(remains(true, &[]).agents, [containers, others, "removed from shop: podway's own pod"]);
    let refused = remains(true, &["pod shop/podway-agent: forbidden"]);
    assert_eq!((refused.agents, refused.left.len()), (vec![containers.to_owned(), others.to_owned()], 1));
}

/// What the connection says of one condition.
fn condition(core: &SessionCore, kind: &str) -> (String, String, String) {
    let found = status(core).conditions.into_iter().find(|c| c.r#type == kind).expect("it is told");
    (found.status, found.reason, found.message)
}

#[test]
fn a_host_that_nothing_can_be_attached_to_is_connected_without_names_and_says_so() {
    let said = |(status, reason, message): (&str, &str, &str)| (status.into(), reason.into(), message.into());
    let reasons = [
        (Outlook::Hopeless, "NotAttached"),
        (Outlook::Taken, "FileTaken"),
        (Outlook::Overwritten, "Overwritten"),
        (Outlook::Edited, "Edited"),
    ];
    for (outlook, reason) in reasons {
        let mut core = all_but_an_exit();
        let dns = DnsState { backend: "off".into(), outlook, message: "nobody asks us".into(), ..DnsState::default() };
        core.handle(Millis(1), Input::Dns(Generation(2), dns));
        assert_eq!(condition(&core, "DNSReady"), said(("False", reason, "nobody asks us")));
        let core = with_exit(core);
        assert_eq!(core.outcome(), Some(&ConnectOutcome::Ready));
        assert_eq!(condition(&core, "DNSReady"), said(("False", reason, "nobody asks us")));
        assert_eq!(condition(&core, "Ready"), said(("True", "WithoutNames", "nobody asks us")));
        let status = status(&core);
        assert_eq!(status.notices(), ["DNS: nobody asks us"]);
        assert!(status.steps.iter().any(|step| step.mark == Mark::Warn && step.text.contains("not attached")));
    }
}

#[test]
fn a_rule_for_ipv6_on_a_host_without_fails_nothing_and_is_said_to_do_nothing() {
    let mut core = all_but_an_exit();
    let why = "IPv6 is off on this host";
    let excluded = |cidr: &str, source: &str| RangeStatus {
        cidr: cidr.parse().expect("a range"),
        source: source.into(),
        treatment: Treatment::Excluded { why: why.into() },
    };
    let ranges = vec![excluded("::1/128", "::1/128"), excluded("fd00::/112", "service")];
    let via = ViaState { ready: true, ipv6: Ipv6::Off, ranges, ..ViaState::default() };
    core.handle(Millis(1), Input::Via(Generation(2), via));
    let core = with_exit(core);
    assert_eq!(core.outcome(), Some(&ConnectOutcome::Ready));
    let status = status(&core);
    let warning = format!("{why}: only IPv4 addresses of the cluster are reached; nothing is translated for ::1/128");
    assert_eq!(status.notices(), [warning.as_str()]);
    let step = status.steps.iter().find(|step| step.text.starts_with("::1")).expect("a step");
    assert_eq!((step.mark, step.text.as_str()), (Mark::Warn, "::1/128: excluded (IPv6 is off on this host)"));
    assert!(status.ranges.iter().any(|line| line.cidr == "::1/128" && line.note == why), "{:?}", status.ranges);
}

#[test]
fn names_that_the_user_wants_off_are_ready() {
    let mut core = running_with(DnsMode::Off);
    let dns = DnsState { backend: "off".into(), ready: true, ..DnsState::default() };
    core.handle(Millis(1), Input::Dns(Generation(1), dns));
    assert_eq!(condition(&core, "DNSReady"), ("True".into(), "Off".into(), String::new()));
}

#[test]
fn names_that_cannot_be_attached_as_asked_fail_the_connect() {
    let mut core = running_with(DnsMode::File);
    let dns = DnsState { outlook: Outlook::Hopeless, message: "it is a link".into(), ..DnsState::default() };
    core.handle(Millis(1), Input::Dns(Generation(1), dns));
    assert!(matches!(core.outcome(), Some(ConnectOutcome::Failed(_))), "{:?}", core.outcome());
}

#[test]
fn a_plain_connection_without_any_way_into_the_cluster_fails() {
    let mut core = all_but_an_exit();
    let (id, _) = asked(&mut core);
    core.handle(Millis(2), Input::Settled(id, WaiterOutcome::Hopeless { why: "missing right: create pods".into() }));
    let Some(ConnectOutcome::Failed(error)) = core.outcome() else { panic!("{:?}", core.outcome()) };
    assert!(error.hint.contains("podway rbac"), "{}", error.hint);
}

#[test]
fn a_workload_whose_pods_do_not_run_yet_is_told_so() {
    let web = Target::Workload(Workload::new("demo", WorkloadKind::Deployment, "web"));
    let state = TargetState { pods: 2, running: 0, links: Vec::new(), hopeless: None };
    let (word, message) = word_of(&web, &state, false);
    assert_eq!(word, "Pending");
    assert!(message.contains("none of its pods runs yet"), "{message}");
    let (word, _) = word_of(&web, &TargetState { running: 1, ..state }, false);
    assert_eq!(word, "Connecting");
}

/// A connection by way of `web`, where no pod of our own can be had.
fn without_own_pod(agent: &str) -> SessionStatus {
    let spec = json!({ "name": "demo", "namespace": "demo", "timeout_ms": 30_000, "proxy_via": ["service=web"],
        "agent": agent });
    let mut core = SessionCore::new(serde_json::from_value(spec).expect("a spec"), None);
    core.handle(Millis(0), Input::Begin);
    let why = "pod podway-agent-1: image nosuch/agent:9 does not start: ErrImagePull: not found";
    let state = TargetState { pods: 1, running: 0, links: Vec::new(), hopeless: Some(why.into()) };
    core.handle(Millis(1), Input::Links(Generation(1), [(Target::General, state)].into()));
    status(&core)
}

#[test]
fn a_pod_of_our_own_that_does_not_start_beside_via_workloads_is_told() {
    let status = without_own_pod("auto");
    let general = &status.workloads[0];
    assert_eq!((general.workload.as_str(), general.state.as_str()), ("general", "Hopeless"));
    assert!(general.message.contains("ErrImagePull"), "{general:?}");
    let notices = status.notices();
    assert!(notices[0].contains("through the pods of via workloads") && notices[0].contains("ErrImagePull"));
    assert_eq!(without_own_pod("ephemeral").notices(), [""; 0]);
}

#[test]
fn an_agent_that_is_starting_is_told_with_where_its_events_are() {
    let web = Target::Workload(Workload::new("demo", WorkloadKind::Deployment, "web"));
    let link = |state| LinkStatus {
        pod: PodUid("u".into()),
        pod_name: "demo/web-1".into(),
        placement: Placement::Ephemeral,
        image: "".into(),
        version: "".into(),
        state,
    };
    let starting = link(LinkState::Starting { image: "nosuch/agent:9".into() });
    let state = TargetState { pods: 2, running: 2, links: vec![starting.clone()], hopeless: None };
    let (word, message) = word_of(&web, &state, false);
    assert_eq!(word, "Connecting");
    let events = "kubectl -n demo describe pod web-1";
    assert!(message.contains("image nosuch/agent:9 is starting") && message.contains(events), "{message}");
    // What is known of one pod is told, although the other's may still come.
    let failed = link(LinkState::Failed { why: "image nosuch/agent:9 does not start: ErrImagePull: no".into() });
    let (_, message) = word_of(&web, &TargetState { links: vec![starting, failed], ..state }, false);
    assert!(message.contains("pod demo/web-1: image nosuch/agent:9 does not start: ErrImagePull"), "{message}");
}

#[test]
fn an_image_that_the_user_named_and_that_is_not_used_is_told() {
    let web = Target::Workload(Workload::new("shop", WorkloadKind::Deployment, "web"));
    let notices = |named: Option<&str>| {
        let mut core = running().naming_image(named.map(str::to_owned));
        let state = TargetState { pods: 1, running: 1, links: vec![working_link()], hopeless: None };
        core.handle(Millis(1), Input::Links(Generation(1), [(web.clone(), state)].into()));
        status(&core).warnings
    };
    let told = "uses the agent podway-agent:0.1.0 that is there already, not nosuch/agent:9, which new pods get";
    assert_eq!(notices(Some("nosuch/agent:9")), [format!("shop/deployment/web: {told}")]);
    assert_eq!(notices(Some("podway-agent:0.1.0")), [""; 0]);
    // The daemon's own image is nobody's wish: after an update the agents of the last one serve on.
    assert_eq!(notices(None), [""; 0]);
}

#[test]
fn what_the_user_wants_no_agent_for_is_off_and_nothing_is_hopeless() {
    let spec = json!({ "name": "demo", "namespace": "shop", "timeout_ms": 30_000, "proxy_via": ["service=web"],
                       "agent": "ephemeral" });
    let mut core = SessionCore::new(serde_json::from_value(spec).expect("a spec"), None);
    core.handle(Millis(0), Input::Begin);
    let workload = Workload::new("shop", WorkloadKind::Deployment, "web");
    let found = Resolution::Found { workload, replicas: Some(1) };
    core.handle(Millis(1), Input::Resolved([("web".parse().expect("a name"), found)].into()));
    let why = Some("--agent ephemeral makes no pod of its own".into());
    let state = TargetState { pods: 0, running: 0, links: Vec::new(), hopeless: why };
    core.handle(Millis(1), Input::Links(Generation(1), [(Target::General, state)].into()));
    let status = status(&core);
    assert!(!status.conditions.iter().any(|c| c.reason == "Hopeless" || c.r#type == "AgentReady"), "{status:?}");
    let line = status.workloads.iter().find(|line| line.workload == WorkloadLine::GENERAL).expect("it is told");
    assert_eq!((line.state.as_str(), line.message.contains("--agent ephemeral")), ("Off", true));
}

#[test]
fn a_range_that_may_clash_in_a_part_only_is_told_to_do_nothing_with_what_would() {
    let spec = json!({ "name": "demo", "namespace": "shop", "timeout_ms": 30_000,
                       "allow_conflicting_subnets": ["10.43.7.0/24"] });
    let mut core = SessionCore::new(serde_json::from_value(spec).expect("a spec"), None);
    core.handle(Millis(0), Input::Begin);
    let conflict = Some("10.0.0.0/8 via wg0".to_owned());
    let treatment = Treatment::Translated { target: Target::General, conflict };
    let range = |cidr: &str| RangeStatus {
        cidr: cidr.parse().expect("a range"),
        source: "service".into(),
        treatment: treatment.clone(),
    };
    let ranges = vec![range("10.43.0.0/16"), range("10.42.0.0/16")];
    let via = ViaState { ready: true, ranges, ..ViaState::default() };
    core.handle(Millis(1), Input::Via(Generation(1), via));
    let status = status(&core);
    let steps: Vec<_> = status.steps.iter().map(|step| (step.mark, step.text.as_str())).collect();
    let told = "service 10.43.0.0/16: translated, by name (conflicts with 10.0.0.0/8 via wg0; --allow-conflicting-subnets \
                10.43.7.0/24 is a part of it and does nothing: allow 10.43.0.0/16)";
    assert!(steps.contains(&(Mark::Warn, told)), "{steps:?}");
    let other = "service 10.42.0.0/16: translated, by name (conflicts with 10.0.0.0/8 via wg0)";
    assert!(steps.contains(&(Mark::Ok, other)), "{steps:?}");
    assert!(status.ranges[0].note.contains("allow 10.43.0.0/16"), "and in status");
}
