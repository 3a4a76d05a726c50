//! The daemon's configuration: a file, then `PODWAY_*`, then flags (the caller's part).

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::net::cidr::Cidr;

/// What the daemon is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The control socket.
    pub socket: PathBuf,
    /// Log filter, as tracing-subscriber's EnvFilter reads it.
    pub log: String,
    /// Image of the traffic agent.
    pub agent_image: String,
    /// MTU of the device, in bytes.
    pub mtu: u16,
    /// Where virtual IPv4 addresses come from.
    pub virtual_subnet: Cidr,
    /// Names.
    pub dns: DnsConfig,
}

/// Names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DnsConfig {
    /// Domains to route to the cluster's DNS besides its own.
    pub include_suffixes: Vec<String>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            socket: crate::control_client::DEFAULT_SOCKET.into(),
            log: "info,kube_client=error,netlink_proto=error".into(),
            agent_image: concat!("podway-agent:", env!("CARGO_PKG_VERSION")).into(),
            mtu: 65_520,
            virtual_subnet: Cidr::V4(ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(246, 246, 0, 0), 16)),
            dns: DnsConfig::default(),
        }
    }
}

/// Why the configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file.
    #[error("{}{}: {}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default(), cause.message())]
    File {
        /// Its path.
        path: PathBuf,
        /// The line, where one is at fault.
        line: Option<usize>,
        /// What is wrong there.
        cause: Box<toml::de::Error>,
    },
    /// A variable.
    #[error("{0}={1:?} cannot be read")]
    Variable(&'static str, String),
}

impl Config {
    /// Reads the text of the configuration file at `path` and the variables that override it.
    ///
    /// # Errors
    ///
    /// An unknown key, a value of the wrong type, or a variable that cannot be read.
    pub fn read(path: &Path, text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
        let mut config: Config = toml::from_str(text).map_err(|cause| ConfigError::File {
            path: path.to_owned(),
            line: cause.span().and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count() + 1),
            cause: Box::new(cause),
        })?;
        if let Some(socket) = variable("PODWAY_SOCKET") {
            config.socket = socket.into();
        }
        if let Some(log) = variable("PODWAY_LOG") {
            config.log = log;
        }
        if let Some(image) = variable("PODWAY_AGENT_IMAGE") {
            config.agent_image = image;
        }
        if let Some(mtu) = variable("PODWAY_MTU") {
            config.mtu = mtu.parse().map_err(|_| ConfigError::Variable("PODWAY_MTU", mtu))?;
        }
        if let Some(subnet) = variable("PODWAY_VIRTUAL_SUBNET") {
            config.virtual_subnet =
                subnet.parse().map_err(|_| ConfigError::Variable("PODWAY_VIRTUAL_SUBNET", subnet))?;
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_holds_the_defaults() {
        let shipped = include_str!("../config/podway.toml");
        assert_eq!(Config::read(Path::new("x"), shipped, |_| None).expect("read"), Config::default());
    }

    #[test]
    fn variables_override_the_file_and_unknown_keys_are_refused() {
        let variable = |name: &str| (name == "PODWAY_MTU").then(|| "1400".to_owned());
        assert_eq!(Config::read(Path::new("x"), "mtu = 9000", variable).expect("read").mtu, 1400);
        assert!(Config::read(Path::new("x"), "mtus = 1", |_| None).is_err());
        assert!(Config::read(Path::new("x"), "", |_| Some("x".to_owned())).is_err());
    }

    #[test]
    fn what_is_wrong_is_said_with_file_and_line() {
        for (text, said) in [
            ("mtu = 9000\nmtus = 1\n", "/etc/x.toml:2: unknown field `mtus`"),
            ("# a comment\n\nmtu = \"big\"\n", "/etc/x.toml:3: invalid type: string \"big\""),
            ("mtu = 9000\n[dns\n", "/etc/x.toml:2: "),
            ("[dns]\ninclude_suffixes = 1\n", "/etc/x.toml:2: invalid type"),
        ] {
            let error = Config::read(Path::new("/etc/x.toml"), text, |_| None).expect_err("refused").to_string();
            assert!(error.starts_with(said), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
