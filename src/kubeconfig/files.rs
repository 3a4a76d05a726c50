//! Files of the kubeconfig, read as the user.

use std::path::{Path, PathBuf};

use kube::config::{Kubeconfig, KubeconfigError};

use super::{Surroundings, invalid};
use crate::error::UserError;

/// A kubeconfig or a certificate beyond this is a mistake, in bytes.
const MOST: u64 = 4 << 20;

/// Reads and merges: `--kubeconfig` alone, else the list in `$KUBECONFIG`, else `~/.kube/config`.
///
/// Missing files of a list are skipped, as kubectl does.
pub fn load(flag: Option<&Path>, around: &Surroundings) -> Result<Kubeconfig, UserError> {
    if let Some(path) = flag {
        return read_one(path, "--kubeconfig");
    }
    let listed = around.kubeconfig.as_deref().map(std::env::split_paths);
    let listed: Option<Vec<PathBuf>> = listed.map(|paths| paths.filter(|path| !path.as_os_str().is_empty()).collect());
    let paths = match listed.filter(|paths| !paths.is_empty()) {
        Some(paths) => paths,
        None => around.home.iter().map(|home| home.join(".kube/config")).collect(),
    };
    let mut merged = Kubeconfig::default();
    let mut first_missing = None;
    let mut any = false;
    for path in &paths {
        if !path.exists() {
            first_missing = first_missing.or(Some(path));
            continue;
        }
        any = true;
        let next = read_one(path, "KUBECONFIG")?;
        merged = merged.merge(next).map_err(|error| {
            invalid(
                format!("{}: {error}", path.display()),
                "the files in KUBECONFIG do not fit together: name one of them with --kubeconfig",
            )
        })?;
    }
    match first_missing {
        Some(path) if !any && around.kubeconfig.is_some() => {
            let hint = "correct KUBECONFIG, or unset it: then it is ~/.kube/config";
            Err(invalid(format!("kubeconfig {}: it is not there", path.display()), hint))
        }
        Some(_) | None => Ok(merged),
    }
}

/// Reads the file that `named` names.
fn read_one(path: &Path, named: &str) -> Result<Kubeconfig, UserError> {
    let what = format!("kubeconfig {}", path.display());
    let unreadable = |error: &std::io::Error| unreadable(&what, error, &format!("correct {named}"));
    let file = std::fs::metadata(path).map_err(|error| unreadable(&error))?;
    if file.is_dir() {
        return Err(invalid(format!("{what}: it is a directory"), format!("name the file in it with {named}")));
    }
    if file.len() > MOST {
        return Err(invalid(format!("{what}: with {} bytes it is none", file.len()), format!("correct {named}")));
    }
    // Its messages may quote a line of the file, and a line may hold a secret.
    Kubeconfig::read_from(path).map_err(|error| {
        if let KubeconfigError::ReadConfig(error, _) = &error {
            return unreadable(error);
        }
        tracing::debug!(path = %path.display(), "the kubeconfig cannot be read");
        let hint = format!("kubectl config view --kubeconfig {} says where", path.display());
        invalid(format!("{what}: it cannot be understood as YAML of a kubeconfig"), hint)
    })
}

/// Why a file was not read.
fn unreadable(what: &str, error: &std::io::Error, correct: &str) -> UserError {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the standard library adds kinds; those not named say themselves"
    )]
    match error.kind() {
        std::io::ErrorKind::NotFound => invalid(format!("{what}: it is not there"), correct),
        std::io::ErrorKind::PermissionDenied => invalid(
            format!("{what}: you may not read it ({error})"),
            "make it yours: sudo chown $USER FILE, or take another one",
        ),
        _ => invalid(format!("{what}: {error}"), correct),
    }
}

/// The text behind a flag's path, base64 data or a path, in this order; empty ones count as absent.
pub fn text_or_data(
    flag: Option<&Path>,
    data: Option<&str>,
    path: Option<&str>,
    what: &str,
) -> Result<Option<String>, UserError> {
    if let Some(path) = flag {
        return read(path, what).map(Some);
    }
    if let Some(data) = data.filter(|data| !data.is_empty()) {
        return match from_base64(data).and_then(|bytes| String::from_utf8(bytes).ok()) {
            Some(text) => Ok(Some(text)),
            None => {
                Err(invalid(format!("the kubeconfig's {what} data is not base64 of PEM"), "fetch the kubeconfig anew"))
            }
        };
    }
    path.filter(|path| !path.is_empty()).map(|path| read(Path::new(path), what)).transpose()
}

/// Reads a small text file.
pub fn read(path: &Path, what: &str) -> Result<String, UserError> {
    let hint = "correct the kubeconfig or the flag that names this file";
    let fail = |why: String| invalid(format!("cannot read the {what} {}: {why}", path.display()), hint);
    let size = std::fs::metadata(path).map_err(|error| fail(error.to_string()))?.len();
    if size > MOST {
        return Err(fail(format!("{size} bytes")));
    }
    std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))
}

/// Decodes base64 in either alphabet, padded or not; white space is skipped.
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut word, mut bits) = (0_u32, 0_u32);
    for byte in text.bytes().filter(|byte| !byte.is_ascii_whitespace()) {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            b'=' => break,
            _ => return None,
        };
        word = (word << 6 | u32::from(value)) & 0xff_ffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push(u8::try_from(word >> bits & 0xff).ok()?);
        }
    }
    Some(out)
}
