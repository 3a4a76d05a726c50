//! Port-forwards over WebSockets.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::client::{PATIENCE, WebSocket};
use crate::pods::Running;
use crate::world::World;

const V4: Option<&str> = Some("v4.channel.k8s.io");

fn path(world: &World, pod: &str, query: &str) -> String {
    format!("{}/{pod}/portforward{query}", world.path("pods"))
}

impl WebSocket {
    /// The next message; none at the end.
    async fn message(&mut self) -> Option<Message> {
        match timeout(PATIENCE, self.socket.next()).await.expect("a message in time") {
            Some(Ok(message)) => Some(message),
            Some(Err(_)) | None => None,
        }
    }

    async fn binary(&mut self) -> Bytes {
        match self.message().await {
            Some(Message::Binary(bytes)) => bytes,
            other => panic!("no binary message: {other:?}"),
        }
    }

    async fn send(&mut self, channel: u8, bytes: &[u8]) {
        let mut message = vec![channel];
        message.extend_from_slice(bytes);
        self.socket.send(Message::binary(message)).await.expect("sent");
    }

    /// Bytes of a channel, so many.
    async fn read(&mut self, channel: u8, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let message = self.binary().await;
            assert_eq!(message[0], channel, "another channel: {message:?}");
            bytes.extend_from_slice(&message[1..]);
        }
        bytes
    }
}

async fn open(world: &World, query: &str) -> WebSocket {
    match world.client.websocket(&path(world, "p", query), V4).await {
        Ok(socket) => socket,
        Err(reply) => panic!("{} {}", reply.code, String::from_utf8_lossy(&reply.body)),
    }
}

pub async fn the_protocol_is_agreed_on(world: &mut World) {
    world.run_pod("p").await;
    for offer in [
        Some("v4.channel.k8s.io"),
        Some("v5.channel.k8s.io, v4.channel.k8s.io"),
        Some("v4.channel.k8s.io, v5.channel.k8s.io"),
        Some("v5.channel.k8s.io"),
        Some("nonsense"),
    ] {
        match world.client.websocket(&path(world, "p", "?ports=9001"), offer).await {
            Ok(socket) => world.log.say(&format!("{offer:?}: {:?}", socket.protocol)),
            Err(reply) => world.log.reply(&format!("{offer:?}"), &reply),
        }
    }
    let reply = world.client.get(&path(world, "p", "?ports=9001")).await;
    world.log.reply("no upgrade", &reply);
}

pub async fn nonsense_is_refused(world: &mut World) {
    world.run_pod("p").await;
    for query in ["", "?ports=", "?ports=x", "?ports=0", "?ports=65536", "?ports=80,"] {
        match world.client.websocket(&path(world, "p", query), V4).await {
            Ok(_) => world.log.say(&format!("{query}: taken")),
            Err(reply) => world.log.reply(query, &reply),
        }
    }
    let Err(reply) = world.client.websocket(&path(world, "nope", "?ports=80"), V4).await else { panic!("taken") };
    world.log.reply("no such pod", &reply);
}

pub async fn bytes_go_there_and_back(world: &mut World) {
    world.run_pod("p").await;
    let mut socket = open(world, "?ports=9001").await;
    for _ in 0..2 {
        let message = socket.binary().await;
        world.log.say(&format!("at first: {:?}", &message[..]));
    }
    socket.send(0, b"hello").await;
    let back = socket.read(0, 5).await;
    world.log.say(&format!("an echo: {:?}", String::from_utf8_lossy(&back)));
    // Many small messages, and one large.
    let bytes: Vec<u8> = (0..400_000_u32).map(|n| (n % 251) as u8).collect();
    for part in bytes[..100_000].chunks(1000) {
        socket.send(0, part).await;
    }
    let first = socket.read(0, 100_000).await;
    socket.send(0, &bytes[100_000..]).await;
    let second = socket.read(0, 300_000).await;
    world.log.say(&format!("all came back: {}", [first, second].concat() == bytes));
    // What is sent on the channel of errors is nobody's.
    socket.send(1, b"x").await;
    socket.send(9, b"x").await;
    socket.socket.send(Message::binary(Vec::new())).await.expect("sent");
    socket.socket.send(Message::Ping(Bytes::from_static(b"p"))).await.expect("sent");
    socket.send(0, b"after").await;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        match socket.message().await {
            Some(Message::Pong(bytes)) => seen.push(format!("pong {:?}", String::from_utf8_lossy(&bytes))),
            Some(Message::Binary(bytes)) => {
                seen.push(format!("{} {:?}", bytes[0], String::from_utf8_lossy(&bytes[1..])));
            }
            other => panic!("{other:?}"),
        }
    }
    seen.sort();
    world.log.say(&format!("then: {}", seen.join(", ")));
    socket.socket.send(Message::Close(None)).await.expect("sent");
    let mut after = Vec::new();
    while let Some(message) = socket.message().await {
        after.push(if message.is_close() { "close" } else { "something" });
    }
    world.log.say(&format!("at the end: {}", after.join(", ")));
}

pub async fn several_ports_share_a_connection(world: &mut World) {
    world.run_pod("p").await;
    for query in ["?ports=9001,8080", "?ports=9001&ports=8080"] {
        let mut socket = open(world, query).await;
        let mut first = Vec::new();
        for _ in 0..4 {
            first.push(socket.binary().await.to_vec());
        }
        first.sort();
        world.log.say(&format!("{query}: {first:?}"));
        socket.send(0, b"x").await;
        let back = socket.read(0, 1).await;
        world.log.say(&format!("  {:?}", String::from_utf8_lossy(&back)));
        socket.send(2, b"GET /healthz HTTP/1.0\r\n\r\n").await;
        let back = socket.read(2, 12).await;
        world.log.say(&format!("  {:?}", String::from_utf8_lossy(&back[9..12])));
        // The other port goes on when one is over.
        tokio::time::sleep(Duration::from_millis(1300)).await;
        socket.send(0, b"y").await;
        loop {
            let message = socket.binary().await;
            if message[0] == 0 {
                world.log.say(&format!("  {:?}", String::from_utf8_lossy(&message[1..])));
                break;
            }
        }
    }
}

/// Messages until the end, and how long after `since` it came.
async fn until_end(world: &mut World, socket: &mut WebSocket, since: Instant) {
    let mut data = 0;
    while let Some(message) = socket.message().await {
        match message {
            Message::Binary(bytes) if bytes[0] == 1 => {
                let text = told(&String::from_utf8_lossy(&bytes[1..]));
                world.log.say(&format!("error: {text}"));
            }
            Message::Binary(bytes) => data += bytes.len() - 1,
            Message::Close(frame) => {
                let seconds = since.elapsed().as_secs_f64();
                let about = match seconds {
                    ..0.7 => "at once",
                    0.7..2.5 => "after a second",
                    _ => "late",
                };
                world.log.say(&format!("close {about}: {:?}", frame.map(|frame| u16::from(frame.code))));
            }
            other => panic!("{other:?}"),
        }
    }
    world.log.say(&format!("end; bytes before: {}", data > 0));
}

/// The text of an error without what differs: identifiers of sandboxes and namespaces, ports of connections.
fn told(text: &str) -> String {
    let mut out = String::new();
    for word in text.split_inclusive([' ', '"', ',', '>']) {
        let body = word.trim_end_matches([' ', '"', ',', '>']);
        let end = &word[body.len()..];
        if body.len() >= 32 && body.chars().all(|c| c.is_ascii_hexdigit()) {
            out.push_str("SANDBOX");
        } else if body.starts_with("/var/run/netns/") {
            out.push_str("NETNS");
        } else if body.starts_with("127.0.0.1:") && body.ends_with('-') {
            out.push_str("127.0.0.1:PORT-");
        } else {
            out.push_str(body);
        }
        out.push_str(end);
    }
    out
}

pub async fn a_refusal_is_told_as_text(world: &mut World) {
    world.run_pod("p").await;
    let since = Instant::now();
    let mut socket = open(world, "?ports=9999").await;
    for _ in 0..2 {
        let message = socket.binary().await;
        world.log.say(&format!("at first: {:?}", &message[..]));
    }
    until_end(world, &mut socket, since).await;
}

pub async fn the_pods_end_is_told_after_a_second(world: &mut World) {
    world.run_pod("p").await;
    let mut socket = open(world, "?ports=8080").await;
    socket.binary().await;
    socket.binary().await;
    socket.send(0, b"GET /healthz HTTP/1.0\r\n\r\n").await;
    let since = Instant::now();
    until_end(world, &mut socket, since).await;
}

pub async fn a_reset_is_told_as_text(world: &mut World) {
    world.run_pod("p").await;
    // The server resets what it accepts. Where the reset is there before kubelet has looked at its connection, kubelet
    // tells of a connect that failed, which is another case.
    let before = world.log.clone();
    for _ in 0..20 {
        world.log = before.clone();
        let mut socket = open(world, "?ports=9006").await;
        socket.binary().await;
        socket.binary().await;
        let since = Instant::now();
        until_end(world, &mut socket, since).await;
        if !world.log.clone().text().contains("failed to connect") {
            return;
        }
    }
}

pub async fn a_pod_that_does_not_run_is_refused(world: &mut World) {
    let spec = json!({"containers": [{"name": "a", "image": "x"}], "nodeSelector": {"nowhere": "x"}});
    world.make("pods", &json!({"metadata": {"name": "p"}, "spec": spec})).await;
    let Err(reply) = world.client.websocket(&path(world, "p", "?ports=80"), V4).await else { panic!("taken") };
    world.log.reply("it has no node", &reply);
    // One that has ended.
    let mut container = json!({"name": "a", "image": "x"});
    if let Running::Real(sample) = &world.pods {
        container["image"] = sample["image"].clone();
        container["args"] = json!(["nonsense"]);
    }
    let spec = json!({"containers": [container], "restartPolicy": "Never"});
    world.make("pods", &json!({"metadata": {"name": "q"}, "spec": spec})).await;
    if let Running::Mini(pods) = &world.pods {
        pods.set_phase(&world.namespace, "q", "Failed");
    }
    let pod = format!("{}/q", world.path("pods"));
    crate::world::eventually("end of the pod", async || {
        world.client.get(&pod).await.json()["status"]["phase"] == "Failed"
    })
    .await;
    match world.client.websocket(&path(world, "q", "?ports=80"), V4).await {
        Ok(mut socket) => {
            let since = Instant::now();
            until_end(world, &mut socket, since).await;
        }
        Err(reply) => world.log.reply("it has ended", &reply),
    }
}
