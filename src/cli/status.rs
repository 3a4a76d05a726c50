//! `podway status`.

#![expect(clippy::print_stdout, reason = "the command's results go to stdout")]

use std::path::Path;

use serde_json::json;

use super::args::{Check, StatusArgs, StatusForm, TextOrJson};
use super::table::{Detail, render};
use super::{API_VERSION, Exit, Failure, document};
use crate::actors::control::protocol::{Ended, Event, Op, Sessions};
use crate::control_client::{ControlClient, Next};
use crate::error::{Reason, UserError};
use crate::status::SessionStatus;

impl StatusArgs {
    /// How errors are written.
    pub fn error_form(&self) -> TextOrJson {
        match self.output {
            StatusForm::Json => TextOrJson::Json,
            StatusForm::Table | StatusForm::Wide | StatusForm::Yaml => TextOrJson::Text,
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
                Next::Event(Event::Status { status }) => print(&[*status], args.output)?,
                Next::Event(Event::Progress { .. }) => {}
                Next::Result(_) => return Ok(Exit::NotConnected),
            }
        }
    }
    let Sessions { sessions } = client.ask(Op::Status { name: args.name.clone() }).await?;
    if args.check == Some(Check::Live) {
        return Ok(Exit::Done);
    }
    if sessions.is_empty() {
        return Err(UserError::new(Reason::NotConnected, "status: not connected", "podway connect").into());
    }
    if args.check.is_none() {
        print(&sessions, args.output)?;
        return Ok(Exit::Done);
    }
    match sessions.iter().all(is_ready) {
        true => Ok(Exit::Done),
        false => Ok(Exit::Degraded),
    }
}

fn is_ready(status: &SessionStatus) -> bool {
    holds(status, "Ready")
}

/// Whether a condition is True.
pub fn holds(status: &SessionStatus, condition: &str) -> bool {
    status.conditions.iter().any(|c| c.r#type.eq_ignore_ascii_case(condition) && c.status == "True")
}

fn print(sessions: &[SessionStatus], form: StatusForm) -> Result<(), UserError> {
    match form {
        StatusForm::Table => sessions.iter().for_each(|status| anstream::println!("{}", render(status, Detail::Brief))),
        StatusForm::Wide => sessions.iter().for_each(|status| anstream::println!("{}", render(status, Detail::Wide))),
        StatusForm::Json => match sessions {
            [status] => println!("{}", document("Connection", "status", &json!(status))),
            several => {
                let items: Vec<_> = several.iter().map(|status| json!({ "status": status })).collect();
                println!("{}", document("ConnectionList", "items", &json!(items)));
            }
        },
        StatusForm::Yaml => {
            for status in sessions {
                let document = json!({ "apiVersion": API_VERSION, "kind": "Connection", "status": status });
                let yaml = serde_saphyr::to_string(&document)
                    .map_err(|error| UserError::new(Reason::Internal, format!("status: {error}"), "use -o json"))?;
                println!("---\n{yaml}");
            }
        }
    }
    Ok(())
}
