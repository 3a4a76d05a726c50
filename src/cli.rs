//! The command: what is typed, what the daemon is asked, what is printed, and the exit code.

pub mod args;
pub mod complete;
pub mod connect;
pub mod disconnect;
pub mod logs;
pub mod planned;
pub mod progress;
pub mod rbac;
mod say;
pub mod status;
pub mod table;
pub mod usage;
pub mod view;
pub mod wait;
pub mod when;

use std::path::Path;

use serde_json::json;

use crate::actors::control::protocol::{Op, VERSION, Version};
use crate::config;
use crate::control_client::{ClientError, ControlClient};
use crate::error::{Reason, UserError};
use args::{Cli, Command, ConfigArgs, ConfigCommand, KubeFlags, TextOrJson};
use progress::Progress;
use say::say;

pub use crate::kubeconfig::Resolved;

/// The version of the documents that `-o json` prints.
pub const API_VERSION: &str = "podway.dev/v1";

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// No daemon, or not connected.
    NotConnected = 3,
    /// Connected, something is pending.
    Degraded = 4,
    /// The time was over.
    TimedOut = 124,
    /// Ctrl-C.
    Interrupted = 130,
}

/// A failure of a command, with its exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What to print.
    pub error: UserError,
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        match error {
            ClientError::NoDaemon(error) => Failure { exit: Exit::NotConnected, error },
            ClientError::Refused(error) => Failure::from(error),
        }
    }
}

impl From<UserError> for Failure {
    fn from(error: UserError) -> Failure {
        let exit = if matches!(error.reason, Reason::NotConnected | Reason::DaemonUnreachable) {
            Exit::NotConnected
        } else if error.reason == Reason::TimedOut {
            Exit::TimedOut
        } else {
            Exit::Failed
        };
        Failure { exit, error }
    }
}

/// Runs one command and returns its exit code: an [`Exit`], or that of a command run for the user. `resolve` turns
/// kubectl's flags into access to a cluster; only `connect` calls it.
pub async fn run(cli: Cli, resolve: impl AsyncFn(&KubeFlags) -> Result<Resolved, UserError>) -> u8 {
    let progress = Progress::unless(cli.quiet);
    if let Command::Demo(args) = &cli.command {
        return crate::demo::run(args, progress).await;
    }
    let form = cli.command.error_form();
    let exit = carry_out(&cli, progress, resolve).await.unwrap_or_else(|failure| {
        complain(&failure.error, form);
        failure.exit
    });
    exit as u8
}

async fn carry_out(
    cli: &Cli,
    progress: Progress,
    resolve: impl AsyncFn(&KubeFlags) -> Result<Resolved, UserError>,
) -> Result<Exit, Failure> {
    // For who has nothing yet: no daemon, no settings.
    if let Command::Rbac(args) = &cli.command {
        return rbac::run(args);
    }
    if let Command::Completion(args) = &cli.command {
        return complete::run(args);
    }
    let files = config::command_files(&config::variable).map_err(UserError::from)?;
    let of_command = config::of_command(&files, &config::variable, cli.socket.clone());
    let (settings, listed) = of_command.map_err(UserError::from)?;
    let socket = settings.socket.as_path();
    match &cli.command {
        Command::Connect(args) => connect::run(socket, args, &settings, progress, resolve).await,
        Command::Disconnect(args) => disconnect::run(socket, args).await,
        Command::Status(args) => status::run(socket, args).await,
        Command::Wait(args) => wait::run(socket, args, progress).await,
        Command::List(args) => status::list(socket, args).await,
        Command::Logs(args) => logs::run(socket, args, progress).await,
        Command::Config(ConfigArgs { what: ConfigCommand::View(args) }) => {
            view::run(socket, args, &files, &listed).await
        }
        Command::Version(args) => version(socket, args.output).await,
        // Done above.
        Command::Rbac(_) | Command::Completion(_) | Command::Demo(_) => Ok(Exit::Done),
    }
}

impl Command {
    /// How its errors are written.
    fn error_form(&self) -> ErrorForm {
        match self {
            Command::Connect(args) => args.output.into(),
            Command::Disconnect(args) => args.output.into(),
            Command::Status(args) => args.error_form(),
            Command::Wait(args) => args.output.into(),
            Command::List(args) => args.output.into(),
            Command::Logs(args) => args.error_form(),
            Command::Rbac(args) => args.error_form().into(),
            Command::Demo(args) => args.output.into(),
            Command::Config(ConfigArgs { what: ConfigCommand::View(args) }) => args.output.into(),
            Command::Completion(_) => ErrorForm::Text,
            Command::Version(args) => args.output.into(),
        }
    }
}

/// How a failure is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorForm {
    /// Two lines on stderr.
    Text,
    /// A document on stdout.
    Document,
    /// A document in one line, after others.
    Line,
}

impl From<TextOrJson> for ErrorForm {
    fn from(form: TextOrJson) -> ErrorForm {
        match form {
            TextOrJson::Text => ErrorForm::Text,
            TextOrJson::Json => ErrorForm::Document,
        }
    }
}

/// Prints a failure: to stderr for people, to stdout as JSON.
pub(crate) fn complain(error: &UserError, form: impl Into<ErrorForm>) {
    match form.into() {
        ErrorForm::Text => anstream::eprint!("{}", error_text(error)),
        ErrorForm::Document => say(document("Error", "error", &json!(error.shown()))),
        ErrorForm::Line => say(json!({ "apiVersion": API_VERSION, "kind": "Error", "error": error.shown() })),
    }
}

fn error_text(error: &UserError) -> String {
    let UserError { message, hint, .. } = error.shown();
    format!("error: {message}\nhint: {hint}\n")
}

/// A document of `-o json`.
pub(crate) fn document(kind: &str, field: &str, value: &serde_json::Value) -> String {
    let document = json!({ "apiVersion": API_VERSION, "kind": kind, field: value });
    format!("{document:#}")
}

async fn version(socket: &Path, output: TextOrJson) -> Result<Exit, Failure> {
    let ours = env!("CARGO_PKG_VERSION");
    let theirs: Result<Version, ClientError> = match ControlClient::open(socket).await {
        Ok(mut client) => client.ask(Op::Version).await,
        Err(error) => Err(error),
    };
    let theirs = theirs.map(|theirs| theirs.version);
    match output {
        TextOrJson::Text => {
            say(format_args!("podway  {ours}"));
            say(format_args!("podwayd {}", theirs.as_deref().unwrap_or("not running, or not in reach")));
        }
        TextOrJson::Json => {
            let versions = json!({ "client": ours, "daemon": theirs.ok(), "protocol": VERSION });
            say(document("Version", "version", &versions));
        }
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_two_lines_for_people_and_a_document_for_scripts() {
        let error = UserError::new(Reason::Forbidden, "place agent: forbidden", "podway rbac");
        assert_eq!(error_text(&error), "error: place agent: forbidden\nhint: podway rbac\n");
        insta::assert_snapshot!(document("Error", "error", &json!(error)));
    }
}
