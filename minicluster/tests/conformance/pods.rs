//! Pods of minicluster without namespaces: in the store they run, and their ports are served by this process.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use podway_minicluster::api::{Boxed, Kubelet};
use podway_minicluster::resource::PODS;
use podway_minicluster::store::{Key, Store};
use podway_minicluster::strategy::{self, Part};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How pods are run.
pub enum Running {
    /// By the cluster; the container to run.
    Real(Value),
    /// By this.
    Mini(Arc<Pods>),
}

/// The sample server's ports, each of which is another one here.
pub struct Pods {
    store: Store,
    ports: BTreeMap<u16, u16>,
    _tasks: JoinSet<()>,
}

impl Pods {
    pub async fn start(store: Store) -> Pods {
        let (mut ports, mut tasks) = (BTreeMap::new(), JoinSet::new());
        for port in [8080, 9001, 9003, 9006] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            ports.insert(port, listener.local_addr().expect("an address").port());
            tasks.spawn(async move {
                let mut connections = JoinSet::new();
                while let Ok((socket, _)) = listener.accept().await {
                    connections.spawn(serve(port, socket));
                }
            });
        }
        Pods { store, ports, _tasks: tasks }
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Makes a pod run.
    pub fn run(&self, namespace: &str, name: &str) {
        let key = Key::new(&PODS, namespace, name);
        let condition = |kind: &str| json!({"type": kind, "status": "True"});
        let ran = strategy::update(&self.store, &key, None, Part::All, |pod| {
            pod["spec"]["nodeName"] = json!("node");
            pod["status"]["phase"] = json!("Running");
            pod["status"]["conditions"] = json!([condition("Ready")]);
        });
        ran.expect("the pod");
    }

    /// Changes a pod's status.
    pub fn set_phase(&self, namespace: &str, name: &str, phase: &str) {
        let key = Key::new(&PODS, namespace, name);
        let set = strategy::update(&self.store, &key, None, Part::All, |pod| {
            pod["spec"]["nodeName"] = json!("node");
            pod["status"]["phase"] = json!(phase);
        });
        set.expect("the pod");
    }
}

impl Kubelet for Pods {
    fn dial<'a>(&'a self, _: &'a str, port: u16) -> Boxed<'a, io::Result<TcpStream>> {
        Box::pin(async move {
            let port = self.ports.get(&port).ok_or(io::ErrorKind::ConnectionRefused)?;
            TcpStream::connect(("127.0.0.1", *port)).await
        })
    }
}

async fn serve(port: u16, mut socket: TcpStream) {
    match port {
        // Echoes until the end.
        9001 => {
            let (mut read, mut write) = socket.split();
            drop(tokio::io::copy(&mut read, &mut write).await);
        }
        // Counts, and tells at the end.
        9003 => {
            let count = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await.unwrap_or(0);
            drop(socket.write_all(count.to_string().as_bytes()).await);
        }
        // Resets.
        9006 => drop(socket.set_zero_linger()),
        // Answers and ends.
        _ => {
            let mut request = [0; 1024];
            drop(socket.read(&mut request).await);
            drop(socket.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok").await);
        }
    }
}
