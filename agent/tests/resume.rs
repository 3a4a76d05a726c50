//! Flows that outlive their carriers: a real agent, the workstation's end, and a way between them that is cut.
#![allow(clippy::expect_used, clippy::allow_attributes, reason = "a test says what it expects")]
#![allow(clippy::disallowed_methods, reason = "tests measure time")]

#[path = "support/world.rs"]
mod world;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use podway_agent::server::FlowLimits;
use podway_tunnel::client::{Carrier, Config, Event, Line};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use world::*;

/// Bytes of a bulk flow each way.
const BULK: usize = 12 << 20;

/// Flows at once, each with other bytes both ways, over carriers that are cut after so many bytes.
async fn bulk(flow_count: usize, length: usize, cut_within: u64) {
    let world = Arc::new(World::new().await);
    let carrier = world.connect().await;
    let mut flows = Vec::new();
    for seed in 1..=flow_count {
        let (mut flow, far) = open(&carrier).await;
        let (up, down) = (pattern(length, seed), pattern(length, 100 + seed));
        let (sent, expected) = (up.clone(), down.clone());
        let far = tokio::spawn(async move {
            let (mut read, mut write) = far.into_split();
            let (mut got, writing) = (Vec::new(), async {
                write.write_all(&down).await.expect("no reset");
                write.shutdown().await.expect("finished");
            });
            let (read, ()) = tokio::join!(read.read_to_end(&mut got), writing);
            read.expect("no reset");
            assert!(got == up, "{} bytes arrived", got.len());
        });
        let near = tokio::spawn(async move {
            let got = both_ways(&mut flow, sent).await;
            assert!(got == expected, "{} bytes came", got.len());
        });
        flows.extend([far, near]);
    }
    world.cut_within.store(cut_within, Ordering::Relaxed);
    world.cut();
    let connected = world.keep_connected();
    for flow in flows {
        timeout(6 * SOON, flow).await.expect("in time").expect("whole");
    }
    assert!(world.fate.borrow().cuts == 1);
    world.cut_within.store(0, Ordering::Relaxed);
    timeout(SOON, async {
        while world.kept() > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("all of it is let go");
    connected.abort();
}

#[tokio::test]
async fn bulk_arrives_whole_though_carriers_are_cut_after_any_number_of_bytes() {
    bulk(2, BULK, 3 << 20).await;
}

#[tokio::test]
async fn bulk_arrives_whole_though_many_carriers_end_while_flows_are_resumed() {
    bulk(2, BULK, 600 << 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hundreds_of_flows_go_on_though_carriers_end_just_as_they_are_found() {
    bulk(300, 60_000, 400 << 10).await;
}

#[tokio::test]
async fn a_quiet_flow_goes_on_where_it_was() {
    let world = World::new().await;
    let (mut held, mut flow, mut far) = opened(&world).await;
    send_all(&mut flow, Bytes::from_static(b"one")).await;
    far.read_exact(&mut [0; 3]).await.expect("read");
    for round in 0..3 {
        world.cut();
        stands_still(&mut flow, Duration::from_millis(100)).await;
        far.write_all(b"meanwhile").await.expect("written");
        held = world.connect().await;
        assert_eq!(read(&mut flow, 9).await, b"meanwhile", "round {round}");
        send_all(&mut flow, Bytes::from_static(b"two")).await;
        let mut word = [0; 3];
        timeout(SOON, far.read_exact(&mut word)).await.expect("in time").expect("read");
        assert_eq!(&word, b"two");
    }
    assert!(held.is_alive());
}

#[tokio::test]
async fn halves_that_were_closed_stay_closed_and_those_that_were_not_go_on() {
    let world = World::new().await;
    for workstation_first in [true, false] {
        let (_held, mut flow, mut far) = opened(&world).await;
        let mut all = Vec::new();
        if workstation_first {
            send_all(&mut flow, Bytes::from_static(b"question")).await;
            flow.send_fin();
            far.read_to_end(&mut all).await.expect("read");
            assert_eq!(all, b"question");
            world.cut();
            stands_still(&mut flow, Duration::from_millis(50)).await;
            far.write_all(b"answer").await.expect("written");
            far.shutdown().await.expect("finished");
            let _carrier = world.connect().await;
            assert_eq!(read(&mut flow, 6).await, b"answer");
            assert_eq!(next(&mut flow).await, Event::Fin);
        } else {
            far.write_all(b"greeting").await.expect("written");
            far.shutdown().await.expect("finished");
            assert_eq!(read(&mut flow, 8).await, b"greeting");
            assert_eq!(next(&mut flow).await, Event::Fin);
            world.cut();
            stands_still(&mut flow, Duration::from_millis(50)).await;
            // Nothing can be sent, but that nothing more will be is known already.
            flow.send_fin();
            let _carrier = world.connect().await;
            let reading = async { timeout(SOON, far.read_to_end(&mut all)).await.expect("in time").expect("no reset") };
            tokio::select! {
                _ = reading => {}
                event = poll_fn(|cx| flow.poll_event(cx)) => panic!("{event:?}"),
            }
            assert!(all.is_empty());
        }
    }
}

#[tokio::test]
async fn what_a_flow_that_is_dropped_has_sent_arrives_over_the_next_carrier() {
    // Fewer than a carrier takes off before it has heard of any window.
    const BYTES: usize = 40_000;
    let world = World::new().await;
    let (_held, mut flow, mut far) = opened(&world).await;
    far.shutdown().await.expect("finished");
    assert_eq!(next(&mut flow).await, Event::Fin);
    world.freeze(true);
    send_all(&mut flow, pattern(BYTES, 0)).await;
    flow.send_fin();
    drop(flow);
    world.cut();
    world.freeze(false);
    let _carrier = world.connect().await;
    let mut all = Vec::new();
    timeout(SOON, far.read_to_end(&mut all)).await.expect("in time").expect("no reset");
    assert!(all == pattern(BYTES, 0), "{} bytes", all.len());
}

#[tokio::test]
async fn an_end_in_order_is_no_reset_though_the_last_word_of_it_was_lost() {
    let world = World::new().await;
    let (_held, mut flow, mut far) = opened(&world).await;
    let down = pattern(100_000, 3);
    far.write_all(&down).await.expect("written");
    far.shutdown().await.expect("finished");
    // All of it arrives, while the program reads nothing.
    let arriving = poll_fn(|cx| {
        flow.poll_arrivals(cx);
        Poll::<()>::Pending
    });
    timeout(Duration::from_millis(200), arriving).await.expect_err("nothing ends it");
    world.fate.send_modify(|fate| fate.mute = true);
    flow.send_fin();
    assert_eq!(timeout(SOON, far.read(&mut [0; 8])).await.expect("in time").expect("no reset"), 0);
    world.cut();
    world.fate.send_modify(|fate| fate.mute = false);
    sleep(Duration::from_millis(50)).await;
    let _carrier = world.connect().await;
    assert!(read(&mut flow, down.len()).await == down);
    assert_eq!(next(&mut flow).await, Event::Fin);
    let more = timeout(Duration::from_millis(300), poll_fn(|cx| flow.poll_event(cx))).await;
    assert!(more.is_err(), "{more:?} after an end in order");
}

#[tokio::test]
async fn resets_are_told_over_the_next_carrier() {
    let world = World::new().await;
    // The program's, while there is no carrier.
    let (_held, mut flow, mut far) = opened(&world).await;
    world.cut();
    stands_still(&mut flow, Duration::from_millis(50)).await;
    drop(flow);
    let carrier = world.connect().await;
    assert!(is_reset(&mut far).await);
    // The program's, on a carrier that takes the word along.
    let (flow, mut far) = open(&carrier).await;
    world.freeze(true);
    drop(flow);
    sleep(Duration::from_millis(50)).await;
    world.cut();
    world.freeze(false);
    let carrier = world.connect().await;
    assert!(is_reset(&mut far).await);
    // The far end's, after bytes that were under way.
    let (mut flow, mut far) = open(&carrier).await;
    world.freeze(true);
    far.write_all(b"last words").await.expect("written");
    sleep(Duration::from_millis(50)).await;
    world.cut();
    world.freeze(false);
    stands_still(&mut flow, Duration::from_millis(50)).await;
    socket2::SockRef::from(&far).set_linger(Some(Duration::ZERO)).expect("set");
    drop(far);
    let _carrier = world.connect().await;
    assert_eq!(read(&mut flow, 10).await, b"last words");
    assert_eq!(next(&mut flow).await, Event::Reset);
}

#[tokio::test]
async fn a_carrier_that_the_agent_believes_alive_holds_no_flow_back() {
    let world = World::new().await;
    let old = world.connect().await;
    let (mut flow, mut far) = open(&old).await;
    world.freeze(true);
    // Not left for good: its line goes on. The agent hears nothing of the end.
    old.close();
    stands_still(&mut flow, Duration::from_millis(100)).await;
    far.write_all(b"still here").await.expect("written");
    let stream = TcpStream::connect(world.address).await.expect("connected");
    let _carrier = Carrier::connect(stream, &world.config).await.expect("welcome");
    assert_eq!(read(&mut flow, 10).await, b"still here");
    world.freeze(false);
    send_all(&mut flow, Bytes::from_static(b"yes")).await;
    timeout(SOON, far.read_exact(&mut [0; 3])).await.expect("in time").expect("read");
}

#[tokio::test]
async fn another_session_cannot_have_the_flow() {
    let world = World::new().await;
    let line = Line::default();
    let config = Config { line: Some(line.clone()), ..world.config.clone() };
    let carrier = world.try_connect(&config).await.expect("welcome");
    let (mut flow, mut far) = open(&carrier).await;
    world.cut();
    stands_still(&mut flow, Duration::from_millis(50)).await;
    // Of the same user, who knows the flow's name: the line leads there.
    let stranger = Config { session_id: [8; 16], ..config.clone() };
    let _strange = world.try_connect(&stranger).await.expect("welcome");
    assert_eq!(next(&mut flow).await, Event::Reset);
    // To the agent's side it does not matter: it waits for its own.
    let heard = timeout(Duration::from_millis(200), far.read(&mut [0; 8])).await;
    assert!(heard.is_err(), "{heard:?}");
}

#[tokio::test]
async fn a_flow_that_nobody_resumes_in_time_is_reset_at_both_ends() {
    let limits = FlowLimits { resume: Duration::from_millis(300), ..FlowLimits::default() };
    let world = World::with(limits).await;
    let (_held, mut flow, mut far) = opened(&world).await;
    let began = Instant::now();
    world.cut();
    assert_eq!(next(&mut flow).await, Event::Reset);
    assert!(is_reset(&mut far).await);
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    let _carrier = world.connect().await;
}

#[tokio::test]
async fn the_flows_of_an_agent_that_is_gone_are_reset_as_soon_as_that_is_known() {
    let mut world = World::new().await;
    let (_held, mut flow, _far) = opened(&world).await;
    world.restart_agent().await;
    stands_still(&mut flow, Duration::from_millis(50)).await;
    let carrier = world.connect().await;
    assert_eq!(next(&mut flow).await, Event::Reset, "another process does not know it");
    // And where no other comes.
    let (mut flow, _far) = open(&carrier).await;
    world.cut();
    stands_still(&mut flow, Duration::from_millis(50)).await;
    world.config.line.as_ref().expect("a line").end();
    assert_eq!(next(&mut flow).await, Event::Reset);
}

#[tokio::test]
async fn a_workstation_that_leaves_on_purpose_leaves_nothing_behind() {
    let world = World::new().await;
    let carrier = world.connect().await;
    let (mut flow, mut far) = open(&carrier).await;
    world.config.line.as_ref().expect("a line").end();
    carrier.close();
    assert!(is_reset(&mut far).await);
    assert_eq!(next(&mut flow).await, Event::Reset);
}

#[tokio::test]
async fn with_one_who_does_not_know_how_flows_end_with_their_carrier() {
    // An older workstation.
    let world = World::new().await;
    let older = Config { line: None, ..world.config.clone() };
    let carrier = world.try_connect(&older).await.expect("welcome");
    let (mut flow, mut far) = open(&carrier).await;
    world.cut();
    assert_eq!(next(&mut flow).await, Event::Reset);
    assert!(is_reset(&mut far).await);
    // An older agent says zero.
    let world = World::with(FlowLimits { resume: Duration::ZERO, ..FlowLimits::default() }).await;
    let (_held, mut flow, mut far) = opened(&world).await;
    world.cut();
    assert_eq!(next(&mut flow).await, Event::Reset);
    assert!(is_reset(&mut far).await);
}

#[tokio::test]
async fn flows_that_nobody_has_come_for_make_room_for_others() {
    let world = World::with(FlowLimits { flows: 2, ..FlowLimits::default() }).await;
    let carrier = world.connect().await;
    let (first, mut first_far) = open(&carrier).await;
    let (mut second, mut second_far) = open(&carrier).await;
    world.cut();
    stands_still(&mut second, Duration::from_millis(50)).await;
    // Another session of the same user.
    let other = Config { session_id: [8; 16], line: Some(Line::default()), ..world.config.clone() };
    let carrier = world.try_connect(&other).await.expect("welcome");
    let (listener, address) = far_end().await;
    let opened = timeout(SOON, async {
        loop {
            if let Ok(flow) = carrier.open_tcp(address, DIAL).await {
                return flow;
            }
        }
    });
    let _flow = opened.await.expect("a place");
    listener.accept().await.expect("a connection");
    // One of them went, and was told.
    let (mut word, mut other_word) = ([0; 8], [0; 8]);
    let (one, other) = tokio::join!(
        timeout(Duration::from_millis(500), first_far.read(&mut word)),
        timeout(Duration::from_millis(500), second_far.read(&mut other_word)),
    );
    assert!(one.is_ok() || other.is_ok(), "nobody went");
    drop(first);
}

/// How much is kept where nobody reads, at the workstation for flows to the cluster, and that it goes when it has arrived.
#[tokio::test]
async fn what_is_kept_for_readers_that_stand_still_is_bounded() {
    const FLOWS: usize = 40;
    let world = World::new().await;
    let carrier = world.connect().await;
    let mut flows = Vec::new();
    for _ in 0..FLOWS {
        flows.push(open(&carrier).await);
    }
    // Nothing gets through, so nothing is acknowledged: the windows that the agent named bound what is kept.
    world.freeze(true);
    let chunk = pattern(64 << 10, 0);
    let mut sent = vec![0_usize; FLOWS];
    for ((flow, _far), sent) in flows.iter_mut().zip(&mut sent) {
        while let Ok(room) = timeout(Duration::from_millis(20), poll_fn(|cx| flow.poll_send_ready(cx))).await {
            let room = room.expect("open").min(chunk.len());
            flow.send(chunk.slice(..room)).expect("open");
            *sent += room;
        }
    }
    let kept = world.kept();
    println_kept("flows whose carrier stands still", kept, FLOWS);
    let first_window = podway_tunnel::credit::FIRST_WINDOW;
    assert!(kept > 0 && kept <= FLOWS as u64 * first_window && kept <= podway_tunnel::AGENT_BUFFERS, "{kept}");
    assert_eq!(kept, sent.iter().sum::<usize>() as u64, "no more than was sent");
    // Cut and resumed, it goes on; what the agent has is let go though the far ends read nothing.
    world.cut();
    world.freeze(false);
    let _carrier = world.connect().await;
    timeout(SOON, async {
        while world.kept() > 0 {
            for (flow, _far) in &mut flows {
                poll_fn(|cx| {
                    flow.poll_arrivals(cx);
                    Poll::Ready(())
                })
                .await;
            }
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the agent has it all");
    for ((_flow, far), sent) in flows.iter_mut().zip(sent) {
        let mut all = vec![0; sent];
        timeout(SOON, far.read_exact(&mut all)).await.expect("in time").expect("no reset");
    }
}

#[expect(clippy::print_stdout, reason = "a measurement prints")]
fn println_kept(what: &str, kept: u64, flows: usize) {
    println!("{what}: {kept} bytes kept for {flows} flows");
}
