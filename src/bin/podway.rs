//! The command: read the arguments, ask the daemon, print.
//!
//! `podway as PROGRAM ...` is one of the other programs, so that the demo needs no second file.

use std::ffi::OsString;
use std::process::ExitCode;

use podway::cli::args::KubeFlags;
use podway::error::UserError;
use podway::kubeconfig::{self, ConnectionFlags, Resolved, Surroundings};
use podway::programs::Program;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if podway::cli::complete::answered(&args) {
        return ExitCode::SUCCESS;
    }
    match Program::asked_for(&args) {
        Some((program, args)) => program.run(args),
        None => command(args),
    }
}

fn command(args: Vec<OsString>) -> ExitCode {
    // A second provider in the graph would make rustls's own choice ambiguous, which panics.
    drop(rustls::crypto::ring::default_provider().install_default());
    let cli = match podway::cli::usage::read(&args) {
        Ok(cli) => cli,
        Err(code) => return ExitCode::from(code),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: podway: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(podway::cli::run(cli, resolve));
    // Not even for a thread that waits for an answer.
    runtime.shutdown_background();
    ExitCode::from(code)
}

async fn resolve(flags: &KubeFlags) -> Result<Resolved, UserError> {
    use std::io::IsTerminal as _;
    let interactive = std::io::stdin().is_terminal();
    kubeconfig::resolve(&ConnectionFlags::from(flags), &Surroundings::of_process(interactive)).await
}
