//! `podway-agent`: see the library.

use std::process::ExitCode;

use podway_agent::args;
use podway_agent::server::{Agent, FlowLimits};
use tokio::signal::unix::{SignalKind, signal};

// One thread: bytes are the API server's to limit, and an idle agent stays small.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: podway-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let serve = args::parse(std::env::args().skip(1), std::env::var("PODWAY_POD_UID").ok())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let agent = Agent::bind(serve, FlowLimits::default()).await?;
    eprintln!("podway-agent {} listens on {}", env!("CARGO_PKG_VERSION"), agent.address());
    agent
        .run(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await;
    Ok(())
}
