//! The cluster as a whole, in namespaces of its own: what its pods see of each other, and what is done to it.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test says what it expects, and how long it took"
)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use podway_minicluster::control::{Condition, Name, Settings, Signal, Target};
use podway_minicluster::handle::Handle;
use podway_minicluster::sandbox::{Program, SandboxError};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_podway-minicluster");

/// An ordinary user, as everybody's machine has one.
const NOBODY: (u32, u32) = (65534, 65534);

/// More than anything takes, on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(60);

/// Says that a test was left out; fails where nothing may be.
fn skipped(why: &str) {
    assert!(std::env::var_os("PODWAY_REQUIRE_ROOT_TESTS").is_none(), "must not be left out here: {why}");
    println!("skipped: {why}");
}

/// Starts a cluster whose samples are ready; `None` where the kernel forbids it.
fn start_with(program: Program, settings: &Settings, user: Option<(u32, u32)>) -> Option<Handle> {
    let cluster = match Handle::start_as(program, settings, user) {
        Ok(cluster) => cluster,
        Err(error @ SandboxError::Forbidden { .. }) => {
            skipped(&format!("{error}; hint: {:?}", error.hint()));
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    if settings.samples {
        cluster.wait(Condition::SamplesReady, LIMIT).unwrap();
    }
    Some(cluster)
}

fn start() -> Option<Handle> {
    start_with(Program::new(BINARY, ["stage"]), &Settings::default(), None)
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

/// Asks from inside `lone` for a URL until it is answered: what is ready is on its way into routes and names.
fn fetch(cluster: &Handle, url: &str) -> Value {
    let begun = Instant::now();
    loop {
        match cluster.fetch("demo", "lone", &format!("/fetch?url={url}")) {
            Ok(body) => return serde_json::from_str(&body).unwrap_or(Value::String(body)),
            Err(error) => assert!(begun.elapsed() < LIMIT, "{url}: {error}"),
        }
    }
}

/// Processes that are in one of these namespaces.
fn processes_in(namespaces: &BTreeSet<PathBuf>) -> Vec<PathBuf> {
    let all = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let is_in = |process: &PathBuf| {
        let of = ["net", "pid"].map(|kind| fs::read_link(process.join("ns").join(kind)));
        of.into_iter().flatten().any(|namespace| namespaces.contains(&namespace))
    };
    all.filter(is_in).collect()
}

#[test]
fn all_samples_are_ready_soon_and_nothing_is_left_at_the_end() {
    let begun = Instant::now();
    let Some(cluster) = start() else { return };
    let ready = begun.elapsed();
    println!("ready after {ready:?}");
    let apps = ["web", "db", "idle", "store", "edge", "lone", "host"];
    let pods: usize = apps.iter().map(|app| cluster.pods("demo", app).unwrap().len()).sum();
    assert_eq!(pods, 8);
    let links = cluster.run(["readlink", "/proc/self/ns/net", "/proc/self/ns/pid"], LIMIT).unwrap();
    let own: BTreeSet<PathBuf> = links.out.lines().map(PathBuf::from).collect();
    assert!(own.len() == 2 && !processes_in(&own).is_empty(), "{links:?}");
    let ending = Instant::now();
    drop(cluster);
    println!("ended in {:?}", ending.elapsed());
    assert_eq!(processes_in(&own), [] as [PathBuf; 0]);
}

#[test]
fn an_ordinary_user_has_a_cluster_too() {
    if !geteuid().is_root() {
        // All other tests are those of an ordinary user then.
        return;
    }
    let directory = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    let binary = directory.path().join("podway-minicluster");
    // By another process: what a test starts meanwhile would hold a file that we write, which then cannot be started.
    assert!(Command::new("cp").arg(BINARY).arg(&binary).status().unwrap().success());
    let program = Program::new(&binary, ["stage"]);
    let Some(cluster) = start_with(program, &Settings::default(), Some(NOBODY)) else { return };
    let service = cluster.get("services", "demo", "web").unwrap();
    let address = service["spec"]["clusterIP"].as_str().unwrap();
    assert!(fetch(&cluster, &format!("http://{address}/"))["pod"].is_string());
}

#[test]
fn an_agent_is_a_process_that_can_be_stopped_and_killed() {
    let agent = ["/bin/sh", "-c", "exec sleep 1000"].map(str::to_owned).to_vec();
    let settings = Settings { samples: false, agent, ..Settings::default() };
    let Some(cluster) = start_with(Program::new(BINARY, ["stage"]), &settings, None) else { return };
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "agent", "namespace": "default"},
        "spec": {"containers": [{"name": "agent", "image": "podway-agent:dev"}]},
    });
    cluster.apply(pod).unwrap();
    cluster.wait_ready("pods", "default", "agent", LIMIT).unwrap();
    for signal in [Signal::Stop, Signal::Continue, Signal::Kill] {
        cluster.signal("default", "agent", Target::Agent, signal).unwrap();
    }
    until(|| restarts(&cluster.get("pods", "default", "agent").unwrap()) == 1);
    cluster.wait_ready("pods", "default", "agent", LIMIT).unwrap();
}

fn restarts(pod: &Value) -> u64 {
    pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap()
}

/// Asks until it is so.
fn until(mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LIMIT, "it does not become so");
    }
}

#[test]
fn a_pod_reaches_a_service_by_its_addresses_of_both_families() {
    let Some(cluster) = start() else { return };
    let service = cluster.get("services", "demo", "web").unwrap();
    let pods = cluster.pods("demo", "web").unwrap();
    let names: Vec<_> = pods.iter().map(name).collect();
    for address in service["spec"]["clusterIPs"].as_array().unwrap() {
        let address = address.as_str().unwrap();
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let answer = fetch(&cluster, &format!("http://{host}/"));
        assert!(names.contains(&answer["pod"].as_str().unwrap()), "{answer}");
        assert!(answer["local"].as_str().unwrap().starts_with(&host), "{answer}");
    }
}

#[test]
fn a_rollout_and_a_pause_replace_the_pods_behind_a_service() {
    let Some(cluster) = start() else { return };
    let service = cluster.get("services", "demo", "web").unwrap();
    let url = format!("http://{}/", service["spec"]["clusterIP"].as_str().unwrap());
    let before = cluster.pods("demo", "web").unwrap();
    fetch(&cluster, &url);
    cluster.restart("deployments", "demo", "web").unwrap();
    let begun = Instant::now();
    cluster.wait_ready("deployments", "demo", "web", LIMIT).unwrap();
    println!("restarted in {:?}", begun.elapsed());
    // A rollout is over while the last of the old pods may still be ending.
    for pod in &before {
        cluster.wait(Condition::Gone { name: Name::new("pods", "demo", name(pod)) }, LIMIT).unwrap();
    }
    let after = cluster.pods("demo", "web").unwrap();
    assert_eq!(after.len(), 2);
    assert!(before.iter().all(|old| after.iter().all(|new| name(old) != name(new))));
    let answer = fetch(&cluster, &url);
    assert!(after.iter().any(|pod| name(pod) == answer["pod"]), "{answer}");
    cluster.scale("deployments", "demo", "web", 0).unwrap();
    cluster.wait_ready("deployments", "demo", "web", LIMIT).unwrap();
    for pod in &after {
        let gone = Condition::Gone { name: Name::new("pods", "demo", name(pod)) };
        cluster.wait(gone, LIMIT).unwrap();
    }
    cluster.scale("deployments", "demo", "web", 2).unwrap();
    cluster.wait_ready("deployments", "demo", "web", LIMIT).unwrap();
    fetch(&cluster, &url);
}

#[test]
fn a_killed_container_comes_back_in_its_pod() {
    let Some(cluster) = start() else { return };
    let before = cluster.get("pods", "demo", "lone").unwrap();
    cluster.signal("demo", "lone", Target::Containers, Signal::Kill).unwrap();
    until(|| {
        let now = cluster.get("pods", "demo", "lone").unwrap();
        assert_eq!(now["metadata"]["uid"], before["metadata"]["uid"]);
        restarts(&now) == 1
    });
    cluster.wait_ready("pods", "demo", "lone", LIMIT).unwrap();
    assert!(cluster.signal("demo", "lone", Target::Agent, Signal::Kill).is_err(), "it has no agent");
}

#[test]
fn the_workstation_reaches_the_api_and_no_pod() {
    let Some(cluster) = start() else { return };
    let pod = cluster.pods("demo", "web").unwrap().remove(0);
    let address = pod["status"]["podIP"].as_str().unwrap();
    let connect = |address: &str, port: &str| {
        let script = format!("exec 3<>/dev/tcp/{address}/{port}");
        cluster.run(["timeout", "5", "bash", "-c", &script], LIMIT).unwrap().status.success()
    };
    assert!(connect("192.0.2.1", "6443"));
    assert!(!connect(address, "8080"));
    let path = cluster.kubeconfig("portforward-only").unwrap();
    let kubeconfig = cluster.run(["cat", &path], LIMIT).unwrap().out;
    assert!(kubeconfig.contains("https://192.0.2.1:6443"), "{kubeconfig}");
    assert_eq!(cluster.run(["stat", "-c", "%a", &path], LIMIT).unwrap().out, "600\n");
}

#[test]
fn several_clusters_run_at_a_time_and_know_nothing_of_each_other() {
    let Some(first) = start() else { return };
    let Some(second) = start() else { return };
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "mine"}});
    first.apply(namespace).unwrap();
    assert!(first.get("namespaces", "", "mine").unwrap().is_object());
    assert!(second.get("namespaces", "", "mine").unwrap().is_null());
    drop(first);
    assert!(second.get("pods", "demo", "lone").unwrap().is_object());
}
