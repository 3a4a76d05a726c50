//! `docs/reliability.md`: the table between its markers.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::page::{Page, cell, seconds};
use crate::row::Row;

pub struct Document(Page);

impl Document {
    pub fn read() -> Document {
        Document(Page::read("reliability", "faults"))
    }

    /// The rows that are there, by heading and fault: the other cells.
    fn written(&self) -> BTreeMap<(String, String), Vec<String>> {
        let rows = self.0.rows().into_iter().filter_map(|(heading, mut cells)| {
            let fault = cells.remove(0);
            (fault != "Fault").then_some(((heading, fault), cells))
        });
        rows.collect()
    }

    /// Writes the table anew.
    pub fn renew(&mut self, rows: &[Row]) {
        let before = self.written();
        let mut table = String::new();
        let mut heading = "";
        for row in rows {
            if row.group != heading {
                heading = row.group;
                let head =
                    "| Fault | `status` shows | Seen | Healed | Open connections | Bar |\n|---|---|---|---|---|---|\n";
                table.push_str(&format!("\n## {heading}\n\n{head}"));
            }
            let before = before.get(&(row.group.to_owned(), row.fault.clone()));
            let time = |time: Option<Duration>, at: usize| {
                let before = before.and_then(|cells| cells.get(at)).map(String::as_str);
                time.map_or("–".to_owned(), |time| seconds(time, before))
            };
            let (seen, healed) = (time(row.seen, 1), time(row.healed, 2));
            let cells = [row.fault.as_str(), &shows(row), &seen, &healed, flows(row), row.bar];
            table.push_str(&format!("| {} |\n", cells.join(" | ")));
        }
        table.push('\n');
        self.0.renew(&table);
    }

    /// In what the rows differ from those written: what `status` shows longest, which is a matter of moments too, and
    /// everything else. Times have bars of their own.
    pub fn differences(&self, rows: &[Row], all: bool) -> (Vec<String>, Vec<String>) {
        let mut written = self.written();
        let (mut shown, mut found) = (Vec::new(), Vec::new());
        for row in rows {
            let Some(cells) = written.remove(&(row.group.to_owned(), row.fault.clone())) else {
                found.push(format!("{}: not in docs/reliability.md", row.name()));
                continue;
            };
            for (at, now) in [(0, shows(row).as_str()), (3, flows(row)), (4, row.bar)] {
                let known = cells.get(at).map_or("", String::as_str);
                if known != now {
                    let kind = if at == 0 { &mut shown } else { &mut found };
                    kind.push(format!("{}: docs/reliability.md has {known}, now {now}", row.name()));
                }
            }
        }
        if all {
            let gone =
                written.keys().map(|(group, fault)| format!("{group}: {fault}: in docs/reliability.md, but no row"));
            found.extend(gone);
        }
        (shown, found)
    }
}

fn shows(row: &Row) -> String {
    if row.shows.is_empty() { "nothing".to_owned() } else { cell(&row.shows.join("\n")) }
}

fn flows(row: &Row) -> &str {
    if row.flows.is_empty() { "–" } else { &row.flows }
}
