//! The host's side of DNS: by what its resolver is made to ask us, applied, verified and undone.

use std::fmt;
use std::net::IpAddr;

pub mod forward;
pub mod host;
pub mod resolv_conf;
pub mod systemd_resolved;
pub mod tlds;

/// Domains set on a link at most: resolved takes 255, older versions fewer.
pub const MAX_DOMAINS: usize = 64;

/// By what the host's names come to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backend {
    /// Per-link settings of systemd-resolved.
    Resolved,
    /// `/etc/resolv.conf`.
    File,
    /// The connection that edits `/etc/resolv.conf`, which passes on to us what it has no answer for.
    Beside,
    /// Nothing on the host is changed.
    Off,
}

/// What there is to say of [`Backend::File`] when it works.
pub const REPLACED: &str =
    "resolv.conf is replaced while connected; it comes back at disconnect, or by: podwayd cleanup";

/// What there is to say of [`Backend::Beside`].
pub const BESIDE: &str = "another connection edits resolv.conf; a name that both clusters have means that one's";

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::Resolved => "systemd-resolved",
            Backend::File => "/etc/resolv.conf",
            Backend::Beside => "another connection",
            Backend::Off => "off",
        })
    }
}

/// What the resolver shall know of our device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkPlan {
    /// Interface index of the device.
    pub ifindex: u32,
    /// Its name.
    pub interface: String,
    /// Where DNS is asked.
    pub servers: Vec<IpAddr>,
    /// Domains in which single labels are looked for.
    pub search: Vec<String>,
    /// Domains whose names are asked here and nowhere else.
    pub routing: Vec<String>,
}

/// The resolver asks us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// By what.
    pub backend: Backend,
    /// Whether settings of ours had been overwritten.
    pub repaired: bool,
    /// A hint for the user, or empty.
    pub message: String,
    /// Domains of the workstation's own, whose names its own servers know; `None` where they could not be read.
    pub domains: Option<Vec<String>>,
}

/// The resolver does not ask us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachFailed {
    /// Why, with what to do.
    pub message: String,
    /// What there is to hope for.
    pub outlook: Outlook,
    /// Whether names of the host may come to us all the same, by a file that was made to before.
    pub file: bool,
}

/// What there is to hope for where the resolver does not ask us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outlook {
    /// Another try may do.
    #[default]
    Open,
    /// Another connection has what is needed; once it gives that up, a later try takes it.
    Taken,
    /// Something else keeps overwriting our settings; once it stops, a later try sees them stay.
    Overwritten,
    /// Somebody edited our settings so that we are not asked; that is left to them.
    Edited,
    /// As this host is, nothing on it can be made to ask us, or not as the user wants it.
    Hopeless,
}
