//! What podway could leave behind on a workstation.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use rustix::net::{RecvFlags, SendFlags};

use crate::workstation::{Kind, Workstation};

/// Everything of the workstation that podway touches, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces {
    pub devices: BTreeSet<String>,
    /// Messages of the kernel, without what changes by itself.
    addresses: BTreeSet<Vec<u8>>,
    routes: BTreeSet<Vec<u8>>,
    rules: BTreeSet<Vec<u8>>,
    mounts: String,
    pub resolv_conf: String,
    etc: BTreeSet<String>,
    /// But for the daemon's own directory.
    run: BTreeSet<String>,
}

impl Traces {
    pub fn of(workstation: &Workstation) -> Traces {
        let netlink = Netlink(workstation.socket(Kind::Route));
        let devices = workstation.read("/proc/net/dev");
        let devices = devices.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
        Traces {
            devices: devices.collect(),
            addresses: netlink.dump(22, 8, &[6]),
            routes: netlink.dump(26, 12, &[12]),
            rules: netlink.dump(34, 12, &[]),
            mounts: workstation.read("/proc/self/mounts"),
            resolv_conf: workstation.read("/etc/resolv.conf"),
            etc: workstation.list("/etc"),
            run: workstation.list("/run").into_iter().filter(|name| name != "podway").collect(),
        }
    }

    /// What differs from another state of it, for people.
    pub fn differences(&self, before: &Traces) -> Vec<String> {
        fn differ<T: PartialEq + std::fmt::Debug>(what: &str, before: &T, now: &T) -> Option<String> {
            (before != now).then(|| format!("{what}: {before:?}, now {now:?}"))
        }
        [
            differ("devices", &before.devices, &self.devices),
            differ("addresses", &before.addresses, &self.addresses),
            differ("routes", &before.routes, &self.routes),
            differ("rules", &before.rules, &self.rules),
            differ("mounts", &before.mounts, &self.mounts),
            differ("resolv.conf", &before.resolv_conf, &self.resolv_conf),
            differ("/etc", &before.etc, &self.etc),
            differ("/run", &before.run, &self.run),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// What the kernel tells of a network (rtnetlink(7)).
struct Netlink(OwnedFd);

impl Netlink {
    /// All objects of the kind that `ask` asks for: their fixed part of `head` bytes, and their attributes but for those
    /// of these numbers.
    fn dump(&self, ask: u16, head: usize, without: &[u16]) -> BTreeSet<Vec<u8>> {
        const HEADER: usize = 16;
        const REQUEST_DUMP: u16 = 0x301;
        const ERROR: u16 = 2;
        const DONE: u16 = 3;
        let mut question = vec![0; HEADER + head];
        let length = u32::try_from(question.len()).unwrap();
        question[..4].copy_from_slice(&length.to_ne_bytes());
        question[4..6].copy_from_slice(&ask.to_ne_bytes());
        question[6..8].copy_from_slice(&REQUEST_DUMP.to_ne_bytes());
        rustix::net::send(&self.0, &question, SendFlags::empty()).unwrap();
        let mut found = BTreeSet::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let (_, length) = rustix::net::recv(&self.0, &mut buffer, RecvFlags::empty()).unwrap();
            let mut rest = &buffer[..length];
            while rest.len() >= HEADER {
                let length = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
                let body = &rest[HEADER..length];
                match u16::from_ne_bytes(rest[4..6].try_into().unwrap()) {
                    DONE => return found,
                    ERROR => panic!("the kernel refuses to list objects of kind {ask}"),
                    _ => found.insert([&body[..head], &attributes(&body[head..], without)].concat()),
                };
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

fn attributes(mut rest: &[u8], without: &[u16]) -> Vec<u8> {
    let mut kept = Vec::new();
    while rest.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        if !without.contains(&u16::from_ne_bytes([rest[2], rest[3]])) {
            kept.extend_from_slice(&rest[..length]);
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    kept
}
