//! The node's network, and how pods are attached to it.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::future::try_join_all;
use netlink_packet_route::AddressFamily;

use super::netlink::{LOOPBACK, TABLE_LOCAL, everything};
use super::{
    API, Hop, LAN, LAN_DNS, LEDGER, NODE, NetError, NetNs, Netlink, POD_ROUTER, Pair, SERVICES, SITE, SITE_GATEWAY,
    WORKSTATION,
};

/// The device of each pod, and its number there.
pub const ETH0: u32 = 2;

/// Numbers of the node's own ends of pairs: above what the kernel chooses itself.
const FIRST: u32 = 1000;

/// The end of the way to services without endpoints.
const NOWHERE: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

/// The device on the LAN.
const LAN_DEVICE: &str = "lan0";

/// The node's network. A clone is another handle.
#[derive(Clone, Debug)]
pub struct NodeNet(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    namespace: NetNs,
    netlink: Netlink,
    next: AtomicU32,
    /// The server elsewhere.
    site: NetNs,
    /// Where services without endpoints end: all addresses, no listener.
    nowhere: NetNs,
    nowhere_index: u32,
}

/// The network of one pod.
#[derive(Clone, Debug)]
pub struct PodNet {
    /// Its namespace.
    pub namespace: NetNs,
    /// Its addresses.
    pub addresses: Pair,
    /// The node's end of its pair of devices.
    pub index: u32,
    /// Its configuration.
    pub netlink: Netlink,
}

/// Settings of a namespace that is part of the cluster, for devices that it will have.
fn settle(router: bool) -> io::Result<()> {
    let net = "/proc/sys/net";
    for (name, value) in [
        // Addresses are usable at once.
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
        // A router asks for neighbours from a link-local one, which the kernel makes.
        ("ipv6/conf/default/addr_gen_mode", "0"),
        ("ipv6/conf/default/accept_ra", "0"),
        ("ipv6/conf/all/disable_ipv6", "0"),
        ("ipv6/conf/default/disable_ipv6", "0"),
        // A service's answers come from addresses that are not behind the device they come from.
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        // Each refusal is told.
        ("ipv4/icmp_ratelimit", "0"),
        ("ipv6/icmp/ratelimit", "0"),
        // Spread flows over backends by their ports, not by addresses alone.
        ("ipv4/fib_multipath_hash_policy", "1"),
        ("ipv6/fib_multipath_hash_policy", "1"),
    ] {
        fs::write(format!("{net}/{name}"), value)?;
    }
    if router {
        fs::write(format!("{net}/ipv4/ip_forward"), "1")?;
        fs::write(format!("{net}/ipv6/conf/all/forwarding"), "1")?;
    }
    // As container runtimes do. A user namespace without other groups has only the first.
    let ping = format!("{net}/ipv4/ping_group_range");
    fs::write(&ping, "0 2147483647").or_else(|_| fs::write(&ping, "0 0"))?;
    // Unprivileged containers serve low ports too.
    fs::write(format!("{net}/ipv4/ip_unprivileged_port_start"), "0")
}

fn both(pair: Pair) -> [(IpAddr, u8); 2] {
    [(pair.v4.into(), 32), (pair.v6.into(), 128)]
}

impl NodeNet {
    /// Makes the calling thread's namespace the node, and attaches the workstation's.
    ///
    /// Must be called within a tokio runtime all of whose threads are in that namespace.
    pub async fn start(workstation: &NetNs) -> Result<NodeNet, NetError> {
        let namespace = NetNs::current()?;
        settle(true)?;
        let netlink = Netlink::here()?;
        netlink.up(LOOPBACK).await?;
        for (address, length) in both(NODE).into_iter().chain([(POD_ROUTER.v4.into(), 32)]) {
            netlink.address(LOOPBACK, address, length).await?;
        }
        let (site, nowhere) = (NetNs::create()?, NetNs::create()?);
        let nowhere_index = FIRST;
        let inner = Inner { namespace, netlink, next: AtomicU32::new(FIRST + 1), site, nowhere, nowhere_index };
        let node = NodeNet(Arc::new(inner));
        tokio::try_join!(node.attach_workstation(workstation), node.attach_site(), node.attach_nowhere())?;
        Ok(node)
    }

    /// The node's namespace.
    pub fn namespace(&self) -> &NetNs {
        &self.0.namespace
    }

    /// That of the server elsewhere.
    pub fn site(&self) -> &NetNs {
        &self.0.site
    }

    /// The node's own configuration.
    pub fn netlink(&self) -> &Netlink {
        &self.0.netlink
    }

    fn number(&self) -> u32 {
        self.0.next.fetch_add(1, Ordering::Relaxed)
    }

    async fn attach_workstation(&self, workstation: &NetNs) -> Result<(), NetError> {
        let netlink = &self.0.netlink;
        let lan = self.number();
        let there = Netlink::open(workstation)?;
        workstation.run(|| settle(false))?;
        there.up(LOOPBACK).await?;
        netlink.pair(LAN_DEVICE, lan, workstation, "eth0", ETH0).await?;
        there.up(ETH0).await?;
        for (address, length) in
            [(LAN.v4_len, [API.v4, LAN_DNS.v4])].into_iter().flat_map(|(l, a)| a.map(|a| (a.into(), l)))
        {
            netlink.address(lan, address, length).await?;
        }
        for address in [API.v6, LAN_DNS.v6] {
            netlink.address(lan, address.into(), LAN.v6_len).await?;
        }
        there.address(ETH0, WORKSTATION.v4.into(), LAN.v4_len).await?;
        there.address(ETH0, WORKSTATION.v6.into(), LAN.v6_len).await?;
        for router in [API.v4.into(), IpAddr::from(API.v6)] {
            there.route(everything(router), 0, &[Hop { index: ETH0, via: Some(router) }], None).await?;
        }
        self.only_the_lan_for_the_workstation().await
    }

    /// Refuses what the workstation sends to other addresses than those of the LAN, the node's other ones included.
    async fn only_the_lan_for_the_workstation(&self) -> Result<(), NetError> {
        let netlink = &self.0.netlink;
        let local = Some(TABLE_LOCAL);
        let all_nodes: IpAddr = Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0).into();
        let link_local: IpAddr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0).into();
        for (family, open) in [
            (AddressFamily::Inet, vec![(LAN.base.v4.into(), LAN.v4_len)]),
            (AddressFamily::Inet6, vec![(LAN.base.v6.into(), LAN.v6_len), (all_nodes, 8), (link_local, 10)]),
        ] {
            netlink.rule(family, 50, None, local).await?;
            for (number, range) in open.into_iter().enumerate() {
                let priority = 10 + u32::try_from(number).unwrap_or(0);
                netlink.rule(family, priority, Some((LAN_DEVICE, Some(range))), local).await?;
            }
            netlink.rule(family, 20, Some((LAN_DEVICE, None)), None).await?;
            netlink.no_first_rule(family).await?;
        }
        Ok(())
    }

    async fn attach_site(&self) -> Result<(), NetError> {
        let (netlink, index, there) = (&self.0.netlink, self.number(), Netlink::open(&self.0.site)?);
        self.0.site.run(|| settle(false))?;
        there.up(LOOPBACK).await?;
        netlink.pair("site0", index, &self.0.site, "eth0", ETH0).await?;
        there.up(ETH0).await?;
        netlink.address(index, SITE_GATEWAY.v4.into(), SITE.v4_len).await?;
        netlink.address(index, SITE_GATEWAY.v6.into(), SITE.v6_len).await?;
        there.address(ETH0, LEDGER.v4.into(), SITE.v4_len).await?;
        there.address(ETH0, LEDGER.v6.into(), SITE.v6_len).await?;
        for router in [SITE_GATEWAY.v4.into(), IpAddr::from(SITE_GATEWAY.v6)] {
            there.route(everything(router), 0, &[Hop { index: ETH0, via: Some(router) }], None).await?;
        }
        Ok(())
    }

    /// A namespace that has every service's address and listens on none: whoever calls is refused, as by kube-proxy.
    async fn attach_nowhere(&self) -> Result<(), NetError> {
        let (netlink, index, there) = (&self.0.netlink, self.0.nowhere_index, Netlink::open(&self.0.nowhere)?);
        self.0.nowhere.run(|| settle(false))?;
        there.up(LOOPBACK).await?;
        netlink.pair("none0", index, &self.0.nowhere, "eth0", ETH0).await?;
        there.up(ETH0).await?;
        netlink.address(index, POD_ROUTER.v6.into(), 64).await?;
        there.address(ETH0, NOWHERE.into(), 64).await?;
        for (router, services, length) in [
            (IpAddr::from(POD_ROUTER.v4), IpAddr::from(SERVICES.base.v4), SERVICES.v4_len),
            (POD_ROUTER.v6.into(), SERVICES.base.v6.into(), SERVICES.v6_len),
        ] {
            there.route(everything(router), 0, &[Hop { index: ETH0, via: Some(router) }], None).await?;
            there.local(services, length).await?;
            netlink.unreachable(services, length).await?;
        }
        Ok(())
    }

    /// Attaches a pod's namespace. Loopback is up, both addresses are usable when this returns.
    pub async fn attach(&self, namespace: NetNs, addresses: Pair) -> Result<PodNet, NetError> {
        let index = self.number();
        namespace.run(|| settle(false))?;
        let there = Netlink::open(&namespace)?;
        let netlink = &self.0.netlink;
        there.up(LOOPBACK).await?;
        netlink.pair(&format!("veth{index}"), index, &namespace, "eth0", ETH0).await?;
        there.up(ETH0).await?;
        let here = async {
            netlink.address(index, POD_ROUTER.v6.into(), 64).await?;
            let hop = [Hop { index, via: None }];
            netlink.route(addresses.v4.into(), 32, &hop, Some(POD_ROUTER.v4.into())).await?;
            netlink.route(addresses.v6.into(), 128, &hop, Some(NODE.v6.into())).await
        };
        let inside = async {
            for (address, length) in both(addresses) {
                there.address(ETH0, address, length).await?;
            }
            for router in [POD_ROUTER.v4.into(), IpAddr::from(POD_ROUTER.v6)] {
                let source = if router.is_ipv4() { addresses.v4.into() } else { IpAddr::from(addresses.v6) };
                there.route(everything(router), 0, &[Hop { index: ETH0, via: Some(router) }], Some(source)).await?;
            }
            Ok(())
        };
        tokio::try_join!(here, inside)?;
        Ok(PodNet { namespace, addresses, index, netlink: there })
    }

    /// Takes a pod off the network: its routes go with its device.
    pub async fn detach(&self, pod: &PodNet) -> Result<(), NetError> {
        self.0.netlink.remove(pod.index).await
    }

    /// Leads a service's addresses to these pods; to none: refuses.
    pub async fn lead(&self, service: &[IpAddr], pods: &[PodNet]) -> Result<(), NetError> {
        try_join_all(service.iter().map(|address| async move {
            let via =
                |pod: &PodNet| if address.is_ipv4() { pod.addresses.v4.into() } else { IpAddr::from(pod.addresses.v6) };
            let mut hops: Vec<Hop> = pods.iter().map(|pod| Hop { index: pod.index, via: Some(via(pod)) }).collect();
            if hops.is_empty() {
                hops.push(Hop { index: self.0.nowhere_index, via: address.is_ipv6().then_some(NOWHERE.into()) });
            }
            let source = if address.is_ipv4() { POD_ROUTER.v4.into() } else { IpAddr::from(NODE.v6) };
            self.0.netlink.route(*address, host_length(*address), &hops, Some(source)).await
        }))
        .await
        .map(drop)
    }

    /// Forgets a service's addresses: nothing is there.
    pub async fn unlead(&self, service: &[IpAddr]) -> Result<(), NetError> {
        for address in service {
            self.0.netlink.no_route(*address, host_length(*address)).await?;
        }
        Ok(())
    }

    /// Makes a service's address one of the node's own.
    pub async fn serve(&self, service: IpAddr) -> Result<(), NetError> {
        self.0.netlink.address(LOOPBACK, service, host_length(service)).await
    }

    /// Takes it away again.
    pub async fn stop_serving(&self, service: IpAddr) -> Result<(), NetError> {
        self.0.netlink.no_address(LOOPBACK, service, host_length(service)).await
    }

    /// Gives the node another address, as of another node in the same namespace. One that it has is fine.
    pub async fn also(&self, node: Pair) -> Result<(), NetError> {
        for (address, length) in both(node) {
            self.0.netlink.address(LOOPBACK, address, length).await?;
        }
        Ok(())
    }
}

impl PodNet {
    /// Makes a service's address one of the pod's own.
    pub async fn serve(&self, service: IpAddr) -> Result<(), NetError> {
        self.netlink.address(LOOPBACK, service, host_length(service)).await
    }

    /// Takes it away again.
    pub async fn stop_serving(&self, service: IpAddr) -> Result<(), NetError> {
        self.netlink.no_address(LOOPBACK, service, host_length(service)).await
    }
}

/// The length of a prefix that is one address.
fn host_length(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}
