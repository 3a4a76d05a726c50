//! `podway disconnect`.

use std::path::Path;

use serde_json::json;

use super::args::{DisconnectArgs, TextOrJson};
use super::say::say;
use super::{Exit, Failure, document};
use crate::actors::control::protocol::{Disconnected, Op};
use crate::control_client::ControlClient;

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
    let clean = ended.closed.iter().all(|closed| closed.left.is_empty());
    // Who asks for all to go has not got that.
    Ok(if args.clean && !clean { Exit::Failed } else { Exit::Done })
}
