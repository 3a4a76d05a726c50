//! The agent against a client that holds the key and says anything: its calls end, others go on, and the agent lives.
#![allow(clippy::expect_used, clippy::allow_attributes, reason = "a test says what it expects")]

#[path = "../../tunnel/tests/support/nonsense.rs"]
mod nonsense;

#[path = "support/serving.rs"]
mod serving;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use podway_agent::server::{Agent, FlowLimits};
use podway_tunnel::client::{Carrier, Config};
use podway_tunnel::frames::{ClientHello, Failure, HelloFrame, Proof, hello_frame};
use podway_tunnel::wire::{Reader, Writer};
use podway_tunnel::{DNS_PATH, ECHO_PATH, FLOW_PATH, HELLO_PATH};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serving::serving;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);
/// How long a call is listened to that asks for nothing any more: an agent that waits for more of it may be silent.
const LISTEN: Duration = Duration::from_millis(5);

static PANICS: AtomicUsize = AtomicUsize::new(0);

fn call(path: &str) -> http::Request<()> {
    http::Request::post(format!("http://agent{path}")).body(()).expect("a request")
}

fn hello(frame: hello_frame::Frame) -> HelloFrame {
    HelloFrame { frame: Some(frame) }
}

/// One carrier that authenticates as it should where `known`, and calls each path with that on its stream.
async fn misuse(
    agent: std::net::SocketAddr,
    pair: &Ed25519KeyPair,
    known: bool,
    bodies: &[(&'static str, Vec<Bytes>)],
) {
    let stream = TcpStream::connect(agent).await.expect("the agent listens");
    let (mut requests, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let (response, stream) = requests.send_request(call(HELLO_PATH), false).expect("sent");
    let mut writer = Writer::new(stream);
    let first = ClientHello {
        protocol_min: 1,
        protocol_max: 1,
        session_id: Bytes::from_static(&[9; 16]),
        public_key: Bytes::copy_from_slice(pair.public_key().as_ref()),
        ..ClientHello::default()
    };
    let mut reader = None;
    if known {
        writer.send(&hello(hello_frame::Frame::ClientHello(first))).expect("sent");
        let mut answers = Reader::new(response.await.expect("an answer").into_body());
        let Some(Ok(HelloFrame { frame: Some(hello_frame::Frame::Challenge(challenge)) })) = answers.next().await
        else {
            panic!("no challenge")
        };
        let signature = podway_tunnel::handshake::sign(pair, &challenge.nonce, &[9; 16], "pod-1", &[]);
        let proof = Proof { signature: signature.into(), allowed_special: Vec::new() };
        writer.send(&hello(hello_frame::Frame::Proof(proof))).expect("sent");
        assert!(matches!(answers.next::<HelloFrame>().await, Some(Ok(_))), "no welcome");
        reader = Some(answers);
    }
    for (path, body) in bodies {
        let Ok(mut ready) = requests.clone().ready().await else { break };
        let Ok((response, mut stream)) = ready.send_request(call(path), false) else { break };
        for piece in body {
            drop(stream.send_data(piece.clone(), false));
        }
        let listening = async {
            let mut body = response.await.ok()?.into_body();
            while let Some(Ok(chunk)) = body.data().await {
                body.flow_control().release_capacity(chunk.len()).ok()?;
            }
            Some(())
        };
        drop(timeout(LISTEN, listening).await);
    }
    connection.abort();
    drop((writer, reader));
}

/// What the others of the session and of the agent can do meanwhile: all.
async fn works(agent: std::net::SocketAddr, config: &Config) {
    let stream = TcpStream::connect(agent).await.expect("the agent listens");
    let carrier = timeout(SOON, Carrier::connect(stream, config)).await.expect("in time").expect("connected");
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("bound").local_addr().expect("an address");
    let refused = timeout(SOON, carrier.open_tcp(closed, SOON)).await.expect("in time");
    assert_eq!(refused.err(), Some(Failure::Refused));
}

#[test]
fn a_client_that_says_anything_ends_its_own_calls_and_no_more() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        before(info);
    }));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let (pair, serve) = serving();
    let agent = runtime.block_on(Agent::bind(serve, FlowLimits::default())).expect("bound");
    let address = agent.address();
    let running = runtime.spawn(agent.run(std::future::pending()));
    let config = Config {
        pair: Arc::clone(&pair),
        session_id: [7; 16],
        pod_uid: "pod-1".into(),
        special: vec!["127.0.0.0/8".to_owned()],
        budget: podway_tunnel::client::budget(),
        line: None,
        bulk: None,
    };
    let paths = prop_oneof![4 => Just(FLOW_PATH), 2 => Just(DNS_PATH), 2 => Just(ECHO_PATH), 1 => Just(HELLO_PATH), 1 => Just("/")];
    let bodies = prop::collection::vec((paths, nonsense::stream()), 1..6);
    let cases = ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() };
    let met = TestRunner::new(cases).run(&(prop::bool::weighted(0.8), bodies), |(known, bodies)| {
        let misused = runtime.block_on(async { timeout(SOON, misuse(address, &pair, known, &bodies)).await });
        prop_assert!(misused.is_ok(), "it hangs");
        prop_assert_eq!(PANICS.load(Ordering::SeqCst), 0, "something panicked");
        prop_assert!(!running.is_finished(), "the agent ended");
        Ok(())
    });
    met.unwrap_or_else(|error| panic!("{error}"));
    runtime.block_on(works(address, &config));
}
