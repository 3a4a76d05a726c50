//! `podway wait`: a subscription, with the time measured here.

#![expect(clippy::print_stdout, reason = "the command's results go to stdout")]

use std::path::Path;
use std::str::FromStr;

use serde_json::json;

use super::args::{TextOrJson, WaitArgs};
use super::{Exit, Failure, document};
use crate::actors::control::protocol::{Ended, Event, Op};
use crate::control_client::{ControlClient, Next};
use crate::error::{Reason, UserError};
use crate::status::SessionStatus;

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
            (_, Some(condition), _) if !condition.is_empty() => Ok(Goal::Condition(condition.to_owned())),
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
            Goal::Workload(wanted) => status.workloads.iter().any(|line| {
                let fits = line.workload == *wanted || line.workload.ends_with(&format!("/{wanted}"));
                fits && line.state == "Ready"
            }),
        }
    }
}

/// Waits until the goal is reached.
///
/// # Errors
///
/// The time is over, the connection ended, or there is none.
pub async fn run(socket: &Path, args: &WaitArgs) -> Result<Exit, Failure> {
    let mut client = ControlClient::open(socket).await?;
    client.send_request(Op::Watch { name: args.name.clone() }).await?;
    match tokio::time::timeout(args.timeout, reach(&mut client, &args.what)).await {
        Ok(Ok(status)) => {
            if args.output == TextOrJson::Json {
                println!("{}", document("Connection", "status", &json!(status)));
            }
            Ok(Exit::Done)
        }
        Ok(Err(failure)) => Err(failure),
        Err(_) => Err(Failure {
            exit: Exit::TimedOut,
            error: UserError::new(
                Reason::TimedOut,
                format!("wait: not reached in {:?}", args.timeout),
                "podway status",
            ),
        }),
    }
}

async fn reach(client: &mut ControlClient, goal: &Goal) -> Result<Box<SessionStatus>, Failure> {
    loop {
        match client.next::<Ended>().await? {
            Next::Event(Event::Status { status }) if goal.reached(&status) => return Ok(status),
            Next::Event(Event::Status { .. } | Event::Progress { .. }) => {}
            Next::Result(Ended { name }) => {
                let error = UserError::new(Reason::NotConnected, format!("wait: connection {name} ended"), "");
                return Err(error.into());
            }
        }
    }
}
