//! `podway logs`.

use std::path::Path;

use serde_json::json;

use super::args::{LogsArgs, TextOrJson};
use super::progress::Progress;
use super::say::say;
use super::table::{BAD, GOOD, WARN};
use super::{API_VERSION, ErrorForm, Exit, Failure};
use crate::actors::control::protocol::{Event, LogTold, Op};
use crate::control_client::{ClientError, ControlClient, Next};
use crate::error::{Reason, UserError};
use crate::logs::{Level, LogLine};
use crate::timestamp::rfc3339_of_millis;

impl LogsArgs {
    /// How errors are written: after lines, as a line.
    pub fn error_form(&self) -> ErrorForm {
        match self.output {
            TextOrJson::Text => ErrorForm::Text,
            TextOrJson::Json => ErrorForm::Line,
        }
    }
}

/// Prints what the daemon has logged and, where that is asked for, goes on until Ctrl-C.
///
/// # Errors
///
/// No daemon, or it ended.
pub async fn run(socket: &Path, args: &LogsArgs, progress: Progress) -> Result<Exit, Failure> {
    let mut client = ControlClient::open(socket).await?;
    client.send_request(Op::Logs { level: args.level, follow: args.follow }).await?;
    let mut printed = 0_usize;
    loop {
        let next = tokio::select! {
            next = client.next::<LogTold>() => next.map_err(ended)?,
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Interrupted),
        };
        match next {
            Next::Event(Event::Log { lines, missed }) => {
                if missed {
                    progress.tell(format_args!(
                        "{WARN}warning:{WARN:#} some lines are gone: there were too many at a time"
                    ));
                }
                let wanted = |line: &&LogLine| args.name.is_none() || line.session == args.name;
                for line in lines.iter().filter(wanted) {
                    print(line, args.output);
                    printed += 1;
                }
            }
            Next::Event(Event::Status { .. } | Event::Progress { .. } | Event::CredentialsWanted { .. }) => {}
            Next::Result(LogTold { .. }) => {
                // Lines outlive their connection, so one that is not there is no error.
                if let (Some(name), 0) = (&args.name, printed) {
                    progress.tell(format_args!(
                        "{WARN}note:{WARN:#} no lines of a connection {name}; podway status shows those there are"
                    ));
                }
                return Ok(Exit::Done);
            }
        }
    }
}

/// The daemon's end is the log's.
fn ended(error: ClientError) -> ClientError {
    match error {
        ClientError::NoDaemon(_) => ClientError::NoDaemon(UserError::new(
            Reason::DaemonUnreachable,
            "logs: podwayd ended, and these lines with it",
            "podway logs again once it runs; where systemd runs it, journalctl -u podwayd has the lines of before",
        )),
        ClientError::Refused(error) => ClientError::Refused(error),
    }
}

fn print(line: &LogLine, form: TextOrJson) {
    match form {
        TextOrJson::Text => say(text(line)),
        // One a line, so that they are taken as they come.
        TextOrJson::Json => {
            let mut document = json!(line);
            document["apiVersion"] = API_VERSION.into();
            document["kind"] = "LogLine".into();
            say(document);
        }
    }
}

/// Time, level, connection, sentence, and what it is about.
fn text(line: &LogLine) -> String {
    let (style, level) = match line.level {
        Level::Error => (BAD, "error"),
        Level::Warn => (WARN, "warn "),
        Level::Info => (GOOD, "info "),
        Level::Debug => (anstyle::Style::new(), "debug"),
        Level::Trace => (anstyle::Style::new(), "trace"),
    };
    let session = line.session.as_ref().map(|session| format!("{session}: ")).unwrap_or_default();
    let fields: String = line.fields.iter().map(|(name, value)| format!(" {name}={value}")).collect();
    let said = harmless(&format!("{session}{}{fields}", line.message));
    format!("{} {style}{level}{style:#} {said}", rfc3339_of_millis(line.time))
}

/// Without what would move a terminal's cursor: part of it comes from clusters.
fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_whatever_is_in_it() {
        let line = LogLine {
            time: 1_795_399_260_123,
            level: Level::Warn,
            target: "podway::x".to_owned(),
            session: Some("demo".to_owned()),
            message: "a pod\nis gone".to_owned(),
            fields: [("error".to_owned(), "\u{1b}[2Jno room".to_owned()), ("pod".to_owned(), "web-1".to_owned())]
                .into(),
        };
        let plain = anstream::adapter::strip_str(&text(&line)).to_string();
        assert_eq!(plain, "2026-11-23T02:01:00.123Z warn  demo: a pod is gone error= [2Jno room pod=web-1");
        assert!(!text(&LogLine { level: Level::Debug, ..line }).contains('\u{1b}'));
    }
}
