//! What virtual addresses stood for in earlier connections: kept for a day, so that an address that a program still
//! holds keeps its meaning after a reconnect.
//!
//! It is a hint: what is damaged, old or does not fit is left out, and addresses are then drawn as if it had never been.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{RESERVED, nth};
use crate::net::cidr::Cidr;
use crate::net::views::{Target, VipEntry};
use crate::workload::Workload;

/// How long a virtual address is remembered after its last use, in seconds.
const KEPT: u64 = 24 * 60 * 60;
/// The longest file that is read, in bytes: all addresses of an IPv4 range need about half of it.
const LONGEST: u64 = 16 << 20;
/// Addresses that are remembered at most.
const MOST: usize = 65_536;
/// Form of the file.
const VERSION: u32 = 1;

/// Virtual addresses of earlier connections, and the ranges they were drawn from.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VipMemory {
    version: u32,
    /// The ranges that were configured.
    pub configured: Vec<Cidr>,
    /// The ranges that were used, one of each family.
    pub ranges: Vec<Cidr>,
    /// The addresses.
    pub vips: Vec<KeptVip>,
}

/// One virtual address of an earlier connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptVip {
    /// The virtual address.
    pub vip: IpAddr,
    /// The real one.
    pub real: IpAddr,
    /// The workload it went through; none stands for the default egress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Workload>,
    /// Seconds since 1970 when it was last in use.
    pub at: u64,
}

impl KeptVip {
    /// One that stands for `entry`.
    pub fn new(vip: IpAddr, entry: &VipEntry, at: u64) -> KeptVip {
        let via = match &entry.target {
            Target::Workload(workload) => Some(workload.clone()),
            Target::General => None,
        };
        KeptVip { vip, real: entry.real, via, at }
    }

    /// What it stands for.
    pub fn entry(&self) -> VipEntry {
        let target = self.via.clone().map_or(Target::General, Target::Workload);
        VipEntry { real: self.real, target }
    }
}

impl VipMemory {
    /// A memory of these; of too many, those in use last.
    pub fn new(configured: Vec<Cidr>, ranges: Vec<Cidr>, vips: Vec<KeptVip>) -> VipMemory {
        let mut vips = vips;
        if vips.len() > MOST {
            vips.sort_by_key(|kept| std::cmp::Reverse(kept.at));
            vips.truncate(MOST);
        }
        VipMemory { version: VERSION, configured, ranges, vips }
    }

    /// Reads a memory; nothing when the text is damaged or of another form. Leaves out what is more than a day older than
    /// `now` (seconds since 1970), from its future, doubled, or outside its range.
    pub fn parse(text: &[u8], now: u64) -> Option<VipMemory> {
        let mut memory = serde_json::from_slice::<VipMemory>(text).ok().filter(|memory| memory.version == VERSION)?;
        let (mut vips, mut entries) = (BTreeSet::new(), BTreeSet::new());
        let ranges = memory.ranges.clone();
        memory.vips.retain(|kept| {
            let fresh = now.checked_sub(kept.at).is_some_and(|age| age <= KEPT);
            let fits = kept.vip.is_ipv4() == kept.real.is_ipv4()
                && ranges.iter().any(|range| range.contains(&kept.vip) && kept.vip >= nth(range, RESERVED));
            fresh && fits && vips.insert(kept.vip) && entries.insert(kept.entry())
        });
        Some(memory)
    }

    /// Reads the memory at `path`; empty when there is none or it cannot be used. Blocks.
    pub fn load(path: &Path, now: u64) -> VipMemory {
        let mut text = Vec::new();
        let read = fs::File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut text));
        match read {
            Ok(_) => VipMemory::parse(&text, now).unwrap_or_else(|| {
                tracing::warn!(path = %path.display(), "the virtual addresses of before are damaged; starting without them");
                VipMemory::default()
            }),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "cannot read the virtual addresses of before");
                }
                VipMemory::default()
            }
        }
    }

    /// Writes the memory to `path`, whole or not at all, for its owner only. Blocks.
    ///
    /// # Errors
    ///
    /// What the file system says; the file of before is then still there.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let temporary = path.with_extension("new");
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        // Not synced: what a power cut damages is left out when it is read, and a disconnect does not wait for a disk.
        file.write_all(&serde_json::to_vec(self)?)?;
        fs::rename(&temporary, path)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::workload::WorkloadKind;

    const NOW: u64 = 2_000_000_000;

    fn kept(vip: &str, real: &str, at: u64) -> KeptVip {
        KeptVip { vip: vip.parse().unwrap(), real: real.parse().unwrap(), via: None, at }
    }

    fn memory(vips: Vec<KeptVip>) -> VipMemory {
        let ranges: Vec<Cidr> = vec!["246.246.0.0/16".parse().unwrap(), "fd12::/64".parse().unwrap()];
        VipMemory::new(ranges.clone(), ranges, vips)
    }

    fn read_back(memory: &VipMemory) -> VipMemory {
        VipMemory::parse(&serde_json::to_vec(memory).unwrap(), NOW).unwrap_or_default()
    }

    #[test]
    fn a_memory_is_written_and_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vips").join("a.json");
        assert_eq!(VipMemory::load(&path, NOW), VipMemory::default());
        let mut one = kept("246.246.1.0", "10.96.0.9", NOW - 5);
        one.via = Some(Workload::new("demo", WorkloadKind::Deployment, "web"));
        let memory = memory(vec![one, kept("fd12::1:0", "fd00::9", NOW)]);
        memory.save(&path).unwrap();
        assert_eq!(VipMemory::load(&path, NOW), memory);
        fs::write(&path, "{").unwrap();
        assert_eq!(VipMemory::load(&path, NOW), VipMemory::default());
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let good = kept("246.246.1.0", "10.96.0.9", NOW);
        let bad = [
            kept("246.246.1.1", "10.96.0.10", NOW - KEPT - 1),
            kept("246.246.1.2", "10.96.0.11", NOW + 1),
            kept("246.246.1.0", "10.96.0.12", NOW),
            kept("246.246.1.3", "10.96.0.9", NOW),
            kept("246.246.0.2", "10.96.0.13", NOW),
            kept("10.0.0.1", "10.96.0.14", NOW),
            kept("246.246.1.4", "fd00::9", NOW),
        ];
        let all = std::iter::once(good.clone()).chain(bad).collect();
        assert_eq!(read_back(&memory(all)).vips, [good]);
        let other = VipMemory { version: VERSION + 1, ..memory(Vec::new()) };
        assert_eq!(read_back(&other), VipMemory::default());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            VipMemory::parse(&bytes, NOW);
        }
    }
}
