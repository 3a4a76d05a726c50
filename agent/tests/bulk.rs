//! Flows that move much leave their carrier for one of their own, and lose nothing on the way.
#![allow(clippy::expect_used, clippy::allow_attributes, reason = "a test says what it expects")]

#[path = "support/world.rs"]
mod world;

use std::time::Duration;

use bytes::Bytes;
use podway_tunnel::client::{Carrier, Config, Direction, TcpFlow};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use world::*;

/// Bytes each way.
const LENGTH: usize = 24 << 20;

/// The carriers for bulk, one for each way.
struct Beside([Carrier; 2]);

impl Beside {
    async fn new(world: &World) -> Beside {
        Beside::of(world, &world.config).await
    }

    async fn of(world: &World, config: &Config) -> Beside {
        let carrier = async |bulk| world.try_connect(&Config { bulk, ..config.clone() }).await.expect("welcome");
        Beside([carrier(Some(Direction::Down)).await, carrier(Some(Direction::Up)).await])
    }

    fn flows(&self) -> usize {
        self.0.iter().map(Carrier::flows).sum()
    }

    fn close(&self) {
        self.0.iter().for_each(Carrier::close);
    }

    fn is_alive(&self) -> bool {
        self.0.iter().all(Carrier::is_alive)
    }
}

/// What comes at a far end, and what it sends.
fn far(far: TcpStream, expected: Bytes, sends: Bytes) -> JoinHandle<()> {
    tokio::spawn(async move {
        let (mut read, mut write) = far.into_split();
        let mut got = Vec::new();
        let writing = async {
            write.write_all(&sends).await.expect("no reset");
            write.shutdown().await.expect("finished");
        };
        let (read, ()) = tokio::join!(read.read_to_end(&mut got), writing);
        read.expect("no reset");
        assert!(got == expected, "{} bytes arrived", got.len());
    })
}

/// What goes each way. To be made before there is a carrier: it takes long, and whoever says nothing for long is dead.
fn both(seed: usize) -> (Bytes, Bytes) {
    (pattern(LENGTH, seed), pattern(LENGTH, 100 + seed))
}

/// Both ways at once, each with other bytes. Gives the flow back.
fn transfer(mut flow: TcpFlow, socket: TcpStream, (up, down): (Bytes, Bytes)) -> (JoinHandle<()>, JoinHandle<TcpFlow>) {
    let far = far(socket, up.clone(), down.clone());
    let near = tokio::spawn(async move {
        let got = both_ways(&mut flow, up).await;
        assert!(got == down, "{} bytes came", got.len());
        flow
    });
    (far, near)
}

#[tokio::test]
async fn a_flow_that_moves_much_goes_to_the_carrier_for_bulk_and_others_stay() {
    let bytes = both(1);
    let world = World::new().await;
    let (main, mut quiet, mut quiet_far) = opened(&world).await;
    let beside = Beside::new(&world).await;
    assert_eq!(beside.flows(), 0);
    let (flow, socket) = open(&main).await;
    let (far, near) = transfer(flow, socket, bytes);
    timeout(6 * SOON, far).await.expect("in time").expect("whole");
    let flow = timeout(SOON, near).await.expect("in time").expect("whole");
    assert_eq!(beside.flows(), 1, "it has moved");
    send_all(&mut quiet, Bytes::from_static(b"one")).await;
    quiet_far.read_exact(&mut [0; 3]).await.expect("read");
    assert_eq!(beside.flows(), 1, "the quiet one has not");
    drop(flow);
    timeout(SOON, async {
        while beside.flows() > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it leaves nothing there");
    assert!(main.is_alive() && beside.is_alive());
    drop((quiet, quiet_far));
    world.agent_is_empty().await;
}

#[tokio::test]
async fn a_flow_goes_to_the_carrier_for_the_way_of_most_of_its_bytes() {
    let (much, little) = (pattern(LENGTH, 1), pattern(1, 2));
    let world = World::new().await;
    let main = world.connect().await;
    let Beside([downwards, upwards]) = Beside::new(&world).await;
    for (up, down, flows) in [(much.clone(), little.clone(), [0, 1]), (little, much, [1, 0])] {
        let (flow, socket) = open(&main).await;
        let (far, near) = transfer(flow, socket, (up, down));
        timeout(6 * SOON, far).await.expect("in time").expect("whole");
        let flow = timeout(SOON, near).await.expect("in time").expect("whole");
        assert_eq!([&downwards, &upwards].map(Carrier::flows), flows);
        drop(flow);
        timeout(SOON, async {
            while downwards.flows() + upwards.flows() > 0 {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("it leaves nothing there");
    }
}

#[tokio::test]
async fn bulk_arrives_whole_though_its_carrier_comes_and_goes() {
    let bytes = [1, 2, 3].map(both);
    let world = World::new().await;
    let main = world.connect().await;
    let mut transfers = Vec::new();
    for bytes in bytes {
        let (flow, socket) = open(&main).await;
        transfers.push(transfer(flow, socket, bytes));
    }
    let coming_and_going = async {
        let mut moved = 0;
        loop {
            let beside = Beside::new(&world).await;
            sleep(Duration::from_millis(300 + world.below(50))).await;
            moved += beside.flows();
            // The line goes on: its flows find the way back.
            beside.close();
            sleep(Duration::from_millis(world.below(40))).await;
            assert!(moved < 1000, "it never ends");
            if transfers.iter().all(|(far, near)| far.is_finished() && near.is_finished()) {
                return moved;
            }
        }
    };
    let moved = timeout(6 * SOON, coming_and_going).await.expect("in time");
    assert!(moved > 0, "no flow was ever on it");
    for (far, near) in transfers {
        far.await.expect("whole");
        drop(near.await.expect("whole"));
    }
    assert!(main.is_alive());
    world.agent_is_empty().await;
}

#[tokio::test]
async fn where_there_is_none_a_flow_asks_for_it_and_goes_on() {
    let bytes = both(1);
    let world = World::new().await;
    let line = world.config.line.clone().expect("has one");
    let main = world.connect().await;
    let (flow, socket) = open(&main).await;
    let (far, near) = transfer(flow, socket, bytes);
    let wanted = async {
        tokio::select! {
            () = line.bulk_wanted(Direction::Down) => {}
            () = line.bulk_wanted(Direction::Up) => {}
        }
    };
    timeout(SOON, wanted).await.expect("it is wanted");
    timeout(6 * SOON, far).await.expect("in time").expect("whole");
    drop(timeout(SOON, near).await.expect("in time").expect("whole"));
}

#[tokio::test]
async fn a_carrier_of_another_process_in_its_place_takes_no_flow() {
    let bytes = both(1);
    let mut world = World::new().await;
    let main = world.connect().await;
    let (flow, socket) = open(&main).await;
    // Another agent at another address, in the same line: as when a container was restarted.
    let other = World::new().await;
    world.address = other.address;
    let stranger = Config { pair: other.config.pair.clone(), ..world.config.clone() };
    let beside = Beside::of(&world, &stranger).await;
    let (far, near) = transfer(flow, socket, bytes);
    timeout(6 * SOON, far).await.expect("in time").expect("whole");
    let _flow = timeout(SOON, near).await.expect("in time").expect("whole");
    assert_eq!(beside.flows(), 0);
}

#[tokio::test]
async fn a_flow_that_is_not_taken_over_goes_on_where_it_was() {
    let bytes = both(1);
    let world = World::new().await;
    let main = world.connect().await;
    let (flow, socket) = open(&main).await;
    // The same agent, which knows no such flow of that session.
    let stranger = Config { session_id: [9; 16], ..world.config.clone() };
    let beside = Beside::of(&world, &stranger).await;
    let (far, near) = transfer(flow, socket, bytes);
    timeout(6 * SOON, far).await.expect("in time").expect("whole");
    let _flow = timeout(SOON, near).await.expect("in time").expect("whole");
    assert_eq!(beside.flows(), 0);
    assert!(main.is_alive() && beside.is_alive());
}
