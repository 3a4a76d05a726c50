//! The command: read the arguments, ask the daemon, print.

use std::process::ExitCode;

use clap::Parser as _;
use podway::cli::args::{Cli, KubeFlags};
use podway::error::UserError;
use podway::kubeconfig::{self, ConnectionFlags, Resolved, Surroundings};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // A second provider in the graph would make rustls's own choice ambiguous, which panics.
    drop(rustls::crypto::ring::default_provider().install_default());
    ExitCode::from(podway::cli::run(Cli::parse(), resolve).await as u8)
}

async fn resolve(flags: &KubeFlags) -> Result<Resolved, UserError> {
    use std::io::IsTerminal as _;
    let interactive = std::io::stdin().is_terminal();
    kubeconfig::resolve(&ConnectionFlags::from(flags), &Surroundings::of_process(interactive)).await
}
