use super::*;
use crate::actors::vif::messages::{Dropped, FlowStats};
use crate::status::{Condition, CredentialsLine, DeviceLine, DnsLine, RangeLine, Vips};

const BRIEF: Detail = Detail::Brief { width: Some(WIDTH) };

const START: i64 = 1_795_399_260;

fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Condition {
    Condition {
        r#type: kind.into(),
        subject: String::new(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        last_transition_time: START + 2,
    }
}

fn link(pod: &str, health: &str, message: &str) -> LinkLine {
    LinkLine {
        pod: pod.into(),
        placement: "ephemeral container".into(),
        version: if health == "ready" { "0.1.0".into() } else { String::new() },
        health: health.into(),
        message: message.into(),
    }
}

fn workload(name: &str, state: &str, message: &str, links: Vec<LinkLine>) -> WorkloadLine {
    WorkloadLine { workload: name.into(), state: state.into(), message: message.into(), links }
}

fn busy() -> SessionStatus {
    let replaced = "resolv.conf is replaced while connected";
    SessionStatus {
        name: "demo".into(),
        context: "kind".into(),
        server: "https://192.0.2.1:6443".into(),
        namespace: "shop".into(),
        phase: Phase::Connected,
        since: START,
        conditions: vec![
            condition("Ready", "False", "NotYet", "shop/deployment/db: no pod runs"),
            condition("RoutesReady", "True", "Applied", ""),
        ],
        ranges: vec![RangeLine {
            cidr: "10.96.0.0/16".into(),
            source: "service".into(),
            treatment: "via shop/deployment/web".into(),
            note: String::new(),
        }],
        vips: Vips {
            ranges: vec!["246.246.0.0/16".into(), "fd00:1::/64".into()],
            in_use: 2,
            capacity: u64::MAX,
            fixed: vec![("246.246.0.9".into(), "10.96.0.9".into(), "shop/deployment/web".into(), "api".into())],
        },
        workloads: vec![
            workload("shop/deployment/web", "Ready", "", vec![link("shop/web-1", "ready", "")]),
            workload("shop/deployment/db", "Pending", "no pod runs: attaches by itself when one comes", vec![]),
            workload(
                "shop/deployment/api",
                "Connecting",
                "its agent is placed",
                vec![link("shop/api-1", "dialing", "")],
            ),
            workload("shop/deployment/old", "Unreachable", "", vec![link("shop/old-1", "failed", "image not found")]),
        ],
        dns: DnsLine {
            backend: "file".into(),
            server: "246.246.0.1".into(),
            domains: vec!["shop.svc.cluster.local".into()],
            only: None,
            ready: true,
            message: replaced.into(),
        },
        device: DeviceLine {
            name: "podway0".into(),
            routes: vec!["10.96.0.0/16".into()],
            failed: vec!["10.1.0.0/16: exists".into()],
        },
        flows: FlowStats {
            tcp_open: 3,
            tcp_total: 120,
            udp_total: 14,
            bytes_sent: 1_300_000,
            bytes_received: 512,
            refused: 5,
            ..FlowStats::default()
        },
        warnings: vec![format!("DNS: {replaced}"), "route 10.1.0.0/16: exists".into()],
        credentials_expire_at: Some(START + 3_600),
        ..SessionStatus::default()
    }
}

#[test]
fn a_connection_is_shown_as_committed() {
    insta::assert_snapshot!("status_plain", plain(&render(&busy(), BRIEF, START + 7_500)));
    insta::assert_snapshot!("status_wide", plain(&render(&busy(), Detail::Wide, START + 60)));
}

#[test]
fn what_is_not_known_is_left_out() {
    let status = SessionStatus { name: "demo".into(), ..SessionStatus::default() };
    insta::assert_snapshot!("status_empty", plain(&render(&status, Detail::Wide, START)));
}

#[test]
fn the_default_egress_has_a_name_for_people() {
    let general = workload(WorkloadLine::GENERAL, "Ready", "", vec![link("shop/podway-agent", "ready", "")]);
    let mut status = busy();
    status.workloads.push(general.clone());
    let plain_only = SessionStatus { workloads: vec![general], ..busy() };
    for (status, name) in [(status, "\neverything else  "), (plain_only, "\neverything  ")] {
        let text = plain(&render(&status, Detail::Wide, START));
        assert!(text.contains(name) && !text.contains("general"), "{text}");
    }
}

#[test]
fn every_warning_is_said_once() {
    let text = plain(&render(&busy(), BRIEF, START));
    assert_eq!(text.matches("resolv.conf is replaced").count(), 1);
    assert_eq!(text.matches("10.1.0.0/16: exists").count(), 1);
}

#[test]
fn colours_are_there_to_be_dropped() {
    let text = render(&busy(), BRIEF, START);
    assert_ne!(text, plain(&text));
}

#[test]
fn bytes_read_well() {
    for (count, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1_300_000, "1.2 MiB")] {
        assert_eq!(bytes(count), text);
    }
    assert!(bytes(u64::MAX).ends_with("PiB"));
}

#[test]
fn tables_fit_a_terminal_and_have_no_empty_column() {
    let mut status = busy();
    status.workloads[3].links[0].message =
        "image registry.example/tools/podway-agent:0.1.0 cannot be pulled: not found, and so not started".into();
    status.workloads[0].links[0].pod = "shop/web-7d9f8b6c5d-x2x4z".into();
    let text = plain(&render(&status, BRIEF, START));
    let tables = text.split_once("RANGE").expect("tables").1.split_once("warning:").expect("warnings").0;
    for line in tables.lines() {
        assert!(line.chars().count() <= 80, "{line:?}");
    }
    assert_eq!(text.matches("NOTE").count(), 1, "{text}");
}

#[test]
fn names_of_some_namespaces_are_one_line() {
    let mut status = busy();
    status.dns.only = Some(vec!["shop".into()]);
    let text = plain(&render(&status, BRIEF, START));
    assert!(text.contains(", ready\n             namespace shop only (no right to list namespaces)\n"), "{text}");
}

#[test]
fn names_that_are_not_attached_are_said_so_with_the_address_that_answers() {
    let mut status = busy();
    status.dns = DnsLine { backend: "off".into(), server: "246.246.0.2".into(), ..DnsLine::default() };
    let text = plain(&render(&status, BRIEF, START));
    assert!(text.contains("Names        not attached; 246.246.0.2 answers who asks it\n"), "{text}");
}

#[test]
fn single_addresses_are_one_row() {
    let line = |cidr: &str, treatment: &str| RangeLine {
        cidr: cidr.into(),
        source: "service".into(),
        treatment: treatment.into(),
        note: String::new(),
    };
    let ranges = vec![line("10.0.0.1/32", "routed"), line("10.0.0.2/32", "routed"), line("10.0.0.3/32", "excluded")];
    let status = SessionStatus { ranges, ..busy() };
    let text = plain(&render(&status, BRIEF, START));
    assert!(text.contains("\n2 addresses  service  routed\n10.0.0.3/32  service  excluded\n"), "{text}");
    assert!(plain(&render(&status, Detail::Wide, START)).contains("10.0.0.2/32"));
}

#[test]
fn what_nobody_needs_to_know_is_not_said() {
    let mut status = busy();
    status.credentials_expire_at = Some(START + 2 * 86_400);
    status.flows = FlowStats { dropped: Dropped { protocol: 7, ..Dropped::default() }, ..FlowStats::default() };
    let text = plain(&render(&status, BRIEF, START));
    assert!(!text.contains("Credentials") && !text.contains("Failed"), "{text}");
    let text = plain(&render(&status, Detail::Wide, START));
    assert!(text.contains("Credentials") && text.contains("7 packets that are neither TCP, UDP nor pings"), "{text}");
}

#[test]
fn who_renews_credentials_is_said_beside_their_end_and_trouble_always() {
    let mut status = busy();
    let mut shown = |renewal, at, detail| {
        status.credentials = Some(CredentialsLine { renewal, message: String::new() });
        status.credentials_expire_at = at;
        let text = plain(&render(&status, detail, START));
        text.lines().find_map(|line| line.strip_prefix("Credentials  ")).unwrap_or_default().to_owned()
    };
    let soon = Some(START + 60);
    assert!(shown(RenewalLine::Automatic, soon, BRIEF).ends_with("), renewed by themselves"));
    assert!(shown(RenewalLine::ByHand, soon, BRIEF).ends_with("UTC)"));
    let later = Some(START + 2 * 86_400);
    assert_eq!(shown(RenewalLine::Automatic, later, BRIEF), "");
    assert!(shown(RenewalLine::Failing, later, BRIEF).ends_with("), not renewed (see the warnings)"));
    assert_eq!(shown(RenewalLine::Automatic, None, BRIEF), "");
    assert_eq!(shown(RenewalLine::Automatic, None, Detail::Wide), "renewed by themselves");
    assert_eq!(shown(RenewalLine::NeedsLogin, None, BRIEF), "refused: log in, then podway connect again");
}

#[test]
fn what_programs_have_not_read_and_agents_at_fault_are_told() {
    let mut status = busy();
    status.flows = FlowStats { held: 1 << 19, ..FlowStats::default() };
    let text = plain(&render(&status, Detail::Wide, START));
    assert!(!text.contains("Unread") && !text.contains("Failed"), "{text}");
    status.flows = FlowStats { held: 40 << 20, broken: 2, ..FlowStats::default() };
    let text = plain(&render(&status, BRIEF, START));
    assert!(text.contains("\nUnread       40.0 MiB that programs have not read yet\n"), "{text}");
    assert!(text.contains("\nFailed       2 flows by a fault of an agent\n"), "{text}");
}

#[test]
fn where_a_program_may_read_on_no_name_is_broken() {
    let text = plain(&render(&busy(), Detail::Brief { width: None }, START));
    let pod = busy().workloads[0].links[0].pod.clone();
    assert!(text.contains(&pod), "{pod} in {text}");
}
