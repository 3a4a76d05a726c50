//! Pods on the machine, with controllers and services, in namespaces of the test's own; needs the right to make them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;
use crate::api::Kubelet as _;
use crate::cluster::new_store;
use crate::net::tests::{dial, on_a_node};
use crate::net::{LEDGER, NetNs};
use crate::object::{self, list, text};
use crate::resource::{PODS, SERVICES};
use crate::store::Key;
use crate::strategy::{self, Deletion, Part};
use crate::{clock, controllers, manifests};

const LIMIT: Duration = Duration::from_secs(20);

struct Mini {
    store: Store,
    kubelet: Kubelet,
    node: NodeNet,
    _tasks: JoinSet<()>,
}

impl Mini {
    /// A cluster with its samples, whose agent is a shell's script.
    fn start(node: &NodeNet, agent: Program) -> Mini {
        let store = new_store();
        let options = Options { store: store.clone(), node: node.clone(), agent, clock: clock::now };
        let (kubelet, work) = Kubelet::new(options);
        let mut tasks = JoinSet::new();
        tasks.spawn(work);
        tasks.spawn(controllers::run(store.clone(), clock::now, controllers::all));
        let objects = manifests::system().into_iter().chain([manifests::node(1, &clock::rfc3339())]);
        for (key, object) in objects.chain(manifests::samples()) {
            strategy::create(&store, &key, object).unwrap();
        }
        Mini { store, kubelet, node: node.clone(), _tasks: tasks }
    }

    /// Waits until it holds of the objects.
    async fn until<T>(&self, what: &str, mut holds: impl FnMut(&Store) -> Option<T>) -> T {
        let mut revisions = self.store.revisions();
        let all = async {
            loop {
                if let Some(found) = holds(&self.store) {
                    return found;
                }
                revisions.changed().await.unwrap();
            }
        };
        match timeout(LIMIT, all).await {
            Ok(found) => found,
            Err(_) => panic!("never: {what}\n{:#?}", self.store.list(&PODS, None).1),
        }
    }

    async fn ready(&self, app: &str, count: usize) -> Vec<Value> {
        self.until(&format!("{count} of {app} are ready"), |store| {
            let pods = store.list(&PODS, None).1;
            let own = pods.iter().filter(|pod| object::label(pod, "app") == Some(app));
            let ready: Vec<Value> =
                own.filter(|pod| controllers::pods::is_ready(pod)).map(|pod| Value::clone(pod)).collect();
            (ready.len() == count).then_some(ready)
        })
        .await
    }

    /// The pod `lone`, with a container added that runs the agent.
    async fn with_agent(&self, args: &[&str]) -> Value {
        let pod = self.ready("lone", 1).await.remove(0);
        let container = json!({
            "name": "agent", "image": "podway-agent:dev", "args": args,
            "env": [{"name": "PODWAY_POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}],
            "securityContext": {"runAsUser": 65532, "runAsGroup": 65532, "runAsNonRoot": true, "allowPrivilegeEscalation": false},
        });
        let key = Key::new(&PODS, "demo", "lone");
        strategy::update(&self.store, &key, None, Part::All, |pod| {
            pod["spec"]["ephemeralContainers"] = json!([container])
        })
        .unwrap();
        pod
    }

    async fn agent_state(&self, wanted: &str) -> Value {
        self.until(&format!("the agent is {wanted}"), |store| {
            let pod = store.get(&Key::new(&PODS, "demo", "lone"))?;
            let state = pod["status"]["ephemeralContainerStatuses"][0]["state"].get(wanted)?;
            Some(state.clone())
        })
        .await
    }
}

fn address(pod: &Value, n: usize) -> IpAddr {
    text(&list(pod, "/status/podIPs")[n], "/ip").parse().unwrap()
}

async fn get(from: &NetNs, to: SocketAddr, path: &str) -> io::Result<Value> {
    let mut stream = dial(from, to).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut text = String::new();
    timeout(LIMIT, stream.read_to_string(&mut text)).await.unwrap()?;
    Ok(serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap_or(json!(text)))
}

fn shell(script: &str) -> Program {
    Program::new("/bin/sh", ["-c", script, "agent"])
}

#[test]
fn all_samples_become_ready_and_their_services_lead_to_them() {
    on_a_node(|node, _| async move {
        let mini = Mini::start(&node, shell("exit 0"));
        for (app, count) in [("web", 2), ("db", 1), ("store", 2), ("edge", 1), ("lone", 1), ("host", 1), ("api", 1)] {
            mini.ready(app, count).await;
        }
        let lone = mini.ready("lone", 1).await.remove(0);
        let from = mini.kubelet.0.namespace(object::uid(&lone)).unwrap();
        let web = mini.store.get(&Key::new(&SERVICES, "demo", "web")).unwrap();
        let idle = mini.store.get(&Key::new(&SERVICES, "demo", "idle")).unwrap();
        for n in 0..2 {
            let of =
                |service: &Value| -> IpAddr { list(service, "/spec/clusterIPs")[n].as_str().unwrap().parse().unwrap() };
            let own = address(&lone, n);
            // Services follow what is ready, soon.
            let answer = async {
                loop {
                    if let Ok(answer) = get(&from, SocketAddr::new(of(&web), 80), "/").await {
                        return answer;
                    }
                    tokio::task::yield_now().await;
                }
            };
            let answer = timeout(LIMIT, answer).await.unwrap();
            assert!(answer["pod"].as_str().unwrap().starts_with("web-"), "{answer}");
            let remote: SocketAddr = answer["remote"].as_str().unwrap().parse().unwrap();
            assert_eq!(remote.ip(), own, "the caller's own address");
            let error = dial(&from, SocketAddr::new(of(&idle), 80)).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "nobody is behind it");
        }
        let host = mini.ready("host", 1).await.remove(0);
        let answer = get(&from, SocketAddr::new(address(&host, 0), 8080), "/").await.unwrap();
        assert_eq!(answer["pod"], "host");
    });
}

#[test]
fn a_port_forward_reaches_the_pods_own_loopback_and_says_why_not() {
    on_a_node(|node, _| async move {
        let mini = Mini::start(&node, shell("exit 0"));
        for app in ["lone", "host"] {
            let pod = mini.ready(app, 1).await.remove(0);
            let mut stream = mini.kubelet.dial(object::uid(&pod), 9005).await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            stream.read_exact(&mut [0; 5]).await.unwrap();
            let error = mini.kubelet.dial(object::uid(&pod), 81).await.unwrap_err().to_string();
            assert!(error.contains("failed to connect to localhost:81 inside namespace"), "{error}");
            assert!(error.contains("IPv4: dial tcp4 127.0.0.1:81: connect: connection refused"), "{error}");
        }
        let error = mini.kubelet.dial("no-such-pod", 80).await.unwrap_err();
        assert_eq!(error.to_string(), "the pod runs on no node");
    });
}

#[test]
fn a_killed_container_starts_again_and_a_deleted_pod_is_replaced() {
    on_a_node(|node, _| async move {
        let mini = Mini::start(&node, shell("exit 0"));
        let lone = mini.ready("lone", 1).await.remove(0);
        let uid = object::uid(&lone).to_owned();
        assert!(mini.kubelet.signal(&uid, Target::Agent, Signal::Kill).is_err());
        mini.kubelet.signal(&uid, Target::Containers, Signal::Kill).unwrap();
        mini.until("it was started again", |store| {
            let pod = store.get(&Key::new(&PODS, "demo", "lone"))?;
            let container = &pod["status"]["containerStatuses"][0];
            (container["restartCount"] == 1 && container["ready"] == true).then_some(())
        })
        .await;
        let before = mini.ready("web", 2).await;
        let key = object::key(&before[0]).unwrap();
        strategy::delete(&mini.store, &key, &Deletion::default(), clock::now()).unwrap();
        mini.until("it is gone and replaced", |store| {
            let pods = store.list(&PODS, Some("demo")).1;
            let web: Vec<_> = pods.iter().filter(|pod| object::label(pod, "app") == Some("web")).collect();
            let both = web.len() == 2 && web.iter().all(|pod| controllers::pods::is_ready(pod));
            (both && store.get(&key).is_none()).then_some(())
        })
        .await;
        assert!(mini.kubelet.0.namespace(object::uid(&before[0])).is_err());
        let gone = SocketAddr::new(address(&before[0], 0), 80);
        let from = mini.node.namespace();
        assert!(timeout(Duration::from_secs(5), dial(from, gone)).await.unwrap().is_err());
    });
}

#[test]
fn an_agent_is_a_process_in_the_pods_network_with_the_pods_files_and_no_rights() {
    on_a_node(|node, _| async move {
        let script = "cat /proc/self/net/fib_trie /etc/resolv.conf; echo uid $(id -u) $PODWAY_POD_UID $*; \
                      grep -E 'CapEff|CapPrm|CapBnd|NoNewPrivs' /proc/self/status; sleep 600";
        let mini = Mini::start(&node, shell(script));
        let pod = mini.with_agent(&["serve", "--listen", "127.0.0.1:1"]).await;
        mini.agent_state("running").await;
        let uid = object::uid(&pod);
        let log = async {
            loop {
                let log = String::from_utf8(mini.kubelet.logs(uid, "agent").await.unwrap()).unwrap();
                if log.contains("NoNewPrivs") {
                    return log;
                }
                tokio::task::yield_now().await;
            }
        };
        let log = timeout(LIMIT, log).await.unwrap();
        assert!(log.contains(&address(&pod, 0).to_string()), "{log}");
        assert!(log.contains("nameserver 10.43.0.10"), "{log}");
        assert!(log.contains(&format!("uid 65532 {uid} serve --listen 127.0.0.1:1")), "{log}");
        for line in ["CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1"] {
            assert!(log.contains(line), "{line}: {log}");
        }
        mini.kubelet.signal(uid, Target::Agent, Signal::Stop).unwrap();
        mini.kubelet.signal(uid, Target::Agent, Signal::Kill).unwrap();
        assert_eq!(mini.agent_state("terminated").await["exitCode"], 137);
        assert!(mini.kubelet.signal(uid, Target::Agent, Signal::Kill).is_err());
    });
}

#[test]
fn an_agent_ends_with_its_pod() {
    on_a_node(|node, _| async move {
        let mini = Mini::start(&node, shell("trap 'exit 7' TERM; echo $$; sleep 600 & wait"));
        let pod = mini.with_agent(&[]).await;
        mini.agent_state("running").await;
        let uid = object::uid(&pod);
        let number = async {
            loop {
                let log = mini.kubelet.logs(uid, "agent").await.unwrap();
                if let Ok(number) = String::from_utf8(log).unwrap().trim().parse::<u32>() {
                    return number;
                }
                tokio::task::yield_now().await;
            }
        };
        let number = timeout(LIMIT, number).await.unwrap();
        strategy::delete(&mini.store, &Key::new(&PODS, "demo", "lone"), &Deletion::default(), clock::now()).unwrap();
        mini.until("it is gone", |store| store.get(&Key::new(&PODS, "demo", "lone")).is_none().then_some(())).await;
        assert!(!std::path::Path::new(&format!("/proc/{number}")).exists());
    });
}

#[test]
fn a_pod_reaches_what_is_elsewhere_and_is_seen_as_itself() {
    on_a_node(|node, _| async move {
        let mini = Mini::start(&node, shell("exit 0"));
        let pod = mini.ready("lone", 1).await.remove(0);
        let from = mini.kubelet.0.namespace(object::uid(&pod)).unwrap();
        let listener = node.site().run(|| std::net::TcpListener::bind((LEDGER.v4, 80))).unwrap();
        let (_stream, (_, seen)) = (dial(&from, (LEDGER.v4, 80).into()).await.unwrap(), listener.accept().unwrap());
        assert_eq!(seen.ip(), address(&pod, 0));
    });
}

#[test]
#[ignore = "a measurement"]
#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
fn measure() {
    on_a_node(|node, _| async move {
        let begun = std::time::Instant::now();
        let mini = Mini::start(&node, shell("exit 0"));
        for (app, count) in [("web", 2), ("db", 1), ("store", 2), ("edge", 1), ("lone", 1), ("host", 1), ("api", 1)] {
            mini.ready(app, count).await;
        }
        println!("all samples ready after {:?}", begun.elapsed());
    });
}
