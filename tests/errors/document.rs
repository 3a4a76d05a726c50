//! `docs/errors.md`: the table between its markers.

use std::collections::BTreeMap;

use crate::page::{Page, cell, seconds};
use crate::run::{Row, Seen};

pub struct Document(Page);

/// A row as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Written {
    seconds: String,
    rest: String,
}

impl Document {
    pub fn read() -> Document {
        Document(Page::read("errors", "errors"))
    }

    /// The rows that are there, by heading and case.
    fn written(&self) -> BTreeMap<(String, String), Written> {
        let mut rows = BTreeMap::new();
        for (heading, cells) in self.0.rows() {
            if let [name, seconds, rest @ ..] = cells.as_slice()
                && name != "Case"
            {
                let written = Written { seconds: seconds.clone(), rest: format!("{} |", rest.join(" | ")) };
                rows.insert((heading, name.clone()), written);
            }
        }
        rows
    }

    /// Writes the table anew.
    pub fn renew(&mut self, rows: &[Row]) {
        let before = self.written();
        let mut table = String::new();
        let mut heading = "";
        for row in rows {
            if row.group != heading {
                heading = row.group;
                let head = "| Case | Seconds | Exit | Reason | Text |\n|---|---|---|---|---|\n";
                table.push_str(&format!("\n## {heading}\n\n{head}"));
            }
            let before = before.get(&(row.group.to_owned(), row.name.to_owned()));
            let seconds = seconds(row.seen.took, before.map(|written| written.seconds.as_str()));
            table.push_str(&format!("| {} | {seconds} | {}\n", row.name, rest(row)));
        }
        table.push('\n');
        self.0.renew(&table);
    }

    /// In what the rows differ from those written.
    pub fn differences(&self, rows: &[Row], all: bool) -> Vec<String> {
        let mut written = self.written();
        let mut found = Vec::new();
        for row in rows {
            match written.remove(&(row.group.to_owned(), row.name.to_owned())) {
                Some(Written { rest: known, .. }) if known == rest(row) => {}
                Some(Written { rest: known, .. }) => {
                    found.push(format!("{}: {}: docs/errors.md has {known}, now {}", row.group, row.name, rest(row)));
                }
                None => found.push(format!("{}: {}: not in docs/errors.md", row.group, row.name)),
            }
        }
        if all {
            found
                .extend(written.keys().map(|(group, name)| format!("{group}: {name}: in docs/errors.md, but no case")));
        }
        found
    }
}

/// What is written of a row behind its time.
fn rest(row: &Row) -> String {
    let Seen { exit, reason, text, .. } = &row.seen;
    let reason = if reason.starts_with(char::is_alphabetic) { format!("`{reason}`") } else { reason.clone() };
    // What works without a word.
    let nothing = if text.is_empty() { "it works" } else { "" };
    let slow = if row.slow.is_empty() { String::new() } else { format!("<br>*{}*", row.slow) };
    format!("{exit} | {reason} | {}{slow} |", nothing.to_owned() + &cell(text))
}
