//! `podway-minicluster`: a cluster as long as the standard input is open.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use podway_minicluster::control::Started;
use podway_minicluster::net::NodeNet;
use podway_minicluster::sandbox::{self, Inside, Program};
use serde_json::json;

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

fn serve(inside: Inside) -> ExitCode {
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
