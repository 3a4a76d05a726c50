//! What the files of a host say of its resolver. Blocks on the file system, and waits for nobody there.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use crate::net::resolver::resolv_conf::{ResolvConf, is_marked, read_regular, servers};

/// Where resolved writes the servers that it asks.
const UPLINK: &str = "/run/systemd/resolve/resolv.conf";

/// Whether names of this host are asked of podwayd, by its mark in the file in `etc`. Blocks on the file system.
pub fn is_ours(etc: &Path) -> bool {
    read_regular(&etc.join("resolv.conf")).is_ok_and(|text| is_marked(&text))
}

/// Whether its programs ask resolved: its stub is in resolv.conf, or its module in nsswitch.conf.
pub(super) fn uses_resolved(etc: &Path) -> bool {
    let text = read_regular(&etc.join("resolv.conf")).unwrap_or_default();
    let stub = |server: &IpAddr| [[127, 0, 0, 53], [127, 0, 0, 54]].iter().any(|stub| *server == IpAddr::from(*stub));
    let linked = fs::canonicalize(etc.join("resolv.conf")).is_ok_and(|p| p.starts_with("/run/systemd/resolve"));
    let switch = read_regular(&etc.join("nsswitch.conf")).unwrap_or_default();
    let switch = String::from_utf8_lossy(&switch);
    let hosts = switch.lines().find_map(|line| line.trim_start().strip_prefix("hosts:"));
    let module = hosts.is_some_and(|sources| sources.split_whitespace().any(|source| source == "resolve"));
    linked || module || servers(&text).iter().any(stub)
}

/// The name servers the host uses, loopback left out: those that systemd-resolved asks, and those that the file in `etc`
/// names, or named before we replaced it. Blocks on the file system, briefly.
///
/// systemd-resolved lists the servers of every link, ours among them.
pub fn host_resolvers(etc: &Path) -> BTreeSet<IpAddr> {
    resolvers(etc, Path::new(UPLINK))
}

pub(super) fn resolvers(etc: &Path, uplink: &Path) -> BTreeSet<IpAddr> {
    let uplink = read_regular(uplink).map(|text| servers(&text)).unwrap_or_default();
    let linked = read_regular(&etc.join("resolv.conf")).ok().filter(|text| !is_marked(text));
    let linked = linked.map(|text| servers(&text)).unwrap_or_default();
    let before = ResolvConf::new(etc).previous_servers().unwrap_or_default();
    uplink.into_iter().chain(linked).chain(before).filter(|server| !server.is_loopback()).collect()
}
