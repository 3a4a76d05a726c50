//! One connection as tables.

use std::fmt::Write as _;

use comfy_table::Table;
use comfy_table::presets::NOTHING;

use crate::status::SessionStatus;

/// How much is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// What matters.
    Brief,
    /// All of it.
    Wide,
}

/// One connection for people.
pub fn render(status: &SessionStatus, detail: Detail) -> String {
    let mut text = String::new();
    let facts = [
        (
            "Connection",
            format!("{} ({:?}), context {}, namespace {}", status.name, status.phase, status.context, status.namespace),
        ),
        ("Cluster", status.server.clone()),
        ("Device", format!("{}, {} routes", status.device.name, status.device.routes.len())),
        (
            "VIPs",
            format!("{} of {} in use, {}", status.vips.in_use, status.vips.capacity, status.vips.ranges.join(", ")),
        ),
        ("DNS", format!("{} at {}, {}", status.dns.backend, status.dns.server, ready(status.dns.ready))),
        ("Dropped", dropped(status)),
    ];
    for (name, value) in facts {
        let _ = writeln!(text, "{name:<11} {value}");
    }
    let ranges = status.ranges.iter().map(|r| vec![&r.cidr, &r.source, &r.treatment, &r.note]);
    section(&mut text, &["RANGE", "FROM", "TREATMENT", "NOTE"], ranges);
    let links = status.workloads.iter().flat_map(|w| {
        w.links.iter().map(move |l| vec![&w.workload, &w.state, &l.pod, &l.placement, &l.health, &l.message])
    });
    section(&mut text, &["WORKLOAD", "STATE", "AGENT POD", "PLACEMENT", "HEALTH", "NOTE"], links);
    let bare = status.workloads.iter().filter(|w| w.links.is_empty());
    section(&mut text, &["WAITING", "STATE", "NOTE"], bare.map(|w| vec![&w.workload, &w.state, &w.message]));
    if detail == Detail::Wide {
        let fixed = status.vips.fixed.iter().map(|(vip, real, workload, name)| vec![vip, real, workload, name]);
        section(&mut text, &["VIP", "ADDRESS", "WORKLOAD", "NAME"], fixed);
        let conditions = status.conditions.iter().map(|c| vec![&c.r#type, &c.status, &c.reason, &c.message]);
        section(&mut text, &["CONDITION", "STATUS", "REASON", "MESSAGE"], conditions);
        section(&mut text, &["ROUTE"], status.device.routes.iter().map(|route| vec![route]));
        section(&mut text, &["DOMAIN"], status.dns.domains.iter().map(|domain| vec![domain]));
    }
    for line in status.device.failed.iter().chain(&status.warnings).chain(Some(&status.dns.message)) {
        if !line.is_empty() {
            let _ = writeln!(text, "warning: {line}");
        }
    }
    text
}

fn ready(ready: bool) -> &'static str {
    match ready {
        true => "ready",
        false => "not ready",
    }
}

fn dropped(status: &SessionStatus) -> String {
    let flows = &status.flows;
    let (source, full, other) = (flows.dropped_source, flows.dropped_full, flows.dropped_other);
    format!("{source} by source, {full} by full queues, {other} other; {} flows refused", flows.refused)
}

fn section<'a>(text: &mut String, header: &[&str], rows: impl Iterator<Item = Vec<&'a String>>) {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.to_vec());
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return;
    }
    table.add_rows(rows);
    let _ = writeln!(text, "\n{}", table.trim_fmt());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{LinkLine, RangeLine, WorkloadLine};

    #[test]
    fn a_connection_is_shown_as_committed() {
        let mut status = SessionStatus { name: "demo".into(), context: "kind".into(), ..SessionStatus::default() };
        status.ranges.push(RangeLine {
            cidr: "10.96.0.0/16".into(),
            source: "service".into(),
            treatment: "via shop/deployment/web".into(),
            note: String::new(),
        });
        let link = LinkLine {
            pod: "shop/web-1".into(),
            placement: "ephemeral container".into(),
            health: "ready".into(),
            message: String::new(),
        };
        status.workloads.push(WorkloadLine {
            workload: "shop/deployment/web".into(),
            state: "Ready".into(),
            message: String::new(),
            links: vec![link],
        });
        status.device.routes.push("10.96.0.0/16".into());
        insta::assert_snapshot!("status_plain", render(&status, Detail::Brief));
        insta::assert_snapshot!("status_wide", render(&status, Detail::Wide));
    }
}
