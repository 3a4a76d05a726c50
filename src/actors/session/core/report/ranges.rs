//! Ranges in words: what happens to each, and why.

use crate::actors::proxy_via::messages::{RangeStatus, Treatment};
use crate::net::cidr::{Cidr, covers};
use crate::net::views::Target;
use crate::status::RangeLine;

/// What of `allow` was meant for a range that clashes, and covers a part of it only: a range is routed or translated as a
/// whole.
pub(super) fn too_narrow<'a>(range: &RangeStatus, allow: &'a [Cidr]) -> Option<&'a Cidr> {
    let clashes = matches!(range.treatment, Treatment::Translated { conflict: Some(_), .. });
    allow.iter().find(|allow| clashes && covers(&range.cidr, allow))
}

/// A range, for people; `allow` is `--allow-conflicting-subnets`.
pub fn range_line(range: &RangeStatus, allow: &[Cidr]) -> RangeLine {
    let (treatment, mut note) = match &range.treatment {
        Treatment::Routed => ("routed".to_owned(), String::new()),
        Treatment::Translated { target: Target::Workload(workload), conflict } => {
            (format!("via {workload}"), conflict.clone().unwrap_or_default())
        }
        Treatment::Translated { target: Target::General, conflict } => {
            let note = conflict.as_ref().map(|route| format!("conflicts with {route}")).unwrap_or_default();
            ("translated".to_owned(), note)
        }
        Treatment::Excluded { why } => ("excluded".to_owned(), why.clone()),
    };
    if let Some(narrow) = too_narrow(range, allow) {
        let whole = &range.cidr;
        note.push_str(&format!(
            "; --allow-conflicting-subnets {narrow} is a part of it and does nothing: allow {whole}"
        ));
    }
    RangeLine { cidr: range.cidr.to_string(), source: range.source.clone(), treatment, note }
}

/// Without the right to list ranges each watched object is a range of its own: one step tells of them all.
pub(super) fn range_step(line: &RangeLine) -> String {
    let note = if line.note.is_empty() { String::new() } else { format!(" ({})", line.note) };
    let treated = line.treated();
    match line.is_cluster_address() && note.is_empty() {
        true => format!("{}: {treated}, single addresses only (no right to list the ranges)", line.source),
        // A range that the user named is its own source.
        false if line.source == line.cidr => format!("{}: {treated}{note}", line.cidr),
        false => format!("{} {}: {treated}{note}", line.source, line.cidr),
    }
}
