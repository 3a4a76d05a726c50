use super::*;
use crate::api::Boxed;
use crate::controllers::testing::with_kubelet;
use crate::object::number;

const LIMIT: Duration = Duration::from_secs(10);

/// Nothing runs.
struct NoPods;

impl Kubelet for NoPods {
    fn dial<'a>(&'a self, _: &'a str, _: u16) -> Boxed<'a, io::Result<tokio::net::TcpStream>> {
        Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
    }
}

impl Runtime for NoPods {
    fn signal(&self, _: &str, target: Target, _: Signal) -> io::Result<()> {
        if target == Target::Containers { Ok(()) } else { Err(io::Error::other("no such process")) }
    }
}

async fn cluster() -> Cluster {
    let options = Options {
        store: new_store(),
        runtime: Arc::new(NoPods),
        controllers: with_kubelet,
        listeners: vec![TcpListener::bind("127.0.0.1:0").await.unwrap()],
        nodes: 1,
        samples: true,
    };
    let cluster = Cluster::start(options).unwrap();
    cluster.wait(&Condition::SamplesReady, LIMIT).await.unwrap();
    cluster
}

fn web() -> Name {
    Name::new("deployments", "demo", "web")
}

fn pods_of(cluster: &Cluster, app: &str) -> Vec<Arc<Value>> {
    let (_, pods) = cluster.store().list(&PODS, Some("demo"));
    pods.into_iter().filter(|pod| object::label(pod, "app") == Some(app)).collect()
}

async fn ready(cluster: &Cluster, name: Name) {
    cluster.wait(&Condition::Ready { name }, LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_workload_is_scaled_and_restarted() {
    let cluster = cluster().await;
    cluster.scale(&web(), 0).unwrap();
    ready(&cluster, web()).await;
    assert!(pods_of(&cluster, "web").is_empty());
    cluster.scale(&web(), 3).unwrap();
    ready(&cluster, web()).await;
    let before = pods_of(&cluster, "web");
    assert_eq!(before.len(), 3);
    cluster.restart(&web()).unwrap();
    ready(&cluster, web()).await;
    let after = pods_of(&cluster, "web");
    assert!(before.iter().all(|old| after.iter().all(|new| object::uid(old) != object::uid(new))));
    cluster.restart(&Name::new("statefulsets", "demo", "store")).unwrap();
    ready(&cluster, Name::new("statefulsets", "demo", "store")).await;
    assert!(cluster.scale(&Name::new("daemonsets", "demo", "edge"), 1).is_err());
    cluster.stop().await;
}

#[tokio::test]
async fn nodes_come_and_go_with_their_pods() {
    let cluster = cluster().await;
    assert_eq!(cluster.add_node().unwrap(), "node2");
    let edge = Name::new("daemonsets", "demo", "edge");
    let mut revisions = cluster.store().revisions();
    let two = revisions.wait_for(|_| number(&cluster.get(&edge).unwrap(), "/status/numberAvailable") == Some(2));
    tokio::time::timeout(LIMIT, two).await.unwrap().unwrap();
    cluster.remove_node("node1").unwrap();
    let moved = revisions.wait_for(|_| {
        let (_, pods) = cluster.store().list(&PODS, None);
        let on_second = pods.iter().all(|pod| text(pod, "/spec/nodeName") == "node2");
        on_second && condition::missing(&Condition::Ready { name: web() }, &World::read(cluster.store())).is_none()
    });
    tokio::time::timeout(LIMIT, moved).await.unwrap().unwrap();
    let lone = Condition::Gone { name: Name::new("pods", "demo", "lone") };
    cluster.wait(&lone, LIMIT).await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn what_is_waited_for_in_vain_says_what_is_missing() {
    let cluster = cluster().await;
    let annotations = json!({"spec": {"template": {"metadata": {"annotations": {"test/starts": ""}}}}});
    let mut object =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "demo"}});
    json_patch::merge(&mut object, &annotations);
    cluster.apply(object).unwrap();
    let error = cluster.wait(&Condition::Ready { name: web() }, Duration::from_millis(50)).await.unwrap_err();
    assert!(error.to_string().contains("deployments demo/web: 1 updatedReplicas instead of 2"), "{error}");
    let none = Condition::Ready { name: Name::new("pods", "demo", "none") };
    let error = cluster.wait(&none, Duration::ZERO).await.unwrap_err();
    assert!(error.to_string().ends_with("pods demo/none: not found"), "{error}");
    let odd = Condition::Gone { name: Name::new("wombats", "demo", "none") };
    assert!(cluster.wait(&odd, Duration::ZERO).await.unwrap_err().to_string().contains("no such kind"));
    cluster.stop().await;
}

#[tokio::test]
async fn questions_from_outside_are_answered() {
    use crate::control::Request;
    let cluster = cluster().await;
    let path = |user: &str| Ok(format!("/run/{user}"));
    let ask = async |request| cluster.ask(request, path).await;
    let web = ask(Request::Get { name: web() }).await.unwrap();
    assert_eq!(number(&web, "/status/readyReplicas"), Some(2));
    let none = Name::new("pods", "demo", "none");
    assert_eq!(ask(Request::Get { name: none.clone() }).await.unwrap(), Value::Null);
    assert_eq!(ask(Request::Delete { name: none, grace: None }).await.unwrap_err(), "not found");
    let pods = ask(Request::List { kind: "pods".to_owned(), namespace: Some("other".to_owned()) }).await.unwrap();
    assert_eq!(pods.as_array().unwrap().len(), 1);
    let pod = object::name(&pods[0]).to_owned();
    let signal =
        |target| Request::Signal { namespace: "other".to_owned(), pod: pod.clone(), target, signal: Signal::Kill };
    assert_eq!(ask(signal(Target::Containers)).await, Ok(Value::Null));
    assert!(ask(signal(Target::Agent)).await.unwrap_err().contains("no such process"));
    assert_eq!(ask(Request::Kubeconfig { user: "none".to_owned() }).await, Ok(json!("/run/none")));
    assert!(cluster.kubeconfig("none").unwrap().contains("certificate-authority-data"));
    assert!(cluster.kubeconfig("nobody").is_none());
    let (revision, _) = cluster.store().list(&PODS, None);
    assert_eq!(ask(Request::Compact).await, Ok(Value::Null));
    assert!(cluster.store().since(&PODS, revision - 1).is_err());
    let fault = json!({"set": {"on": {}, "fault": "hang"}});
    assert!(ask(Request::Fault { fault }).await.is_err(), "not how faults are written");
    cluster.stop().await;
}

#[tokio::test]
async fn a_server_that_is_away_refuses_connections_until_it_is_back() {
    use crate::faults::{Fault, Matcher, Rule};
    let cluster = cluster().await;
    let address = cluster.api().addresses()[0];
    let dialled = async |wanted: bool| {
        let dialling = async {
            while tokio::net::TcpStream::connect(address).await.is_ok() != wanted {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, dialling).await.unwrap();
    };
    let away = cluster.faults().set(Rule::always(Matcher::all(), Fault::Away));
    dialled(false).await;
    cluster.faults().withdraw(away);
    dialled(true).await;
    cluster.stop().await;
}
