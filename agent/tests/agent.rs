//! A real agent on loopback, and the workstation's end of the tunnel against it.
#![allow(clippy::expect_used, clippy::allow_attributes, reason = "a test says what it expects")]

#[path = "support/serving.rs"]
mod serving;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use podway_agent::args::Serve;
use podway_agent::server::{Agent, FlowLimits};
use podway_tunnel::client::{Carrier, Config, ConnectError, Event, Line, TcpFlow, UdpEnded};
use podway_tunnel::frames::{
    Ack, ClientHello, Failure, Fin, FlowFrame, HelloFrame, Open, Opened, Ping, Pong, Proof, Protocol, Recall, Yielded,
    flow_frame, hello_frame,
};
use podway_tunnel::wire::{Reader, Writer};
use ring::signature::KeyPair as _;
use serving::serving;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);
const DIAL: Duration = Duration::from_secs(5);

struct World {
    address: SocketAddr,
    config: Config,
    agent: tokio::task::JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.agent.abort();
    }
}

async fn world(limits: FlowLimits, resolv_conf: &str) -> World {
    world_with(limits, resolv_conf, Duration::from_secs(3600)).await
}

/// An agent that leaves when nobody was there for so long.
async fn world_idle(idle_exit: Duration) -> World {
    world_with(FlowLimits::default(), "/nonexistent", idle_exit).await
}

async fn world_with(limits: FlowLimits, resolv_conf: &str, idle_exit: Duration) -> World {
    let (pair, serve) = serving();
    let serve = Serve { idle_exit, resolv_conf: resolv_conf.into(), ..serve };
    let agent = Agent::bind(serve, limits).await.expect("bound");
    let address = agent.address();
    let agent = tokio::spawn(agent.run(std::future::pending()));
    let special = vec!["127.0.0.0/8".to_owned()];
    let budget = podway_tunnel::client::budget();
    let line = Some(Line::default());
    let config = Config { pair, session_id: [7; 16], pod_uid: "pod-1".into(), special, budget, line, bulk: None };
    World { address, config, agent }
}

async fn connect(world: &World, config: &Config) -> Result<Carrier, ConnectError> {
    let stream = TcpStream::connect(world.address).await.expect("the agent listens");
    stream.set_nodelay(true).expect("set");
    timeout(SOON, Carrier::connect(stream, config)).await.expect("in time")
}

async fn carrier() -> (World, Carrier) {
    let world = world(FlowLimits::default(), "/nonexistent").await;
    let carrier = connect(&world, &world.config).await.expect("connected");
    (world, carrier)
}

async fn send_all(flow: &mut TcpFlow, mut data: Bytes) {
    while !data.is_empty() {
        let room = poll_fn(|cx| flow.poll_send_ready(cx)).await.expect("open");
        flow.send(data.split_to(room.min(data.len()))).expect("open");
    }
}

async fn next(flow: &mut TcpFlow) -> Event {
    timeout(SOON, poll_fn(|cx| flow.poll_event(cx))).await.expect("an event in time")
}

async fn read_to_fin(flow: &mut TcpFlow) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        match next(flow).await {
            Event::Data(data) => all.extend_from_slice(&data),
            Event::Fin => return all,
            Event::Reset => panic!("reset after {} bytes", all.len()),
        }
    }
}

/// A listener and its address.
async fn far_end() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

#[tokio::test]
async fn only_the_right_key_for_the_right_pod_is_welcome() {
    let world = world(FlowLimits::default(), "/nonexistent").await;
    let carrier = connect(&world, &world.config).await.expect("connected");
    assert!(carrier.is_alive());
    assert_eq!(carrier.agent_version(), env!("CARGO_PKG_VERSION"));
    assert_eq!(carrier.welcome().limits.as_ref().map(|limits| limits.flows), Some(podway_tunnel::MAX_FLOWS));
    let stranger = Config { pair: serving().0, ..world.config.clone() };
    assert!(matches!(connect(&world, &stranger).await, Err(ConnectError::Key)));
    // Too much asked says nothing of the key.
    let special = |many: usize| (0..many).map(|n| format!("127.0.1.{n}/32")).collect();
    let all = Config { special: special(podway_tunnel::MAX_SPECIAL), ..world.config.clone() };
    connect(&world, &all).await.expect("connected");
    let more = Config { special: special(podway_tunnel::MAX_SPECIAL + 1), ..world.config.clone() };
    let denied = connect(&world, &more).await.expect_err("too many");
    assert!(matches!(&denied, ConnectError::Denied(why) if why.contains("at most 64")), "{denied:?}");
    let elsewhere = Config { pod_uid: "pod-2".into(), ..world.config.clone() };
    assert!(matches!(connect(&world, &elsewhere).await, Err(ConnectError::WrongPod { .. })));
}

#[tokio::test]
async fn an_agent_without_a_protocol_in_common_says_which_it_speaks() {
    let limits = FlowLimits { protocols: 2..=3, ..FlowLimits::default() };
    let world = world(limits, "/nonexistent").await;
    let error = connect(&world, &world.config).await.expect_err("refused");
    assert!(matches!(&error, ConnectError::Protocol { theirs } if *theirs == (2..=3)), "{error:?}");
    assert_eq!(error.to_string(), "the agent speaks protocol 2 to 3, this podway 1");
    // One that speaks more, ours among it, is spoken to.
    let limits = FlowLimits { protocols: 1..=3, ..FlowLimits::default() };
    let world = self::world(limits, "/nonexistent").await;
    connect(&world, &world.config).await.expect("welcome");
}

#[tokio::test]
async fn bytes_come_back_and_half_close_works_both_ways() {
    let (_world, carrier) = carrier().await;
    let (listener, address) = far_end().await;
    let far = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.expect("read");
        stream.write_all(&all).await.expect("written after the workstation's half-close");
    });
    let mut flow = carrier.open_tcp(address, DIAL).await.expect("opened");
    send_all(&mut flow, Bytes::from_static(b"hello")).await;
    flow.send_fin();
    assert_eq!(read_to_fin(&mut flow).await, b"hello");
    far.await.expect("the far end is content");
}

#[tokio::test]
async fn the_far_end_may_finish_first() {
    let (_world, carrier) = carrier().await;
    let (listener, address) = far_end().await;
    let far = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.shutdown().await.expect("finished");
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.expect("read");
        all
    });
    let mut flow = carrier.open_tcp(address, DIAL).await.expect("opened");
    assert_eq!(next(&mut flow).await, Event::Fin);
    send_all(&mut flow, Bytes::from_static(b"still here")).await;
    flow.send_fin();
    assert_eq!(far.await.expect("ended"), b"still here");
}

#[tokio::test]
async fn a_flow_dropped_after_both_ends_finished_still_delivers_everything() {
    const BYTES: usize = 192 * 1024;
    let (_world, carrier) = carrier().await;
    let (listener, address) = far_end().await;
    let mut flow = carrier.open_tcp(address, DIAL).await.expect("opened");
    let (mut stream, _) = listener.accept().await.expect("a connection");
    // So small that the agent still holds most of it when the workstation leaves.
    socket2::SockRef::from(&stream).set_recv_buffer_size(32 * 1024).expect("set");
    stream.shutdown().await.expect("finished");
    assert_eq!(next(&mut flow).await, Event::Fin);
    send_all(&mut flow, Bytes::from(vec![5; BYTES])).await;
    flow.send_fin();
    drop(flow);
    // The agent has heard of the end once it answers a later question on the same connection.
    let closed = "127.0.0.1:1".parse().expect("an address");
    assert!(carrier.open_tcp(closed, DIAL).await.is_err());
    let mut all = Vec::new();
    timeout(SOON, stream.read_to_end(&mut all)).await.expect("in time").expect("no reset");
    assert_eq!(all.len(), BYTES);
}

#[tokio::test]
async fn refusals_and_forbidden_addresses_are_told_as_they_are() {
    let (world, carrier) = carrier().await;
    let (listener, closed) = far_end().await;
    drop(listener);
    assert_eq!(carrier.open_tcp(closed, DIAL).await.err(), Some(Failure::Refused));
    let metadata = "169.254.169.254:80".parse().expect("an address");
    assert_eq!(carrier.open_tcp(metadata, DIAL).await.err(), Some(Failure::Forbidden));
    assert_eq!(carrier.open_tcp(world.address, DIAL).await.err(), Some(Failure::Forbidden));
    let plain = Config { special: Vec::new(), ..world.config.clone() };
    let carrier = connect(&world, &plain).await.expect("connected");
    assert_eq!(carrier.open_tcp(closed, DIAL).await.err(), Some(Failure::Forbidden), "pod loopback was not asked for");
}

#[tokio::test]
async fn resets_cross_in_both_directions() {
    let (_world, carrier) = carrier().await;
    let (listener, address) = far_end().await;
    let mut flow = carrier.open_tcp(address, DIAL).await.expect("opened");
    let (stream, _) = listener.accept().await.expect("a connection");
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("set");
    drop(stream);
    assert_eq!(next(&mut flow).await, Event::Reset);

    let flow = carrier.open_tcp(address, DIAL).await.expect("opened");
    let (mut stream, _) = listener.accept().await.expect("a connection");
    drop(flow);
    let error = timeout(SOON, stream.read(&mut [0; 8])).await.expect("in time").expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_far_end_that_accepts_and_resets_at_once_has_not_refused() {
    let (_world, carrier) = carrier().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("an address");
    // On a thread of its own, to be as quick as the agent's dial.
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            drop(socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)));
        }
    });
    for attempt in 0..100 {
        let mut flow = carrier.open_tcp(address, DIAL).await.unwrap_or_else(|why| panic!("{attempt}: {why:?}"));
        assert_eq!(next(&mut flow).await, Event::Reset);
    }
}

#[tokio::test]
async fn bulk_arrives_whole_in_both_directions_at_once() {
    const BYTES: usize = 24 << 20;
    let (_world, carrier) = carrier().await;
    let (listener, address) = far_end().await;
    let pattern: Vec<u8> = (0..BYTES).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let sent = Bytes::from(pattern);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.expect("copied");
        write.shutdown().await.expect("finished");
    });
    let mut flow = carrier.open_tcp(address, DIAL).await.expect("opened");
    let (mut left, mut received) = (sent.clone(), Vec::with_capacity(BYTES));
    let copied = poll_fn(|cx| {
        use std::task::Poll;
        loop {
            let mut moved = false;
            while !left.is_empty() {
                let Poll::Ready(room) = flow.poll_send_ready(cx) else { break };
                let room = room.expect("open");
                flow.send(left.split_to(room.min(left.len()))).expect("open");
                moved = true;
                if left.is_empty() {
                    flow.send_fin();
                }
            }
            match flow.poll_event(cx) {
                Poll::Ready(Event::Data(data)) => received.extend_from_slice(&data),
                Poll::Ready(Event::Fin) => return Poll::Ready(()),
                Poll::Ready(Event::Reset) => panic!("reset"),
                Poll::Pending if moved => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    });
    timeout(Duration::from_secs(60), copied).await.expect("in time");
    assert!(received == sent, "{} of {BYTES} bytes came back as they were sent", received.len());
}

#[tokio::test]
async fn a_reader_that_stops_holds_its_own_sender_back_and_nobody_else() {
    let (_world, carrier) = carrier().await;
    let (listener, address) = far_end().await;
    let stalled = carrier.open_tcp(address, DIAL).await.expect("opened");
    let (mut source, _) = listener.accept().await.expect("a connection");
    let chunk = vec![0; 64 * 1024];
    let mut written = 0;
    // The source is held back once the flow's window and the buffers below it are full.
    while let Ok(result) = timeout(Duration::from_millis(500), source.write(&chunk)).await {
        written += result.expect("open");
        assert!(written < 64 << 20, "nothing holds the sender back");
    }
    let mut other = carrier.open_tcp(address, DIAL).await.expect("opened beside a stalled flow");
    let (mut echo, _) = listener.accept().await.expect("a connection");
    send_all(&mut other, Bytes::from_static(b"quick")).await;
    let mut word = [0; 5];
    echo.read_exact(&mut word).await.expect("read");
    echo.write_all(&word).await.expect("written");
    assert_eq!(next(&mut other).await, Event::Data(Bytes::from_static(b"quick")));
    drop(stalled);
}

#[tokio::test]
async fn datagrams_stay_datagrams_and_a_refusal_ends_the_association() {
    let (_world, carrier) = carrier().await;
    let far = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    let address = far.local_addr().expect("an address");
    let mut flow = carrier.open_udp(address, SOON).await.expect("opened");
    flow.send(Bytes::from_static(b"one"));
    flow.send(Bytes::from_static(b""));
    let mut buffer = [0; 16];
    let (length, from) = timeout(SOON, far.recv_from(&mut buffer)).await.expect("in time").expect("received");
    assert_eq!(&buffer[..length], b"one");
    let (length, _) = timeout(SOON, far.recv_from(&mut buffer)).await.expect("in time").expect("received");
    assert_eq!(length, 0);
    far.send_to(b"answer", from).await.expect("sent");
    let answer = timeout(SOON, poll_fn(|cx| flow.poll_recv(cx))).await.expect("in time");
    assert_eq!(answer, Ok(Bytes::from_static(b"answer")));
    drop(far);
    flow.send(Bytes::from_static(b"gone"));
    let ended = timeout(SOON, poll_fn(|cx| flow.poll_recv(cx))).await.expect("in time");
    assert_eq!(ended, Err(UdpEnded::Refused));
}

#[tokio::test]
async fn who_opens_an_association_says_how_long_it_may_be_silent() {
    let limits = FlowLimits { udp_idle: Duration::from_millis(200), ..FlowLimits::default() };
    let world = world(limits, "/nonexistent").await;
    let carrier = connect(&world, &world.config).await.expect("connected");
    let far = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    let address = far.local_addr().expect("an address");
    let mut short = carrier.open_udp(address, Duration::from_millis(50)).await.expect("opened");
    let mut long = carrier.open_udp(address, Duration::MAX).await.expect("opened");
    // One that says nothing of it ends by the agent's own limit, after the other was opened.
    let mut usual = carrier.open_udp(address, Duration::ZERO).await.expect("opened");
    for flow in [&mut short, &mut usual] {
        let ended = timeout(SOON, poll_fn(|cx| flow.poll_recv(cx))).await.expect("in time");
        assert_eq!(ended, Err(UdpEnded::Over));
    }
    long.send(Bytes::from_static(b"still here"));
    let mut buffer = [0; 16];
    let (length, from) = timeout(SOON, far.recv_from(&mut buffer)).await.expect("in time").expect("received");
    far.send_to(&buffer[..length], from).await.expect("sent");
    let answer = timeout(SOON, poll_fn(|cx| long.poll_recv(cx))).await.expect("in time");
    assert_eq!(answer, Ok(Bytes::from_static(b"still here")));
}

#[tokio::test]
async fn silence_and_the_end_of_the_carrier_are_no_refusal() {
    let limits = FlowLimits { udp_idle: Duration::from_millis(50), ..FlowLimits::default() };
    let idle = world(limits, "/nonexistent").await;
    let idle_carrier = connect(&idle, &idle.config).await.expect("connected");
    let (_world, cut_carrier) = carrier().await;
    let far = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    let address = far.local_addr().expect("an address");
    let mut silent = idle_carrier.open_udp(address, Duration::ZERO).await.expect("opened");
    let mut cut = cut_carrier.open_udp(address, SOON).await.expect("opened");
    cut_carrier.close();
    for flow in [&mut silent, &mut cut] {
        let ended = timeout(SOON, poll_fn(|cx| flow.poll_recv(cx))).await.expect("in time");
        assert_eq!(ended, Err(UdpEnded::Over));
    }
}

#[tokio::test]
async fn flows_beyond_the_limit_are_refused_and_places_come_back() {
    let limits = FlowLimits { flows: 2, ..FlowLimits::default() };
    let world = world(limits, "/nonexistent").await;
    let carrier = connect(&world, &world.config).await.expect("connected");
    let (listener, address) = far_end().await;
    let first = carrier.open_tcp(address, DIAL).await.expect("opened");
    let _second = carrier.open_tcp(address, DIAL).await.expect("opened");
    assert_eq!(carrier.open_tcp(address, DIAL).await.err(), Some(Failure::Limit));
    let (mut stream, _) = listener.accept().await.expect("a connection");
    drop(first);
    drop(timeout(SOON, stream.read(&mut [0; 8])).await.expect("the flow ended"));
    let opened = timeout(SOON, async {
        while carrier.open_tcp(address, DIAL).await.is_err() {
            tokio::task::yield_now().await;
        }
    });
    opened.await.expect("the place came back");
}

#[tokio::test]
async fn names_are_asked_from_inside_and_silence_is_no_answer() {
    let directory = std::env::temp_dir().join(format!("podway-agent-test-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("made");
    let path = directory.join("resolv.conf");
    std::fs::write(&path, "search demo.svc.cluster.local\n").expect("written");
    let world = world(FlowLimits::default(), path.to_str().expect("text")).await;
    let carrier = connect(&world, &world.config).await.expect("connected");
    assert_eq!(carrier.welcome().search, ["demo.svc.cluster.local"]);
    let query = Bytes::from_static(&[0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(carrier.dns(query, DIAL).await.err(), Some(Failure::TimedOut));
    std::fs::remove_dir_all(&directory).expect("removed");
}

#[tokio::test]
async fn the_end_of_the_agent_is_noticed_and_flows_end_with_it() {
    let (world, carrier) = carrier().await;
    let (_listener, address) = far_end().await;
    let mut flow = carrier.open_tcp(address, DIAL).await.expect("opened");
    let closed = carrier.closed();
    world.config.line.as_ref().expect("a line").end();
    carrier.close();
    assert_eq!(timeout(SOON, closed).await.expect("noticed"), "closed");
    assert_eq!(next(&mut flow).await, Event::Reset);
    assert!(!carrier.is_alive());
    assert!(carrier.open_tcp(address, DIAL).await.is_err());
    drop(world);
}

#[tokio::test]
async fn nonsense_before_the_handshake_gets_nothing() {
    let world = world(FlowLimits::default(), "/nonexistent").await;
    let mut stream = TcpStream::connect(world.address).await.expect("connected");
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("written");
    let mut answer = Vec::new();
    drop(timeout(SOON, stream.read_to_end(&mut answer)).await.expect("the agent hangs up"));
    // A flow on a connection that is not authenticated.
    let stream = TcpStream::connect(world.address).await.expect("connected");
    let (mut requests, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let request = http::Request::post(format!("http://agent{}", podway_tunnel::FLOW_PATH)).body(()).expect("a request");
    let (response, _stream) = requests.send_request(request, false).expect("sent");
    assert!(response.await.is_err(), "refused");
    connection.abort();
    // The agent is well.
    assert!(connect(&world, &world.config).await.is_ok());
}

#[tokio::test]
async fn who_does_not_authenticate_in_time_is_cut() {
    let limits = FlowLimits { authenticate: Duration::from_millis(50), ..FlowLimits::default() };
    let world = world(limits, "/nonexistent").await;
    let mut silent = TcpStream::connect(world.address).await.expect("connected");
    let mut answer = Vec::new();
    drop(timeout(SOON, silent.read_to_end(&mut answer)).await.expect("the agent hangs up"));
    let stream = TcpStream::connect(world.address).await.expect("connected");
    let (mut requests, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let request =
        http::Request::post(format!("http://agent{}", podway_tunnel::HELLO_PATH)).body(()).expect("a request");
    let (_response, _stream) = requests.send_request(request, false).expect("sent");
    drop(timeout(SOON, connection).await.expect("the agent hangs up"));
}

type Requests = h2::client::SendRequest<Bytes>;
type Connection = h2::client::Connection<TcpStream>;

fn call(path: &str) -> http::Request<()> {
    http::Request::post(format!("http://agent{path}")).body(()).expect("a request")
}

/// A carrier made by hand up to the proof, which waits to be sent; what drives it is the caller's.
async fn almost_authenticated(world: &World) -> (Requests, Writer, Reader, Connection) {
    let stream = TcpStream::connect(world.address).await.expect("connected");
    let mut builder = h2::client::Builder::new();
    // h2 would end a carrier whose small frames are not read.
    builder.max_send_buffer_size(podway_tunnel::MAX_DATA).data_frame_budget(1 << 30);
    let (mut requests, mut connection) = builder.handshake(stream).await.expect("HTTP/2");
    let (response, stream) = requests.send_request(call(podway_tunnel::HELLO_PATH), false).expect("sent");
    let mut hello = Writer::new(stream);
    let first = ClientHello {
        protocol_min: 1,
        protocol_max: 1,
        features: vec!["something newer".into()],
        session_id: Bytes::from_static(&[7; 16]),
        public_key: Bytes::copy_from_slice(world.config.pair.public_key().as_ref()),
    };
    hello.send(&HelloFrame { frame: Some(hello_frame::Frame::ClientHello(first)) }).expect("sent");
    let challenge = async {
        let mut reader = Reader::new(response.await.expect("an answer").into_body());
        (reader.next::<HelloFrame>().await, reader)
    };
    let (challenge, reader) = tokio::select! {
        challenge = challenge => challenge,
        _ = &mut connection => panic!("the agent hung up"),
    };
    let Some(Ok(HelloFrame { frame: Some(hello_frame::Frame::Challenge(challenge)) })) = challenge else {
        panic!("no challenge")
    };
    let signature = podway_tunnel::handshake::sign(
        &world.config.pair,
        &challenge.nonce,
        &[7; 16],
        "pod-1",
        &["127.0.0.0/8".to_owned()],
    );
    let proof = Proof { signature: signature.into(), allowed_special: vec!["127.0.0.0/8".to_owned()] };
    hello.send(&HelloFrame { frame: Some(hello_frame::Frame::Proof(proof)) }).expect("sent");
    (requests, hello, reader, connection)
}

/// A carrier that has authenticated by hand. Lives as long as the call to `Hello`, the other half of what is given.
async fn raw_carrier(world: &World) -> (Requests, (Writer, Reader), tokio::task::JoinHandle<Result<(), h2::Error>>) {
    let (requests, hello, mut reader, connection) = almost_authenticated(world).await;
    let connection = tokio::spawn(connection);
    let Some(Ok(HelloFrame { frame: Some(hello_frame::Frame::Welcome(_)) })) = reader.next().await else {
        panic!("no welcome")
    };
    (requests, (hello, reader), connection)
}

/// A call on a carrier that has authenticated by hand, with what comes back until its end.
async fn raw_call(world: &World, path: &str, body: &'static [u8]) -> Option<Vec<u8>> {
    let (mut requests, _hello, connection) = raw_carrier(world).await;
    let (response, mut stream) = requests.send_request(call(path), false).expect("sent");
    stream.send_data(Bytes::from_static(body), false).expect("sent");
    let answer = async {
        let mut body = response.await.ok()?.into_body();
        let mut all = Vec::new();
        while let Some(Ok(chunk)) = body.data().await {
            all.extend_from_slice(&chunk);
        }
        Some(all)
    };
    let answer = timeout(SOON, answer).await.expect("the call ends");
    assert!(!connection.is_finished(), "one bad call ended the carrier");
    connection.abort();
    answer
}

#[tokio::test]
async fn a_malformed_call_ends_alone() {
    let world = world(FlowLimits::default(), "/nonexistent").await;
    for body in [
        &b"\x01\0\0\0\0"[..],        // compressed
        b"\0\xff\xff\xff\xff",       // longer than any message
        b"\0\0\0\0\x03\xff\xff\xff", // no message
        b"\0\0\0\0\0",               // a frame of no kind
        b"\0\0\0\0\x02\x4a\0",       // Fin before Open
        b"\0\0\0\0\x02\x0a\0",       // Open of nothing
        b"\0\0\0\0\x02\x22\0",       // Resume of an unknown flow
    ] {
        raw_call(&world, podway_tunnel::FLOW_PATH, body).await;
        raw_call(&world, podway_tunnel::DNS_PATH, body).await;
    }
    assert_eq!(raw_call(&world, podway_tunnel::HELLO_PATH, b"").await, None, "a second Hello");
    assert!(connect(&world, &world.config).await.is_ok());
}

#[tokio::test]
async fn an_idle_carrier_outlives_the_limit_of_the_handshake() {
    let limits = FlowLimits { authenticate: Duration::from_millis(200), ..FlowLimits::default() };
    let world = world(limits, "/nonexistent").await;
    let carrier = connect(&world, &world.config).await.expect("connected");
    assert!(timeout(Duration::from_secs(1), carrier.closed()).await.is_err(), "an idle carrier was cut");
}

/// A flow made by hand: its far end, and both directions of its stream, of which nothing was read yet.
async fn open_by_hand(requests: &mut Requests) -> (TcpStream, Writer, h2::client::ResponseFuture) {
    let (listener, address) = far_end().await;
    let (response, stream) = requests.send_request(call(podway_tunnel::FLOW_PATH), false).expect("sent");
    let mut writer = Writer::new(stream);
    let open = Open {
        flow_id: Bytes::from_static(&[1; 16]),
        protocol: Protocol::Tcp.into(),
        address: Bytes::from_static(&[127, 0, 0, 1]),
        port: address.port().into(),
        limit: 1 << 20,
        ..Open::default()
    };
    writer.send_flow(flow_frame::Frame::Open(open)).expect("sent");
    let (far, _) = listener.accept().await.expect("a connection");
    (far, writer, response)
}

/// A flow made by hand that both ends have finished, with how much was sent: the far end has not read any of it.
async fn finished_by_both(requests: &mut Requests) -> (TcpStream, u64, Writer, Reader) {
    let (mut far, mut writer, response) = open_by_hand(requests).await;
    socket2::SockRef::from(&far).set_recv_buffer_size(32 * 1024).expect("set");
    far.shutdown().await.expect("finished");
    let mut reader = Reader::new(response.await.expect("an answer").into_body());
    let Some(Ok(FlowFrame { frame: Some(flow_frame::Frame::Opened(Opened { limit, .. })) })) = reader.next().await
    else {
        panic!("not opened")
    };
    let fin = reader.next::<FlowFrame>().await;
    assert!(matches!(fin, Some(Ok(FlowFrame { frame: Some(flow_frame::Frame::Fin(_)) }))), "{fin:?}");
    // As much as it takes, so that the socket to the far end is full and the agent holds a window of it.
    let (mut offset, mut limit) = (0, limit);
    loop {
        while offset < limit {
            let room = poll_fn(|cx| writer.poll_room(cx)).await.expect("open") as u64;
            let length = room.min(limit - offset);
            writer.send_data(offset, Bytes::from(vec![5; length as usize])).expect("sent");
            offset += length;
        }
        match timeout(Duration::from_millis(300), reader.next::<FlowFrame>()).await {
            Ok(Some(Ok(FlowFrame { frame: Some(flow_frame::Frame::Ack(ack)) }))) => limit = ack.limit,
            Ok(other) => panic!("{other:?}"),
            Err(_) => break,
        }
    }
    writer.send_flow(flow_frame::Frame::Fin(Fin {})).expect("sent");
    // Room for as much as may wait: nothing waits, so no later call can overtake it.
    while poll_fn(|cx| writer.poll_room(cx)).await.expect("open") < podway_tunnel::STREAM_DATA {
        tokio::task::yield_now().await;
    }
    (far, offset, writer, reader)
}

#[tokio::test]
async fn what_came_before_both_ends_finished_goes_out_though_the_stream_or_the_carrier_breaks() {
    let world = world(FlowLimits::default(), "/nonexistent").await;
    for carrier_breaks in [false, true] {
        let (mut requests, _hello, connection) = raw_carrier(&world).await;
        let (mut far, sent, mut writer, _reader) = finished_by_both(&mut requests).await;
        // The agent has all of it once it answers a later call on the same connection.
        let (response, _later) = requests.send_request(call(podway_tunnel::DNS_PATH), false).expect("sent");
        response.await.expect("an answer");
        if carrier_breaks {
            connection.abort();
        } else {
            writer.abort();
            // And it has heard of that end once it answers another.
            let (response, _later) = requests.send_request(call(podway_tunnel::DNS_PATH), false).expect("sent");
            response.await.expect("an answer");
        }
        let mut all = Vec::new();
        timeout(SOON, far.read_to_end(&mut all)).await.expect("in time").expect("no reset");
        assert_eq!(all.len() as u64, sent, "the carrier broke: {carrier_breaks}");
        connection.abort();
    }
}

#[tokio::test]
async fn a_client_whose_carrier_ends_during_the_handshake_does_not_keep_the_agent() {
    let mut world = world_idle(Duration::from_millis(100)).await;
    let (requests, hello, reader, mut connection) = almost_authenticated(&world).await;
    // Written and closed in one go: the agent finds the proof and the end together.
    drop(poll_fn(|cx| std::task::Poll::Ready(std::pin::Pin::new(&mut connection).poll(cx))).await);
    drop((connection, requests, hello, reader));
    timeout(SOON, &mut world.agent).await.expect("the agent leaves when nobody is there").expect("in order");
}

#[tokio::test]
async fn the_agent_gives_credit_back_that_is_asked_back() {
    let world = world(FlowLimits::default(), "/nonexistent").await;
    let (mut requests, _hello, connection) = raw_carrier(&world).await;
    let (mut far, mut writer, response) = open_by_hand(&mut requests).await;
    let mut reader = Reader::new(response.await.expect("an answer").into_body());
    let opened = reader.next::<FlowFrame>().await;
    assert!(matches!(opened, Some(Ok(FlowFrame { frame: Some(flow_frame::Frame::Opened(_)) }))), "{opened:?}");
    writer.send_flow(flow_frame::Frame::Recall(Recall { limit: 1000 })).expect("sent");
    let answer = reader.next::<FlowFrame>().await.expect("open").expect("a message");
    assert_eq!(answer.frame, Some(flow_frame::Frame::Yielded(Yielded { limit: 1000 })));
    far.write_all(&[7; 5000]).await.expect("written");
    let mut got = 0;
    for limit in [1000, 5000] {
        writer.send_flow(flow_frame::Frame::Ack(Ack { received: got, limit })).expect("sent");
        while got < limit {
            match timeout(SOON, reader.next::<FlowFrame>()).await.expect("in time") {
                Some(Ok(FlowFrame { frame: Some(flow_frame::Frame::Data(data)) })) => got += data.bytes.len() as u64,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(got, limit, "no more than is granted");
    }
    connection.abort();
}

/// A client by hand lets so much of a stream come that it does not read (RFC 9113, initial window).
const WINDOW: usize = 65_535;

#[tokio::test]
async fn what_a_deaf_client_makes_the_agent_say_does_not_pile_up() {
    const TIMES: u64 = 20_000;
    let world = world(FlowLimits::default(), "/nonexistent").await;
    let (mut requests, (mut hello, mut told), connection) = raw_carrier(&world).await;
    let (mut far, mut writer, response) = open_by_hand(&mut requests).await;
    let mut reader = Reader::new(response.await.expect("an answer").into_body());
    for id in 1..=TIMES {
        hello.send(&HelloFrame { frame: Some(hello_frame::Frame::Ping(Ping { id })) }).expect("sent");
        writer.send_flow(flow_frame::Frame::Ack(Ack { received: 0, limit: (2 << 20) + id })).expect("sent");
        writer.send_flow(flow_frame::Frame::Recall(Recall { limit: (1 << 20) + id })).expect("sent");
    }
    // What came after all of it is out, so the agent has taken it.
    writer.send_data(0, Bytes::from_static(b".")).expect("sent");
    timeout(SOON, far.read_exact(&mut [0])).await.expect("in time").expect("read");
    let mut yielded = 0;
    let last = flow_frame::Frame::Yielded(Yielded { limit: (1 << 20) + TIMES });
    while let Some(Ok(FlowFrame { frame: Some(word) })) = timeout(SOON, reader.next()).await.expect("in time") {
        yielded += usize::from(matches!(word, flow_frame::Frame::Yielded(_)));
        if word == last {
            break;
        }
    }
    assert!((1..WINDOW / 8).contains(&yielded), "{yielded} answers");
    let mut ponged = 0;
    let last = hello_frame::Frame::Pong(Pong { id: TIMES });
    while let Some(Ok(HelloFrame { frame: Some(word) })) = timeout(SOON, told.next()).await.expect("in time") {
        ponged += usize::from(matches!(word, hello_frame::Frame::Pong(_)));
        if word == last {
            break;
        }
    }
    assert!((1..WINDOW / 8).contains(&ponged), "{ponged} answers");
    connection.abort();
}

#[tokio::test]
async fn an_echo_comes_back_where_the_pod_may_send_one() {
    let (_world, carrier) = carrier().await;
    let ask = |to: &str| carrier.echo(to.parse().expect("an address"), 3, Bytes::from_static(b"abcdefg"), SOON);
    let came = timeout(SOON, ask("127.0.0.1")).await.expect("in time");
    match carrier.welcome().icmp {
        true => assert_eq!(came.as_deref(), Ok(&b"abcdefg"[..])),
        false => assert_eq!(came, Err(Failure::Forbidden)),
    }
    assert_eq!(timeout(SOON, ask("169.254.169.254")).await.expect("in time"), Err(Failure::Forbidden));
}
