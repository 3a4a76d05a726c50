//! In namespaces of the test's own; needs the right to make them.
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use super::*;

const UNREACHABLE: [ErrorKind; 2] = [ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable];

/// Says that a test was left out; fails where nothing may be.
fn skipped(why: &str) {
    assert!(std::env::var_os("PODWAY_REQUIRE_ROOT_TESTS").is_none(), "must not be left out here: {why}");
    println!("skipped: {why}");
}

/// Runs `test` on a node of its own; says so and skips where that is not allowed.
pub(crate) fn on_a_node<F: Future<Output = ()>>(test: impl FnOnce(NodeNet, NetNs) -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        if let Err(error) = NetNs::unshare() {
            return skipped(&format!("no network namespace of its own ({error})"));
        }
        // Worker threads inherit the namespace of the thread that makes them.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let workstation = NetNs::create().unwrap();
            let node = NodeNet::start(&workstation).await.unwrap();
            timeout(Duration::from_secs(60), test(node, workstation)).await.unwrap();
        });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

pub(crate) fn socket(namespace: &NetNs, to: SocketAddr) -> TcpSocket {
    namespace.run(|| if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }).unwrap()
}

pub(crate) async fn dial(namespace: &NetNs, to: SocketAddr) -> std::io::Result<TcpStream> {
    timeout(Duration::from_secs(5), socket(namespace, to).connect(to))
        .await
        .unwrap_or_else(|_| panic!("{to} neither answered nor refused"))
}

fn listener(namespace: &NetNs, at: SocketAddr) -> TcpListener {
    let socket = socket(namespace, at);
    socket.set_reuseaddr(true).unwrap();
    socket.bind(at).unwrap();
    socket.listen(64).unwrap()
}

pub(crate) async fn pod(node: &NodeNet, n: u32) -> PodNet {
    node.attach(NetNs::create().unwrap(), PODS.nth(n).unwrap()).await.unwrap()
}

fn both(pair: Pair) -> [IpAddr; 2] {
    [pair.v4.into(), pair.v6.into()]
}

#[test]
fn a_pod_is_reached_from_the_node_and_from_pods_with_the_callers_own_address() {
    on_a_node(|node, _| async move {
        let (server, client) = tokio::join!(pod(&node, 10), pod(&node, 11));
        let callers = [(node.namespace().clone(), [POD_ROUTER.v4.into(), NODE.v6.into()])];
        let callers = callers.into_iter().chain([(client.namespace, both(client.addresses))]);
        for (from, sources) in callers {
            for (to, source) in both(server.addresses).into_iter().zip(sources) {
                let to = SocketAddr::new(to, 80);
                assert_eq!(dial(&from, to).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
                let listener = listener(&server.namespace, to);
                let (made, accepted) = tokio::join!(dial(&from, to), listener.accept());
                assert_eq!((made.is_ok(), accepted.unwrap().1.ip()), (true, source));
            }
        }
    });
}

#[test]
fn a_service_spreads_callers_over_its_pods_and_refuses_without_any() {
    on_a_node(|node, _| async move {
        let (one, other, client) = tokio::join!(pod(&node, 10), pod(&node, 11), pod(&node, 12));
        let service = SERVICES.nth(80).unwrap();
        let lead = |pods: Vec<PodNet>| {
            let node = node.clone();
            async move { node.lead(&both(service), &pods).await.unwrap() }
        };
        for address in both(service) {
            let to = SocketAddr::new(address, 80);
            let unknown = dial(&client.namespace, to).await.unwrap_err();
            assert!(UNREACHABLE.contains(&unknown.kind()), "{to}: {unknown}");
            lead(Vec::new()).await;
            assert_eq!(dial(&client.namespace, to).await.unwrap_err().kind(), ErrorKind::ConnectionRefused, "{to}");
            for pod in [&one, &other] {
                let length = if address.is_ipv4() { 32 } else { 128 };
                pod.netlink.address(1, address, length).await.unwrap();
            }
            lead(vec![one.clone(), other.clone()]).await;
            let listeners = [listener(&one.namespace, to), listener(&other.namespace, to)];
            let mut seen = [0; 2];
            for _ in 0..64 {
                let made = dial(&client.namespace, to).await.unwrap();
                let (at, from) = tokio::select! {
                    accepted = listeners[0].accept() => (0, accepted.unwrap().1),
                    accepted = listeners[1].accept() => (1, accepted.unwrap().1),
                };
                assert_eq!(from, made.local_addr().unwrap());
                seen[at] += 1;
            }
            assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
            lead(Vec::new()).await;
            assert_eq!(dial(&client.namespace, to).await.unwrap_err().kind(), ErrorKind::ConnectionRefused, "{to}");
            node.unlead(&both(service)).await.unwrap();
        }
    });
}

#[test]
fn the_workstation_reaches_the_lan_and_nothing_behind_it() {
    on_a_node(|node, workstation| async move {
        let pod = pod(&node, 10).await;
        for api in both(API) {
            let to = SocketAddr::new(api, 6443);
            let listener = listener(node.namespace(), to);
            let (made, accepted) = tokio::join!(dial(&workstation, to), listener.accept());
            assert!(made.is_ok());
            assert!(both(WORKSTATION).contains(&accepted.unwrap().1.ip()));
        }
        for closed in [pod.addresses, NODE, LEDGER, SITE_GATEWAY, SERVICES.nth(80).unwrap()] {
            for address in both(closed) {
                let to = SocketAddr::new(address, 80);
                // The kernel says so a few times a second only: silence means the same.
                match timeout(Duration::from_millis(100), socket(&workstation, to).connect(to)).await {
                    Ok(Err(error)) => assert!(UNREACHABLE.contains(&error.kind()), "{to}: {error}"),
                    Ok(Ok(_)) => panic!("{to} is reached"),
                    Err(_) => {}
                }
            }
        }
        for site in both(LEDGER) {
            let to = SocketAddr::new(site, 80);
            let error = dial(&pod.namespace, to).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to}: {error}");
            let listener = listener(node.site(), to);
            let (_, accepted) = tokio::join!(dial(&pod.namespace, to), listener.accept());
            assert!(both(pod.addresses).contains(&accepted.unwrap().1.ip()));
        }
    });
}

#[test]
fn a_detached_pod_leaves_no_way_behind() {
    on_a_node(|node, _| async move {
        let (gone, client) = tokio::join!(pod(&node, 10), pod(&node, 11));
        node.detach(&gone).await.unwrap();
        node.detach(&gone).await.unwrap();
        for address in both(gone.addresses) {
            let error = dial(&client.namespace, SocketAddr::new(address, 80)).await.unwrap_err();
            assert!(UNREACHABLE.contains(&error.kind()), "{error}");
        }
    });
}

#[test]
#[ignore = "a measurement"]
fn measure() {
    on_a_node(|node, _| async move {
        let start = Instant::now();
        for n in 0..20 {
            pod(&node, 100 + n).await;
        }
        println!("one after the other: {:?} each", start.elapsed() / 20);
        let start = Instant::now();
        let tasks: Vec<_> = (0..40)
            .map(|n| {
                let node = node.clone();
                tokio::spawn(async move { pod(&node, 200 + n).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        println!("40 at once: {:?}", start.elapsed());
    });
}
