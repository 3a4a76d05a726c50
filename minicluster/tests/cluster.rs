//! The cluster as a whole, in namespaces of its own: what its pods see of each other, and what is done to it.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test says what it expects, and how long it took"
)]

use std::time::{Duration, Instant};

use podway_minicluster::control::{Condition, Name, Settings, Signal, Target};
use podway_minicluster::handle::Handle;
use podway_minicluster::sandbox::{Program, SandboxError};
use serde_json::{Value, json};

/// More than anything takes, on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(60);

/// Says that a test was left out; fails where nothing may be.
fn skipped(why: &str) {
    assert!(std::env::var_os("PODWAY_REQUIRE_ROOT_TESTS").is_none(), "must not be left out here: {why}");
    println!("skipped: {why}");
}

/// Starts a cluster whose samples are ready; `None` where the kernel forbids it.
fn start() -> Option<Handle> {
    let program = Program::new(env!("CARGO_BIN_EXE_podway-minicluster"), ["stage"]);
    let cluster = match Handle::start(program, &Settings::default()) {
        Ok(cluster) => cluster,
        Err(error @ SandboxError::Forbidden { .. }) => {
            skipped(&format!("{error}; hint: {:?}", error.hint()));
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    cluster.wait(Condition::SamplesReady, LIMIT).unwrap();
    Some(cluster)
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

#[test]
fn all_samples_are_ready_soon() {
    let begun = Instant::now();
    let Some(cluster) = start() else { return };
    let ready = begun.elapsed();
    println!("ready after {ready:?}");
    let pods: usize = ["web", "db", "idle", "store", "edge", "lone", "host"]
        .iter()
        .map(|app| cluster.pods("demo", app).unwrap().len())
        .sum();
    assert_eq!(pods, 8);
    drop(cluster);
    println!("ended {:?} later", begun.elapsed() - ready);
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
    let begun = Instant::now();
    let restarts = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap();
    loop {
        let now = cluster.get("pods", "demo", "lone").unwrap();
        assert_eq!(now["metadata"]["uid"], before["metadata"]["uid"]);
        if restarts(&now) == 1 {
            break;
        }
        assert!(begun.elapsed() < LIMIT);
    }
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
