//! `docs/errors.md`: the table between its markers.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::run::{Row, Seen};

const BEGIN: &str = "<!-- errors: what follows is written by `just errors --write` -->\n";
const END: &str = "<!-- errors: end -->\n";
/// Seconds that are told apart.
const STEPS: [f64; 9] = [0.1, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 15.0, 35.0];

pub struct Document {
    path: PathBuf,
    text: String,
}

/// A row as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Written {
    seconds: String,
    rest: String,
}

impl Document {
    pub fn read() -> Document {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/errors.md");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(text.contains(BEGIN) && text.contains(END), "{} has no markers", path.display());
        Document { path, text }
    }

    fn table(&self) -> &str {
        let from = self.text.find(BEGIN).unwrap() + BEGIN.len();
        &self.text[from..self.text.find(END).unwrap()]
    }

    /// The rows that are there, by heading and case.
    fn written(&self) -> BTreeMap<(String, String), Written> {
        let mut heading = String::new();
        let mut rows = BTreeMap::new();
        for line in self.table().lines() {
            if let Some(title) = line.strip_prefix("## ") {
                heading = title.to_owned();
            }
            let mut cells = line.strip_prefix("| ").into_iter().flat_map(|line| line.splitn(3, " | "));
            if let (Some(name), Some(seconds), Some(rest)) = (cells.next(), cells.next(), cells.next()) {
                let written = Written { seconds: seconds.to_owned(), rest: rest.to_owned() };
                rows.insert((heading.clone(), name.to_owned()), written);
            }
        }
        rows.remove(&(String::new(), String::new()));
        rows.retain(|(_, name), _| name != "Case");
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
        let (from, to) = (self.text.find(BEGIN).unwrap() + BEGIN.len(), self.text.find(END).unwrap());
        self.text.replace_range(from..to, &table);
        fs::write(&self.path, &self.text).unwrap();
        println!("wrote {}", self.path.display());
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
    let lines: Vec<String> =
        text.lines().map(|line| format!("`{}`", line.replace('`', "'").replace('|', "\\|"))).collect();
    let slow = if row.slow.is_empty() { String::new() } else { format!("<br>*{}*", row.slow) };
    format!("{exit} | {reason} | {}{slow} |", nothing.to_owned() + &lines.join("<br>"))
}

/// The time, rounded up. What is written stays while it is about true, so that a busy machine changes nothing.
fn seconds(took: Duration, before: Option<&str>) -> String {
    let took = took.as_secs_f64();
    let written = STEPS.iter().find(|step| before == Some(&format!("< {step}")));
    let stays = written.filter(|step| took < **step * 2.0 && took >= **step / 20.0);
    let step = stays.or_else(|| STEPS.iter().find(|step| took < **step));
    format!("< {}", step.unwrap_or(&STEPS[STEPS.len() - 1]))
}
