use proptest::prelude::*;

use super::*;
use crate::actors::daemon::messages::not_found;
use crate::config::layers::Origin;
use crate::spec::{AgentMode, Credential, DnsMode};
use crate::status::{Condition, Mark};

const CANARY: &str = "canary-7f3a";

fn spec() -> ConnectSpec {
    ConnectSpec {
        name: "demo".into(),
        context: "kind".into(),
        namespace: "shop".into(),
        proxy_via: vec!["service=web".parse().expect("a rule")],
        also_proxy: vec!["203.0.113.0/24".parse().expect("a range")],
        never_proxy: Vec::new(),
        vnat: Vec::new(),
        allow_conflicting_subnets: Vec::new(),
        agent: AgentMode::Auto,
        agent_image: String::new(),
        dns: DnsMode::Auto,
        timeout_ms: 30_000,
    }
}

fn access() -> ClusterAccess {
    ClusterAccess {
        server: "https://192.0.2.1:6443".into(),
        tls_server_name: None,
        certificate_authority_data: None,
        insecure_skip_tls_verify: false,
        proxy_url: None,
        impersonate: None,
        credential: Credential::Token(CANARY.into()),
        expires_at: None,
    }
}

fn every_op() -> Vec<Op> {
    vec![
        Op::Connect { spec: Box::new(spec()), access: Box::new(access()) },
        Op::Disconnect { name: Some("demo".into()), clean: true, all: false },
        Op::Disconnect { name: None, clean: false, all: true },
        Op::Status { name: None },
        Op::Watch { name: Some("demo".into()) },
        Op::Renew { name: "demo".into(), access: Box::new(access()), ask: None },
        Op::Version,
        Op::Logs { level: Level::Warn, follow: true },
        Op::Config,
        Op::Plan { spec: Box::new(spec()), access: Box::new(access()) },
        Op::Keep { name: "demo".into() },
        Op::Renew { name: "demo".into(), access: Box::new(access()), ask: Some(3) },
        Op::Forgo { name: "demo".into(), ask: 3, why: "the login plugin \"x\" failed".into() },
    ]
}

#[test]
fn every_request_is_as_committed_and_reads_back() {
    let mut lines = Vec::new();
    for (id, op) in (1..).zip(every_op()) {
        let request = Request { id, op };
        let line = request.to_line().expect("JSON");
        assert_eq!(Request::parse(&line), Ok(request));
        lines.push(line);
    }
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn every_response_is_as_committed_and_reads_back() {
    let step = Step { at_ms: 12, text: "cluster answers".into(), mark: Mark::Ok };
    let about = |kind: &str, subject: &str| Condition {
        r#type: kind.into(),
        subject: subject.into(),
        status: "True".into(),
        reason: "LinkReady".into(),
        message: String::new(),
        last_transition_time: 1_795_399_260,
    };
    let status = SessionStatus {
        name: "demo".into(),
        conditions: vec![about("RoutesReady", ""), about("WorkloadReady", "shop/deployment/web")],
        credentials_expire_at: Some(1_795_399_260),
        ..SessionStatus::default()
    };
    let outcome = ConnectOutcome::Degraded { pending: vec!["web".into()] };
    let connected = Connected { outcome, already: false, status: status.clone() };
    let again = Connected { already: true, ..connected.clone() };
    let agents = vec!["left in shop: podway's own pod".into()];
    let closed = ClosedSession { name: "demo".into(), left: vec!["one finished pod".into()], agents };
    let line = LogLine {
        time: 1_795_399_260_123,
        level: Level::Info,
        target: "podway::actors::vif".into(),
        session: Some("demo".into()),
        message: "the device is up".into(),
        fields: [("device".to_owned(), "podway0".to_owned())].into(),
    };
    let from = Origin::File { path: "/etc/podway/config.toml".into(), line: 24 };
    let setting = Setting { key: "mtu".into(), value: 9000.into(), from };
    let error = not_found(Some("demo"), true);
    let responses = [
        Response::event(1, Event::Progress { steps: vec![step] }),
        Response::event(2, Event::Status { status: Box::new(status.clone()) }),
        Response::result(1, &connected),
        Response::result(1, &again),
        Response::result(3, &Disconnected { closed: vec![closed] }),
        Response::result(4, &Sessions { sessions: vec![status] }),
        Response::result(2, &Ended { name: "demo".into() }),
        Response::result(5, &Renewed { name: "demo".into() }),
        Response::result(6, &Version { version: "0.1.0".into(), protocol: VERSION }),
        Response::event(7, Event::Log { lines: vec![line], missed: true }),
        Response::result(7, &LogTold { upto: 12 }),
        Response::event(9, Event::CredentialsWanted { ask: 3, within_ms: 45_000 }),
        Response::result(8, &Settings { settings: vec![setting] }),
        Response::error(Some(7), error.clone()),
        Response::error(None, error),
    ];
    let mut lines = vec![serde_json::to_string(&Greeting::OURS).expect("JSON")];
    for response in responses {
        let line = response.to_line().expect("JSON");
        assert_eq!(serde_json::from_str::<Response>(&line).expect("reads back"), response);
        lines.push(line);
    }
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn bad_requests_are_refused_as_committed() {
    let lines = [
        "garbage",
        "{}",
        r#"{"id":1,"op":"fly"}"#,
        r#"{"id":1,"op":"version","colour":"red"}"#,
        r#"{"id":1,"op":"version","name":"demo"}"#,
        r#"{"id":1,"op":"status","follow":true}"#,
        r#"{"id":1,"op":"logs","level":"loud"}"#,
        r#"{"id":1,"id":2,"op":"version"}"#,
        r#"{"id":-1,"op":"version"}"#,
        r#"{"id":1,"op":"connect","spec":{}}"#,
        r#"{"id":1,"op":"renew","access":{}}"#,
        r#"{"id":1,"op":"disconnect","name":"a","all":true}"#,
        r#"{"id":1,"op":"connect","spec":{"name":"a","namespace":"b","timeout_ms":1,"proxy_via":["x"]},"access":{}}"#,
    ];
    let refused: Vec<String> = lines
        .iter()
        .map(|line| {
            let Refusal { id, error } = Request::parse(line).expect_err(line);
            format!("{line}\n    {id:?} {:?} {}", error.reason, error.message)
        })
        .collect();
    insta::assert_snapshot!(refused.join("\n"));
}

#[test]
fn no_refusal_and_no_log_repeats_a_credential() {
    let request = Request { id: 1, op: every_op().remove(0) };
    assert!(!format!("{request:?}").contains(CANARY));
    let line = request.to_line().expect("JSON");
    for broken in [
        line.replace(&format!("{{\"token\":\"{CANARY}\"}}"), &format!("\"{CANARY}\"")),
        line.replace("\"server\":\"https://192.0.2.1:6443\"", &format!("\"server\":5,\"expires_at\":\"{CANARY}\"")),
        line.replace("\"id\":1", &format!("\"id\":\"{CANARY}\"")),
        line[..line.len() - 3].to_owned(),
    ] {
        assert_ne!(broken, line);
        let refusal = Request::parse(&broken).expect_err("broken");
        assert!(!format!("{refusal:?}").contains(CANARY), "{refusal:?}");
    }
}

/// One way to spoil a line: at a place, by what.
#[derive(Clone, Debug)]
enum Spoil {
    Replace(usize, char),
    Insert(usize, String),
    Remove(usize),
    Cut(usize),
    Repeat(usize, usize),
}

fn spoil() -> impl Strategy<Value = Spoil> {
    let odd = prop_oneof![
        Just("\0".to_owned()),
        Just("{".repeat(300)),
        Just("[".repeat(300)),
        Just("\"".to_owned()),
        Just("\\u0000".to_owned()),
        Just("\\ud800".to_owned()),
        Just("1e999999".to_owned()),
        Just("-".to_owned()),
        Just(",\"id\":7".to_owned()),
        any::<String>(),
    ];
    let at = 0..700_usize;
    prop_oneof![
        (at.clone(), any::<char>()).prop_map(|(at, with)| Spoil::Replace(at, with)),
        (at.clone(), odd).prop_map(|(at, with)| Spoil::Insert(at, with)),
        at.clone().prop_map(Spoil::Remove),
        at.clone().prop_map(Spoil::Cut),
        (at, 0..60_usize).prop_map(|(at, length)| Spoil::Repeat(at, length)),
    ]
}

fn spoilt(line: &str, spoils: &[Spoil]) -> String {
    let mut line: Vec<char> = line.chars().collect();
    for spoil in spoils {
        let place = |at: usize| at % line.len().max(1);
        match spoil.clone() {
            Spoil::Replace(at, with) => {
                let at = place(at);
                line.splice(at..line.len().min(at + 1), [with]);
            }
            Spoil::Insert(at, with) => {
                let at = place(at).min(line.len());
                line.splice(at..at, with.chars());
            }
            Spoil::Remove(at) if !line.is_empty() => drop(line.remove(place(at))),
            Spoil::Remove(_) => {}
            Spoil::Cut(at) => line.truncate(place(at)),
            Spoil::Repeat(at, length) => {
                let from = place(at).min(line.len());
                let part = line[from..line.len().min(from + length)].to_vec();
                line.splice(from..from, part);
            }
        }
    }
    line.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn spoilt_requests_are_taken_or_refused_and_no_refusal_repeats_a_credential(
        which in 0..13_usize, spoils in prop::collection::vec(spoil(), 0..4)
    ) {
        let op = every_op().swap_remove(which);
        let line = spoilt(&Request { id: 1, op }.to_line().expect("JSON"), &spoils);
        match Request::parse(&line) {
            // What is taken is written as it was meant, and reads as that.
            Ok(request) => prop_assert_eq!(Request::parse(&request.to_line().expect("JSON")), Ok(request)),
            Err(refusal) => {
                let told = format!("{refusal:?}");
                prop_assert!(!told.contains(CANARY), "{}", told);
                prop_assert!(told.len() < 8192, "{} bytes", told.len());
            }
        }
    }

    #[test]
    fn any_text_is_taken_or_refused(line in any::<String>()) {
        drop(Request::parse(&line));
        drop(Greeting::check(&line));
        drop(serde_json::from_str::<Response>(&line));
    }
}
