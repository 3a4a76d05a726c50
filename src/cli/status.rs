//! `podway status`.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::args::{Check, ListArgs, StatusArgs, StatusForm, TextOrJson};
use super::say::say;
use super::table::{Detail, list_of, render};
use super::{API_VERSION, ErrorForm, Exit, Failure, document};
use crate::actors::control::protocol::{Ended, Event, Op, Sessions};
use crate::actors::daemon::messages::not_found;
use crate::control_client::{ControlClient, Next};
use crate::error::{Reason, UserError};
use crate::status::SessionStatus;

impl StatusArgs {
    /// How errors are written.
    pub fn error_form(&self) -> ErrorForm {
        match (self.output, self.watch) {
            (StatusForm::Json, false) => ErrorForm::Document,
            (StatusForm::Json, true) => ErrorForm::Line,
            (StatusForm::Table | StatusForm::Wide | StatusForm::Yaml, _) => ErrorForm::Text,
        }
    }
}

/// Prints connections once, at each change, or only checks them.
///
/// # Errors
///
/// No daemon, or no connection.
pub async fn run(socket: &Path, args: &StatusArgs) -> Result<Exit, Failure> {
    let mut client = ControlClient::open(socket).await?;
    if args.watch {
        client.send_request(Op::Watch { name: args.name.clone() }).await?;
        loop {
            match client.next::<Ended>().await? {
                // One document a line, so that `jq` and a shell's `read` take them as they come.
                Next::Event(Event::Status { status }) if args.output == StatusForm::Json => {
                    say(json!({ "apiVersion": API_VERSION, "kind": "Connection", "status": status }));
                }
                Next::Event(Event::Status { status }) => print(&[*status], args.output)?,
                Next::Event(Event::Progress { .. } | Event::Log { .. } | Event::CredentialsWanted { .. }) => {}
                Next::Result(Ended { name }) => {
                    let message = format!("status: connection {name} ended");
                    return Err(UserError::new(Reason::NotConnected, message, "").into());
                }
            }
        }
    }
    let Sessions { sessions } = client.ask(Op::Status { name: args.name.clone() }).await?;
    if args.check == Some(Check::Live) {
        return Ok(Exit::Done);
    }
    if sessions.is_empty() {
        return none(args.error_form(), args.check.is_some());
    }
    if args.check.is_none() {
        print(&sessions, args.output)?;
        return Ok(Exit::Done);
    }
    match sessions.iter().all(|status| status.holds("Ready")) {
        true => Ok(Exit::Done),
        false => Ok(Exit::Degraded),
    }
}

/// Prints the workloads that carry traffic.
///
/// # Errors
///
/// No daemon, or no connection.
pub async fn list(socket: &Path, args: &ListArgs) -> Result<Exit, Failure> {
    let mut client = ControlClient::open(socket).await?;
    let Sessions { sessions } = client.ask(Op::Status { name: args.name.clone() }).await?;
    if sessions.is_empty() {
        return none(args.output.into(), false);
    }
    match args.output {
        TextOrJson::Text => say(list_of(&sessions).trim_end()),
        TextOrJson::Json => {
            let items = sessions.iter().flat_map(|status| {
                status.workloads.iter().map(|line| json!({ "connection": status.name, "workload": line }))
            });
            say(document("WorkloadList", "items", &json!(items.collect::<Vec<_>>())));
        }
    }
    Ok(Exit::Done)
}

/// No connection: a state like others for people, and an error for scripts.
fn none(output: ErrorForm, silent: bool) -> Result<Exit, Failure> {
    match output {
        ErrorForm::Text if silent => {}
        ErrorForm::Text => say(format_args!("not connected; podway connect makes a connection")),
        ErrorForm::Document | ErrorForm::Line => return Err(not_found(None, false).into()),
    }
    Ok(Exit::NotConnected)
}

fn print(sessions: &[SessionStatus], form: StatusForm) -> Result<(), UserError> {
    match form {
        StatusForm::Table => sessions.iter().for_each(|status| say(render(status, Detail::brief(), wall()))),
        StatusForm::Wide => sessions.iter().for_each(|status| say(render(status, Detail::Wide, wall()))),
        StatusForm::Json => match sessions {
            [status] => say(document("Connection", "status", &json!(status))),
            several => {
                let items: Vec<_> = several.iter().map(|status| json!({ "status": status })).collect();
                say(document("ConnectionList", "items", &json!(items)));
            }
        },
        StatusForm::Yaml => {
            for status in sessions {
                let document = json!({ "apiVersion": API_VERSION, "kind": "Connection", "status": status });
                let yaml = serde_saphyr::to_string(&document)
                    .map_err(|error| UserError::new(Reason::Internal, format!("status: {error}"), "use -o json"))?;
                say(format_args!("---\n{yaml}"));
            }
        }
    }
    Ok(())
}

/// Seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the command is the shell of what it prints")]
fn wall() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
