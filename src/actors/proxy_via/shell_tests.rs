//! The shell: a table that knows a virtual address is there before the answer, and the address outlives the connection.

use std::collections::BTreeSet;
use std::net::IpAddr;

use actix::Addr;
use tokio::task::LocalSet;

use super::*;
use crate::actors::shell::start_monitored;
use crate::cluster::ClusterInfo;
use crate::ids::Generation;
use crate::net::route_plan::HostFacts;
use crate::net::views::Destination;
use crate::spec::{RangeSelector, ViaRule};
use crate::workload::{Workload, WorkloadKind};

/// Takes what ProxyVia tells.
struct Ear;

impl Actor for Ear {
    type Context = Context<Self>;
}

macro_rules! hears {
    ($($message:ty),*) => {$(
        impl Handler<$message> for Ear {
            type Result = ();
            fn handle(&mut self, _: $message, _: &mut Context<Self>) {}
        }
    )*};
}
hears!(RoutePlanChanged, TranslationChanged, ViaChanged, ViaWorkloadsChanged);

async fn start(path: &std::path::Path) -> (Addr<ProxyVia>, watch::Receiver<Arc<VipTable>>) {
    let (address, mut vips) = begin(path);
    address.do_send(HostFactsChanged { generation: Generation(1), facts: Arc::new(HostFacts::default()) });
    // Nothing is answered before the file was read.
    vips.wait_for(|table| !table.virtual_ranges.is_empty()).await.unwrap();
    (address, vips)
}

/// Without the host's facts.
fn begin(path: &std::path::Path) -> (Addr<ProxyVia>, watch::Receiver<Arc<VipTable>>) {
    let (table, vips) = watch::channel(Arc::<VipTable>::default());
    let ear = Ear.start();
    let edges = Edges {
        vif: ear.clone().recipient(),
        dns: ear.clone().recipient(),
        session: ear.clone().recipient(),
        client_list: ear.clone().recipient(),
        agent_placer: ear.recipient(),
        table,
    };
    let config = ProxyViaConfig {
        virtual_v4: "246.246.0.0/16".parse().unwrap(),
        virtual_v6: "fd12:3456:789a:1::/64".parse().unwrap(),
    };
    let actor = ProxyVia::new(config, edges).remembering(path.to_owned(), || 2_000_000_000);
    let context = Context::new();
    let address = context.address();
    start_monitored(actor, context, |_| ());
    address.do_send(SelectProxyVia {
        rules: vec![ViaRule {
            range: RangeSelector::Service,
            workload: Workload::new("demo", WorkloadKind::Deployment, "web"),
        }],
        vnat: Vec::new(),
        also_proxy: Vec::new(),
        never_proxy: Vec::new(),
        allow_conflicting: Vec::new(),
        api_server: BTreeSet::new(),
    });
    let info = ClusterInfo {
        service_cidrs: BTreeSet::from(["10.96.0.0/12".parse().unwrap()]),
        pod_cidrs: BTreeSet::from(["10.42.0.0/16".parse().unwrap()]),
        complete: true,
        ..ClusterInfo::default()
    };
    address.do_send(ClusterInfoChanged { generation: Generation(1), info: Arc::new(info) });
    (address, vips)
}

async fn allocate(address: &Addr<ProxyVia>, real: IpAddr) -> IpAddr {
    let (reply, answer) = Reply::new();
    address.do_send(AllocateVips { name: "web.demo.svc".into(), addresses: vec![real], reply });
    answer.await.unwrap().unwrap()[&real]
}

async fn end(address: &Addr<ProxyVia>) {
    let (reply, answer) = Reply::new();
    address.do_send(Stop { reply });
    answer.await.unwrap();
}

#[tokio::test]
async fn a_connection_that_came_to_nothing_leaves_what_is_remembered() {
    let work = async {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vips").join("1000-demo.json");
        let real: IpAddr = "10.96.0.9".parse().unwrap();
        let (first, _) = start(&path).await;
        let vip = allocate(&first, real).await;
        end(&first).await;
        let kept = std::fs::read(&path).unwrap();

        // It publishes what it knows of the cluster, and ends before the file was read.
        let (nothing, _) = begin(&path);
        end(&nothing).await;
        assert_eq!(std::fs::read(&path).unwrap(), kept);
        // One that knows the host, too, and is asked for no name.
        let (nothing, _) = start(&path).await;
        end(&nothing).await;
        assert_eq!(std::fs::read(&path).unwrap(), kept);

        let (last, _) = start(&path).await;
        assert_eq!(allocate(&last, real).await, vip);
        end(&last).await;
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn an_address_is_published_before_it_is_told_and_outlives_the_connection() {
    let work = async {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vips").join("demo.json");
        let real: IpAddr = "10.96.0.9".parse().unwrap();
        let (first, vips) = start(&path).await;
        let vip = allocate(&first, real).await;
        let Destination::Dial { address, .. } = vips.borrow().lookup(vip) else { panic!("{vip} is not known yet") };
        assert_eq!(address, real);
        end(&first).await;

        let (second, _) = start(&path).await;
        allocate(&second, "10.96.0.10".parse().unwrap()).await;
        assert_eq!(allocate(&second, real).await, vip);
        end(&second).await;

        std::fs::write(&path, "damaged").unwrap();
        let (third, _) = start(&path).await;
        allocate(&third, real).await;
        end(&third).await;
    };
    LocalSet::new().run_until(work).await;
}
