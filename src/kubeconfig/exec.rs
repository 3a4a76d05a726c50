//! Exec plugins (client.authentication.k8s.io), run as the user, with a time limit.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use kube::config::{Cluster, ExecConfig, ExecInteractiveMode};
use serde::Deserialize;
use serde_json::json;
use tokio::process::Command;

use super::{expiry, invalid};
use crate::error::{Reason, UserError};
use crate::net::kube_client::base64;
use crate::spec::{ClusterAccess, Credential};

/// Limit for a plugin: a login in a browser does not belong into it.
pub const LIMIT: Duration = Duration::from_secs(30);

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

/// Runs the plugin and takes its credential, and when it ends.
pub async fn run(
    plugin: &ExecConfig,
    cluster: &Cluster,
    access: &ClusterAccess,
    interactive: bool,
) -> Result<(Credential, Option<i64>), UserError> {
    run_within(plugin, cluster, access, interactive, LIMIT).await
}

/// [`run`] with another limit.
pub async fn run_within(
    plugin: &ExecConfig,
    cluster: &Cluster,
    access: &ClusterAccess,
    interactive: bool,
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
    let output = spawn(plugin, name, cluster, access, interactive)?.wait_with_output();
    let output = match tokio::time::timeout(limit, output).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(refused(name, &error.to_string(), hint(plugin))),
        Err(_) => {
            let why = format!("it gave no answer in {} s", limit.as_secs());
            return Err(refused(name, &why, "run it by hand: it may be waiting for a login"));
        }
    };
    if !output.status.success() {
        return Err(refused(name, &output.status.to_string(), "what it said is above; you may have to log in again"));
    }
    // What it printed is the credential: no part of it may be in an error.
    let answer: Answer = serde_json::from_slice(&output.stdout).map_err(|_| {
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
    interactive: bool,
) -> Result<tokio::process::Child, UserError> {
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
    command.stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
    command.spawn().map_err(|error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            refused(name, "it is not installed", hint(plugin))
        } else {
            refused(name, &error.to_string(), hint(plugin))
        }
    })
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
