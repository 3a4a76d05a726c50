//! Exec plugins (client.authentication.k8s.io), run as the user, with a time limit.

use std::path::Path;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use kube::config::{Cluster, ExecConfig, ExecInteractiveMode};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{Words, expiry, invalid};
use crate::error::{Reason, UserError};
use crate::net::kube_client::base64;
use crate::spec::{ClusterAccess, Credential};

/// Limit for a plugin: a login in a browser does not belong into it.
pub const LIMIT: Duration = Duration::from_secs(30);
/// The longest answer, in bytes: a certificate and a key with all the chain take a few thousand.
const LONGEST_ANSWER: u64 = 1024 * 1024;
/// How long its words are waited for once it has ended: what it left behind may hold the pipe for long.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// Where a plugin would show a window: where nobody reads its words, nobody may be there to answer one.
const SCREENS: [&str; 2] = ["DISPLAY", "WAYLAND_DISPLAY"];
/// How much of the end of its words is kept, in bytes.
const KEPT: usize = 2048;
/// How much of its last line is told, in characters.
const TOLD: usize = 200;
/// A word that is so long and looks like one is taken for a secret.
const SECRET: usize = 32;

#[derive(Deserialize)]
struct Answer {
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
    expiration_timestamp: Option<String>,
}

/// Runs the plugin and takes its credential, and when it ends. `how`: whether it may ask, and where its words go.
///
/// Cancel safe: the plugin is killed.
pub async fn run(
    plugin: &ExecConfig,
    cluster: &Cluster,
    access: &ClusterAccess,
    how: (bool, Words),
) -> Result<(Credential, Option<i64>), UserError> {
    run_within(plugin, cluster, access, how, LIMIT).await
}

/// [`run`] with another limit.
pub async fn run_within(
    plugin: &ExecConfig,
    cluster: &Cluster,
    access: &ClusterAccess,
    (interactive, words): (bool, Words),
    limit: Duration,
) -> Result<(Credential, Option<i64>), UserError> {
    let Some(name) = plugin.command.as_deref().filter(|name| !name.is_empty()) else {
        return Err(invalid("the kubeconfig's exec plugin names no command", "fetch the kubeconfig anew"));
    };
    let interactive = match plugin.interactive_mode {
        Some(ExecInteractiveMode::Never) => false,
        Some(ExecInteractiveMode::Always) if !interactive => {
            return Err(refused(
                name,
                "it must ask something, and there is no terminal",
                "run the command in a terminal",
            ));
        }
        Some(ExecInteractiveMode::Always | ExecInteractiveMode::IfAvailable) | None => interactive,
    };
    let child = spawn(plugin, name, cluster, access, (interactive, words))?;
    let mut said = Tail::default();
    let output = match timeout(limit, output_of(child, words, &mut said)).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(refused(name, &error.to_string(), hint(plugin))),
        Err(_) => {
            let why = format!("it gave no answer in {} s{}", limit.as_secs(), said.last_words());
            return Err(refused(name, &why, "run it by hand: it may be waiting for a login"));
        }
    };
    let (status, stdout) = output;
    if !status.success() {
        let why = format!("{status}{}", said.last_words());
        return Err(refused(name, &why, "what it said is above; you may have to log in again"));
    }
    // What it printed is the credential: no part of it may be in an error.
    let answer: Answer = serde_json::from_slice(&stdout).map_err(|_| {
        refused(
            name,
            "what it printed is no ExecCredential",
            "run it by hand, and correct its arguments in the kubeconfig",
        )
    })?;
    let Some(status) = answer.status else {
        return Err(refused(name, "its answer has no status", hint(plugin)));
    };
    credential(name, plugin, status)
}

fn spawn(
    plugin: &ExecConfig,
    name: &str,
    cluster: &Cluster,
    access: &ClusterAccess,
    (interactive, words): (bool, Words),
) -> Result<Child, UserError> {
    let mut command = Command::new(name);
    command.args(plugin.args.iter().flatten());
    for dropped in plugin.drop_env.iter().flatten() {
        command.env_remove(dropped);
    }
    for pair in plugin.env.iter().flatten() {
        if let (Some(key), Some(value)) = (pair.get("name"), pair.get("value")) {
            command.env(key, value);
        }
    }
    command.env("KUBERNETES_EXEC_INFO", info(plugin, cluster, access, interactive).to_string());
    command.stdin(if interactive { Stdio::inherit() } else { Stdio::null() });
    command.stdout(Stdio::piped()).kill_on_drop(true);
    match words {
        Words::Shown => command.stderr(Stdio::inherit()),
        // A group of its own could not read from the terminal; here it has none.
        Words::Kept => {
            for screen in SCREENS {
                command.env_remove(screen);
            }
            command.stderr(Stdio::piped()).process_group(0)
        }
    };
    command.spawn().map_err(|error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            refused(name, "it is not installed", hint(plugin))
        } else {
            refused(name, &error.to_string(), hint(plugin))
        }
    })
}

/// Waits for its end; gives what it answered, and keeps the end of what it said. Dropping this kills it, and with
/// [`Words::Kept`] whatever it started.
async fn output_of(mut child: Child, words: Words, said: &mut Tail) -> std::io::Result<(ExitStatus, Vec<u8>)> {
    let mut group = Group(child.id().filter(|_| words == Words::Kept).and_then(|id| i32::try_from(id).ok()));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let answer = async {
        let mut answer = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(LONGEST_ANSWER).read_to_end(&mut answer).await?;
        }
        Ok::<_, std::io::Error>(answer)
    };
    let mut ended = pin!(async { tokio::join!(answer, child.wait()) });
    let mut filled = pin!(said.fill(stderr));
    let mut speaks = true;
    let (answer, status) = loop {
        tokio::select! {
            ended = &mut ended => break ended,
            () = &mut filled, if speaks => speaks = false,
        }
    };
    let done = (status?, answer?);
    group.0 = None;
    if speaks && !done.0.success() {
        let _ = timeout(LAST_WORDS, filled).await;
    }
    Ok(done)
}

/// A process group, which is killed with it.
struct Group(Option<i32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // One that has ended needs no end.
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
    }
}

/// The end of what a plugin said.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    /// Until there is no more, or it cannot be read: it says nothing of the answer.
    async fn fill(&mut self, from: Option<impl AsyncRead + Unpin>) {
        let Some(mut from) = from else { return };
        let mut block = [0; 1024];
        while let Ok(length @ 1..) = from.read(&mut block).await {
            self.0.extend(block.iter().take(length));
            self.0.drain(..self.0.len().saturating_sub(KEPT));
        }
    }

    /// `: ` and its last line, without what a terminal would obey and what may be a secret; nothing where it said nothing.
    fn last_words(&self) -> String {
        let text = String::from_utf8_lossy(&self.0);
        let Some(line) = text.lines().rev().map(str::trim).find(|line| !line.is_empty()) else { return String::new() };
        let line: String = line.chars().filter(|c| !c.is_control()).collect();
        let words: Vec<String> = line.split(' ').map(harmless).collect();
        let told: String = words.join(" ").chars().take(TOLD).collect();
        format!(": {told}")
    }
}

/// A word without what may be a token or a key: whatever is long, and neither a path nor a URL of short parts. What follows
/// the path in a URL, and who logs in by it, is never told.
fn harmless(word: &str) -> String {
    let all_short = |path: &str| path.split('/').all(|part| part.len() < SECRET);
    match word.split_once("://") {
        Some((scheme, rest)) => {
            let end = rest.find(['?', '#']).unwrap_or(rest.len());
            let (place, more) = rest.split_at(end);
            let at = place.split('/').next().and_then(|host| host.rfind('@')).map_or(0, |at| at + 1);
            let place = &place[at..];
            let hidden = if more.is_empty() { "" } else { "…" };
            if all_short(scheme) && all_short(place) { format!("{scheme}://{place}{hidden}") } else { "…".to_owned() }
        }
        None if word.len() < SECRET || word.starts_with('/') && all_short(word) => word.to_owned(),
        None => "…".to_owned(),
    }
}

fn info(plugin: &ExecConfig, cluster: &Cluster, access: &ClusterAccess, interactive: bool) -> serde_json::Value {
    let version = plugin.api_version.as_deref().unwrap_or("client.authentication.k8s.io/v1");
    let mut spec = json!({"interactive": interactive});
    if plugin.provide_cluster_info {
        let config = cluster.extensions.iter().flatten().find(|e| e.name == "client.authentication.k8s.io/exec");
        let mut about = json!({"server": access.server, "insecure-skip-tls-verify": access.insecure_skip_tls_verify});
        let mut put = |key: &str, value: Option<serde_json::Value>| {
            if let Some(value) = value {
                about[key] = value;
            }
        };
        let authority = access.certificate_authority_data.as_ref();
        put("certificate-authority-data", authority.map(|pem| base64(pem.as_bytes()).into()));
        put("tls-server-name", access.tls_server_name.clone().map(Into::into));
        put("proxy-url", access.proxy_url.clone().map(Into::into));
        put("config", config.map(|extension| extension.extension.clone()));
        spec["cluster"] = about;
    }
    json!({"apiVersion": version, "kind": "ExecCredential", "spec": spec})
}

fn credential(name: &str, plugin: &ExecConfig, status: Status) -> Result<(Credential, Option<i64>), UserError> {
    let said = status.expiration_timestamp.as_deref().and_then(expiry::of_timestamp);
    match (status.token.filter(|token| !token.is_empty()), status.client_certificate_data, status.client_key_data) {
        (_, Some(certificate), Some(key)) => {
            let ends = said.or_else(|| expiry::of_certificate(&certificate));
            Ok((Credential::ClientCertificate { certificate, key }, ends))
        }
        (Some(token), _, _) => {
            let ends = said.or_else(|| expiry::of_token(&token));
            Ok((Credential::Token(token), ends))
        }
        (None, _, _) => Err(refused(name, "its answer holds no credential", hint(plugin))),
    }
}

fn hint(plugin: &ExecConfig) -> &str {
    match plugin.install_hint.as_deref().map(str::trim) {
        Some(hint) if !hint.is_empty() => hint,
        Some(_) | None => "the kubeconfig's user logs in with it: install it, then see that kubectl works",
    }
}

fn refused(name: &str, why: &str, hint: &str) -> UserError {
    let name = Path::new(name).file_name().map_or_else(|| name.into(), |file| file.to_string_lossy());
    UserError::new(Reason::Unauthorized, format!("the login plugin {name:?} failed: {why}"), hint)
}
