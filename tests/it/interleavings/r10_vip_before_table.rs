//! A virtual address reaches nobody before the table and the plan that make it work.

use std::net::IpAddr;
use std::sync::Arc;

use podway::actors::proxy_via::core::{Effect, Input, ProxyViaConfig, ProxyViaCore};
use podway::actors::proxy_via::messages::SelectProxyVia;
use podway::ids::{Generation, Millis, ReplyId};
use podway::net::cidr::{Cidr, covers};
use podway::spec::{RangeSelector, ViaRule};

use crate::support::connect_world::{SERVICE_IP, host, ranges};
use crate::support::facts::{effects, workload};

#[test]
fn a_virtual_address_is_published_and_routed_before_it_is_answered() {
    let config = ProxyViaConfig {
        virtual_v4: "246.246.0.0/16".parse().expect("a range"),
        virtual_v6: "fd00:0:0:246::/64".parse().expect("a range"),
    };
    let selection = SelectProxyVia {
        rules: vec![ViaRule { range: RangeSelector::Service, workload: workload("web") }],
        vnat: Vec::new(),
        also_proxy: Vec::new(),
        never_proxy: Vec::new(),
        allow_conflicting: Vec::new(),
        api_server: [].into(),
    };
    let mut via = ProxyViaCore::new(config);
    let mut came = Vec::new();
    for input in [
        Input::Host(Generation(1), Arc::new(host())),
        Input::Cluster(Generation(1), Arc::new(ranges(true))),
        Input::Select(selection),
        Input::Allocate { reply: ReplyId(1), name: "web.demo".into(), addresses: vec![SERVICE_IP.into()] },
    ] {
        came.extend(effects(&mut via, Millis(0), input));
    }
    let Some(Effect::Answer(_, Ok(answer))) = came.last() else { panic!("the answer comes last: {came:?}") };
    let vip = answer[&IpAddr::from(SERVICE_IP)];
    let published = |effect: &Effect| matches!(effect, Effect::Publish(table) if table.vips.contains_key(&vip));
    let routed = |effect: &Effect| match effect {
        Effect::TellVif(fact) => fact.plan.routes.iter().any(|route| covers(route, &Cidr::from(vip))),
        _ => false,
    };
    assert!(came.iter().any(published) && came.iter().any(routed), "{came:?}");
}
