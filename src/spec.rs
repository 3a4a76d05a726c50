//! What one connection was asked to be: the checked form of `podway connect`'s flags, and the access to the cluster.
//!
//! Both cross the control socket. Nothing in them names a file or a command: the caller has resolved those.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Reason, UserError};
use crate::net::cidr::Cidr;
use crate::workload::WorkloadRef;

/// A range by its addresses, or by what it stands for in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RangeSelector {
    /// These addresses.
    Cidr(Cidr),
    /// The ranges given with `--also-proxy`.
    Also,
    /// The cluster's service ranges.
    Service,
    /// The cluster's pod ranges.
    Pods,
    /// `also`, `pods` and `service` together.
    All,
}

/// Why a range's text was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a CIDR, also, service, pods or all")]
pub struct RangeError(pub String);

impl FromStr for RangeSelector {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<RangeSelector, RangeError> {
        Ok(match text {
            "also" => RangeSelector::Also,
            "service" | "services" => RangeSelector::Service,
            "pods" | "pod" => RangeSelector::Pods,
            "all" => RangeSelector::All,
            _ => RangeSelector::Cidr(parse_cidr(text).ok_or_else(|| RangeError(text.to_owned()))?),
        })
    }
}

/// Reads a CIDR or a bare address (a /32 or /128), masked.
pub fn parse_cidr(text: &str) -> Option<Cidr> {
    let cidr: Cidr = match text.parse::<IpAddr>() {
        Ok(address) => Cidr::from(address),
        Err(_) => text.parse().ok()?,
    };
    Some(cidr.trunc())
}

/// The characters of a reference to an image (OCI distribution specification); whether there is one, the node finds out.
///
/// # Errors
///
/// A sentence.
pub fn parse_image(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    match text.chars().all(fits) && text.len() <= 512 {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is no name of an image, such as registry.example/podway-agent:0.1.0")),
    }
}

/// Most bytes in the name of a connection; names of contexts are known to have a hundred.
const NAME_LONGEST: usize = 253;

/// What a name of a connection must not be, whoever chose it.
fn check_name(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("the name of a connection is empty".to_owned());
    }
    if text.len() > NAME_LONGEST {
        return Err(format!("the name of a connection has {} bytes, of {NAME_LONGEST} at most", text.len()));
    }
    match text.chars().any(char::is_control) {
        true => Err(format!("{text:?} has a character that no terminal shows")),
        false => Ok(()),
    }
}

/// The name of a connection as a user types it: one word of a command line.
///
/// # Errors
///
/// A sentence.
pub fn parse_name(text: &str) -> Result<String, String> {
    check_name(text)?;
    let first = text.starts_with('-').then_some('-');
    match first.or_else(|| text.chars().find(|c| *c == '/' || c.is_whitespace())) {
        Some('-') => Err(format!("{text:?} begins with -, as a flag does")),
        Some('/') => Err(format!("{text:?} has a slash, as names of workloads have")),
        Some(_) => Err(format!("{text:?} has a space")),
        None => Ok(text.to_owned()),
    }
}

impl fmt::Display for RangeSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RangeSelector::Cidr(cidr) => cidr.fmt(f),
            RangeSelector::Also => f.write_str("also"),
            RangeSelector::Service => f.write_str("service"),
            RangeSelector::Pods => f.write_str("pods"),
            RangeSelector::All => f.write_str("all"),
        }
    }
}

/// One `--proxy-via RANGE=WORKLOAD`; `W` is the user's text, or the workload it was resolved to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ViaRule<W = WorkloadRef> {
    /// Which destinations.
    pub range: RangeSelector,
    /// Through whose pods.
    pub workload: W,
}

/// Why a `--proxy-via` was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ViaRuleError {
    /// There is no `=`.
    #[error("{0:?} is not in the form RANGE=WORKLOAD, such as service=web")]
    Shape(String),
    /// The part before the `=`.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// The part after it.
    #[error(transparent)]
    Workload(#[from] crate::workload::WorkloadRefError),
    /// A range that is never sent anywhere.
    #[error("{0} cannot be translated: a default or multicast range would take every connection")]
    Refused(Cidr),
}

impl FromStr for ViaRule {
    type Err = ViaRuleError;

    fn from_str(text: &str) -> Result<ViaRule, ViaRuleError> {
        let (range, workload) = text.split_once('=').ok_or_else(|| ViaRuleError::Shape(text.to_owned()))?;
        let range: RangeSelector = range.parse()?;
        if let RangeSelector::Cidr(cidr) = range
            && (cidr.prefix_len() == 0 || cidr.addr().is_multicast())
        {
            return Err(ViaRuleError::Refused(cidr));
        }
        Ok(ViaRule { range, workload: workload.parse()? })
    }
}

impl<W: fmt::Display> fmt::Display for ViaRule<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.range, self.workload)
    }
}

macro_rules! serde_as_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
serde_as_text!(RangeSelector, ViaRule);

/// Which placement of the traffic agent is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentMode {
    /// Ephemeral containers for via workloads, our own pod for the rest, as far as the rights go.
    #[default]
    Auto,
    /// Ephemeral containers only.
    Ephemeral,
    /// Our own pod only; `--proxy-via` is then refused.
    Pod,
}

/// How the host's resolver is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DnsMode {
    /// systemd-resolved where the host uses it, else the file, else off.
    #[default]
    Auto,
    /// systemd-resolved, or fail.
    Resolved,
    /// /etc/resolv.conf, or fail.
    File,
    /// Names are answered on the device, nothing on the host is changed.
    Off,
}

/// One connection as asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectSpec {
    /// The connection's name, unique on this host.
    pub name: String,
    /// Name of the kubeconfig context, for display only.
    #[serde(default)]
    pub context: String,
    /// The connected namespace, whose names resolve by a single label.
    pub namespace: String,
    /// `--proxy-via`, in the order given.
    #[serde(default)]
    pub proxy_via: Vec<ViaRule>,
    /// `--also-proxy`.
    #[serde(default)]
    pub also_proxy: Vec<Cidr>,
    /// `--never-proxy`.
    #[serde(default)]
    pub never_proxy: Vec<Cidr>,
    /// `--vnat`: translated to virtual addresses, no workload pinned.
    #[serde(default)]
    pub vnat: Vec<RangeSelector>,
    /// `--allow-conflicting-subnets`.
    #[serde(default)]
    pub allow_conflicting_subnets: Vec<Cidr>,
    /// `--agent`.
    #[serde(default)]
    pub agent: AgentMode,
    /// `--agent-image`; empty means the configured one.
    #[serde(default)]
    pub agent_image: String,
    /// `--dns`.
    #[serde(default)]
    pub dns: DnsMode,
    /// How long `connect` waits for workloads that are starting, in milliseconds.
    pub timeout_ms: u64,
}

impl ConnectSpec {
    /// Refuses what no connection can be called; the name of a context may be the name of one, and has slashes.
    ///
    /// # Errors
    ///
    /// What is wrong with the name.
    pub fn check(&self) -> Result<(), UserError> {
        check_name(&self.name).map_err(|why| {
            UserError::new(
                Reason::BadRequest,
                format!("connect: {why}"),
                "name the connection with --name, such as --name shop",
            )
        })
    }
}

/// How to reach and convince the API server: everything the caller's kubeconfig came to, by value.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ClusterAccess {
    /// URL of the API server.
    pub server: String,
    /// Name to expect in its certificate, when not the URL's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_server_name: Option<String>,
    /// PEM certificates to trust; the system's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_authority_data: Option<String>,
    /// Whether the server's certificate goes unchecked.
    #[serde(default)]
    pub insecure_skip_tls_verify: bool,
    /// HTTP or SOCKS5 proxy to the API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_url: Option<String>,
    /// Who to act as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub impersonate: Option<Impersonate>,
    /// The credential.
    #[serde(default)]
    pub credential: Credential,
    /// When the credential ends, in seconds since 1970, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
}

/// Impersonation headers (Kubernetes API, user impersonation).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Impersonate {
    /// User.
    pub user: String,
    /// Groups.
    #[serde(default)]
    pub groups: Vec<String>,
}

/// One of the credentials that an API server takes.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Credential {
    /// None.
    #[default]
    None,
    /// A bearer token.
    Token(String),
    /// User and password.
    Basic {
        /// User.
        username: String,
        /// Password.
        password: String,
    },
    /// A client certificate, both parts in PEM.
    ClientCertificate {
        /// Certificate chain.
        certificate: String,
        /// Private key.
        key: String,
    },
}

// Neither type prints a secret, whoever logs it.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credential::None => "None",
            Credential::Token(_) => "Token(…)",
            Credential::Basic { .. } => "Basic(…)",
            Credential::ClientCertificate { .. } => "ClientCertificate(…)",
        })
    }
}

impl ClusterAccess {
    /// The server's URL for people and logs: a password in it is nobody's to read.
    pub fn shown_server(&self) -> String {
        without_userinfo(&self.server)
    }
}

/// A URL without the user name and the password in it.
pub fn without_userinfo(url: &str) -> String {
    let (scheme, rest) = url.split_at(url.find("://").map_or(0, |at| at + 3));
    let whole = (rest, "");
    let (authority, path) = rest.find(['/', '?', '#']).map_or(whole, |end| rest.split_at(end));
    // What is neither a host nor ends with one may be a password with such a character in it.
    let port = authority.rsplit_once(':').map_or("", |(_, port)| port);
    let ends = authority.contains('@') || authority.ends_with(']') || port.bytes().all(|byte| byte.is_ascii_digit());
    let (authority, path) = if ends { (authority, path) } else { whole };
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}{host}{path}")
}

#[cfg(test)]
impl ClusterAccess {
    /// Only where the server is: no credential, nothing else said.
    pub fn bare(server: &str) -> ClusterAccess {
        ClusterAccess {
            server: server.to_owned(),
            tls_server_name: None,
            certificate_authority_data: None,
            insecure_skip_tls_verify: false,
            proxy_url: None,
            impersonate: None,
            credential: Credential::None,
            expires_at: None,
        }
    }
}

impl fmt::Debug for ClusterAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterAccess")
            .field("server", &self.shown_server())
            .field("credential", &self.credential)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_the_url_of_the_server_is_not_shown() {
        for (url, shown) in [
            ("https://h:6443", "https://h:6443"),
            ("https://me:p%40w@h:6443/k8s/c@1?x=a@b", "https://h:6443/k8s/c@1?x=a@b"),
            ("https://me:pw@[2001:db8::1]:6443", "https://[2001:db8::1]:6443"),
            ("https://me:p/w@h", "https://h"),
            ("me:pw@h", "h"),
            ("no URL", "no URL"),
        ] {
            assert_eq!(ClusterAccess::bare(url).shown_server(), shown);
            assert!(format!("{:?}", ClusterAccess::bare(url)).contains(&format!("{shown:?}")));
        }
    }

    #[test]
    fn a_rule_reads_and_prints() {
        for (text, printed) in [
            ("service=web", "service=web"),
            ("10.1.2.3/16=deploy/web", "10.1.0.0/16=deployment/web"),
            ("10.1.2.3=other/sts/store", "10.1.2.3/32=other/statefulset/store"),
            ("fd00::/64=web", "fd00::/64=web"),
        ] {
            assert_eq!(text.parse::<ViaRule>().expect(text).to_string(), printed);
        }
    }

    #[test]
    fn bad_rules_are_refused() {
        for bad in ["10.42.0.0/16", "10.1.2.3/99=web", "=web", "service=", "0.0.0.0/0=web", "224.0.0.0/4=web", "x=web"]
        {
            assert!(bad.parse::<ViaRule>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_name_is_a_word_that_can_be_typed_and_seen() {
        for good in ["shop", "kind-2", "käse", "user@cluster.example:6443", &"x".repeat(253)] {
            assert_eq!(parse_name(good), Ok(good.to_owned()));
        }
        for bad in ["", "a/b", "a b", " ", "a\nb", "a\u{1b}[2J", "-q", &"x".repeat(254)] {
            let said = parse_name(bad).expect_err(bad);
            assert!(!said.contains('\u{1b}') && !said.contains('\n'), "{said:?}");
        }
        let named = |name: &str| {
            let spec = serde_json::json!({ "name": name, "namespace": "demo", "timeout_ms": 1 });
            serde_json::from_value::<ConnectSpec>(spec).expect("a spec").check()
        };
        assert_eq!(named("arn:aws:eks:eu-central-1:123456789012:cluster/shop"), Ok(()), "as contexts are called");
        for bad in ["", "a\nb", &"x".repeat(254)] {
            assert!(named(bad).expect_err(bad).hint.contains("--name"), "{bad:?}");
        }
    }

    #[test]
    fn no_secret_is_printed() {
        let access = ClusterAccess {
            server: "https://h".into(),
            tls_server_name: None,
            certificate_authority_data: None,
            insecure_skip_tls_verify: false,
            proxy_url: None,
            impersonate: None,
            credential: Credential::Token("canary".into()),
            expires_at: None,
        };
        assert!(!format!("{access:?}").contains("canary"));
    }
}
