//! The end: quick, complete, and again and again.

use std::io::{ErrorKind, Read as _, Write as _};
use std::time::{Duration, Instant};

use crate::world::{Daemon, World, seconds, until};

const VIA: [&str; 2] = ["--proxy-via", "service=web"];
/// What podway promises, less what it takes to start any command: on a machine that is busy with other tests, most of it.
const QUICK: Duration = Duration::from_millis(200);
const CYCLES: usize = 10;
const KILLS: usize = 5;

/// Disconnects; how much longer it took than a command that does nothing.
fn disconnected(podway: &Daemon<'_>) -> Duration {
    let began = Instant::now();
    podway.expect(0, &["version"]);
    let nothing = began.elapsed();
    podway.disconnect(&[]).saturating_sub(nothing)
}

/// A wait of podway's own is in all of them, what others do on the machine in some.
fn assert_quick(times: &[Duration]) {
    println!("disconnected in {times:?}");
    assert!(times.iter().any(|took| *took <= QUICK), "{times:?}");
}

#[test]
fn connecting_again_and_again_adds_no_agent_and_each_disconnect_is_quick() {
    let Some(world) = World::start_alone() else { return };
    world.with_daemon(|podway| {
        let began = Instant::now();
        let mut times = Vec::new();
        for _ in 0..CYCLES {
            podway.connect(&VIA);
            assert_eq!(world.seen_from("edge"), "demo/deployment/web");
            times.push(disconnected(podway));
            let now = world.agents();
            // A second pod of the workload may have got its agent meanwhile; never two in one pod.
            let pods: std::collections::BTreeSet<_> = now.iter().map(|(pod, _)| pod).collect();
            assert_eq!(pods.len(), now.len(), "several agents in one pod: {now:?}");
        }
        println!("{CYCLES} cycles in {:?}", began.elapsed());
        assert_quick(&times);
    });
}

#[test]
fn disconnect_ends_open_connections_and_is_as_quick() {
    let Some(world) = World::start_alone() else { return };
    world.with_daemon(|podway| {
        let mut times = Vec::new();
        for _ in 0..3 {
            podway.connect(&[]);
            let mut stream = world.ws.reach("web", 80).unwrap();
            stream.write_all(b"GET /stream?ms=50 HTTP/1.1\r\nHost: web\r\n\r\n").unwrap();
            stream.read_exact(&mut [0; 64]).unwrap();
            times.push(disconnected(podway));
            // What was on its way may still be read; then it has ended, not well.
            let end = std::io::copy(&mut stream, &mut std::io::sink());
            assert!(end.is_err_and(|error| error.kind() != ErrorKind::WouldBlock), "the connection goes on");
        }
        assert_quick(&times);
    });
}

#[test]
fn after_a_kill_the_next_start_puts_everything_right() {
    let Some(world) = World::start() else { return };
    world.with_daemon(|podway| {
        for round in 0..KILLS {
            podway.connect(&VIA);
            assert_eq!(world.seen_from("edge"), "demo/deployment/web");
            podway.kill();
            let traces = crate::traces::Traces::of(&world.ws);
            assert_eq!(traces.devices, world.before().devices, "round {round}: the device outlived the daemon");
            assert_ne!(traces.resolv_conf, world.before().resolv_conf, "round {round}: a kill undoes nothing");
            for words in [&["status"][..], &["connect", "-n", "demo"]] {
                let told = podway.expect(3, words).err;
                assert!(told.contains("/etc/resolv.conf still asks a podwayd that is gone"), "{told}");
                assert!(told.contains("start the daemon: ") && told.contains("podwayd cleanup"), "{told}");
            }
            podway.start();
            world.assert_as_before();
        }
    });
}

#[test]
fn a_signal_to_end_leaves_nothing() {
    let Some(world) = World::start_alone() else { return };
    world.with_daemon(|podway| {
        podway.connect(&VIA);
        assert_eq!(world.seen_from("edge"), "demo/deployment/web");
        let took = podway.stop();
        println!("ended in {took:?}");
        assert!(took < seconds(5), "{took:?}");
        podway.start();
    });
}

#[test]
fn clean_removes_our_own_pod() {
    let Some(world) = World::start() else { return };
    world.with_daemon(|podway| {
        podway.connect(&[]);
        world.ws.who("web").unwrap();
        assert_eq!(world.own_pods().len(), 1);
        podway.disconnect(&["--clean"]);
        // The API server has taken the deletion; the node ends the pod.
        until("our own pod is gone", seconds(10), || world.own_pods().is_empty().then_some(()));
    });
}

#[test]
fn clean_without_a_connection_or_the_right_says_what_to_do() {
    let Some(world) = World::start() else { return };
    let kubeconfig = world.cluster.kubeconfig("ephemeral").unwrap();
    world.with_daemon(|podway| {
        podway.connect(&["--kubeconfig", &kubeconfig]);
        world.ws.who("web").unwrap();
        let [own] = &world.own_pods()[..] else { panic!("{:?}", world.own_pods()) };
        let done = podway.expect(1, &["disconnect", "--clean"]);
        let left = format!("left behind: pod {own}: missing right: delete pods in namespace demo");
        assert!(done.out.contains(&left), "{done:?}");
        assert!(done.err.contains("podway rbac prints the rights that it takes"), "{done:?}");
        // Later, without a connection: where it was.
        let hint = podway.expect(3, &["disconnect", "--clean"]).err;
        assert!(hint.contains("-n demo delete jobs,pods -l podway.dev/key=") && !hint.contains("NAMESPACE"), "{hint}");
    });
}

#[test]
fn an_ordinary_user_connects_and_nothing_is_left() {
    let Some(world) = World::of_nobody() else { return };
    world.connected(&VIA, |_| assert_eq!(world.seen_from("edge"), "demo/deployment/web"));
}
