//! `podway wait`: a subscription, with the time measured here.

use std::path::Path;
use std::str::FromStr;

use serde_json::json;

use super::args::{TextOrJson, WaitArgs};
use super::progress::{Progress, seconds};
use super::say::say;
use super::table::WARN;
use super::{Exit, Failure, document};
use crate::actors::control::protocol::{Ended, Event, Op};
use crate::actors::shell::now;
use crate::control_client::{ControlClient, Next};
use crate::error::{Reason, UserError};
use crate::ids::Millis;
use crate::status::{Condition, ConnectOutcome, SessionStatus, WorkloadLine};
use crate::workload::WorkloadRef;

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// A condition is True.
    Condition(String),
    /// A workload carries traffic: its name, kind/name or namespace/kind/name.
    Workload(String),
    /// Names are attached.
    Dns,
}

impl FromStr for Goal {
    type Err = String;

    fn from_str(text: &str) -> Result<Goal, String> {
        match (text, text.strip_prefix("condition="), text.strip_prefix("workload/")) {
            ("dns", _, _) => Ok(Goal::Dns),
            (_, Some(wanted), _) => match Condition::TYPES.iter().find(|known| known.eq_ignore_ascii_case(wanted)) {
                Some(condition) => Ok(Goal::Condition((*condition).to_owned())),
                None => Err(format!("expected one of the conditions {}", Condition::TYPES.join(", "))),
            },
            (_, _, Some(workload)) if !workload.is_empty() => Ok(Goal::Workload(workload.to_owned())),
            _ => Err("expected condition=TYPE, workload/WORKLOAD or dns".to_owned()),
        }
    }
}

impl Goal {
    fn reached(&self, status: &SessionStatus) -> bool {
        match self {
            Goal::Condition(condition) => status.holds(condition),
            Goal::Dns => status.dns.ready,
            Goal::Workload(wanted) => lines_of(status, wanted).any(|line| line.state == "Ready"),
        }
    }

    /// Why the goal will not be reached, where that is known.
    fn refusal(&self, status: &SessionStatus) -> Option<UserError> {
        if let Some(ConnectOutcome::Failed(error)) = &status.outcome {
            return Some(error.clone());
        }
        let wanted = match self {
            Goal::Workload(wanted) => wanted,
            Goal::Condition(condition) => return hopeless(status, condition),
            Goal::Dns => return hopeless(status, "DNSReady"),
        };
        let lines: Vec<&WorkloadLine> = lines_of(status, wanted).collect();
        if let Some(line) = lines.iter().find(|line| line.state == "Hopeless") {
            let message = format!("wait: {}: {}", line.workload, line.message);
            return Some(UserError::new(Reason::AgentNotPlaced, message, "podway status shows the whole of it"));
        }
        // Only then are the workloads of all rules known.
        let known = matches!(status.outcome, Some(ConnectOutcome::Ready | ConnectOutcome::Degraded { .. }));
        if !known || !lines.is_empty() {
            return None;
        }
        let message = format!("wait: workload {wanted}: no rule of connection {} names it", status.name);
        let via = status.workloads.iter().map(|line| line.workload.as_str());
        let via: Vec<&str> = via.filter(|workload| *workload != WorkloadLine::GENERAL).collect();
        let hint = match via.is_empty() {
            true => "podway connect --proxy-via RANGE=WORKLOAD makes such a rule".to_owned(),
            false => format!("name one that it has: {}", via.join(", ")),
        };
        Some(UserError::new(Reason::WorkloadNotFound, message, hint))
    }

    /// What keeps the goal from being reached, in the connection's own words; empty where it says none.
    fn lacks(&self, status: &SessionStatus) -> String {
        let condition = match self {
            Goal::Workload(wanted) => {
                let said = lines_of(status, wanted).find(|line| !line.message.is_empty());
                return said.map(|line| line.message.clone()).unwrap_or_default();
            }
            Goal::Condition(condition) => condition,
            Goal::Dns => "DNSReady",
        };
        let said = status.conditions.iter().find(|c| c.r#type == *condition && c.status != "True");
        said.map(|condition| condition.message.clone()).unwrap_or_default()
    }
}

/// What is hopeless of that on which a condition rests.
pub(super) fn hopeless_of<'a>(status: &'a SessionStatus, condition: &str) -> Option<&'a Condition> {
    let through_workloads = status.conditions.iter().any(|c| c.r#type == "WorkloadReady");
    let rests_on = |kind: &str| match condition {
        "Ready" if through_workloads => kind == "WorkloadReady",
        "Ready" => kind == "AgentReady",
        other => kind == other,
    };
    status.conditions.iter().find(|c| c.reason == "Hopeless" && rests_on(&c.r#type))
}

/// Why a condition will not come, where one that it rests on is hopeless.
fn hopeless(status: &SessionStatus, condition: &str) -> Option<UserError> {
    let names = status.conditions.iter().find(|c| c.r#type == "DNSReady" && c.reason == "NotAttached");
    if let Some(names) = names.filter(|_| condition == "DNSReady") {
        let hint = "podway status shows the whole of it";
        return Some(UserError::of_sentence(Reason::DnsFailed, &format!("wait: {}", names.message), hint));
    }
    if condition == "AgentReady"
        && let Some(line) = status.workloads.iter().find(|line| line.state == "Off")
    {
        let hint = "podway disconnect, then connect with --agent auto: it makes a pod for what no rule covers";
        return Some(UserError::new(Reason::AgentNotPlaced, format!("wait: AgentReady: {}", line.message), hint));
    }
    let found = hopeless_of(status, condition)?;
    let what = if found.subject.is_empty() { &found.r#type } else { &found.subject };
    Some(UserError::new(
        Reason::AgentNotPlaced,
        format!("wait: {what}: {}", found.message),
        "podway status shows the whole of it",
    ))
}

/// What the connection says of a workload by its name, kind/name or namespace/kind/name, in any spelling of the kind.
fn lines_of<'a>(status: &'a SessionStatus, wanted: &'a str) -> impl Iterator<Item = &'a WorkloadLine> {
    let canonical = wanted.parse::<WorkloadRef>().map_or_else(|_| wanted.to_owned(), |wanted| wanted.to_string());
    let fits =
        move |line: &&WorkloadLine| line.workload == canonical || line.workload.ends_with(&format!("/{canonical}"));
    status.workloads.iter().filter(fits)
}

/// Waits until the goal is reached.
///
/// # Errors
///
/// The goal cannot be reached, the time is over, the connection ended, or there is none.
pub async fn run(socket: &Path, args: &WaitArgs, progress: Progress) -> Result<Exit, Failure> {
    let mut client = ControlClient::open(socket).await?;
    client.send_request(Op::Watch { name: args.name.clone() }).await?;
    let mut lacks = Lacks { said: String::new(), since: now(), progress };
    match tokio::time::timeout(args.timeout, reach(&mut client, &args.what, &mut lacks)).await {
        Ok(Ok(status)) => {
            if args.output == TextOrJson::Json {
                say(document("Connection", "status", &json!(status)));
            }
            Ok(Exit::Done)
        }
        Ok(Err(failure)) => Err(failure),
        Err(_) => Err(Failure {
            exit: Exit::TimedOut,
            error: UserError::new(
                Reason::TimedOut,
                match lacks.said.is_empty() {
                    true => format!("wait: not reached in {:?}", args.timeout),
                    false => format!("wait: not reached in {:?}: {}", args.timeout, lacks.said),
                },
                "podway status shows what it waits for; --timeout waits longer",
            ),
        }),
    }
}

/// What is missing so far.
struct Lacks {
    said: String,
    since: Millis,
    progress: Progress,
}

impl Lacks {
    /// Tells it with the time, when it is another than before.
    fn now(&mut self, said: String) {
        if self.said == said {
            return;
        }
        if !said.is_empty() {
            let at = seconds(now().since(self.since).as_millis().try_into().unwrap_or(u64::MAX));
            self.progress.tell(format_args!("{WARN}…{WARN:#} {at:<6} {said}"));
        }
        self.said = said;
    }
}

/// Waits without limit.
async fn reach(client: &mut ControlClient, goal: &Goal, lacks: &mut Lacks) -> Result<Box<SessionStatus>, Failure> {
    loop {
        match client.next::<Ended>().await? {
            Next::Event(Event::Status { status }) => {
                if goal.reached(&status) {
                    return Ok(status);
                }
                if let Some(error) = goal.refusal(&status) {
                    return Err(error.into());
                }
                lacks.now(goal.lacks(&status));
            }
            Next::Event(Event::Progress { .. } | Event::Log { .. } | Event::CredentialsWanted { .. }) => {}
            Next::Result(Ended { name }) => {
                let error = UserError::new(
                    Reason::NotConnected,
                    format!("wait: connection {name} ended"),
                    "podway connect makes it anew",
                );
                return Err(error.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::DnsLine;

    fn status(outcome: Option<ConnectOutcome>, workloads: &[(&str, &str)]) -> SessionStatus {
        let line = |(workload, state): &(&str, &str)| WorkloadLine {
            workload: (*workload).to_owned(),
            state: (*state).to_owned(),
            message: "why".to_owned(),
            links: Vec::new(),
        };
        let workloads = workloads.iter().map(line).collect();
        SessionStatus { name: "demo".into(), outcome, workloads, ..SessionStatus::default() }
    }

    fn refusal(goal: &str, status: &SessionStatus) -> Option<UserError> {
        goal.parse::<Goal>().expect("a goal").refusal(status)
    }

    #[test]
    fn a_workload_that_no_rule_names_is_refused_once_the_rules_are_known() {
        let web = [("demo/deployment/web", "Connecting")];
        let known = status(Some(ConnectOutcome::Ready), &web);
        let error = refusal("workload/nope", &known).expect("refused");
        assert_eq!(error.reason, Reason::WorkloadNotFound);
        assert!(error.message.contains("nope") && error.hint.contains("demo/deployment/web"), "{error:?}");
        let none = status(Some(ConnectOutcome::Ready), &[("general", "Ready")]);
        assert!(refusal("workload/nope", &none).expect("refused").hint.contains("makes such a rule"));
        assert_eq!(refusal("workload/web", &known), None);
        assert_eq!(refusal("workload/deploy/web", &known), None, "another spelling of its kind");
        assert_eq!(refusal("workload/nope", &status(None, &web)), None, "it is connecting");
        let late = ConnectOutcome::TimedOut { missing: Vec::new() };
        assert_eq!(refusal("workload/nope", &status(Some(late), &[])), None, "its rules may not be known");
    }

    #[test]
    fn what_is_hopeless_or_failed_is_told_at_once_in_its_own_words() {
        let hopeless = status(Some(ConnectOutcome::Ready), &[("demo/deployment/web", "Hopeless")]);
        assert!(refusal("workload/web", &hopeless).expect("refused").message.contains("why"));
        let cause = UserError::new(Reason::WorkloadNotFound, "workload nope: not found in namespace demo", "");
        let failed = status(Some(ConnectOutcome::Failed(cause.clone())), &[]);
        assert_eq!(refusal("workload/nope", &failed), Some(cause.clone()));
        assert_eq!(refusal("dns", &failed), Some(cause));
    }

    #[test]
    fn names_that_are_not_attached_are_not_waited_for_but_those_of_a_taken_file_are() {
        let with = |status: &str, reason: &str| SessionStatus {
            dns: DnsLine { backend: "off".into(), ready: status == "True", ..DnsLine::default() },
            conditions: vec![Condition {
                r#type: "DNSReady".into(),
                subject: String::new(),
                status: status.into(),
                reason: reason.into(),
                message: "names are not attached: no resolver".into(),
                last_transition_time: 0,
            }],
            ..SessionStatus::default()
        };
        for goal in ["dns", "condition=DNSReady"] {
            let goal = goal.parse::<Goal>().expect("a goal");
            let error = goal.refusal(&with("False", "NotAttached")).expect("refused");
            assert_eq!(
                (error.reason, error.message.as_str()),
                (Reason::DnsFailed, "wait: names are not attached: no resolver")
            );
            let taken = with("False", "FileTaken");
            assert!(!goal.reached(&taken) && goal.refusal(&taken).is_none());
            assert_eq!(goal.lacks(&taken), "names are not attached: no resolver");
            assert!(goal.reached(&with("True", "Off")), "as the user wants it");
        }
    }

    #[test]
    fn a_condition_that_no_connection_has_is_a_wrong_flag() {
        assert!("condition=Nope".parse::<Goal>().expect_err("refused").contains("AgentReady"));
    }

    #[test]
    fn a_condition_that_rests_on_what_is_hopeless_is_refused() {
        let condition = |kind: &str, subject: &str, reason: &str| Condition {
            r#type: kind.into(),
            subject: subject.into(),
            status: "False".into(),
            reason: reason.into(),
            message: "no image".into(),
            last_transition_time: 0,
        };
        let agent = condition("AgentReady", "", "Hopeless");
        let plain = SessionStatus { conditions: vec![agent.clone()], ..SessionStatus::default() };
        assert!(refusal("condition=Ready", &plain).expect("refused").message.contains("no image"));
        assert!(refusal("condition=AgentReady", &plain).is_some());
        assert_eq!(refusal("condition=DNSReady", &plain), None);
        let pending = condition("WorkloadReady", "demo/deployment/web", "Pending");
        let via = SessionStatus { conditions: vec![agent, pending], ..SessionStatus::default() };
        assert_eq!(refusal("condition=Ready", &via), None, "the workload may come, and carries the traffic");
        let ready = "condition=WorkloadReady".parse::<Goal>().expect("a goal");
        assert_eq!(ready.lacks(&via), "no image");
    }
}
