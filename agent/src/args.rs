//! The command line. Few enough flags that a parser of our own is smaller than any other.

use std::net::SocketAddr;
use std::time::Duration;

/// How the agent is used.
pub const USAGE: &str = "usage: podway-agent serve --listen 127.0.0.1:PORT --authorized-key BASE64 \
[--pod-uid UID] [--idle-exit 8h] [--resolv-conf PATH]";

/// What `serve` was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serve {
    /// Where to listen; loopback only.
    pub listen: SocketAddr,
    /// The Ed25519 public key that may use this agent.
    pub authorized_key: [u8; 32],
    /// UID of the pod, for the challenge.
    pub pod_uid: String,
    /// The agent ends after this long without an authenticated client.
    pub idle_exit: Duration,
    /// Where the pod's resolver is configured.
    pub resolv_conf: String,
}

/// What was wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// Not `serve`.
    #[error("{USAGE}")]
    Usage,
    /// A flag that does not exist.
    #[error("{0}: no such flag")]
    Unknown(String),
    /// A flag without its value, or with a bad one.
    #[error("{flag}: {why}")]
    Value {
        /// The flag.
        flag: &'static str,
        /// What is wrong.
        why: &'static str,
    },
}

/// Reads the arguments after the program's name. `pod_uid` is that of the environment (`PODWAY_POD_UID`).
pub fn parse(args: impl IntoIterator<Item = String>, pod_uid: Option<String>) -> Result<Serve, ArgsError> {
    let mut args = args.into_iter();
    if args.next().as_deref() != Some("serve") {
        return Err(ArgsError::Usage);
    }
    let (mut listen, mut key, mut uid) = (None, None, pod_uid);
    let mut idle_exit = Duration::from_secs(8 * 3600);
    let mut resolv_conf = "/etc/resolv.conf".to_owned();
    while let Some(flag) = args.next() {
        let value = args.next();
        let missing = |flag| ArgsError::Value { flag, why: "needs a value" };
        match flag.as_str() {
            "--listen" => {
                let bad = ArgsError::Value { flag: "--listen", why: "is not a loopback address and port" };
                let address: SocketAddr = value.ok_or(missing("--listen"))?.parse().map_err(|_| bad.clone())?;
                listen = Some(address).filter(|address| address.ip().is_loopback());
                if listen.is_none() {
                    return Err(bad);
                }
            }
            "--authorized-key" => {
                let bad = ArgsError::Value { flag: "--authorized-key", why: "is not an Ed25519 public key in base64" };
                let text = value.ok_or(missing("--authorized-key"))?;
                key = Some(podway_tunnel::decode_key(&text).ok_or(bad)?);
            }
            "--pod-uid" => uid = Some(value.ok_or(missing("--pod-uid"))?),
            "--idle-exit" => {
                let bad = ArgsError::Value { flag: "--idle-exit", why: "is not a number with s, m or h" };
                idle_exit = duration(&value.ok_or(missing("--idle-exit"))?).ok_or(bad)?;
            }
            "--resolv-conf" => resolv_conf = value.ok_or(missing("--resolv-conf"))?,
            _ => return Err(ArgsError::Unknown(flag)),
        }
    }
    Ok(Serve {
        listen: listen.ok_or(ArgsError::Value { flag: "--listen", why: "is needed" })?,
        authorized_key: key.ok_or(ArgsError::Value { flag: "--authorized-key", why: "is needed" })?,
        pod_uid: uid.ok_or(ArgsError::Value { flag: "--pod-uid", why: "is needed, or PODWAY_POD_UID" })?,
        idle_exit,
        resolv_conf,
    })
}

fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    Some(Duration::from_secs(number.parse::<u64>().ok()?.checked_mul(seconds)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(ToOwned::to_owned).collect()
    }

    #[test]
    fn a_whole_command_line_reads() {
        let key = podway_tunnel::encode_key(&[7; 32]);
        let line = format!("serve --listen 127.0.0.1:20000 --authorized-key {key} --idle-exit 10m");
        let serve = parse(words(&line), Some("uid".into())).expect("valid");
        assert_eq!(serve.authorized_key, [7; 32]);
        assert_eq!(serve.idle_exit, Duration::from_secs(600));
        assert_eq!(serve.pod_uid, "uid");
    }

    #[test]
    fn bad_lines_say_which_flag() {
        let key = podway_tunnel::encode_key(&[7; 32]);
        let listen = "--listen 127.0.0.1:1";
        for (line, word) in [
            ("", "usage"),
            ("run", "usage"),
            ("serve --listen 0.0.0.0:1", "--listen"),
            ("serve --listen", "--listen"),
            (&format!("serve {listen}"), "--authorized-key"),
            (&format!("serve {listen} --authorized-key x"), "--authorized-key"),
            (&format!("serve {listen} --authorized-key {key}"), "--pod-uid"),
            (&format!("serve {listen} --authorized-key {key} --idle-exit 5"), "--idle-exit"),
            (&format!("serve {listen} --wat 1"), "--wat"),
        ] {
            let error = parse(words(line), None).expect_err(line).to_string();
            assert!(error.contains(word), "{line:?} gave {error:?}");
        }
    }
}
