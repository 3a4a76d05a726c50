//! The user's kubeconfig and kubectl's connection flags, resolved to values.
//!
//! For the command only, which runs as the user: files are read, and plugins run, with the user's rights. The daemon
//! gets what came of it.
#![expect(clippy::disallowed_methods, reason = "reads the environment, files and the clock for the command")]

mod exec;
mod expiry;
mod files;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use kube::config::{AuthInfo, Cluster, Context, Kubeconfig};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};

use crate::error::{Reason, UserError};
use crate::near::near;
use crate::spec::{ClusterAccess, Credential, Impersonate};

/// kubectl's connection flags, as given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionFlags {
    /// `--kubeconfig`.
    pub kubeconfig: Option<PathBuf>,
    /// `--context`.
    pub context: Option<String>,
    /// `--cluster`.
    pub cluster: Option<String>,
    /// `--user`.
    pub user: Option<String>,
    /// `--server`.
    pub server: Option<String>,
    /// `--token`.
    pub token: Option<String>,
    /// `--as`.
    pub as_user: Option<String>,
    /// `--as-group`, once for each.
    pub as_groups: Vec<String>,
    /// `--insecure-skip-tls-verify`.
    pub insecure_skip_tls_verify: bool,
    /// `--certificate-authority`.
    pub certificate_authority: Option<PathBuf>,
    /// `--client-certificate`.
    pub client_certificate: Option<PathBuf>,
    /// `--client-key`.
    pub client_key: Option<PathBuf>,
    /// `--tls-server-name`.
    pub tls_server_name: Option<String>,
    /// `--proxy-url`.
    pub proxy_url: Option<String>,
    /// `-n`, `--namespace`.
    pub namespace: Option<String>,
}

/// What the command finds around it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// `$KUBECONFIG`.
    pub kubeconfig: Option<String>,
    /// `$HOME`.
    pub home: Option<PathBuf>,
    /// `$HTTPS_PROXY` or `$https_proxy`, used where the kubeconfig names no proxy.
    pub https_proxy: Option<String>,
    /// `$NO_PROXY` or `$no_proxy`.
    pub no_proxy: Option<String>,
    /// `$SUDO_USER`, where this is root on somebody's behalf.
    pub sudo_user: Option<String>,
    /// Whether a plugin may ask the user something on the terminal.
    pub interactive: bool,
    /// Whether a plugin may run at all.
    pub plugins: Plugins,
    /// Where a plugin's own words go.
    pub words: Words,
}

/// What becomes of what a plugin says beside its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Words {
    /// The user reads it.
    #[default]
    Shown,
    /// Nobody reads it: the end of it becomes part of the error. The plugin runs in a process group of its own, which ends
    /// as a whole when its time is over.
    Kept,
}

/// Whether programs that the kubeconfig names are started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plugins {
    /// Where a credential comes from one.
    #[default]
    Run,
    /// Never: a credential that comes from one cannot be had.
    Never,
}

impl Surroundings {
    /// Reads the environment; plugins may ask if `interactive`.
    pub fn of_process(interactive: bool) -> Surroundings {
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Surroundings {
            kubeconfig: text("KUBECONFIG"),
            home: text("HOME").map(PathBuf::from),
            https_proxy: text("HTTPS_PROXY").or_else(|| text("https_proxy")),
            no_proxy: text("NO_PROXY").or_else(|| text("no_proxy")),
            sudo_user: sudo_user(),
            interactive,
            plugins: Plugins::Run,
            words: Words::Shown,
        }
    }
}

/// What a kubeconfig has names for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Contexts.
    pub contexts: Vec<String>,
    /// Clusters.
    pub clusters: Vec<String>,
    /// Users.
    pub users: Vec<String>,
    /// Namespaces of its contexts, each once.
    pub namespaces: Vec<String>,
}

/// The names in the kubeconfig; none where it cannot be read.
pub fn known(kubeconfig: Option<&Path>, around: &Surroundings) -> Known {
    let Ok(config) = files::load(kubeconfig, around) else { return Known::default() };
    let namespaces = config.contexts.iter().filter_map(|context| context.context.as_ref()?.namespace.clone());
    let mut namespaces: Vec<String> = namespaces.filter(|name| !name.is_empty()).collect();
    namespaces.sort();
    namespaces.dedup();
    Known {
        contexts: names(&config),
        clusters: config.clusters.iter().map(|cluster| cluster.name.clone()).collect(),
        users: config.auth_infos.iter().map(|user| user.name.clone()).collect(),
        namespaces,
    }
}

/// Whose sudo made this process root, if one did.
pub fn sudo_user() -> Option<String> {
    behalf(std::env::var("SUDO_USER").ok(), nix::unistd::geteuid().is_root())
}

fn behalf(sudo_user: Option<String>, root: bool) -> Option<String> {
    sudo_user.filter(|user| root && !user.is_empty() && user != "root")
}

/// How to reach the cluster, and what the user calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The values for the daemon.
    pub access: ClusterAccess,
    /// Name of the context; empty when flags alone say where.
    pub context: String,
    /// Namespace: the flag's, the context's, else `default`.
    pub namespace: String,
    /// Where the credential comes from.
    pub source: Source,
}

/// Where a credential comes from, and so whether there may be another one without a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A flag, or the kubeconfig itself: it is what it is.
    Given,
    /// A file of its own, which something may write anew.
    File,
    /// A plugin, which may be run again.
    Plugin,
}

/// Resolves flags and kubeconfig. Runs the user's exec plugin if there is one, for at most 30 s.
///
/// # Errors
/// In the user's words, with a hint: files that are missing or broken, unknown contexts, plugins that fail.
///
/// Cancel safe: a plugin that runs is killed.
pub async fn resolve(flags: &ConnectionFlags, around: &Surroundings) -> Result<Resolved, UserError> {
    let config = files::load(flags.kubeconfig.as_deref(), around)?;
    let (name, context) = pick_context(&config, flags, around)?;
    let cluster = pick_cluster(&config, flags, &context)?;
    let user = pick_user(&config, flags, &context)?;
    let server = flags.server.clone().or_else(|| cluster.server.clone()).filter(|server| !server.is_empty());
    let Some(server) = server else {
        return Err(invalid(
            "the kubeconfig names no server",
            "choose a context with --context, or name the server with --server",
        ));
    };
    let server = with_scheme(&server);
    let mut access = ClusterAccess {
        tls_server_name: flags.tls_server_name.clone().or_else(|| cluster.tls_server_name.clone()),
        insecure_skip_tls_verify: flags.insecure_skip_tls_verify || cluster.insecure_skip_tls_verify.unwrap_or(false),
        proxy_url: flags.proxy_url.clone().or_else(|| cluster.proxy_url.clone()).or_else(|| proxy(around, &server)),
        impersonate: impersonate(flags, &user)?,
        certificate_authority_data: None,
        credential: Credential::None,
        expires_at: None,
        server,
    };
    let authority = files::text_or_data(
        flags.certificate_authority.as_deref(),
        cluster.certificate_authority_data.as_deref(),
        cluster.certificate_authority.as_deref(),
        "certificate authority",
    )?;
    access.certificate_authority_data = authority.filter(|_| !access.insecure_skip_tls_verify);
    let source;
    ((access.credential, access.expires_at), source) = credential(flags, &user, &cluster, &access, around).await?;
    let namespace = flags.namespace.clone().or(context.namespace).filter(|name| !name.is_empty());
    Ok(Resolved { access, context: name, namespace: namespace.unwrap_or_else(|| "default".to_owned()), source })
}

fn pick_context(
    config: &Kubeconfig,
    flags: &ConnectionFlags,
    around: &Surroundings,
) -> Result<(String, Context), UserError> {
    let none = Context { cluster: String::new(), user: None, namespace: None, extensions: None, ..Context::default() };
    let wanted = flags.context.clone().or_else(|| config.current_context.clone()).filter(|name| !name.is_empty());
    let Some(name) = wanted else {
        return if flags.server.is_some() || flags.cluster.is_some() {
            Ok((String::new(), none))
        } else if config.contexts.is_empty() {
            let hint = match &around.sudo_user {
                Some(user) => format!(
                    "this is root, by sudo: run podway as {user}, only podwayd needs root; or give --kubeconfig ~{user}/.kube/config"
                ),
                None => "set KUBECONFIG or --kubeconfig, or log in to your cluster".to_owned(),
            };
            Err(invalid("there is no kubeconfig", hint))
        } else {
            Err(invalid("the kubeconfig has no current context", among("--context", "", names(config))))
        };
    };
    let found = config.contexts.iter().find(|context| context.name == name).and_then(|found| found.context.clone());
    match found {
        Some(context) => Ok((name, context)),
        None => {
            Err(invalid(format!("the kubeconfig has no context {name:?}"), among("--context", &name, names(config))))
        }
    }
}

fn names(config: &Kubeconfig) -> Vec<String> {
    config.contexts.iter().map(|context| context.name.clone()).collect()
}

fn pick_cluster(config: &Kubeconfig, flags: &ConnectionFlags, context: &Context) -> Result<Cluster, UserError> {
    let name = flags.cluster.as_ref().unwrap_or(&context.cluster);
    if name.is_empty() {
        return Ok(Cluster::default());
    }
    let found = config.clusters.iter().find(|cluster| cluster.name == *name).and_then(|found| found.cluster.clone());
    found.ok_or_else(|| {
        let all = config.clusters.iter().map(|cluster| cluster.name.clone()).collect();
        invalid(format!("the kubeconfig has no cluster {name:?}"), among("--cluster", name, all))
    })
}

fn pick_user(config: &Kubeconfig, flags: &ConnectionFlags, context: &Context) -> Result<AuthInfo, UserError> {
    let Some(name) = flags.user.as_ref().or(context.user.as_ref()).filter(|name| !name.is_empty()) else {
        return Ok(AuthInfo::default());
    };
    match config.auth_infos.iter().find(|user| user.name == *name) {
        // A user without any credential is written with nothing behind its name.
        Some(found) => Ok(found.auth_info.clone().unwrap_or_default()),
        None => {
            let all = config.auth_infos.iter().map(|user| user.name.clone()).collect();
            Err(invalid(format!("the kubeconfig has no user {name:?}"), among("--user", name, all)))
        }
    }
}

/// `choose one with --context: a, b`, the near ones if any are near.
fn among(flag: &str, name: &str, all: Vec<String>) -> String {
    if all.is_empty() {
        return format!("it has none for {flag}: fetch the kubeconfig anew");
    }
    let close = if name.is_empty() { Vec::new() } else { near(name, all.iter().map(|n| (n.clone(), n.clone()))) };
    if close.is_empty() {
        let more = all.len().saturating_sub(10);
        let mut text = format!("choose one with {flag}: {}", all.into_iter().take(10).collect::<Vec<_>>().join(", "));
        if more > 0 {
            text.push_str(&format!(" and {more} more"));
        }
        text
    } else {
        format!("did you mean {}?", close.join(" or "))
    }
}

/// A credential, and when it ends, in seconds since 1970.
type Ending = (Credential, Option<i64>);

async fn credential(
    flags: &ConnectionFlags,
    user: &AuthInfo,
    cluster: &Cluster,
    access: &ClusterAccess,
    around: &Surroundings,
) -> Result<(Ending, Source), UserError> {
    if let Some(token) = &flags.token {
        return Ok((token_credential(token), Source::Given));
    }
    let certificate = files::text_or_data(
        flags.client_certificate.as_deref(),
        user.client_certificate_data.as_deref(),
        user.client_certificate.as_deref(),
        "client certificate",
    )?;
    let key = files::text_or_data(
        flags.client_key.as_deref(),
        user.client_key_data.as_ref().map(|key| key.expose_secret()),
        user.client_key.as_deref(),
        "client key",
    )?;
    match (certificate, key) {
        (Some(certificate), Some(key)) => {
            let ends = expiry::of_certificate(&certificate);
            // As `text_or_data` chooses.
            let data = user.client_certificate_data.as_ref().is_some_and(|data| !data.is_empty());
            let given = flags.client_certificate.is_none() && data;
            let source = if given { Source::Given } else { Source::File };
            return Ok(((Credential::ClientCertificate { certificate, key }, ends), source));
        }
        (None, None) => {}
        (Some(_), None) | (None, Some(_)) => {
            return Err(invalid(
                "the client certificate and its key come only together",
                "give both --client-certificate and --client-key, or neither",
            ));
        }
    }
    // As kubectl: a token file that can be read outweighs the token beside it.
    if let Some(path) = user.token_file.as_deref().filter(|path| !path.is_empty()) {
        let token = files::read(Path::new(path), "token")?;
        // It is being written anew, say: what was there before is better.
        if token.trim().is_empty() {
            return Err(invalid(format!("the token file {path} is empty"), "log in again, or correct the kubeconfig"));
        }
        return Ok((token_credential(&token), Source::File));
    }
    if let Some(token) = user.token.as_ref().filter(|token| !token.expose_secret().is_empty()) {
        return Ok((token_credential(token.expose_secret()), Source::Given));
    }
    if let Some(username) = user.username.clone().filter(|name| !name.is_empty()) {
        let password = user.password.as_ref().map(|password| password.expose_secret().to_owned()).unwrap_or_default();
        return Ok(((Credential::Basic { username, password }, None), Source::Given));
    }
    if let Some(plugin) = &user.exec {
        if around.plugins == Plugins::Never {
            return Err(invalid("the credential comes from a plugin", "podway connect runs it"));
        }
        let fresh = exec::run(plugin, cluster, access, (around.interactive, around.words)).await?;
        return Ok((fresh, Source::Plugin));
    }
    if let Some(provider) = &user.auth_provider {
        let token = provider.config.get("id-token").or(provider.config.get("access-token"));
        return Ok((legacy_provider(&provider.name, token)?, Source::Given));
    }
    Ok(((Credential::None, None), Source::Given))
}

fn legacy_provider(name: &str, token: Option<&String>) -> Result<Ending, UserError> {
    let (credential, ends) = match token {
        Some(token) => token_credential(token),
        None => (Credential::None, Some(0)),
    };
    if ends.is_some_and(|ends| ends <= now()) {
        return Err(UserError::new(
            Reason::Unauthorized,
            format!("the kubeconfig's auth-provider {name:?} has no valid token"),
            "log in again, or use an exec plugin (kubectl oidc-login); auth-providers are obsolete",
        ));
    }
    Ok((credential, ends))
}

fn token_credential(token: &str) -> Ending {
    let token = token.trim();
    (Credential::Token(token.to_owned()), expiry::of_token(token))
}

fn impersonate(flags: &ConnectionFlags, user: &AuthInfo) -> Result<Option<Impersonate>, UserError> {
    // Without these the API server would see another identity than kubectl shows it.
    let unsupported = [
        ("as-uid", user.impersonate_uid.as_ref().is_some_and(|uid| !uid.is_empty())),
        ("as-user-extra", user.impersonate_user_extra.as_ref().is_some_and(|extra| !extra.is_empty())),
    ];
    for (field, given) in unsupported {
        if given {
            return Err(invalid(
                format!("the kubeconfig's user has {field:?}, which podway does not send"),
                "choose a user without it; podway impersonates by user and groups alone",
            ));
        }
    }
    let name = flags.as_user.as_ref().or(user.impersonate.as_ref()).filter(|name| !name.is_empty());
    let groups = if flags.as_user.is_some() || !flags.as_groups.is_empty() {
        flags.as_groups.clone()
    } else {
        user.impersonate_groups.clone().unwrap_or_default()
    };
    match name {
        Some(name) => Ok(Some(Impersonate { user: name.clone(), groups })),
        None if groups.is_empty() => Ok(None),
        None => Err(invalid("groups are impersonated only together with a user", "name the user with --as")),
    }
}

fn with_scheme(server: &str) -> String {
    // As kubectl: a bare host means plain HTTP there; a cluster of today is never that.
    if server.contains("://") { server.to_owned() } else { format!("https://{server}") }
}

fn proxy(around: &Surroundings, server: &str) -> Option<String> {
    let proxy = around.https_proxy.as_ref()?;
    let uri: http::Uri = server.parse().ok()?;
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    let exempt = around.no_proxy.as_deref().unwrap_or_default().split(',').map(str::trim);
    let address: Option<std::net::IpAddr> = host.parse().ok();
    for rule in exempt.filter(|rule| !rule.is_empty()) {
        let suffix = rule.trim_start_matches('.');
        let named = host == suffix || host.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'));
        let within = || rule.parse::<ipnet::IpNet>().ok().zip(address).is_some_and(|(net, ip)| net.contains(&ip));
        if rule == "*" || named || within() {
            return None;
        }
    }
    let loopback = host == "localhost" || address.is_some_and(|ip| ip.is_loopback());
    (!loopback).then(|| if proxy.contains("://") { proxy.clone() } else { format!("http://{proxy}") })
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn invalid(message: impl Into<String>, hint: impl Into<String>) -> UserError {
    UserError::new(Reason::KubeconfigInvalid, message, hint)
}

#[cfg(test)]
mod tests;
