//! A plan for people.

use std::fmt::Write as _;

use super::table::{BAD, Detail, WARN, ranges, section};
use crate::plan::{AgentAction, ConnectPlan};
use crate::status::WorkloadLine;

/// What connecting would change.
pub fn render(plan: &ConnectPlan) -> String {
    let ConnectPlan { spec, device, dns, .. } = plan;
    let mut text = String::from("dry run: nothing is changed\n\n");
    let servers = if dns.servers.is_empty() { String::new() } else { format!(" at {}", dns.servers.join(", ")) };
    let facts = [
        ("Connection", format!("{}, to namespace {} of {}", spec.name, spec.namespace, plan.server)),
        ("Device", format!("{}, with {}", device.name, device.addresses.join(", "))),
        ("Names", format!("{}{servers}", dns.backend)),
        ("", dns.message.clone()),
        ("Virtual", plan.virtual_ranges.join(", ")),
    ];
    for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(text, "{name:<12} {value}");
    }
    let detail = Detail::brief();
    ranges(&mut text, detail, &plan.ranges);
    section(&mut text, detail, ["ROUTE TO THE DEVICE"], device.routes.iter().map(|route| [route.clone()]));
    let agents = plan.agents.iter().map(|agent| {
        let workload = match agent.workload == WorkloadLine::GENERAL {
            true => "everything else".to_owned(),
            false => agent.workload.clone(),
        };
        let action = match agent.action {
            AgentAction::Use => "is there",
            AgentAction::Place => "would be placed",
            AgentAction::Wait => "waits for a pod",
            AgentAction::Refused => "cannot be placed",
        };
        let note = [agent.image.as_str(), &agent.message].concat();
        [workload, action.to_owned(), agent.placement.clone(), agent.pod.clone(), note]
    });
    section(&mut text, detail, ["WORKLOAD", "AGENT", "AS", "POD", "NOTE"], agents);
    if !plan.missing_rights.is_empty() {
        text.push('\n');
    }
    for right in &plan.missing_rights {
        let _ = writeln!(text, "{BAD}missing right:{BAD:#} {right}");
    }
    if plan.agents.iter().any(|agent| agent.action == AgentAction::Refused) {
        let _ = writeln!(text, "{WARN}warning:{WARN:#} what no rule covers would not be reached");
    }
    text
}
