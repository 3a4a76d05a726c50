//! Configuration files: what may stand in them, and where what stands there is wrong.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;

use super::ConfigError;
use super::layers::{Found, Origin};
use crate::near::near;
use crate::net::cidr::Cidr;
use crate::span;
use crate::spec::{AgentMode, DnsMode, parse_image};

/// Less would end associations between a question and its answer.
const LEAST_MTU: u16 = 1280;
const LEAST_SILENCE: Duration = Duration::from_secs(1);
/// More would let those that nobody uses take the places of others.
const MOST_SILENCE: Duration = Duration::from_secs(3600);

/// The host's file, `/etc/podway/config.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostFile {
    pub socket: Option<Spanned<PathBuf>>,
    pub log: Option<Spanned<String>>,
    pub agent_image: Option<Spanned<Image>>,
    pub mtu: Option<Spanned<Mtu>>,
    pub virtual_subnet: Option<Spanned<Cidr>>,
    pub udp_idle: Option<Spanned<Silence>>,
    pub dns: DnsTable,
    pub connect: ConnectTable,
}

/// A user's own file: only what the command reads.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UserFile {
    pub socket: Option<Spanned<PathBuf>>,
    pub connect: ConnectTable,
}

/// Names.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DnsTable {
    pub include_suffixes: Option<Spanned<Vec<String>>>,
}

/// What `podway connect` asks for where no flag says so.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectTable {
    pub agent: Option<Spanned<AgentMode>>,
    pub agent_image: Option<Spanned<Image>>,
    pub dns: Option<Spanned<DnsMode>>,
    pub timeout: Option<Spanned<TimeText>>,
}

/// A time as it is typed, such as `30s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeText(pub Duration);

impl<'de> Deserialize<'de> for TimeText {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<TimeText, D::Error> {
        let text = String::deserialize(from)?;
        span::read(&text).map(TimeText).map_err(serde::de::Error::custom)
    }
}

/// The device's MTU, in bytes: at least what IPv6 asks of every link (RFC 8200, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mtu(pub u16);

impl Mtu {
    /// # Errors
    ///
    /// A sentence that says what was expected.
    pub fn of(bytes: u16) -> Result<Mtu, String> {
        if bytes < LEAST_MTU {
            return Err(format!("{bytes} is not a number from {LEAST_MTU} to {}", u16::MAX));
        }
        Ok(Mtu(bytes))
    }
}

impl<'de> Deserialize<'de> for Mtu {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Mtu, D::Error> {
        Mtu::of(u16::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

/// How long a UDP association may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence(pub Duration);

impl Silence {
    /// Reads a time within what agents keep one for.
    ///
    /// # Errors
    ///
    /// A sentence that says what was expected.
    pub fn parse(text: &str) -> Result<Silence, String> {
        let silence = span::read(text)?;
        if silence < LEAST_SILENCE || silence > MOST_SILENCE {
            return Err(format!("{text:?} is not a time from 1s to 1h"));
        }
        Ok(Silence(silence))
    }
}

impl<'de> Deserialize<'de> for Silence {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Silence, D::Error> {
        Silence::parse(&String::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

/// A name of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image(String);

impl<'de> Deserialize<'de> for Image {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Image, D::Error> {
        let text = String::deserialize(from)?;
        parse_image(&text).map(Image).map_err(serde::de::Error::custom)
    }
}

impl Found<Image> {
    /// The name alone.
    pub fn plain(self) -> Found<String> {
        Found { value: self.value.0, from: self.from }
    }
}

/// A file's text, to find lines in.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Where it is.
    pub path: &'a Path,
    /// What is in it.
    pub text: &'a str,
}

impl Source<'_> {
    /// Reads all of it.
    ///
    /// # Errors
    ///
    /// An unknown key or a value of the wrong kind, with its line.
    pub fn read<T: DeserializeOwned>(self) -> Result<T, ConfigError> {
        toml::from_str(self.text).map_err(|cause| {
            let line = cause.span().map(|span| self.line(span.start));
            let (message, meant) = told(cause.message());
            ConfigError::File { path: self.path.to_owned(), line, message, meant }
        })
    }

    /// A value with its place.
    pub fn found<T>(self, spanned: Option<Spanned<T>>) -> Option<Found<T>> {
        let spanned = spanned?;
        let from = Origin::File { path: self.path.to_owned(), line: self.line(spanned.span().start) };
        Some(Found { value: spanned.into_inner(), from })
    }

    fn line(self, at: usize) -> usize {
        self.text.get(..at).map_or(1, |before| before.matches('\n').count() + 1)
    }
}

/// What serde says of a key or a word that it does not know, and which one was meant.
fn told(message: &str) -> (String, Option<String>) {
    let message = message.replace("unknown field", "unknown key").replace("unknown variant", "unknown value");
    let mut quoted = message.split('`').skip(1).step_by(2);
    let meant = message.starts_with("unknown ").then(|| {
        let wrong = quoted.next().unwrap_or_default();
        near(wrong, quoted.map(|known| (known.to_owned(), known.to_owned()))).into_iter().next()
    });
    (crate::error::one_line(&message), meant.flatten())
}
