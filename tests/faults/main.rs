//! The real daemon on a miniature cluster that fails: what `status` shows meanwhile, how soon, and how soon all is well
//! again: the table of `docs/reliability.md`, made and checked.
//!
//! ```text
//! cargo test --test faults                    runs all rows, and fails where one misses its bar, or shows something else
//! cargo test --test faults -- --bars          the same, but what `status` shows otherwise is only told
//! cargo test --test faults -- --write         renews docs/reliability.md
//! cargo test --test faults -- --only TEXT     those whose group or fault holds TEXT
//! cargo test --test faults -- --connects 1000 so many connects at random delays, instead of what fits into the run
//! ```
//!
//! - [`rows`]: the faults. [`row`]: the form of one. [`run`]: clusters for them, several at a time.
//! - [`rig`]: a connection, and what is done to it. [`look`]: its status, asked for all the time. [`flows`]: programs.
//! - [`document`]: the table.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::allow_attributes, reason = "a test says what it expects")]
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a test waits with a limit, says how long it took, and names what it expects"
)]

#[path = "../support/allowed.rs"]
mod allowed;
#[allow(dead_code, reason = "what others ask for")]
#[path = "../whole/client.rs"]
mod client;
#[allow(dead_code, reason = "what others ask for")]
#[path = "../whole/login.rs"]
mod login;
#[path = "../support/page.rs"]
mod page;
#[path = "../support/stable.rs"]
mod stable;
#[path = "../whole/traces.rs"]
mod traces;
#[path = "../whole/transfers.rs"]
mod transfers;
#[allow(dead_code, reason = "what others ask for")]
#[path = "../whole/workstation.rs"]
mod workstation;
#[allow(dead_code, reason = "what others ask for")]
#[path = "../whole/world.rs"]
mod world;

mod document;
mod flows;
mod look;
mod rig;
mod row;
mod rows;
mod run;

use std::process::ExitCode;
use std::time::Instant;

use document::Document;

fn main() -> ExitCode {
    if workstation::serves() {
        return ExitCode::SUCCESS;
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    match Asked::of(&args) {
        Ok(asked) => asked.answer(),
        Err(wrong) => {
            eprintln!("error: faults: {wrong}");
            eprintln!("hint: cargo test --test faults -- [--write] [--bars] [--only TEXT] [--connects COUNT]");
            ExitCode::from(2)
        }
    }
}

/// What is asked for on the command line.
#[derive(Debug, Default)]
pub struct Asked {
    write: bool,
    bars: bool,
    only: String,
    /// How many connects at random delays.
    pub connects: Option<usize>,
}

impl Asked {
    fn of(words: &[String]) -> Result<Asked, String> {
        let mut asked = Asked::default();
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            match word.as_str() {
                "--write" => asked.write = true,
                "--bars" => asked.bars = true,
                "--only" => asked.only.clone_from(rest.next().ok_or("--only needs a text")?),
                "--connects" => {
                    let count = rest.next().and_then(|count| count.parse().ok());
                    asked.connects = Some(count.ok_or("--connects needs a number")?);
                }
                other => return Err(format!("unknown word {other:?}")),
            }
        }
        match asked.write && (!asked.only.is_empty() || asked.connects.is_some()) {
            true => Err("--write renews the whole table of an everyday run, so it stands alone".to_owned()),
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
        // What goes wrong is told with its row.
        std::panic::set_hook(Box::new(|_| ()));
        let rows = run::all(rows::all(self), &self.only);
        let mut wrong: Vec<String> =
            rows.iter().flat_map(|row| row.wrong.iter().map(|why| format!("{}: {why}", row.name()))).collect();
        let mut document = Document::read();
        if self.write {
            document.renew(&rows);
        } else {
            let (shown, others) = document.differences(&rows, self.only.is_empty());
            wrong.extend(others);
            match self.bars {
                true => shown.iter().for_each(|other| println!("note  {other}")),
                false => wrong.extend(shown),
            }
        }
        println!();
        wrong.iter().for_each(|wrong| println!("FAIL  {wrong}"));
        println!("{} faults in {:.0?}, {} wrong", rows.len(), began.elapsed(), wrong.len());
        if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
