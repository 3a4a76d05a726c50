//! The workstation's end against an agent made by hand, over a pipe and with time that only moves when all wait.
#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::allow_attributes,
    reason = "a test says what it expects"
)]

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use podway_tunnel::client::{Carrier, Config, ConnectError, Event, Line, TcpFlow};
use podway_tunnel::credit::{Budget, Receiver};
use podway_tunnel::frames::{
    Ack, Challenge, Denied, Fin, FlowFrame, HelloFrame, Limits, Opened, Ping, Pong, Recall, Resumed, Stats, Welcome,
    Yielded, flow_frame, hello_frame::Frame,
};
use podway_tunnel::wire::{Reader, Writer};
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

fn config() -> Config {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
    let pair = Arc::new(Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("its pair"));
    let budget = podway_tunnel::client::budget();
    Config { pair, session_id: [7; 16], pod_uid: "pod-1".into(), special: Vec::new(), budget, line: None, bulk: None }
}

/// Answers a `Hello` with these frames, then hands the stream on.
async fn agent<F>(io: DuplexStream, answers: Vec<Frame>, then: impl FnOnce(Writer, Reader) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    agent_with_flows(io, answers, then, mpsc::unbounded_channel().0).await;
}

/// The same; later calls are answered and handed to the test.
async fn agent_with_flows<F>(
    io: DuplexStream,
    answers: Vec<Frame>,
    then: impl FnOnce(Writer, Reader) -> F,
    flow_tx: mpsc::UnboundedSender<(Writer, Reader)>,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut builder = h2::server::Builder::new();
    // Else h2 ends a carrier whose small frames are not read.
    let builder = builder.data_frame_budget(1 << 30);
    let mut connection = builder.handshake::<_, Bytes>(io).await.expect("HTTP/2");
    let (request, mut respond) = connection.accept().await.expect("a call").expect("a good one");
    let stream = respond.send_response(http::Response::new(()), false).expect("sent");
    let (mut writer, mut reader) = (Writer::new(stream), Reader::new(request.into_body()));
    let answering = async move {
        for answer in answers {
            drop(reader.next::<HelloFrame>().await);
            writer.send(&HelloFrame { frame: Some(answer) }).expect("sent");
        }
        (writer, reader)
    };
    let (answered_tx, answered_rx) = tokio::sync::oneshot::channel();
    tokio::spawn(async move { drop(answered_tx.send(answering.await)) });
    let drive = async {
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let stream = respond.send_response(http::Response::new(()), false).expect("sent");
            drop(flow_tx.send((Writer::new(stream), Reader::new(request.into_body()))));
        }
    };
    let rest = async {
        let (writer, reader) = answered_rx.await.expect("answered");
        then(writer, reader).await;
    };
    tokio::join!(drive, rest);
}

fn challenge() -> Frame {
    Frame::Challenge(Challenge { pod_uid: "pod-1".into(), protocol: 1, ..Challenge::default() })
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_carrier_after_seven_and_a_half_seconds() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let answers = vec![challenge(), Frame::Welcome(Welcome::default())];
    tokio::spawn(agent(theirs, answers, |writer, reader| async move {
        std::future::pending::<()>().await;
        drop((writer, reader));
    }));
    let carrier = Carrier::connect(ours, &config()).await.expect("connected");
    let began = Instant::now();
    let why = timeout(Duration::from_secs(60), carrier.closed()).await.expect("noticed");
    assert!(why.contains("7.5 s"), "{why}");
    assert!(began.elapsed() >= Duration::from_secs(7) && began.elapsed() < Duration::from_secs(8));
    assert!(!carrier.is_alive());
}

#[tokio::test(start_paused = true)]
async fn any_byte_keeps_a_carrier_even_without_a_pong() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let answers = vec![challenge(), Frame::Welcome(Welcome::default())];
    tokio::spawn(agent(theirs, answers, |mut writer, reader| async move {
        for _ in 0..10 {
            sleep(Duration::from_secs(7)).await;
            writer.send(&HelloFrame { frame: Some(Frame::Stats(Stats::default())) }).expect("sent");
        }
        drop(reader);
    }));
    let carrier = Carrier::connect(ours, &config()).await.expect("connected");
    timeout(Duration::from_secs(65), carrier.closed()).await.expect_err("it was ended");
    timeout(Duration::from_secs(60), carrier.closed()).await.expect("noticed");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_denies_or_is_another_or_hangs_up_is_told_apart() {
    let meet = async |answers: Vec<Frame>| {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        tokio::spawn(agent(theirs, answers, |mut writer, reader| async move {
            writer.finish_ok();
            drop(reader);
        }));
        timeout(Duration::from_secs(5), Carrier::connect(ours, &config())).await.expect("in time").err()
    };
    let denied = Frame::Denied(Denied { reason: "no".into(), ..Denied::default() });
    assert!(matches!(meet(vec![denied.clone()]).await, Some(ConnectError::Denied(why)) if why == "no"));
    assert!(matches!(meet(vec![challenge(), denied]).await, Some(ConnectError::Denied(_))));
    let stranger = Frame::Denied(Denied { wrong_key: true, ..Denied::default() });
    assert!(matches!(meet(vec![challenge(), stranger]).await, Some(ConnectError::Key)));
    assert!(matches!(meet(vec![challenge()]).await, Some(ConnectError::HungUp)));
    assert!(matches!(meet(Vec::new()).await, Some(ConnectError::HungUp)));
    let newer = Frame::Challenge(Challenge { pod_uid: "pod-1".into(), protocol: 9, ..Challenge::default() });
    assert!(matches!(meet(vec![newer]).await, Some(ConnectError::Protocol { theirs }) if theirs == (9..=9)));
    let newer = Frame::Denied(Denied {
        reason: "no protocol in common".into(),
        protocol_min: 8,
        protocol_max: 9,
        wrong_key: false,
    });
    let error = meet(vec![newer]).await.expect("refused");
    assert!(matches!(&error, ConnectError::Protocol { theirs } if *theirs == (8..=9)), "{error:?}");
    assert_eq!(error.to_string(), "the agent speaks protocol 8 to 9, this podway 1");
    let other = Frame::Challenge(Challenge { pod_uid: "pod-2".into(), protocol: 1, ..Challenge::default() });
    assert!(matches!(meet(vec![other]).await, Some(ConnectError::WrongPod { .. })));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_stream_below_ends_the_carrier() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let answers = vec![challenge(), Frame::Welcome(Welcome::default())];
    let agent = tokio::spawn(agent(theirs, answers, |writer, reader| async move {
        std::future::pending::<()>().await;
        drop((writer, reader));
    }));
    let carrier = Carrier::connect(ours, &config()).await.expect("connected");
    agent.abort();
    timeout(Duration::from_secs(5), carrier.closed()).await.expect("noticed before silence would be");
    let refused = carrier.dns(Bytes::from_static(&[0; 12]), Duration::from_secs(1)).await;
    assert!(refused.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_a_hung_agent_does_not_end_is_given_up() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (flow_tx, mut flow_rx) = mpsc::unbounded_channel();
    let talking = |mut writer: Writer, reader: Reader| async move {
        loop {
            sleep(Duration::from_secs(5)).await;
            writer.send(&HelloFrame { frame: Some(Frame::Stats(Stats::default())) }).expect("sent");
            let _ = &reader;
        }
    };
    let answers = vec![challenge(), Frame::Welcome(Welcome::default())];
    tokio::spawn(agent_with_flows(theirs, answers, talking, flow_tx));
    let carrier = Carrier::connect(ours, &config()).await.expect("connected");
    let opening = carrier.open_tcp("10.0.0.1:80".parse().expect("an address"), Duration::from_secs(5));
    let answering = async {
        let (mut writer, reader) = flow_rx.recv().await.expect("a call");
        writer.send_flow(flow_frame::Frame::Opened(Opened::default())).expect("sent");
        writer.send_flow(flow_frame::Frame::Fin(Fin {})).expect("sent");
        (writer, reader)
    };
    let (flow, (mut writer, mut reader)) = tokio::join!(opening, answering);
    let mut flow = flow.expect("opened");
    assert_eq!(poll_fn(|cx| flow.poll_event(cx)).await, Event::Fin);
    flow.send_fin();
    drop(flow);
    while let Some(Ok(FlowFrame { .. })) = reader.next::<FlowFrame>().await {}
    let began = Instant::now();
    let reset = poll_fn(|cx| writer.poll_reset(cx));
    timeout(Duration::from_secs(60), reset).await.expect("the workstation gives the stream up");
    assert!(began.elapsed() >= Duration::from_secs(29), "what is queued needs its time");
    assert!(carrier.is_alive());
}

/// A carrier to an agent made by hand, which welcomes so and talks on, and the calls that come after.
async fn welcomed(config: &Config, welcome: Welcome) -> (Carrier, mpsc::UnboundedReceiver<(Writer, Reader)>) {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (flow_tx, flow_rx) = mpsc::unbounded_channel();
    let talking = |mut writer: Writer, reader: Reader| async move {
        while writer.send(&HelloFrame { frame: Some(Frame::Stats(Stats::default())) }).is_ok() {
            sleep(Duration::from_secs(5)).await;
        }
        drop(reader);
    };
    tokio::spawn(agent_with_flows(theirs, vec![challenge(), Frame::Welcome(welcome)], talking, flow_tx));
    (Carrier::connect(ours, config).await.expect("connected"), flow_rx)
}

/// A carrier with a flow on it that the agent has opened, and the agent's end of the flow.
async fn flow(config: &Config) -> (Carrier, TcpFlow, Writer, Reader) {
    flow_of(config, Welcome::default()).await
}

async fn flow_of(config: &Config, welcome: Welcome) -> (Carrier, TcpFlow, Writer, Reader) {
    let (carrier, mut flow_rx) = welcomed(config, welcome).await;
    let opening = carrier.open_tcp("10.0.0.1:80".parse().expect("an address"), Duration::from_secs(5));
    let answering = async {
        let (mut writer, mut reader) = flow_rx.recv().await.expect("a call");
        assert!(matches!(next(&mut reader).await, flow_frame::Frame::Open(_)));
        writer.send_flow(flow_frame::Frame::Opened(Opened { limit: 1000, ..Opened::default() })).expect("sent");
        (writer, reader)
    };
    let (flow, (writer, reader)) = tokio::join!(opening, answering);
    (carrier, flow.expect("opened"), writer, reader)
}

/// Of an agent whose flows outlive carriers.
fn of_run(run: u8) -> Welcome {
    let limits = Limits { resume_window_ms: 60_000, ..Limits::default() };
    Welcome { limits: Some(limits), run: Bytes::from(vec![run; 16]), ..Welcome::default() }
}

#[tokio::test(start_paused = true)]
async fn a_flow_goes_on_with_the_same_run_of_an_agent_and_with_no_other() {
    for (run, goes_on) in [(1, true), (2, false)] {
        let config = Config { line: Some(Line::default()), ..config() };
        let (carrier, mut flow, ..) = flow_of(&config, of_run(1)).await;
        carrier.close();
        drop(carrier);
        let (_carrier, mut calls) = welcomed(&config, of_run(run)).await;
        let asked = async {
            tokio::select! {
                call = calls.recv() => call,
                event = poll_fn(|cx| flow.poll_event(cx)) => {
                    assert_eq!(event, Event::Reset);
                    None
                }
            }
        };
        let asked = timeout(Duration::from_secs(30), asked).await.expect("in time");
        assert_eq!(asked.is_some(), goes_on, "whoever listens in the agent's place is told of its flows");
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_takes_flows_over_and_drops_them_is_given_up() {
    let config = Config { line: Some(Line::default()), ..config() };
    let (carrier, mut flow, ..) = flow_of(&config, of_run(1)).await;
    carrier.close();
    drop(carrier);
    let (next, mut calls) = welcomed(&config, of_run(1)).await;
    let dropping = tokio::spawn(async move {
        let mut count = 0;
        while let Some((mut writer, _)) = calls.recv().await {
            drop(writer.send_flow(flow_frame::Frame::Resumed(Resumed::default())));
            writer.finish_ok();
            count += 1;
        }
        count
    });
    let event = timeout(Duration::from_secs(300), poll_fn(|cx| flow.poll_event(cx))).await.expect("in time");
    assert_eq!(event, Event::Reset);
    drop((flow, next));
    assert!(dropping.await.expect("counted") <= 70, "it asks without a pause");
}

async fn next(reader: &mut Reader) -> flow_frame::Frame {
    let frame = timeout(Duration::from_secs(60), reader.next::<FlowFrame>()).await.expect("in time");
    frame.expect("open").expect("a message").frame.expect("a frame")
}

#[tokio::test(start_paused = true)]
async fn what_an_idle_flow_does_not_use_is_asked_back_once_it_is_scarce() {
    let config = Config { budget: Arc::new(Budget::new(1 << 20, 16)), ..config() };
    let (_carrier, mut flow, mut writer, mut reader) = flow(&config).await;
    let (event_tx, mut events) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let event = poll_fn(|cx| flow.poll_event(cx)).await;
            event_tx.send(event).expect("the test lives");
        }
    });
    let plenty = timeout(Duration::from_secs(45), reader.next::<FlowFrame>()).await;
    assert!(plenty.is_err(), "{plenty:?} though there is enough");
    // Another that takes all that one flow may have.
    let mut bulk = Receiver::new(&*config.budget, 0).expect("a place");
    let (mut offset, mut limit) = (0, bulk.first_limit());
    for round_trip in 1..20 {
        bulk.arrived(offset, limit - offset).expect("within the limit");
        let taken = limit - offset;
        offset = limit;
        limit = bulk.taken(taken, round_trip * 100_000, 100_000).map_or(limit, |grant| grant.limit);
    }
    let flow_frame::Frame::Recall(Recall { limit }) = next(&mut reader).await else { panic!("no recall") };
    assert!((1..8 << 10).contains(&limit), "{limit}");
    writer.send_flow(flow_frame::Frame::Yielded(Yielded { limit })).expect("sent");
    // It goes on with what it kept, and gets more for it.
    let bytes = Bytes::from(vec![7; usize::try_from(limit).expect("few")]);
    writer.send_data(0, bytes.clone()).expect("sent");
    assert_eq!(events.recv().await, Some(Event::Data(bytes)));
    let flow_frame::Frame::Ack(ack) = next(&mut reader).await else { panic!("no credit") };
    assert!(ack.received == limit && ack.limit > limit, "{ack:?}");
    // Beyond what it has it may not go, as little as anyone.
    writer.send_data(limit, Bytes::from(vec![7; 16 << 10])).expect("sent");
    assert_eq!(events.recv().await, Some(Event::Reset));
    let flow_frame::Frame::Reset(reset) = next(&mut reader).await else { panic!("no word of it") };
    assert!(reset.reason.contains("granted"), "{reset:?}");
    assert_eq!(config.budget.broken(), 1);
}

#[tokio::test(start_paused = true)]
async fn credit_that_the_far_side_asks_back_is_given_back() {
    let (_carrier, mut flow, mut writer, mut reader) = flow(&config()).await;
    let room = poll_fn(|cx| flow.poll_send_ready(cx)).await.expect("open");
    assert_eq!(room, 1000);
    flow.send(Bytes::from_static(&[7; 300])).expect("open");
    assert!(matches!(next(&mut reader).await, flow_frame::Frame::Data(_)));
    for (asked, kept) in [(500, 500), (100, 300), (900, 300)] {
        writer.send_flow(flow_frame::Frame::Recall(Recall { limit: asked })).expect("sent");
        let answer = async { next(&mut reader).await };
        let standing = poll_fn(|cx| {
            flow.poll_arrivals(cx);
            Poll::<()>::Pending
        });
        let answer = tokio::select! { answer = answer => answer, () = standing => unreachable!("stands") };
        assert_eq!(answer, flow_frame::Frame::Yielded(Yielded { limit: kept }));
    }
    assert!(timeout(Duration::from_secs(1), poll_fn(|cx| flow.poll_send_ready(cx))).await.is_err(), "no credit left");
}

/// An agent by hand lets so much of a stream come that it does not read (RFC 9113, initial window): a few thousand words.
const WINDOW: usize = 65_535;

#[tokio::test(start_paused = true)]
async fn words_that_a_deaf_agent_causes_do_not_pile_up() {
    const ROUNDS: u64 = 10_000;
    const LENGTH: u64 = 256;
    // A small window, of which each piece is enough for a grant.
    let config = Config { budget: Arc::new(Budget::new(2048, 1)), ..config() };
    let (_carrier, mut flow, mut writer, mut reader) = flow(&config).await;
    for round in 0..ROUNDS {
        writer.send_flow(flow_frame::Frame::Ack(Ack { received: 0, limit: 2000 + round })).expect("sent");
        writer.send_flow(flow_frame::Frame::Recall(Recall { limit: 1000 + round })).expect("sent");
        writer.send_data(round * LENGTH, Bytes::from_static(&[7; LENGTH as usize])).expect("sent");
        let event = poll_fn(|cx| flow.poll_event(cx)).await;
        assert!(matches!(event, Event::Data(_)), "{event:?} in round {round}");
    }
    let mut bytes = 0;
    let (mut acked, mut kept) = (0, 0);
    let all = async {
        while acked < ROUNDS * LENGTH || kept < 999 + ROUNDS {
            let word = next(&mut reader).await;
            bytes += prost::Message::encoded_len(&FlowFrame { frame: Some(word.clone()) });
            if let flow_frame::Frame::Ack(ack) = &word {
                acked = ack.received;
                continue;
            }
            let flow_frame::Frame::Yielded(yielded) = word else { panic!("{word:?}") };
            kept = yielded.limit;
        }
    };
    tokio::select! { () = all => {}, event = poll_fn(|cx| flow.poll_event(cx)) => panic!("{event:?}") };
    assert!(bytes <= WINDOW, "{bytes} bytes of words");
}

#[tokio::test(start_paused = true)]
async fn answers_to_pings_of_a_deaf_agent_do_not_pile_up() {
    const PINGS: u64 = 20_000;
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (count_tx, count_rx) = tokio::sync::oneshot::channel();
    let answers = vec![challenge(), Frame::Welcome(Welcome::default())];
    tokio::spawn(agent(theirs, answers, |mut writer, mut reader| async move {
        for id in 1..=PINGS {
            writer.send(&HelloFrame { frame: Some(Frame::Ping(Ping { id })) }).expect("sent");
        }
        // Time stands still while anything is to be done.
        sleep(Duration::from_secs(1)).await;
        let mut count = 0;
        while let Some(Ok(HelloFrame { frame: Some(word) })) = reader.next::<HelloFrame>().await {
            count += usize::from(matches!(word, Frame::Pong(_)));
            if word == Frame::Pong(Pong { id: PINGS }) {
                break;
            }
        }
        count_tx.send(count).expect("the test lives");
        std::future::pending::<()>().await;
    }));
    let _carrier = Carrier::connect(ours, &config()).await.expect("connected");
    let count = timeout(Duration::from_secs(60), count_rx).await.expect("in time").expect("counted");
    assert!(count < WINDOW / 8, "{count} answers");
}

/// Resident memory of this process, bytes (proc_pid_status(5)).
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("read");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

#[tokio::test]
async fn a_trickle_that_nobody_reads_costs_what_it_has_bytes() {
    const BYTES: u64 = 200_000;
    /// Beside the bytes: what the allocator keeps, other tests of this process. A frame for each byte costs 50 MB.
    const SLACK: u64 = 16 << 20;
    let config = config();
    let (_carrier, mut flow, mut writer, _reader) = flow(&config).await;
    let before = resident();
    let trickle = async {
        for offset in 0..BYTES {
            writer.send_data(offset, Bytes::from_static(b".")).expect("sent");
            // So few at once that what is under way costs little.
            while offset % 1000 == 999 && config.budget.held() <= offset {
                tokio::task::yield_now().await;
            }
        }
    };
    let standing = poll_fn(|cx| {
        flow.poll_arrivals(cx);
        Poll::<()>::Pending
    });
    tokio::select! {
        arrived = timeout(Duration::from_secs(60), trickle) => arrived.expect("all of it arrives"),
        () = standing => unreachable!("stands"),
    };
    let held = resident().saturating_sub(before);
    assert!(held < SLACK, "{held} bytes for {BYTES}");
    let mut got = 0;
    while got < BYTES {
        match poll_fn(|cx| flow.poll_event(cx)).await {
            Event::Data(data) => got += data.len() as u64,
            end @ (Event::Fin | Event::Reset) => panic!("{end:?} after {got} bytes"),
        }
    }
}
