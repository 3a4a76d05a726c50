//! The workstation's end against an agent that says anything: it ends a flow, or the carrier; it neither panics nor hangs,
//! and keeps nothing.
#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::allow_attributes,
    reason = "a test says what it expects"
)]

#[path = "support/nonsense.rs"]
mod nonsense;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{BufMut as _, Bytes};
use podway_tunnel::client::{Carrier, Config, Event};
use podway_tunnel::frames::{Challenge, FlowFrame, HelloFrame, Opened, Welcome, flow_frame, hello_frame::Frame};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use tokio::io::DuplexStream;
use tokio::time::timeout;

/// Nothing may take longer, of a time that only moves when all wait.
const LIMIT: Duration = Duration::from_secs(120);
/// More events of one flow than what is sent has bytes would come from nowhere.
const EVENTS: usize = 600_000;

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// What the agent says.
#[derive(Clone, Debug)]
struct Script {
    /// Whether it greets as it should before.
    greets: bool,
    hello: Vec<Bytes>,
    /// Whether it opens flows as it should before, and grants so much.
    opens: Option<u64>,
    flow: Vec<Bytes>,
    /// Whether it ends each stream after.
    ends: bool,
}

fn script() -> impl Strategy<Value = Script> {
    let opens = prop_oneof![1 => Just(None), 4 => prop_oneof![Just(1000), any::<u64>()].prop_map(Some)];
    (prop::bool::weighted(0.9), nonsense::stream(), opens, nonsense::stream(), any::<bool>())
        .prop_map(|(greets, hello, opens, flow, ends)| Script { greets, hello, opens, flow, ends })
}

fn encoded(message: &impl prost::Message) -> Bytes {
    let mut out = vec![0];
    out.put_u32(u32::try_from(message.encoded_len()).expect("short"));
    message.encode(&mut out).expect("room");
    out.into()
}

async fn agent(io: DuplexStream, script: Script) {
    let Ok(mut connection) = h2::server::handshake(io).await else { return };
    let mut held = Vec::new();
    let mut is_hello = true;
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let Ok(mut stream) = respond.send_response(http::Response::new(()), false) else { continue };
        let hello = std::mem::take(&mut is_hello);
        let first = match (hello, script.greets, script.opens) {
            (true, true, _) => vec![
                encoded(&HelloFrame {
                    frame: Some(Frame::Challenge(Challenge {
                        pod_uid: "p".into(),
                        protocol: 1,
                        ..Challenge::default()
                    })),
                }),
                encoded(&HelloFrame { frame: Some(Frame::Welcome(Welcome { icmp: true, ..Welcome::default() })) }),
            ],
            (false, _, Some(limit)) => vec![encoded(&FlowFrame {
                frame: Some(flow_frame::Frame::Opened(Opened { limit, ..Opened::default() })),
            })],
            (true, false, _) | (false, _, None) => Vec::new(),
        };
        let said = if hello { &script.hello } else { &script.flow };
        for piece in first.into_iter().chain(said.iter().cloned()) {
            drop(stream.send_data(piece, false));
        }
        if script.ends {
            drop(stream.send_data(Bytes::new(), true));
        }
        held.push((request, respond, stream));
    }
}

/// Uses it as podway does, whatever comes of it.
async fn meet(script: Script) -> Result<(), TestCaseError> {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    tokio::spawn(agent(theirs, script));
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
    let pair = Arc::new(Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("its pair"));
    let budget = podway_tunnel::client::budget();
    let config = Config {
        pair,
        session_id: [7; 16],
        pod_uid: "p".into(),
        special: Vec::new(),
        budget: Arc::clone(&budget),
        line: None,
        bulk: None,
    };
    // Whoever dials has a limit of his own.
    let Ok(Ok(carrier)) = timeout(Duration::from_secs(10), Carrier::connect(ours, &config)).await else {
        return Ok(());
    };
    let soon = Duration::from_secs(5);
    let to = "10.0.0.1:80".parse().expect("an address");
    if let Ok(Ok(mut flow)) = timeout(soon, carrier.open_tcp(to, soon)).await {
        if let Ok(Ok(room)) = timeout(soon, poll_fn(|cx| flow.poll_send_ready(cx))).await {
            prop_assert!(room > 0);
            let _ = flow.send(Bytes::from(vec![7; room.min(4096)]));
        }
        let mut events = 0;
        // A flow of which nothing comes any more is its program's to end.
        while let Ok(event) = timeout(soon, poll_fn(|cx| flow.poll_event(cx))).await {
            events += 1;
            prop_assert!(events < EVENTS, "events without end");
            if event == Event::Reset {
                break;
            }
        }
    }
    if let Ok(Ok(mut datagrams)) = timeout(soon, carrier.open_udp(to, soon)).await {
        datagrams.send(Bytes::from_static(b"podway"));
        while let Ok(Ok(datagram)) = timeout(soon, poll_fn(|cx| datagrams.poll_recv(cx))).await {
            prop_assert!(datagram.len() <= 1 << 17);
        }
    }
    drop(timeout(soon, carrier.dns(Bytes::from_static(&[0; 12]), soon)).await);
    drop(timeout(soon, carrier.echo(to.ip(), 1, Bytes::new(), soon)).await);
    carrier.close();
    timeout(Duration::from_secs(30), carrier.closed()).await.map_err(|_| TestCaseError::fail("it does not close"))?;
    drop(carrier);
    tokio::task::yield_now().await;
    prop_assert_eq!(budget.held(), 0, "bytes are held of flows that are gone");
    Ok(())
}

#[test]
fn an_agent_that_says_anything_ends_its_own_flows_and_no_more() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        before(info);
    }));
    let config = ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() };
    let met = TestRunner::new(config).run(&script(), |script| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let met = runtime.expect("a runtime").block_on(async { timeout(LIMIT, meet(script)).await });
        // In its tasks, too.
        prop_assert_eq!(PANICS.load(Ordering::SeqCst), 0, "something panicked");
        met.map_err(|_| TestCaseError::fail("it hangs"))?
    });
    met.unwrap_or_else(|error| panic!("{error}"));
}
