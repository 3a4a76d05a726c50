//! The data plane as the daemon has it, with one link whose flows are plain sockets.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use podway::net::data_plane::{DataPlane, Wiring};
use podway::net::dns_tap::DnsSink;
use podway::net::tun::TunDevice;
use podway::net::views::{ClientTable, LinkEntry, VipTable};
use tokio::sync::{mpsc, watch};

use super::socket_link::SocketLink;
use super::until_told;

/// As the daemon's device.
const MTU: usize = 65_520;
/// As the daemon's default.
const UDP_IDLE: Duration = Duration::from_secs(60);
/// The device's own address; `benches/tun` gives it to it.
const OWN: &str = "246.246.0.1";
/// What is routed to the device; `benches/tun` makes the routes.
const ROUTED: &str = "10.96.0.0/12";

pub async fn run(name: &str, to: IpAddr, datagrams_to: IpAddr) -> Result<()> {
    let device = Arc::new(TunDevice::create(name, MTU)?);
    let entry = LinkEntry {
        pod: serde_json::from_value("rig".into())?,
        pod_name: "rig/rig".into(),
        link: Arc::new(SocketLink { to, datagrams_to }),
    };
    let table = ClientTable { general: vec![entry], ..ClientTable::default() };
    let vips = VipTable { device_addresses: vec![OWN.parse()?], routed: vec![ROUTED.parse()?], ..VipTable::default() };
    let (_clients_tx, clients) = watch::channel(Arc::new(table));
    let (_vips_tx, vips) = watch::channel(Arc::new(vips));
    let (blocked_tx, _blocked_rx) = mpsc::channel(16);
    let handle =
        DataPlane::start(device, Wiring { clients, vips, dns: DnsSink::new(drop), blocked_tx, udp_idle: UDP_IDLE });
    println!("ready");
    let ended = handle.ended();
    tokio::select! {
        told = until_told() => told?,
        why = ended => anyhow::bail!("the data plane ended: {why:?}"),
    }
    let counters = handle.counters();
    println!(
        "{}",
        serde_json::json!({
            "flow_full": counters.dropped_flow_full, "udp_full": counters.dropped_udp_full,
            "device_full": counters.dropped_device_full, "refused": counters.refused, "tcp_total": counters.tcp_total,
        })
    );
    handle.stop().await;
    Ok(())
}
