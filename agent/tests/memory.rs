//! What many flows hold whose readers stand still, over a real carrier. One test: it looks at the memory of its process.
#![allow(clippy::expect_used, clippy::allow_attributes, reason = "a test says what it expects")]

#[path = "support/serving.rs"]
mod serving;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use podway_agent::server::{Agent, FlowLimits};
use podway_tunnel::client::{self, Carrier, Config, Event, Line, TcpFlow};
use podway_tunnel::credit::Budget;
use podway_tunnel::{AGENT_BUFFERS, WORKSTATION_BUFFERS};
use serving::serving;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

/// Each with its far end takes two descriptors; most systems give a thousand.
const FLOWS: usize = 200;
/// Connections that a listener holds which does not accept; 128 is the least that systems have.
const BACKLOG: usize = 50;
const SOON: Duration = Duration::from_secs(60);
/// Beside what flows hold: their state, and what the allocator keeps.
const SLACK: u64 = 16 << 20;

/// Resident memory of this process, bytes (proc_pid_status(5)).
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("read");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// An agent and a carrier to it.
async fn carrier() -> (Carrier, Arc<Budget>) {
    let (pair, serve) = serving();
    let agent = Agent::bind(serve, FlowLimits::default()).await.expect("bound");
    let stream = TcpStream::connect(agent.address()).await.expect("connected");
    stream.set_nodelay(true).expect("set");
    tokio::spawn(agent.run(std::future::pending()));
    let (special, budget) = (vec!["127.0.0.0/8".to_owned()], client::budget());
    let line = Some(Line::default());
    let config = Config {
        pair,
        session_id: [7; 16],
        pod_uid: "pod-1".into(),
        special,
        budget: Arc::clone(&budget),
        line,
        bulk: None,
    };
    (Carrier::connect(stream, &config).await.expect("welcome"), budget)
}

/// A listener and its address.
async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    // Little in the kernel, which makes its buffers by the size of segments: what it holds is not ours.
    let socket = socket2::SockRef::from(&listener);
    socket.set_tcp_mss(8192).expect("set");
    socket.set_recv_buffer_size(64 << 10).expect("set");
    let to = listener.local_addr().expect("an address");
    (listener, to)
}

struct World {
    carrier: Carrier,
    listener: TcpListener,
    to: SocketAddr,
}

impl World {
    /// A flow and its far end.
    async fn open(&self) -> (TcpFlow, TcpStream) {
        let flow = self.carrier.open_tcp(self.to, SOON).await.expect("opened");
        let (far, _) = self.listener.accept().await.expect("a connection");
        far.set_nodelay(true).expect("set");
        socket2::SockRef::from(&far).set_send_buffer_size(64 << 10).expect("set");
        (flow, far)
    }
}

/// Does what can be done for each pair, until nothing more can for a while.
async fn until_all_stand_still<P>(pairs: &mut [P], mut advance: impl FnMut(&mut Context<'_>, &mut P) -> usize) {
    const STILL: Duration = Duration::from_millis(700);
    let mut still = std::pin::pin!(sleep(STILL));
    poll_fn(|cx| {
        let moved: usize = pairs.iter_mut().map(|pair| advance(cx, pair)).sum();
        if moved > 0 {
            still.set(sleep(STILL));
            cx.waker().wake_by_ref();
        }
        still.as_mut().poll(cx)
    })
    .await;
}

async fn send(flow: &mut TcpFlow, mut data: Bytes) {
    while !data.is_empty() {
        let room = poll_fn(|cx| flow.poll_send_ready(cx)).await.expect("a flow that is read lives");
        flow.send(data.split_to(room.min(data.len()))).expect("open");
    }
}

/// Sends, and takes as much back.
async fn echo((flow, far): &mut (TcpFlow, TcpStream), length: usize) {
    let near = async {
        send(flow, Bytes::from(vec![7; length])).await;
        let mut left = length;
        while left > 0 {
            match poll_fn(|cx| flow.poll_event(cx)).await {
                Event::Data(data) => left -= data.len(),
                end @ (Event::Fin | Event::Reset) => panic!("{end:?} of a flow whose reader reads"),
            }
        }
    };
    let far = async {
        let mut buffer = vec![0; 1 << 16];
        let mut left = length;
        while left > 0 {
            let read = far.read(&mut buffer).await.expect("no reset");
            far.write_all(&buffer[..read]).await.expect("no reset");
            left -= read;
        }
    };
    timeout(SOON, async { tokio::join!(near, far) }).await.expect("an echo in time");
}

/// Towards far ends that nobody reads: not even accepted, so that they take no descriptor.
async fn uploads_stand_still(world: &World, healthy: &mut (TcpFlow, TcpStream)) {
    let before = resident();
    let (mut listeners, mut flows) = (Vec::new(), Vec::new());
    for _ in 0..FLOWS / BACKLOG {
        let (listener, to) = listener().await;
        for _ in 0..BACKLOG {
            flows.push((world.carrier.open_tcp(to, SOON).await.expect("opened"), 0));
        }
        listeners.push(listener);
    }
    let chunk = Bytes::from_static(&[5; 1 << 16]);
    until_all_stand_still(&mut flows, |cx, (flow, sent)| {
        let Poll::Ready(room) = flow.poll_send_ready(cx) else { return 0 };
        let room = room.expect("a flow whose reader stands still lives").min(chunk.len());
        flow.send(chunk.slice(..room)).expect("a flow whose reader stands still lives");
        *sent += room;
        room
    })
    .await;
    echo(healthy, 1 << 20).await;
    let held = resident().saturating_sub(before);
    let sent: usize = flows.iter().map(|(_, sent)| sent).sum();
    assert!(sent as u64 > AGENT_BUFFERS, "{sent} bytes sent: what the kernel takes and what is promised");
    assert!(held > AGENT_BUFFERS / 4, "{held} bytes resident of {sent}");
    assert!(held <= AGENT_BUFFERS + SLACK, "{held} bytes resident of {sent}");
    let mut buffer = vec![0; 1 << 16];
    for (at, (_flow, sent)) in flows.iter().enumerate() {
        let (mut far, _) = listeners[at / BACKLOG].accept().await.expect("a connection");
        let mut got = 0;
        while got < *sent {
            let read = timeout(SOON, far.read(&mut buffer)).await.expect("in time").expect("no reset");
            assert!(read > 0, "{got} of {sent} bytes arrived");
            got += read;
        }
    }
}

/// From far ends; at the workstation nobody takes events, as when programs do not read.
async fn downloads_stand_still(world: &World, budget: &Budget, healthy: &mut (TcpFlow, TcpStream)) {
    let mut flows = Vec::new();
    for _ in 0..FLOWS {
        flows.push((world.open().await, 0));
    }
    // A chunk through each, and all of it read: idle flows hold nothing.
    let before = resident();
    for (pair, _) in &mut flows {
        echo(pair, 64 << 10).await;
    }
    let idle = resident().saturating_sub(before);
    assert!(idle < SLACK, "{FLOWS} idle flows hold {idle} bytes");

    let chunk = vec![9; 1 << 16];
    until_all_stand_still(&mut flows, |cx, ((flow, far), written)| {
        flow.poll_arrivals(cx);
        let Poll::Ready(ready) = far.poll_write_ready(cx) else { return 0 };
        ready.expect("no reset");
        let wrote = far.try_write(&chunk).unwrap_or(0);
        *written += wrote;
        wrote.max(1)
    })
    .await;
    echo(healthy, 1 << 20).await;
    let (held, resident) = (budget.held(), resident().saturating_sub(before));
    assert!(held > WORKSTATION_BUFFERS / 4, "{held} bytes wait");
    assert!(held <= WORKSTATION_BUFFERS, "{held} bytes held");
    assert!(resident <= WORKSTATION_BUFFERS + SLACK, "{resident} bytes resident for {held} held");
    for ((flow, _), written) in flows.iter_mut().map(|(pair, written)| (pair, *written)) {
        let mut got = 0;
        while got < written {
            match timeout(SOON, poll_fn(|cx| flow.poll_event(cx))).await.expect("in time") {
                Event::Data(data) => got += data.len(),
                end @ (Event::Fin | Event::Reset) => panic!("{end:?} after {got} of {written} bytes"),
            }
        }
    }
}

#[tokio::test]
async fn flows_that_stand_still_hold_what_is_promised_and_end_no_other() {
    let (carrier, budget) = carrier().await;
    let (listener, to) = listener().await;
    let world = World { carrier, listener, to };
    let mut healthy = world.open().await;
    uploads_stand_still(&world, &mut healthy).await;
    downloads_stand_still(&world, &budget, &mut healthy).await;
    assert_eq!(budget.broken(), 0);
}
