//! What comes before a reset is told before it, either way.

use std::sync::Arc;
use std::time::Duration;

use podway::net::agent::FlowEvent;
use smoltcp::socket::tcp::{RecvError, State};
use tokio::time::timeout;

use super::fake::{FakeLink, Manner, Sent};
use super::{Bench, both, connected, links};

#[test]
fn a_program_reads_what_the_far_side_sent_before_it_reset() {
    both(|v6| async move {
        let (_bench, mut peer, far) = connected(v6).await;
        far.write("last words");
        far.event(FlowEvent::Reset);
        assert_eq!(peer.read(10).await, b"last words");
        peer.state_is(State::Closed).await;

        // The end of its direction as well: then it has come to an end in order, and writing fails.
        let (_bench, mut peer, far) = connected(v6).await;
        far.write("last words");
        far.event(FlowEvent::Fin);
        far.event(FlowEvent::Reset);
        assert_eq!(peer.read(10).await, b"last words");
        peer.state_is(State::Closed).await;
        assert_eq!(peer.socket().recv(|_| (0, ())), Err(RecvError::Finished));
    });
}

#[test]
fn the_far_side_reads_what_a_program_sent_before_it_reset() {
    both(|v6| async move {
        for closes in [false, true] {
            let (bench, mut peer, far) = connected(v6).await;
            peer.write(b"last words").await;
            if closes {
                peer.close();
            }
            peer.socket().abort();
            peer.until(|_| Some(())).await;
            assert_eq!(far.read(10).await, b"last words");
            if closes {
                assert_eq!(far.next().await, Sent::Fin);
            }
            assert_eq!(far.next().await, Sent::Reset);
            bench.counted(|c| c.tcp_open == 0).await;
        }
    });
}

#[test]
fn a_reset_waits_for_what_came_before_it_but_not_for_ever() {
    both(|v6| async move {
        for reads in [true, false] {
            let (link, mut opened) = FakeLink::with_window(Manner::Open, 4);
            let mut bench = Bench::new(v6, links(&[Arc::clone(&link)]));
            let to = bench.to();
            let mut peer = bench.peer(to);
            let far = opened.recv().await.unwrap();
            peer.write(b"last words").await;
            peer.socket().abort();
            peer.until(|_| Some(())).await;
            if reads {
                tokio::time::sleep(Duration::from_millis(500)).await;
                assert_eq!(far.read(10).await, b"last words");
                assert_eq!(far.next().await, Sent::Reset);
            }
            let ends = bench.counted(|c| c.tcp_open == 0);
            timeout(Duration::from_secs(2), ends).await.expect("a far side that does not read holds nothing");
        }
    });
}
