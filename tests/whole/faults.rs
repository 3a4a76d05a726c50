//! The way to the API server is slow, cut, silent; the API server is away.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::{World, seconds, until};

const VIA: [&str; 2] = ["--proxy-via", "service=web"];

/// Sets a fault of everybody's connections; returns its number.
fn set(world: &World, fault: Value) -> Value {
    world.cluster.fault(json!({"do": "set", "rule": fault})).unwrap()
}

fn withdraw(world: &World, id: &Value) {
    assert_eq!(world.cluster.fault(json!({"do": "withdraw", "id": id})).unwrap(), json!(true));
}

/// A new connection within so long.
fn recovers(world: &World, limit: Duration) {
    let (_, took) = until("a new connection", limit, || world.ws.who("edge").ok());
    println!("a new connection after {took:?}");
}

#[test]
fn eighty_milliseconds_away_connect_works() {
    let Some(world) = World::start() else { return };
    set(&world, json!({"fault": "link", "delay_millis": 40}));
    let began = Instant::now();
    world.connected(&VIA, |_| {
        assert_eq!(world.seen_from("edge"), "demo/deployment/web");
        println!("first answer after {:?}", began.elapsed());
    });
}

#[test]
fn after_connections_to_the_api_server_were_reset_new_flows_work_at_once() {
    let Some(world) = World::start() else { return };
    world.connected(&VIA, |podway| {
        assert_eq!(world.seen_from("edge"), "demo/deployment/web");
        let cut = world.cluster.fault(json!({"do": "cut", "reset": true})).unwrap();
        assert!(cut.as_u64().unwrap() > 0);
        recovers(&world, seconds(5));
        until("Ready", seconds(10), || podway.status().holds("Ready").then_some(()));
    });
}

#[test]
fn the_api_server_is_away_and_comes_back() {
    outage(json!({"fault": "away"}));
}

#[test]
fn something_before_the_api_server_resets_connections_for_a_while() {
    outage(json!({"fault": "cut", "reset": true}));
}

fn outage(fault: Value) {
    /// Longer than the longest pause between two tries.
    const OUTAGE: Duration = Duration::from_secs(4);
    let Some(world) = World::start() else { return };
    world.connected(&VIA, |podway| {
        assert_eq!(world.seen_from("edge"), "demo/deployment/web");
        let names = world.ws.lookup("web.demo.svc.cluster.local").unwrap();
        let (began, id) = (Instant::now(), set(&world, fault));
        let shows = || (!podway.status().holds("Ready")).then_some(());
        println!("the outage shows after {:?}", until("the outage shows in status", OUTAGE, shows).1);
        assert_eq!(world.ws.lookup("web.demo.svc.cluster.local").unwrap(), names, "lost in the outage");
        lasts(began, OUTAGE);
        withdraw(&world, &id);
        recovers(&world, seconds(5));
        until("Ready", seconds(10), || podway.status().holds("Ready").then_some(()));
    });
}

#[test]
fn the_way_to_the_api_server_is_silent_for_a_while() {
    /// Longer than it takes until a link is given up.
    const OUTAGE: Duration = Duration::from_secs(9);
    let Some(world) = World::start() else { return };
    world.connected(&VIA, |podway| {
        assert_eq!(world.seen_from("edge"), "demo/deployment/web");
        let (began, id) = (Instant::now(), set(&world, json!({"fault": "black_hole"})));
        until("the silence shows in status", OUTAGE, || (!podway.status().holds("Ready")).then_some(()));
        println!("the silence shows after {:?}", began.elapsed());
        lasts(began, OUTAGE);
        withdraw(&world, &id);
        recovers(&world, seconds(5));
        until("Ready", seconds(10), || podway.status().holds("Ready").then_some(()));
    });
}

/// The fault itself, which has no event at its end.
fn lasts(began: Instant, outage: Duration) {
    std::thread::sleep(outage.saturating_sub(began.elapsed()));
}

#[test]
fn an_api_server_that_nobody_serves_is_an_error_that_says_so() {
    let Some(world) = World::start() else { return };
    world.with_daemon(|podway| {
        let began = Instant::now();
        let done = podway.connect_to(1, &["--server", "https://127.0.0.1:9"]);
        println!("{:?}: {}", began.elapsed(), done.err);
        assert!(done.err.contains("127.0.0.1:9") && done.err.contains("\nhint: "), "not helpful: {}", done.err);
    });
}
