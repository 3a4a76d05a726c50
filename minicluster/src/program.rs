//! The cluster's own process, once it is in its sandbox.

use std::io::Write as _;
use std::process::ExitCode;

use serde_json::json;

use crate::control::Started;
use crate::net::NodeNet;
use crate::sandbox::Inside;

/// Runs the cluster until the standard input ends.
pub fn serve(inside: Inside) -> ExitCode {
    match run(&inside) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(std::io::stdout(), "{}", json!({"error": {"failed": "the cluster", "cause": error.to_string()}}))
                .ok();
            ExitCode::FAILURE
        }
    }
}

fn run(inside: &Inside) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let _node = runtime.block_on(NodeNet::start(inside.workstation.net()))?;
    let started = Started { kubeconfig: String::new(), server: String::new(), workstation: inside.enter() };
    writeln!(std::io::stdout(), "{}", json!(started))?;
    std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink())?;
    Ok(())
}
