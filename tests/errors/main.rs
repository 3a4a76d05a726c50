//! What podway says when something fails, and how soon: `docs/errors.md`, made and checked.
//!
//! ```text
//! cargo test --test errors                  runs all cases, and fails where one differs from docs/errors.md
//! cargo test --test errors -- --write       renews docs/errors.md
//! cargo test --test errors -- --only TEXT   those whose group or name holds TEXT
//! ```
//!
//! - [`cases`]: what fails, and what has to be said of it. [`case`]: the form of a case.
//! - [`world`]: a miniature cluster with a workstation, a daemon on it, and what is to be undone there.
//! - [`run`]: the rules that hold for each case. [`document`]: the table.
//! - [`far`]: servers that are not as they should be.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::allow_attributes, reason = "a test says what it expects")]
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test waits with a limit, and says what it saw and how long that took"
)]

mod case;
mod cases;
mod document;
mod far;
#[path = "../support/page.rs"]
mod page;
mod run;
#[path = "../support/stable.rs"]
mod stable;
mod world;

use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use document::Document;
use run::{Row, Seen};

/// Groups that run at a time at most, where there are as many processors: each has a cluster of its own, and is held to
/// short times.
const AT_A_TIME: usize = 3;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["far", rest @ ..] => far::serve(rest),
        _ => match Asked::of(&words) {
            Ok(asked) => asked.answer(),
            Err(wrong) => {
                eprintln!("error: errors: {wrong}\nhint: cargo test --test errors -- [--write] [--only TEXT]");
                ExitCode::from(2)
            }
        },
    }
}

#[derive(Debug, Default)]
struct Asked {
    write: bool,
    only: String,
}

impl Asked {
    fn of(words: &[&str]) -> Result<Asked, String> {
        let mut asked = Asked::default();
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            match *word {
                "--write" => asked.write = true,
                "--only" => asked.only = rest.next().ok_or("--only needs a text")?.to_string(),
                other => return Err(format!("unknown word {other:?}")),
            }
        }
        match asked.write && !asked.only.is_empty() {
            true => Err("--write renews the whole table, so it takes no --only".to_owned()),
            false => Ok(asked),
        }
    }

    fn answer(&self) -> ExitCode {
        if !nix::unistd::geteuid().is_root() {
            let required = std::env::var_os("PODWAY_REQUIRE_ROOT_TESTS").is_some();
            println!("skipped: needs root");
            return if required { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
        let began = Instant::now();
        // What cannot be set up is told with its case.
        std::panic::set_hook(Box::new(|_| ()));
        let rows = run_all(&self.only);
        let mut faults = run::faults(&rows);
        let mut document = Document::read();
        if self.write {
            document.renew(&rows);
        } else {
            faults.extend(document.differences(&rows, self.only.is_empty()));
        }
        println!();
        faults.iter().for_each(|fault| println!("FAIL  {fault}"));
        println!("{} cases in {:.0?}, {} faults", rows.len(), began.elapsed(), faults.len());
        if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Runs the groups, several at a time, and gives their rows in the order of the groups.
fn run_all(only: &str) -> Vec<Row> {
    let mut groups = cases::all();
    for group in &mut groups {
        if !group.title.contains(only) {
            group.cases.retain(|case| case.name.contains(only));
        }
    }
    groups.retain(|group| !group.cases.is_empty());
    let count = groups.len();
    let waiting = Mutex::new(groups.into_iter().enumerate());
    let done: Mutex<Vec<Vec<Row>>> = Mutex::new((0..count).map(|_| Vec::new()).collect());
    thread::scope(|scope| {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..AT_A_TIME.min(processors).min(count) {
            scope.spawn(|| {
                loop {
                    let Some((at, group)) = waiting.lock().unwrap().next() else { return };
                    let rows = run::group(&group, &|row: &Row| show(row));
                    done.lock().unwrap()[at] = rows;
                }
            });
        }
    });
    done.into_inner().unwrap().into_iter().flatten().collect()
}

fn show(row: &Row) {
    let Seen { took, exit, reason, text, .. } = &row.seen;
    let mark = if row.faults.is_empty() { "ok  " } else { "FAIL" };
    let lines: String = text.lines().map(|line| format!("          {line}\n")).collect();
    print!("{mark}  {:5.2} s  {exit:3}  {reason:18}  {}: {}\n{lines}", took.as_secs_f64(), row.group, row.name);
}
