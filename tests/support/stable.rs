//! Texts without what differs from run to run: what controllers make up for names.

pub fn stable(text: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    for c in text.chars().chain(['\0']) {
        if c.is_ascii_alphanumeric() || c == '-' {
            word.push(c);
            continue;
        }
        out.push_str(&named(&word));
        word.clear();
        if c != '\0' {
            out.push(c);
        }
    }
    out
}

/// `web-5d8c7b9f6d-x2x4z` as `web-*`, `podway-agent-1f0e2d3c4b5a6978-1` as `podway-agent-*`.
fn named(word: &str) -> String {
    for workload in ["web", "db", "idle", "store", "edge", "api", "never", "broken", "podway-agent"] {
        let rest = word.strip_prefix(workload).and_then(|rest| rest.strip_prefix('-'));
        if rest.is_some_and(|rest| rest.len() > 4) {
            return format!("{workload}-*");
        }
    }
    word.to_owned()
}
