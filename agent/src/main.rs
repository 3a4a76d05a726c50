//! `podway-agent`: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    podway_agent::program::run(std::env::args().skip(1))
}
