//! `podway disconnect`.

use std::path::Path;

use serde_json::json;

use super::args::{DisconnectArgs, TextOrJson};
use super::say::say;
use super::{Exit, Failure, document};
use crate::actors::control::protocol::{Disconnected, Op};
use crate::control_client::ControlClient;
use crate::error::{Reason, UserError};

/// Ends connections and prints what was left behind; with `--clean`, that is a failure.
///
/// # Errors
///
/// No daemon, no such connection, or another user's.
pub async fn run(socket: &Path, args: &DisconnectArgs) -> Result<Exit, Failure> {
    let mut client = ControlClient::open(socket).await?;
    let op = Op::Disconnect { name: args.name.clone(), clean: args.clean, all: args.all };
    let ended: Disconnected = client.ask(op).await?;
    match args.output {
        TextOrJson::Json => say(document("Disconnected", "closed", &json!(ended.closed))),
        TextOrJson::Text => {
            if ended.closed.is_empty() {
                say(format_args!("no connections"));
            }
            for closed in &ended.closed {
                say(format_args!("disconnected {}", closed.name));
                closed.left.iter().for_each(|left| say(format_args!("  left behind: {left}")));
                closed.agents.iter().for_each(|agents| say(format_args!("  {agents}")));
            }
        }
    }
    let left = ended.closed.iter().filter(|closed| !closed.left.is_empty());
    let left: Vec<&str> = left.map(|closed| closed.name.as_str()).collect();
    match (args.clean && !left.is_empty(), args.output) {
        (false, _) => Ok(Exit::Done),
        // The document says what.
        (true, TextOrJson::Json) => Ok(Exit::Failed),
        // Who asks for all to go has not got that.
        (true, TextOrJson::Text) => {
            let message = format!("disconnect {}: not all of it could be removed", left.join(", "));
            let hint = "connect again and end that with --clean; podway rbac prints the rights that it takes";
            Err(UserError::new(Reason::LeftBehind, message, hint).into())
        }
    }
}
