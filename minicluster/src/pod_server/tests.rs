//! In network namespaces of the test's own; needs the right to make them.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::*;
use crate::net::tests::{dial, on_a_node, pod, socket};
use crate::net::{NetNs, NodeNet, PodNet};

const LIMIT: Duration = Duration::from_secs(10);

struct Served {
    net: PodNet,
    process: Process,
    ended: oneshot::Receiver<i32>,
}

async fn served(node: &NodeNet, n: u32) -> Served {
    let net = pod(node, n).await;
    let identity =
        Identity { pod: "web-1".into(), namespace: "demo".into(), node: "node1".into(), ..Identity::default() };
    let log = Log::default();
    let (process, started, ended) = Process::start("web-1", &net.namespace, |started| async move {
        serve(identity, log, started).await.map_or(1, |()| 0)
    })
    .unwrap();
    timeout(LIMIT, started).await.unwrap().unwrap();
    Served { net, process, ended }
}

async fn get(from: &NetNs, to: SocketAddr, path: &str) -> String {
    let mut stream = dial(from, to).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut text = Vec::new();
    timeout(LIMIT, stream.read_to_end(&mut text)).await.unwrap().unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn a_server_says_who_it_is_and_who_asked() {
    on_a_node(|node, _| async move {
        let (server, client) = tokio::join!(served(&node, 10), pod(&node, 11));
        for (to, from) in [
            (SocketAddr::new(server.net.addresses.v4.into(), 80), client.addresses.v4.to_string()),
            (SocketAddr::new(server.net.addresses.v6.into(), 8080), format!("[{}]", client.addresses.v6)),
        ] {
            let answer = get(&client.namespace, to, "/some/path").await;
            let (_, body) = answer.split_once("\r\n\r\n").unwrap();
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!((&body["pod"], &body["path"]), (&"web-1".into(), &"/some/path".into()));
            assert_eq!(body["local"], to.to_string());
            assert_eq!(body["remote"].as_str().unwrap().rsplit_once(':').unwrap().0, from);
        }
        let to = SocketAddr::new(server.net.addresses.v4.into(), 80);
        let bytes = get(&client.namespace, to, "/bytes?n=300000").await;
        assert!(bytes.contains("content-length: 300000") && bytes.len() > 300_000);
        assert!(get(&client.namespace, to, "/stream?ms=1&n=3").await.contains("3\n"));
        let fetched = get(&client.namespace, to, &format!("/fetch?url=http://{to}/healthz")).await;
        assert!(fetched.starts_with("HTTP/1.1 200 OK") && fetched.contains("ok\n"), "{fetched}");
    });
}

#[test]
fn each_port_does_what_it_is_for() {
    on_a_node(|node, _| async move {
        let (server, client) = tokio::join!(served(&node, 10), pod(&node, 11));
        let at = |port| SocketAddr::new(server.net.addresses.v4.into(), port);
        for (port, answer) in [(ECHO, "hello"), (SINK, "5\n")] {
            let mut stream = dial(&client.namespace, at(port)).await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut text = String::new();
            timeout(LIMIT, stream.read_to_string(&mut text)).await.unwrap().unwrap();
            assert_eq!(text, answer);
        }
        let mut stream = dial(&client.namespace, at(SOURCE)).await.unwrap();
        let mut bytes = vec![0; 500];
        timeout(LIMIT, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
        assert_eq!((bytes[250], bytes[251]), (250, 0));
        // The reset may be there before one looks at the connection.
        let error = match dial(&client.namespace, at(RESET)).await {
            Ok(mut stream) => timeout(LIMIT, stream.read(&mut [0; 1])).await.unwrap().unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(dial(&client.namespace, at(LOOPBACK)).await.is_err());
        let own = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), LOOPBACK);
        assert!(dial(&server.net.namespace, own).await.is_ok());
    });
}

#[test]
fn datagrams_are_answered_from_the_address_they_were_sent_to() {
    on_a_node(|node, _| async move {
        let (server, client) = tokio::join!(served(&node, 10), pod(&node, 11));
        let service = crate::net::SERVICES.nth(77).unwrap();
        for address in [service.v4.into(), IpAddr::from(service.v6)] {
            let length = if address.is_ipv4() { 32 } else { 128 };
            server.net.netlink.address(1, address, length).await.unwrap();
            node.lead(&[address], std::slice::from_ref(&server.net)).await.unwrap();
            let any: IpAddr =
                if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let socket = client.namespace.run(|| std::net::UdpSocket::bind((any, 0))).unwrap();
            socket.set_nonblocking(true).unwrap();
            let socket = UdpSocket::from_std(socket).unwrap();
            let to = SocketAddr::new(address, ECHO_UDP);
            socket.send_to(b"hello", to).await.unwrap();
            let mut buffer = [0; 9];
            assert_eq!(timeout(LIMIT, socket.recv_from(&mut buffer)).await.unwrap().unwrap(), (5, to));
        }
    });
}

#[test]
fn a_stopped_server_accepts_and_says_nothing_until_it_goes_on() {
    on_a_node(|node, _| async move {
        let server = served(&node, 10).await;
        let to = SocketAddr::new(server.net.addresses.v4.into(), ECHO);
        let mut before = dial(node.namespace(), to).await.unwrap();
        before.write_all(b"a").await.unwrap();
        before.read_exact(&mut [0; 1]).await.unwrap();
        server.process.stop();
        server.process.terminate();
        // The stop reaches its thread when it next looks up, which is what an answer that fails to come shows.
        loop {
            let mut stream = dial(node.namespace(), to).await.unwrap();
            stream.write_all(b"b").await.unwrap();
            if timeout(Duration::from_millis(50), stream.read_exact(&mut [0; 1])).await.is_err() {
                break;
            }
        }
        server.process.go_on();
        // SIGTERM came meanwhile.
        assert_eq!(timeout(LIMIT, server.ended).await.unwrap().unwrap(), 0);
        assert_eq!(before.read(&mut [0; 1]).await.unwrap(), 0);
    });
}

#[test]
fn a_killed_server_closes_all_even_when_it_was_stopped() {
    on_a_node(|node, _| async move {
        let server = served(&node, 10).await;
        let to = SocketAddr::new(server.net.addresses.v4.into(), ECHO);
        let mut stream = dial(node.namespace(), to).await.unwrap();
        server.process.stop();
        server.process.kill();
        assert_eq!(timeout(LIMIT, server.ended).await.unwrap().unwrap(), process::KILLED);
        assert!(matches!(timeout(LIMIT, stream.read(&mut [0; 1])).await.unwrap(), Ok(0) | Err(_)));
        let error = timeout(LIMIT, socket(node.namespace(), to).connect(to)).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    });
}
