//! `podway config view`.

use std::path::Path;

use serde_json::json;

use super::args::{ConfigViewArgs, TextOrJson};
use super::say::say;
use super::table::{Detail, section};
use super::{Exit, Failure, document};
use crate::actors::control::protocol::{Op, Settings};
use crate::config::layers::Setting;
use crate::config::{FileState, Looked};
use crate::control_client::{ClientError, ControlClient};

/// Prints the settings that count and where they come from: the command's, and the daemon's where one is in reach.
///
/// # Errors
///
/// A daemon that answers with something else.
pub async fn run(socket: &Path, args: &ConfigViewArgs, files: &[Looked], own: &[Setting]) -> Result<Exit, Failure> {
    let daemon = match of_daemon(socket).await {
        Ok(settings) => Some(settings),
        // As with versions: that there is none is part of what is shown.
        Err(ClientError::NoDaemon(_)) => None,
        Err(refused @ ClientError::Refused(_)) => return Err(refused.into()),
    };
    match args.output {
        TextOrJson::Json => {
            let files = files.iter().map(|file| json!({ "path": file.path, "state": file.state }));
            let all = json!({ "client": own, "daemon": daemon, "files": files.collect::<Vec<_>>() });
            say(document("Settings", "settings", &all));
        }
        TextOrJson::Text => say(text(files, own, daemon.as_deref()).trim_end()),
    }
    Ok(Exit::Done)
}

async fn of_daemon(socket: &Path) -> Result<Vec<Setting>, ClientError> {
    let mut client = ControlClient::open(socket).await?;
    let Settings { settings } = client.ask(Op::Config).await?;
    Ok(settings)
}

fn text(files: &[Looked], own: &[Setting], daemon: Option<&[Setting]>) -> String {
    let rows = |settings: &[Setting]| {
        let rows = settings.iter().map(|setting| {
            let value = match setting.value.as_str() {
                Some("") => "\"\"".to_owned(),
                Some(text) => text.to_owned(),
                None => setting.value.to_string(),
            };
            [setting.key.clone(), value, setting.from.to_string()]
        });
        rows.collect::<Vec<_>>()
    };
    let mut text = String::new();
    section(&mut text, Detail::Wide, ["PODWAY", "VALUE", "FROM"], rows(own).into_iter());
    match daemon {
        Some(settings) => section(&mut text, Detail::Wide, ["PODWAYD", "VALUE", "FROM"], rows(settings).into_iter()),
        None => text.push_str("\npodwayd is not running, or not in reach\n"),
    }
    let files = files.iter().map(|file| {
        let state = match file.state {
            FileState::Read => "read",
            FileState::Absent => "not there",
            FileState::Closed => "closed to you",
        };
        [file.path.display().to_string(), state.to_owned()]
    });
    section(&mut text, Detail::Wide, ["FILE OF PODWAY", "STATE"], files);
    text.trim_start().to_owned()
}
