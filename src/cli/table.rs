//! One connection for people: what it is, what it does, what to read.
//!
//! What is not known is left out; colours go through anstream, which drops them where they would not be seen.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use comfy_table::Table;
use comfy_table::presets::NOTHING;

use super::when::{moment, span};
use crate::status::{LinkLine, Phase, SessionStatus, WorkloadLine};

/// All is well.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Something to read.
pub const WARN: Style = AnsiColor::Yellow.on_default();
/// Does not work.
pub const BAD: Style = AnsiColor::Red.on_default();

/// How much is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// What matters.
    Brief,
    /// All of it.
    Wide,
}

/// One connection, as it stands at `now`.
pub fn render(status: &SessionStatus, detail: Detail, now: i64) -> String {
    let mut text = String::new();
    let facts = [
        ("Connection", headline(status)),
        ("Since", since(status.since, now)),
        ("Cluster", listed([&status.server, &said("context", &status.context), &said("namespace", &status.namespace)])),
        ("Credentials", credentials(status, now)),
        ("Device", device(status)),
        ("Names", names(status)),
        ("Virtual", virtual_addresses(status)),
        ("Flows", flows(status)),
        ("Lost", lost(status)),
    ];
    for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(text, "{name:<12} {value}");
    }
    let ranges = status.ranges.iter().map(|r| [&r.cidr, &r.source, &r.treatment, &r.note].map(Clone::clone));
    section(&mut text, ["RANGE", "FROM", "TREATMENT", "NOTE"], ranges);
    let links = status.workloads.iter().flat_map(workload_rows);
    section(&mut text, ["WORKLOAD", "STATE", "AGENT POD", "PLACEMENT", "LINK", "NOTE"], links);
    if detail == Detail::Wide {
        let fixed = status.vips.fixed.iter().cloned().map(|(vip, real, workload, name)| [vip, real, workload, name]);
        section(&mut text, ["VIRTUAL", "ADDRESS", "WORKLOAD", "NAME"], fixed);
        let conditions = status.conditions.iter().map(|c| {
            let held = span(now - c.last_transition_time);
            [c.r#type.clone(), c.status.clone(), held, c.reason.clone(), c.message.clone()]
        });
        section(&mut text, ["CONDITION", "STATUS", "FOR", "REASON", "MESSAGE"], conditions);
        section(&mut text, ["ROUTE"], status.device.routes.iter().map(|route| [route.clone()]));
        section(&mut text, ["DOMAIN"], status.dns.domains.iter().map(|domain| [domain.clone()]));
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

/// The workloads of connections, one row for each link.
pub fn list_of(sessions: &[SessionStatus]) -> String {
    let rows = sessions.iter().flat_map(|status| {
        status.workloads.iter().flat_map(workload_rows).map(|[workload, state, pod, placement, link, note]| {
            [status.name.clone(), workload, state, pod, placement, link, note]
        })
    });
    let mut text = String::new();
    section(&mut text, ["CONNECTION", "WORKLOAD", "STATE", "AGENT POD", "PLACEMENT", "LINK", "NOTE"], rows);
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
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    format!("{}, {style}{word}{style:#}{why}", status.name)
}

fn since(since: i64, now: i64) -> String {
    match since {
        0 => String::new(),
        since => format!("{} ago ({})", span(now - since), moment(since)),
    }
}

fn credentials(status: &SessionStatus, now: i64) -> String {
    match status.credentials_expire_at {
        None => String::new(),
        Some(at) if at <= now => format!("{BAD}ended{BAD:#} {} ago ({})", span(now - at), moment(at)),
        Some(at) => format!("end in {} ({})", span(at - now), moment(at)),
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
    match (dns.ready, who.trim()) {
        (true, who) => format!("{who}, {GOOD}ready{GOOD:#}"),
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

fn lost(status: &SessionStatus) -> String {
    let flows = &status.flows;
    let counted = [
        (flows.refused, "flows refused"),
        (flows.dropped_full, "packets by full queues"),
        (flows.dropped_source, "packets with another source"),
        (flows.dropped_other, "packets of other kinds"),
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

/// One row for each link; one row that says why when there is none.
fn workload_rows(line: &WorkloadLine) -> Vec<[String; 6]> {
    let row = |link: Option<&LinkLine>| {
        let of = |part: fn(&LinkLine) -> &String| link.map(part).cloned().unwrap_or_default();
        let own = of(|link| &link.message);
        let note = if own.is_empty() { line.message.clone() } else { own };
        [
            line.workload.clone(),
            line.state.clone(),
            of(|link| &link.pod),
            of(|link| &link.placement),
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

fn section<const N: usize>(text: &mut String, header: [&str; N], rows: impl Iterator<Item = [String; N]>) {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header);
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return;
    }
    table.add_rows(rows);
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 2));
    });
    let _ = writeln!(text, "\n{}", table.trim_fmt());
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
