//! The shell on a real device, in a network namespace of its own. Needs CAP_NET_ADMIN.

use std::collections::BTreeSet;

use tokio::sync::mpsc::UnboundedSender;
use tokio::task::LocalSet;

use super::messages::VifState;
use super::*;
use crate::actors::shell::start_monitored;
use crate::net::route_plan::RoutePlan;

/// Passes on the state of the device.
struct Ear(UnboundedSender<VifState>);

impl Actor for Ear {
    type Context = Context<Self>;
}

impl Handler<VifChanged> for Ear {
    type Result = ();
    fn handle(&mut self, message: VifChanged, _: &mut Context<Self>) {
        self.0.send(message.state).ok();
    }
}

macro_rules! hears {
    ($($message:ty),*) => {$(
        impl Handler<$message> for Ear {
            type Result = ();
            fn handle(&mut self, _: $message, _: &mut Context<Self>) {}
        }
    )*};
}
hears!(FlowStats, HostFactsChanged, QueryArrived, FlowsBlocked);

async fn open_and_close() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let (ear, deaf) = (Ear(tell).start(), Ear(mpsc::unbounded_channel().0).start());
    let (_clients, clients) = watch::channel(Arc::default());
    let (_vips, vips) = watch::channel(Arc::default());
    let edges = Edges {
        session: ear.recipient(),
        dns: deaf.clone().recipient(),
        stats: deaf.clone().recipient(),
        proxy_via: deaf.clone().recipient(),
        queries: deaf.clone().recipient(),
        blocked: deaf.recipient(),
        clients,
        vips,
    };
    let context = Context::new();
    let vif = context.address();
    start_monitored(Vif::new(edges), context, |_| ());
    let set = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let plan = RoutePlan {
        addresses: set(&["246.246.0.1/32", "fd12::1/128"]),
        routes: set(&["10.96.0.0/12", "246.246.0.0/16", "fd12::/64"]),
    };
    vif.do_send(RoutePlanChanged { generation: Generation(1), plan });
    vif.do_send(Open { device: "podway0".to_owned(), mtu: 1400 });
    let (routes, failed) = loop {
        match told.recv().await.unwrap() {
            VifState::Up { applied: Generation(1), routes, failed, .. } => break (routes, failed),
            VifState::Up { .. } | VifState::Down => {}
            VifState::Failed { why } => panic!("{why}"),
        }
    };
    assert_eq!(routes, ["10.96.0.0/12", "246.246.0.0/16"]);
    let refused: BTreeSet<&str> = failed.keys().map(String::as_str).collect();
    assert_eq!(refused, BTreeSet::from(["fd12::/64", "fd12::1/128"]));

    let (reply, closed) = Reply::new();
    vif.do_send(Close { reply });
    closed.await.unwrap();
    assert!(RouteHandle::open().unwrap().link_index("podway0").await.is_err());
}

/// Says that a test was left out; fails where nothing may be.
fn skipped(why: &str) {
    assert!(std::env::var_os("PODWAY_REQUIRE_ROOT_TESTS").is_none(), "must not be left out here: {why}");
    eprintln!("skipped: {why}");
}

#[test]
fn a_host_without_ipv6_is_connected() {
    let thread = std::thread::spawn(|| {
        if let Err(error) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
            return skipped(&format!("no network namespace ({error})"));
        }
        if let Err(error) = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1") {
            return skipped(&format!("IPv6 cannot be turned off ({error})"));
        }
        if !Path::new("/dev/net/tun").exists() {
            return skipped("no TUN driver");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let limited = async { timeout(Duration::from_secs(20), open_and_close()).await };
        LocalSet::new().block_on(&runtime, limited).unwrap();
    });
    thread.join().unwrap();
}
