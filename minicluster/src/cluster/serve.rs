//! The cluster as the process inside a sandbox: all of it started, then questions answered until the input ends.

use std::error::Error;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{Cluster, Options, new_store};
use crate::control::{Settings, Started, lines};
use crate::kubelet::{self, Kubelet};
use crate::net::{API, NetNs, NodeNet};
use crate::pod_server::{self, Identity, Log, Process};
use crate::rbac::profiles::Profile;
use crate::sandbox::{Inside, Program};
use crate::{clock, controllers, dns};

/// The port of the API server on the LAN.
const API_PORT: u16 = 6443;

/// The port of the service `kubernetes`, whose address is one of the node's: addresses are not translated here.
const SERVICE_PORT: u16 = 443;

/// Where kubeconfigs are, on the workstation. Its /run is its own.
const KUBECONFIGS: &str = "/run/podway-minicluster";

/// Runs the cluster in the namespaces that the calling process is in, until its standard input ends.
///
/// Must be called before there is another thread.
pub fn serve(inside: Inside) -> ExitCode {
    match run(&inside) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut cause = error.to_string();
            let mut source = error.source();
            while let Some(error) = source {
                cause = format!("{cause}: {error}");
                source = error.source();
            }
            // Whoever started it may be gone.
            writeln!(io::stdout(), "{}", json!({"error": {"failed": "the cluster", "cause": cause}})).ok();
            ExitCode::FAILURE
        }
    }
}

fn run(inside: &Inside) -> Result<(), Box<dyn Error>> {
    let settings: Settings = serde_json::from_value(inside.settings.clone())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(work(inside, settings))
}

async fn work(inside: &Inside, settings: Settings) -> Result<(), Box<dyn Error>> {
    let node = NodeNet::start(inside.workstation.net()).await?;
    let store = new_store();
    let (names, site) = (dns::serve(&store)?, node.site().clone());
    let (agent, words) = settings.agent.split_first().map_or(("/nowhere/podway-agent", &[][..]), |(a, w)| (a, w));
    let options = kubelet::Options { store: store.clone(), node, agent: Program::new(agent, words), clock: clock::now };
    let (kubelet, kubelets) = Kubelet::new(options);
    let mut tasks = JoinSet::new();
    tasks.spawn(kubelets);
    tasks.spawn(names);
    serve_site(&site)?;
    let cluster = Cluster::start(Options {
        store,
        runtime: Arc::new(kubelet),
        controllers: controllers::all,
        listeners: listeners().await?,
        nodes: settings.nodes,
        samples: settings.samples,
    })?;
    let cluster = Arc::new(cluster);
    let texts = Profile::ALL.map(|profile| (path(profile), cluster.kubeconfig(profile.name()).unwrap_or_default()));
    inside.workstation.within(|| texts.iter().try_for_each(|(path, text)| write(path, text)))?;
    let output = lines::write(io::stdout())?;
    let kubeconfig = path(Profile::Admin);
    let started = Started { kubeconfig, server: cluster.api().url(), workstation: inside.enter() };
    output.send(json!(started).to_string()).await?;
    let questions = lines::read(BufReader::new(io::stdin()))?;
    let asked = Arc::clone(&cluster);
    let answering = lines::answer(questions, output, move |request| {
        let cluster = Arc::clone(&asked);
        async move { cluster.ask(request, known).await }
    });
    tokio::select! {
        () = answering => (),
        ended = tasks.join_next() => tracing::error!(?ended, "the kubelets ended"),
    }
    Ok(())
}

/// The sample server elsewhere, which pods reach by a name that the cluster's DNS knows.
fn serve_site(site: &NetNs) -> io::Result<()> {
    let identity = Identity { pod: "ledger".to_owned(), ..Identity::default() };
    // Ends with this process.
    drop(Process::start("ledger", site, |started| async {
        match pod_server::serve(identity, Log::default(), started).await {
            Ok(()) => 0,
            Err(error) => {
                tracing::error!(%error, "the server elsewhere");
                1
            }
        }
    })?);
    Ok(())
}

/// On the LAN, and on the node for pods that call the service `kubernetes`.
async fn listeners() -> io::Result<Vec<TcpListener>> {
    let lan: [SocketAddr; 2] = [(API.v4, API_PORT).into(), (API.v6, API_PORT).into()];
    let service: SocketAddr = (Ipv4Addr::UNSPECIFIED, SERVICE_PORT).into();
    let mut listeners = Vec::new();
    for address in lan.into_iter().chain([service]) {
        listeners.push(TcpListener::bind(address).await?);
    }
    Ok(listeners)
}

/// Where a user's kubeconfig is on the workstation.
fn path(profile: Profile) -> String {
    format!("{KUBECONFIGS}/{}.kubeconfig", profile.name())
}

fn known(user: &str) -> Result<String, String> {
    let profile = Profile::ALL.into_iter().find(|profile| profile.name() == user);
    let names = || Profile::ALL.map(Profile::name).join(", ");
    profile.map(path).ok_or_else(|| format!("no user {user}: there are {}", names()))
}

/// Writes what only its owner may read.
fn write(path: &str, text: &str) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(KUBECONFIGS)?;
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}
