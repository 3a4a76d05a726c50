//! Where a case runs: minicluster, or a real cluster, in a namespace of its own.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use podway_minicluster::api::{Credential, Options, Server, User};
use podway_minicluster::faults::Faults;
use podway_minicluster::rbac::profiles;
use podway_minicluster::resource::{NAMESPACES, NODES, SERVICE_CIDRS};
use podway_minicluster::store::{Key, Store};
use podway_minicluster::{clock, strategy};
use ring::rand::SecureRandom as _;
use serde_json::{Value, json};
use similar::TextDiff;
use tokio::net::TcpListener;

use super::client::{Client, PATIENCE};
use super::observe::Log;
use super::pods::{Pods, Running};

/// A cluster to look at.
pub struct World {
    pub client: Client,
    /// The same server, as nobody.
    pub anonymous: Client,
    /// The namespace of this case.
    pub namespace: String,
    pub log: Log,
    pub pods: Running,
    server: Option<Server>,
}

type Case = for<'a> fn(&'a mut World) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Runs a case and compares what it saw.
pub async fn check(name: &str, case: Case) {
    let mut world = match std::env::var("PODWAY_CONFORMANCE_KUBECONFIG") {
        Ok(path) => World::real(&path).await,
        Err(_) => World::mini().await,
    };
    let namespace = world.namespace.clone();
    world.log.stands_for(&namespace, "NS");
    let client = world.client.clone();
    let ran = AssertUnwindSafe(case(&mut world)).catch_unwind().await;
    // Also after a failure nothing is left behind.
    client.delete(&format!("/api/v1/namespaces/{namespace}")).await;
    if let Err(panic) = ran {
        std::panic::resume_unwind(panic);
    }
    let World { log, server, .. } = world;
    if let Some(server) = server {
        server.stop().await;
    }
    compare(name, &log.text());
}

fn compare(name: &str, seen: &str) {
    // Where cargo runs it: a build may be shared by several checkouts.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs this");
    let path = PathBuf::from(package).join(format!("tests/conformance/observations/{name}.txt"));
    if std::env::var("PODWAY_CONFORMANCE_RECORD").is_ok_and(|value| value == "1") {
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        std::fs::write(&path, seen).expect("written");
        return;
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("no observation of {name}: {error}"));
    assert!(!seen.is_empty(), "nothing was looked at");
    if wanted != seen {
        panic!("{name} differs (- real cluster, + seen)\n{}", difference(&wanted, seen));
    }
}

/// Lines that differ, with those around them.
fn difference(wanted: &str, seen: &str) -> String {
    let lines = TextDiff::from_lines(wanted, seen);
    lines.unified_diff().context_radius(6).missing_newline_hint(false).to_string()
}

fn own_namespace() -> String {
    let mut bytes = [0; 4];
    ring::rand::SystemRandom::new().fill(&mut bytes).expect("random numbers");
    format!("podway-conformance-{:08x}", u32::from_ne_bytes(bytes))
}

impl World {
    async fn real(kubeconfig: &str) -> World {
        let text = std::fs::read_to_string(kubeconfig).expect("the kubeconfig");
        let client = Client::of_kubeconfig(&text);
        let config: Value = serde_saphyr::from_str(&text).expect("YAML");
        let ca = config["clusters"][0]["cluster"]["certificate-authority-data"].as_str().expect("a CA");
        use base64::Engine as _;
        let ca = base64::engine::general_purpose::STANDARD.decode(ca).expect("base64");
        let anonymous = client.anonymous(&String::from_utf8(ca).expect("text"));
        let namespace = own_namespace();
        let made = client.json("POST", "/api/v1/namespaces", &json!({"metadata": {"name": namespace}})).await;
        assert_eq!(made.code, 201, "{:?}", made.json());
        // Pods are refused until it is there.
        let account = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default");
        eventually("the service account", async || client.get(&account).await.code == 200).await;
        let sample = client.get("/apis/apps/v1/namespaces/demo/deployments/web").await.json();
        let pods = Running::Real(sample["spec"]["template"]["spec"]["containers"][0].clone());
        World { client, anonymous, namespace, log: Log::default(), pods, server: None }
    }

    async fn mini() -> World {
        let store = Store::new(clock::rfc3339);
        let namespace = own_namespace();
        for name in ["default", "kube-system", "demo", &namespace] {
            strategy::create(&store, &Key::new(&NAMESPACES, "", name), json!({})).expect("a namespace");
        }
        let ranges = json!({"spec": {"cidrs": ["10.43.0.0/16"]}});
        strategy::create(&store, &Key::new(&SERVICE_CIDRS, "", "kubernetes"), ranges).expect("ranges");
        strategy::create(&store, &Key::new(&NODES, "", "node"), json!({})).expect("a node");
        for (key, object) in profiles::system() {
            strategy::create(&store, &key, object).expect("rights");
        }
        let pods = Arc::new(Pods::start(store.clone()).await);
        let options = Options {
            store,
            kubelet: Arc::clone(&pods) as Arc<dyn podway_minicluster::api::Kubelet>,
            faults: Faults::new(),
            users: vec![User::new("admin", ["system:masters"])],
            names: Vec::new(),
            websocket_needs_create: false,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let server = Server::start(options, vec![listener]).expect("a server");
        let kubeconfig = server.kubeconfig("admin", Credential::Certificate, "default").expect("a kubeconfig");
        let client = Client::of_kubeconfig(&kubeconfig);
        let anonymous = client.anonymous(server.ca_pem());
        World { client, anonymous, namespace, log: Log::default(), pods: Running::Mini(pods), server: Some(server) }
    }

    /// The path of a collection in the case's namespace: `services`, `apps/deployments`.
    pub fn path(&self, kind: &str) -> String {
        match kind.split_once('/') {
            Some((group, plural)) => format!("/apis/{group}/v1/namespaces/{}/{plural}", self.namespace),
            None => format!("/api/v1/namespaces/{}/{kind}", self.namespace),
        }
    }

    /// Lets the cluster forget what was. A real one forgets its first versions ten minutes after its API server's start
    /// (`--etcd-compaction-interval`, twice), which is waited for.
    pub async fn forget(&self) {
        match &self.pods {
            Running::Mini(pods) => pods.store().compact(),
            Running::Real(_) => {
                let first = format!("{}?resourceVersion=1&resourceVersionMatch=Exact", self.path("services"));
                within(OBLIVION, "forgotten version", async || self.client.get(&first).await.code == 410).await;
            }
        }
    }

    /// Version 1, which is older than all objects, of a kind of which a watch can no longer begin there. A real API
    /// server keeps the last hundred changes of each kind; its nodes renew their leases every ten seconds.
    pub async fn forgotten_version(&self) -> String {
        match &self.pods {
            Running::Mini(pods) => {
                pods.store().compact();
                format!("{}?watch=1&resourceVersion=1", self.path("pods"))
            }
            Running::Real(_) => {
                let first = "/apis/coordination.k8s.io/v1/leases?watch=1&resourceVersion=1".to_owned();
                within(OBLIVION, "forgotten version", async || {
                    let event = self.client.watch(&first).await.soon(PATIENCE).await;
                    event.is_some_and(|event| event["type"] == "ERROR")
                })
                .await;
                first
            }
        }
    }

    /// Makes an object, which has to succeed.
    pub async fn make(&self, kind: &str, object: &Value) -> Value {
        let made = self.client.json("POST", &self.path(kind), object).await;
        assert_eq!(made.code, 201, "{:#}", made.json());
        made.json()
    }

    /// A running pod of the sample server.
    pub async fn run_pod(&self, name: &str) -> Value {
        let mut container = json!({"name": "server", "image": "sample"});
        if let Running::Real(sample) = &self.pods {
            for field in ["image", "args", "command", "env", "imagePullPolicy"] {
                if let Some(value) = sample.get(field) {
                    container[field] = value.clone();
                }
            }
        }
        let spec = json!({"containers": [container], "terminationGracePeriodSeconds": 1});
        let pod = self.make("pods", &json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec})).await;
        if let Running::Mini(pods) = &self.pods {
            pods.run(&self.namespace, name);
        }
        let path = format!("{}/{name}", self.path("pods"));
        eventually("a running pod", async || {
            let pod = self.client.get(&path).await.json();
            let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
        })
        .await;
        pod
    }
}

/// How long a real cluster may remember, and a little more.
const OBLIVION: Duration = Duration::from_secs(720);

/// Waits for a condition.
pub async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    within(2 * PATIENCE, what, holds).await;
}

async fn within(limit: Duration, what: &str, holds: impl AsyncFn() -> bool) {
    let mut pause = Duration::from_millis(50);
    let wait = async {
        while !holds().await {
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(limit / 200);
        }
    };
    tokio::time::timeout(limit, wait).await.unwrap_or_else(|_| panic!("no {what} in time"));
}
