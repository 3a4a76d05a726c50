//! The text of a resolv.conf: read, told apart and written. Pure.

use std::net::IpAddr;

use super::{BACKUP, LinkPlan};

/// In the first line of a file of ours. Not a word that another tool looks for.
pub(super) const MARKER: &str = "podway-temporary-resolv-conf";
/// Servers that glibc reads (MAXNS).
const MAX_SERVERS: usize = 3;

/// Servers in the text of a resolv.conf, in order; scopes are cut off.
pub(in crate::net::resolver) fn servers(text: &[u8]) -> Vec<IpAddr> {
    let text = String::from_utf8_lossy(text);
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then(|| words.next()).flatten()
    });
    named.filter_map(|word| word.split('%').next()?.parse().ok()).collect()
}

/// Search domains in it: the last search or domain line counts (resolv.conf(5)).
pub(in crate::net::resolver) fn search_domains(text: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        matches!(words.next()?, "search" | "domain").then(|| words.map(str::to_owned).collect())
    });
    lines.next_back().unwrap_or_default()
}

/// What ours says.
pub(super) fn render(plan: &LinkPlan, original: Option<&[u8]>) -> Vec<u8> {
    let mut lines = vec![
        format!("# {MARKER}: in place while podway is connected; the former file is {BACKUP}."),
        "# To put it back by hand: podwayd cleanup".to_owned(),
    ];
    let before = original.map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default();
    let search: Vec<String> = plan.search.iter().cloned().chain(search_domains(before.as_bytes())).collect();
    lines.extend(plan.servers.iter().take(MAX_SERVERS).map(|server| format!("nameserver {server}")));
    if !search.is_empty() {
        lines.push(format!("search {}", search.join(" ")));
    }
    let options = before.lines().filter(|line| line.split_whitespace().next() == Some("options"));
    lines.extend(options.map(|line| line.trim().to_owned()));
    lines.push(String::new());
    lines.join("\n").into_bytes()
}

/// Whether a text has our marker.
pub(in crate::net::resolver) fn is_marked(text: &[u8]) -> bool {
    let first = text.split(|b| *b == b'\n').next().unwrap_or_default();
    first.windows(MARKER.len()).any(|window| window == MARKER.as_bytes())
}

/// Whether a kill in the middle of writing in place may have left it so: empty, the start of our marker, or of the original
/// up to the middle of a line. What ends with a line is somebody's.
pub(super) fn half_written(text: &[u8], original: Option<&[u8]>) -> bool {
    let start_of = |whole: &[u8]| whole.starts_with(text) && whole.len() > text.len();
    start_of(format!("# {MARKER}").as_bytes()) || (!is_whole(text) && original.is_some_and(start_of))
}

/// Whether it ends as a text does that nobody is still writing.
pub(super) fn is_whole(text: &[u8]) -> bool {
    text.ends_with(b"\n")
}
