//! The cluster's own process, once it is in its sandbox.

use std::io::{self, Write as _};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

use serde_json::json;
use tokio::net::TcpListener;

use crate::cluster::{Cluster, Options, new_store};
use crate::control::{Settings, Started, lines};
use crate::kubelet::{self, Kubelet};
use crate::net::{API, NodeNet};
use crate::sandbox::{Inside, Program, Workstation};
use crate::{clock, controllers};

/// Where kubeconfigs are, on the workstation.
const KUBECONFIGS: &str = "/run/minicluster";
/// The usual port.
const PORT: u16 = 6443;

/// Runs the cluster until the standard input ends.
pub fn serve(inside: Inside) -> ExitCode {
    match run(&inside) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(io::stdout(), "{}", json!({"error": {"failed": "the cluster", "cause": error.to_string()}})).ok();
            ExitCode::FAILURE
        }
    }
}

fn run(inside: &Inside) -> Result<(), Box<dyn std::error::Error>> {
    let settings: Settings = serde_json::from_value(inside.settings.clone())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let node = NodeNet::start(inside.workstation.net()).await?;
        let listeners = vec![TcpListener::bind((API.v4, PORT)).await?, TcpListener::bind((API.v6, PORT)).await?];
        let store = new_store();
        let agent = match settings.agent.split_first() {
            Some((path, words)) => Program::new(path, words),
            None => Program::new("false", Vec::<String>::new()),
        };
        let options = kubelet::Options { store: store.clone(), node, agent, clock: clock::now };
        let (kubelet, work) = Kubelet::new(options);
        let kubelets = tokio::spawn(work);
        let cluster = Arc::new(Cluster::start(Options {
            store,
            runtime: Arc::new(kubelet),
            controllers: controllers::all,
            listeners,
            nodes: settings.nodes,
            samples: settings.samples,
        })?);
        let path = kubeconfig(&cluster, &inside.workstation, "admin")?;
        let started = Started { kubeconfig: path, server: cluster.api().url(), workstation: inside.enter() };
        writeln!(io::stdout(), "{}", json!(started))?;
        let (questions, answers) = (lines::read(io::BufReader::new(io::stdin()))?, lines::write(io::stdout())?);
        let workstation = inside.workstation.clone();
        lines::answer(questions, answers, move |request| {
            let (cluster, workstation) = (Arc::clone(&cluster), workstation.clone());
            async move {
                let of_user = |user: &str| kubeconfig(&cluster, &workstation, user).map_err(|error| error.to_string());
                cluster.ask(request, of_user).await
            }
        })
        .await;
        kubelets.abort();
        Ok(())
    })
}

fn kubeconfig(cluster: &Cluster, workstation: &Workstation, user: &str) -> io::Result<String> {
    let text = cluster.kubeconfig(user).ok_or_else(|| io::Error::other(format!("no user {user}")))?;
    let path = format!("{KUBECONFIGS}/{user}");
    let mut command = Command::new("sh");
    command.args(["-c", "umask 077 && mkdir -p \"$1\" && cat >\"$2\"", "sh", KUBECONFIGS, &path]);
    let mut child = workstation.spawn(command.stdin(Stdio::piped()))?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(text.as_bytes())?;
    }
    match child.wait()?.success() {
        true => Ok(path),
        false => Err(io::Error::other("the workstation's /run cannot be written")),
    }
}
