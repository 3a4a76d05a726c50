//! The program: arguments, signals, the agent, an exit code.

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use crate::args;
use crate::server::{Agent, FlowLimits};

/// What bulk flows have in front of carriers, in bytes.
const KEPT_FREE: i32 = 1 << 20;

/// How an agent ends that cannot serve: EX_OSERR of sysexits.h. Not 1, with which runtimes end where they could not run a
/// program at all; whoever placed it tells them apart by that.
pub const CANNOT_SERVE: u8 = 71;

/// Runs the agent until a signal or its own rules end it. `args` are those after the program's name. Must be called
/// outside any runtime.
pub fn run(args: impl IntoIterator<Item = String>) -> ExitCode {
    podway_tunnel::heap::keep_freed(KEPT_FREE);
    // One thread: bytes are the API server's to limit, and an idle agent stays small.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(serve(args)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: podway-agent: {error:#}");
            ExitCode::from(CANNOT_SERVE)
        }
    }
}

async fn serve(args: impl IntoIterator<Item = String>) -> anyhow::Result<()> {
    let serve = args::parse(args, std::env::var("PODWAY_POD_UID").ok())?;
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
