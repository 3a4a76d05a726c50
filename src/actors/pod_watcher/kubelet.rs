//! The kubelet's words for a container that does not start, shortened to the cause. Pure.
//!
//! It says a chain of wrapped errors, each with the whole image reference: hundreds of characters, of which the last few
//! say what is wrong.

/// Parts of a chain that are kept at most, from its end: what was done, on what, and what came of it.
const PARTS: usize = 3;
/// Characters that are kept at most: with image and pod before them they fit two lines of a terminal.
const LONGEST: usize = 120;

/// `ErrImagePull: docker.io/library/web:1: not found`.
pub fn reason(reason: &str, message: &str) -> String {
    // While it waits for the next try, it says the last error inside: that is the news, and does not come and go.
    let (reason, message) = match message.split_once("ErrImagePull: ") {
        Some((_, inner)) if reason == "ImagePullBackOff" => ("ErrImagePull", inner),
        Some(_) | None => (reason, message),
    };
    match cause(message) {
        cause if cause.is_empty() => reason.to_owned(),
        cause => format!("{reason}: {cause}"),
    }
}

fn cause(message: &str) -> String {
    // `rpc error: code = NotFound desc = …` wraps what the container runtime said.
    let parts = message.split(": ").map(|part| part.rsplit(" desc = ").next().unwrap_or(part).trim());
    let parts = parts.filter(|part| !part.is_empty() && *part != "rpc error");
    let parts: Vec<&str> = parts.collect();
    // A part that names what a later one is adds nothing.
    let repeated = |at: usize| parts[at + 1..].iter().any(|later| parts[at].contains(later));
    let told: Vec<&str> = (0..parts.len()).filter(|at| !repeated(*at)).map(|at| parts[at]).collect();
    let longest = PARTS.min(told.len());
    let fitting = (1..=longest).rev().map(|count| told[told.len() - count..].join(": "));
    let mut fitting = fitting.skip_while(|text| text.chars().count() > LONGEST);
    fitting.next().unwrap_or_else(|| clipped(told.last().copied().unwrap_or_default()))
}

/// The end of a text that is too long.
fn clipped(text: &str) -> String {
    let skipped = text.chars().count().saturating_sub(LONGEST);
    match skipped {
        0 => text.to_owned(),
        skipped => format!("…{}", text.chars().skip(skipped + 1).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_the_end_of_the_chain() {
        let not_found = "rpc error: code = NotFound desc = failed to pull and unpack image \"docker.io/library/web:1\": \
            failed to resolve reference \"docker.io/library/web:1\": docker.io/library/web:1: not found";
        let lookup = "failed to pull image \"r.example/web:1\": failed to pull and unpack image \"r.example/web:1\": failed \
            to resolve reference \"r.example/web:1\": failed to do request: Head \"https://r.example/v2/web/manifests/1\": \
            dial tcp: lookup r.example on 10.0.0.1:53: no such host";
        for (said, wanted) in [
            (not_found, "docker.io/library/web:1: not found"),
            (lookup, "dial tcp: lookup r.example on 10.0.0.1:53: no such host"),
            (
                "container has runAsNonRoot and image will run as root",
                "container has runAsNonRoot and image will run as root",
            ),
        ] {
            assert_eq!(reason("ErrImagePull", said), format!("ErrImagePull: {wanted}"));
        }
        assert_eq!(reason("CreateContainerError", ""), "CreateContainerError");
    }

    #[test]
    fn a_pause_between_tries_does_not_change_the_words() {
        let pulled = "rpc error: code = NotFound desc = r.example/web:1: not found";
        let paused = format!("Back-off pulling image \"r.example/web:1\": ErrImagePull: {pulled}");
        assert_eq!(reason("ImagePullBackOff", &paused), reason("ErrImagePull", pulled));
        let bare = "Back-off pulling image \"r.example/web:1\"";
        assert_eq!(reason("ImagePullBackOff", bare), format!("ImagePullBackOff: {bare}"));
    }

    #[test]
    fn whatever_is_said_stays_short() {
        let endless = "é".repeat(5000);
        for said in [endless.clone(), format!("a: {endless}"), format!("{endless}: end"), "a: ".repeat(900)] {
            assert!(reason("ErrImagePull", &said).chars().count() <= LONGEST + 20, "{said:.20}");
        }
        assert_eq!(reason("ErrImagePull", &format!("{endless}: end")), "ErrImagePull: end");
    }
}
