//! How many more files this process may open. A daemon without any says that other things are missing: names, IPv6, the API
//! server.

use std::fs;

use crate::error::{Reason, UserError};

/// What a connection opens at most while it is made, and then some: its device, netlink, watches, links.
const NEEDED: usize = 32;

/// Why there is no room for another connection; `None` where there is, or where the host does not tell.
pub fn too_few() -> Option<UserError> {
    let most = limit(&fs::read_to_string("/proc/self/limits").ok()?)?;
    refusal(most, fs::read_dir("/proc/self/fd").ok()?.count())
}

fn refusal(most: usize, open: usize) -> Option<UserError> {
    (most.saturating_sub(open) < NEEDED).then(|| {
        let message =
            format!("connect: podwayd may open {most} files, and a connection needs {NEEDED} more than it has");
        let hint = "raise its limit: LimitNOFILE= by systemctl edit podwayd, or ulimit -n before sudo podwayd";
        UserError::new(Reason::LimitReached, message, hint)
    })
}

/// The soft limit of open files (proc_pid_limits(5)).
fn limit(text: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_read_and_a_connection_has_to_fit() {
        let text = "Limit    Soft Limit  Hard Limit  Units\nMax open files            1024                 4096                 files\n";
        assert_eq!(limit(text), Some(1024));
        assert_eq!(limit("Max open files            unlimited            unlimited            files"), None);
        assert_eq!(refusal(1024, 20), None);
        assert!(refusal(24, 20).expect("refused").message.contains("24 files"));
        assert_eq!(too_few(), None, "whoever runs tests has room");
    }
}
