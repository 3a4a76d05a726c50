//! A page of the documentation with a table that a run of tests wrote, between two markers.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Seconds that are told apart.
const STEPS: [f64; 11] = [0.1, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 15.0, 25.0, 35.0, 45.0];

pub struct Page {
    path: PathBuf,
    text: String,
    /// Where the table is.
    from: usize,
    to: usize,
}

impl Page {
    /// Of that name, written by that recipe.
    pub fn read(name: &str, recipe: &str) -> Page {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("docs/{name}.md"));
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let begin = format!("<!-- {name}: what follows is written by `just {recipe} --write` -->\n");
        let end = format!("<!-- {name}: end -->\n");
        let (Some(from), Some(to)) = (text.find(&begin), text.find(&end)) else {
            panic!("{} has no markers", path.display());
        };
        Page { path, from: from + begin.len(), to, text }
    }

    /// What is between the markers.
    pub fn table(&self) -> &str {
        &self.text[self.from..self.to]
    }

    /// The rows that are there: heading, and cells.
    pub fn rows(&self) -> Vec<(String, Vec<String>)> {
        let mut heading = String::new();
        let mut rows = Vec::new();
        for line in self.table().lines() {
            if let Some(title) = line.strip_prefix("## ") {
                heading = title.to_owned();
            }
            // A cell has no bar but an escaped one.
            if let Some(cells) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) {
                rows.push((heading.clone(), cells.split(" | ").map(str::to_owned).collect()));
            }
        }
        rows
    }

    /// Writes another table.
    pub fn renew(&mut self, table: &str) {
        self.text.replace_range(self.from..self.to, table);
        self.to = self.from + table.len();
        fs::write(&self.path, &self.text).unwrap();
        println!("wrote {}", self.path.display());
    }
}

/// A time, rounded up. What is written stays while it is about true, so that a busy machine changes nothing.
pub fn seconds(took: Duration, before: Option<&str>) -> String {
    let took = took.as_secs_f64();
    let written = STEPS.iter().find(|step| before == Some(&format!("< {step}")));
    let stays = written.filter(|step| took < **step * 2.0 && took >= **step / 20.0);
    let step = stays.or_else(|| STEPS.iter().find(|step| took < **step));
    format!("< {}", step.unwrap_or(&STEPS[STEPS.len() - 1]))
}

/// Text of podway's as a cell.
pub fn cell(text: &str) -> String {
    let lines: Vec<String> =
        text.lines().map(|line| format!("`{}`", line.replace('`', "'").replace('|', "\\|"))).collect();
    lines.join("<br>")
}
