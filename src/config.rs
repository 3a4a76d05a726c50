//! Settings: `/etc/podway/config.toml`, then a user's own file, then `PODWAY_*`, then flags.
//!
//! - [`Config`]: the daemon's. It reads the host's file alone. [`CommandConfig`]: the command's.
//! - [`layers`]: which of them counts, and where it comes from. `file`: what may stand in the files.
//!
//! Where PODWAY_CONFIG names a file, that one is read and no other.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Reason, UserError};
use crate::net::cidr::Cidr;
use crate::span;
use crate::spec::{AgentMode, DnsMode, parse_image};

pub(crate) mod file;
pub mod layers;

use file::{HostFile, Mtu, Silence, Source, TimeText, UserFile};
use layers::{Found, Key, Layers, Setting};

/// The host's file.
pub const HOST_FILE: &str = "/etc/podway/config.toml";
/// A user's file, within their configuration directory.
const USER_FILE: &str = "podway/config.toml";
/// The variable that names the only file to read.
pub const ONLY_FILE: &str = "PODWAY_CONFIG";

const SOCKET: Key = Key { name: "socket", variable: Some("PODWAY_SOCKET") };
const LOG: Key = Key { name: "log", variable: Some("PODWAY_LOG") };
const AGENT_IMAGE: Key = Key { name: "agent_image", variable: Some("PODWAY_AGENT_IMAGE") };
const MTU: Key = Key { name: "mtu", variable: Some("PODWAY_MTU") };
const VIRTUAL_SUBNET: Key = Key { name: "virtual_subnet", variable: Some("PODWAY_VIRTUAL_SUBNET") };
const UDP_IDLE: Key = Key { name: "udp_idle", variable: Some("PODWAY_UDP_IDLE") };
const INCLUDE_SUFFIXES: Key = Key { name: "dns.include_suffixes", variable: Some("PODWAY_DNS_INCLUDE_SUFFIXES") };
const CONNECT_AGENT: Key = Key { name: "connect.agent", variable: Some("PODWAY_CONNECT_AGENT") };
const CONNECT_AGENT_IMAGE: Key = Key { name: "connect.agent_image", variable: Some("PODWAY_CONNECT_AGENT_IMAGE") };
const CONNECT_DNS: Key = Key { name: "connect.dns", variable: Some("PODWAY_CONNECT_DNS") };
const CONNECT_TIMEOUT: Key = Key { name: "connect.timeout", variable: Some("PODWAY_CONNECT_TIMEOUT") };

/// What the daemon is told.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// How long a UDP association lives without a datagram.
    pub udp_idle: Duration,
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
            udp_idle: Duration::from_secs(60),
            include_suffixes: Vec::new(),
        }
    }
}

/// What the command is told, where its flags say nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandConfig {
    /// The control socket.
    pub socket: PathBuf,
    /// `--agent`.
    pub agent: AgentMode,
    /// `--agent-image`; empty is the daemon's.
    pub agent_image: String,
    /// `--dns`.
    pub dns: DnsMode,
    /// `--timeout`.
    pub timeout: Duration,
}

impl Default for CommandConfig {
    fn default() -> CommandConfig {
        CommandConfig {
            socket: crate::control_client::DEFAULT_SOCKET.into(),
            agent: AgentMode::Auto,
            agent_image: String::new(),
            dns: DnsMode::Auto,
            timeout: Duration::from_secs(30),
        }
    }
}

/// Why the configuration was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A file.
    #[error("{}{}: {message}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
    File {
        /// Its path.
        path: PathBuf,
        /// The line, where one is at fault.
        line: Option<usize>,
        /// What is wrong there.
        message: String,
        /// What may have been meant.
        meant: Option<String>,
    },
    /// A variable.
    #[error("{name}={text:?}: {why}")]
    Variable {
        /// Which.
        name: String,
        /// What it says.
        text: String,
        /// What is wrong with that.
        why: String,
    },
    /// A file that was named and is not there.
    #[error("{}: there is no such file", .0.display())]
    Missing(PathBuf),
    /// A file that is there, and closed.
    #[error("{}: {why}", path.display())]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

impl ConfigError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            ConfigError::File { meant: Some(meant), .. } => format!("did you mean {meant}?"),
            ConfigError::File { path, meant: None, .. } => {
                format!("mend {}; config/podway.toml of podway's sources shows every setting", path.display())
            }
            ConfigError::Variable { name, .. } => format!("unset {name}, or give it another value"),
            ConfigError::Missing(_) => "name one that is there, or none: the defaults do".to_owned(),
            ConfigError::Unreadable { path, .. } => format!("make {} readable to you", path.display()),
        }
    }
}

impl From<ConfigError> for UserError {
    fn from(error: ConfigError) -> UserError {
        UserError::new(Reason::ConfigInvalid, format!("configuration: {error}"), error.hint())
    }
}

/// Flags of podwayd.
#[derive(Clone, Debug, Default)]
pub struct DaemonFlags {
    /// `--socket`, or where another flag puts the socket, with that flag's name.
    pub socket: Option<(&'static str, PathBuf)>,
    /// `--log`.
    pub log: Option<String>,
}

/// Reads a variable of this process. What is not UTF-8 in it is shown as such, and refused or not found later.
pub fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

impl Config {
    /// Puts the daemon's settings together, and lists where each comes from.
    ///
    /// # Errors
    ///
    /// An unknown key, a value of the wrong kind, or a variable that cannot be read.
    pub fn of(
        host: Source<'_>,
        variable: &dyn Fn(&str) -> Option<String>,
        flags: DaemonFlags,
    ) -> Result<(Config, Vec<Setting>), ConfigError> {
        let file: HostFile = host.read()?;
        let (default, mut layers) = (Config::default(), Layers::new(variable));
        let texts = |text: &str| Ok(text.split(',').map(|part| part.trim().to_owned()).collect());
        let config = Config {
            socket: layers.pick(SOCKET, default.socket, [host.found(file.socket)], path, flags.socket)?,
            log: layers.pick(LOG, default.log, [host.found(file.log)], text, flags.log.map(|log| ("--log", log)))?,
            agent_image: layers.pick(
                AGENT_IMAGE,
                default.agent_image,
                [host.found(file.agent_image).map(Found::plain)],
                parse_image,
                None,
            )?,
            mtu: layers.pick(
                MTU,
                default.mtu,
                [host.found(file.mtu).map(|found| Found { value: found.value.0, from: found.from })],
                |text| number(text).and_then(Mtu::of).map(|mtu| mtu.0),
                None,
            )?,
            virtual_subnet: layers.pick(
                VIRTUAL_SUBNET,
                default.virtual_subnet,
                [host.found(file.virtual_subnet)],
                |text| text.parse().map_err(|_| "expected a CIDR".to_owned()),
                None,
            )?,
            udp_idle: layers
                .pick(
                    UDP_IDLE,
                    Typed(default.udp_idle),
                    [host.found(file.udp_idle).map(|found| Found { value: Typed(found.value.0), from: found.from })],
                    |text| Silence::parse(text).map(|silence| Typed(silence.0)),
                    None,
                )?
                .0,
            include_suffixes: layers.pick(
                INCLUDE_SUFFIXES,
                default.include_suffixes,
                [host.found(file.dns.include_suffixes)],
                texts,
                None,
            )?,
        };
        Ok((config, layers.listed()))
    }
}

impl CommandConfig {
    /// Puts the command's settings together, and lists where each comes from. Of the host's file it takes what it needs.
    ///
    /// # Errors
    ///
    /// An unknown key, a value of the wrong kind, or a variable that cannot be read.
    pub fn of(
        host: Source<'_>,
        user: Source<'_>,
        variable: &dyn Fn(&str) -> Option<String>,
        socket: Option<PathBuf>,
    ) -> Result<(CommandConfig, Vec<Setting>), ConfigError> {
        let (all, own): (HostFile, UserFile) = (host.read()?, user.read()?);
        let (default, mut layers) = (CommandConfig::default(), Layers::new(variable));
        let time = |found: Found<TimeText>| Found { value: Typed(found.value.0), from: found.from };
        let times = [host.found(all.connect.timeout).map(time), user.found(own.connect.timeout).map(time)];
        let config = CommandConfig {
            socket: layers.pick(
                SOCKET,
                default.socket,
                [host.found(all.socket), user.found(own.socket)],
                path,
                socket.map(|socket| ("--socket", socket)),
            )?,
            agent: layers.pick(
                CONNECT_AGENT,
                default.agent,
                [host.found(all.connect.agent), user.found(own.connect.agent)],
                |text| word(text, "expected auto, ephemeral or pod"),
                None,
            )?,
            agent_image: layers.pick(
                CONNECT_AGENT_IMAGE,
                default.agent_image,
                [host.found(all.connect.agent_image), user.found(own.connect.agent_image)]
                    .map(|found| found.map(Found::plain)),
                parse_image,
                None,
            )?,
            dns: layers.pick(
                CONNECT_DNS,
                default.dns,
                [host.found(all.connect.dns), user.found(own.connect.dns)],
                |text| word(text, "expected auto, resolved, file or off"),
                None,
            )?,
            timeout: layers
                .pick(CONNECT_TIMEOUT, Typed(default.timeout), times, |text| span::read(text).map(Typed), None)?
                .0,
        };
        Ok((config, layers.listed()))
    }
}

/// A time, listed as it is typed.
#[derive(Debug)]
struct Typed(Duration);

impl serde::Serialize for Typed {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&span::typed(self.0))
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as others that read a variable")]
fn path(text: &str) -> Result<PathBuf, String> {
    Ok(text.into())
}

#[expect(clippy::unnecessary_wraps, reason = "as others that read a variable")]
fn text(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

fn number(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("expected a number up to {}", u16::MAX))
}

fn word<T: serde::de::DeserializeOwned>(text: &str, expected: &str) -> Result<T, String> {
    serde_json::from_value(text.into()).map_err(|_| expected.to_owned())
}

/// What a file was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileState {
    /// Its settings count.
    Read,
    /// There is none.
    Absent,
    /// It is there, and this user may not read it.
    Closed,
}

/// A file that was looked for.
#[derive(Clone, Debug)]
pub struct Looked {
    /// Where.
    pub path: PathBuf,
    /// What is in it; nothing where it is not read.
    pub text: String,
    /// What it was found to be.
    pub state: FileState,
}

impl Looked {
    /// Reads a file. One that has to be there is an error when it is not.
    ///
    /// # Errors
    ///
    /// It is there and cannot be read.
    pub fn at(path: PathBuf, must: bool) -> Result<Looked, ConfigError> {
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Looked { path, text, state: FileState::Read }),
            Err(error) if !must && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Ok(Looked { path, text: String::new(), state: FileState::Absent })
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Err(ConfigError::Missing(path)),
            Err(error) => Err(ConfigError::Unreadable { path, why: error.to_string() }),
        }
    }

    /// As [`Looked::at`], but closed to this user is no error: what an administrator keeps closed is not for users.
    fn open_or_closed(path: PathBuf) -> Result<Looked, ConfigError> {
        match std::fs::metadata(&path).and_then(|_| std::fs::File::open(&path)) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                Ok(Looked { path, text: String::new(), state: FileState::Closed })
            }
            Ok(_) | Err(_) => Looked::at(path, false),
        }
    }

    /// For what reads it.
    pub fn source(&self) -> Source<'_> {
        Source { path: &self.path, text: &self.text }
    }
}

/// The files of the command: the host's, and the user's own.
///
/// # Errors
///
/// One is there and cannot be read.
pub fn command_files(variable: &dyn Fn(&str) -> Option<String>) -> Result<Vec<Looked>, ConfigError> {
    let said = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(only) = said(ONLY_FILE) {
        return Ok(vec![Looked::at(only, true)?]);
    }
    // A relative one is to be passed over (XDG base directory specification).
    let own = said("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
    let own = own.or_else(|| Some(said("HOME").filter(|home| home.is_absolute())?.join(".config")));
    let mut files = vec![Looked::open_or_closed(HOST_FILE.into())?];
    if let Some(own) = own {
        files.push(Looked::at(own.join(USER_FILE), false)?);
    }
    Ok(files)
}

/// The command's settings, from its files and variables.
///
/// # Errors
///
/// As [`CommandConfig::of`] and [`command_files`].
pub fn of_command(
    files: &[Looked],
    variable: &dyn Fn(&str) -> Option<String>,
    socket: Option<PathBuf>,
) -> Result<(CommandConfig, Vec<Setting>), ConfigError> {
    let nothing = Source { path: Path::new(""), text: "" };
    let [host, user] = [0, 1].map(|at| files.get(at).map_or(nothing, Looked::source));
    CommandConfig::of(host, user, variable, socket)
}

#[cfg(test)]
mod tests;
