//! The way to the API server is slow, cut, silent; the API server is away.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::transfers::{carries, patient};
use crate::world::{LIMIT, World, seconds, until};

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

#[test]
fn a_connect_that_was_said_to_go_on_does_so_until_the_silent_api_server_answers() {
    let Some(world) = World::start() else { return };
    world.with_daemon(|podway| {
        let id = set(&world, json!({"fault": "black_hole"}));
        let done = podway.expect(124, &["connect", "-n", "demo", "--timeout", "1s", VIA[0], VIA[1]]);
        assert!(done.err.contains("it goes on by itself"), "{}", done.err);
        // Longer than silence is believed in, and than the question that is under way.
        let line = || podway.status().api_server.filter(|line| line.next_try.is_some());
        let (line, took) = until("it is to be asked again", 2 * LIMIT, line);
        println!("asked again after {took:?}: {line:?}");
        let shown = podway.expect(0, &["status"]).out;
        assert!(shown.contains("API server   no answer for "), "{shown}");
        withdraw(&world, &id);
        until("Ready", 2 * LIMIT, || podway.status().holds("Ready").then_some(()));
        assert_eq!(podway.status().api_server, None);
        assert_eq!(world.seen_from("edge"), "demo/deployment/web");
        let log = podway.expect(0, &["logs"]).out;
        for said in ["the API server does not answer", "the API server answers again", "an agent is ready"] {
            assert!(log.contains(said), "{said} is not in {log}");
        }
        podway.disconnect(&[]);
    });
}

#[test]
fn downloads_and_uploads_go_on_though_the_way_is_cut_every_two_seconds() {
    const COUNT: usize = 30_000_000;
    let Some(world) = World::start() else { return };
    world.connected(&VIA, |_| {
        // So thin that it takes a while.
        set(&world, json!({"fault": "link", "delay_millis": 2, "bytes_per_second": 10_000_000}));
        let (began, mut cuts) = (Instant::now(), 0);
        carries(&world.ws, COUNT, |over| {
            let mut next = Instant::now() + seconds(2);
            while !over() {
                assert!(began.elapsed() < 6 * LIMIT, "it does not come to an end");
                thread::sleep(Duration::from_millis(20));
                if Instant::now() >= next {
                    next += seconds(2);
                    let reset = cuts % 2 == 0;
                    let on = json!({"resource": "pods/portforward"});
                    cuts +=
                        world.cluster.fault(json!({"do": "cut", "on": on, "reset": reset})).unwrap().as_u64().unwrap();
                }
            }
        });
        println!("{COUNT} bytes each in {:?}, {cuts} carriers were cut", began.elapsed());
        assert!(cuts >= 3, "{cuts} carriers were cut: it was too quick");
    });
}

const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// Uploads; gives how many port-forwards there are at its end: those of channels, and tunnels.
fn upload(world: &World, count: usize) -> [u64; 2] {
    let mut sink = patient(&world.ws, "edge", 9003);
    for _ in 0..count / 100_000 {
        sink.write_all(&[7; 100_000]).unwrap();
    }
    let carriers = ["v5.channel.k8s.io, v4.channel.k8s.io", TUNNEL].map(|protocol| {
        let on = json!({"resource": "pods/portforward", "protocol": protocol});
        world.cluster.fault(json!({"do": "connections", "on": on})).unwrap().as_u64().unwrap()
    });
    sink.shutdown(Shutdown::Write).unwrap();
    let mut said = String::new();
    sink.read_to_string(&mut said).unwrap();
    assert_eq!(said.trim(), count.to_string());
    carriers
}

#[test]
fn what_goes_up_in_bulk_takes_a_tunnel_where_the_api_server_knows_one() {
    const COUNT: usize = 60_000_000;
    let Some(world) = World::start() else { return };
    for knows in [true, false] {
        if !knows {
            set(&world, json!({"fault": "refuse", "code": 403, "on": {"protocol": TUNNEL}}));
        }
        world.connected(&VIA, |podway| {
            // All that are dialled without bulk.
            until("AgentReady", LIMIT, || podway.status().holds("AgentReady").then_some(()));
            let [before, tunnels] = upload(&world, 1_000_000);
            assert_eq!(tunnels, 0, "that is little");
            let carriers = upload(&world, COUNT);
            assert_eq!(carriers, if knows { [before, 1] } else { [before + 1, 0] });
        });
    }
}

#[test]
fn open_connections_stand_still_while_the_api_server_is_away_and_go_on() {
    away(seconds(10));
}

#[test]
#[ignore = "takes more than a minute"]
fn open_connections_stand_still_while_the_api_server_is_away_for_a_minute() {
    away(seconds(60));
}

fn away(outage: Duration) {
    const COUNT: usize = 60_000_000;
    let Some(world) = World::start() else { return };
    world.connected(&VIA, |podway| {
        // One that is quiet, and says something now and then.
        let mut quiet = patient(&world.ws, "edge", 9001);
        quiet.write_all(b"before").unwrap();
        quiet.read_exact(&mut [0; 6]).unwrap();
        let thin = set(&world, json!({"fault": "link", "bytes_per_second": 8_000_000}));
        carries(&world.ws, COUNT, |over| {
            thread::sleep(seconds(1));
            assert!(!over(), "it was too quick");
            // The first rule that is about a connection decides.
            withdraw(&world, &thin);
            let (began, id) = (Instant::now(), set(&world, json!({"fault": "away"})));
            quiet.write_all(b"during").unwrap();
            lasts(began, outage);
            assert!(!over());
            withdraw(&world, &id);
            let began = Instant::now();
            let mut back = [0; 6];
            quiet.read_exact(&mut back).unwrap();
            assert_eq!(&back, b"during");
            println!("an open connection goes on {:?} after the API server is back", began.elapsed());
            assert!(began.elapsed() < seconds(8));
        });
        quiet.write_all(b"after").unwrap();
        quiet.read_exact(&mut [0; 5]).unwrap();
        until("Ready", seconds(10), || podway.status().holds("Ready").then_some(()));
    });
}

#[test]
fn connections_through_a_pod_that_is_gone_are_reset() {
    let Some(world) = World::start() else { return };
    world.connected(&VIA, |_| {
        let mut stream = world.ws.reach("edge", 9001).unwrap();
        stream.write_all(b"before").unwrap();
        stream.read_exact(&mut [0; 6]).unwrap();
        // Whichever carries it.
        let pods = world.names("demo", "web");
        pods.iter().for_each(|pod| world.cluster.delete("pods", "demo", pod).unwrap());
        pods.iter().for_each(|pod| world.gone("demo", pod));
        let began = Instant::now();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let error = stream.read(&mut [0; 8]).unwrap_err();
        println!("reset {:?} after the pods had gone", began.elapsed());
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(began.elapsed() < seconds(5));
    });
}

/// The fault itself, which has no event at its end.
fn lasts(began: Instant, outage: Duration) {
    thread::sleep(outage.saturating_sub(began.elapsed()));
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
