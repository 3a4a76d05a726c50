//! Connections that are there, or are not.

use crate::case::{Group, Stage, case, connect};
use crate::world::World;

pub fn groups() -> Vec<Group> {
    let cases = vec![
        case("no connection to end", &["disconnect"], "NotConnected"),
        case("no connection of that name to end", &["disconnect", "shop"], "NotConnected").says(&["shop"]),
        case("no connection of that name to show", &["status", "shop2"], "NotConnected").says(&["shop2"]),
        case("no connection of that name to list", &["list", "shop3"], "NotConnected").says(&["shop3"]),
        case("no connection of that name to wait for", &["wait", "shop4"], "NotConnected").says(&["shop4"]),
        case("no connection of that name, and others", &["status", "shop5"], "NotConnected")
            .given(connected)
            .says(&["shop5"]),
        connect("the same name with other flags", &["--proxy-via", "service=db", "--dns", "off"], "AlreadyConnected")
            .given(connected)
            .says(&["proxy-via", "dns"]),
        connect("a second one to the same cluster", &["--name", "two"], "AlreadyConnected").given(connected),
        case("one of several, without a name", &["disconnect"], "BadRequest").given(|world| {
            connected(world);
            world.podway(&["connect", "-n", "demo", "--name", "two", "--server", "https://[2001:db8:2::1]:6443"]);
        }),
        case("another user's", &["disconnect", "minicluster"], "NotOwner").given(|world| {
            connected(world);
            world.shell("chmod 666 /run/podway/podway.sock; chmod 755 /run/podway");
            world.undo(|world| drop(world.shell("chmod 600 /run/podway/podway.sock")));
            world.through(&["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        }),
        case("what is waited for is no rule's workload", &["wait", "--for=workload/edge"], "WorkloadNotFound")
            .given(connected),
        case("the time to wait is over", &["wait", "--for=workload/idle", "--timeout", "500ms"], "TimedOut").given(
            |world| {
                let done = world.run(&["connect", "-n", "demo", "--proxy-via", "service=idle"]);
                assert_eq!(done.status.code(), Some(4), "{done:?}");
            },
        ),
        connect("the time to connect is over", &["--timeout", "500ms"], "TimedOut").given(|world| {
            world.fault(serde_json::json!({"on": {"resource": "pods/portforward"}, "fault": "hang"}));
        }),
    ];
    vec![Group { title: "Connections", stage: Stage::Daemon, cases }]
}

fn connected(world: &World) {
    world.podway(&["connect", "-n", "demo", "--proxy-via", "service=web"]);
}
