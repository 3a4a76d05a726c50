//! The daemon: see `podway::daemon`.

use std::process::ExitCode;

fn main() -> ExitCode {
    podway::daemon::program::run(std::env::args_os())
}
