//! Echo by ICMP, which podway does not carry: docs/limits.md says so.

use std::io::ErrorKind;
use std::time::Duration;

use podway_minicluster::net::API;

use crate::world::{World, seconds, until};

#[test]
fn an_echo_request_is_dropped_and_counted() {
    let Some(world) = World::start() else { return };
    let ping = |host, limit| world.ws.ping(host, limit);
    assert_eq!(ping(API.v4.into(), seconds(5)).unwrap(), b"podway", "what is not of the cluster answers");
    world.connected(&[], |podway| {
        for host in world.service("demo", "web") {
            let before = podway.status().flows.dropped_other;
            let error = ping(host, Duration::from_millis(100)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{host}: {error}");
            until("it is counted", seconds(5), || (podway.status().flows.dropped_other > before).then_some(()));
        }
        assert_eq!(ping(API.v6.into(), seconds(5)).unwrap(), b"podway", "the rest of the network still does");
    });
}
