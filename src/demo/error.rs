//! Why the demo cannot be shown, in two lines.

use podway_minicluster::sandbox::SandboxError;

use crate::error::{Reason, UserError, one_line};

/// Why the demo ended before everything was seen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DemoError {
    /// There is no sandbox.
    #[error("{0}")]
    Sandbox(#[from] SandboxError),
    /// A step did not succeed.
    #[error("{step}: {cause}")]
    Step {
        /// Which.
        step: &'static str,
        /// Why not.
        cause: String,
    },
    /// A step took too long.
    #[error("{step}: not done within {seconds} s")]
    TooSlow {
        /// Which.
        step: &'static str,
        /// The limit.
        seconds: u64,
    },
    /// All went well, but what was seen is not what podway promises.
    #[error("{step}: {seen}")]
    NotShown {
        /// Which step showed it.
        step: &'static str,
        /// What was seen instead.
        seen: String,
    },
    /// A signal ended it; the number.
    #[error("interrupted")]
    Interrupted(u8),
}

const AGAIN: &str = "run it again; if it stays, please report it with the output of `podway version`";
const BUSY: &str = "the machine is busy or short of memory: run it again when it is not";

impl DemoError {
    /// A step that failed.
    pub fn step(step: &'static str, cause: impl ToString) -> DemoError {
        DemoError::Step { step, cause: cause.to_string() }
    }

    /// What to do about it.
    fn hint(&self) -> &str {
        match self {
            DemoError::Sandbox(error) => error.hint().unwrap_or(match error.to_string().contains("no answer within") {
                true => BUSY,
                false => AGAIN,
            }),
            DemoError::TooSlow { .. } => BUSY,
            DemoError::Step { .. } | DemoError::NotShown { .. } => AGAIN,
            DemoError::Interrupted(_) => "",
        }
    }
}

impl From<DemoError> for UserError {
    fn from(error: DemoError) -> UserError {
        // Causes come from other programs: whatever they say stays in its line.
        UserError::new(Reason::DemoFailed, format!("demo: {}", one_line(&error.to_string())), error.hint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_is_one_line_with_one_hint() {
        let forbidden = SandboxError::Forbidden {
            step: "user namespace".to_owned(),
            cause: "the host keeps user namespaces for root (kernel.unprivileged_userns_clone is 0)".to_owned(),
            hint: "sudo sysctl -w kernel.unprivileged_userns_clone=1, or run it as root".to_owned(),
        };
        let tun = SandboxError::Tun {
            cause: "Permission denied (os error 13)".to_owned(),
            hint: "sudo chmod 0666 /dev/net/tun, as distributions ship it".to_owned(),
        };
        let slow = SandboxError::Failed { step: "the cluster".to_owned(), cause: "no answer within 30s".to_owned() };
        let errors = [
            forbidden.into(),
            tun.into(),
            slow.into(),
            DemoError::TooSlow { step: "connect", seconds: 40 },
            DemoError::step("daemon", "error: podwayd: no device\nhint: none\n"),
            DemoError::NotShown { step: "request", seen: "no pod has the address 10.42.0.9".to_owned() },
        ];
        let text: String = errors
            .map(UserError::from)
            .iter()
            .map(|error| format!("error: {}\nhint: {}\n", error.message, error.hint))
            .collect();
        assert_eq!(text.lines().count(), 2 * 6, "{text}");
        insta::assert_snapshot!(text);
    }
}
