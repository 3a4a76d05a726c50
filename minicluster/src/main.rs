//! `podway-minicluster`: a cluster as long as the standard input is open.

use std::ffi::OsString;
use std::process::ExitCode;

use podway_minicluster::cluster::serve;
use podway_minicluster::sandbox::{self, Program};

/// The word before the stages of the sandbox.
const STAGE: &str = "stage";

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let program = match Program::current([STAGE]) {
        Ok(program) => program,
        Err(error) => {
            eprintln!("error: podway-minicluster: {error}");
            return ExitCode::FAILURE;
        }
    };
    match args.split_first() {
        Some((stage, rest)) if stage == STAGE => sandbox::stage(&program, rest, serve),
        _ => sandbox::stage(&program, &["sandbox".into(), "{}".into()], serve),
    }
}
