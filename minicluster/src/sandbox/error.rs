//! Why there is no sandbox, and what would help.

use std::fmt;

use nix::errno::Errno;
use serde_json::{Value, json};

/// Why there is no sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SandboxError {
    /// The kernel does not give namespaces to this user.
    Forbidden {
        /// What was tried.
        step: String,
        /// Why not.
        cause: String,
        /// What would help.
        hint: String,
    },
    /// No TUN device can be opened.
    Tun {
        /// Why not.
        cause: String,
        /// What would help.
        hint: String,
    },
    /// Something else went wrong.
    Failed {
        /// What was tried.
        step: String,
        /// Why not.
        cause: String,
    },
}

impl SandboxError {
    /// What a user may do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            SandboxError::Forbidden { hint, .. } | SandboxError::Tun { hint, .. } => Some(hint),
            SandboxError::Failed { .. } => None,
        }
    }

    pub(super) fn failed(step: impl Into<String>, cause: impl fmt::Display) -> SandboxError {
        SandboxError::Failed { step: step.into(), cause: cause.to_string() }
    }

    pub(super) fn to_json(&self) -> Value {
        match self {
            SandboxError::Forbidden { step, cause, hint } => json!({"forbidden": step, "cause": cause, "hint": hint}),
            SandboxError::Tun { cause, hint } => json!({"tun": true, "cause": cause, "hint": hint}),
            SandboxError::Failed { step, cause } => json!({"failed": step, "cause": cause}),
        }
    }

    pub(super) fn from_json(value: &Value) -> SandboxError {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let (cause, hint) = (text("cause"), text("hint"));
        if value["forbidden"].is_string() {
            SandboxError::Forbidden { step: text("forbidden"), cause, hint }
        } else if value["tun"] == true {
            SandboxError::Tun { cause, hint }
        } else {
            SandboxError::Failed { step: text("failed"), cause }
        }
    }
}

impl fmt::Display for SandboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SandboxError::Forbidden { step, cause, .. } | SandboxError::Failed { step, cause } => {
                write!(f, "{step}: {cause}")
            }
            SandboxError::Tun { cause, .. } => write!(f, "/dev/net/tun: {cause}"),
        }
    }
}

impl std::error::Error for SandboxError {}

/// What the host says about namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// Whether the user is root.
    pub root: bool,
    /// `kernel.unprivileged_userns_clone` (Debian).
    pub userns_clone: Option<u32>,
    /// `kernel.apparmor_restrict_unprivileged_userns` (Ubuntu).
    pub apparmor: Option<u32>,
    /// `user.max_user_namespaces`.
    pub most: Option<u32>,
    /// Whether a seccomp filter is in force, as in containers.
    pub seccomp: bool,
    /// Whether this is a container, as far as one sees.
    pub container: bool,
}

impl Probe {
    /// Reads it.
    pub fn read() -> Probe {
        let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse().ok();
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Probe {
            root: nix::unistd::geteuid().is_root(),
            userns_clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
            apparmor: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            most: number("/proc/sys/user/max_user_namespaces"),
            seccomp: status.lines().any(|line| line.starts_with("Seccomp:") && line.ends_with('2')),
            container: ["/.dockerenv", "/run/.containerenv"].iter().any(|path| std::path::Path::new(path).exists()),
        }
    }

    /// Says why `step` was refused.
    pub fn explain(&self, step: &str, errno: Errno) -> SandboxError {
        let sysctl =
            |cause: &str, setting: &str| (cause.to_owned(), format!("sudo sysctl -w {setting}, or run it as root"));
        let (cause, hint) = if self.most == Some(0) {
            sysctl(
                "the host allows no user namespaces (user.max_user_namespaces is 0)",
                "user.max_user_namespaces=10000",
            )
        } else if !self.root && self.userns_clone == Some(0) {
            sysctl(
                "the host keeps user namespaces for root (kernel.unprivileged_userns_clone is 0)",
                "kernel.unprivileged_userns_clone=1",
            )
        } else if !self.root && self.apparmor == Some(1) {
            sysctl(
                "AppArmor takes the rights of user namespaces away (kernel.apparmor_restrict_unprivileged_userns is 1)",
                "kernel.apparmor_restrict_unprivileged_userns=0",
            )
        } else if self.container || self.seccomp {
            (
                format!("{errno}; the container or its seccomp filter forbids namespaces"),
                "run it outside of the container, or start the container with --privileged".to_owned(),
            )
        } else {
            (errno.to_string(), "run it as root, on a kernel with user, network, mount and PID namespaces".to_owned())
        };
        SandboxError::Forbidden { step: step.to_owned(), cause, hint }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_names_its_cause_and_what_helps() {
        let user = Probe { most: Some(1000), ..Probe::default() };
        for (probe, cause, hint) in [
            (Probe { most: Some(0), ..user.clone() }, "max_user_namespaces is 0", "user.max_user_namespaces=10000"),
            (Probe { userns_clone: Some(0), ..user.clone() }, "userns_clone is 0", "unprivileged_userns_clone=1"),
            (Probe { apparmor: Some(1), ..user.clone() }, "AppArmor", "restrict_unprivileged_userns=0"),
            (Probe { seccomp: true, ..user.clone() }, "seccomp", "--privileged"),
            (Probe { root: true, container: true, userns_clone: Some(0), ..user.clone() }, "container", "--privileged"),
            (user, "EPERM", "as root"),
        ] {
            let error = probe.explain("user namespace", Errno::EPERM);
            assert!(error.to_string().contains(cause), "{error}");
            assert!(error.hint().unwrap().contains(hint), "{error:?}");
            assert_eq!(SandboxError::from_json(&error.to_json()), error);
        }
    }
}
