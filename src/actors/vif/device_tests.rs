//! The shell on a real device, in a network namespace of its own. Needs CAP_NET_ADMIN.

use std::collections::BTreeSet;

use actix::Addr;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::messages::VifState;
use super::*;
use crate::actors::client_list::messages::ViaWorkloadsChanged;
use crate::actors::pod_watcher::messages::ClusterInfoChanged;
use crate::actors::proxy_via::core::ProxyViaConfig;
use crate::actors::proxy_via::messages::{SelectProxyVia, TranslationChanged, ViaChanged, VipsInUseChanged};
use crate::actors::proxy_via::{self, ProxyVia};
use crate::actors::shell::start_monitored;
use crate::cluster::ClusterInfo;
use crate::net::in_namespace::{in_namespace, skipped};
use crate::net::route_plan::{HostFacts, RoutePlan};
use crate::spec::ViaRule;
use crate::workload::{Workload, WorkloadKind};

/// What was told on the edges that a test listens to.
#[derive(Debug)]
enum Told {
    State(VifState),
    Host(Arc<HostFacts>),
    Plan(RoutePlan),
}

/// Notes what passes, and passes it on.
struct Ear {
    tell: UnboundedSender<Told>,
    vif: Option<Addr<Vif>>,
    proxy_via: Option<Addr<ProxyVia>>,
}

impl Actor for Ear {
    type Context = Context<Self>;
}

impl Handler<VifChanged> for Ear {
    type Result = ();
    fn handle(&mut self, message: VifChanged, _: &mut Context<Self>) {
        self.tell.send(Told::State(message.state)).ok();
    }
}

impl Handler<HostFactsChanged> for Ear {
    type Result = ();
    fn handle(&mut self, message: HostFactsChanged, _: &mut Context<Self>) {
        // What ProxyVia makes of it comes to this mailbox later, so a plan is noted after its cause.
        if let Some(proxy_via) = &self.proxy_via {
            proxy_via.do_send(message.clone());
        }
        self.tell.send(Told::Host(message.facts)).ok();
    }
}

impl Handler<RoutePlanChanged> for Ear {
    type Result = ();
    fn handle(&mut self, message: RoutePlanChanged, _: &mut Context<Self>) {
        self.tell.send(Told::Plan(message.plan.clone())).ok();
        if let Some(vif) = &self.vif {
            vif.do_send(message);
        }
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
hears!(FlowStats, QueryArrived, FlowsBlocked, TranslationChanged, ViaChanged, ViaWorkloadsChanged, VipsInUseChanged);

/// Vif, with ProxyVia where the test wants its decisions.
struct Both {
    vif: Addr<Vif>,
    proxy_via: Addr<ProxyVia>,
    told: UnboundedReceiver<Told>,
    _clients: watch::Sender<Arc<ClientTable>>,
}

impl Both {
    fn start(etc: &std::path::Path) -> Both {
        let (tell, told) = unbounded_channel();
        let (vif_context, proxy_via_context) = (Context::new(), Context::new());
        let (vif, proxy_via): (Addr<Vif>, Addr<ProxyVia>) = (vif_context.address(), proxy_via_context.address());
        let ear = Ear { tell, vif: Some(vif.clone()), proxy_via: Some(proxy_via.clone()) }.start();
        let deaf = Ear { tell: unbounded_channel().0, vif: None, proxy_via: None }.start();
        let (_clients, clients) = watch::channel(Arc::default());
        let (table, vips) = watch::channel(Arc::default());
        let edges = Edges {
            session: ear.clone().recipient(),
            dns: deaf.clone().recipient(),
            stats: deaf.clone().recipient(),
            proxy_via: ear.clone().recipient(),
            in_use: deaf.clone().recipient(),
            queries: deaf.clone().recipient(),
            blocked: deaf.clone().recipient(),
            clients,
            vips,
            buffers: podway_tunnel::client::budget(),
        };
        start_monitored(Vif::new(edges, Duration::from_secs(60), etc.to_owned()), vif_context, |_| ());
        let edges = proxy_via::Edges {
            vif: ear.recipient(),
            dns: deaf.clone().recipient(),
            session: deaf.clone().recipient(),
            client_list: deaf.clone().recipient(),
            agent_placer: deaf.recipient(),
            table,
        };
        let config = ProxyViaConfig {
            virtual_v4: "246.246.0.0/16".parse().unwrap(),
            virtual_v6: "fd12:3456:789a:1::/64".parse().unwrap(),
        };
        start_monitored(ProxyVia::new(config, edges), proxy_via_context, |_| ());
        Both { vif, proxy_via, told, _clients }
    }

    /// Connects as a session does, to a cluster with this service range.
    fn connect(&self, device: &str, service: &str) {
        self.vif.do_send(Open { device: device.to_owned(), mtu: 1400 });
        let web = Workload::new("demo", WorkloadKind::Deployment, "web");
        self.proxy_via.do_send(SelectProxyVia {
            rules: ["127.0.0.1/32", "::1/128"]
                .map(|range| ViaRule { range: range.parse().unwrap(), workload: web.clone() })
                .into(),
            vnat: Vec::new(),
            also_proxy: Vec::new(),
            never_proxy: Vec::new(),
            allow_conflicting: Vec::new(),
            api_server: BTreeSet::new(),
        });
        let info = ClusterInfo {
            service_cidrs: BTreeSet::from([service.parse().unwrap()]),
            complete: true,
            ..ClusterInfo::default()
        };
        self.proxy_via.do_send(ClusterInfoChanged { generation: Generation(1), info: Arc::new(info) });
    }

    /// Waits for something to be told; what comes before it is dropped.
    async fn until<T>(&mut self, found: impl Fn(Told) -> Option<T>) -> T {
        loop {
            if let Some(found) = found(self.told.recv().await.unwrap()) {
                return found;
            }
        }
    }

    /// The device with all of this on it.
    async fn carries(&mut self, wanted: &[&str]) -> BTreeMap<String, String> {
        let wanted: BTreeSet<&str> = wanted.iter().copied().collect();
        self.until(|told| match told {
            Told::State(VifState::Up { routes, failed, .. }) => {
                let routes: BTreeSet<&str> = routes.iter().map(String::as_str).collect();
                wanted.is_subset(&routes).then_some(failed)
            }
            Told::State(VifState::Failed { why }) => panic!("{why}"),
            Told::State(VifState::Down) | Told::Host(_) | Told::Plan(_) => None,
        })
        .await
    }

    /// The host's network with this new address is told, and no plan before it: so nothing came of what was told before.
    async fn rests(&mut self, address: Cidr) {
        let moved = self.until(|told| match told {
            Told::Host(facts) => facts.addresses.contains(&address).then_some(None),
            Told::Plan(plan) => Some(Some(plan)),
            Told::State(_) => None,
        });
        assert_eq!(moved.await, None);
    }

    async fn close(self, device: &str) {
        let (reply, closed) = Reply::new();
        self.vif.do_send(Close { reply });
        closed.await.unwrap();
        assert!(RouteHandle::open().unwrap().link_index(device).await.is_err());
        let (reply, stopped) = Reply::new();
        self.proxy_via.do_send(Stop { reply });
        stopped.await.unwrap();
    }
}

#[test]
fn a_connection_at_rest_stays_at_rest() {
    in_namespace(|| async {
        let etc = tempfile::tempdir().unwrap();
        let file = etc.path().join("resolv.conf");
        std::fs::write(&file, "nameserver 192.0.2.53\n").unwrap();
        // An address of the host changes with each round, so that the network is read again after what we did.
        let churn = TunDevice::create("churn0", 1400).unwrap();
        let routes = RouteHandle::open().unwrap();
        routes.set_up(churn.index().unwrap(), 1400).await.unwrap();

        let mut both = Both::start(etc.path());
        both.connect("podway0", "10.96.0.0/12");
        both.carries(&["10.96.0.0/12", "246.246.0.0/16"]).await;
        for round in 0..6_u8 {
            // The host asks us now, as it does after names were attached; later it also asks the server of before.
            let text = if round % 2 == 0 { "" } else { "nameserver 192.0.2.53\n" };
            std::fs::write(&file, format!("nameserver 246.246.0.2\n{text}")).unwrap();
            let address: Cidr = format!("172.30.{round}.1/24").parse().unwrap();
            routes.add_address(churn.index().unwrap(), address).await.unwrap();
            both.rests(address).await;
        }
        // A route that is not ours and takes packets away: moved once, and there it stays.
        routes.add_route(churn.index().unwrap(), "246.246.9.0/24".parse().unwrap()).await.unwrap();
        both.carries(&["10.96.0.0/12", "247.246.0.0/16"]).await;
        std::fs::write(&file, "nameserver 246.246.0.2\nnameserver 247.246.0.2\n").unwrap();
        routes.del_route(churn.index().unwrap(), "246.246.9.0/24".parse().unwrap()).await.unwrap();
        for address in ["172.31.0.1/24", "172.31.1.1/24"] {
            routes.add_address(churn.index().unwrap(), address.parse().unwrap()).await.unwrap();
            both.rests(address.parse().unwrap()).await;
        }
        both.close("podway0").await;
    });
}

#[test]
fn a_host_without_ipv6_is_connected() {
    in_namespace(|| async {
        if let Err(error) = std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1") {
            return skipped(&format!("IPv6 cannot be turned off ({error})"));
        }
        let etc = tempfile::tempdir().unwrap();
        let mut both = Both::start(etc.path());
        both.connect("podway0", "10.96.0.0/12");
        let failed = both.carries(&["10.96.0.0/12", "246.246.0.0/16"]).await;
        assert_eq!(failed, BTreeMap::new());
        both.close("podway0").await;
    });
}

#[test]
fn connections_to_two_clusters_come_to_rest_side_by_side() {
    in_namespace(|| async {
        let etc = tempfile::tempdir().unwrap();
        let mut first = Both::start(etc.path());
        first.connect("podway0", "10.96.0.0/12");
        first.carries(&["10.96.0.0/12", "246.246.0.0/16"]).await;
        let mut second = Both::start(etc.path());
        second.connect("podway1", "10.96.0.0/16");
        second.carries(&["247.246.0.0/16"]).await;
        assert!(first.told.is_empty() || first.told.try_recv().is_ok_and(|told| !matches!(told, Told::Plan(_))));

        // What the first held comes to the second when it ends; virtual addresses stay.
        first.close("podway0").await;
        second.carries(&["10.96.0.0/16", "247.246.0.0/16"]).await;
        // Its device is the older one now.
        let mut third = Both::start(etc.path());
        third.connect("podway0", "10.0.0.0/8");
        third.carries(&["246.246.0.0/16"]).await;
        second.close("podway1").await;
        third.carries(&["10.0.0.0/8", "246.246.0.0/16"]).await;
        third.close("podway0").await;
    });
}

#[test]
fn connections_made_at_once_come_to_rest_side_by_side() {
    in_namespace(|| async {
        let etc = tempfile::tempdir().unwrap();
        let (mut first, mut second) = (Both::start(etc.path()), Both::start(etc.path()));
        first.connect("podway0", "10.96.0.0/16");
        second.connect("podway1", "10.97.0.0/16");
        first.carries(&["10.96.0.0/16"]).await;
        second.carries(&["10.97.0.0/16"]).await;
        let routes = RouteHandle::open().unwrap();
        loop {
            let mut held = Vec::new();
            for device in ["podway0", "podway1"] {
                let all = routes.routes(routes.link_index(device).await.unwrap()).await.unwrap();
                held.push(
                    all.into_iter()
                        .filter(|cidr| cidr.prefix_len() == 16 && !cidr.to_string().starts_with("10."))
                        .count(),
                );
            }
            if held == [1, 1] {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        first.close("podway0").await;
        second.close("podway1").await;
    });
}

#[test]
fn a_device_that_is_known_to_be_ours_is_removed_and_another_is_left() {
    in_namespace(|| async {
        let device = TunDevice::create("podway0", 1400).unwrap();
        let index = device.index().unwrap();
        gone("podway0", None).await.unwrap();
        gone("podway0", Some(index + 1)).await.unwrap();
        assert_eq!(device.index().unwrap(), index, "whoever's it is, it is not ours");
        gone("podway0", Some(index)).await.unwrap();
        assert!(device.index().is_err(), "it is still there");
        gone("podway0", Some(index)).await.unwrap();
    });
}
