//! One connection for people: what it is, what it does, what to read.
//!
//! What is not known is left out; colours go through anstream, which drops them where they would not be seen.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use anstyle::{AnsiColor, Style};
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};

use super::when::{moment, span};
use crate::status::{LinkLine, Phase, RangeLine, RenewalLine, SessionStatus, WorkloadLine};

/// All is well.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Something to read.
pub const WARN: Style = AnsiColor::Yellow.on_default();
/// Does not work.
pub const BAD: Style = AnsiColor::Red.on_default();

/// A terminal's width where nothing says another.
const WIDTH: u16 = 80;
/// Credentials that last longer than this are nobody's worry yet, in seconds.
const ENDS_SOON: i64 = 86_400;

/// How much is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// What matters.
    Brief {
        /// Columns that tables keep to, breaking what is longer; none where a program may read on.
        width: Option<u16>,
    },
    /// All of it.
    Wide,
}

impl Detail {
    /// What matters, as wide as the terminal that shows it.
    pub fn brief() -> Detail {
        let columns = || std::env::var("COLUMNS").ok()?.parse().ok();
        let width = || columns().unwrap_or(WIDTH).max(WIDTH / 2);
        Detail::Brief { width: std::io::stdout().is_terminal().then(width) }
    }

    fn is_brief(self) -> bool {
        matches!(self, Detail::Brief { .. })
    }
}

/// One connection, as it stands at `now`.
pub fn render(status: &SessionStatus, detail: Detail, now: i64) -> String {
    let mut text = String::new();
    let facts = [
        ("Connection", headline(status)),
        ("Since", since(status.since, now)),
        ("Cluster", listed([&status.server, &said("context", &status.context), &said("namespace", &status.namespace)])),
        ("API server", api_server(status, now)),
        ("Credentials", credentials(status, detail, now)),
        ("Device", device(status)),
        ("Names", names(status)),
        ("Virtual", virtual_addresses(status)),
        ("Flows", flows(status)),
        ("Unread", unread(status)),
        ("Failed", failed(status, detail)),
    ];
    for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(text, "{name:<12} {value}");
    }
    ranges(&mut text, detail, &status.ranges);
    let links = workload_rows(status);
    if detail.is_brief() {
        let brief = links.map(|[workload, state, pod, _, _, link, note]| {
            let link = Some(link).filter(|link| link != "ready" && !link.is_empty());
            let note = [link.unwrap_or_default(), note].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
            [workload, state, pod, note.join(": ")]
        });
        section(&mut text, detail, ["WORKLOAD", "STATE", "AGENT POD", "NOTE"], brief);
    } else {
        section(&mut text, detail, ["WORKLOAD", "STATE", "AGENT POD", "PLACEMENT", "VERSION", "LINK", "NOTE"], links);
        let fixed = status.vips.fixed.iter().cloned().map(|(vip, real, workload, name)| [vip, real, workload, name]);
        section(&mut text, detail, ["VIRTUAL", "ADDRESS", "WORKLOAD", "NAME"], fixed);
        let conditions = status.conditions.iter().map(|c| {
            let held = span(now - c.last_transition_time);
            [c.r#type.clone(), c.subject.clone(), c.status.clone(), held, c.reason.clone(), c.message.clone()]
        });
        section(&mut text, detail, ["CONDITION", "SUBJECT", "STATUS", "FOR", "REASON", "MESSAGE"], conditions);
        section(&mut text, detail, ["ROUTE"], status.device.routes.iter().map(|route| [route.clone()]));
        section(&mut text, detail, ["DOMAIN"], status.dns.domains.iter().map(|domain| [domain.clone()]));
    }
    let notices = status.notices();
    if !notices.is_empty() {
        text.push('\n');
    }
    for notice in notices {
        let _ = writeln!(text, "{WARN}warning:{WARN:#} {notice}");
    }
    text
}

/// Ranges and what happens to them.
pub(super) fn ranges(text: &mut String, detail: Detail, ranges: &[RangeLine]) {
    section(text, detail, ["RANGE", "FROM", "TREATMENT", "NOTE"], range_rows(ranges, detail).into_iter());
}

/// The workloads of connections, one row for each link.
pub fn list_of(sessions: &[SessionStatus]) -> String {
    let rows = sessions.iter().flat_map(|status| {
        workload_rows(status).map(|[workload, state, pod, placement, _, link, note]| {
            [status.name.clone(), workload, state, pod, placement, link, note]
        })
    });
    let mut text = String::new();
    section(
        &mut text,
        Detail::brief(),
        ["CONNECTION", "WORKLOAD", "STATE", "AGENT POD", "PLACEMENT", "LINK", "NOTE"],
        rows,
    );
    match text.is_empty() {
        true => "no workload carries traffic\n".to_owned(),
        false => text.trim_start().to_owned(),
    }
}

fn headline(status: &SessionStatus) -> String {
    let (style, word) = match status.phase {
        Phase::Connecting => (WARN, "connecting"),
        Phase::Connected if status.holds("Ready") => (GOOD, "ready"),
        Phase::Connected => (WARN, "connected, not ready"),
        Phase::Disconnecting => (WARN, "disconnecting"),
        Phase::Disconnected => (BAD, "disconnected"),
    };
    let why = status.conditions.iter().find(|c| c.r#type == "Ready" && c.status != "True");
    let why = why.map(|c| c.message.as_str()).filter(|why| !why.is_empty());
    // Each thing that is missing on a line of its own, below the word.
    let why = why.map(|why| format!(":\n{:13}{}", "", why.replace("; ", &format!("\n{:13}", "")))).unwrap_or_default();
    format!("{}, {style}{word}{style:#}{why}", status.name)
}

fn since(since: i64, now: i64) -> String {
    match since {
        0 => String::new(),
        since => format!("{} ago ({})", span(now - since), moment(since)),
    }
}

/// What is waited for is in the headline; this is since when, and what comes next.
fn api_server(status: &SessionStatus, now: i64) -> String {
    let Some(line) = &status.api_server else { return String::new() };
    let next = match line.next_try {
        Some(at) if at > now => format!("asked again in {}", span(at - now)),
        Some(_) | None => "being asked".to_owned(),
    };
    let (waited, since) = (span(now - line.waiting_since), moment(line.waiting_since));
    format!("{WARN}no answer{WARN:#} for {waited} (since {since}), {next}")
}

fn credentials(status: &SessionStatus, detail: Detail, now: i64) -> String {
    let renewal = status.credentials.as_ref().map(|credentials| credentials.renewal);
    let renewed = match renewal {
        Some(RenewalLine::Automatic) => ", renewed by themselves".to_owned(),
        Some(RenewalLine::Failing) => format!(", {WARN}not renewed{WARN:#} (see the warnings)"),
        Some(RenewalLine::NeedsLogin) => format!(", {BAD}refused{BAD:#}: log in, then podway connect again"),
        Some(RenewalLine::ByHand) | None => String::new(),
    };
    let goes_well = matches!(renewal, Some(RenewalLine::Automatic | RenewalLine::ByHand) | None);
    match status.credentials_expire_at {
        None if detail.is_brief() && goes_well => String::new(),
        None => renewed.trim_start_matches(", ").to_owned(),
        Some(at) if at <= now => format!("{BAD}ended{BAD:#} {} ago ({}){renewed}", span(now - at), moment(at)),
        Some(at) if detail.is_brief() && at - now >= ENDS_SOON && goes_well => String::new(),
        Some(at) => format!("end in {} ({}){renewed}", span(at - now), moment(at)),
    }
}

fn device(status: &SessionStatus) -> String {
    match (status.device.name.as_str(), status.device.routes.len()) {
        ("", _) => "none yet".to_owned(),
        (name, 1) => format!("{name}, 1 route"),
        (name, routes) => format!("{name}, {routes} routes"),
    }
}

fn names(status: &SessionStatus) -> String {
    let dns = &status.dns;
    let who = [dns.backend.clone(), said("at", &dns.server)].join(" ");
    let only = dns.only.as_ref().filter(|only| !only.is_empty());
    let only = only.map(|only| format!("\n{:13}namespace {} only (no right to list namespaces)", "", only.join(", ")));
    let only = only.unwrap_or_default();
    match (dns.ready, who.trim()) {
        (false, _) if dns.backend == "off" && !dns.server.is_empty() => {
            format!("{WARN}not attached{WARN:#}; {} answers who asks it", dns.server)
        }
        (true, who) => format!("{who}, {GOOD}ready{GOOD:#}{only}"),
        (false, "") => format!("{WARN}not attached{WARN:#}"),
        (false, who) => format!("{who}, {WARN}not ready{WARN:#}"),
    }
}

fn virtual_addresses(status: &SessionStatus) -> String {
    match status.vips.ranges.is_empty() {
        true => String::new(),
        false => format!("{} in use, from {}", status.vips.in_use, status.vips.ranges.join(", ")),
    }
}

fn flows(status: &SessionStatus) -> String {
    let flows = &status.flows;
    let (sent, received) = (bytes(flows.bytes_sent), bytes(flows.bytes_received));
    format!(
        "TCP {} open of {}, UDP {} open of {}; {sent} sent, {received} received",
        flows.tcp_open, flows.tcp_total, flows.udp_open, flows.udp_total
    )
}

/// What waits for programs to read it; less than this is always under way.
fn unread(status: &SessionStatus) -> String {
    const NOTEWORTHY: u64 = 1 << 20;
    match status.flows.held {
        ..NOTEWORTHY => String::new(),
        held => format!("{} that programs have not read yet", bytes(held)),
    }
}

fn failed(status: &SessionStatus, detail: Detail) -> String {
    let flows = &status.flows;
    let dropped = &flows.dropped;
    // A host always says things to a device that are for nobody beyond it: no loss, unless all is asked for.
    let unheard = |count: u64| if detail == Detail::Wide { count } else { 0 };
    let counted = [
        (flows.refused, "TCP or UDP tries that the far end refused or nobody took"),
        (flows.broken, "flows by a fault of an agent"),
        (flows.over_limit, "of them because there were too many"),
        (dropped.flow_full + dropped.device_full, "packets by full queues"),
        (dropped.udp_full, "datagrams by a full way to the agent"),
        (dropped.dns_full + dropped.echo_full, "queries and pings because too many waited"),
        (dropped.too_long, "datagrams that are longer than a packet can be"),
        (dropped.forwarded, "packets that others send through this host, or whose hop limit (TTL) a program chose"),
        (dropped.device_refused, "packets that the device did not take"),
        (unheard(dropped.source), "packets from another address than the device's"),
        (unheard(dropped.malformed + dropped.fragment), "packets that are malformed or parts that do not fit"),
        (unheard(dropped.protocol), "packets that are neither TCP, UDP nor pings"),
        (unheard(dropped.multicast), "packets to multicast or broadcast addresses"),
        (unheard(dropped.stray), "resets of connections that are not there"),
    ];
    let some = counted.iter().filter(|(count, _)| *count > 0);
    some.map(|(count, what)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
}

fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    // In tenths, so that no floating point is needed.
    let (mut tenths, mut unit) = (count.saturating_mul(10) / 1024, 0);
    while tenths >= 10 * 1024 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// One row for each range; the single addresses of one source that fare alike are one row, unless all is asked for.
fn range_rows(ranges: &[RangeLine], detail: Detail) -> Vec<[String; 4]> {
    let alike = |a: &RangeLine, b: &RangeLine| (&a.source, &a.treatment, &a.note) == (&b.source, &b.treatment, &b.note);
    let mut rows = Vec::new();
    for (at, range) in ranges.iter().enumerate() {
        let single = |r: &&RangeLine| detail.is_brief() && r.is_cluster_address() && alike(r, range);
        let count = ranges.iter().filter(single).count();
        let what = match (range.is_cluster_address(), count) {
            (true, 2..) if ranges[..at].iter().any(|earlier| single(&earlier)) => continue,
            (true, 2..) => format!("{count} addresses"),
            (true | false, _) => range.cidr.clone(),
        };
        // A range that a flag names is its own source.
        let flag = match range.treatment.as_str() {
            "excluded" => "a rule",
            via if via.starts_with("via ") => "--proxy-via",
            _ => "--vnat",
        };
        let source = if range.source == range.cidr { flag.to_owned() } else { range.source.clone() };
        rows.push([what, source, range.treated(), range.note.clone()]);
    }
    rows
}

fn workload_rows(status: &SessionStatus) -> impl Iterator<Item = [String; 7]> {
    let lines = &status.workloads;
    lines.iter().flat_map(|line| rows_of(line, line.title(lines.len() == 1)))
}

/// One row for each link; one row that says why when there is none.
fn rows_of(line: &WorkloadLine, title: &str) -> Vec<[String; 7]> {
    let row = |link: Option<&LinkLine>| {
        let of = |part: fn(&LinkLine) -> &String| link.map(part).cloned().unwrap_or_default();
        let own = of(|link| &link.message);
        let note = if own.is_empty() { line.message.clone() } else { own };
        [
            title.to_owned(),
            line.state.clone(),
            of(|link| &link.pod),
            of(|link| &link.placement),
            of(|link| &link.version),
            of(|link| &link.health),
            note,
        ]
    };
    match line.links.is_empty() {
        true => vec![row(None)],
        false => line.links.iter().map(|link| row(Some(link))).collect(),
    }
}

fn said(word: &str, value: &str) -> String {
    match value.is_empty() {
        true => String::new(),
        false => format!("{word} {value}"),
    }
}

fn listed<const N: usize>(parts: [&String; N]) -> String {
    let parts: Vec<&str> = parts.into_iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    parts.join(", ")
}

/// A table; a column that says nothing in any row is left out.
pub(super) fn section<const N: usize>(
    text: &mut String,
    detail: Detail,
    header: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) {
    let rows: Vec<[String; N]> = rows.collect();
    if rows.is_empty() {
        return;
    }
    let said: Vec<usize> = (0..N).filter(|column| rows.iter().any(|row| !row[*column].is_empty())).collect();
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(said.iter().map(|column| header[*column]));
    if let Detail::Brief { width: Some(width) } = detail {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    table.add_rows(rows.iter().map(|row| said.iter().map(|column| row[*column].as_str()).collect::<Vec<_>>()));
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 2));
    });
    let _ = writeln!(text, "\n{}", table.trim_fmt());
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
