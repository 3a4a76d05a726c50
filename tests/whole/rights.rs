//! Users with few rights: config/rbac.yaml is enough, and what is missing is named.

use std::time::Instant;

use serde_json::Value;

use crate::world::{World, seconds, until};

/// A user without any right, until a test gives them some.
const USER: &str = "none";

#[test]
fn the_rights_that_podway_prints_are_enough() {
    let Some(world) = World::start() else { return };
    let printed = world.podway(&["rbac", "-n", "demo", "--user", USER]);
    assert!(printed.status.success(), "{printed:?}");
    for document in printed.out.split("\n---\n") {
        let object: Value = serde_saphyr::from_str(document).unwrap();
        world.cluster.apply(object).unwrap();
    }
    let kubeconfig = world.cluster.kubeconfig(USER).unwrap();
    let user = ["--kubeconfig", kubeconfig.as_str()];
    world.connected(&[&user[..], &["--proxy-via", "service=web"]].concat(), |_| {
        assert_eq!(world.seen_from("edge"), "demo/deployment/web");
    });
    world.connected(&user, |_| {
        assert_eq!(world.seen_from("web"), "own");
        assert_eq!(world.ws.echo_datagrams("web", 9004, 5).unwrap(), 5);
    });
}

#[test]
fn a_user_without_any_right_gets_a_clear_error_soon() {
    let Some(world) = World::start_alone() else { return };
    let kubeconfig = world.cluster.kubeconfig(USER).unwrap();
    refused(&world, &["--kubeconfig", &kubeconfig, "--proxy-via", "service=web"], &["demo", "\nhint: "]);
}

#[test]
fn a_workload_that_does_not_exist_is_an_error_with_near_names() {
    let Some(world) = World::start_alone() else { return };
    refused(&world, &["--proxy-via", "service=wbe"], &["wbe", "demo", "web"]);
}

fn refused(world: &World, flags: &[&str], words: &[&str]) {
    world.with_daemon(|podway| {
        let began = Instant::now();
        let done = podway.connect_to(1, flags);
        let took = began.elapsed();
        println!("{took:?}: {}", done.err);
        assert!(took < seconds(2), "after {took:?}");
        words.iter().for_each(|word| assert!(done.err.contains(word), "{word:?} is not in {}", done.err));
        until("nothing is left", seconds(2), || world.is_as_before().then_some(()));
    });
}
