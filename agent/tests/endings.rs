//! How flows that may outlive their carriers end, and that nothing of them stays.
#![allow(clippy::expect_used, clippy::allow_attributes, reason = "a test says what it expects")]
#![allow(clippy::disallowed_methods, reason = "tests measure time")]

#[path = "support/world.rs"]
mod world;

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use podway_agent::server::FlowLimits;
use podway_tunnel::client::{Config, Event, Line, TcpFlow};
use podway_tunnel::frames::{
    ClientHello, Failure, Fin, FlowFrame, HelloFrame, Open, Proof, Protocol, RESUME, flow_frame, hello_frame,
};
use podway_tunnel::wire::{Reader, Writer};
use podway_tunnel::{FLOW_PATH, HELLO_PATH};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use world::*;

/// Sends as much as the agent takes off while the far end reads nothing.
async fn filled(flow: &mut TcpFlow) -> Bytes {
    let (all, mut sent) = (pattern(12 << 20, 0), 0);
    while let Ok(room) = timeout(Duration::from_millis(200), poll_fn(|cx| flow.poll_send_ready(cx))).await {
        let room = room.expect("open").min(all.len() - sent);
        flow.send(all.slice(sent..sent + room)).expect("open");
        sent += room;
    }
    assert!(sent < all.len(), "the far end was to be slow");
    all.slice(..sent)
}

/// Both ends finish, and the program lets go.
async fn ends_in_order(world: &World) {
    let (_held, mut flow, mut far) = opened(world).await;
    far.write_all(b"answer").await.expect("written");
    far.shutdown().await.expect("finished");
    assert_eq!(read(&mut flow, 6).await, b"answer");
    assert_eq!(next(&mut flow).await, Event::Fin);
    flow.send_fin();
    assert_eq!(timeout(SOON, far.read(&mut [0; 8])).await.expect("in time").expect("no reset"), 0);
    drop(flow);
    world.agent_is_empty().await;
}

#[tokio::test]
async fn nothing_stays_of_a_flow_that_ended_in_order() {
    let world = World::new().await;
    ends_in_order(&world).await;
    // A program that resets what is over already.
    let (_held, mut flow, mut far) = opened(&world).await;
    flow.send_fin();
    far.shutdown().await.expect("finished");
    assert_eq!(next(&mut flow).await, Event::Fin);
    flow.send_reset();
    drop(flow);
    world.agent_is_empty().await;
}

#[tokio::test]
async fn the_far_end_reads_what_came_before_a_reset() {
    let world = World::new().await;
    for finishes in [false, true] {
        let (_held, mut flow, mut far) = opened(&world).await;
        send_all(&mut flow, Bytes::from_static(b"last words")).await;
        if finishes {
            flow.send_fin();
        }
        flow.send_reset();
        let mut read = Vec::new();
        let end = timeout(SOON, far.read_to_end(&mut read)).await.expect("in time").map_err(|error| error.kind());
        assert_eq!((read.as_slice(), end.is_ok()), (&b"last words"[..], finishes), "{end:?}");
        drop(flow);
        world.agent_is_empty().await;
    }
}

#[tokio::test]
async fn nothing_stays_of_a_flow_where_the_agent_keeps_none() {
    let world = World::with(FlowLimits { resume: Duration::ZERO, ..FlowLimits::default() }).await;
    ends_in_order(&world).await;
}

#[tokio::test]
async fn what_both_ends_finished_reaches_a_slow_far_end_though_room_is_needed() {
    let world = World::with(FlowLimits { flows: 1, ..FlowLimits::default() }).await;
    let (_held, mut flow, mut far) = opened(&world).await;
    far.shutdown().await.expect("finished");
    assert_eq!(next(&mut flow).await, Event::Fin);
    let sent = filled(&mut flow).await;
    // The end goes out on the next carrier, without that of the stream, and that it has arrived does not get through.
    world.cut();
    stands_still(&mut flow, Duration::from_millis(50)).await;
    flow.send_fin();
    let _carrier = world.connect().await;
    let goes_on = poll_fn(|cx| {
        flow.poll_arrivals(cx);
        if flow.stands_still() { Poll::Pending } else { Poll::Ready(()) }
    });
    timeout(SOON, goes_on).await.expect("taken over");
    world.fate.send_modify(|fate| fate.mute = true);
    let said = poll_fn(|cx| {
        flow.poll_arrivals(cx);
        Poll::<()>::Pending
    });
    drop(timeout(Duration::from_millis(300), said).await);
    world.cut();
    world.fate.send_modify(|fate| fate.mute = false);
    stands_still(&mut flow, Duration::from_millis(50)).await;
    assert_eq!(world.agents.places.detached(), 1);
    let other = Config { session_id: [8; 16], line: Some(Line::default()), ..world.config.clone() };
    let carrier = world.try_connect(&other).await.expect("welcome");
    let (_listener, address) = far_end().await;
    assert_eq!(carrier.open_tcp(address, DIAL).await.err(), Some(Failure::Limit));
    assert_eq!(world.agents.places.detached(), 0, "it made room");
    let mut all = Vec::new();
    timeout(SOON, far.read_to_end(&mut all)).await.expect("in time").expect("no reset");
    assert!(all == sent, "{} of {} bytes", all.len(), sent.len());
}

#[tokio::test]
async fn the_agent_lets_go_of_what_arrived_though_nobody_asks_for_more() {
    let world = World::new().await;
    let (_held, mut flow, mut far) = opened(&world).await;
    far.write_all(&pattern(20_000, 0)).await.expect("written");
    sleep(Duration::from_millis(100)).await;
    // The task is woken as often as it asked to be.
    let task = tokio::spawn(async move {
        poll_fn(|cx| {
            flow.poll_arrivals(cx);
            Poll::<()>::Pending
        })
        .await;
    });
    sleep(Duration::from_millis(400)).await;
    assert_eq!(world.agents.budget.kept(), 0);
    task.abort();
}

#[tokio::test]
async fn a_flow_that_waits_for_an_answer_ends_with_its_line() {
    let world = World::new().await;
    let (_held, mut flow, _far) = opened(&world).await;
    world.cut();
    stands_still(&mut flow, Duration::from_millis(50)).await;
    let _carrier = world.connect().await;
    // The agent's answer does not come through.
    world.fate.send_modify(|fate| fate.mute = true);
    stands_still(&mut flow, Duration::from_millis(100)).await;
    let began = Instant::now();
    world.config.line.as_ref().expect("a line").end();
    assert_eq!(next(&mut flow).await, Event::Reset);
    assert!(began.elapsed() < Duration::from_millis(200), "{:?}", began.elapsed());
}

fn call(path: &str) -> http::Request<()> {
    http::Request::post(format!("http://agent{path}")).body(()).expect("a request")
}

fn hello(frame: hello_frame::Frame) -> HelloFrame {
    HelloFrame { frame: Some(frame) }
}

/// A workstation that is not ours: it ends its side of the stream after its `Fin`, and cancels the stream later.
#[tokio::test]
async fn nothing_stays_of_a_flow_that_was_cancelled_after_the_end_of_its_stream() {
    let world = World::new().await;
    let stream = TcpStream::connect(world.address).await.expect("the agent listens");
    let (mut requests, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let (response, stream) = requests.send_request(call(HELLO_PATH), false).expect("sent");
    let mut greeting = Writer::new(stream);
    let pair = &world.config.pair;
    let first = ClientHello {
        protocol_min: 1,
        protocol_max: 1,
        features: vec![RESUME.to_owned()],
        session_id: Bytes::from_static(&[9; 16]),
        public_key: Bytes::copy_from_slice(ring::signature::KeyPair::public_key(&**pair).as_ref()),
    };
    greeting.send(&hello(hello_frame::Frame::ClientHello(first))).expect("sent");
    let mut answers = Reader::new(response.await.expect("an answer").into_body());
    let Some(Ok(HelloFrame { frame: Some(hello_frame::Frame::Challenge(challenge)) })) = answers.next().await else {
        panic!("no challenge")
    };
    let special = vec!["127.0.0.0/8".to_owned()];
    let signature = podway_tunnel::handshake::sign(pair, &challenge.nonce, &[9; 16], "pod-1", &special);
    let proof = Proof { signature: signature.into(), allowed_special: special };
    greeting.send(&hello(hello_frame::Frame::Proof(proof))).expect("sent");
    assert!(matches!(answers.next::<HelloFrame>().await, Some(Ok(_))), "no welcome");

    let (listener, address) = far_end().await;
    let open = Open {
        flow_id: Bytes::from_static(&[1; 16]),
        protocol: Protocol::Tcp.into(),
        address: Bytes::from_static(&[127, 0, 0, 1]),
        port: address.port().into(),
        dial_timeout_ms: 1000,
        limit: 1 << 16,
        ..Open::default()
    };
    let (response, stream) = requests.send_request(call(FLOW_PATH), false).expect("sent");
    let mut writer = Writer::new(stream);
    writer.send_flow(flow_frame::Frame::Open(open)).expect("sent");
    let mut reader = Reader::new(response.await.expect("an answer").into_body());
    assert!(matches!(reader.next::<FlowFrame>().await, Some(Ok(_))), "not opened");
    let (mut far, _) = listener.accept().await.expect("a connection");
    writer.send_flow(flow_frame::Frame::Fin(Fin {})).expect("sent");
    writer.finish();
    assert_eq!(timeout(SOON, far.read(&mut [0; 8])).await.expect("in time").expect("no reset"), 0);
    // Told to whoever keeps something until then, though its side of the stream has ended.
    let told = timeout(SOON, reader.next::<FlowFrame>()).await.expect("in time");
    let Some(Ok(FlowFrame { frame: Some(flow_frame::Frame::Ack(ack)) })) = told else { panic!("{told:?}") };
    assert_eq!(ack.received, 1);
    assert_eq!(world.agents.places.len(), 1);
    drop((reader, writer));
    // Its far end says nothing all the while.
    world.agent_is_empty().await;
    connection.abort();
    drop((greeting, answers));
}

#[tokio::test]
async fn a_session_that_left_leaves_nothing_on_carriers_that_the_agent_believed_alive() {
    let world = World::new().await;
    let (_older, _flow, mut far) = opened(&world).await;
    let newer = world.connect().await;
    world.config.line.as_ref().expect("a line").end();
    newer.close();
    timeout(SOON, newer.gone()).await.expect("told");
    world.cut();
    assert!(is_reset(&mut far).await);
    world.agent_is_empty().await;
    // It may come back, and leaves again only when it does.
    let _again = world.try_connect(&Config { line: Some(Line::default()), ..world.config.clone() }).await;
    assert_eq!(world.agents.places.detached(), 0);
    let line = Line::default();
    let carrier = world.try_connect(&Config { line: Some(line), ..world.config.clone() }).await.expect("welcome");
    let (mut flow, _far) = open(&carrier).await;
    world.cut();
    stands_still(&mut flow, Duration::from_millis(50)).await;
    assert_eq!(world.agents.places.detached(), 1);
}

#[tokio::test]
async fn a_carrier_is_gone_once_the_agent_knows_that_it_was_left() {
    let world = World::new().await;
    let (carrier, _flow, mut far) = opened(&world).await;
    world.freeze(true);
    world.config.line.as_ref().expect("a line").end();
    carrier.close();
    let gone = timeout(Duration::from_millis(100), carrier.gone()).await;
    assert!(gone.is_err(), "nobody was told");
    world.freeze(false);
    timeout(Duration::from_millis(500), carrier.gone()).await.expect("told");
    assert!(is_reset(&mut far).await);
    world.agent_is_empty().await;
}

#[tokio::test]
async fn a_finished_flow_reaches_a_slow_far_end_though_its_carrier_is_lost() {
    let world = World::new().await;
    let (_held, mut flow, mut far) = opened(&world).await;
    far.shutdown().await.expect("finished");
    assert_eq!(next(&mut flow).await, Event::Fin);
    let sent = filled(&mut flow).await;
    // The agent hears the end of both the flow and its stream, and cannot say so.
    world.fate.send_modify(|fate| fate.mute = true);
    flow.send_fin();
    drop(flow);
    sleep(Duration::from_millis(200)).await;
    world.cut();
    world.fate.send_modify(|fate| fate.mute = false);
    let _carrier = world.connect().await;
    let mut all = Vec::new();
    timeout(SOON, far.read_to_end(&mut all)).await.expect("in time").expect("no reset");
    assert!(all == sent, "{} of {} bytes", all.len(), sent.len());
    world.agent_is_empty().await;
}

#[tokio::test]
async fn a_program_may_reset_what_it_has_not_read_though_both_ends_finished() {
    let world = World::new().await;
    let (_held, mut flow, mut far) = opened(&world).await;
    far.write_all(b"not read").await.expect("written");
    far.shutdown().await.expect("finished");
    let arriving = poll_fn(|cx| {
        flow.poll_arrivals(cx);
        Poll::<()>::Pending
    });
    timeout(Duration::from_millis(200), arriving).await.expect_err("nothing ends it");
    filled(&mut flow).await;
    flow.send_fin();
    sleep(Duration::from_millis(50)).await;
    flow.send_reset();
    drop(flow);
    world.agent_is_empty().await;
}
