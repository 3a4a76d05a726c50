//! The table of what was explored. Each scenario prints its line, and adds it to the file of that name in the environment
//! (`just interleave` prints that file, with a total).

use std::io::Write as _;

use super::explore::Explored;

/// Names the file.
pub const FILE: &str = "PODWAY_INTERLEAVINGS";

/// Adds a line: the running test's name and what it explored.
pub fn add(explored: &Explored) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("scenario").trim_start_matches("interleavings::");
    let Explored { interleavings, states, steps, time, .. } = explored;
    let line = format!("{interleavings:>32} {states:>9} {steps:>9} {:>7} ms  {name}\n", time.as_millis());
    print!("{line}");
    if let Some(file) = std::env::var_os(FILE) {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(file);
        // One write a line: lines of several threads do not mix.
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("the table can be written");
    }
}

/// The lines of the file, by name, with heads and a total.
pub fn whole(lines: &str) -> String {
    let mut lines: Vec<&str> = lines.lines().collect();
    lines.sort_by_key(|line| line.split_whitespace().nth(5));
    let number =
        |line: &str, column| line.split_whitespace().nth(column).and_then(|n| n.parse().ok()).unwrap_or(0_u128);
    let [ways, states, steps, ms] =
        [0, 1, 2, 3].map(|column| lines.iter().map(|line| number(line, column)).sum::<u128>());
    let head = format!("{:>32} {:>9} {:>9} {:>10}  scenario", "interleavings", "states", "steps", "time");
    let total = format!("{ways:>32} {states:>9} {steps:>9} {ms:>7} ms  total of {}", lines.len());
    [head].into_iter().chain(lines.into_iter().map(str::to_owned)).chain([total]).collect::<Vec<_>>().join("\n")
}
